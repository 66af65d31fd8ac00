package builtin_test

import (
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/builtin"
)

const (
	queue = "sqs://webhooks-orders?region=us-east-1"
	bus   = "eventbridge://webhooks-orders?region=us-east-1"
	topic = "pubsub://project/topic"
	msk   = "kafka://b.example.com:9098/topic?tls=true&sasl=msk-iam&region=us-east-1"
	role  = "arn:aws:iam::123456789012:role/webhooks-acme"
)

// Destinations that know only the deployment are for the tenants that are named, when an
// endpoint is added and again at each attempt.
func TestSecurityTheDeploymentsIdentityIsBoundToTenants(t *testing.T) {
	for name, c := range map[string]struct {
		rules, tenant, url, role string
		allowed                  bool
	}{
		"the default tenant, its queue":         {"", "default", queue, "", true},
		"the default tenant, its topic":         {"", "default", topic, "", true},
		"the default tenant, MSK":               {"", "default", msk, "", true},
		"another tenant, the queue":             {"", "acme", queue, "", false},
		"another tenant, the topic":             {"", "acme", topic, "", false},
		"the default tenant, its bus":           {"", "default", bus, "", true},
		"another tenant, the bus":               {"", "acme", bus, "", false},
		"another tenant with a role, the bus":   {"", "acme", bus, role, true},
		"its own bus by a naming rule":          {"*=*webhooks-{tenant}", "acme", "eventbridge://webhooks-acme?region=us-east-1", "", true},
		"another tenant, MSK":                   {"", "acme", msk, "", false},
		"another tenant with a role, the queue": {"", "acme", queue, role, true},
		"another tenant with a role, MSK":       {"", "acme", msk, role, true},
		"another tenant with a role, the topic": {"", "acme", topic, role, false},
		"another tenant, HTTP":                  {"", "acme", "https://example.com/", "", true},
		"named":                                 {"acme=sqs://webhooks-orders", "acme", queue, "", true},
		"named, and another has it not":         {"acme=sqs://webhooks-orders", "other", queue, "", false},
		"named, and the default keeps all":      {"acme=sqs://webhooks-orders", "default", topic, "", true},
		"the default is named":                  {"default=sqs://webhooks-orders", "default", topic, "", false},
		"by the account":                        {"acme=sqs://123456789012/webhooks-orders", "acme", queue, "", false},
		"by a naming rule":                      {"*=sqs://webhooks-{tenant}", "acme", "sqs://webhooks-acme?region=us-east-1", "", true},
		"another's name by a naming rule":       {"*=sqs://webhooks-{tenant}", "acme", "sqs://webhooks-other?region=us-east-1", "", false},
		"more than the rule names":              {"*=sqs://webhooks-{tenant}", "acme", "sqs://webhooks-acme-2?region=us-east-1", "", false},
		"a star in a tenant's rule":             {"acme=pubsub://project/acme-*", "acme", "pubsub://project/acme-1", "", true},
		"another scheme in capitals":            {"", "acme", "SQS://webhooks-orders?region=us-east-1", "", false},
	} {
		r, err := builtin.Open(builtin.Settings{DestinationTenants: c.rules, GoogleProvider: "projects/1/locations/global/workloadIdentityPools/p/providers/p"}, builtin.Clouds{})
		if err != nil {
			t.Fatal(err)
		}
		target := destination.Target{Tenant: c.tenant, ID: "ep", URL: c.url, RoleARN: c.role}
		err = r.Check(target)
		if c.allowed != (err == nil) {
			t.Errorf("%s: %v", name, err)
		}
		if !c.allowed {
			if outcome := r.Deliver(t.Context(), target, destination.Message{}); outcome.Class != delivery.Invalid || !outcome.Permanent {
				t.Errorf("%s: an attempt of an endpoint that is stored already: %+v", name, outcome)
			}
			if err != nil && c.role == "" && !strings.Contains(err.Error(), "DestinationTenants") {
				t.Errorf("%s: the error does not say what to do: %v", name, err)
			}
		}
		_ = r.Close()
	}
	for _, wrong := range []string{"acme", "acme=", "=sqs://q", "a b=sqs://q", "*=sqs://webhooks-*"} {
		if _, err := builtin.Open(builtin.Settings{DestinationTenants: wrong}, builtin.Clouds{}); err == nil {
			t.Errorf("%q is accepted", wrong)
		}
	}
}
