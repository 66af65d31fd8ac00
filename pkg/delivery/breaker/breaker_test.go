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

// failing is a breaker after n failures in a row, a third of the default span apart.
func failing(n int, p breaker.Policy) breaker.State {
	s, _ := failures(n, breaker.DefaultFailingFor/3, p)
	return s
}

// failures is a breaker after n failures in a row, and how many of them changed it.
func failures(n int, apart time.Duration, p breaker.Policy) (s breaker.State, changes int) {
	for i := range n {
		var f breaker.FailureResult
		if s, f = s.RecordFailure(p, "c", "answered 503", start.Add(time.Duration(i)*apart)); f.Changed {
			changes++
		}
	}
	return s, changes
}

func TestACircuitOpensAfterConsecutiveFailuresThatSpanItsMinimum(t *testing.T) {
	for name, c := range map[string]struct {
		policy   breaker.Policy
		failures int
		apart    time.Duration
		open     bool
		changes  int // only these are written
	}{
		"the default":                           {breaker.Policy{}, 5, 2500 * time.Millisecond, true, 5},
		"one less":                              {breaker.Policy{}, 4, time.Minute, false, 4},
		"a span that is too short by 4 ms":      {breaker.Policy{}, 5, 2499 * time.Millisecond, false, 5},
		"a blip of a second at 50/s":            {breaker.Policy{}, 51, 20 * time.Millisecond, false, 5},
		"an outage of ten seconds at 50/s":      {breaker.Policy{}, 501, 20 * time.Millisecond, true, 6},
		"three failures, one less":              {breaker.Policy{Failures: 3}, 2, time.Minute, false, 2},
		"three failures":                        {breaker.Policy{Failures: 3}, 3, 5 * time.Second, true, 3},
		"one failure spans nothing":             {breaker.Policy{Failures: 1}, 1, time.Second, false, 1},
		"two, of which one is enough":           {breaker.Policy{Failures: 1}, 2, 10 * time.Second, true, 2},
		"a policy's longer span, too short":     {breaker.Policy{FailingFor: time.Minute}, 59, time.Second, false, 5},
		"a policy's longer span":                {breaker.Policy{FailingFor: time.Minute}, 61, time.Second, true, 6},
		"a policy's shortest span":              {breaker.Policy{FailingFor: time.Millisecond}, 5, time.Millisecond, true, 5},
		"a span of minutes: one write a minute": {breaker.Policy{FailingFor: time.Hour}, 180, time.Second, false, 7},
	} {
		t.Run(name, func(t *testing.T) {
			s, changes := failures(c.failures, c.apart, c.policy)
			if got := s.Phase == breaker.Open; got != c.open || changes != c.changes {
				t.Errorf("open = %t after %d failures with %d changes, want %t with %d", got, c.failures, changes, c.open, c.changes)
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
	for _, want := range []time.Duration{10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600} {
		if s.OpenFor != want*time.Second || !s.Until.Equal(s.WakeAt) {
			t.Fatalf("open for %s until %s, wake at %s; want %d seconds", s.OpenFor, s.Until, s.WakeAt, want)
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

// An event fails until its circuit opens, nothing happens for days, and the next event
// fails once.
func TestSilenceIsNoFailure(t *testing.T) {
	for name, c := range map[string]struct {
		policy   breaker.Policy
		silence  time.Duration
		disabled bool
	}{
		"four silent days after a day of failures": {breaker.Policy{}, 4 * 24 * time.Hour, false},
		"a silent month":                             {breaker.Policy{}, 30 * 24 * time.Hour, false},
		"hourly probes that fail":                    {breaker.Policy{}, 0, true},
		"daily probes, which the policy asks for":    {breaker.Policy{OpenFor: time.Hour, MaxOpenFor: 24 * time.Hour}, 0, true},
		"silence of an hour, disabled after an hour": {breaker.Policy{DisableAfter: time.Hour}, time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := failing(5, c.policy)
			disabled := false
			probe := func(now time.Time) {
				s, _ = s.ClaimProbe("p", now, lease)
				var f breaker.FailureResult
				s, f = s.RecordFailure(c.policy, "p", "x", now)
				disabled = disabled || f.Disable
			}
			if c.silence > 0 {
				probe(s.Until.Add(c.silence))
			} else {
				for s.Until.Before(start.Add(8 * 24 * time.Hour)) {
					probe(s.Until)
				}
			}
			if disabled != c.disabled {
				t.Errorf("disabled: %v, want %v", disabled, c.disabled)
			}
		})
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
		"maximum":                 {breaker.Policy{Failures: 100, FailingFor: time.Hour, OpenFor: time.Hour, MaxOpenFor: 24 * time.Hour, DisableAfter: 30 * 24 * time.Hour}, true},
		"minimum":                 {breaker.Policy{Failures: 1, FailingFor: time.Millisecond, OpenFor: time.Second, MaxOpenFor: time.Second, DisableAfter: time.Hour}, true},
		"negative failures":       {breaker.Policy{Failures: -1}, false},
		"too many failures":       {breaker.Policy{Failures: 101}, false},
		"a span of two hours":     {breaker.Policy{FailingFor: 2 * time.Hour}, false},
		"a span of a microsecond": {breaker.Policy{FailingFor: time.Microsecond}, false},
		"a negative span":         {breaker.Policy{FailingFor: -time.Second}, false},
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
		p := breaker.Policy{Failures: rapid.IntRange(1, 3).Draw(r, "failures"), FailingFor: 20 * time.Second, OpenFor: time.Minute, MaxOpenFor: 4 * time.Minute}
		var s breaker.State
		now := start
		probes := map[string]time.Time{} // in flight, until
		for range rapid.IntRange(1, 40).Draw(r, "transitions") {
			now = now.Add(time.Duration(rapid.IntRange(0, 90).Draw(r, "seconds")) * time.Second)
			id, was := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(r, "claim"), s
			switch rapid.SampledFrom([]string{"claim probe", "release probe", "failure", "success", "close", "hold", "step", "bad answer"}).Draw(r, "transition") {
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
			case "hold":
				s, _ = s.Hold(now)
			case "step":
				step := breaker.Step{Scan: s.Drain.Scan(now), Sent: rapid.IntRange(0, 1).Draw(r, "sent"), Done: rapid.Bool().Draw(r, "done"), Next: now.Add(time.Second)}
				if step.Sent > 0 {
					step.Last = step.After + "x"
				}
				s = s.Advance(step, now)
			case "bad answer":
				s, _ = s.AnsweredBadly(now)
			}
			if s.Drain.Rate < 0 || s.Drain.Rate > breaker.MaxRate || (s.Phase == breaker.Draining) != (s.Drain != breaker.Drain{}) {
				r.Fatalf("phase %q with drain %+v", s.Phase, s.Drain)
			}
			if s.Phase != breaker.Closed && s.WakeAt.IsZero() {
				r.Fatalf("no wake time: %+v", s)
			}
			if s.Phase == breaker.Open && (s.OpenFor < p.OpenFor || s.OpenFor > p.MaxOpenFor) {
				r.Fatalf("open for %s", s.OpenFor)
			}
			if s.Phase == breaker.Closed && s.Failures > p.Failures {
				r.Fatalf("closed after %d failures", s.Failures)
			}
			if was.Phase == breaker.Closed && s.Phase == breaker.Open && (s.Failures < p.Failures || now.Sub(s.FailingSince) < p.FailingFor) {
				r.Fatalf("opened after %d failures that span %s", s.Failures, now.Sub(s.FailingSince))
			}
		}
	})
}
