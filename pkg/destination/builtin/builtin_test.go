package builtin_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/builtin"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/test/destinationtest"
)

// The wiring of the deployed functions: the role of an endpoint is assumed with its
// tenant as external ID, and the queue gets a message signed by the role's credentials.
func TestAQueueWithARoleIsSentToAsThatRole(t *testing.T) {
	var assumed url.Values
	var sentBy string
	cloud := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.HasPrefix(r.Header.Get("X-Amz-Target"), "AmazonSQS.") {
			w.Header().Set("Content-Type", "application/x-amz-json-1.0")
			if strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".GetQueueUrl") {
				fmt.Fprintf(w, `{"QueueUrl":"http://%s/210987654321/webhooks-crm"}`, r.Host)
				return
			}
			sentBy = r.Header.Get("Authorization")
			_, _ = io.WriteString(w, `{"MessageId":"m"}`)
			return
		}
		assumed, _ = url.ParseQuery(string(body))
		w.Header().Set("Content-Type", "text/xml")
		fmt.Fprintf(w, `<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>s</SecretAccessKey>`+
			`<SessionToken>t</SessionToken><Expiration>%s</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	}))
	t.Cleanup(cloud.Close)
	clouds := builtin.Deployed(aws.Config{
		Region: "eu-central-1", BaseEndpoint: &cloud.URL, Credentials: credentials.NewStaticCredentialsProvider("AKIAFUNCTION", "s", ""),
	})
	clouds.SQS = cloud.URL
	router, err := builtin.Open(builtin.Settings{}, clouds)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = router.Close() })
	const role = "arn:aws:iam::210987654321:role/webhooks-crm"
	o := router.Deliver(t.Context(), destination.Target{
		Tenant: "acme", ID: "ep_1", URL: "sqs://210987654321/webhooks-crm?region=eu-central-1", RoleARN: role,
	}, destinationtest.Message(signature.NewSecret(), "hello"))
	if o.Class != delivery.Success {
		t.Fatalf("outcome %+v", o)
	}
	if assumed.Get("RoleArn") != role || assumed.Get("ExternalId") != "acme" || assumed.Get("DurationSeconds") != "900" {
		t.Errorf("assumed %v", assumed)
	}
	if !strings.Contains(sentBy, "ASIAROLE") {
		t.Errorf("sent by %s, want the role's credentials", sentBy)
	}
}

func TestInvalidNetworksAreAnErrorAtTheStart(t *testing.T) {
	if _, err := builtin.Open(builtin.Settings{AllowNetworks: "10.0.0.0"}, builtin.Clouds{}); err == nil || !strings.Contains(err.Error(), "ALLOW_NETWORKS") {
		t.Errorf("error %v", err)
	}
}

// A secret that an adapter does not send would be stored for nothing, and its owner would
// believe that it is used.
func TestAuthIsRefusedWhereItIsNotSent(t *testing.T) {
	router, err := builtin.Open(builtin.Settings{}, builtin.Clouds{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = router.Close() })
	for _, to := range []string{"sqs://queue?region=eu-central-1", "eventbridge://bus?region=eu-central-1", "pubsub://project-1/topic", "kafka://b.example.com:9093/topic?tls=true", "https://example.com/"} {
		target := destination.Target{Tenant: "default", ID: "ep_1", URL: to}
		if err := router.Check(target); err != nil {
			t.Errorf("%s without auth: %v", to, err)
		}
		target.Auth = &endpoint.Auth{Bearer: endpoint.NewSecret("marker")}
		err := router.Check(target)
		if http := strings.HasPrefix(to, "https"); http && err != nil || !http && (err == nil || !strings.Contains(err.Error(), "auth applies to HTTP")) {
			t.Errorf("%s with auth: %v", to, err)
		}
	}
}

// asked records the names of secrets that are read, and has none.
type asked []string

func (a *asked) Secret(_ context.Context, name string) (string, error) {
	*a = append(*a, name)
	return "", errors.New("no such secret")
}

func TestClientCertificatesAreReadFromTheDeploymentsSecrets(t *testing.T) {
	var names asked
	router, err := builtin.Open(builtin.Settings{}, builtin.Clouds{Secrets: &names})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = router.Close() })
	o := router.Deliver(t.Context(), destination.Target{
		Tenant: "default", ID: "ep_1", URL: "https://example.com/", Auth: &endpoint.Auth{ClientCertificate: "tidings/default/crm"},
	}, destinationtest.Message(signature.NewSecret(), "hello"))
	if o.Class != delivery.Invalid || o.Permanent || len(names) != 1 || names[0] != "tidings/default/crm" {
		t.Errorf("%+v, read %q", o, names)
	}
}
