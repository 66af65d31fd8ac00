package dispatch

import (
	"context"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
)

// Events is where accepted events are read.
type Events interface {
	// GetEvent returns event.ErrNotFound for an id that is not, or no longer, there.
	GetEvent(ctx context.Context, id string) (event.Accepted, error)
}

// Endpoints reads endpoints. The dispatcher caches what it returns.
type Endpoints interface {
	// GetEndpoint returns endpoint.ErrNotFound where there is none.
	GetEndpoint(ctx context.Context, tenant, id string) (endpoint.Endpoint, error)
	ListEndpoints(ctx context.Context, tenant string) ([]endpoint.Endpoint, error)
}

// Disabler takes an endpoint out of service.
type Disabler interface {
	// DisableEndpoint is no error for an endpoint that is disabled or gone already.
	DisableEndpoint(ctx context.Context, tenant, id, reason string, now time.Time) error
}

// Deliveries is the life of deliveries. Each move is one conditional write that
// applies the transition of the same name in package delivery, and returns its
// *delivery.Refusal where the state does not allow it. Each is idempotent, so a
// write whose answer was lost may be repeated.
type Deliveries interface {
	Claim(ctx context.Context, c delivery.Claim) (delivery.Delivery, error)
	// Complete stores what a conclusion made of a claimed delivery. It returns
	// delivery.ErrFenced where d's claim (ClaimID and Attempts) is no longer the
	// latest.
	Complete(ctx context.Context, d delivery.Delivery) error
	Settle(ctx context.Context, s delivery.Settle) error
	Park(ctx context.Context, p delivery.Park) (delivery.Delivery, error)
	// GetDelivery changes nothing; delivery.ErrNotFound where there is none.
	GetDelivery(ctx context.Context, k delivery.Key) (delivery.Delivery, error)
}

// Waiting is the backlog of an endpoint whose circuit is open.
type Waiting interface {
	// ListBacklog returns up to limit entries, oldest event first.
	ListBacklog(ctx context.Context, endpointID string, limit int) ([]delivery.BacklogEntry, error)
	// Release applies delivery.Release; delivery.ErrFenced where the delivery does
	// not wait (any more).
	Release(ctx context.Context, r delivery.Release) (delivery.Delivery, error)
}

// Breakers is where circuits are kept.
type Breakers interface {
	// GetBreaker returns a clean breaker where none is stored. A read that is not
	// consistent may be a moment old.
	GetBreaker(ctx context.Context, tenant, endpointID string, consistent bool) (breaker.State, error)
	// PutBreaker stores a breaker that was read with b.Version, and returns it with
	// its new version; breaker.ErrConflict if another write came between, told
	// apart by b.WriteID from the same one repeated.
	PutBreaker(ctx context.Context, b breaker.State, now time.Time) (breaker.State, error)
	// ListCircuits returns the circuits, open or draining, that somebody has to
	// look after by then, the most urgent first; all of them where by is zero.
	ListCircuits(ctx context.Context, by time.Time) ([]breaker.State, error)
}

// Limits is where rate limits are kept.
type Limits interface {
	// ReserveSlots applies ratelimit.Reserve to the theoretical arrival time under a
	// key (ratelimit.Limit.Key), in one write, and returns what it became. A write
	// whose answer was lost may count twice: slots are then wasted, never given twice. A negative
	// cost gives back what was reserved a moment ago.
	ReserveSlots(ctx context.Context, key string, cost time.Duration, now time.Time) (time.Time, error)
}

// DueIndex is what the sweep goes through.
type DueIndex interface {
	// Due returns up to limit deliveries of one shard whose due time is not
	// after before, earliest first, and a cursor for the next page ("" on the last).
	Due(ctx context.Context, shard int, before time.Time, cursor string, limit int) ([]delivery.Due, string, error)
	// Postpone moves a due time, on condition that it still is d.DueAt, and
	// returns the delivery; delivery.ErrFenced where it is not. Of two sweeps
	// that overlap, one wins.
	Postpone(ctx context.Context, d delivery.Due, to time.Time) (delivery.Delivery, error)
	// CountDue counts, up to limit, the deliveries of one shard whose due time is
	// after a time; more says that there are, or may be, more.
	CountDue(ctx context.Context, shard int, after time.Time, limit int) (n int, more bool, err error)
}

// Statistics hears what a batch came to, once, at its end. Nothing that is
// delivered depends on it.
type Statistics interface {
	// AddStatistics adds the batch to its minute. A batch whose ID was the last to
	// be added is not added again.
	AddStatistics(ctx context.Context, b stats.Batch) error
	// NoteSweep replaces what was noted of the sweep before.
	NoteSweep(ctx context.Context, s stats.Sweep) error
}

// Replays is what replaying needs.
type Replays interface {
	// Replay applies delivery.Replay; delivery.ErrNotFound where there is no such delivery.
	Replay(ctx context.Context, r delivery.Replay) (delivery.Delivery, error)
	QueryDeliveries(ctx context.Context, q delivery.Query) (delivery.Page, error)
}

// DeadLetters is the work queue's dead-letter queue.
type DeadLetters interface {
	// Take returns up to ten letters and hides them for a while; none where there
	// are no more to be had just now.
	Take(ctx context.Context) ([]work.Letter, error)
	// Remove deletes letters that were taken. One that is not removed can be taken
	// again later.
	Remove(ctx context.Context, taken []work.Letter) error
}

// Queue carries work items from fan out and sweep to deliver.
type Queue interface {
	// Send puts the items on the queue. It returns nil when all are there, else
	// one entry an item, nil for those that are. An item may arrive more than
	// once and out of order, never before its delay is over.
	Send(ctx context.Context, items []work.Item) []error
}

// Tracer records parts of traces; package tracing has the one that records none.
type Tracer interface {
	// Begin begins a part of the trace that the header names, and returns the
	// header for what the part causes. end is called once, with a mark of package
	// tracing and what the part is to be found by.
	Begin(name, header string) (under string, end func(mark string, annotations map[string]any))
}
