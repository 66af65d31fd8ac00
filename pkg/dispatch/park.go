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

// parkForSlot makes a delivery wait for its slot: in the queue if that can delay it
// long enough, else in the due index.
func (d *Dispatcher) parkForSlot(ctx context.Context, j *job) error {
	slot := roundUpToMillisecond(j.slot)
	wait := slot.Sub(d.Now())
	park := delivery.Park{Slot: slot, DueAt: slot, Reason: "waiting for a slot under the rate limit"}
	if wait <= work.MaxDelay {
		park.DueAt = slot.Add(Backstop)
	}
	held, handled, err := d.park(ctx, j, park)
	if err != nil || handled || wait > work.MaxDelay {
		return err
	}
	item := itemOf(held, wait)
	item.Body, item.Trace = j.item.Body, j.item.Trace
	if errs := d.Queue.Send(ctx, []work.Item{item}); errs != nil {
		// Not fatal: the sweep finds the delivery by its due time, only later.
		d.Log.WarnContext(ctx, "park.not_queued", "endpoint_id", item.EndpointID, "event_id", item.EventID, "error", errs[0].Error())
	}
	return nil
}

// parkForCircuit moves a delivery to the backlog until the circuit closes. It does
// not use up an attempt.
func (d *Dispatcher) parkForCircuit(ctx context.Context, j *job, circuit breaker.State) error {
	due := d.Now().Add(ParkTime)
	if expired := j.until.Add(time.Millisecond); expired.Before(due) {
		due = expired
	}
	held, handled, err := d.park(ctx, j, delivery.Park{InBacklog: true, DueAt: due, Reason: "the circuit is open: " + circuit.Cause})
	if err != nil || handled {
		return err
	}
	// The circuit may have closed, and the backlog been drained, before the delivery
	// was in it.
	circuit, err = d.circuits.get(ctx, j.endpoint.Tenant, j.endpoint.ID, true)
	if err != nil {
		return err
	}
	if circuit.Phase == breaker.Open {
		return nil
	}
	_, err = d.release(ctx, j.endpoint, circuit, []delivery.BacklogEntry{{Key: held.Key}}, false)
	return err
}

// park stores that a delivery waits. handled means that the store refused and that
// the item needs nothing more.
func (d *Dispatcher) park(ctx context.Context, j *job, p delivery.Park) (held delivery.Delivery, handled bool, err error) {
	p.Key, p.Tenant, p.EventType, p.Accepted, p.Attempts, p.Now = j.key(), j.item.Tenant, j.event.Type, j.at, j.item.Attempts, d.Now()
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

// itemOf returns the work item of a stored delivery.
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

// slotDelay is the queue's delay for an item with a slot, rounded down to whole
// seconds: the worker waits for the rest, to the millisecond.
func slotDelay(wait time.Duration) time.Duration {
	return min(max(wait, 0), work.MaxDelay).Truncate(time.Second)
}
