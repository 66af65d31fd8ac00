// Package event defines events: Event, as its producer publishes it, and Accepted, the
// form that Tidings stores once and sends byte for byte on every attempt to every
// endpoint. It does no I/O and reads no clock. It promises that Decode reads what
// Encode returns, and that a body is built only once, because signatures cover its
// bytes.
package event

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	jsonv1 "encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/oklog/ulid/v2"
)

// MaxBodyBytes is the maximum size of a body, including the envelope: 256 KiB.
const MaxBodyBytes = 256 * 1024

// DefaultTenant is the tenant of events and endpoints that name none.
const DefaultTenant = "default"

// timeLayout is RFC 3339 in UTC with three decimals, so that equal times are equal
// strings.
const timeLayout = "2006-01-02T15:04:05.000Z"

// Event is something that happened on the platform.
type Event struct {
	ID             string            // ULID; its time part is when the event was accepted
	Type           string            // one of the catalog's types
	Version        int               // of the type; 0 and 1 are the first
	Timestamp      time.Time         // when it happened; millisecond precision
	ActorUserID    string            // the user who caused it; empty for a discussion closed by schedule
	Data           jsonv1.RawMessage // an object that conforms to the type's schema
	RequestID      string            // the request that caused it, as in the platform's logs
	TraceID        string            // X-Ray trace id (1-…-…)
	IdempotencyKey string            // the producer's key; the event's ID if it gave none
}

// Accepted is an event as stored in the Events table.
type Accepted struct {
	ID     string
	Tenant string
	Body   []byte // sent to receivers byte for byte
	Trace  string // X-Ray trace header of the producer's request; may be empty
	// Subject and OldType are taken from the event's type when the event is accepted, so
	// that a later change of the type, or its removal, does not change the deliveries.
	Subject string // what the event is about: the value of the data field that its type names; may be empty
	OldType string // the type's earlier name, for endpoints that still want it; empty if it had none
	// Versions are the versions of the type that the event has, encoded by EncodeVersions;
	// empty if its type has one. Body is the newest.
	Versions []byte
	// Undefined is set if the type had no definition when the event was accepted, which the
	// deployment allows. Fan-out counts such events by type.
	Undefined bool
	// ErasedAt is when the event was erased (Erasure); zero if it was not. Nothing of it is
	// sent then. ErasedBy is the job.
	ErasedAt time.Time
	ErasedBy string
	// RetentionDays is how many days the event is kept after it was accepted (RetainedUntil);
	// 0 means DefaultRetentionDays.
	RetentionDays int
	// ExpiresAt is when a stored event is deleted: at the end of its retention, or later if a
	// delivery needs it. It is zero in an event that was not read from the store.
	ExpiresAt time.Time
}

// Erasure replaces what an event says by nothing. Its id, its type and when it was accepted
// remain.
type Erasure struct {
	ID  string
	By  string // the job
	Now time.Time
}

// Apply returns the erased event. An event that is erased already stays as it is.
func (e Erasure) Apply(a Accepted) (Accepted, error) {
	if !a.ErasedAt.IsZero() {
		return a, nil
	}
	was, err := Decode(a.Body)
	if err != nil {
		was.Type = "unreadable" // fan-out passed over it
	}
	at, err := IDTime(a.ID)
	if err != nil {
		return a, err
	}
	a.Body, err = Event{ID: a.ID, Type: was.Type, Timestamp: at, Data: jsonv1.RawMessage("{}")}.Encode()
	a.Subject, a.Versions, a.ErasedAt, a.ErasedBy = "", nil, e.Now, e.By
	return a, err
}

// Scan selects a page of a tenant's stored events, in no order. Segments divide the events
// of all tenants, so that the progress of a scan is known.
type Scan struct {
	Tenant            string
	Segment, Segments int
	Cursor            string // Next of the previous page of the segment
}

// ScanPage is a page of events. Next is empty on the last page of its segment. A page with a
// Next can be empty.
type ScanPage struct {
	Events []Accepted
	Next   string
}

