// Package dispatch turns accepted events into deliveries and sees each through:
// fan out (events stream → queue), deliver (queue → receiver), sweep (due index
// → queue) and replay. It promises that every event reaches every endpoint that
// subscribed to it at least once, or ends as a dead letter or as skipped with
// the reason; and that two attempts at one delivery never overlap.
//
// Each half may die at any point, and its input may come twice. What holds the
// promise up is one rule: before a message is acknowledged, something else must
// hold the delivery: a settled record, a due time in the index, another message.
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
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/ops/tracing"
)

const (
	// LeaseMargin is how much longer than the attempt's timeout a lease lives:
	// room for storing the verdict, and for workers' clocks to differ.
	LeaseMargin = 15 * time.Second
	// leaseReserve is the part of the margin in which nothing is sent any more,
	// so two attempts stay apart while clocks differ by less than this.
	leaseReserve = 5 * time.Second
	// verdictTime is how long storing a verdict may take, even past the
	// invocation's own deadline.
	verdictTime = 10 * time.Second
	// Backstop is how long after an attempt's time the sweep looks whether it
	// was made. It must exceed Lookahead by more than the longest attempt.
	Backstop = 3 * time.Minute
	// Lookahead is how far ahead a sweep queues what falls due: more than the
	// minute between two sweeps, so that the queue's delay keeps the second.
	Lookahead = 90 * time.Second
	// CacheTime is how long an endpoint's settings are used unread in a deployment.
	CacheTime = 15 * time.Second
	// CircuitTime is how long what is known of a circuit is used unread.
	CircuitTime = time.Second
	// ParkTime is how long a delivery waits for a circuit until the sweep looks
	// whether it has been forgotten.
	ParkTime = 6 * time.Hour
	// slotWait is how long a worker waits for a slot itself, instead of the queue:
	// the queue counts whole seconds, and rounded down.
	slotWait = 1100 * time.Millisecond
)

// Sender makes attempts; the adapters' registry is one.
type Sender interface {
	Deliver(ctx context.Context, t destination.Target, m destination.Message) delivery.Outcome
}

// Config is what a Dispatcher works with. Every field is required, except Tracer,
// which defaults to none, and Now, Random and ClaimID, to the real ones.
type Config struct {
	Catalog    *catalog.Catalog
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
	// DeadLetters is what Redrive empties.
	DeadLetters DeadLetters
	Sender      Sender
	Statistics  Statistics
	Log         *slog.Logger
	Tracer      Tracer
	CacheTime   time.Duration // how long endpoints are used unread; 0 reads them every time

	Now     func() time.Time
	Random  func() float64 // in [0,1), for jitter
	ClaimID func() string  // unique among all workers
}

// Dispatcher is the dispatch function.
type Dispatcher struct {
	Config
	endpoints *endpointCache
	circuits  *circuits
}

// New returns a Dispatcher.
func New(c Config) *Dispatcher {
	now := c.Now
	if now == nil {
		now = time.Now
	}
	// Stores keep milliseconds; comparing anything finer would differ between
	// what a worker decided and what it reads back.
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
	c.Deliveries, c.Disabler = counted{c.Deliveries}, countedDisabler{c.Disabler}
	return &Dispatcher{
		Config:    c,
		endpoints: newEndpointCache(c.Endpoints, c.CacheTime, c.Now),
		circuits:  &circuits{store: c.Breakers, now: c.Now, id: c.ClaimID, known: map[string]*circuit{}},
	}
}

// Command is a direct invocation: the schedule's, or an operator's.
type Command struct {
	// Action is "sweep", "replay" (one delivery), "replay_dead" (an endpoint's dead
	// letters), "close_circuit" (an endpoint's, by hand) or "redrive" (the work
	// queue's dead letters).
	Action     string `json:"action"`
	Tenant     string `json:"tenant,omitempty"` // of the endpoint; default where empty
	EndpointID string `json:"endpoint_id,omitempty"`
	EventID    string `json:"event_id,omitempty"`
	// From and To bound replay_dead by the events' acceptance, both included.
	From time.Time `json:"from,omitzero"`
	To   time.Time `json:"to,omitzero"`
	// Cursor goes on where the reply before said Next.
	Cursor string `json:"cursor,omitempty"`
}

// Run executes a command, and returns what it did.
func (d *Dispatcher) Run(ctx context.Context, c Command) (any, error) {
	switch c.Action {
	case "sweep":
		return d.Sweep(ctx)
	case "replay":
		return d.Replay(ctx, c)
	case "replay_dead":
		return d.ReplayDead(ctx, c)
	case "close_circuit":
		return d.CloseCircuit(ctx, c)
	case "redrive":
		return d.Redrive(ctx)
	}
	return nil, fmt.Errorf("action %.64q is unknown; the actions are sweep, replay, replay_dead, close_circuit and redrive", c.Action)
}
