// Package emit accepts events from producers: it validates each, rejects invalid ones
// with an error that names the field, and stores the others in the Events table. It
// promises that an accepted event is durable, that a rejected one leaves nothing
// behind, and that an idempotency key stands for one event, even if a worker dies
// between reserving the key and storing the event.
package emit

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/validate"
	"github.com/tidings-dev/tidings/pkg/event/versions"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/ops/tracing"
)

const (
	// MaxList is the maximum number of events per call.
	MaxList = 500
	// KeyRetention is how long an idempotency key is remembered, or as long as its event is
	// kept, if that is shorter: a key without its event would store the event again.
	KeyRetention = 7 * 24 * time.Hour
	// maxText is the maximum length of IDs and keys, in bytes.
	maxText = 256
	// parallelPuts is the number of concurrent writes. With 16, a list of MaxList
	// events stays well under the function's timeout.
	parallelPuts = 16
)

// Request is a producer's request to publish one event.
type Request struct {
	Event          string          `json:"event"`
	Version        int             `json:"version,omitempty"`       // of the type; see versions.Make if 0
	Tenant         string          `json:"tenant,omitempty"`        // default if empty
	Timestamp      string          `json:"timestamp,omitempty"`     // RFC 3339; now if empty
	ActorUserID    string          `json:"actor_user_id,omitempty"` // the user who caused the event
	Data           json.RawMessage `json:"data"`
	RequestID      string          `json:"request_id,omitempty"`
	IdempotencyKey string          `json:"idempotency_key,omitempty"`

	malformed *Error // why the item of a list is not a request; nil if it is one
}

// at returns the timestamp; the zero time if there is none, and false if it is malformed.
func (r Request) at() (at time.Time, ok bool) {
	if r.Timestamp == "" {
		return at, true
	}
	at, err := time.Parse(time.RFC3339Nano, r.Timestamp)
	return at, err == nil && rfc3339.MatchString(r.Timestamp) && event.Writable(at)
}

// rfc3339 refuses what time.Parse accepts beyond RFC 3339: a comma before the decimals, an
// hour of one digit, an offset of a day or more.
var rfc3339 = regexp.MustCompile(`^[0-9-]{10}T[0-9:]{8}(\.[0-9]+)?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`)

// Result is the answer for one event: its ID, or an error.
type Result struct {
	ID string `json:"id,omitempty"`
	// Duplicate means that the event was already stored under its idempotency key.
	Duplicate bool   `json:"duplicate"`
	Error     *Error `json:"error,omitempty"`
}

// Code is a machine-readable error code.
type Code string

const (
	MalformedJSON Code = "malformed_json"
	UnknownType   Code = "unknown_event_type"
	InvalidData   Code = "invalid_data"
	InvalidField  Code = "invalid_field"
	// InvalidText is the code of a text that headers and message attributes cannot carry.
	InvalidText Code = "invalid_text"
	TooLarge    Code = "too_large"
	TooMany     Code = "too_many_events"
	KeyConflict Code = "idempotency_key_conflict"
	Unavailable Code = "unavailable"
)

// Error tells why an event was rejected. Retrying helps only if the code is
// Unavailable.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	Field   string `json:"field,omitempty"`
	// Index is the place of the event in a list, starting at 0; nil if there is no list.
	Index *int `json:"index,omitempty"`
}

func (e *Error) Error() string { return e.Message }

// Emitter accepts events. It is safe for concurrent use.
type Emitter struct {
	Catalog Catalog
	Events  Events
	Keys    Keys
	// PlatformTable is the name of the platform's table: only its discussions are indexed, and
	// only its kinds counted. Empty means every captured table.
	PlatformTable string
	// Rules are the capture rules; nil for the shipped ones.
	Rules Rules
	// Failed, Kept, Stuck and Statistics are for Capture and Recapture only.
	Failed     FailedChanges
	Kept       Recaptures
	Stuck      StuckCaptures
	Statistics stats.Sink
	// Discussions is the index of the discussions in the captured table; nil for none.
	Discussions Discussions
	// RetentionDays is how many days events are kept whose type has no retention of its own,
	// and failed changes; 0 means event.DefaultRetentionDays.
	RetentionDays int
	// Letters keeps what Receive refuses; nil leaves it on its queue, which moves it to the
	// dead-letter queue in the end.
	Letters Letters
	Log     *slog.Logger
	Now     func() time.Time
	// NewID returns a new event ID; nil means event.NewID.
	NewID  func(now time.Time) string
	Tracer Tracer // nil for none

	stuck stuckMark
	kinds stats.Names
}

