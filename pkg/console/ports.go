package console

import (
	"context"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/ops/audit"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/platform"
)

// Notes are what the console keeps in Control: the key of its cookies, its links,
// who logged out, and how often somebody tried to log in.
type Notes interface {
	// Bind binds a value to a key until expires (the zero time is for ever) and
	// returns the value that the key holds then: the given one, or the living one
	// that was there before. Of many at once, one wins.
	Bind(ctx context.Context, key, value string, expires time.Time) (holds string, err error)
	// Bound returns the value that a key holds, "" for none.
	Bound(ctx context.Context, key string) (string, error)
	// Count adds one to a counter that lives until expires, and returns it.
	Count(ctx context.Context, key string, expires time.Time) (int, error)
}

// Audit keeps who changed what.
type Audit interface {
	// PutAudit stores an entry, in place of an earlier one of the same id.
	PutAudit(ctx context.Context, e audit.Entry) error
	// ListAudit returns a tenant's entries, newest first, at most limit of them
	// (100 where it is 0), from where the page before ended.
	ListAudit(ctx context.Context, tenant string, limit int, cursor string) (audit.Page, error)
}

// Deliveries is where deliveries are read.
type Deliveries interface {
	// GetDelivery returns delivery.ErrNotFound where there is none.
	GetDelivery(ctx context.Context, k delivery.Key) (delivery.Delivery, error)
	QueryDeliveries(ctx context.Context, q delivery.Query) (delivery.Page, error)
}

// Events is where accepted events are read.
type Events interface {
	// GetEvent returns event.ErrNotFound for an id that is not, or no longer, there.
	GetEvent(ctx context.Context, id string) (event.Accepted, error)
}

// Breakers is where circuits are read.
type Breakers interface {
	// GetBreaker returns a clean breaker where none is stored.
	GetBreaker(ctx context.Context, tenant, endpointID string, consistent bool) (breaker.State, error)
	// ListCircuits returns all circuits that are open or draining, where by is zero.
	ListCircuits(ctx context.Context, by time.Time) ([]breaker.State, error)
}

// Discussions is where the platform's discussions are. Both moves are
// conditional, and return platform's errors where they can't be made.
type Discussions interface {
	GetDiscussion(ctx context.Context, tenant, id string) (platform.Discussion, error)
	ListDiscussions(ctx context.Context, q platform.Query) (platform.Page, error)
	ExtendDiscussion(ctx context.Context, x platform.Extension) (platform.Discussion, error)
	CloseDiscussion(ctx context.Context, c platform.Closing) (platform.Discussion, error)
}

// Statistics is where figures are read; *stats.Reader is one.
type Statistics interface {
	Summary(ctx context.Context) (stats.Summary, error)
	Series(ctx context.Context, length time.Duration) ([]stats.Minute, error)
}

// Invoke calls another function of the stack and reads its answer: what changes
// deliveries is dispatch, wherever the wish comes from. An error that the
// function itself reports holds its own words.
type Invoke func(ctx context.Context, payload, answer any) error

// Receiver is the demonstration's receiver, which only the local runner has: its
// behaviour can be changed on the page.
type Receiver interface {
	Behaviour() Behaviour
	SetBehaviour(Behaviour)
}

// Behaviour is how the demonstration's receiver treats requests.
type Behaviour struct {
	FailPercent int `json:"fail_percent" minimum:"0" maximum:"100" doc:"Share of requests that fail"`
	FailStatus  int `json:"fail_status" minimum:"400" maximum:"599" doc:"With which status"`
	SlowSeconds int `json:"slow_seconds" minimum:"0" maximum:"60" doc:"Wait before every answer"`
}
