package dispatch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/endpoint"
)

const (
	// probePage is how many of the oldest deliveries are considered for the probe. The
	// one with the fewest attempts is chosen, so that a single event that the receiver
	// cannot process does not keep the circuit open.
	probePage = 25
	// drainEvery is the time from one step of a drain to the next.
	drainEvery = 2 * time.Second
	// drainPage is how many deliveries of the backlog are read at a time.
	drainPage = 250
	// drainSettles is how many deliveries a step settles because they have expired, or
	// because the endpoint is off.
	drainSettles = 1000
	// drainTime is the time after which the sweep resumes a drain that has stopped.
	drainTime = 2 * time.Minute
	// pauseTime is how often a paused endpoint with a backlog is looked at. A sweep does it,
	// so a backlog is sent within two minutes after the endpoint is resumed.
	pauseTime = time.Minute
	// wakeEarly is how much earlier than its time, by the clock of its worker, a check of
	// a circuit may come. It then waits; otherwise the sweep would have to repeat it.
	wakeEarly = 10 * time.Second
)

// idleProbe is the time until an open circuit with an empty backlog is checked again. It
// grows, because the index may just not show the backlog yet. The next event is the
// probe in any case.
func idleProbe(s breaker.State, now time.Time) time.Duration {
	return min(max(now.Sub(s.Since), 10*time.Second), 5*time.Minute)
}

// sendWake queues a check of an endpoint's backlog at its wake-up time. If the queue
// loses the item, or cannot delay it that long, the sweep does it.
func (d *Dispatcher) sendWake(ctx context.Context, s breaker.State, delay time.Duration) {
	if delay > work.MaxDelay {
		return
	}
	item := work.Item{Tenant: s.Tenant, EndpointID: s.EndpointID, Wake: true, WakeAt: s.WakeAt, Delay: max(delay, 0)}
	if errs := d.Queue.Send(ctx, []work.Item{item}); errs != nil {
		d.Log.WarnContext(ctx, "circuit.wake_not_queued", "endpoint_id", s.EndpointID, "error", errs[0].Error())
	}
}

// sweepCircuits queues checks of the endpoints whose wake-up time comes before the next
// sweep. Those whose item is still in the queue get a second one for the same wake-up,
// of which one is ignored.
func (d *Dispatcher) sweepCircuits(ctx context.Context, began time.Time) error {
	list, err := d.Breakers.ListCircuits(ctx, began.Add(Lookahead))
	if err != nil {
		return fmt.Errorf("list the circuits that are due: %w", err)
	}
	for _, s := range list {
		d.sendWake(ctx, s, s.WakeAt.Sub(d.Now()))
	}
	return nil
}

// wake looks after an endpoint's backlog: if its circuit is half-open, it queues one
// delivery as the probe; if it is not open, it makes a step of the drain; if the
// endpoint is off, it skips the backlog; if the endpoint is paused, the backlog stays.
func (d *Dispatcher) wake(ctx context.Context, item work.Item) error {
	ep, err := d.endpoints.fresh(ctx, item.Tenant, item.EndpointID)
	gone := errors.Is(err, endpoint.ErrNotFound)
	if err != nil && !gone {
		return err
	}
	if gone {
		ep = &endpoint.Endpoint{Tenant: item.Tenant, ID: item.EndpointID}
	}
	off, paused := gone || ep.Status == endpoint.Disabled, ep.Status == endpoint.Paused
	var early time.Duration
	s, mine, err := d.circuits.update(ctx, ep.Tenant, ep.ID, true, func(s breaker.State) (breaker.State, bool) {
		now := d.Now()
		if s.WakeAt.IsZero() || !item.WakeAt.IsZero() && !item.WakeAt.Equal(s.WakeAt) {
			return s, false // another item has done it
		}
		// The worker that moves WakeAt does the work; the writes of others conflict.
		if paused {
			return s.SetWakeAt(now.Add(pauseTime))
		}
		if off || s.Phase == breaker.Draining {
			return s.SetWakeAt(now.Add(drainTime))
		}
		if admission := s.Admit(now); !admission.Probe {
			early = admission.Until.Sub(now)
			return s, false
		}
		return s.SetWakeAt(now.Add(idleProbe(s, now)))
	})
	switch {
	case err != nil:
		return fmt.Errorf("circuit of %s: %w", ep.ID, err)
	case early > 0 && early <= wakeEarly && s.ProbeID == "":
		d.sendWake(ctx, s, early)
		return nil
	case !mine || paused:
		return nil
	case off:
		return d.skipBacklog(ctx, ep, gone)
	case s.Phase == breaker.Open:
		return d.queueProbe(ctx, ep, s)
	}
	return d.drain(ctx, ep, s)
}

