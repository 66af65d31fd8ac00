package emit

import (
	"context"
	"time"

	"github.com/tidings-dev/tidings/pkg/emit/capture/rules"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/validate"
	"github.com/tidings-dev/tidings/pkg/platform"
)

// Catalog is the source of the event types.
type Catalog interface {
	// Of returns the types of a tenant, the deployment's and its own, as they are now, or
	// were a minute ago. The tenant's name may be none that a tenant can have.
	Of(ctx context.Context, tenant string) (*validate.Catalog, error)
}

// Rules is the source of the capture rules.
type Rules interface {
	// Current returns the rules as they are now, or were a minute ago.
	Current(ctx context.Context) (*rules.Set, error)
}

// Events stores accepted events.
type Events interface {
	// PutEvent stores the event. It returns event.ErrExists if there is one with its
	// ID. If it returns nil, the event is durable.
	PutEvent(ctx context.Context, e event.Accepted) error
}

// Keys stores idempotency keys.
type Keys interface {
	// ReserveKey binds the tenant's key to the reservation unless it is already bound,
	// and returns the binding, which is the same for every caller until it expires.
	// The event is stored afterwards, under the reserved ID and only if it is not
	// there. If a caller dies in between, the next one with the key stores it.
	ReserveKey(ctx context.Context, tenant, key string, r event.Reservation, expires time.Time) (event.Reservation, error)
}

// Tracer records subsegments of traces; tracing.None records nothing.
type Tracer interface {
	// Begin begins a subsegment of the header's trace, and returns the header for what
	// happens within it. end must be called once, with a mark of package tracing and
	// the subsegment's annotations.
	Begin(name, header string) (under string, end func(mark string, annotations map[string]any))
}

// FailedChanges keeps changes that should have become an event and could not.
type FailedChanges interface {
	// KeepFailedChange stores the change unless it is kept already, and reports whether
	// it stored it. If it returns no error, the change is durable.
	KeepFailedChange(ctx context.Context, f platform.FailedChange) (isNew bool, err error)
}

// Recaptures is what capturing a kept change again needs.
type Recaptures interface {
	// GetFailedChange returns a failed change with its record, or
	// platform.ErrNoFailedChange.
	GetFailedChange(ctx context.Context, id string) (platform.FailedChange, error)
	// FailAgain stores that another attempt failed. It does nothing if somebody else
	// stored an attempt since f was read.
	FailAgain(ctx context.Context, f platform.FailedChange, reason string, at time.Time) error
	// RemoveFailedChange deletes a failed change. A missing one is not an error.
	RemoveFailedChange(ctx context.Context, id string) error
}

// StuckCaptures stores the mark that capture is stuck.
type StuckCaptures interface {
	// MarkStuckCapture replaces the mark. It keeps the mark's Since if the previous
	// failure is recent (platform.StuckFresh).
	MarkStuckCapture(ctx context.Context, mark platform.StuckCapture) error
	// ClearStuckCapture removes the mark if it names the sequence number.
	ClearStuckCapture(ctx context.Context, sequenceNumber string) error
}
