// Package work is the message between dispatch's halves: fan out and the sweep
// put one Item a delivery on the queue, the deliver half takes it off. An item
// is a hint, never the truth: what may be attempted is decided by the
// delivery's claim, so an item that is lost, doubled or late does no harm.
package work

import (
	"bytes"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tidings-dev/tidings/pkg/onepass"
)

// MaxDelay is the longest an item can wait in the queue (SQS DelaySeconds).
// What is due later waits in the due index instead.
const MaxDelay = 15 * time.Minute

// Carries reports whether an event may travel with its item: it is small, and has
// no character that SQS refuses (SendMessage, API reference) or that would end its
// line.
func Carries(body []byte) bool {
	if len(body) > MaxBody {
		return false
	}
	plain := true
	for _, c := range body {
		if c < ' ' {
			return false
		}
		plain = plain && c < utf8.RuneSelf
	}
	return plain || utf8.Valid(body) && !bytes.ContainsAny(body, "\uFFFE\uFFFF")
}

// MaxBody is the largest event, in bytes, that travels with its item. Ten such
// items stay below the 64 KiB that SQS counts as one request.
const MaxBody = 4096

// Item asks for one attempt at one delivery, or, with Wake, that somebody looks
// after an endpoint's circuit.
type Item struct {
	Tenant     string
	EndpointID string
	EventID    string
	Wake       bool
	// EventType is for the record of a delivery that has to wait.
	EventType string
	// Body is the event itself, for a first attempt at a small one: it spares
	// reading it. Nobody writes to it.
	Body []byte
	// Since is what the age limit counts from; zero is the event's acceptance.
	Since time.Time
	// Slot is when the attempt may begin under the endpoint's rate limit; zero is
	// none reserved.
	Slot time.Time
	// Attempts is how many attempts had begun when the item was made. A claim
	// that finds another number knows that the item is stale.
	Attempts int
	// Trace is the X-Ray trace header that the attempt continues; may be empty.
	Trace string

	// Delay is how long the queue holds the item back: 0 to MaxDelay. Queues
	// that count whole seconds round up, so that an item is never early. It is
	// no part of the message.
	Delay time.Duration
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

// Encode returns the message that carries the item: a line of JSON and, where the
// event travels with it, the event as it is in a second.
func (i Item) Encode() string {
	b := make([]byte, 0, 256+len(i.Trace)+len(i.Body))
	text := func(name, value string) {
		if value != "" {
			b = append(append(b, name...), ':')
			b, _ = jsontext.AppendQuote(b, value) // fails for what is not UTF-8, and has written it with U+FFFD
			b = append(b, ',')
		}
	}
	instant := func(name string, at time.Time) {
		if !at.IsZero() {
			b = append(append(b, name...), `:"`...)
			b = append(at.AppendFormat(b, time.RFC3339Nano), `",`...)
		}
	}
	b = append(b, '{')
	text(`"tenant"`, i.Tenant)
	text(`"endpoint_id"`, i.EndpointID)
	text(`"event_id"`, i.EventID)
	if i.Wake {
		b = append(b, `"wake":true,`...)
	}
	text(`"event_type"`, i.EventType)
	instant(`"since"`, i.Since)
	instant(`"slot"`, i.Slot)
	text(`"trace"`, i.Trace)
	b = strconv.AppendInt(append(b, `"attempts":`...), int64(i.Attempts), 10)
	b = append(b, '}')
	if len(i.Body) > 0 {
		b = append(append(b, '\n'), i.Body...)
	}
	return string(b)
}

// Decode reads a message. The item's body is a part of it where it is bytes.
func Decode[M string | []byte](message M) (Item, error) {
	line, body, _ := bytes.Cut([]byte(message), []byte("\n"))
	var i Item
	if len(body) > 0 { // an empty line is no event, as no line is
		i.Body = body
	}
	err := onepass.Read(line, func(r *onepass.Reader) error {
		return r.Object(func(name []byte) error {
			switch string(name) {
			case "tenant":
				return r.String(&i.Tenant)
			case "endpoint_id":
				return r.String(&i.EndpointID)
			case "event_id":
				return r.String(&i.EventID)
			case "wake":
				return r.Bool(&i.Wake)
			case "event_type":
				return r.String(&i.EventType)
			case "since":
				return r.Time(&i.Since)
			case "slot":
				return r.Time(&i.Slot)
			case "attempts":
				return r.Int(&i.Attempts)
			case "trace":
				return r.String(&i.Trace)
			}
			return r.Skip()
		})
	})
	if err != nil {
		return Item{}, fmt.Errorf("work item: %.200s", err) // the words may repeat names, of any length
	}
	if i.EndpointID == "" || (i.EventID == "") != i.Wake || i.Tenant == "" || i.Attempts < 0 {
		return Item{}, fmt.Errorf("work item: tenant, endpoint_id or event_id is missing, or attempts is negative")
	}
	return i, nil
}
