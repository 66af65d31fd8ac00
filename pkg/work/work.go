// Package work is the message between dispatch's halves: fan out and the sweep
// put one Item a delivery on the queue, the deliver half takes it off. An item
// is a hint, never the truth: what may be attempted is decided by the
// delivery's claim, so an item that is lost, doubled or late does no harm.
package work

import (
	"encoding/json"
	"fmt"
	"time"
)

// MaxDelay is the longest an item can wait in the queue (SQS DelaySeconds).
// What is due later waits in the due index instead.
const MaxDelay = 15 * time.Minute

// Item asks for one attempt at one delivery.
type Item struct {
	Tenant     string `json:"tenant"`
	EndpointID string `json:"endpoint_id"`
	EventID    string `json:"event_id"`
	// Attempts is how many attempts had begun when the item was made. A claim
	// that finds another number knows that the item is stale.
	Attempts int `json:"attempts"`
	// Trace is the X-Ray trace header that the attempt continues; may be empty.
	Trace string `json:"trace,omitempty"`

	// Delay is how long the queue holds the item back: 0 to MaxDelay. Queues
	// that count whole seconds round up, so that an item is never early.
	Delay time.Duration `json:"-"`
}

// Group is the queue's fairness group: one an endpoint, so that a noisy
// endpoint delays itself and nobody else.
func (i Item) Group() string { return i.EndpointID }

// Encode returns the message body of the item.
func (i Item) Encode() string {
	b, err := json.Marshal(i)
	if err != nil {
		panic(err) // strings and an int always marshal
	}
	return string(b)
}

// Decode reads a message body.
func Decode(body string) (Item, error) {
	var i Item
	if err := json.Unmarshal([]byte(body), &i); err != nil {
		return Item{}, fmt.Errorf("work item: %w", err)
	}
	if i.EndpointID == "" || i.EventID == "" || i.Tenant == "" || i.Attempts < 0 {
		return Item{}, fmt.Errorf("work item: tenant, endpoint_id or event_id is missing, or attempts is negative")
	}
	return i, nil
}