// backlog is a part of an endpoint's backlog.
type backlog struct {
	waiting []delivery.Delivery // not expired, oldest event first
	last    string              // the last event that was read; "" if there is none
	done    bool                // nothing is left after it
}

// readBacklog reads want deliveries after an event, and settles those that have expired.
// Those that expire within soon come in addition: there may be no slot before.
// upTo, if not "", is the last event of interest.
func (d *Dispatcher) readBacklog(ctx context.Context, ep *endpoint.Endpoint, after, upTo string, want int, soon time.Duration) (b backlog, err error) {
	limit := ep.Retry.AgeLimit()
	reason := fmt.Sprintf("older than the age limit of %s", limit)
	for found, settled := 0, 0; found < want && settled < drainSettles; {
		page, err := d.Waiting.ListBacklog(ctx, ep.ID, after, min(want-found, drainPage))
		if err != nil {
			return b, err
		}
		var expired []delivery.Delivery
		now := d.Now()
		for _, one := range page.Deliveries {
			switch {
			case upTo != "" && one.EventID > upTo:
			case now.After(one.Since.Add(limit)):
				expired = append(expired, one)
			default:
				b.waiting = append(b.waiting, one)
				if !now.Add(soon).After(one.Since.Add(limit)) {
					found++
				}
			}
		}
		if err := d.settleAll(ctx, expired, delivery.Dead, reason, now.Add(-limit)); err != nil {
			return b, err
		}
		settled += len(expired)
		if page.Last != "" {
			after, b.last = page.Last, page.Last
		}
		if b.done = !page.More || upTo != "" && page.Last >= upTo; b.done {
			break
		}
	}
	return b, nil
}

// settleAll settles deliveries of a backlog.
func (d *Dispatcher) settleAll(ctx context.Context, list []delivery.Delivery, state delivery.State, reason string, sinceBefore time.Time) error {
	var group errgroup.Group
	group.SetLimit(sweepWriters)
	for _, one := range list {
		group.Go(func() error { return d.settle(ctx, itemOf(one, 0), state, reason, sinceBefore) })
	}
	return group.Wait()
}

// queueProbe queues the probe of a half-open circuit.
func (d *Dispatcher) queueProbe(ctx context.Context, ep *endpoint.Endpoint, s breaker.State) error {
	b, err := d.readBacklog(ctx, ep, "", "", probePage, 0)
	if err != nil || len(b.waiting) == 0 {
		return err
	}
	probe := slices.MinFunc(b.waiting, func(a, b delivery.Delivery) int {
		return cmp.Or(cmp.Compare(a.Attempts, b.Attempts), cmp.Compare(a.EventID, b.EventID))
	})
	d.sendWaiting(ctx, ep, s, []delivery.Delivery{probe}, []time.Time{{}}) // its worker reserves a slot
	return nil
}

// skipBacklog marks the backlog of an endpoint that is off as skipped.
func (d *Dispatcher) skipBacklog(ctx context.Context, ep *endpoint.Endpoint, gone bool) error {
	reason := "the endpoint is disabled: " + ep.StatusReason
	if gone {
		reason = "the endpoint was deleted"
	}
	after, more := "", true
	for n := 0; more && n < drainSettles; {
		page, err := d.Waiting.ListBacklog(ctx, ep.ID, after, drainPage)
		if err != nil {
			return err
		}
		if err := d.settleAll(ctx, page.Deliveries, delivery.Skipped, reason, time.Time{}); err != nil {
			return err
		}
		n, after, more = n+len(page.Deliveries), page.Last, page.More
	}
	s, changed, err := d.circuits.update(ctx, ep.Tenant, ep.ID, false, func(s breaker.State) (breaker.State, bool) {
		if more {
			return s.SetWakeAt(d.Now())
		}
		return s.Reset(), !s.Clean() || !s.WakeAt.IsZero()
	})
	if err == nil && changed && more {
		d.sendWake(ctx, s, 0)
	}
	return err
}

