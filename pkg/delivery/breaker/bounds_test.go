package breaker_test

import (
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
)

func TestAPhaseHasALabel(t *testing.T) {
	open := breaker.State{Phase: breaker.Open, Until: start}
	for want, c := range map[string]struct {
		s   breaker.State
		now time.Time
	}{
		"open":      {open, start.Add(-1)},
		"half-open": {open, start},
		"closed":    {breaker.State{}, start},
		"draining":  {breaker.State{Phase: breaker.Draining}, start},
	} {
		if got := c.s.Label(c.now); got != want {
			t.Errorf("%+v: %s, want %s", c.s, got, want)
		}
	}
}

// The wake-up of a circuit is that of its probe: when its lease ends, or at once if it is
// given back.
func TestTheWakeUpFollowsTheProbe(t *testing.T) {
	s := failing(5, breaker.Policy{})
	now := s.Until
	s, _ = s.ClaimProbe("p", now, lease)
	if !s.WakeAt.Equal(now.Add(lease)) {
		t.Errorf("during the probe: wakes at %s", s.WakeAt)
	}
	if same, changed := s.ReleaseProbe("another", now); changed || same != s {
		t.Errorf("another worker gave the probe back: %+v", same)
	}
	later := now.Add(time.Second)
	if s, _ = s.ReleaseProbe("p", later); !s.WakeAt.Equal(later) || s.ProbeID != "" || !s.ProbeUntil.IsZero() {
		t.Errorf("given back: %+v", s)
	}
	closed := breaker.State{ProbeID: "p"}
	if same, changed := closed.ReleaseProbe("p", now); changed || same != closed {
		t.Errorf("a closed circuit changes: %+v", same)
	}
}

func TestSetWakeAtMovesOnlyWhatIsSet(t *testing.T) {
	for name, c := range map[string]struct{ was, want time.Time }{
		"none":     {time.Time{}, time.Time{}},
		"the same": {start, start},
		"another":  {start.Add(time.Hour), start},
	} {
		if s, changed := (breaker.State{WakeAt: c.was}).SetWakeAt(start); !s.WakeAt.Equal(c.want) || changed != (c.was != c.want) {
			t.Errorf("%s: %s, %t", name, s.WakeAt, changed)
		}
	}
}

// Failures are counted up to the policy's number while the circuit is closed, and a circuit
// that is not open has no time for which it is.
func TestAClosedCircuitCountsUpToItsPolicy(t *testing.T) {
	s, _ := failures(51, 20*time.Millisecond, breaker.Policy{})
	if s.Phase != breaker.Closed || s.Failures != breaker.DefaultFailures || s.OpenFor != 0 {
		t.Errorf("after a blip: %+v", s)
	}
	var f breaker.FailureResult
	if s, f = s.RecordFailure(breaker.Policy{}, "c", "x", start.Add(breaker.DefaultFailingFor)); !f.Opened || s.Failures != breaker.DefaultFailures || s.OpenFor != breaker.DefaultOpenFor {
		t.Errorf("opened: %+v, %+v", s, f)
	}
}

func TestAnEndpointIsDisabledAtTheEndOfItsTime(t *testing.T) {
	p := breaker.Policy{OpenFor: time.Hour, MaxOpenFor: time.Hour}
	for _, early := range []time.Duration{time.Nanosecond, 0} {
		s := failing(5, p)
		at := s.FailingSince.Add(breaker.DefaultDisableAfter - early)
		s.Until = at
		s, _ = s.ClaimProbe("p", at, lease)
		if _, f := s.RecordFailure(p, "p", "x", at); f.Disable != (early == 0) {
			t.Errorf("%s before the time: %+v", early, f)
		}
	}
}

// After more than twelve hours without an attempt, failures count anew.
func TestTwelveHoursOfSilenceAreNotYetQuiet(t *testing.T) {
	for _, more := range []time.Duration{0, time.Nanosecond} {
		s, _ := breaker.State{}.RecordFailure(breaker.Policy{}, "c", "x", start)
		now := s.FailedAt.Add(12*time.Hour + more)
		want := start
		if more > 0 {
			want = now
		}
		if s, _ = s.RecordFailure(breaker.Policy{}, "c", "x", now); !s.FailingSince.Equal(want) {
			t.Errorf("12 h and %s after the first failure: failing since %s, want %s", more, s.FailingSince, want)
		}
	}
}

