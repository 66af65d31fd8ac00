package ratelimit_test

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
)

var start = time.Date(2026, 1, 29, 12, 0, 0, 0, time.UTC)

// In any window of length t at most burst + rate·t attempts begin: with attempts up to
// Grace late, reservations of any size at any time, and a pace that comes and goes.
func TestNoWindowHasMoreThanTheBurstAndTheRate(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		limit := ratelimit.Limit{PerMinute: rapid.IntRange(1, 3000).Draw(r, "per minute"), Burst: rapid.IntRange(0, 60).Draw(r, "burst")}
		if limit.Validate() != nil {
			return
		}
		burst := limit.Burst
		if burst == 0 {
			burst = max(2, limit.PerMinute/12)
		}
		var at time.Time
		now := start
		var begun []time.Time
		for range rapid.IntRange(1, 30).Draw(r, "batches") {
			now = now.Add(time.Duration(rapid.IntRange(0, 20_000).Draw(r, "pause ms")) * time.Millisecond)
			n := rapid.IntRange(1, 10).Draw(r, "n")
			used := ratelimit.Stricter(limit, ratelimit.Pace(time.Duration(rapid.IntRange(0, 30).Draw(r, "response time"))*time.Second))
			at = ratelimit.Reserve(at, now, used.Cost(n)).Truncate(time.Microsecond)
			for _, slot := range used.Slots(at, n, now) {
				if slot.Before(now) {
					r.Fatalf("a slot is %s before now", now.Sub(slot))
				}
				begun = append(begun, slot.Add(time.Duration(rapid.Int64Range(0, int64(ratelimit.Grace)).Draw(r, "late"))))
			}
		}
		slices.SortFunc(begun, time.Time.Compare)
		for i := range begun {
			for j := i; j < len(begun); j++ {
				window := begun[j].Sub(begun[i])
				if limited := float64(burst) + window.Minutes()*float64(limit.PerMinute); float64(j-i+1) > limited+1e-6 {
					r.Fatalf("%d attempts within %s; want at most %.2f (%+v)", j-i+1, window, limited, limit)
				}
			}
		}
	})
}

func TestTheRateIsReached(t *testing.T) {
	for _, perMinute := range []int{1, 60, 600, 6000, 60_000} {
		limit := ratelimit.Limit{PerMinute: perMinute}
		if err := limit.Validate(); err != nil {
			t.Fatal(err)
		}
		at := ratelimit.Reserve(time.Time{}, start, limit.Cost(2*perMinute))
		slots := limit.Slots(at, 2*perMinute, start)
		if last := slots[len(slots)-1].Sub(start); last > 2*time.Minute+2*time.Second {
			t.Errorf("%d per minute: %d attempts take %s, want two minutes", perMinute, 2*perMinute, last)
		}
	}
}

func TestLimitBounds(t *testing.T) {
	for name, c := range map[string]struct {
		l  ratelimit.Limit
		ok bool
	}{
		"no limit":                       {ratelimit.Limit{}, true},
		"a rate":                         {ratelimit.Limit{PerMinute: 60}, true},
		"a rate and a burst":             {ratelimit.Limit{PerMinute: 60, Burst: 10}, true},
		"one per minute, burst of one":   {ratelimit.Limit{PerMinute: 1, Burst: 1}, true},
		"maximum":                        {ratelimit.Limit{PerMinute: ratelimit.MaxPerMinute, Burst: 10_000}, true},
		"a negative rate":                {ratelimit.Limit{PerMinute: -1}, false},
		"a rate above the maximum":       {ratelimit.Limit{PerMinute: ratelimit.MaxPerMinute + 1}, false},
		"a burst without a rate":         {ratelimit.Limit{Burst: 5}, false},
		"a burst too small for its rate": {ratelimit.Limit{PerMinute: 60_000, Burst: 1}, false},
		"a burst above the maximum":      {ratelimit.Limit{PerMinute: 60, Burst: 10_001}, false},
	} {
		if err := c.l.Validate(); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPaceOfASlowEndpoint(t *testing.T) {
	for took, want := range map[time.Duration]int{0: 0, 10 * time.Second: 120, 30 * time.Second: 40, 2 * time.Second: 600} {
		if got := ratelimit.Pace(took).PerMinute; got != want {
			t.Errorf("responses of %s: %d per minute, want %d", took, got, want)
		}
	}
	own := ratelimit.Limit{PerMinute: 30, Burst: 3}
	if got := ratelimit.Stricter(own, ratelimit.Pace(10*time.Second)); got != own {
		t.Errorf("the endpoint's own limit is stricter, but is replaced by %+v", got)
	}
	if got := ratelimit.Stricter(ratelimit.Limit{}, ratelimit.Pace(10*time.Second)); got.PerMinute != 120 {
		t.Errorf("without a limit of its own: %+v", got)
	}
}
