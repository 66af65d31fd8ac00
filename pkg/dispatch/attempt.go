package dispatch

import (
	"context"
	"fmt"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/ops/tracing"
)

// maxLost is the number of attempts in a row without a verdict after which a delivery
// counts as one that kills its workers.
const maxLost = 8

// lost returns how many attempts in a row ended without a verdict before this claim.
func lost(claimed delivery.Delivery) int {
	concluded := 0
	if n := len(claimed.History); n > 0 {
		concluded = claimed.History[n-1].Number
	}
	return claimed.Attempts - 1 - concluded
}

// attempt sends the event once. It ends before the lease and the invocation do, or is not
// begun.
func (d *Dispatcher) attempt(ctx context.Context, claimed delivery.Delivery, j *job) (delivery.Attempt, delivery.Outcome) {
	ep, began := j.endpoint, d.Now()
	attempt := delivery.Attempt{Number: claimed.Attempts, At: began}
	if n, limit := lost(claimed), ep.Retry.AttemptLimit(); claimed.CountedAttempts() > limit || n >= maxLost {
		// No attempt is left, or the delivery kills its workers.
		o := delivery.Outcome{Class: delivery.Lost, Permanent: true, Error: fmt.Sprintf("the workers of the last %d attempts died before they stored a verdict", n)}
		if n == 0 {
			o.Error = fmt.Sprintf("attempt %d is over the endpoint's limit, which is %d now", claimed.CountedAttempts(), limit)
		}
		return attempt, o
	}
	until := began.Add(ep.AttemptTimeout())
	// A shorter attempt would end while a receiver that is within its timeout still works on
	// it, and the next one would come beside it.
	if claimed.LeaseUntil.Add(-leaseReserve).Before(until) {
		return attempt, delivery.Outcome{Class: delivery.Lost, Error: "too little of the lease was left to begin the attempt"}
	}
	if !endsInTime(ctx, until.Sub(began)) {
		return attempt, delivery.Outcome{Class: delivery.CalledOff, Error: "the invocation ends before the attempt's timeout: nothing was sent"}
	}
	if j.slotExpired(began) {
		return attempt, delivery.Outcome{Class: delivery.CalledOff, Error: "the rate-limit slot expired before anything was sent"}
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	under, end := d.Tracer.Begin("attempt", j.accepted.Trace)
	message, err := destination.Compose(*ep, j.event, j.accepted, under, began)
	if err != nil {
		o := delivery.Outcome{Class: delivery.Invalid, Permanent: true, Error: "nothing was sent: " + err.Error()}
		end(markOfOutcome(o), nil)
		return attempt, o
	}
	answered := d.watchDuration(ctx, ep)
	outcome := d.Sender.Deliver(ctx, destination.TargetOf(*ep), message)
	answered()
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
