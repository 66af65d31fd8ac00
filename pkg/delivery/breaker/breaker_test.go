package breaker_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
)

var start = time.Date(2026, 1, 29, 12, 0, 0, 0, time.UTC)

const lease = 25 * time.Second

// failing is a breaker after n failures in a row, a second apart.
func failing(n int, p breaker.Policy) breaker.State {
	var s breaker.State
	for i := range n {
		s, _ = s.RecordFailure(p, "c", "answered 503", start.Add(time.Duration(i)*time.Second))
	}
	return s
}

func TestACircuitOpensAtItsLimitOfConsecutiveFailures(t *testing.T) {
	for name, c := range map[string]struct {
		policy   breaker.Policy
		failures int
		open     bool
	}{
		"one less than the default": {breaker.Policy{}, 4, false},
		"the default":               {breaker.Policy{}, 5, true},
		"one less than the policy":  {breaker.Policy{Failures: 2}, 1, false},
		"the policy":                {breaker.Policy{Failures: 2}, 2, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := failing(c.failures, c.policy)
			if got := s.Phase == breaker.Open; got != c.open {
				t.Errorf("open = %t after %d failures", got, c.failures)
			}
		})
	}
	s := failing(4, breaker.Policy{})
	s, changed := s.RecordSuccess("c", start)
	if !changed || !s.Clean() {
		t.Errorf("after a success: %+v", s)
	}
	if s, _ = s.RecordFailure(breaker.Policy{}, "c", "x", start); s.Phase == breaker.Open {
		t.Error("failures before a success count")
	}
}

func TestASuccessOnACleanBreakerChangesNothing(t *testing.T) {
	if s, changed := (breaker.State{}).RecordSuccess("c", start); changed || s != (breaker.State{}) {
		t.Errorf("changed to %+v", s)
	}
}

func TestAFailedProbeWaitsTwiceAsLongUpToAnHour(t *testing.T) {
	p := breaker.Policy{}
	s := failing(5, p)
	for _, want := range []time.Duration{5, 10, 20, 40, 60, 60} {
		if s.OpenFor != want*time.Minute || !s.Until.Equal(s.WakeAt) {
			t.Fatalf("open for %s until %s, wake at %s; want %d minutes", s.OpenFor, s.Until, s.WakeAt, want)
		}
		if v := s.Admit(s.Until.Add(-time.Millisecond)); !v.Wait || v.Probe {
			t.Errorf("before Until: %+v, want to wait", v)
		}
		now := s.Until
		var ok bool
		if s, ok = s.ClaimProbe("p", now, lease); !ok {
			t.Fatal("no probe at Until")
		}
		s, _ = s.RecordFailure(p, "p", "answered 503", now)
	}
}

func TestOneProbeAtATime(t *testing.T) {
	s := failing(5, breaker.Policy{})
	now := s.Until
	s, ok := s.ClaimProbe("first", now, lease)
	if !ok {
		t.Fatal("no probe")
	}
	if _, ok := s.ClaimProbe("second", now.Add(lease-time.Millisecond), lease); ok {
		t.Error("a second probe is admitted during the first")
	}
	if v := s.Admit(now); !v.Wait || !v.Until.Equal(now.Add(lease)) {
		t.Errorf("during the probe: %+v, want to wait until the end of its lease", v)
	}
	// The first probe's lease expires.
	if s, ok = s.ClaimProbe("second", now.Add(lease), lease); !ok {
		t.Error("no probe after the first probe's lease")
	}
	// The outcome of the first probe comes too late.
	if _, changed := s.RecordFailure(breaker.Policy{}, "first", "x", now.Add(lease)); changed.Changed {
		t.Error("a probe without a lease counts")
	}
	if s, ok = s.ReleaseProbe("second", now); !ok || !s.Admit(now).Probe {
		t.Error("a released probe cannot be claimed")
	}
}

func TestOnlyTheProbesSuccessClosesTheCircuit(t *testing.T) {
	s := failing(5, breaker.Policy{})
	late, changed := s.RecordSuccess("began before", start.Add(time.Minute))
	if late.Phase != breaker.Open || !changed || !late.FailingSince.Equal(start.Add(time.Minute)) {
		t.Errorf("a success that began before the circuit opened: %+v", late)
	}
	s, _ = s.ClaimProbe("p", s.Until, lease)
	s, _ = s.RecordSuccess("p", s.Until)
	if s.Phase != breaker.Draining || s.WakeAt.IsZero() || s.Admit(start).Wait {
		t.Errorf("after the probe: %+v", s)
	}
	if _, changed := s.RecordSuccess("another", start); changed {
		t.Error("a success while draining changes the state")
	}
	early, _ := s.FinishDrain(s.Since)
	if early.Phase != breaker.Draining || !early.WakeAt.After(s.Since) {
		t.Errorf("the drain ended before MinDrainTime: %+v", early)
	}
	if s, _ = s.FinishDrain(s.Since.Add(breaker.MinDrainTime)); !s.Clean() || !s.WakeAt.IsZero() {
		t.Errorf("drained: %+v", s)
	}
}