type requestID struct{}

// WithRequestID returns a context with the ID of the current request, which becomes
// the request_id of events that have none.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestID{}, id)
}

// begin begins the trace's subsegment for one event. The attempts to deliver the event
// continue under it.
func (em *Emitter) begin(ctx context.Context, name string) (under string, end func(mark string, annotations map[string]any)) {
	header := tracing.FromContext(ctx)
	if em.Tracer == nil {
		return tracing.None{}.Begin(name, header)
	}
	return em.Tracer.Begin(name, header)
}

// EmitAll accepts a list of events, each independently of the others. The results are
// in the order of the requests.
func (em *Emitter) EmitAll(ctx context.Context, requests []Request) []Result {
	results := make([]Result, len(requests))
	// A few goroutines share the requests. One goroutine per request would be more
	// expensive, because each would have to grow its stack.
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(parallelPuts, len(requests)) {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(requests)); i = next.Add(1) - 1 {
				if results[i] = em.Emit(ctx, requests[i]); results[i].Error != nil {
					place := int(i)
					results[i].Error.Index = &place
				}
			}
		})
	}
	workers.Wait()
	return results
}

// Emit accepts one event. If the result has no error, the event is stored.
func (em *Emitter) Emit(ctx context.Context, r Request) Result {
	if r.malformed != nil {
		em.logRefusal(ctx, r, r.malformed)
		return Result{Error: r.malformed}
	}
	if r.Tenant == "" {
		r.Tenant = event.DefaultTenant
	}
	under, end := em.begin(ctx, "accept event")
	id, duplicate, err := em.accept(tracing.WithHeader(ctx, under), r)
	if err == nil {
		var found map[string]any
		if tracing.IsRecording(em.Tracer) {
			found = map[string]any{"event_id": id, "event_type": r.Event, "tenant": r.Tenant, "duplicate": duplicate}
		}
		end(tracing.OK, found)
		// DEBUG, because the event is in the table and in the log line of each attempt.
		level := slog.LevelDebug
		if duplicate {
			level = slog.LevelInfo
		}
		em.Log.LogAttrs(ctx, level, "event.accepted", slog.String("event_id", id), slog.String("event_type", r.Event), slog.String("tenant", r.Tenant), slog.Bool("duplicate", duplicate))
		return Result{ID: id, Duplicate: duplicate}
	}
	var refused *Error
	if !errors.As(err, &refused) {
		end(tracing.Fault, map[string]any{"event_type": r.Event})
		// The store's error is only logged; the producer only has to know that it can
		// retry.
		em.Log.ErrorContext(ctx, "event.not_stored", "event_type", r.Event, "error", err.Error())
		refused = &Error{Code: Unavailable, Message: "the event could not be stored: retry, with the same idempotency_key if it has one"}
	} else {
		end(tracing.Error, map[string]any{"code": string(refused.Code)})
		em.logRefusal(ctx, r, refused)
	}
	return Result{Error: refused}
}

func (em *Emitter) logRefusal(ctx context.Context, r Request, refused *Error) {
	em.Log.WarnContext(ctx, "event.refused", "event_type", clip(r.Event), "code", string(refused.Code), "field", refused.Field)
}

