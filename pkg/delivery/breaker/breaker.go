// Package breaker decides when an endpoint that keeps failing is left alone, and
// when it is tried again: a circuit breaker (M. Nygard, "Release It!", 2007). The
// transitions are pure (state, input, now → state); stores write what they return
// on condition that nobody has written in between. It promises that an open
// circuit lets one probe through at a time, that every open circuit is tried
// again, and that a success on a clean breaker changes nothing.
package breaker

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
)

// Phase is what a circuit lets through.
type Phase string

const (
	Closed Phase = "" // everything
	Open   Phase = "open"
	// Draining is closed, and the deliveries that waited are being let go.
	Draining Phase = "draining"
)

// Policy is when a circuit opens, and for how long. The zero value of a field
// means its default.
type Policy struct {
	Failures     int           // in a row until it opens; 1 to 100, default 5
	OpenFor      time.Duration // until the first probe; 1 s to 1 h, default 5 min
	MaxOpenFor   time.Duration // each failed probe doubles the wait, up to this; OpenFor to 24 h, default 1 h
	DisableAfter time.Duration // an endpoint that has only failed for so long is disabled; 1 h to 30 days, default 5 days
}

// The defaults of a Policy, from the design's table of rules.
const (
	DefaultFailures     = 5
	DefaultOpenFor      = 5 * time.Minute
	DefaultMaxOpenFor   = time.Hour
	DefaultDisableAfter = 5 * 24 * time.Hour
)

// Validate refuses values outside the bounds that Policy names.
func (p Policy) Validate() error {
	full := p.orDefaults()
	switch {
	case p.Failures < 0 || p.Failures > 100:
		return fmt.Errorf("breaker.failures is %d; it must be 1 to 100 (0 for the default, %d)", p.Failures, DefaultFailures)
	case p.OpenFor != 0 && (p.OpenFor < time.Second || p.OpenFor > time.Hour):
		return fmt.Errorf("breaker.open_for is %s; it must be 1s to 1h (0 for the default, %s)", p.OpenFor, DefaultOpenFor)
	case p.MaxOpenFor != 0 && (p.MaxOpenFor < full.OpenFor || p.MaxOpenFor > 24*time.Hour):
		return fmt.Errorf("breaker.max_open_for is %s; it must be %s (open_for) to 24h (0 for the default, %s)", p.MaxOpenFor, full.OpenFor, DefaultMaxOpenFor)
	case p.DisableAfter != 0 && (p.DisableAfter < time.Hour || p.DisableAfter > 30*24*time.Hour):
		return fmt.Errorf("breaker.disable_after is %s; it must be 1h to 720h (0 for the default, %s)", p.DisableAfter, DefaultDisableAfter)
	}
	return nil
}

func (p Policy) orDefaults() Policy {
	if p.Failures == 0 {
		p.Failures = DefaultFailures
	}
	if p.OpenFor == 0 {
		p.OpenFor = DefaultOpenFor
	}
	if p.MaxOpenFor == 0 {
		p.MaxOpenFor = max(DefaultMaxOpenFor, p.OpenFor)
	}
	if p.DisableAfter == 0 {
		p.DisableAfter = DefaultDisableAfter
	}
	return p
}

// State is one endpoint's breaker. The zero value, but for the ids, is a clean
// one. Times have millisecond precision.
type State struct {
	EndpointID string
	Tenant     string
	Phase      Phase
	// Failures counts those in a row, since the last success.
	Failures int
	// FailingSince is when the first of them was.
	FailingSince time.Time
	Cause        string // the latest failure, in one sentence

	Since time.Time     // when the phase began; zero for Closed
	Wait  time.Duration // Open: how long this time
	Until time.Time     // Open: when a probe may go
	// ProbeID names the claim that probes, until ProbeUntil, when its worker
	// counts as dead.
	ProbeID    string
	ProbeUntil time.Time

	// WakeAt is when somebody has to look after the circuit: to send a probe, or
	// to let the waiting go. Zero where there is nothing to look after.
	WakeAt time.Time

	// Slow is how long the endpoint's answers take, where that is long enough to
	// hold up others; zero where it is not.
	Slow time.Duration

	// Version grows with every stored change.
	Version int
	// WriteID names the latest change, unique among all workers. Two workers that
	// count a failure each make the same state of it; only this tells one that the
	// change it finds is not its own, and that its failure is still to be counted.
	WriteID string
}

// ErrConflict is the error of storing a breaker that somebody else has written in
// the meantime.
var ErrConflict = errors.New("the breaker was written by another worker in the meantime")

// ByWaking orders by the time at which somebody has to look, then by endpoint.
func ByWaking(a, b State) int {
	return cmp.Or(a.WakeAt.Compare(b.WakeAt), cmp.Compare(a.EndpointID, b.EndpointID))
}

// Clean reports whether a success has nothing to change.
func (s State) Clean() bool { return s.Phase == Closed && s.Failures == 0 }

// Word is the circuit's state in one word, for people: closed, open, half-open (a
// probe may go, or is under way) or draining.
func (s State) Word(now time.Time) string {
	switch {
	case s.Phase == Open && !now.Before(s.Until):
		return "half-open"
	case s.Phase == Closed:
		return "closed"
	}
	return string(s.Phase)
}

// Verdict is what becomes of a delivery that wants to be attempted.
type Verdict struct {
	Wait  bool      // it has to wait, at least until Until
	Probe bool      // it may go if it wins the probe (State.Probe)
	Until time.Time // with Wait
}

