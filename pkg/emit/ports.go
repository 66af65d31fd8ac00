package emit

import (
	"context"
	"time"

	"github.com/tidings-dev/tidings/pkg/event"
)

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
