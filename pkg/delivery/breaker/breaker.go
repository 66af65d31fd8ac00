// Package breaker is the circuit breaker of an endpoint (M. Nygard, "Release It!",
// 2007): it stops attempts at an endpoint that keeps failing, and probes it later.
// The transitions are pure functions (state, input, now → state); a store writes the
// result only if no other worker has written since the read. It promises that an
// open circuit allows one probe at a time, that every open circuit is probed again,
// and that a success on a clean breaker changes nothing, so it needs no write.
package breaker

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
)

// Phase is the phase of a circuit.
type Phase string

const (
	Closed Phase = ""     // attempts are allowed
	Open   Phase = "open" // no attempts but one probe at a time, after Until
	// Draining allows attempts, like Closed, while the endpoint has a backlog.
	Draining Phase = "draining"
)

// Policy says when a circuit opens and for how long. A zero field means its
// default.
type Policy struct {
	Failures     int           // consecutive failures until the circuit opens; 1 to 100, default 5
	FailingFor   time.Duration // minimum time from the first to the last of them; 1 ms to 1 h, default 10 s
	OpenFor      time.Duration // time until the first probe; 1 s to 1 h, default 10 s
	MaxOpenFor   time.Duration // each failed probe doubles OpenFor, up to this; OpenFor to 24 h, default 1 h
	DisableAfter time.Duration // time of failures only until the endpoint is disabled; 1 h to 30 days, default 5 days
}

// The defaults of a Policy.
const (
	DefaultFailures     = 5
	DefaultFailingFor   = 10 * time.Second
	DefaultOpenFor      = 10 * time.Second
	DefaultMaxOpenFor   = time.Hour
	DefaultDisableAfter = 5 * 24 * time.Hour
)

