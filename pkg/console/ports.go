package console

import (
	"context"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/ops/audit"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/platform"
)

// SessionStore stores the console's key-value state in the Control table: the session
// key, login links, ended sessions and the counters of login attempts.
type SessionStore interface {
	// PutValueIfAbsent sets a key that has no unexpired value, and returns the key's
	// value: the given or the existing one. Of concurrent calls, one sets the key. A
	// zero expires means never.
	PutValueIfAbsent(ctx context.Context, key, value string, expires time.Time) (current string, err error)
	// GetValue returns a key's value, or "" if it has none.
	GetValue(ctx context.Context, key string) (string, error)
	// IncrementCounter increments a counter that expires at expires, and returns it.
	IncrementCounter(ctx context.Context, key string, expires time.Time) (int, error)
}

// Audit stores the audit log.
type Audit interface {
	// PutAudit stores an entry and replaces an earlier one with the same id.
	PutAudit(ctx context.Context, e audit.Entry) error
	// ListAudit returns a page of a tenant's entries, newest first. A limit of 0 means
	// 100.
	ListAudit(ctx context.Context, tenant string, limit int, cursor string) (audit.Page, error)
}

// Deliveries reads deliveries.
type Deliveries interface {
	// GetDelivery returns delivery.ErrNotFound if there is no such delivery.
	GetDelivery(ctx context.Context, k delivery.Key) (delivery.Delivery, error)
	QueryDeliveries(ctx context.Context, q delivery.Query) (delivery.Page, error)
	// ListPending returns pending deliveries at a cost that does not depend on how many others
	// there are.
	ListPending(ctx context.Context, q delivery.PendingQuery) (delivery.PendingPage, error)
}

// Jobs reads jobs.
type Jobs interface {
	// GetJob returns jobs.ErrNotFound if there is no such job.
	GetJob(ctx context.Context, k jobs.Key) (jobs.Job, error)
	ListJobs(ctx context.Context, q jobs.Query) (jobs.Page, error)
}

// Events reads accepted events.
type Events interface {
	// GetEvent returns event.ErrNotFound for an unknown or expired event.
	GetEvent(ctx context.Context, id string) (event.Accepted, error)
}

// SlowLane reads which endpoints are in the slow lane.
type SlowLane interface {
	// GetBreaker returns a closed breaker if none is stored.
	GetBreaker(ctx context.Context, tenant, endpointID string, consistent bool) (breaker.State, error)
}

// Breakers reads circuit breakers.
type Breakers interface {
	SlowLane
	// ListCircuits returns the breakers that are open or draining; with a zero by, all
	// of them.
	ListCircuits(ctx context.Context, by time.Time) ([]breaker.State, error)
}

// Discussions reads and changes the platform's discussions. Both changes are
// conditional writes and return package platform's errors.
type Discussions interface {
	GetDiscussion(ctx context.Context, tenant, id string) (platform.Discussion, error)
	ListDiscussions(ctx context.Context, q platform.Query) (platform.Page, error)
	ExtendDiscussion(ctx context.Context, x platform.Extension) (platform.Discussion, error)
	CloseDiscussion(ctx context.Context, c platform.Closing) (platform.Discussion, error)
}

// FailedChanges reads the changes that could not become events.
type FailedChanges interface {
	// GetFailedChange returns a failed change with its record, or
	// platform.ErrNoFailedChange.
	GetFailedChange(ctx context.Context, id string) (platform.FailedChange, error)
	// ListFailedChanges returns changes made since from, without their records, newest
	// first.
	ListFailedChanges(ctx context.Context, from time.Time, limit int, cursor string) (platform.FailedChangePage, error)
}

// Statistics reads the overview's figures; *stats.Reader implements it.
type Statistics interface {
	Summary(ctx context.Context) (stats.Summary, error)
	Series(ctx context.Context, length time.Duration) ([]stats.Minute, error)
}

// History reads the statistics of past days; *stats.History implements it.
type History interface {
	// Last returns the last n days, the newest first.
	Last(ctx context.Context, n int) ([]stats.Day, error)
}

// Invoke invokes another Lambda function of the stack and decodes its response.
// Only dispatch changes deliveries, so the console asks it to. An error that the
// function returns is passed on with its message.
type Invoke func(ctx context.Context, payload, response any) error

// Receiver is the demo receiver of the local runner. Its behaviour can be changed
// on the overview page.
type Receiver interface {
	Behaviour() Behaviour
	SetBehaviour(Behaviour)
}

// Behaviour is how the demo receiver answers requests.
type Behaviour struct {
	FailPercent int `json:"fail_percent" minimum:"0" maximum:"100" doc:"Percentage of requests that fail"`
	FailStatus  int `json:"fail_status" minimum:"400" maximum:"599" doc:"Status of the failed requests"`
	SlowSeconds int `json:"slow_seconds" minimum:"0" maximum:"60" doc:"Delay before every response, in seconds"`
}
