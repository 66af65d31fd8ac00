package builtin_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/eventbridgeadapter"
	"github.com/tidings-dev/tidings/pkg/destination/guard"
	"github.com/tidings-dev/tidings/pkg/destination/httpadapter"
	"github.com/tidings-dev/tidings/pkg/destination/kafkaadapter"
	"github.com/tidings-dev/tidings/pkg/destination/pubsubadapter"
	"github.com/tidings-dev/tidings/pkg/destination/sqsadapter"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/test/guardtest"
)

var (
	sqsForm    = regexp.MustCompile(`^sqs://([0-9]{12}/)?[A-Za-z0-9_-]{1,80}(\.fifo)?\?region=[a-z0-9-]+$`)
	busForm    = regexp.MustCompile(`^eventbridge://[A-Za-z0-9._-]{1,256}\?(region=[a-z0-9-]+|account=[0-9]{12}|&)+$`)
	pubsubForm = regexp.MustCompile(`^pubsub://[a-z0-9.:-]+/[A-Za-z0-9._~+%-]+$`)
)

// FuzzURL checks URLs of endpoints. An accepted URL has no user information, and an
// attempt dials no special-purpose address. The error for a refused URL is short and
// does not contain the password.
func FuzzURL(f *testing.F) {
	for _, seed := range []string{
		"https://example.com/hook?a=b", "http://93.184.215.14:8080/", "https://[2606:2800:21f:cb07::1]/", "HTTPS://EXAMPLE.com./", "https://u:hunter2@example.com/", "https://u:hunter2@exa mple.com/",
		"https://u:hunter2@[::1/", "https://example.com:hunter2@/", "https://%31%32%37.0.0.1/", "kafka://b1.example.com:9092,b2.example.com:9093/events?tls=true", "kafka://8.8.8.8:9092,127.0.0.1:1/e",
		"kafka://u:hunter2@b.example:9092/e", "kafka://[2606:4700::1111]:9092/e?sasl=plain", "sqs://123456789012/queue?region=us-east-1", "sqs://queue.fifo?region=eu-central-1", "sqs://u:hunter2@queue?region=us-east-1",
		"eventbridge://bus?region=us-east-1&account=123456789012", "eventbridge://u:hunter2@bus?region=us-east-1", "eventbridge://169.254.169.254?region=us-east-1",
		"pubsub://my-project/topic", "pubsub://example.com:my-project/topic", "pubsub://u:hunter2@my-project/topic", "gopher://127.0.0.1/", "https:opaque", "//x", "", "https://\x00", "hunter2://u:p@x/",
	} {
		f.Add(seed)
	}
	for _, host := range append(guardtest.Hosts(), guardtest.Disguises...) {
		f.Add("https://" + host + "/")
	}
	var special []netip.Prefix
	for _, r := range guardtest.Registries {
		special = append(special, netip.MustParsePrefix(r))
	}
	var d dials
	// No name resolves, so only addresses in the URL are dialed.
	noDNS := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no name server") }}
	g := guard.New(guard.Options{AllowHTTP: true, Connecting: d.connecting}).WithResolver(noDNS)
	r := destination.NewRouter(10, httpadapter.Kind(httpadapter.Options{Guard: g}), kafkaadapter.Kind(kafkaadapter.Options{Guard: g}),
		pubsubadapter.Kind(pubsubadapter.Options{}), sqsadapter.Kind(sqsadapter.Options{Config: func() aws.Config { return aws.Config{} }}),
		eventbridgeadapter.Kind(eventbridgeadapter.Options{Config: func() aws.Config { return aws.Config{} }}))
	f.Fuzz(func(t *testing.T, raw string) {
		if len(raw) > endpoint.MaxURLBytes {
			return // already refused for its length
		}
		target := destination.Target{Tenant: "t", ID: raw, URL: raw}
		u, err := url.Parse(raw)
		if refused := r.Check(target); refused != nil {
			if len(refused.Error()) > 1024 {
				t.Errorf("an error of %d bytes", len(refused.Error()))
			}
			if strings.Contains(refused.Error(), "hunter2") && secret(raw, u) {
				t.Errorf("%q: the error contains the password: %v", raw, refused)
			}
			return
		}
		if err != nil || u.User != nil || u.Opaque != "" {
			t.Fatalf("%q is accepted: %v", raw, err)
		}
		if err := r.Check(destination.Target{Tenant: "t", URL: u.String()}); err != nil {
			t.Errorf("%q is accepted, but the same URL as %q is not: %v", raw, u, err)
		}
		switch strings.ToLower(u.Scheme) {
		case "sqs":
			if !sqsForm.MatchString("sqs" + u.String()[3:]) {
				t.Errorf("%q is accepted", raw)
			}
			return
		case "eventbridge":
			if !busForm.MatchString("eventbridge" + u.String()[len("eventbridge"):]) {
				t.Errorf("%q is accepted", raw)
			}
			return
		case "pubsub":
			if !pubsubForm.MatchString("pubsub" + u.String()[6:]) {
				t.Errorf("%q is accepted", raw)
			}
			return
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		d.take()
		o := r.Deliver(ctx, target, destination.Message{EventID: "01J", EventType: "user.joined_platform", Body: []byte("{}")})
		if o.Class == delivery.Success || o.Class == delivery.Invalid || len(o.Error) > 1024 {
			t.Errorf("%q is accepted, but the outcome is %+v", raw, o)
		}
		for _, a := range d.take() {
			for _, p := range special {
				if p.Contains(a.Addr()) {
					t.Errorf("%q is accepted, but an attempt dials %v", raw, a)
				}
			}
		}
	})
}

// secret tells whether hunter2 is in the URL's user information, before an @.
func secret(raw string, u *url.URL) bool {
	if u != nil {
		return u.User != nil && strings.Contains(u.User.String(), "hunter2")
	}
	_, rest, _ := strings.Cut(raw, "://")
	authority, _, _ := strings.Cut(rest, "/")
	user, _, found := strings.Cut(authority, "@")
	return found && strings.Contains(user, "hunter2")
}
