package dispatch

import (
	"context"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/journal"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
)

// Events reads accepted events.
type Events interface {
	// GetEvent returns event.ErrNotFound if the event does not exist or has expired.
	GetEvent(ctx context.Context, id string) (event.Accepted, error)
	// KeepEvent prolongs the time until an event is deleted. It never shortens it, and does
	// nothing if there is no such event.
	KeepEvent(ctx context.Context, id string, until time.Time) error
}

// Endpoints reads endpoints. The dispatcher caches what it returns.
type Endpoints interface {
	// GetEndpoint returns endpoint.ErrNotFound if there is none.
	GetEndpoint(ctx context.Context, tenant, id string) (endpoint.Endpoint, error)
	// ReadEndpoints returns all endpoints of a tenant. A read that is not consistent may
	// return an older list, with its version.
	ReadEndpoints(ctx context.Context, tenant string, consistent bool) (endpoint.List, error)
	// EndpointsVersion returns the version of that list. It may be a moment behind.
	EndpointsVersion(ctx context.Context, tenant string) (int64, error)
}

// Disabler disables endpoints.
type Disabler interface {
	// DisableEndpoint returns nil if the endpoint is already disabled or deleted.
	DisableEndpoint(ctx context.Context, tenant, id, reason string, now time.Time) error
}

// Deliveries stores deliveries. Each change is one conditional write that applies the
// transition of the same name in package delivery, and returns its *delivery.Refusal
// if the state does not allow it. Each is idempotent: a write whose response was lost
// may be repeated.
type Deliveries interface {
	Claim(ctx context.Context, c delivery.Claim) (delivery.Delivery, error)
	// Complete stores a claimed delivery after its conclusion was applied. It returns
	// delivery.ErrFenced if d's claim (ClaimID and Attempts) is no longer the latest.
	Complete(ctx context.Context, d delivery.Delivery) error
	Settle(ctx context.Context, s delivery.Settle) error
	Park(ctx context.Context, p delivery.Park) (delivery.Delivery, error)
	// GetDelivery returns delivery.ErrNotFound if there is none.
	GetDelivery(ctx context.Context, k delivery.Key) (delivery.Delivery, error)
}

// Waiting reads the backlogs of endpoints.
type Waiting interface {
	// ListBacklog reads up to limit entries of an endpoint's backlog that are later than
	// the event after ("" for all), oldest event first.
	ListBacklog(ctx context.Context, endpointID, after string, limit int) (delivery.Backlog, error)
	// CountBacklog counts the entries of an endpoint's backlog, up to limit.
	CountBacklog(ctx context.Context, endpointID string, limit int) (int, error)
}

// Breakers stores circuit breakers.
type Breakers interface {
	// GetBreaker returns a clean breaker if none is stored, and one with
	// breaker.ErrUnreadable if it cannot be decoded. A read that is not
	// consistent may return an older state.
	GetBreaker(ctx context.Context, tenant, endpointID string, consistent bool) (breaker.State, error)
	// PutBreaker stores a breaker that was read with b.Version, and returns it with
	// its new version. It returns breaker.ErrConflict if there was another write in
	// between; a repetition of the same write is recognised by b.WriteID.
	PutBreaker(ctx context.Context, b breaker.State, now time.Time) (breaker.State, error)
	// ListCircuits returns the open and draining circuits with a WakeAt not after by,
	// earliest first; all of them if by is zero.
	ListCircuits(ctx context.Context, by time.Time) ([]breaker.State, error)
}

// Limits stores rate limits.
type Limits interface {
	// Reserve applies r to the theoretical arrival time under a key (ratelimit.Limit.Key),
	// in one write, and returns what r.Apply does. A write whose response was lost may
	// count twice: slots are then wasted, never given out twice.
	Reserve(ctx context.Context, key string, r ratelimit.Reservation) (at time.Time, ok bool, err error)
}

// DueIndex is the sparse index of due times that the sweep reads.
type DueIndex interface {
	// Due returns up to limit deliveries of one shard whose due time is not
	// after before, earliest first, and a cursor for the next page ("" on the last).
	Due(ctx context.Context, shard int, before time.Time, cursor string, limit int) ([]delivery.Due, string, error)
	// Postpone moves a due time and returns the delivery. It returns
	// delivery.ErrFenced if the due time is no longer d.DueAt, so of two overlapping
	// sweeps only one queues the delivery.
	Postpone(ctx context.Context, d delivery.Due, to time.Time) (delivery.Delivery, error)
	// CountDue counts, up to limit, the deliveries of one shard whose due time is
	// after the given time. more means that there may be more.
	CountDue(ctx context.Context, shard int, after time.Time, limit int) (n int, more bool, err error)
}

// Journal records which events were fanned out.
type Journal interface {
	journal.Source
	// PutJournal stores an item, or the same item again.
	PutJournal(ctx context.Context, i journal.Item) error
}

// Statistics stores the counts of each batch at its end. Deliveries do not depend on
// it.
type Statistics interface {
	stats.Sink
	// NoteSweep replaces the figures of the previous sweep.
	NoteSweep(ctx context.Context, s stats.Sweep) error
}

// Replays finds and replays settled deliveries.
type Replays interface {
	// Replay applies delivery.Replay. It returns delivery.ErrNotFound if there is no
	// such delivery.
	Replay(ctx context.Context, r delivery.Replay) (delivery.Delivery, error)
	QueryDeliveries(ctx context.Context, q delivery.Query) (delivery.Page, error)
}

// DeadLetters is a dead-letter queue.
type DeadLetters interface {
	// Take receives up to ten letters, which are then invisible for the queue's
	// visibility timeout. It returns none if the queue has no visible ones.
	Take(ctx context.Context) ([]work.Letter, error)
	// Remove deletes letters that were taken. The others become visible again.
	Remove(ctx context.Context, taken []work.Letter) error
}

// Queue is the work queue.
type Queue interface {
	// Send sends the items. It returns nil if all were sent, else one error per item,
	// nil for those that were sent. An item may arrive more than once and out of
	// order, but not before its delay is over.
	Send(ctx context.Context, items []work.Item) []error
}

// Tracer records subsegments of traces; tracing.None records nothing.
type Tracer interface {
	// Begin begins a subsegment of the header's trace, and returns the header for what
	// happens within it. end must be called once, with a mark of package tracing and
	// the subsegment's annotations.
	Begin(name, header string) (under string, end func(mark string, annotations map[string]any))
}
