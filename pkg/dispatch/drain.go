package dispatch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/endpoint"
)

const (
	// drainPage is how many deliveries of the backlog are released at a time.
	drainPage = 100
	// probePage is how many of the oldest deliveries are considered for the probe. The
	// one with the fewest attempts is chosen, so that a single event that the receiver
	// cannot process does not keep the circuit open.
	probePage = 25
	// drainRate is the number of deliveries released per second if the endpoint has no
	// rate limit, so that a receiver that has just recovered is not overloaded.
	drainRate = 50
	// drainTime is the time after which the sweep resumes a drain that has stopped.
	drainTime = 2 * time.Minute
	// idleProbe is the interval at which an open circuit with an empty backlog is
	// checked. The next event is its probe in any case.
	idleProbe = 5 * time.Minute
)

// sendWake queues a check of a circuit. If the queue loses the item, or cannot delay
// it that long, the sweep does it.
func (d *Dispatcher) sendWake(ctx context.Context, tenant, endpointID string, delay time.Duration) {
	if delay > work.MaxDelay {
		return
	}
	if errs := d.Queue.Send(ctx, []work.Item{{Tenant: tenant, EndpointID: endpointID, Wake: true, Delay: max(delay, 0)}}); errs != nil {
		d.Log.WarnContext(ctx, "circuit.wake_not_queued", "endpoint_id", endpointID, "error", errs[0].Error())
	}
}

// sweepCircuits queues checks of the circuits that are due before the next sweep.
func (d *Dispatcher) sweepCircuits(ctx context.Context, began time.Time) error {
	list, err := d.Breakers.ListCircuits(ctx, began.Add(Lookahead))
	if err != nil {
		return fmt.Errorf("list the circuits that are due: %w", err)
	}
	for _, s := range list {
		d.sendWake(ctx, s.Tenant, s.EndpointID, min(max(s.WakeAt.Sub(d.Now()), 0), work.MaxDelay))
	}
	return nil
}

// wake checks a circuit: if it is half-open, it releases one delivery as the probe; if
// it has closed, it drains a page of the backlog.
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
	s, changed, err := d.circuits.update(ctx, ep.Tenant, ep.ID, true, func(s breaker.State) (breaker.State, bool) {
		now := d.Now()
		page, drain = 0, false
		switch admission := s.Admit(now); {
		case off || s.Phase == breaker.Draining:
			page, next, drain = drainPage, now.Add(drainTime), true
		case s.Phase == breaker.Open && admission.Probe:
			page, next = probePage, now.Add(idleProbe)
		default:
			return s, false // too early, or a probe is in progress; the sweep checks again
		}
		// The worker that moves WakeAt does the work; the writes of others conflict.
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
	entries, err := d.Waiting.ListBacklog(ctx, ep.ID, page)
	if err != nil {
		return err
	}
	if !drain && len(entries) > 1 {
		entries = []delivery.BacklogEntry{slices.MinFunc(entries, func(a, b delivery.BacklogEntry) int {
			return cmp.Or(cmp.Compare(a.Attempts, b.Attempts), cmp.Compare(a.EventID, b.EventID))
		})}
	}
	last, err := d.release(ctx, ep, s, entries, drain && !off)
	if err != nil {
		return err
	}
	switch {
	case !drain:
		return nil
	case len(entries) == page:
		d.sendWake(ctx, ep.Tenant, ep.ID, last)
		return nil
	}
	s, _, err = d.circuits.update(ctx, ep.Tenant, ep.ID, false, func(s breaker.State) (breaker.State, bool) {
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

// release releases deliveries from the backlog and queues them. If spread, they get
// slots under the rate limit or, without one, times at drainRate. It returns the time
// until the last of them may begin.
func (d *Dispatcher) release(ctx context.Context, ep *endpoint.Endpoint, s breaker.State, entries []delivery.BacklogEntry, spread bool) (last time.Duration, err error) {
	if len(entries) == 0 {
		return 0, nil
	}
	limit := ratelimit.Stricter(ep.Limit, ratelimit.Pace(s.Slow))
	now := d.Now()
	var slots []time.Time
	if spread && limit.Enabled() {
		after, err := d.Limits.ReserveSlots(ctx, ep.Limit.Key(ep.ID), limit.Cost(len(entries)), now)
		if err != nil {
			return 0, err
		}
		slots = limit.Slots(after, len(entries), now)
	}
	var items []work.Item
	for i, entry := range entries {
		next := now
		switch {
		case slots != nil:
			next = roundUpToMillisecond(slots[i])
		case spread:
			next = now.Add(time.Duration((float64(i) + d.Random()) / drainRate * float64(time.Second))).Truncate(time.Millisecond)
		}
		held, err := d.Waiting.Release(ctx, delivery.Release{Key: entry.Key, NextAt: next, DueAt: next.Add(Backstop), Now: now})
		if errors.Is(err, delivery.ErrFenced) {
			continue // another worker has released it
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
