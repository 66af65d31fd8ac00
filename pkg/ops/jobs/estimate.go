package jobs

import (
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/ops/cost"
)

// Sending is what AWS counts for a delivery that a job sends: it is put into the backlog,
// taken from it and delivered with the first attempt. TestWhatARecoveredDeliveryCosts counts the units.
var Sending = cost.Count{WriteUnits: 7, ReadUnits: 2, SQSRequests: 1, Runs: 0.2, Seconds: 0.1}

// Estimate returns how long sending n deliveries takes about, and what it costs, in US
// dollars. A backlog is sent at the half of a rate limit that new events leave; without a
// limit, at the rate of a drain whose receiver answers quickly and well.
func Estimate(n int, limit ratelimit.Limit) (takes time.Duration, dollars float64) {
	dollars = cost.Total(Sending.Times(float64(n)).Lines(cost.List))
	if limit.Enabled() {
		return time.Duration(float64(n) / (float64(limit.PerMinute) / 2) * float64(time.Minute)), dollars
	}
	left := float64(n)
	for rate := float64(breaker.StartRate); left > 0; rate = min(2*rate, breaker.MaxRate) {
		span := breaker.DoubleEvery
		if rate == breaker.MaxRate || left < rate*span.Seconds() {
			span = time.Duration(left / rate * float64(time.Second))
			takes += span
			break
		}
		left, takes = left-rate*span.Seconds(), takes+span
	}
	return takes, dollars
}