// Admit decides whether an attempt may begin now.
func (s State) Admit(now time.Time) Verdict {
	switch {
	case s.Phase != Open:
		return Verdict{}
	case now.Before(s.Until):
		return Verdict{Wait: true, Until: s.Until}
	case s.ProbeID != "" && now.Before(s.ProbeUntil):
		return Verdict{Wait: true, Until: s.ProbeUntil}
	}
	return Verdict{Probe: true}
}

// Probe takes the one probe for a claim, for as long as its lease. It reports
// false where there is none to be had.
func (s State) Probe(claimID string, now time.Time, lease time.Duration) (State, bool) {
	if !s.Admit(now).Probe {
		return s, false
	}
	s.ProbeID, s.ProbeUntil = claimID, now.Add(lease)
	s.WakeAt = s.ProbeUntil
	return s, true
}

// Unprobe gives a probe back that was not made, or whose outcome said nothing
// about the endpoint. It reports whether anything changed.
func (s State) Unprobe(claimID string, now time.Time) (State, bool) {
	if s.Phase != Open || s.ProbeID != claimID {
		return s, false
	}
	s.ProbeID, s.ProbeUntil = "", time.Time{}
	s.WakeAt = now
	return s, true
}

// Counts reports whether an outcome says something about the endpoint, and not
// only about the message, the address or our own worker.
func Counts(c delivery.Class) bool {
	switch c {
	case delivery.TooLarge, delivery.Invalid, delivery.Gone, delivery.Blocked, delivery.CalledOff, delivery.Lost:
		return false
	}
	return true
}

// Failed says what followed from a failure.
type Failed struct {
	Changed bool
	Opened  bool // the circuit opened, or opened again
	Disable bool // the endpoint has only failed for as long as the policy allows
}

// Failure takes note of a failed attempt. What ends while the circuit is open
// and was not the probe had begun before: it changes nothing.
func (s State) Failure(p Policy, claimID, cause string, now time.Time) (State, Failed) {
	p = p.orDefaults()
	switch {
	case s.Phase == Open && s.ProbeID != claimID:
		return s, Failed{}
	case s.Phase == Open:
		s.Wait = min(2*s.Wait, p.MaxOpenFor)
	default:
		s.Wait = p.OpenFor
	}
	if s.Failures == 0 {
		s.FailingSince = now
	}
	s.Failures++
	s.Cause = cause
	f := Failed{Changed: true}
	if s.Phase == Open || s.Failures >= p.Failures {
		if s.Phase != Open {
			s.Phase, s.Since = Open, now
		}
		s.ProbeID, s.ProbeUntil = "", time.Time{}
		s.Until = now.Add(s.Wait)
		s.WakeAt = s.Until
		f.Opened = true
		f.Disable = !now.Before(s.FailingSince.Add(p.DisableAfter))
	} else {
		s.Wait = 0
	}
	return s, f
}

// Success takes note of a delivered attempt and reports whether anything
// changed. The probe's success closes the circuit; another's, which had begun
// before it opened, only says that the endpoint has not failed all the time.
func (s State) Success(claimID string, now time.Time) (State, bool) {
	switch {
	case s.Clean():
		return s, false
	case s.Phase == Open && s.ProbeID != claimID:
		if s.FailingSince.Equal(now) {
			return s, false
		}
		s.FailingSince = now
		return s, true
	case s.Phase == Open:
		return s.Close(now), true
	case s.Failures == 0: // draining
		return s, false
	}
	s.Failures, s.FailingSince, s.Cause = 0, time.Time{}, ""
	return s, true
}

// Close closes the circuit, whatever it was, and lets go what waits.
func (s State) Close(now time.Time) State {
	return State{
		EndpointID: s.EndpointID, Tenant: s.Tenant, Version: s.Version, Slow: s.Slow,
		Phase: Draining, Since: now, WakeAt: now,
	}
}

// Reset is a clean breaker: what it knew says nothing any more, because the
// endpoint was taken out of service.
func (s State) Reset() State {
	return State{EndpointID: s.EndpointID, Tenant: s.Tenant, Version: s.Version}
}

// SettleTime is how long a draining goes on at least: an index shows what was
// parked the moment before the circuit closed a little later.
const SettleTime = 10 * time.Second

// Drained ends the draining: nothing was found to wait any more. Within SettleTime
// it asks for another look instead.
func (s State) Drained(now time.Time) (State, bool) {
	if s.Phase != Draining {
		return s, false
	}
	if settled := s.Since.Add(SettleTime); now.Before(settled) {
		return s.Waking(settled)
	}
	s.Phase, s.Since, s.WakeAt = Closed, time.Time{}, time.Time{}
	return s, true
}

// Waking moves the time at which somebody has to look. It reports whether
// anything changed.
func (s State) Waking(at time.Time) (State, bool) {
	if s.WakeAt.IsZero() || s.WakeAt.Equal(at) {
		return s, false
	}
	s.WakeAt = at
	return s, true
}

// SlowAfter is how long an answer takes that counts as slow.
const SlowAfter = 2 * time.Second

// Took takes note of how long an answer took and reports whether that changed
// the picture. To spare writes it tells apart steps of a quarter.
func (s State) Took(took time.Duration) (State, bool) {
	if took < SlowAfter {
		if s.Slow == 0 {
			return s, false
		}
		// One quick answer does not make it quick: halve.
		if s.Slow /= 2; s.Slow < SlowAfter {
			s.Slow = 0
		}
		return s, true
	}
	took = took.Truncate(time.Millisecond)
	if took > s.Slow*5/4 || took < s.Slow*3/4 {
		s.Slow = took
		return s, true
	}
	return s, false
}
