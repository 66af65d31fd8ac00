package awsclient

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/endpoint"
)

var (
	accountForm = regexp.MustCompile(`^[0-9]{12}$`)
	regionForm  = regexp.MustCompile(`^[a-z]{2,3}(-[a-z]+)+-[0-9]{1,2}$`)
)

// Region returns the region in the query of a destination's URL, which may have these other
// parameters. It returns an error for what no URL and no target of a service of AWS may have.
// grant says how access is granted without a role.
func Region(t destination.Target, u *url.URL, service, grant string, others ...string) (string, error) {
	allowed := append([]string{"region"}, others...)
	query := u.Query()
	for key, values := range query {
		if !slices.Contains(allowed, key) || len(values) != 1 {
			return "", fmt.Errorf("parameter %q is unknown or a duplicate: a URL of %s has %s, once", key, service, strings.Join(allowed, " and "))
		}
	}
	region := query.Get("region")
	switch {
	case t.Format == endpoint.FormatCloudEventsBinary:
		return "", errors.New(service + " has no binary mode of CloudEvents: use the format cloudevents")
	case u.User != nil:
		return "", errors.New("a URL must not hold a user name or password: grant access with " + grant + ", or set role_arn")
	case u.Fragment != "":
		return "", errors.New("a URL of " + service + " has no fragment (#…): remove it")
	case t.Credentials != "":
		return "", errors.New("credentials apply to Kafka, not to " + service + ": grant access with " + grant + ", or set role_arn")
	case !regionForm.MatchString(region):
		return "", errors.New("the region is missing or malformed: add ?region=, such as us-east-1")
	}
	return region, nil
}

// CheckAccount returns an error unless an account id is twelve digits.
func CheckAccount(id string) error {
	if !accountForm.MatchString(id) {
		return errors.New("the account id is not twelve digits")
	}
	return nil
}
