// Package dispatch turns accepted events into deliveries and completes each of them:
// fan-out (events stream → queue), deliver (queue → receiver), sweep (due index →
// queue) and replay. It promises that every event reaches every endpoint that
// subscribes to it at least once, or that its delivery ends as a dead letter or as
// skipped, with the reason; and that two attempts at one delivery never overlap.
//
// A worker may die at any point, and each input may arrive more than once. One rule
// keeps the promise: before a message is acknowledged, something else must hold the
// delivery: a settled record, a due time in the index, or another message.
package dispatch

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/ops/tracing"
)

const (
	// LeaseMargin is how much longer the lease is than the attempt's timeout: time to
	// store the verdict, and tolerance for differences between workers' clocks.
	LeaseMargin = 15 * time.Second
	// leaseReserve is the end of the lease, during which nothing is sent. Attempts do
	// not overlap as long as clocks differ by less.
	leaseReserve = 5 * time.Second
	// verdictTime is the timeout for storing a verdict. It applies even if the
	// invocation's deadline is earlier.
	verdictTime = 10 * time.Second
	// endReserve is how long before the invocation's deadline an attempt must end: time to
	// store its verdict. DynamoDB gets 3 s for a request (lambdamain).
	endReserve = 3 * time.Second
	// returnDelay is the delay of a message that an invocation had no time for.
	returnDelay = 2 * time.Second
	// Backstop is how long after its scheduled time the sweep checks that an attempt
	// was made. It must exceed Lookahead by more than the longest attempt.
	Backstop = 3 * time.Minute
	// Lookahead is how far ahead a sweep queues due deliveries. It exceeds the minute
	// between two sweeps, so that the queue's delay makes attempts start on time.
	Lookahead = 90 * time.Second
	// CacheTime is how long a deployment caches endpoints' settings.
	CacheTime = 15 * time.Second
	// CircuitTime is how long a circuit's state is cached.
	CircuitTime = time.Second
)

// Sender makes attempts; destination adapters implement it.
type Sender interface {
	Deliver(ctx context.Context, t destination.Target, m destination.Message) delivery.Outcome
}

// Config holds a Dispatcher's dependencies. All fields are required, except CacheTime,
// SlowQueue, RetentionDays, Tracer (default: none), and Now, Random and ClaimID, which tests
// replace.
type Config struct {
	Events     Events
	Endpoints  Endpoints
	Disabler   Disabler
	Deliveries Deliveries
	Due        DueIndex
	Replays    Replays
	Waiting    Waiting
	Breakers   Breakers
	Limits     Limits
	Queue      Queue
	// SlowQueue is the work queue of endpoints that answer slowly; nil: they share Queue.
	SlowQueue Queue
	// DeadLetters is the queue that Redrive and the sweep empty; nil if there is none.
	DeadLetters DeadLetters
	// StreamDeadLetters is the queue of the batches of the Events stream that were not fanned
	// out; nil if there is none.
	StreamDeadLetters DeadLetters
	Sender            Sender
	Journal           Journal
	Statistics        Statistics
	Jobs              Jobs
	JobList           JobList
	Scan              EventScan
	// StoredEvents, Erasures, Kept and Types are for erasures only.
	StoredEvents StoredEvents
	Erasures     Erasures
	Kept         KeptChanges
	Types        EventTypes
	Log          *slog.Logger
	Tracer       Tracer
	CacheTime    time.Duration // how long endpoints are cached; 0 disables the cache
	// RetentionDays is how many days events are kept whose type has no retention of its own;
	// 0 means event.DefaultRetentionDays.
	RetentionDays int

	Now     func() time.Time
	Random  func() float64 // in [0, 1), for jitter
	ClaimID func() string  // unique among all workers
	// BeforeLock is called before a goroutine waits for the lock of a circuit breaker.
	// The simulation decides in which order goroutines continue; nil does nothing.
	BeforeLock func(ctx context.Context)
}

// Dispatcher fans events out and delivers them. It is safe for concurrent use.
type Dispatcher struct {
	Config
	endpoints *endpointCache
	circuits  *circuitCache
	undefined stats.Names // types without a definition
}

// New returns a Dispatcher.
func New(c Config) *Dispatcher {
	now := c.Now
	if now == nil {
		now = time.Now
	}
	// Stores keep milliseconds. With a finer clock, a stored time would differ from the
	// one that a worker decided on.
	c.Now = func() time.Time { return now().Truncate(time.Millisecond) }
	if c.Tracer == nil {
		c.Tracer = tracing.None{}
	}
	if c.Random == nil {
		c.Random = mathrand.Float64
	}
	if c.ClaimID == nil {
		c.ClaimID = func() string { return rand.Text()[:16] }
	}
	if c.BeforeLock == nil {
		c.BeforeLock = func(context.Context) {}
	}
	if c.SlowQueue == nil {
		c.SlowQueue = c.Queue
	}
	c.Queue = lanes{c.Queue, c.SlowQueue}
	c.Deliveries, c.Disabler = counted{c.Deliveries}, countedDisabler{c.Disabler}
	return &Dispatcher{
		Config:    c,
		endpoints: newEndpointCache(c.Endpoints, c.CacheTime, c.Now),
		circuits:  &circuitCache{store: c.Breakers, now: c.Now, newID: c.ClaimID, log: c.Log, beforeLock: c.BeforeLock, entries: map[string]*cachedCircuit{}},
	}
}

// Command is a direct invocation, by the schedule or by an operator.
type Command struct {
	// Action is "sweep", "replay" (one delivery), "start_job", "cancel_job", "close_circuit"
	// (of one endpoint) or "redrive" (dead letters).
	Action     string `json:"action"`
	Tenant     string `json:"tenant,omitempty"` // of the endpoint or job; default if empty
	EndpointID string `json:"endpoint_id,omitempty"`
	EventID    string `json:"event_id,omitempty"`
	// JobID is the job to cancel. start_job may give one, so that it can be repeated.
	JobID string `json:"job_id,omitempty"`
	// By is who starts or cancels a job.
	By string `json:"by,omitempty"`
	// Kind of the job to start. The other fields are its parameters; see jobs.Parameters.
	Kind   jobs.Kind        `json:"kind,omitempty"`
	From   time.Time        `json:"from,omitzero"`
	To     time.Time        `json:"to,omitzero"`
	Types  []string         `json:"types,omitempty"`
	States []delivery.State `json:"states,omitempty"`
	Status string           `json:"status,omitempty"`
	// Subject is the person whose events an erase job erases.
	Subject string `json:"subject,omitempty"`
	// WithoutTenant makes it remove failed changes that have no tenant, too: for operators.
	WithoutTenant bool `json:"without_tenant,omitempty"`
	// DryRun makes the job count only.
	DryRun bool `json:"dry_run,omitempty"`
}

// tenant is the command's tenant.
func (c Command) tenant() string {
	if c.Tenant == "" {
		return event.DefaultTenant
	}
	return c.Tenant
}

// Run executes a command and returns its result.
func (d *Dispatcher) Run(ctx context.Context, c Command) (any, error) {
	switch c.Action {
	case "sweep":
		return d.Sweep(ctx)
	case "replay":
		return d.Replay(ctx, c)
	case "start_job":
		return d.StartJob(ctx, c)
	case "cancel_job":
		return d.CancelJob(ctx, c)
	case "close_circuit":
		return d.CloseCircuit(ctx, c)
	case "redrive":
		return d.Redrive(ctx)
	}
	return nil, fmt.Errorf("unknown action %.64q; the actions are sweep, replay, start_job, cancel_job, close_circuit and redrive", c.Action)
}
