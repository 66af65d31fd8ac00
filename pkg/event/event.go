// Package event is the vocabulary of what happened: an Event as its producer
// tells it, and the Accepted form that Tidings stores once and sends, byte for
// byte the same, on every attempt to every endpoint. It does no I/O and reads
// no clock. It promises that what Encode returns is what Decode reads, and that
// the body's bytes are never built twice: signatures cover exactly those bytes.
package event

import (
	"cmp"
	"crypto/sha256"
	jsonv1 "encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/oklog/ulid/v2"
)

// MaxBodyBytes is the largest body that is accepted: 256 KiB, the whole
// envelope counted, because that is what travels.
const MaxBodyBytes = 256 * 1024

// DefaultTenant owns every event and endpoint for which nobody says otherwise.
const DefaultTenant = "default"

// timeLayout is RFC 3339 in UTC with exactly three decimals, so that equal
// instants are equal strings.
const timeLayout = "2006-01-02T15:04:05.000Z"

// Event is one fact about the platform.
type Event struct {
	ID             string            // ULID; its time part is when the event was accepted
	Type           string            // one of the catalog's types
	Timestamp      time.Time         // when it happened; millisecond precision
	ActorUserID    string            // who did it; empty where nobody did (a discussion closed by schedule)
	Data           jsonv1.RawMessage // an object that satisfies the type's schema
	RequestID      string            // the request that caused it, for the platform's own logs
	TraceID        string            // X-Ray trace id (1-…-…)
	IdempotencyKey string            // the producer's key; the event's id where it gave none
}

// Accepted is an event as the Events table holds it.
type Accepted struct {
	ID     string
	Tenant string
	Body   []byte // what receivers get, byte for byte
	Trace  string // X-Ray trace header of the request that brought it; may be empty
}

// body is the JSON form of an event: what is stored, and what receivers get. The
// order of the fields is the order in the text.
type body struct {
	ID             string         `json:"id"`
	Type           string         `json:"event"`
	Timestamp      string         `json:"timestamp"`
	ActorUserID    string         `json:"actor_user_id,omitzero"`
	Data           jsontext.Value `json:"data"`
	RequestID      string         `json:"request_id,omitzero"`
	TraceID        string         `json:"trace_id,omitzero"`
	IdempotencyKey string         `json:"idempotency_key"`
}

// options keep the data's spelling. Duplicate keys and invalid UTF-8 are refused
// before an event is stored; a stored body must stay readable.
var options = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true), jsontext.PreserveRawStrings(true))

// Encode builds the body that receivers get. The spelling of the data is kept
// (number forms, key order, non-ASCII characters, `<` and `&`), except for the
// white space between tokens. It fails if the data is not JSON or not UTF-8, if the
// timestamp is outside the years 0 to 9999 UTC, and if the body is larger than
// MaxBodyBytes (a *TooLargeError).
func (e Event) Encode() ([]byte, error) {
	if !Writable(e.Timestamp) {
		return nil, fmt.Errorf("event timestamp is in the year %d; RFC 3339 has the years 0 to 9999", e.Timestamp.UTC().Year())
	}
	if !utf8.Valid(e.Data) {
		return nil, fmt.Errorf("event data is not valid UTF-8")
	}
	if len(e.Data) == 0 {
		return nil, fmt.Errorf("event data is missing")
	}
	out, err := json.Marshal(body{
		ID: e.ID, Type: e.Type, Timestamp: e.Timestamp.UTC().Format(timeLayout), ActorUserID: e.ActorUserID, Data: jsontext.Value(e.Data),
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

// Writable tells whether an instant can be a timestamp: in UTC its year is 0 to 9999
// (RFC 3339). An offset may carry what was written beyond that.
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
		ID: b.ID, Type: b.Type, Timestamp: at, ActorUserID: b.ActorUserID, Data: jsonv1.RawMessage(b.Data),
		RequestID: b.RequestID, TraceID: b.TraceID, IdempotencyKey: b.IdempotencyKey,
	}, nil
}

// Reservation is what a producer's idempotency key stands for.
type Reservation struct {
	EventID string
	// Digest is of what the producer said, so that one key for two different
	// events is noticed.
	Digest string
}

// Errors of stores.
var (
	ErrExists   = errors.New("an event of this id is stored already")
	ErrNotFound = errors.New("event not found")
)

// TooLargeError says that an event's body exceeds MaxBodyBytes.
type TooLargeError struct{ Bytes int }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("event is %d bytes as it would be sent; the limit is %d (256 KiB): send a reference to large content instead of the content",
		e.Bytes, MaxBodyBytes)
}

// NewID returns a fresh ULID whose time part is now. Ids made in one process
// within one millisecond still sort in the order they were made.
func NewID(now time.Time) string {
	return ulid.MustNew(ulid.Timestamp(now), ulid.DefaultEntropy()).String()
}

// DerivedID returns the id of an event that is captured from a change: the same
// change at the same time gives the same id, however often its stream record is
// replayed.
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

// IDTime returns the instant in an event's id, in UTC.
func IDTime(id string) (time.Time, error) {
	u, err := ulid.ParseStrict(id)
	if err != nil {
		return time.Time{}, fmt.Errorf("event id %q is not a ULID: %w", id, err)
	}
	return ulid.Time(u.Time()).UTC(), nil
}

// IDRange returns the smallest and the largest id an event accepted between
// from and to (both included, to the millisecond) can have.
func IDRange(from, to time.Time) (first, last string) {
	var lo, hi ulid.ULID
	// SetTime fails past the year 10889 only; the zero id is then the bound.
	_ = lo.SetTime(ulid.Timestamp(from))
	_ = hi.SetTime(ulid.Timestamp(to))
	for i := 6; i < len(hi); i++ {
		hi[i] = 0xff
	}
	return lo.String(), hi.String()
}

// IDBefore returns the largest id that is smaller than id: where a page that
// goes backwards continues. It fails where there is none.
func IDBefore(id string) (string, error) {
	u, err := ulid.ParseStrict(id)
	if err != nil {
		return "", fmt.Errorf("event id %q is not a ULID: %w", id, err)
	}
	if u == (ulid.ULID{}) {
		return "", errors.New("no event id is smaller than the first")
	}
	for i := len(u) - 1; i >= 0; i-- {
		u[i]--
		if u[i] != 0xff {
			break
		}
	}
	return u.String(), nil
}

// IDAfter returns the smallest id that is greater than id, so that IDBefore of
// it is id again.
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
