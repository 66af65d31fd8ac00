package dispatch

import (
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
)

// A job keeps a minute of the endpoint's rate in the backlog, fills it up when half of that
// is left, and otherwise waits until it is.
func TestABacklogIsFilledUpWhenItIsHalfEmpty(t *testing.T) {
	const day = 24 * time.Hour
	limit := ratelimit.Limit{PerMinute: 120}
	drained := func(rate int) breaker.State {
		return breaker.State{Phase: breaker.Draining, Drain: breaker.Drain{Rate: rate}}
	}
	for name, c := range map[string]struct {
		limit ratelimit.Limit
		s     breaker.State
		age   time.Duration
		held  int
		goal  int
		wait  time.Duration
	}{
		"empty, at the first rate of a drain":    {ratelimit.Limit{}, breaker.State{}, day, 0, 600, 0},
		"half empty":                             {ratelimit.Limit{}, breaker.State{}, day, 300, 600, 0},
		"soon half empty":                        {ratelimit.Limit{}, breaker.State{}, day, 301, 600, time.Second},
		"half empty in four seconds":             {ratelimit.Limit{}, breaker.State{}, day, 340, 600, 4 * time.Second},
		"half empty much later":                  {ratelimit.Limit{}, breaker.State{}, day, 600, 600, refillEvery},
		"a quarter of the age limit":             {ratelimit.Limit{}, breaker.State{}, 40 * time.Second, 0, 100, 0},
		"at least one":                           {ratelimit.Limit{PerMinute: 1}, breaker.State{}, 40 * time.Second, 0, 1, 0},
		"at least one, which is held":            {ratelimit.Limit{PerMinute: 1}, breaker.State{}, 40 * time.Second, 1, 1, refillEvery},
		"half of a rate limit":                   {limit, drained(50), day, 0, 60, 0},
		"the rate of a drain":                    {ratelimit.Limit{}, drained(50), day, 0, 3000, 0},
		"the rate of a drain, halved to zero":    {ratelimit.Limit{}, drained(0), day, 0, 60, 0},
		"the fastest drain":                      {ratelimit.Limit{}, drained(320), day, 0, maxGoal, 0},
		"the circuit is open":                    {ratelimit.Limit{}, breaker.State{Phase: breaker.Open}, day, 301, 600, refillOpen},
		"the circuit is open, but there is room": {ratelimit.Limit{}, breaker.State{Phase: breaker.Open}, day, 300, 600, 0},
	} {
		if goal, wait := backlogGoal(c.limit, c.s, c.age, c.held); goal != c.goal || wait != c.wait {
			t.Errorf("%s: %d, wait %s; want %d, wait %s", name, goal, wait, c.goal, c.wait)
		}
	}
}

// The windows of a recovery follow one another without a gap, and grow while there is little
// in them.
func TestAWindowGrowsWhileThereIsLittleInIt(t *testing.T) {
	from := time.Date(2026, 1, 29, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		span time.Duration
		seen int
		want time.Duration
	}{
		"nothing":                 {10 * time.Minute, 0, 20 * time.Minute},
		"less than a quarter":     {10 * time.Minute, 124, 20 * time.Minute},
		"a quarter of a page":     {10 * time.Minute, 125, 10 * time.Minute},
		"two pages":               {10 * time.Minute, 1000, 10 * time.Minute},
		"more than two pages":     {10 * time.Minute, 1001, 5 * time.Minute},
		"never more than an hour": {40 * time.Minute, 0, time.Hour},
		"never less than 1 s":     {1500 * time.Millisecond, 5000, time.Second},
	} {
		got := window{From: from, Span: c.span, Page: "p", Seen: c.seen}.next()
		if want := (window{From: from.Add(c.span), Span: c.want}); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
	w := window{From: from, Span: time.Minute}
	if got := w.last(from.Add(time.Hour)); !got.Equal(from.Add(time.Minute - time.Millisecond)) {
		t.Errorf("the last millisecond is %s", got)
	}
	if got := w.last(from.Add(time.Second)); !got.Equal(from.Add(time.Second)) {
		t.Errorf("the end of the range is %s", got)
	}
}

func TestAShareIsBetweenZeroAndOne(t *testing.T) {
	for _, c := range []struct {
		part, whole time.Duration
		want        float64
	}{{0, time.Hour, 0}, {time.Hour, time.Hour, 1}, {15 * time.Minute, time.Hour, 0.25}, {time.Hour, 0, 0}, {time.Hour, -time.Hour, 0}} {
		if got := share(c.part, c.whole); got != c.want {
			t.Errorf("%s of %s: %g, want %g", c.part, c.whole, got, c.want)
		}
	}
}