func TestFiveDaysOfFailuresDisableTheEndpoint(t *testing.T) {
	p := breaker.Policy{}
	run := func(successAt time.Duration) (disabledAfter time.Duration) {
		s := failing(5, p)
		for s.Until.Before(start.Add(8 * 24 * time.Hour)) {
			now := s.Until
			s, _ = s.ClaimProbe("p", now, lease)
			if successAt > 0 && now.Sub(start) > successAt {
				successAt = 0
				s, _ = s.RecordSuccess("straggler", now)
			}
			var f breaker.FailureResult
			if s, f = s.RecordFailure(p, "p", "x", now); f.Disable {
				return now.Sub(start)
			}
		}
		return 0
	}
	if got := run(0); got < breaker.DefaultDisableAfter || got > breaker.DefaultDisableAfter+time.Hour {
		t.Errorf("disabled after %s, want the first probe after five days", got)
	}
	if got := run(4 * 24 * time.Hour); got < 9*24*time.Hour && got != 0 {
		t.Errorf("disabled after %s although it succeeded after four days", got)
	}
}

func TestConcernsEndpoint(t *testing.T) {
	for _, c := range []delivery.Class{delivery.Answered, delivery.Timeout, delivery.DNS, delivery.Connect, delivery.TLS, delivery.Throttled, delivery.Redirect, delivery.Denied, delivery.Missing} {
		if !breaker.ConcernsEndpoint(c) {
			t.Errorf("%s does not count", c)
		}
	}
	for _, c := range []delivery.Class{delivery.TooLarge, delivery.Invalid, delivery.Gone, delivery.Blocked, delivery.CalledOff, delivery.Lost} {
		if breaker.ConcernsEndpoint(c) {
			t.Errorf("%s counts, though it says nothing about the endpoint", c)
		}
	}
}

func TestPolicyBounds(t *testing.T) {
	for name, c := range map[string]struct {
		p  breaker.Policy
		ok bool
	}{
		"defaults":                {breaker.Policy{}, true},
		"maximum":                 {breaker.Policy{Failures: 100, OpenFor: time.Hour, MaxOpenFor: 24 * time.Hour, DisableAfter: 30 * 24 * time.Hour}, true},
		"minimum":                 {breaker.Policy{Failures: 1, OpenFor: time.Second, MaxOpenFor: time.Second, DisableAfter: time.Hour}, true},
		"negative failures":       {breaker.Policy{Failures: -1}, false},
		"too many failures":       {breaker.Policy{Failures: 101}, false},
		"open for 1 ms":           {breaker.Policy{OpenFor: time.Millisecond}, false},
		"max_open_for < open_for": {breaker.Policy{OpenFor: time.Minute, MaxOpenFor: time.Second}, false},
		"disabled after a minute": {breaker.Policy{DisableAfter: time.Minute}, false},
	} {
		if err := c.p.Validate(); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// After any sequence of transitions: a circuit that is not closed has a wake time, at
// most one probe is in flight, and OpenFor is within its bounds.
func TestRandomTransitions(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		p := breaker.Policy{Failures: rapid.IntRange(1, 3).Draw(r, "failures"), OpenFor: time.Minute, MaxOpenFor: 4 * time.Minute}
		var s breaker.State
		now := start
		probes := map[string]time.Time{} // in flight, until
		for range rapid.IntRange(1, 40).Draw(r, "transitions") {
			now = now.Add(time.Duration(rapid.IntRange(0, 90).Draw(r, "seconds")) * time.Second)
			id := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(r, "claim")
			switch rapid.SampledFrom([]string{"claim probe", "release probe", "failure", "success", "close", "finish drain"}).Draw(r, "transition") {
			case "claim probe":
				if next, ok := s.ClaimProbe(id, now, lease); ok {
					for other, until := range probes {
						if now.Before(until) {
							r.Fatalf("%s probes at the same time as %s", id, other)
						}
					}
					s, probes = next, map[string]time.Time{id: now.Add(lease)}
				}
			case "release probe":
				if next, ok := s.ReleaseProbe(id, now); ok {
					s = next
					delete(probes, id)
				}
			case "failure":
				was := s
				s, _ = s.RecordFailure(p, id, "x", now)
				if was.ProbeID == id || s.Phase != was.Phase {
					clear(probes)
				}
			case "success":
				s, _ = s.RecordSuccess(id, now)
				if s.Phase != breaker.Open {
					clear(probes)
				}
			case "close":
				s = s.Close(now)
				clear(probes)
			case "finish drain":
				s, _ = s.FinishDrain(now)
			}
			if s.Phase != breaker.Closed && s.WakeAt.IsZero() {
				r.Fatalf("no wake time: %+v", s)
			}
			if s.Phase == breaker.Open && (s.OpenFor < p.OpenFor || s.OpenFor > p.MaxOpenFor) {
				r.Fatalf("open for %s", s.OpenFor)
			}
			if s.Phase == breaker.Closed && s.Failures >= p.Failures {
				r.Fatalf("closed after %d failures", s.Failures)
			}
		}
	})
}

func TestSmallChangesOfTheResponseTimeAreNotWritten(t *testing.T) {
	var s breaker.State
	var writes int
	took := func(d time.Duration) {
		t.Helper()
		var changed bool
		if s, changed = s.RecordDuration(d); changed {
			writes++
		}
	}
	for range 100 {
		took(100 * time.Millisecond)
	}
	if writes != 0 || s.Slow != 0 {
		t.Errorf("%d writes for quick responses", writes)
	}
	for range 100 {
		took(10 * time.Second)
		took(9 * time.Second)
	}
	if writes != 1 || s.Slow != 10*time.Second {
		t.Errorf("slow = %s after %d writes, want one write for similar response times", s.Slow, writes)
	}
	for range 5 {
		took(50 * time.Millisecond)
	}
	if s.Slow != 0 {
		t.Errorf("slow = %s after five quick responses", s.Slow)
	}
}