// Validate checks the bounds that Policy documents.
func (p Policy) Validate() error {
	full := p.orDefaults()
	switch {
	case p.Failures < 0 || p.Failures > 100:
		return fmt.Errorf("breaker.failures is %d; it must be 1 to 100 (0 for the default, %d)", p.Failures, DefaultFailures)
	case p.FailingFor != 0 && (p.FailingFor < time.Millisecond || p.FailingFor > time.Hour):
		return fmt.Errorf("breaker.failing_for is %s; it must be 1ms to 1h (0 for the default, %s)", p.FailingFor, DefaultFailingFor)
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
	if p.FailingFor == 0 {
		p.FailingFor = DefaultFailingFor
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

// State is the breaker of one endpoint. A value with only the ids set is a clean
// breaker. Times have millisecond precision.
type State struct {
	EndpointID string
	Tenant     string
	Phase      Phase
	// Failures counts those in a row, since the last success. While the circuit is closed
	// it stops at the policy's limit, so that an outage does not write every failure.
	Failures int
	// FailingSince is when the first of them happened, or the first after the endpoint had
	// been quiet.
	FailingSince time.Time
	FailedAt     time.Time // the latest failure, to the minute
	Cause        string    // the latest failure, in one sentence

	Since   time.Time     // when the phase began; zero for Closed
	OpenFor time.Duration // Open: how long this time
	Until   time.Time     // Open: when a probe may go
	// ProbeID identifies the claim that is probing. Its worker counts as dead after
	// ProbeUntil.
	ProbeID    string
	ProbeUntil time.Time

	// WakeAt is when somebody has to act on the endpoint: send a probe, or drain the
	// backlog. Zero if there is nothing to do. It is the wake-up of all deliveries in
	// the backlog.
	WakeAt time.Time

	// Drain is the progress of the drain; zero unless the phase is Draining.
	Drain Drain

	// SlowUntil is until when the endpoint's deliveries use the slow lane; zero if its
	// attempts have never been slow. It does not depend on the phase.
	SlowUntil time.Time
	// SlowSince is since when they do without a break; only as long as Slow.
	SlowSince time.Time

	// Version grows with every stored change.
	Version int
	// WriteID identifies the latest change and is unique among all workers. Two
	// workers that each count one failure compute the same state; only the WriteID
	// tells a worker that the stored change is not its own, so that its failure still
	// has to be counted.
	WriteID string
}

// ErrConflict is returned when another worker has stored the breaker since it was
// read. Read it again and repeat the change.
var ErrConflict = errors.New("the breaker was written by another worker in the meantime")

// ErrUnreadable is returned with a clean breaker for one that is stored and cannot be
// decoded. The next change replaces it.
var ErrUnreadable = errors.New("the stored breaker cannot be decoded")

// CompareWakeAt orders by WakeAt, then by endpoint.
func CompareWakeAt(a, b State) int {
	return cmp.Or(a.WakeAt.Compare(b.WakeAt), cmp.Compare(a.EndpointID, b.EndpointID))
}

// Clean reports whether a success would change nothing.
func (s State) Clean() bool { return s.Phase == Closed && s.Failures == 0 }

// Label is the circuit's state as shown to people: closed, open, half-open (a probe
// is allowed or in progress) or draining.
func (s State) Label(now time.Time) string {
	switch {
	case s.Phase == Open && !now.Before(s.Until):
		return "half-open"
	case s.Phase == Closed:
		return "closed"
	}
	return string(s.Phase)
}

// Admission is the answer to whether an attempt may begin. The zero value allows it.
type Admission struct {
	Wait  bool      // the attempt must wait, at least until Until
	Probe bool      // the attempt may begin if it claims the probe (State.ClaimProbe)
	Until time.Time // with Wait
}

// Admit decides whether an attempt may begin now.
func (s State) Admit(now time.Time) Admission {
	switch {
	case s.Phase != Open:
		return Admission{}
	case now.Before(s.Until):
		return Admission{Wait: true, Until: s.Until}
	case s.ProbeID != "" && now.Before(s.ProbeUntil):
		return Admission{Wait: true, Until: s.ProbeUntil}
	}
	return Admission{Probe: true}
}

// ClaimProbe claims the circuit's probe for the duration of a lease. It reports
// false if no probe is allowed now.
func (s State) ClaimProbe(claimID string, now time.Time, lease time.Duration) (State, bool) {
	if !s.Admit(now).Probe {
		return s, false
	}
	s.ProbeID, s.ProbeUntil = claimID, now.Add(lease)
	s.WakeAt = s.ProbeUntil
	return s, true
}

// ReleaseProbe releases a probe that was not sent, or whose outcome says nothing
// about the endpoint, so that another worker can probe at once. It reports whether
// the state changed.
func (s State) ReleaseProbe(claimID string, now time.Time) (State, bool) {
	if s.Phase != Open || s.ProbeID != claimID {
		return s, false
	}
	s.ProbeID, s.ProbeUntil = "", time.Time{}
	s.WakeAt = now
	return s, true
}

// ConcernsEndpoint reports whether an outcome says something about the endpoint's
// health, rather than about the message, the address or our own worker.
func ConcernsEndpoint(c delivery.Class) bool {
	switch c {
	case delivery.TooLarge, delivery.Invalid, delivery.Gone, delivery.Blocked, delivery.CalledOff, delivery.Lost:
		return false
	}
	return true
}

// FailureResult is what a failure changed.
type FailureResult struct {
	Changed bool
	Opened  bool // the circuit opened, or opened again
	Disable bool // the endpoint has failed throughout Policy.DisableAfter
}

// quietAfter is the time without an attempt after which an endpoint counts as quiet.
// Silence is no failure: an endpoint is disabled only if it has failed throughout.
const quietAfter = 12 * time.Hour

// quiet reports whether the endpoint got no attempt for so long that earlier failures do
// not count towards disabling it. While its circuit was open, it could get none.
func (s State) quiet(p Policy, now time.Time) bool {
	last := s.FailedAt
	if s.Phase == Open {
		last = s.Until
	}
	return !s.FailedAt.IsZero() && now.Sub(last) > min(quietAfter, p.DisableAfter/2)
}

// RecordFailure records a failed attempt. The circuit opens when there were enough
// failures in a row and they span Policy.FailingFor: many failures within a second are
// a blip, which retries get over. While the circuit is open, only the probe's failure
// counts: other attempts began before it opened.
func (s State) RecordFailure(p Policy, claimID, cause string, now time.Time) (State, FailureResult) {
	p = p.orDefaults()
	was, quiet := s, s.quiet(p, now)
	switch {
	case s.Phase == Open && s.ProbeID != claimID:
		return s, FailureResult{}
	case s.Phase == Open:
		s.OpenFor = min(2*s.OpenFor, p.MaxOpenFor)
	default:
		s.OpenFor = p.OpenFor
	}
	if s.Failures == 0 || quiet {
		s.FailingSince = now
	}
	opens := s.Phase == Open || s.Failures+1 >= p.Failures && now.Sub(s.FailingSince) >= p.FailingFor
	if !opens && s.Failures >= p.Failures && s.FailedAt.Equal(now.Truncate(time.Minute)) {
		return was, FailureResult{}
	}
	if s.Phase == Open || s.Failures < p.Failures {
		s.Failures++
	}
	s.FailedAt, s.Cause = now.Truncate(time.Minute), cause
	f := FailureResult{Changed: true}
	if opens {
		s.Drain = Drain{}
		if s.Phase != Open {
			s.Phase, s.Since = Open, now
		}
		s.ProbeID, s.ProbeUntil = "", time.Time{}
		s.Until = now.Add(s.OpenFor)
		s.WakeAt = s.Until
		f.Opened = true
		f.Disable = !now.Before(s.FailingSince.Add(p.DisableAfter))
	} else {
		s.OpenFor = 0
	}
	return s, f
}

// RecordSuccess records a delivered attempt and reports whether the state changed.
// The probe's success closes an open circuit. The success of an attempt that began
// before the circuit opened only restarts the period after which the endpoint is
// disabled.
func (s State) RecordSuccess(claimID string, now time.Time) (State, bool) {
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
	s.Failures, s.FailingSince, s.FailedAt, s.Cause = 0, time.Time{}, time.Time{}, ""
	return s, true
}

// Close closes the circuit, whatever its phase, and starts draining the backlog.
func (s State) Close(now time.Time) State {
	return State{
		EndpointID: s.EndpointID, Tenant: s.Tenant, Version: s.Version,
		Phase: Draining, Since: now, WakeAt: now, Drain: beginDrain(now), SlowUntil: s.SlowUntil, SlowSince: s.SlowSince,
	}
}

// Reset returns a clean breaker, for an endpoint that was disabled: its earlier
// failures say nothing about the time after it is enabled again.
func (s State) Reset() State {
	return State{EndpointID: s.EndpointID, Tenant: s.Tenant, Version: s.Version}
}

// SetWakeAt moves WakeAt, if one is set. It reports whether the state changed.
func (s State) SetWakeAt(at time.Time) (State, bool) {
	if s.WakeAt.IsZero() || s.WakeAt.Equal(at) {
		return s, false
	}
	s.WakeAt = at
	return s, true
}