func (em *Emitter) accept(ctx context.Context, r Request) (id string, duplicate bool, err error) {
	types, err := em.Catalog.Of(ctx, r.Tenant)
	if err != nil {
		return "", false, err
	}
	checked, err := check(types, r)
	if err != nil {
		return "", false, err
	}
	e := checked.event
	now := em.Now()
	e.ID = em.newID(now)
	if e.RequestID == "" {
		e.RequestID, _ = ctx.Value(requestID{}).(string)
	}
	trace := tracing.FromContext(ctx)
	e.TraceID = tracing.ID(trace)

	// Encode before the key is reserved, so that a rejected event does not use it up.
	body, err := stamped(e).Encode()
	if err == nil {
		err = event.CheckVersions(body, checked.versions)
	}
	if err != nil {
		return "", false, asRefusal(err)
	}
	retention := em.retentionDays(types, e.Type)
	if r.IdempotencyKey != "" {
		mine := event.Reservation{EventID: e.ID, Digest: digest(r)}
		holds, err := em.Keys.ReserveKey(ctx, r.Tenant, r.IdempotencyKey, mine, now.Add(keyRetention(retention)))
		if err != nil {
			return "", false, fmt.Errorf("reserve idempotency key: %w", err)
		}
		if holds.Digest != mine.Digest && holds.Digest != textDigest(r) {
			return "", false, &Error{Code: KeyConflict, Field: "idempotency_key",
				Message: fmt.Sprintf("idempotency_key: already used for another event (%s): use a new key for each event", holds.EventID)}
		}
		if holds.EventID != e.ID {
			e.ID = holds.EventID
			if body, err = stamped(e).Encode(); err != nil {
				return "", false, asRefusal(err)
			}
		}
	}
	err = em.Events.PutEvent(ctx, event.Accepted{
		ID: e.ID, Tenant: r.Tenant, Body: body, Trace: trace, Subject: checked.subject, OldType: types.OldName(e.Type), Versions: checked.versions,
		Undefined:     types.Allows(e.Type),
		RetentionDays: event.StoredDays(e.ID, now, retention),
	})
	switch {
	case errors.Is(err, event.ErrExists):
		// Without a key, the ID is new, so this is our own write, repeated because its
		// response was lost. With a key, another call may have stored the event.
		return e.ID, r.IdempotencyKey != "", nil
	case err != nil:
		return "", false, fmt.Errorf("put event: %w", err)
	}
	return e.ID, false, nil
}

// retentionDays returns how many days events of a type are kept. It is stored with the event,
// so that a later change counts for later events.
func (em *Emitter) retentionDays(types *validate.Catalog, eventType string) int {
	t, _ := types.Type(eventType)
	return cmp.Or(t.RetentionDays, em.RetentionDays)
}

// keyRetention is how long the key of an event is remembered that is kept for some days. It
// ends before the event does.
func keyRetention(days int) time.Duration {
	return min(KeyRetention, event.Retention(days)-time.Hour)
}

func (em *Emitter) newID(now time.Time) string {
	if em.NewID != nil {
		return em.NewID(now)
	}
	return event.NewID(now)
}

// stamped sets a missing timestamp to the time in the ID, so that every call that
// completes a reserved key builds the same event.
func stamped(e event.Event) event.Event {
	if e.Timestamp.IsZero() {
		e.Timestamp, _ = event.IDTime(e.ID) // cannot fail: this package made the ID
	}
	return e
}

// checked is the event of a valid request, its subject, and its versions if its type has
// several.
type checked struct {
	event    event.Event
	subject  string
	versions []byte
}

