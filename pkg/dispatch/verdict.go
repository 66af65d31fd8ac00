package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/retry"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/event"
)

// conclude stores the verdict on an attempt. Then it updates the circuit, disables the
// endpoint after a 410, and queues the retry.
func (d *Dispatcher) conclude(ctx context.Context, claimed delivery.Delivery, j *job, claimID string, attempt delivery.Attempt, outcome delivery.Outcome) error {
	// The receiver has answered: if the verdict is not stored because the invocation
	// ends, the receiver gets the event again.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), verdictTime)
	defer cancel()

	ep, now := j.endpoint, d.Now()
	decision := retry.Decide(retry.Attempt{
		Number: claimed.CountedAttempts(), Since: claimed.Since, Outcome: outcome, SameSince: retry.SameSince(claimed.History, outcome.Class),
	}, ep.Retry, now, d.Random())
	attempt.Class, attempt.Status, attempt.Timings = outcome.Class, outcome.Status, outcome.Timings
	conclusion := delivery.Conclusion{
		State: decision.State, Reason: decision.Reason, Snippet: outcome.Snippet, Attempt: attempt,
		NotSent: outcome.Class == delivery.CalledOff, Now: now,
	}
	item := j.item
	if decision.State == delivery.Pending {
		kept, err := d.keepEvent(ctx, claimed.EventID, j.expires(), decision.At, j.until)
		if err != nil { // the event is still there: the next attempt, soon, tries again
			d.Log.WarnContext(ctx, "event.not_kept", "endpoint_id", ep.ID, "event_id", claimed.EventID, "error", err.Error())
			decision.At = earlier(decision.At, now.Add(work.MaxDelay))
		}
		if kept {
			dropEvent(&item)
		}
	}
	wait := decision.At.Sub(now)
	if decision.State == delivery.Pending {
		conclusion.NextAt = decision.At.Truncate(time.Millisecond)
		conclusion.DueAt = conclusion.NextAt
		if wait <= work.MaxDelay {
			conclusion.DueAt = conclusion.NextAt.Add(Backstop)
		}
	}
	next := conclusion.Apply(claimed)
	err := d.Deliveries.Complete(ctx, next)
	d.logAttempt(ctx, j, next, attempt, outcome, err)
	reportErr := d.reportOutcome(ctx, ep, claimID, outcome)
	if errors.Is(err, delivery.ErrFenced) {
		return reportErr // another worker has taken the delivery over
	}
	if err != nil {
		return fmt.Errorf("store the verdict on %s: %w", claimed.Key, err)
	}
	if decision.DisableEndpoint {
		if err := d.disable(ctx, ep, outcome.Error, now); err != nil {
			return err
		}
	}
	if decision.State == delivery.Pending && wait <= work.MaxDelay {
		item.Redriven = 0 // it was processed
		item.Slow = outcome.Timings.Total >= breaker.SlowLaneAfter
		item.Attempts, item.Since, item.Slot, item.Backlog, item.Delay = next.Attempts, next.Since, time.Time{}, false, max(wait, 0)
		if errs := d.Queue.Send(ctx, []work.Item{item}); errs != nil {
			// Not fatal: the sweep finds the delivery by its due time, only later.
			d.Log.WarnContext(ctx, "retry.not_queued", "endpoint_id", ep.ID, "event_id", item.EventID, "error", errs[0].Error())
		}
	}
	return reportErr
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// settle ends a delivery without an attempt. If sinceBefore is not zero, only a
// delivery whose age counts from before then is settled.
func (d *Dispatcher) settle(ctx context.Context, item work.Item, state delivery.State, reason string, sinceBefore time.Time) error {
	key := delivery.Key{EndpointID: item.EndpointID, EventID: item.EventID}
	accepted := item.Since
	if accepted.IsZero() {
		at, err := event.IDTime(item.EventID)
		if err != nil {
			return err
		}
		accepted = at
	}
	err := d.Deliveries.Settle(ctx, delivery.Settle{
		Key: key, Tenant: item.Tenant, EventType: item.EventType, Accepted: accepted, RetentionDays: item.RetentionDays,
		State: state, Reason: reason, SinceBefore: sinceBefore, Now: d.Now(),
	})
	var refused *delivery.Refusal
	if errors.As(err, &refused) {
		return d.handleRefusal(ctx, item, refused)
	}
	if err != nil {
		return fmt.Errorf("settle %s: %w", key, err)
	}
	fields := []any{"endpoint_id", item.EndpointID, "event_id", item.EventID, "reason", reason}
	if state == delivery.Dead {
		d.Log.InfoContext(ctx, "delivery.dead", fields...)
	} else {
		d.Log.InfoContext(ctx, "delivery.skipped", fields...)
	}
	return nil
}
