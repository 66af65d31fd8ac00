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

// claimAndAttempt waits for the job's slot, claims the delivery, and makes and
// concludes the attempt. If it returns nil, the message may be deleted.
func (d *Dispatcher) claimAndAttempt(ctx context.Context, j *job) error {
	if ready, err := d.waitForSlot(ctx, j); err != nil || !ready {
		return err
	}
	claimID, lease := d.ClaimID(), j.endpoint.AttemptTimeout()+LeaseMargin
	now := d.Now()
	if !endsInTime(ctx, j.endpoint.AttemptTimeout()) {
		return d.returnToQueue(ctx, j)
	}
	if j.probe {
		circuit, probing, err := d.circuits.update(ctx, j.endpoint.Tenant, j.endpoint.ID, true, func(s breaker.State) (breaker.State, bool) {
			return s.ClaimProbe(claimID, d.Now(), lease)
		})
		if err != nil {
			return fmt.Errorf("circuit of %s: %w", j.endpoint.ID, err)
		}
		if !probing && circuit.Admit(d.Now()).Wait {
			return d.wait(ctx, j, "the circuit is open: "+circuit.Cause)
		}
	}
	claimed, err := d.Deliveries.Claim(ctx, delivery.Claim{
		Key: j.key(), Tenant: j.item.Tenant, EventType: j.event.Type, Accepted: j.since, RetentionDays: j.item.RetentionDays,
		Attempts: j.item.Attempts, ID: claimID, Now: now, Lease: lease,
	})
	if err != nil && j.probe {
		d.releaseProbe(ctx, j.endpoint, claimID)
	}
	var refused *delivery.Refusal
	if errors.As(err, &refused) {
		return d.handleRefusal(ctx, j.item, refused)
	}
	if err != nil {
		return fmt.Errorf("claim %s: %w", j.key(), err)
	}
	attempt, outcome := d.attempt(ctx, claimed, j)
	return d.conclude(ctx, claimed, j, claimID, attempt, outcome)
}

// endsInTime reports whether an attempt of the timeout, with its verdict, ends before the
// invocation does. It compares by the context's own clock.
func endsInTime(ctx context.Context, timeout time.Duration) bool {
	deadline, ok := ctx.Deadline()
	return !ok || time.Until(deadline) >= timeout+endReserve
}

// returnToQueue puts back a job that this invocation has no time for. A new message,
// unlike a failed one, arrives soon and does not count towards the dead-letter queue.
func (d *Dispatcher) returnToQueue(ctx context.Context, j *job) error {
	item := j.item
	item.Delay = returnDelay
	if err := d.requeue(ctx, j, item); err != nil {
		return fmt.Errorf("the invocation ends before the attempt's timeout: %w", err)
	}
	d.Log.WarnContext(ctx, "attempt.not_begun", "endpoint_id", item.EndpointID, "event_id", item.EventID, "timeout_ms", j.endpoint.AttemptTimeout().Milliseconds())
	return nil
}

// checkClaimable checks, before it reserves a slot for a message that was received
// before, that its delivery can be claimed. Otherwise a message that is received a
// hundred times for a settled delivery would take a hundred slots, which cannot be
// returned because later ones may have been given out.
func (d *Dispatcher) checkClaimable(ctx context.Context, j *job) (*job, error) {
	held, err := d.Deliveries.GetDelivery(ctx, j.key())
	if errors.Is(err, delivery.ErrNotFound) {
		return j, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", j.key(), err)
	}
	if _, refused := (delivery.Claim{Key: j.key(), Attempts: j.item.Attempts, Now: d.Now()}).Apply(&held); refused != nil {
		return nil, d.handleRefusal(ctx, j.item, refused)
	}
	return j, nil
}

// handleRefusal decides what to do with an item after the store refused to claim,
// park or settle its delivery: drop it, or put it back on the queue.
func (d *Dispatcher) handleRefusal(ctx context.Context, item work.Item, r *delivery.Refusal) error {
	switch r.Cause {
	case delivery.CauseSettled, delivery.CauseSuperseded:
		return nil
	case delivery.CauseErased:
		return d.settle(ctx, item, delivery.Skipped, delivery.Erased, time.Time{})
	}
	wait := max(r.Until.Sub(d.Now()), 0)
	if r.Cause == delivery.CauseEarly && wait > work.MaxDelay && !r.DueAt.IsZero() && !r.DueAt.After(r.Until.Add(Backstop)) {
		return nil // the sweep will queue it; the queue cannot delay it that long
	}
	// Another worker has claimed the delivery, or it is not due yet. The item must not
	// be dropped: if that worker dies, nothing else may hold the delivery. A new
	// message, unlike a failed one, does not count towards the dead-letter queue.
	item.Attempts, item.Slot, item.Backlog = r.Attempts, r.Slot, false
	if r.Cause == delivery.CauseInFlight {
		wait += time.Second // give the worker time to store its verdict
	}
	item.Delay = min(wait, work.MaxDelay)
	if errs := d.Queue.Send(ctx, []work.Item{item}); errs != nil {
		return fmt.Errorf("requeue %s/%s: %w", item.EndpointID, item.EventID, errs[0])
	}
	return nil
}
