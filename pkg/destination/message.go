package destination

import (
	"maps"
	"strconv"
	"time"

	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/ops/tracing"
	"github.com/tidings-dev/tidings/pkg/signature"
)

// Message is one event as it goes out: the same body and the same values on
// every protocol, as headers or as message attributes.
type Message struct {
	EventID   string
	EventType string
	// Subject is what the event is about (a discussion, a registration). Where
	// the protocol keeps order by key, messages of one subject stay in order.
	Subject string
	Body    []byte
	// Headers travel with the body: webhook-id, webhook-timestamp,
	// webhook-signature, idempotency-key and what the endpoint opted into.
	// Names are lower case.
	Headers map[string]string
}

// Names of the values that brokers' consumers route by, beside the headers. HTTP
// receivers find the same in the body.
const (
	AttributeContentType = "content-type"
	AttributeEventType   = "event-type"
	AttributeSubject     = "subject"
)

// ContentType is the media type of every body.
const ContentType = "application/json"

// Attributes are what travels beside the body where the protocol has attributes
// or headers of its own: the message's headers, and what its consumers route by.
// At most ten, which is what SQS takes.
func (m Message) Attributes() map[string]string {
	all := maps.Clone(m.Headers)
	if all == nil {
		all = map[string]string{}
	}
	all[AttributeContentType] = ContentType
	all[AttributeEventType] = m.EventType
	if m.Subject != "" {
		all[AttributeSubject] = m.Subject
	}
	return all
}

// Compose returns an event as it goes out to an endpoint at the given instant:
// the body's bytes as they are, signed as they are. e is what body says, subject
// what it is about, trace the header of the attempt's trace, for endpoints that
// want to go on with it.
func Compose(ep endpoint.Endpoint, e event.Event, body []byte, subject, trace string, now time.Time) Message {
	m := Message{
		EventID:   e.ID,
		EventType: e.Type,
		Subject:   subject,
		Body:      body,
		Headers: map[string]string{
			signature.HeaderID:        e.ID,
			signature.HeaderTimestamp: strconv.FormatInt(now.Unix(), 10),
			signature.HeaderSignature: signature.Sign(ep.SigningSecrets(now), e.ID, now, body),
			"idempotency-key":         e.IdempotencyKey,
		},
	}
	if ep.Traceparent {
		if parent := tracing.Traceparent(trace, ep.ID+" "+e.ID+" "+now.UTC().Format(time.RFC3339Nano)); parent != "" {
			m.Headers[tracing.HeaderTraceparent] = parent
		}
	}
	return m
}
