package dispatch

import (
	"context"
	"fmt"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/ops/tracing"
)

// attempt sends the event once. It ends before the lease does.
func (d *Dispatcher) attempt(ctx context.Context, claimed delivery.Delivery, j *job) (delivery.Attempt, delivery.Outcome) {
	ep, began := j.endpoint, d.Now()
	attempt := delivery.Attempt{Number: claimed.Attempts, At: began}
	if limit := ep.Retry.AttemptLimit(); claimed.CountedAttempts() > limit {
		// The last claims ended without a verdict, so no attempt is left.
		return attempt, delivery.Outcome{Class: delivery.Lost, Permanent: true,
			Error: fmt.Sprintf("the workers of %d attempts died before they stored a verdict", limit)}
	}
	until := began.Add(ep.AttemptTimeout())
	if last := claimed.LeaseUntil.Add(-leaseReserve); last.Before(until) {
		until = last
	}
	if !until.After(began) {
		return attempt, delivery.Outcome{Class: delivery.Lost, Error: "too little of the lease was left to begin the attempt"}
	}
	if j.slotExpired(began) {
		return attempt, delivery.Outcome{Class: delivery.CalledOff, Error: "the rate-limit slot expired before anything was sent"}
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	under, end := d.Tracer.Begin("attempt", j.accepted.Trace)
	message := destination.Compose(*ep, j.event, j.accepted.Body, d.Catalog.Subject(j.event.Type, j.event.Data), under, began)
	outcome := d.Sender.Deliver(ctx, destination.TargetOf(*ep), message)
	if outcome.Timings.Total == 0 {
		outcome.Timings.Total = d.Now().Sub(began)
	}
	var found map[string]any
	if tracing.IsRecording(d.Tracer) {
		found = annotations(j, attempt.Number, outcome)
	}
	end(markOfOutcome(outcome), found)
	return attempt, outcome
}