func check(types *validate.Catalog, r Request) (c checked, err error) {
	if err := event.CheckTenant(r.Tenant); err != nil {
		return c, &Error{Code: InvalidField, Field: "tenant", Message: "tenant: " + err.Error()}
	}
	if r.Event == "" {
		return c, &Error{Code: InvalidField, Field: "event", Message: "event: is missing; " + types.Summary()}
	}
	for _, f := range []struct{ field, value string }{
		{"actor_user_id", r.ActorUserID}, {"request_id", r.RequestID}, {"idempotency_key", r.IdempotencyKey},
	} {
		if len(f.value) > maxText {
			return c, &Error{Code: InvalidField, Field: f.field, Message: fmt.Sprintf("%s: is %d bytes; the limit is %d", f.field, len(f.value), maxText)}
		}
		if err := event.CheckText(f.value); err != nil {
			return c, &Error{Code: InvalidText, Field: f.field, Message: f.field + ": " + err.Error()}
		}
	}
	at, ok := r.at()
	if !ok {
		return c, &Error{Code: InvalidField, Field: "timestamp", Message: "timestamp: must be an RFC 3339 date and time, such as 2026-01-29T12:34:56.789Z"}
	}
	if len(r.Data) > event.MaxBodyBytes {
		return c, asRefusal(&event.TooLargeError{Bytes: len(r.Data)})
	}
	if r.Version < 0 {
		return c, &Error{Code: InvalidField, Field: "version", Message: "version: must be 1 or more"}
	}
	made, err := versions.Make(types, r.Event, r.Version, r.Data)
	if err != nil {
		return c, asRefusal(err)
	}
	c.subject, c.versions = types.Subject(r.Event, made.Data), made.Stored
	if err := event.CheckText(c.subject); err != nil {
		t, _ := types.Type(r.Event)
		field := "data." + t.Subject
		return c, &Error{Code: InvalidText, Field: field, Message: fmt.Sprintf("%s: %s: %s", r.Event, field, err.Error())}
	}
	c.event = event.Event{
		Type: r.Event, Version: made.Version, Timestamp: at, ActorUserID: r.ActorUserID, Data: made.Data,
		RequestID: r.RequestID, IdempotencyKey: r.IdempotencyKey,
	}
	return c, nil
}

// asRefusal converts errors of validation and encoding to an *Error. A schema that does not
// compile is no fault of the producer's, so its error stays as it is.
func asRefusal(err error) error {
	var unknown *validate.UnknownTypeError
	var invalid *validate.InvalidDataError
	var large *event.TooLargeError
	var unusable *validate.SchemaError
	var version *versions.UnknownVersionError
	switch {
	case errors.As(err, &unusable):
		return err
	case errors.As(err, &unknown):
		return &Error{Code: UnknownType, Field: "event", Message: "event: " + err.Error()}
	case errors.As(err, &version):
		return &Error{Code: InvalidData, Field: "version", Message: "version: " + err.Error()}
	case errors.As(err, new(*versions.MappingError)):
		return &Error{Code: InvalidData, Field: "data", Message: err.Error()}
	case errors.As(err, &invalid):
		return &Error{Code: InvalidData, Field: invalid.Problems[0].Field, Message: err.Error()}
	case errors.As(err, &large):
		return &Error{Code: TooLarge, Field: "data", Message: err.Error()}
	}
	return &Error{Code: InvalidData, Field: "data", Message: err.Error()}
}

// digest hashes the values by which two requests with one idempotency key must agree. Two
// spellings of one value are equal: the order of keys, escapes, white space, number forms,
// and the time zone and decimals of the timestamp do not count. Integers are compared
// digit by digit.
func digest(r Request) string {
	data := jsontext.Value(slices.Clone(r.Data))
	_ = data.Canonicalize(jsontext.CanonicalizeRawInts(false)) // cannot fail: the data was validated
	at := ""
	if r.Timestamp != "" {
		instant, _ := r.at() // cannot fail, either
		at = instant.UTC().Format(time.RFC3339Nano)
	}
	if r.Version > 0 {
		at += fmt.Sprintf(" version %d", r.Version)
	}
	return hash("values", r.Event, at, r.ActorUserID, string(data))
}

// textDigest is the digest of earlier releases, which compared texts. Keys that they
// stored are still valid for KeyRetention.
func textDigest(r Request) string {
	return hash(r.Event, r.Timestamp, r.ActorUserID, string(compact(r.Data)))
}

func hash(parts ...string) string {
	h := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// clip shortens a producer's text for responses and logs.
func clip(s string) string {
	if len(s) > maxText {
		return strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	return s
}

// compact removes the white space between tokens.
func compact(data json.RawMessage) []byte {
	var buf bytes.Buffer
	if err := json.Compact(&buf, data); err != nil {
		return data
	}
	return buf.Bytes()
}
