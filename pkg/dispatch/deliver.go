package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tidings-dev/tidings/pkg/adapter"
	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/retry"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/work"
)

// Deliver makes the attempts that a batch of work items asks for, all at once,
// and reports the items that the queue has to bring again. One item's trouble
// is its own.
func (d *Dispatcher) Deliver(ctx context.Context, batch events.SQSEvent) events.SQSEventResponse {
	ctx, counted := d.count(ctx)
	defer counted()
	errs := make([]error, len(batch.Records))
	var running sync.WaitGroup
	for i, message := range batch.Records {
		running.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					errs[i] = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
				}
			}()
			item, err := work.Decode(message.Body)
			if err == nil {
				err = d.deliver(ctx, item)
			}
			errs[i] = err
		})
	}
	running.Wait()
	var response events.SQSEventResponse
	for i, err := range errs {
		if err == nil {
			continue
		}
		d.Log.ErrorContext(ctx, "deliver.failed", "message_id", batch.Records[i].MessageId,
			"receive_count", batch.Records[i].Attributes["ApproximateReceiveCount"], "error", err.Error())
		response.BatchItemFailures = append(response.BatchItemFailures, events.SQSBatchItemFailure{ItemIdentifier: batch.Records[i].MessageId})
	}
	return response
}

// deliver serves one work item. When it returns nil the item may be forgotten.
func (d *Dispatcher) deliver(ctx context.Context, item work.Item) error {
	ep, err := d.receivers.get(ctx, item.Tenant, item.EndpointID)
	if err == nil && ep.Status != endpoint.Enabled || errors.Is(err, endpoint.ErrNotFound) {
		// Skipping is final, so it is decided on what the table says now.
		ep, err = d.receivers.fresh(ctx, item.Tenant, item.EndpointID)
	}
	switch {
	case errors.Is(err, endpoint.ErrNotFound):
		return d.skip(ctx, item, "the endpoint was removed")
	case err != nil:
		return err
	case ep.Status != endpoint.Enabled:
		return d.skip(ctx, item, "the endpoint is disabled: "+ep.StatusReason)
	}
	accepted, err := d.Events.GetEvent(ctx, item.EventID)
	if errors.Is(err, event.ErrNotFound) {
		return d.skip(ctx, item, "the event has expired")
	}
	if err != nil {
		return fmt.Errorf("event %s: %w", item.EventID, err)
	}
	e, err := event.Decode(accepted.Body)
	if err != nil {
		return fmt.Errorf("event %s: %w", item.EventID, err)
	}
	acceptedAt, err := event.IDTime(accepted.ID)
	if err != nil {
		return err
	}

	now := d.Now()
	claim := delivery.Claim{
		Key:    delivery.Key{EndpointID: ep.ID, EventID: accepted.ID},
		Tenant: item.Tenant, EventType: e.Type, Accepted: acceptedAt,
		Attempts: item.Attempts, ID: d.ClaimID(), Now: now, Lease: ep.AttemptTimeout() + LeaseMargin,
	}
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(now.Add(ep.AttemptTimeout())) {
		return fmt.Errorf("%s: the invocation has too little time left for an attempt", claim.Key)
	}
	claimed, err := d.Deliveries.Claim(ctx, claim)
	var refused *delivery.Refusal
	if errors.As(err, &refused) {
		return d.refused(ctx, item, refused)
	}
	if err != nil {
		return fmt.Errorf("claim %s: %w", claim.Key, err)
	}

	attempt, outcome := d.attempt(ctx, claimed, ep, accepted, e)
	return d.conclude(ctx, item, claimed, ep, attempt, outcome)
}