// A delivery that comes to a draining endpoint puts off the end, with at most one write in
// ten seconds.
func TestADrainIsHeldOpenByWhatComes(t *testing.T) {
	s, _ := breaker.State{}.Hold(start)
	if !s.WakeAt.Equal(start.Add(time.Second)) || !s.Drain.KeepUntil.Equal(start.Add(2*breaker.IndexLag)) {
		t.Errorf("held: %+v", s)
	}
	at := start.Add(breaker.IndexLag)
	if _, changed := s.Hold(at); changed {
		t.Error("it writes although the end is ten seconds away")
	}
	if s, changed := s.Hold(at.Add(1)); !changed || !s.Drain.KeepUntil.Equal(at.Add(1+2*breaker.IndexLag)) {
		t.Errorf("held again: %+v, %t", s.Drain, changed)
	}
}

func TestARateIsHalvedOnceASecond(t *testing.T) {
	s := breaker.State{}.Close(start)
	for at, want := range map[time.Duration]int{time.Second - 1: breaker.StartRate, time.Second: breaker.StartRate / 2} {
		if s, _ := s.AnsweredBadly(start.Add(at)); s.Drain.Rate != want {
			t.Errorf("a bad answer after %s: rate %d, want %d", at, s.Drain.Rate, want)
		}
	}
}

// Each step of a drain decides where the next one begins and when. Only a step that looked
// at the whole backlog, found nothing, and comes late enough, ends the drain.
func TestAStepDecidesWhenTheNextOneComes(t *testing.T) {
	const lag = breaker.IndexLag
	draining := breaker.State{Phase: breaker.Draining, WakeAt: start, Drain: breaker.Drain{Rate: 10, RateAt: start, Cursor: "b", SentAt: start.Add(-lag), MarkAt: start, KeepUntil: start}}
	next := start.Add(2 * time.Second)
	for name, c := range map[string]struct {
		step   breaker.Step
		keep   time.Duration // KeepUntil, after start
		sent   time.Duration // SentAt, before start
		cursor string
		wake   time.Time // zero if the drain ends
	}{
		"more is left":                        {breaker.Step{Last: "c", Sent: 1}, 0, lag, "c", next},
		"more is left, without a limit":       {breaker.Step{Last: "c", Sent: 1, Direct: true}, 0, lag, "c", next},
		"more is left, and nothing was sent":  {breaker.Step{Last: "c"}, 0, lag, "c", next},
		"the rest was sent, in turn":          {breaker.Step{Last: "c", Sent: 1, Done: true}, 0, lag, "c", next},
		"the rest was sent, without a limit":  {breaker.Step{Last: "c", Sent: 1, Done: true, Direct: true}, 0, lag, "c", start.Add(lag)},
		"nothing after the cursor":            {breaker.Step{Scan: breaker.Scan{After: "b"}, Done: true}, 0, lag - 1, "b", next},
		"nothing after the cursor, long past": {breaker.Step{Scan: breaker.Scan{After: "b"}, Done: true}, 0, lag, "b", next},
		"nothing at all, a while after":       {breaker.Step{Done: true}, 0, lag, "", time.Time{}},
		"nothing at all, too early":           {breaker.Step{Done: true}, 0, lag - 3*time.Second, "", start.Add(3 * time.Second)},
		"nothing at all, but one just came":   {breaker.Step{Done: true}, 7 * time.Second, lag, "", start.Add(7 * time.Second)},
		"nothing at all, and one comes soon":  {breaker.Step{Done: true}, time.Second, lag, "", next},
	} {
		s, step := draining, c.step
		s.Drain.KeepUntil, s.Drain.SentAt = start.Add(c.keep), start.Add(-c.sent)
		step.Cursor, step.Next = "b", next
		got := s.Advance(step, start)
		if got.Drain.Cursor != c.cursor || !got.WakeAt.Equal(c.wake) || (got.Phase == breaker.Draining) != !c.wake.IsZero() || got.Phase == breaker.Draining && got.Drain.Behind == step.Done {
			t.Errorf("%s: %q at %q, wakes at %s, want %q and %s: %+v", name, got.Phase, got.Drain.Cursor, got.WakeAt, c.cursor, c.wake, got.Drain)
		}
	}
}
