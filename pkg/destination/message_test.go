package destination_test

import (
	"cmp"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/signature"
)

func TestTraceparentIsSentOnlyIfEnabled(t *testing.T) {
	const trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
	now := time.Unix(1769690096, 0)
	secret := signature.NewSecret()
	e := event.Event{ID: "01J", Type: "user.posted_comment", IdempotencyKey: "k"}
	for name, c := range map[string]struct {
		enabled bool
		trace   string
		want    string
	}{
		"enabled":  {true, trace, "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01"},
		"disabled": {false, trace, ""},
		// Lambda passes on a trace that it does not record without a parent.
		"enabled, no parent":       {true, "Root=1-5759e988-bd862e3fe1be46a994272793", "00-5759e988bd862e3fe1be46a994272793-0d915d70a0455abd-00"},
		"enabled, no trace":        {true, "", ""},
		"enabled, malformed trace": {true, "Root=x\r\nEvil: 1", ""},
	} {
		ep := endpoint.Endpoint{Traceparent: c.enabled, Secrets: []endpoint.SigningSecret{{Secret: secret}}}
		m, err := destination.Compose(ep, e, event.Accepted{Body: []byte("{}"), Subject: "d"}, c.trace, now)
		if err != nil {
			t.Fatal(err)
		}
		value, there := m.Attributes("")["traceparent"]
		if value != c.want || there != (c.want != "") || m.Headers["traceparent"] != c.want {
			t.Errorf("%s: %q, %t", name, value, there)
		}
		if len(m.Attributes("")) > 9 {
			t.Errorf("%s: %d attributes, want at most 9: SQS allows ten, and test sends add one", name, len(m.Attributes("")))
		}
		if err := signature.Verify(secret, m.Headers["webhook-id"], m.Headers["webhook-timestamp"], m.Headers["webhook-signature"], m.Body, now); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestARenamedTypeIsSentUnderItsOldNameIfEnabled(t *testing.T) {
	now := time.Unix(1769690096, 0)
	for eventType, oldType := range map[string]string{"user.joined_platform": "user.welcome_email_sent", "user.posted_comment": ""} {
		e := event.Event{ID: event.NewID(now), Type: eventType, Timestamp: now, Data: []byte(`{"user_id":"u"}`)}
		body, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		for enabled, want := range map[bool]string{true: cmp.Or(oldType, eventType), false: eventType} {
			ep := endpoint.Endpoint{OldNames: enabled, Secrets: []endpoint.SigningSecret{{Secret: signature.NewSecret()}}}
			m, err := destination.Compose(ep, e, event.Accepted{Body: body, Subject: "u", OldType: oldType}, "", now)
			if err != nil {
				t.Fatal(err)
			}
			sent, err := event.Decode(m.Body)
			if err != nil || sent.Type != want || sent.ID != e.ID || m.EventType != want || m.Attributes("")["event-type"] != want {
				t.Errorf("%s, old names %t: %s as %s, %v", eventType, enabled, m.Body, m.EventType, err)
			}
			if err := signature.Verify(ep.Secrets[0].Secret, m.Headers["webhook-id"], m.Headers["webhook-timestamp"], m.Headers["webhook-signature"], m.Body, now); err != nil {
				t.Errorf("%s, old names %t: %v", eventType, enabled, err)
			}
		}
	}
}

func TestProtocol(t *testing.T) {
	for url, want := range map[string]string{
		"https://a.example/": "http", "HTTP://a.example/": "http", "sqs://q?region=us-east-1": "sqs", "pubsub://p/t": "pubsub", "kafka://b:1/t": "kafka",
	} {
		if got := (destination.Target{URL: url}).Protocol(); got != want {
			t.Errorf("%s: %q", url, got)
		}
	}
}
