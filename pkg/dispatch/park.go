package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
)

// parkForSlot makes a delivery wait for its slot in the queue.
func (d *Dispatcher) parkForSlot(ctx context.Context, j *job) error {
	slot := roundUpToMillisecond(j.slot)
	wait := slot.Sub(d.Now())
	if j.item.Backlog { // its place in the backlog holds it
		item := j.item
		item.Slot, item.Delay = slot, slotDelay(wait)
		return d.requeue(ctx, j, item)
	}
	held, handled, err := d.park(ctx, j, delivery.Park{Slot: slot, DueAt: slot.Add(Backstop), Reason: "waiting for a slot under the rate limit"})
	if err != nil || handled {
		return err
	}
	item := itemOf(held, wait)
	item.Slot, item.Delay = slot, slotDelay(wait)
	item.Body, item.Trace, item.Slow = j.item.Body, j.item.Trace, j.item.Slow
	if errs := d.Queue.Send(ctx, []work.Item{item}); errs != nil {
		// Not fatal: the sweep finds the delivery by its due time, only later.
		d.Log.WarnContext(ctx, "park.not_queued", "endpoint_id", item.EndpointID, "event_id", item.EventID, "error", errs[0].Error())
	}
	return nil
}

// wait puts a delivery into its endpoint's backlog, from which the endpoint's drain
// takes it. It does not use up an attempt.
func (d *Dispatcher) wait(ctx context.Context, j *job, reason string) error {
	if !j.item.Backlog {
		// The drain settles what expires. The due time is for a delivery that the drain
		// cannot see because the index is broken or behind.
		_, handled, err := d.park(ctx, j, delivery.Park{InBacklog: true, DueAt: j.until.Add(time.Millisecond), Reason: reason})
		if err != nil || handled {
			return err
		}
	}
	// Only now, so that the drain cannot have ended before the delivery was in the backlog.
	begins := false
	s, changed, err := d.circuits.update(ctx, j.endpoint.Tenant, j.endpoint.ID, true, func(s breaker.State) (breaker.State, bool) {
		begins = s.Phase == breaker.Closed
		return s.Hold(d.Now())
	})
	if err != nil {
		return fmt.Errorf("backlog of %s: %w", j.endpoint.ID, err)
	}
	if changed && begins {
		d.Log.InfoContext(ctx, "backlog.begun", "endpoint_id", j.endpoint.ID, "tenant", j.endpoint.Tenant, "reason", reason)
		d.sendWake(ctx, s, s.WakeAt.Sub(d.Now()))
	}
	return nil
}

// park stores that a delivery waits. handled means that the store refused and that
// the item needs nothing more.
func (d *Dispatcher) park(ctx context.Context, j *job, p delivery.Park) (held delivery.Delivery, handled bool, err error) {
	p.Key, p.Tenant, p.EventType, p.Accepted, p.Attempts, p.Now = j.key(), j.item.Tenant, j.event.Type, j.since, j.item.Attempts, d.Now()
	p.RetentionDays = j.item.RetentionDays
	if _, err := d.keepEvent(ctx, p.EventID, j.expires(), p.DueAt, j.until); err != nil {
		return held, false, err
	}
	held, err = d.Deliveries.Park(ctx, p)
	var refused *delivery.Refusal
	if errors.As(err, &refused) {
		return held, true, d.handleRefusal(ctx, j.item, refused)
	}
	if err != nil {
		return held, false, fmt.Errorf("park %s: %w", j.key(), err)
	}
	return held, false, nil
}

// requeue sends an item of the job back to the queue.
func (d *Dispatcher) requeue(ctx context.Context, j *job, item work.Item) error {
	if errs := d.Queue.Send(ctx, []work.Item{item}); errs != nil {
		return fmt.Errorf("requeue %s: %w", j.key(), errs[0])
	}
	return nil
}

// itemOf returns the work item of a stored delivery. It has no slot: that of a delivery
// whose item was lost has passed.
func itemOf(held delivery.Delivery, wait time.Duration) work.Item {
	item := work.Item{
		Tenant: held.Tenant, EndpointID: held.EndpointID, EventID: held.EventID, EventType: held.EventType,
		Attempts: held.Attempts, Since: held.Since, RetentionDays: held.RetentionDays, Delay: min(max(wait, 0), work.MaxDelay),
	}
	return item
}

// slotDelay is the queue's delay for an item with a slot, rounded down to whole
// seconds: the worker waits for the rest, to the millisecond.
func slotDelay(wait time.Duration) time.Duration {
	return min(max(wait, 0), work.MaxDelay).Truncate(time.Second)
}
