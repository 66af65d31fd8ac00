package builtin

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/event"
)

// Some destinations accept every request with the deployment's own identity: a queue whose policy
// names dispatch's role, a topic that Google's federation opens to it, an MSK cluster. They
// cannot tell the deployment's tenants apart, so the deployment does: a tenant uses the
// destinations that its rules name. Otherwise any tenant could send to another tenant's
// queue (a confused deputy).

// tenantRules are the patterns of the destinations that a tenant may use with the
// deployment's identity.
type tenantRules map[string][]string

// everyTenant are the rules of all tenants but the default; in their patterns, tenantName
// stands for the tenant.
const (
	everyTenant = "*"
	tenantName  = "{tenant}"
)

// parseTenantRules parses "tenant=pattern;tenant=pattern". A pattern is a destination's URL
// without its query; * stands for any text. The default tenant may use all that IAM
// allows, unless it has rules of its own; other tenants may use what is named.
func parseTenantRules(text string) (tenantRules, error) {
	rules := tenantRules{}
	for part := range strings.SplitSeq(text, ";") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		tenant, pattern, found := strings.Cut(part, "=")
		if !found || pattern == "" {
			return nil, fmt.Errorf("%q must have the form tenant=pattern, such as acme=sqs://tidings-webhooks-acme", part)
		}
		if err := event.CheckTenant(tenant); err != nil && tenant != everyTenant {
			return nil, fmt.Errorf("tenant %q %w", tenant, err)
		}
		if tenant == everyTenant && !strings.Contains(pattern, tenantName) {
			return nil, fmt.Errorf("%q would give one destination to all tenants: the pattern must have %s", part, tenantName)
		}
		rules[tenant] = append(rules[tenant], pattern)
	}
	if rules[event.DefaultTenant] == nil {
		rules[event.DefaultTenant] = []string{"*"}
	}
	return rules, nil
}

// matches reports whether a text has the form of a pattern, in which * is any text.
func matches(pattern, text string) bool {
	quoted := strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*")
	return regexp.MustCompile("^(?s:" + quoted + ")$").MatchString(text)
}

// check returns an error if a tenant may not use a destination with the deployment's
// identity.
func (r tenantRules) check(tenant string, u *url.URL) error {
	text := strings.ToLower(u.Scheme) + "://" + u.Host + u.EscapedPath()
	patterns := r[tenant]
	if tenant != event.DefaultTenant {
		for _, p := range r[everyTenant] {
			patterns = append(slices.Clip(patterns), strings.ReplaceAll(p, tenantName, tenant))
		}
	}
	if slices.ContainsFunc(patterns, func(p string) bool { return matches(p, text) }) {
		return nil
	}
	return fmt.Errorf("tenant %s may not use %s with the deployment's own identity: the parameter DestinationTenants must name it, or the endpoint needs a role of its own (role_arn)", tenant, text)
}

// bound limits a kind of destination to the tenants' rules where an endpoint uses the
// deployment's identity.
func (r tenantRules) bound(k destination.Kind, usesIdentity func(destination.Target, *url.URL) bool) destination.Kind {
	check := k.Check
	k.Check = func(t destination.Target, u *url.URL) error {
		if err := check(t, u); err != nil {
			return err
		}
		if usesIdentity(t, u) {
			return r.check(t.Tenant, u)
		}
		return nil
	}
	return k
}

// withoutRole means that dispatch's own role is used.
func withoutRole(t destination.Target, _ *url.URL) bool { return t.RoleARN == "" }

// always: Google knows the deployment only.
func always(destination.Target, *url.URL) bool { return true }

// mskWithoutRole means that dispatch's own role logs in to the brokers.
func mskWithoutRole(t destination.Target, u *url.URL) bool {
	return t.RoleARN == "" && strings.EqualFold(u.Query().Get("sasl"), "msk-iam")
}
