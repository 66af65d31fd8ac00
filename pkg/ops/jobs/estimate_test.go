package jobs_test

import (
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
)

func TestHowLongSendingTakes(t *testing.T) {
	for name, c := range map[string]struct {
		n     int
		limit ratelimit.Limit
		want  time.Duration
	}{
		"none":                                    {0, ratelimit.Limit{}, 0},
		"ten at the first rate":                   {10, ratelimit.Limit{}, time.Second},
		"the rate doubles every five seconds":     {50 + 100 + 40, ratelimit.Limit{}, 11 * time.Second},
		"320 per second after 25 seconds":         {1550 + 320*60, ratelimit.Limit{}, 85 * time.Second},
		"half of a rate limit, beside new events": {600, ratelimit.Limit{PerMinute: 120}, 10 * time.Minute},
	} {
		got, dollars := jobs.Estimate(c.n, c.limit)
		if (got - c.want).Abs() > time.Millisecond {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
		if (dollars > 0) != (c.n > 0) {
			t.Errorf("%s: $%f", name, dollars)
		}
	}
}
