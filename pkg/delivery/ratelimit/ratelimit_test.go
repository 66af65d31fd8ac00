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
// Grace late, and reservations of any size at any time. No slot is later than allowed.
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
			until := now.Add(time.Duration(rapid.IntRange(0, 90).Draw(r, "until")) * time.Second)
			reservation := limit.Reserve(n, now, until)
			after, ok := reservation.Apply(at)
			if !ok {
				if n = limit.Fits(reservation, after, n); n == 0 {
					continue
				}
				if after, ok = limit.Reserve(n, now, until).Apply(at); !ok {
					r.Fatalf("%d are said to fit, and do not", n)
				}
			}
			at = after
			for _, slot := range limit.Slots(at, n, now) {
				if slot.Before(now) || slot.After(until.Add(time.Microsecond)) {
					r.Fatalf("a slot is %s from now and %s from the last allowed time", slot.Sub(now), slot.Sub(until))
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

func TestHowFarAheadSlotsAreReserved(t *testing.T) {
	for perMinute, want := range map[int][2]time.Duration{
		1: {10 * time.Minute, 2 * time.Minute}, 60: {30 * time.Second, 6 * time.Second}, 6000: {30 * time.Second, 6 * time.Second},
		10: {time.Minute, 12 * time.Second},
	} {
		l := ratelimit.Limit{PerMinute: perMinute}
		if horizon, drain := l.Horizon(), l.DrainAhead(); horizon.Round(time.Second) != want[0] || drain.Round(time.Second) != want[1] {
			t.Errorf("%d per minute: %s ahead, %s while draining; want %v", perMinute, horizon, drain, want)
		}
	}
}

// A time that the new rules cannot make is ignored: version 0.9 reserved slots for days.
func TestSlotsReservedForDaysDoNotDelayAnybody(t *testing.T) {
	l := ratelimit.Limit{PerMinute: 1}
	r := l.Reserve(1, start, start.Add(l.Horizon()))
	if after, ok := r.Apply(start.Add(100 * time.Hour)); !ok || after.Sub(start) > 2*time.Minute {
		t.Errorf("after %s, %t", after.Sub(start), ok)
	}
	if _, ok := r.Apply(start.Add(l.Horizon() + 2*time.Minute)); ok {
		t.Error("a full limit takes one more")
	}
}

func TestNewEventsGetEverySecondSlot(t *testing.T) {
	l := ratelimit.Limit{PerMinute: 60}
	half := l.Half()
	count := func(every time.Duration) (let int) {
		var at time.Time
		for now := start; now.Before(start.Add(10 * time.Minute)); now = now.Add(every) {
			after, ok := half.Reserve(1, now).Apply(at)
			if ok {
				let, at = let+1, after
			}
		}
		return let
	}
	if got := count(2 * time.Second); got != 300 {
		t.Errorf("of 300 events at half the limit, %d pass", got)
	}
	if got := count(500 * time.Millisecond); got < 300 || got > 310 {
		t.Errorf("of 1200 events at twice the limit, %d pass, want half of the limit", got)
	}
	if half.Key("e") == l.Key("e") {
		t.Error("the share has the key of the limit")
	}
	full := half.Reserve(20, start)
	from, ok := full.Apply(time.Time{})
	if n := half.Fits(full, from, 20); ok || n != 7 {
		t.Errorf("of 20 at once, %d fit (%t), want those of half the horizon: 7", n, ok)
	}
}

// A stored time is ignored after the time from which it is stale, not at it.
func TestATimeIsStaleAfterItsBound(t *testing.T) {
	r := ratelimit.Limit{PerMinute: 60, Burst: 5}.Reserve(1, start, start.Add(time.Minute))
	if at, ok := r.Apply(r.Stale); ok || !at.Equal(r.Stale) {
		t.Errorf("at the bound: %s, %t", at, ok)
	}
	if at, ok := r.Apply(r.Stale.Add(time.Microsecond)); !ok || !at.Equal(start.Add(r.Cost)) {
		t.Errorf("after it: %s, %t", at, ok)
	}
}

func TestAReservationBeginsAtTheLaterOfTwoTimes(t *testing.T) {
	for at, want := range map[time.Duration]time.Duration{-time.Second: time.Minute, 0: time.Minute, time.Second: time.Minute + time.Second} {
		if got := ratelimit.Reserve(start.Add(at), start, time.Minute); !got.Equal(start.Add(want)) {
			t.Errorf("%s from now: %s, want %s", at, got.Sub(start), want)
		}
	}
}
