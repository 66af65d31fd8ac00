package breaker_test

import (
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
)

func TestAMarkLastsFifteenSecondsAndIsRenewedAfterFive(t *testing.T) {
	for name, c := range map[string]struct {
		marks         []time.Duration // after the start
		writes        int
		at            time.Duration
		slow          bool
		untilAfterAll time.Duration
	}{
		"never marked":               {nil, 0, 0, false, 0},
		"at once":                    {[]time.Duration{0}, 1, 0, true, 15 * time.Second},
		"just before its end":        {[]time.Duration{0}, 1, 15*time.Second - time.Millisecond, true, 15 * time.Second},
		"its end":                    {[]time.Duration{0}, 1, 15 * time.Second, false, 15 * time.Second},
		"again too soon":             {[]time.Duration{0, 5*time.Second - time.Millisecond}, 1, 15 * time.Second, false, 15 * time.Second},
		"renewed":                    {[]time.Duration{0, 5 * time.Second}, 2, 15 * time.Second, true, 20 * time.Second},
		"marked again much later":    {[]time.Duration{0, time.Hour}, 2, time.Hour, true, time.Hour + 15*time.Second},
		"by a worker's clock behind": {[]time.Duration{2 * time.Second, 0}, 1, time.Second, true, 17 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			var s breaker.State
			writes := 0
			for _, at := range c.marks {
				var changed bool
				if s, changed = s.MarkSlow(start.Add(at)); changed {
					writes++
				}
			}
			if writes != c.writes || s.Slow(start.Add(c.at)) != c.slow || c.writes > 0 && !s.SlowUntil.Equal(start.Add(c.untilAfterAll)) {
				t.Errorf("%d writes, slow until %s", writes, s.SlowUntil.Sub(start))
			}
		})
	}
}

// An endpoint can be slow and healthy: the mark survives what happens to the circuit, and
// does not make a success cost a write.
func TestAMarkIsIndependentOfTheCircuit(t *testing.T) {
	s, _ := breaker.State{}.MarkSlow(start)
	if _, changed := s.RecordSuccess("c", start); changed {
		t.Error("a success of a slow endpoint costs a write")
	}
	s, _ = s.RecordFailure(breaker.Policy{Failures: 1, FailingFor: time.Millisecond}, "c", "x", start)
	s, f := s.RecordFailure(breaker.Policy{Failures: 1, FailingFor: time.Millisecond}, "c", "x", start.Add(time.Second))
	if !f.Opened || !s.Slow(start.Add(time.Second)) {
		t.Errorf("after the circuit opened: %+v", s)
	}
	if s = s.Close(start.Add(2 * time.Second)); !s.Slow(start.Add(2 * time.Second)) {
		t.Errorf("after it closed: %+v", s)
	}
	if s.Reset().Slow(start.Add(3 * time.Second)) {
		t.Error("an endpoint that is enabled again is slow")
	}
}

// Marks that follow each other without a break are one stay in the lane.
func TestAnEndpointIsSlowSinceTheFirstMarkWithoutABreak(t *testing.T) {
	var s breaker.State
	for _, c := range []struct {
		at    time.Duration
		mark  bool
		since time.Duration // -1: not slow
	}{{0, false, -1}, {time.Second, true, time.Second}, {2 * time.Second, true, time.Second}, {15 * time.Second, true, time.Second}, {29 * time.Second, false, time.Second}, {30 * time.Second, false, -1}, {40 * time.Second, true, 40 * time.Second}} {
		if c.mark {
			s, _ = s.MarkSlow(start.Add(c.at))
		}
		want := time.Time{}
		if c.since >= 0 {
			want = start.Add(c.since)
		}
		if got := s.InSlowLane(start.Add(c.at)); !got.Equal(want) {
			t.Errorf("after %s: slow since %s, want %s", c.at, got, want)
		}
	}
	// An earlier version stored only until when.
	old, _ := breaker.State{SlowUntil: start.Add(breaker.SlowLaneFor / 2)}.MarkSlow(start)
	if got := old.InSlowLane(start); !got.Equal(start) {
		t.Errorf("slow when the version changed: since %s", got)
	}
	if got := s.Close(start.Add(41 * time.Second)).InSlowLane(start.Add(41 * time.Second)); !got.Equal(start.Add(40 * time.Second)) {
		t.Errorf("after its circuit was closed: slow since %s", got)
	}
}
