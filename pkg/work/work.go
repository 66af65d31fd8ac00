// Package work is the message between dispatch's halves: fan out and the sweep
// put one Item a delivery on the queue, the deliver half takes it off. An item
// is a hint, never the truth: what may be attempted is decided by the
// delivery's claim, so an item that is lost, doubled or late does no harm.
package work

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"
)

// MaxDelay is the longest an item can wait in the queue (SQS DelaySeconds).
// What is due later waits in the due index instead.
const MaxDelay = 15 * time.Minute

// Carries reports whether an event may travel with its item: it is small, and has
// no character that SQS refuses (SendMessage, API reference; control characters
// are escaped in an item).
func Carries(body []byte) bool {
	return len(body) <= MaxBody && utf8.Valid(body) && !bytes.ContainsAny(body, "\uFFFE\uFFFF")
}

// MaxBody is the largest event, in bytes, that travels with its item. Ten such
// items stay below the 64 KiB that SQS counts as one request.
const MaxBody = 4096

// Item asks for one attempt at one delivery, or, with Wake, that somebody looks
// after an endpoint's circuit.
type Item struct {
	Tenant     string `json:"tenant"`
	EndpointID string `json:"endpoint_id"`
	EventID    string `json:"event_id,omitempty"`
	Wake       bool   `json:"wake,omitempty"`
	// EventType is for the record of a delivery that has to wait.
	EventType string `json:"event_type,omitempty"`
	// Body is the event itself, for a first attempt at a small one: it spares
	// reading it.
	Body string `json:"body,omitempty"`
	// Since is what the age limit counts from; zero is the event's acceptance.
	Since time.Time `json:"since,omitzero"`
	// Slot is when the attempt may begin under the endpoint's rate limit; zero is
	// none reserved.
	Slot time.Time `json:"slot,omitzero"`
	// Attempts is how many attempts had begun when the item was made. A claim
	// that finds another number knows that the item is stale.
	Attempts int `json:"attempts"`
	// Trace is the X-Ray trace header that the attempt continues; may be empty.
	Trace string `json:"trace,omitempty"`

	// Delay is how long the queue holds the item back: 0 to MaxDelay. Queues
	// that count whole seconds round up, so that an item is never early.
	Delay time.Duration `json:"-"`
}

// Letter is a message that ended in the work queue's dead-letter queue.
type Letter struct {
	Body    string
	Receipt string // names the receive by which it was taken
}

// Depth is how many messages a queue holds, approximately.
type Depth struct {
	Visible  int // waiting to be taken
	Delayed  int // not to be taken yet
	InFlight int // taken, and not done with
}

// Group is the queue's fairness group: one an endpoint, so that a noisy
// endpoint delays itself and nobody else.
func (i Item) Group() string { return i.EndpointID }

// Encode returns the message body of the item.
func (i Item) Encode() string {
	b, err := json.Marshal(i)
	if err != nil {
		panic(err) // strings, a number and times of this age always marshal
	}
	return string(b)
}

// Decode reads a message body.
func Decode(body string) (Item, error) {
	var i Item
	if err := json.Unmarshal([]byte(body), &i); err != nil {
		return Item{}, fmt.Errorf("work item: %.200s", err) // json's words may repeat the whole message
	}
	if i.EndpointID == "" || (i.EventID == "") != i.Wake || i.Tenant == "" || i.Attempts < 0 {
		return Item{}, fmt.Errorf("work item: tenant, endpoint_id or event_id is missing, or attempts is negative")
	}
	return i, nil
}