// attempt sends the event once, within the lease.
func (d *Dispatcher) attempt(ctx context.Context, claimed delivery.Delivery, ep endpoint.Endpoint, accepted event.Accepted, e event.Event) (delivery.Attempt, delivery.Outcome) {
	began := d.Now()
	attempt := delivery.Attempt{Number: claimed.Attempts, At: began}
	if limit := maxAttempts(ep); claimed.Round() > limit {
		// Workers died on it until nothing was left to try.
		return attempt, delivery.Outcome{Class: delivery.Lost, Permanent: true,
			Error: fmt.Sprintf("workers died during %d attempts before storing a verdict", limit)}
	}
	until := began.Add(ep.AttemptTimeout())
	if last := claimed.LeaseUntil.Add(-leaseReserve); last.Before(until) {
		until = last
	}
	if !until.After(began) {
		return attempt, delivery.Outcome{Class: delivery.Lost, Error: "the lease was nearly over before the attempt could begin"}
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	outcome := d.Sender.Deliver(ctx, adapter.TargetOf(ep), d.message(ep, accepted, e, began))
	if outcome.Timings.Total == 0 {
		outcome.Timings.Total = d.Now().Sub(began)
	}
	return attempt, outcome
}

func maxAttempts(ep endpoint.Endpoint) int {
	if ep.Retry.MaxAttempts > 0 {
		return ep.Retry.MaxAttempts
	}
	return retry.DefaultMaxAttempts
}

// message is what goes out: the stored bytes, signed as they are.
func (d *Dispatcher) message(ep endpoint.Endpoint, accepted event.Accepted, e event.Event, now time.Time) adapter.Message {
	return adapter.Message{
		EventID:   accepted.ID,
		EventType: e.Type,
		Subject:   d.Catalog.Subject(e.Type, e.Data),
		Body:      accepted.Body,
		Headers: map[string]string{
			signature.HeaderID:        accepted.ID,
			signature.HeaderTimestamp: strconv.FormatInt(now.Unix(), 10),
			signature.HeaderSignature: signature.Sign(ep.SigningSecrets(now), accepted.ID, now, accepted.Body),
			"idempotency-key":         e.IdempotencyKey,
		},
	}
}

// conclude stores the verdict and sees to what follows from it.
func (d *Dispatcher) conclude(ctx context.Context, item work.Item, claimed delivery.Delivery, ep endpoint.Endpoint, attempt delivery.Attempt, outcome delivery.Outcome) error {
	// The answer is there: even an invocation that runs out of time should
	// store it, or the receiver gets the event again.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), verdictTime)
	defer cancel()

	now := d.Now()
	decision := retry.Decide(retry.Attempt{Number: claimed.Round(), Since: claimed.Since, Outcome: outcome}, ep.Retry, now, d.Random())
	attempt.Class, attempt.Status, attempt.Timings = outcome.Class, outcome.Status, outcome.Timings
	conclusion := delivery.Conclusion{State: decision.State, Reason: decision.Reason, Snippet: outcome.Snippet, Attempt: attempt, Now: now}
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
	d.logAttempt(ctx, ep, next, attempt, outcome, err)
	if errors.Is(err, delivery.ErrFenced) {
		return nil // whoever took over holds the delivery now
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
		item.Attempts, item.Delay = next.Attempts, max(wait, 0)
		if errs := d.Queue.Send(ctx, []work.Item{item}); errs != nil {
			// The due time holds the delivery: it will be late, not lost.
			d.Log.WarnContext(ctx, "retry.not_queued", "endpoint_id", ep.ID, "event_id", item.EventID, "error", errs[0].Error())
		}
	}
	return nil
}

func (d *Dispatcher) disable(ctx context.Context, ep endpoint.Endpoint, reason string, now time.Time) error {
	if err := d.Disabler.DisableEndpoint(ctx, ep.Tenant, ep.ID, reason, now); err != nil {
		return fmt.Errorf("disable endpoint %s: %w", ep.ID, err)
	}
	d.receivers.forget(ep.Tenant, ep.ID)
	d.Log.WarnContext(ctx, "endpoint.disabled", "endpoint_id", ep.ID, "tenant", ep.Tenant, "reason", reason)
	return nil
}

// refused decides what becomes of an item whose claim was refused.
func (d *Dispatcher) refused(ctx context.Context, item work.Item, r *delivery.Refusal) error {
	switch r.Cause {
	case delivery.CauseSettled, delivery.CauseSuperseded:
		return nil
	}
	// Another worker is at it, or it is not time yet. The item must not be
	// forgotten: if that worker dies, nothing else may hold the delivery. It
	// comes back when there is something to see, without counting as a failure.
	item.Attempts = r.Attempts
	wait := max(r.Until.Sub(d.Now()), 0)
	if r.Cause == delivery.CauseInFlight {
		wait += time.Second // let the verdict come first
	}
	item.Delay = min(wait, work.MaxDelay)
	if errs := d.Queue.Send(ctx, []work.Item{item}); errs != nil {
		return fmt.Errorf("put %s/%s back: %w", item.EndpointID, item.EventID, errs[0])
	}
	return nil
}

func (d *Dispatcher) skip(ctx context.Context, item work.Item, reason string) error {
	key := delivery.Key{EndpointID: item.EndpointID, EventID: item.EventID}
	err := d.Deliveries.Skip(ctx, delivery.Skip{Key: key, Tenant: item.Tenant, Reason: reason, Now: d.Now()})
	var refused *delivery.Refusal
	if errors.As(err, &refused) {
		return d.refused(ctx, item, refused)
	}
	if err != nil {
		return fmt.Errorf("skip %s: %w", key, err)
	}
	d.Log.InfoContext(ctx, "delivery.skipped", "endpoint_id", item.EndpointID, "event_id", item.EventID, "reason", reason)
	return nil
}

// logAttempt writes the one wide line of an attempt. It holds no payload, no
// URL (paths may be secret) and nothing of the answer's body.
func (d *Dispatcher) logAttempt(ctx context.Context, ep endpoint.Endpoint, next delivery.Delivery, a delivery.Attempt, o delivery.Outcome, stored error) {
	level := slog.LevelInfo
	if next.State != delivery.Delivered {
		level = slog.LevelWarn
	}
	attrs := []slog.Attr{
		slog.String("event_id", next.EventID), slog.String("event_type", next.EventType),
		slog.String("endpoint_id", ep.ID), slog.String("tenant", ep.Tenant),
		slog.Int("attempt", a.Number), slog.String("outcome", string(a.Class)), slog.Int("status", a.Status),
		slog.String("state", string(next.State)),
		slog.Int64("total_ms", o.Timings.Total.Milliseconds()), slog.Int64("dns_ms", o.Timings.DNS.Milliseconds()),
		slog.Int64("connect_ms", o.Timings.Connect.Milliseconds()), slog.Int64("tls_ms", o.Timings.TLS.Milliseconds()),
		slog.Int64("first_byte_ms", o.Timings.FirstByte.Milliseconds()),
	}
	if o.Error != "" {
		attrs = append(attrs, slog.String("error", o.Error))
	}
	if !next.NextAttemptAt.IsZero() {
		attrs = append(attrs, slog.Time("next_attempt_at", next.NextAttemptAt))
	}
	if stored != nil {
		attrs = append(attrs, slog.String("not_stored", stored.Error()))
	}
	d.Log.LogAttrs(ctx, level, "delivery.attempted", attrs...)
}
