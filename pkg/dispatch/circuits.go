package dispatch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
)

const (
	// maxCircuits bounds the circuits that a worker knows; past it, all are forgotten.
	maxCircuits = 10_000
	// circuitTries is how often a transition is tried against other workers'. Few
	// are ever needed: a circuit that has opened takes no note of further failures.
	circuitTries = 10
	// drainPage is how many waiting deliveries are let go at a time.
	drainPage = 100
	// probePage is among how many of the oldest waiting deliveries the probe is
	// chosen: the one with the fewest attempts, so that one message which the receiver
	// can't digest does not keep the circuit open for all.
	probePage = 25
	// drainRate is how many a second are let go where the endpoint has no rate
	// limit of its own: a receiver that has just come back is not flooded.
	drainRate = 50
	// drainTime is after how long a draining that has stopped is taken up again.
	drainTime = 2 * time.Minute
	// idleProbe is how often a circuit is looked after for which nothing waits. The
	// next event is its probe anyway.
	idleProbe = 5 * time.Minute
)

// circuits does the I/O around the breakers' transitions, and knows for a moment
// what it has read.
type circuits struct {
	store Breakers
	now   func() time.Time
	id    func() string // unique among all workers

	mu    sync.Mutex
	known map[string]*circuit
}

// circuit is what this worker knows of one. Who holds turn may read and write it;
// it is a channel, not a mutex, because it is held during I/O.
type circuit struct {
	turn  chan struct{}
	at    time.Time
	state breaker.State
}

