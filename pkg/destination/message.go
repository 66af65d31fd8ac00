package destination

import (
	"cmp"
	"maps"
	"strconv"
	"time"

	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/ops/tracing"
	"github.com/tidings-dev/tidings/pkg/signature"
)

// Message is one event as it is sent. Body and values are the same on every
// protocol; the values are sent as headers or as message attributes.
type Message struct {
	EventID   string
	EventType string
	// Subject identifies what the event is about (a discussion, a registration).
	// On protocols with ordering keys, it is the key. If the endpoint does not get the field, it
	// is a pseudonym.
	Subject string
	Body    []byte
	// ContentType is the media type of Body; empty is application/json.
	ContentType string
	// CloudEvent are the context attributes of a CloudEvent in binary mode, by their names
	// without a prefix, which each protocol gives them; nil in another mode.
	CloudEvent map[string]string
	// Headers are webhook-id, webhook-timestamp, webhook-signature,
	// idempotency-key and those that the endpoint opted into, in lower case.
	Headers map[string]string
}

// Message attributes that broker consumers can filter by. HTTP receivers find the
// same values in the body.
const (
	AttributeContentType = "content-type"
	AttributeEventType   = "event-type"
	AttributeSubject     = "subject"
)

// Attributes returns the message attributes for brokers: Headers, content type,
// event type and subject, and the context attributes of a CloudEvent in binary mode with a
// prefix. Without those, there are at most ten, the limit of SQS.
func (m Message) Attributes(prefix string) map[string]string {
	all := maps.Clone(m.Headers)
	if all == nil {
		all = map[string]string{}
	}
	all[AttributeContentType] = cmp.Or(m.ContentType, contentTypeJSON)
	all[AttributeEventType] = m.EventType
	if m.Subject != "" {
		all[AttributeSubject] = m.Subject
	}
	for name, value := range m.CloudEvent {
		all[prefix+name] = value
	}
	return all
}

// Compose returns the signed message for an event and an endpoint. e is the decoded
// body of accepted, which must be InVersion already. It is sent and signed unchanged, except
// that an endpoint with OldNames gets it as Named, and one with a Shape in that. trace is the
// attempt's X-Ray header, sent as traceparent if the endpoint opted in. It fails only if the
// body is not JSON.
func Compose(ep endpoint.Endpoint, e event.Event, accepted event.Accepted, trace string, now time.Time) (Message, error) {
	eventType, body := Named(ep, accepted, e.Type)
	m := Message{
		EventID:     e.ID,
		EventType:   eventType,
		Subject:     accepted.Subject,
		Body:        body,
		ContentType: contentTypeJSON,
	}
	if !ep.Shape.IsZero() {
		if err := m.shape(ep, e); err != nil {
			return Message{}, err
		}
	}
	m.Headers = map[string]string{
		signature.HeaderID:        e.ID,
		signature.HeaderTimestamp: strconv.FormatInt(now.Unix(), 10),
		signature.HeaderSignature: signature.Sign(ep.SigningSecrets(now), e.ID, now, m.Body),
		"idempotency-key":         e.IdempotencyKey,
	}
	if ep.Traceparent {
		if parent := tracing.Traceparent(trace, ep.ID+" "+e.ID+" "+now.UTC().Format(time.RFC3339Nano)); parent != "" {
			m.Headers[tracing.HeaderTraceparent] = parent
		}
	}
	return m, nil
}

// InVersion returns the event with the version of its type that an endpoint gets. If it
// fails, the event must not be sent in another one.
func InVersion(ep endpoint.Endpoint, accepted event.Accepted, eventType string) (event.Accepted, error) {
	return accepted.InVersion(ep.TypeVersions[eventType], ep.CreatedAt)
}

// Named returns the type under which an endpoint gets an event, and the body with it: the
// type's old name if it was renamed and the endpoint has OldNames.
func Named(ep endpoint.Endpoint, accepted event.Accepted, eventType string) (name string, body []byte) {
	if !ep.OldNames || accepted.OldType == "" {
		return eventType, accepted.Body
	}
	return accepted.OldType, event.WithType(accepted.Body, eventType, accepted.OldType)
}
