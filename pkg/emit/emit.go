// Package emit accepts events from producers: it validates each, rejects invalid ones
// with an error that names the field, and stores the others in the Events table. It
// promises that an accepted event is durable, that a rejected one leaves nothing
// behind, and that an idempotency key stands for one event, even if a worker dies
// between reserving the key and storing the event.
package emit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/validate"
	"github.com/tidings-dev/tidings/pkg/ops/tracing"
)

const (
	// MaxList is the maximum number of events per call.
	MaxList = 500
	// KeyRetention is how long an idempotency key is remembered.
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
	Tenant         string          `json:"tenant,omitempty"`        // default if empty
	Timestamp      string          `json:"timestamp,omitempty"`     // RFC 3339; now if empty
	ActorUserID    string          `json:"actor_user_id,omitempty"` // the user who caused the event
	Data           json.RawMessage `json:"data"`
	RequestID      string          `json:"request_id,omitempty"`
	IdempotencyKey string          `json:"idempotency_key,omitempty"`
}

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
	TooLarge      Code = "too_large"
	TooMany       Code = "too_many_events"
	KeyConflict   Code = "idempotency_key_conflict"
	Unavailable   Code = "unavailable"
)

// Error tells why an event was rejected. Retrying helps only if the code is
// Unavailable.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	Field   string `json:"field,omitempty"`
}

func (e *Error) Error() string { return e.Message }

// Emitter accepts events. It is safe for concurrent use.
type Emitter struct {
	Catalog *validate.Catalog
	Events  Events
	Keys    Keys
	Log     *slog.Logger
	Now     func() time.Time
	// NewID returns a new event ID; nil means event.NewID.
	NewID  func(now time.Time) string
	Tracer Tracer // nil for none
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

// isTenant reports whether a text is a valid tenant name.
func isTenant(text string) bool {
	for i := range len(text) {
		switch c := text[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return len(text) >= 1 && len(text) <= 64
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
				results[i] = em.Emit(ctx, requests[i])
			}
		})
	}
	workers.Wait()
	return results
}

// Emit accepts one event. If the result has no error, the event is stored.
func (em *Emitter) Emit(ctx context.Context, r Request) Result {
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
		em.Log.WarnContext(ctx, "event.refused", "event_type", clip(r.Event), "code", string(refused.Code), "field", refused.Field)
	}
	return Result{Error: refused}
}

func (em *Emitter) accept(ctx context.Context, r Request) (id string, duplicate bool, err error) {
	e, err := em.check(r)
	if err != nil {
		return "", false, err
	}
	now := em.Now()
	e.ID = em.newID(now)
	if e.RequestID == "" {
		e.RequestID, _ = ctx.Value(requestID{}).(string)
	}
	trace := tracing.FromContext(ctx)
	e.TraceID = tracing.ID(trace)

	// Encode before the key is reserved, so that a rejected event does not use it up.
	body, err := stamped(e).Encode()
	if err != nil {
		return "", false, asRefusal(err)
	}
	if r.IdempotencyKey != "" {
		mine := event.Reservation{EventID: e.ID, Digest: digest(r)}
		holds, err := em.Keys.ReserveKey(ctx, r.Tenant, r.IdempotencyKey, mine, now.Add(KeyRetention))
		if err != nil {
			return "", false, fmt.Errorf("reserve idempotency key: %w", err)
		}
		if holds.Digest != mine.Digest {
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
	err = em.Events.PutEvent(ctx, event.Accepted{ID: e.ID, Tenant: r.Tenant, Body: body, Trace: trace})
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

func (em *Emitter) check(r Request) (e event.Event, err error) {
	if !isTenant(r.Tenant) {
		return e, &Error{Code: InvalidField, Field: "tenant", Message: "tenant: must be 1 to 64 letters, digits, dots, dashes or underscores"}
	}
	if r.Event == "" {
		return e, &Error{Code: InvalidField, Field: "event", Message: "event: is missing; it must be one of " + strings.Join(em.Catalog.Types(), ", ")}
	}
	for _, f := range []struct{ field, value string }{
		{"actor_user_id", r.ActorUserID}, {"request_id", r.RequestID}, {"idempotency_key", r.IdempotencyKey},
	} {
		if len(f.value) > maxText {
			return e, &Error{Code: InvalidField, Field: f.field, Message: fmt.Sprintf("%s: is %d bytes; the limit is %d", f.field, len(f.value), maxText)}
		}
	}
	var at time.Time
	if r.Timestamp != "" {
		if at, err = time.Parse(time.RFC3339Nano, r.Timestamp); err != nil || !event.Writable(at) {
			return e, &Error{Code: InvalidField, Field: "timestamp", Message: "timestamp: must be an RFC 3339 date and time, such as 2026-01-29T12:34:56.789Z"}
		}
	}
	if len(r.Data) > event.MaxBodyBytes {
		return e, asRefusal(&event.TooLargeError{Bytes: len(r.Data)})
	}
	if err := em.Catalog.Validate(r.Event, r.Data); err != nil {
		return e, asRefusal(err)
	}
	return event.Event{
		Type: r.Event, Timestamp: at, ActorUserID: r.ActorUserID, Data: r.Data,
		RequestID: r.RequestID, IdempotencyKey: r.IdempotencyKey,
	}, nil
}

// asRefusal converts errors of validation and encoding to an *Error.
func asRefusal(err error) error {
	var unknown *validate.UnknownTypeError
	var invalid *validate.InvalidDataError
	var large *event.TooLargeError
	switch {
	case errors.As(err, &unknown):
		return &Error{Code: UnknownType, Field: "event", Message: "event: " + err.Error()}
	case errors.As(err, &invalid):
		field := "data"
		if len(invalid.Problems) > 0 {
			field = invalid.Problems[0].Field
		}
		return &Error{Code: InvalidData, Field: field, Message: err.Error()}
	case errors.As(err, &large):
		return &Error{Code: TooLarge, Field: "data", Message: err.Error()}
	}
	return &Error{Code: InvalidData, Field: "data", Message: err.Error()}
}

// digest hashes the fields by which two requests with one idempotency key must agree.
func digest(r Request) string {
	h := sha256.New()
	for _, part := range []string{r.Event, r.Timestamp, r.ActorUserID, string(compact(r.Data))} {
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

// compact removes the white space between tokens. The digests of stored idempotency
// keys depend on it.
func compact(data json.RawMessage) []byte {
	var buf bytes.Buffer
	if err := json.Compact(&buf, data); err != nil {
		return data
	}
	return buf.Bytes()
}