func (c *circuits) take(ctx context.Context, endpointID string) (*circuit, error) {
	c.mu.Lock()
	one := c.known[endpointID]
	if one == nil {
		if len(c.known) >= maxCircuits {
			clear(c.known)
		}
		one = &circuit{turn: make(chan struct{}, 1)}
		c.known[endpointID] = one
	}
	c.mu.Unlock()
	select {
	case one.turn <- struct{}{}:
		return one, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// look returns a circuit's state as it was at most CircuitTime ago; fresh, as it
// is now.
func (c *circuits) look(ctx context.Context, tenant, endpointID string, fresh bool) (breaker.State, error) {
	one, err := c.take(ctx, endpointID)
	if err != nil {
		return breaker.State{}, err
	}
	defer func() { <-one.turn }()
	return c.read(ctx, one, tenant, endpointID, fresh)
}

func (c *circuits) read(ctx context.Context, one *circuit, tenant, endpointID string, fresh bool) (breaker.State, error) {
	now := c.now()
	if !fresh && !one.at.IsZero() && now.Sub(one.at) < CircuitTime {
		return one.state, nil
	}
	s, err := c.store.GetBreaker(ctx, tenant, endpointID, fresh)
	if err != nil {
		return s, err
	}
	one.at, one.state = now, s
	return s, nil
}

// change applies a transition to what is known, and stores its result unless it
// changed nothing. Where another worker has written in between it reads and tries
// again. It returns the state that stands then.
func (c *circuits) change(ctx context.Context, tenant, endpointID string, fresh bool, apply func(breaker.State) (breaker.State, bool)) (s breaker.State, changed bool, err error) {
	one, err := c.take(ctx, endpointID)
	if err != nil {
		return s, false, err
	}
	defer func() { <-one.turn }()
	for range circuitTries {
		if s, err = c.read(ctx, one, tenant, endpointID, fresh); err != nil {
			return s, false, err
		}
		next, changed := apply(s)
		if !changed {
			return s, false, nil
		}
		now := c.now()
		next.WriteID = c.id()
		next, err = c.store.PutBreaker(ctx, next, now)
		if err == nil {
			one.at, one.state = now, next
			return next, true, nil
		}
		one.at = time.Time{}
		if !errors.Is(err, breaker.ErrConflict) {
			return s, false, err
		}
		fresh = true
	}
	return s, false, err
}

// report tells the endpoint's circuit what became of an attempt. What goes wrong
// here is logged: the verdict on the delivery is stored already.
func (d *Dispatcher) report(ctx context.Context, ep *endpoint.Endpoint, claimID string, outcome delivery.Outcome) error {
	now := d.Now()
	var failed breaker.FailureResult
	closed := false
	s, changed, err := d.circuits.change(ctx, ep.Tenant, ep.ID, false, func(s breaker.State) (breaker.State, bool) {
		failed, closed = breaker.FailureResult{}, false
		changed := false
		switch {
		case outcome.Class == delivery.Success:
			wasOpen := s.Phase == breaker.Open
			s, changed = s.RecordSuccess(claimID, now)
			closed = changed && wasOpen && s.Phase != breaker.Open
		case breaker.ConcernsEndpoint(outcome.Class):
			s, failed = s.RecordFailure(ep.Breaker, claimID, outcome.Error, now)
			changed = failed.Changed
		default:
			s, changed = s.ReleaseProbe(claimID, now)
		}
		if outcome.Class == delivery.Success || outcome.Class == delivery.Timeout {
			took, paced := s.RecordDuration(outcome.Timings.Total)
			return took, changed || paced
		}
		return s, changed
	})
	switch {
	case err != nil:
		d.Log.ErrorContext(ctx, "circuit.not_stored", "endpoint_id", ep.ID, "error", err.Error())
		return nil
	case !changed:
		return nil
	case failed.Disable:
		if err := d.disable(ctx, ep, fmt.Sprintf("it has only failed since %s: %s", s.FailingSince.Format(time.RFC3339), outcome.Error), now); err != nil {
			return err
		}
		d.sendWake(ctx, ep.Tenant, ep.ID, 0)
	case failed.Opened:
		d.Log.WarnContext(ctx, "circuit.opened", "endpoint_id", ep.ID, "tenant", ep.Tenant, "failures", s.Failures, "until", s.Until, "cause", s.Cause)
		d.sendWake(ctx, ep.Tenant, ep.ID, s.OpenFor)
	case closed:
		d.Log.InfoContext(ctx, "circuit.closed", "endpoint_id", ep.ID, "tenant", ep.Tenant)
		d.sendWake(ctx, ep.Tenant, ep.ID, 0)
	}
	return nil
}

// returnProbe gives back a probe that was not made.
func (d *Dispatcher) returnProbe(ctx context.Context, ep *endpoint.Endpoint, claimID string) {
	_, changed, err := d.circuits.change(ctx, ep.Tenant, ep.ID, false, func(s breaker.State) (breaker.State, bool) {
		return s.ReleaseProbe(claimID, d.Now())
	})
	switch {
	case err != nil: // it comes free when its time is over
		d.Log.WarnContext(ctx, "circuit.probe_not_returned", "endpoint_id", ep.ID, "error", err.Error())
	case changed:
		d.sendWake(ctx, ep.Tenant, ep.ID, 0)
	}
}

// sendWake asks some worker to look after a circuit. What is lost, or would be
// later than the queue can wait, is the sweep's.
func (d *Dispatcher) sendWake(ctx context.Context, tenant, endpointID string, delay time.Duration) {
	if delay > work.MaxDelay {
		return
	}
	if errs := d.Queue.Send(ctx, []work.Item{{Tenant: tenant, EndpointID: endpointID, Wake: true, Delay: max(delay, 0)}}); errs != nil {
		d.Log.WarnContext(ctx, "circuit.wake_not_queued", "endpoint_id", endpointID, "error", errs[0].Error())
	}
}

// sweepCircuits has the circuits looked after that are due.
func (d *Dispatcher) sweepCircuits(ctx context.Context, began time.Time) error {
	list, err := d.Breakers.ListCircuits(ctx, began.Add(Lookahead))
	if err != nil {
		return fmt.Errorf("circuits to look after: %w", err)
	}
	for _, s := range list {
		d.sendWake(ctx, s.Tenant, s.EndpointID, min(max(s.WakeAt.Sub(d.Now()), 0), work.MaxDelay))
	}
	return nil
}

// wake looks after a circuit: sends the oldest waiting delivery as the probe of an
// open one, and lets go what waits for one that has closed.
func (d *Dispatcher) wake(ctx context.Context, item work.Item) error {
	ep, err := d.endpoints.fresh(ctx, item.Tenant, item.EndpointID)
	gone := errors.Is(err, endpoint.ErrNotFound)
	if err != nil && !gone {
		return err
	}
	if gone {
		ep = &endpoint.Endpoint{Tenant: item.Tenant, ID: item.EndpointID}
	}
	off := gone || ep.Status != endpoint.Enabled
	page, next := 0, time.Time{}
	drain := false
	s, changed, err := d.circuits.change(ctx, ep.Tenant, ep.ID, true, func(s breaker.State) (breaker.State, bool) {
		now := d.Now()
		page, drain = 0, false
		switch verdict := s.Admit(now); {
		case off || s.Phase == breaker.Draining:
			page, next, drain = drainPage, now.Add(drainTime), true
		case s.Phase == breaker.Open && verdict.Probe:
			page, next = probePage, now.Add(idleProbe)
		default:
			return s, false // not yet, or a probe is under way; the sweep comes again
		}
		// Whoever moves the waking time has the turn; another's write conflicts.
		if s.WakeAt.IsZero() {
			return s, false
		}
		return s.SetWakeAt(next)
	})
	if err != nil {
		return fmt.Errorf("circuit of %s: %w", ep.ID, err)
	}
	if page == 0 || !changed && !off {
		return nil
	}
	waiters, err := d.Waiting.ListBacklog(ctx, ep.ID, page)
	if err != nil {
		return err
	}
	if !drain && len(waiters) > 1 {
		waiters = []delivery.BacklogEntry{slices.MinFunc(waiters, func(a, b delivery.BacklogEntry) int {
			return cmp.Or(cmp.Compare(a.Attempts, b.Attempts), cmp.Compare(a.EventID, b.EventID))
		})}
	}
	last, err := d.release(ctx, ep, s, waiters, drain && !off)
	if err != nil {
		return err
	}
	switch {
	case !drain:
		return nil
	case len(waiters) == page:
		d.sendWake(ctx, ep.Tenant, ep.ID, last)
		return nil
	}
	s, _, err = d.circuits.change(ctx, ep.Tenant, ep.ID, false, func(s breaker.State) (breaker.State, bool) {
		if off {
			return s.Reset(), !s.Clean() || !s.WakeAt.IsZero()
		}
		return s.FinishDrain(d.Now())
	})
	if err == nil && !s.WakeAt.IsZero() {
		d.sendWake(ctx, ep.Tenant, ep.ID, s.WakeAt.Sub(d.Now()))
	}
	return err
}

// release lets waiting deliveries go, oldest first: at their slots where the
// endpoint's attempts are limited, else spread. It returns how long it is until
// the last of them may begin.
func (d *Dispatcher) release(ctx context.Context, ep *endpoint.Endpoint, s breaker.State, waiters []delivery.BacklogEntry, spread bool) (last time.Duration, err error) {
	if len(waiters) == 0 {
		return 0, nil
	}
	limit := ratelimit.Stricter(ep.Limit, ratelimit.Pace(s.Slow))
	now := d.Now()
	var slots []time.Time
	if spread && limit.Enabled() {
		after, err := d.Limits.ReserveSlots(ctx, ep.Limit.Key(ep.ID), limit.Cost(len(waiters)), now)
		if err != nil {
			return 0, err
		}
		slots = limit.Slots(after, len(waiters), now)
	}
	var items []work.Item
	for i, w := range waiters {
		next := now
		switch {
		case slots != nil:
			next = wholeMillis(slots[i])
		case spread:
			next = now.Add(time.Duration((float64(i) + d.Random()) / drainRate * float64(time.Second))).Truncate(time.Millisecond)
		}
		held, err := d.Waiting.Release(ctx, delivery.Release{Key: w.Key, NextAt: next, DueAt: next.Add(Backstop), Now: now})
		if errors.Is(err, delivery.ErrFenced) {
			continue // it has gone already
		}
		if err != nil {
			return 0, err
		}
		last = next.Sub(now)
		item := itemOf(held, last)
		if slots != nil {
			item.Slot, item.Delay = next, slotDelay(last)
		}
		items = append(items, item)
	}
	for i, err := range d.Queue.Send(ctx, items) {
		if err != nil {
			d.Log.WarnContext(ctx, "release.not_queued", "endpoint_id", ep.ID, "event_id", items[i].EventID, "error", err.Error())
		}
	}
	return last, nil
}

// itemOf returns the work item of a delivery that has a record.
func itemOf(held delivery.Delivery, wait time.Duration) work.Item {
	item := work.Item{
		Tenant: held.Tenant, EndpointID: held.EndpointID, EventID: held.EventID, EventType: held.EventType,
		Attempts: held.Attempts, Since: held.Since, Delay: min(max(wait, 0), work.MaxDelay),
	}
	if !held.Slot.IsZero() {
		item.Slot, item.Delay = held.Slot, slotDelay(wait)
	}
	return item
}

// slotDelay is how long the queue holds back an item that has a slot: whole
// seconds, rounded down, so that its worker waits out the rest to the millisecond.
func slotDelay(wait time.Duration) time.Duration {
	return min(max(wait, 0), work.MaxDelay).Truncate(time.Second)
}

// Closed says what closing a circuit by hand did.
type Closed struct {
	WasOpen bool `json:"was_open"`
}

// CloseCircuit closes an endpoint's circuit by hand: its failures are forgotten,
// and what waits is let go.
func (d *Dispatcher) CloseCircuit(ctx context.Context, c Command) (Closed, error) {
	if c.EndpointID == "" {
		return Closed{}, errors.New("close_circuit: endpoint_id must be given")
	}
	if c.Tenant == "" {
		c.Tenant = event.DefaultTenant
	}
	var done Closed
	_, changed, err := d.circuits.change(ctx, c.Tenant, c.EndpointID, true, func(s breaker.State) (breaker.State, bool) {
		done.WasOpen = s.Phase == breaker.Open
		return s.Close(d.Now()), s.Phase != breaker.Draining && !s.Clean()
	})
	if err != nil {
		return done, fmt.Errorf("close_circuit: %w", err)
	}
	if changed {
		d.Log.InfoContext(ctx, "circuit.closed_by_hand", "endpoint_id", c.EndpointID, "tenant", c.Tenant)
		d.sendWake(ctx, c.Tenant, c.EndpointID, 0)
	}
	return done, nil
}