// body is the JSON form of an event, as stored and as sent. The order of the fields is
// the order in the text.
type body struct {
	ID             string         `json:"id"`
	Type           string         `json:"event"`
	Version        int            `json:"version,omitzero"` // absent for 1
	Timestamp      string         `json:"timestamp"`
	ActorUserID    string         `json:"actor_user_id,omitzero"`
	Data           jsontext.Value `json:"data"`
	RequestID      string         `json:"request_id,omitzero"`
	TraceID        string         `json:"trace_id,omitzero"`
	IdempotencyKey string         `json:"idempotency_key"`
}

// options preserve the data's spelling. They allow duplicate keys and invalid UTF-8,
// which are rejected before an event is stored, so that every stored body is readable.
var options = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true), jsontext.PreserveRawStrings(true))

// Encode builds the body that receivers get. The spelling of the data is kept
// (number forms, key order, non-ASCII characters, `<` and `&`), except for the
// white space between tokens. It fails if the data is not JSON or not UTF-8, if the
// timestamp is outside the years 0 to 9999 UTC, and if the body is larger than
// MaxBodyBytes (a *TooLargeError).
func (e Event) Encode() ([]byte, error) {
	if !Writable(e.Timestamp) {
		return nil, fmt.Errorf("event timestamp is in the year %d; the years 0 to 9999 are allowed", e.Timestamp.UTC().Year())
	}
	if !utf8.Valid(e.Data) {
		return nil, fmt.Errorf("event data is not valid UTF-8")
	}
	if len(e.Data) == 0 {
		return nil, fmt.Errorf("event data is missing")
	}
	version := e.Version
	if version == 1 {
		version = 0
	}
	out, err := json.Marshal(body{
		ID: e.ID, Type: e.Type, Version: version, Timestamp: e.Timestamp.UTC().Format(timeLayout), ActorUserID: e.ActorUserID, Data: jsontext.Value(e.Data),
		RequestID: e.RequestID, TraceID: e.TraceID, IdempotencyKey: cmp.Or(e.IdempotencyKey, e.ID),
	}, options)
	if err != nil {
		return nil, fmt.Errorf("event data is not JSON: %w", err)
	}
	if len(out) > MaxBodyBytes {
		return nil, &TooLargeError{Bytes: len(out)}
	}
	return out, nil
}

// WithType returns a body that Encode built for an event of one type, with another type.
// Nothing else changes. It returns the body itself if it is not of the type.
func WithType(body []byte, from, to string) []byte {
	before, after, found := bytes.Cut(body, appendType(nil, from))
	if !found || bytes.Count(before, []byte(`"`)) != 4 || !bytes.HasPrefix(before, []byte(`{"id":"`)) { // data can hold the same text
		return body
	}
	return slices.Concat(before, appendType(nil, to), after)
}

func appendType(b []byte, name string) []byte { return fmt.Appendf(b, `"event":%q`, name) }

// Writable reports whether a time can be an event's timestamp: its year in UTC must be
// 0 to 9999 (RFC 3339). An offset can move a valid RFC 3339 time out of that range.
func Writable(at time.Time) bool {
	year := at.UTC().Year()
	return year >= 0 && year <= 9999
}

// Decode reads a body that Encode built. Unknown members are ignored.
func Decode(text []byte) (Event, error) {
	var b body
	if err := json.Unmarshal(text, &b, options); err != nil {
		return Event{}, fmt.Errorf("event body: %w", err)
	}
	at, err := time.Parse(time.RFC3339Nano, b.Timestamp)
	if err != nil {
		return Event{}, fmt.Errorf("event body: timestamp: %w", err)
	}
	if b.ID == "" || b.Type == "" {
		return Event{}, fmt.Errorf("event body: id or event is missing")
	}
	return Event{
		ID: b.ID, Type: b.Type, Version: b.Version, Timestamp: at, ActorUserID: b.ActorUserID, Data: jsonv1.RawMessage(b.Data),
		RequestID: b.RequestID, TraceID: b.TraceID, IdempotencyKey: b.IdempotencyKey,
	}, nil
}

