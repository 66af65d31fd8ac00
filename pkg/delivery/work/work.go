// Package work defines the messages of the work queue. Fan-out and the sweep put one
// Item per delivery on the queue; the deliver half of dispatch receives them. An
// item is a hint, not the truth: the delivery's claim decides what may be
// attempted, so an item that is lost, duplicated or late does no harm.
package work

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// MaxDelay is the longest delay of an item in the queue (the maximum of SQS
// DelaySeconds). What is due later is kept in the due index instead.
const MaxDelay = 15 * time.Minute

// Carries reports whether an event may travel with its item: it is small, and has
// no control character and no character that SQS refuses (SendMessage, API
// reference).
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

// MaxBody is the size in bytes of the largest event that travels with its item. Ten
// such items stay below 64 KiB, which SQS bills as one request.
const MaxBody = 4096

// Item asks for one attempt at one delivery or, if Wake is set, for a check of an
// endpoint's circuit breaker or, if JobID is set, for the next steps of a job. Its JSON form
// is one line.
type Item struct {
	Tenant     string `json:"tenant,omitzero"`
	EndpointID string `json:"endpoint_id,omitzero"`
	EventID    string `json:"event_id,omitzero"`
	Wake       bool   `json:"wake,omitzero"`
	// JobID is the job to advance. Such an item has no endpoint and no event.
	JobID string `json:"job_id,omitzero"`
	// WakeAt, with Wake, is the endpoint's wake-up time that this item stands for, and with
	// JobID the time of the job's next step. An item for another time than the stored one is
	// a duplicate, or late.
	WakeAt time.Time `json:"wake_at,omitzero"`
	// Backlog says that the delivery was in its endpoint's backlog when the item was made.
	// An item that must wait can then be dropped.
	Backlog bool `json:"backlog,omitzero"`
	// Slow says that the item belongs on the slow queue: its endpoint answered slowly when
	// the item was made, or it advances a job.
	Slow bool `json:"slow,omitzero"`
	// EventType is stored with a delivery that has to wait.
	EventType string `json:"event_type,omitzero"`
	// Since is the time from which the age limit counts; zero means the time at
	// which the event was accepted.
	Since time.Time `json:"since,omitzero"`
	// Slot is the time before which the attempt must not begin: the one reserved under
	// the endpoint's rate limit, or by the drain of its backlog; zero means none.
	Slot time.Time `json:"slot,omitzero"`
	// RetentionDays is that of the event; 0 means the default. It is not in the message of
	// most events, so that they stay short.
	RetentionDays int `json:"retention_days,omitzero"`
	// Redriven is how often the sweep has sent the item back from the dead-letter queue.
	Redriven int `json:"redriven,omitzero"`
	// Trace is the X-Ray trace header that the attempt continues; may be empty.
	Trace string `json:"trace,omitzero"`
	// Attempts is the number of attempts that had begun when the item was made. A
	// claim that finds another number knows that the item is stale.
	Attempts int `json:"attempts"`

	// Body is the event itself, if it is small and this is the first attempt. It
	// saves a read of the event. It must not be modified.
	Body []byte `json:"-"`
	// Subject and OldType are the event's, if Body is set.
	Subject string `json:"subject,omitzero"`
	OldType string `json:"old_type,omitzero"`
	// Delay is how long the queue holds the item back, from 0 to MaxDelay. Queues
	// that count whole seconds round up, so that an item is never early. It is not
	// part of the message.
	Delay time.Duration `json:"-"`
}

// Message is a message received from the work queue.
type Message struct {
	ID       string    // identifies the message when a batch is partly acknowledged
	Body     string    // an encoded Item
	Receives int       // how often it has been received, this time included; 0 if unknown
	SentAt   time.Time // when it was put on the queue; zero if unknown
}

// WithMessage returns a context for the processing of one message, so that what is
// called on its behalf can tell messages of a batch apart.
func WithMessage(ctx context.Context, m *Message) context.Context {
	return context.WithValue(ctx, messageKey{}, m)
}

// MessageID returns the ID of the message that ctx belongs to; "" if there is none.
func MessageID(ctx context.Context) string {
	if m, ok := ctx.Value(messageKey{}).(*Message); ok {
		return m.ID
	}
	return ""
}

type messageKey struct{}

// Letter is a message in the work queue's dead-letter queue.
type Letter struct {
	Body    string
	Receipt string // the receipt handle, needed to delete the message
}

// Depth is the approximate number of messages in a queue.
type Depth struct {
	Visible  int // can be received
	Delayed  int // delayed
	InFlight int // received, not yet deleted
}

// Group is the queue's fairness group. Each endpoint has its own, so that a noisy
// endpoint delays only itself, and each job.
func (i Item) Group() string { return cmp.Or(i.EndpointID, i.JobID) }

// Encode returns the message that carries the item: one line of JSON and, if the
// event travels with the item, the event unchanged in a second line. A Since, Slot or
// WakeAt outside the years 0 to 9999, which RFC 3339 cannot express, becomes the nearest
// time that it can.
func (i Item) Encode() string {
	i.Since, i.Slot, i.WakeAt = clamp(i.Since), clamp(i.Slot), clamp(i.WakeAt)
	var b strings.Builder
	b.Grow(512 + len(i.Body))
	if err := json.MarshalWrite(&b, i, jsontext.AllowInvalidUTF8(true)); err != nil {
		panic(err) // an Item contains strings, numbers and times that RFC 3339 can express
	}
	if len(i.Body) > 0 {
		b.WriteByte('\n')
		b.Write(i.Body)
	}
	return b.String()
}

// clamp returns the time, limited to what RFC 3339 can express.
func clamp(t time.Time) time.Time {
	if _, offset := t.Zone(); max(offset, -offset) >= 24*60*60 {
		t = t.UTC()
	}
	switch year := t.Year(); {
	case year < 0:
		return time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)
	case year > 9999:
		return time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	}
	return t
}

// Decode reads a message. Unknown members are ignored.
func Decode(message string) (Item, error) {
	line, body, _ := bytes.Cut([]byte(message), []byte("\n"))
	var i Item
	if err := json.Unmarshal(line, &i, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)); err != nil {
		return Item{}, fmt.Errorf("work item: %.200s", err) //nolint:errorlint // cut: the error may repeat names of any length
	}
	if i.JobID != "" {
		if i.Tenant == "" || i.EndpointID != "" || i.EventID != "" {
			return Item{}, errors.New("work item: of a job, it needs a tenant, and no endpoint_id or event_id")
		}
		return i, nil
	}
	if i.EndpointID == "" || (i.EventID == "") != i.Wake || i.Tenant == "" || i.Attempts < 0 {
		return Item{}, errors.New("work item: tenant, endpoint_id or event_id is missing, or attempts is negative")
	}
	if len(body) > 0 {
		i.Body = body
	}
	return i, nil
}
