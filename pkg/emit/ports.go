package emit

import (
	"context"
	"time"

	"github.com/tidings-dev/tidings/pkg/event"
)

// Events is where accepted events go.
type Events interface {
	// PutEvent stores the event if there is none of its id yet, and returns
	// event.ErrExists otherwise. When it returns nil the event is durable.
	PutEvent(ctx context.Context, e event.Accepted) error
}

// Keys remembers idempotency keys.
type Keys interface {
	// ReserveKey binds the tenant's key to the reservation unless it is bound
	// already, and returns the binding that holds: the same one for every
	// caller, until it expires. The event itself is put afterwards, under the
	// reserved id and on condition that it is not there, so a caller that dies
	// between the two leaves a key whose next user completes the work.
	ReserveKey(ctx context.Context, tenant, key string, r event.Reservation, expires time.Time) (event.Reservation, error)
}

// Tracer records parts of traces; package tracing has the one that records none.
type Tracer interface {
	// Begin begins a part of the trace that the header names, and returns the
	// header for what the part causes. end is called once, with a mark of package
	// tracing and what the part is to be found by.
	Begin(name, header string) (under string, end func(mark string, annotations map[string]any))
}
