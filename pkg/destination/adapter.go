// Package destination is the seam between delivering and the protocols. Each
// protocol has a package of its own beside this one and passes the conformance
// suite in adaptertest.
package destination

import (
	"context"
	"maps"

	"github.com/tidings-dev/tidings/pkg/delivery"
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

// Adapter delivers messages to one destination.
type Adapter interface {
	// Deliver makes one attempt and reports what became of it; it never retries
	// on its own. It returns as soon as the context ends, with class Timeout.
	//
	// Success means that the destination has taken responsibility: a 2xx
	// status, the broker's acknowledgement by all its replicas. Whatever a
	// later attempt might cure (timeouts, refused connections, throttling, 5xx)
	// is reported without Permanent; what only a person can cure (a blocked
	// address, a queue that does not exist, access denied, a message that is
	// too large) with it. Classes come from error types, never from texts.
	//
	// It may keep connections and clients between calls, never a message. It is
	// safe for concurrent use.
	Deliver(ctx context.Context, m Message) delivery.Outcome
	// Close ends connections and goroutines. No Deliver may be running or follow.
	Close() error
}