// Reservation is the event that an idempotency key is bound to.
type Reservation struct {
	EventID string
	// Digest is a hash of the producer's request. It detects a key that is used for
	// two different events.
	Digest string
}

// Errors of stores.
var (
	ErrExists   = errors.New("an event with this ID is already stored")
	ErrNotFound = errors.New("event not found")
)

// TooLargeError means that an event's body exceeds MaxBodyBytes or, if Versions is not 0,
// that its data in so many versions of its type exceeds MaxVersionsBytes.
type TooLargeError struct{ Bytes, Versions int }

func (e *TooLargeError) Error() string {
	if e.Versions > 0 {
		return fmt.Sprintf("event data is %d bytes in the %d versions of its type together; the limit is %d: send a reference to large content instead of the content",
			e.Bytes, e.Versions, MaxVersionsBytes)
	}
	return fmt.Sprintf("event is %d bytes with its envelope; the limit is %d (256 KiB): send a reference to large content instead of the content",
		e.Bytes, MaxBodyBytes)
}

// NewID returns a new ULID whose time is now. IDs of one process sort in the order in
// which they were made, even within a millisecond.
func NewID(now time.Time) string {
	return ulid.MustNew(ulid.Timestamp(now), ulid.DefaultEntropy()).String()
}

// DerivedID returns the ID of an event that is captured from a change. The same change
// at the same time always gives the same ID, so that a stream record that is delivered
// again gives the same event.
func DerivedID(at time.Time, change string) string {
	var id ulid.ULID
	if err := id.SetTime(ulid.Timestamp(at)); err != nil {
		panic(err) // only past the year 10889
	}
	sum := sha256.Sum256([]byte(change))
	if err := id.SetEntropy(sum[:10]); err != nil {
		panic(err) // only for a slice that is not 10 bytes
	}
	return id.String()
}

// IDTime returns the time in an event's ID, in UTC.
func IDTime(id string) (time.Time, error) {
	u, err := ulid.ParseStrict(id)
	if err != nil {
		return time.Time{}, fmt.Errorf("event id %q is not a ULID: %w", id, err)
	}
	return ulid.Time(u.Time()).UTC(), nil
}

// IsID reports whether a text has the form of an event's ID.
func IsID(text string) bool {
	_, err := ulid.ParseStrict(text)
	return err == nil
}

// IDRange returns the smallest and the largest ID of events accepted between from
// and to, both included, in milliseconds.
func IDRange(from, to time.Time) (first, last string) {
	var lo, hi ulid.ULID
	// SetTime fails only after the year 10889; the bound is then the zero ID.
	_ = lo.SetTime(ulid.Timestamp(from))
	_ = hi.SetTime(ulid.Timestamp(to))
	for i := 6; i < len(hi); i++ {
		hi[i] = 0xff
	}
	return lo.String(), hi.String()
}

// IDBefore returns the largest ID that is smaller than id, which is where the next page
// in descending order begins. It fails for the smallest ID.
func IDBefore(id string) (string, error) {
	u, err := ulid.ParseStrict(id)
	if err != nil {
		return "", fmt.Errorf("event id %q is not a ULID: %w", id, err)
	}
	if u == (ulid.ULID{}) {
		return "", errors.New("there is no smaller event ID")
	}
	for i := len(u) - 1; i >= 0; i-- {
		u[i]--
		if u[i] != 0xff {
			break
		}
	}
	return u.String(), nil
}

// IDAfter returns the smallest ID that is greater than id. It is the inverse of
// IDBefore.
func IDAfter(id string) (string, error) {
	u, err := ulid.ParseStrict(id)
	if err != nil {
		return "", fmt.Errorf("event id %q is not a ULID: %w", id, err)
	}
	for i := len(u) - 1; i >= 0; i-- {
		u[i]++
		if u[i] != 0 {
			break
		}
	}
	return u.String(), nil
}