// drain makes a step of a drain: it queues as many of the oldest deliveries as the
// endpoint's rate limit, or the rate of the drain, has room for until the next step.
func (d *Dispatcher) drain(ctx context.Context, ep *endpoint.Endpoint, s breaker.State) error {
	now := d.Now()
	step := breaker.Step{Scan: s.Drain.Scan(now), Next: now.Add(drainEvery), Direct: !ep.Limit.Enabled()}
	want, ahead := max(1, s.Drain.Rate)*int(drainEvery/time.Second), drainEvery
	if ep.Limit.Enabled() {
		want, ahead = min(ep.Limit.DrainSlots(), 2*drainPage), ep.Limit.DrainAhead()
	}
	var lost backlog
	var err error
	if step.UpTo != "" {
		if lost, err = d.readBacklog(ctx, ep, "", step.UpTo, want, ahead); err != nil {
			return err
		}
	}
	next, err := d.readBacklog(ctx, ep, step.After, "", want-len(lost.waiting), ahead)
	if err != nil {
		return err
	}
	step.Last, step.Done = next.last, next.done
	list := append(slices.Clip(lost.waiting), next.waiting...)
	at, from, err := d.drainTimes(ctx, ep, s, min(len(list), want), now)
	if err != nil {
		return err
	}
	if from.After(step.Next) { // there is no other slot before
		step.Next = from
	}
	queued, taken := fill(at, list, ep.Retry.AgeLimit())
	if taken < len(list) { // the rest waits for the next step
		step.Done, step.Last = false, ""
		if n := taken - len(lost.waiting); n > 0 {
			step.Last = next.waiting[n-1].EventID
		}
	}
	d.sendWaiting(ctx, ep, s, queued, at)
	if step.Sent = len(queued); step.Sent > 0 && ep.Limit.Enabled() {
		step.Slot = at[step.Sent-1]
	}
	s, changed, err := d.circuits.update(ctx, ep.Tenant, ep.ID, false, func(s breaker.State) (breaker.State, bool) {
		next := s.Advance(step, d.Now())
		return next, next != s
	})
	if err != nil {
		return fmt.Errorf("circuit of %s: %w", ep.ID, err)
	}
	switch {
	case changed && s.Phase == breaker.Draining:
		d.sendWake(ctx, s, s.WakeAt.Sub(d.Now()))
	case changed && s.Phase == breaker.Closed:
		d.Log.InfoContext(ctx, "backlog.done", "endpoint_id", ep.ID, "tenant", ep.Tenant)
	}
	return nil
}

// fill gives the times to the deliveries, oldest first, and passes over those that expire
// before there is one. It returns a delivery for each time, as far as there are any, and
// how many deliveries it has taken or passed over.
func fill(at []time.Time, list []delivery.Delivery, limit time.Duration) (queued []delivery.Delivery, taken int) {
	for taken < len(list) && len(queued) < len(at) {
		one := list[taken]
		if taken++; at[len(queued)].Add(ratelimit.Grace).After(one.Since.Add(limit)) {
			continue
		}
		queued = append(queued, one)
	}
	return queued, taken
}

// drainTimes returns when up to n deliveries of a backlog may be attempted. If the limit
// has room for fewer, it also returns when it has room for another one.
func (d *Dispatcher) drainTimes(ctx context.Context, ep *endpoint.Endpoint, s breaker.State, n int, now time.Time) (at []time.Time, from time.Time, err error) {
	if limit := ep.Limit; limit.Enabled() {
		until := now.Add(limit.DrainAhead())
		granted, after, err := d.reserve(ctx, limit.Key(ep.ID), n, func(n int) ratelimit.Reservation { return limit.Reserve(n, now, until) }, limit.Fits)
		if err == nil && granted < n {
			from = roundUpToMillisecond(now.Add(limit.Reserve(1, now, until).Missing(after)))
		}
		return limit.Slots(after, granted, now), from, err
	}
	at = make([]time.Time, n)
	for i := range at {
		at[i] = now.Add(time.Duration(i) * time.Second / time.Duration(max(1, s.Drain.Rate)))
	}
	return at, from, nil
}

// sendWaiting queues deliveries of a backlog, in which they stay until they are claimed:
// what is not queued, or lost, is queued again a minute later.
func (d *Dispatcher) sendWaiting(ctx context.Context, ep *endpoint.Endpoint, s breaker.State, list []delivery.Delivery, at []time.Time) {
	if len(list) == 0 {
		return
	}
	items := make([]work.Item, len(list))
	now := d.Now()
	for i, one := range list {
		item := itemOf(one, 0)
		item.Backlog, item.Slow, item.Slot = true, s.Slow(now), roundUpToMillisecond(at[i])
		item.Delay = slotDelay(item.Slot.Sub(now))
		items[i] = item
	}
	for i, err := range d.Queue.Send(ctx, items) {
		if err != nil {
			d.Log.WarnContext(ctx, "backlog.not_queued", "endpoint_id", ep.ID, "event_id", items[i].EventID, "error", err.Error())
		}
	}
}
