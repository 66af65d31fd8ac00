package dispatch

import (
	"slices"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
)

// Slots go to the oldest deliveries, except to those that expire before theirs and its grace.
func TestSlotsGoToTheOldestThatCanUseThem(t *testing.T) {
	const limit = time.Hour
	now := time.Unix(1_000_000, 0)
	slots := []time.Time{now, now.Add(time.Second), now.Add(2 * time.Second)}
	// expiring is the age limit of a delivery, after now.
	expiring := func(after time.Duration) delivery.Delivery {
		return delivery.Delivery{Since: now.Add(after - limit)}
	}
	for name, c := range map[string]struct {
		slots  int
		expire []time.Duration
		queued []int
		taken  int
	}{
		"none":                         {3, nil, nil, 0},
		"no slot":                      {0, []time.Duration{time.Minute}, nil, 0},
		"one each":                     {3, []time.Duration{time.Minute, time.Minute, time.Minute}, []int{0, 1, 2}, 3},
		"more deliveries than slots":   {2, []time.Duration{time.Minute, time.Minute, time.Minute}, []int{0, 1}, 2},
		"more slots than deliveries":   {3, []time.Duration{time.Minute}, []int{0}, 1},
		"at the end of the grace":      {3, []time.Duration{ratelimit.Grace, time.Second + ratelimit.Grace}, []int{0, 1}, 2},
		"just before that":             {3, []time.Duration{ratelimit.Grace - 1, time.Minute}, []int{1}, 2},
		"the last one expires":         {3, []time.Duration{time.Minute, time.Second}, []int{0}, 2},
		"what expires leaves its slot": {1, []time.Duration{0, time.Minute, time.Minute}, []int{1}, 2},
	} {
		var list []delivery.Delivery
		for i, after := range c.expire {
			one := expiring(after)
			one.Attempts = i
			list = append(list, one)
		}
		queued, taken := fill(slots[:c.slots], list, limit)
		var got []int
		for _, one := range queued {
			got = append(got, one.Attempts)
		}
		if !slices.Equal(got, c.queued) || taken != c.taken {
			t.Errorf("%s: %v are queued of %d, want %v of %d", name, got, taken, c.queued, c.taken)
		}
	}
}
