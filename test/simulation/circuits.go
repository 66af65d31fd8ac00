package simulation

import (
	"strings"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
)

// The invariants of circuits and rate limits.
const (
	closedOut = "an open circuit lets nothing through"    // except attempts in flight, and the probe
	oneProbe  = "one probe at a time"                     // over all workers
	patience  = "a circuit opens after failures in a row" // and not before
	opens     = "failures in a row open the circuit"
	closes    = "a probe that succeeds closes the circuit"
	doubled   = "a failed probe doubles the wait"
	disabling = "an endpoint is disabled with a right reason"
	spaced    = "no more starts than burst + rate·t"
)

// endpointLog is what the checker knows of an endpoint's circuit and rate limit, from
// the receiver and from the store.
type endpointLog struct {
	state  breaker.State
	opened time.Time // when the store had it as open
	clean  time.Time // when the store last had it without failures

	failures   []time.Time // ends of failed attempts that count
	success    time.Time   // end of the last success
	fault      time.Time   // last fault in a read or write of the circuit
	streak     int         // consecutive failures that must have been counted
	streakFrom time.Time

	probe     *attempt  // the latest
	probes    int       // failed ones since the circuit opened
	nextProbe time.Time // not before

	starts []time.Time // of late
	all    []time.Time // of all attempts
	phases []phaseChange
	drains []time.Time // claims of deliveries from the backlog
	gone   bool        // it answered 410
}

// phaseChange is when a circuit changed its phase.
type phaseChange struct {
	at    time.Time
	phase breaker.Phase
}

func (j *checker) endpointLog(endpointID string) *endpointLog {
	x := j.endpoints[endpointID]
	if x == nil {
		x = &endpointLog{clean: j.s.start}
		j.endpoints[endpointID] = x
	}
	return x
}

// lag is how long a worker may act on a circuit's former state: it caches what it
// read, and may then wait for its slot or for the rest of its batch.
func (j *checker) lag() time.Duration {
	if j.s.plan.faults.slow > 0 {
		return dispatchTimeout
	}
	return dispatch.CircuitTime + maxLag + 5*time.Second + j.tolerance()
}

func (j *checker) breakerFault(endpointID string) func(string) {
	return func(string) { j.endpointLog(endpointID).fault = time.Now() }
}

// policies returns the bounds of all breaker policies that an endpoint has had.
func (j *checker) policies(endpointID string) (openFor, maxOpenFor, disableAfter time.Duration, least, most int, span, longestSpan time.Duration) {
	span = time.Hour
	openFor, maxOpenFor, disableAfter, least = 24*time.Hour, 24*time.Hour, 30*24*time.Hour, 100
	for _, v := range j.past[endpointID] {
		if v.endpoint == nil {
			continue
		}
		p := v.endpoint.Breaker
		failures := p.Failures
		if failures == 0 {
			failures = breaker.DefaultFailures
		}
		wait := p.OpenFor
		if wait == 0 {
			wait = breaker.DefaultOpenFor
		}
		longest := p.MaxOpenFor
		if longest == 0 {
			longest = max(breaker.DefaultMaxOpenFor, wait)
		}
		after := p.DisableAfter
		if after == 0 {
			after = breaker.DefaultDisableAfter
		}
		openFor, maxOpenFor, disableAfter = min(openFor, wait), min(maxOpenFor, longest), min(disableAfter, after)
		failingFor := p.FailingFor
		if failingFor == 0 {
			failingFor = breaker.DefaultFailingFor
		}
		least, most = min(least, failures), max(most, failures)
		span, longestSpan = min(span, failingFor), max(longestSpan, failingFor)
	}
	return openFor, maxOpenFor, disableAfter, least, most, span, longestSpan
}

// circuit checks a circuit's new state in the store.
func (j *checker) circuit(before, after breaker.State) {
	key, now := delivery.Key{EndpointID: after.EndpointID}, time.Now()
	x := j.endpointLog(after.EndpointID)
	x.state = after
	if before.Phase != after.Phase {
		x.phases = append(x.phases, phaseChange{now, after.Phase})
	}
	openFor, maxOpenFor, _, least, _, span, _ := j.policies(after.EndpointID)
	if after.Failures > 0 {
		// Failures from before the count may be reported late.
		from, seen := x.clean.Add(-j.lag()-dispatchTimeout), 0
		for _, at := range x.failures {
			if !at.Before(from) {
				seen++
			}
		}
		if after.Failures > seen {
			j.violated(patience, key, "the circuit counts %d failures and the receiver saw %d since the circuit was clean", after.Failures, seen)
		}
	}
	if before.Phase != breaker.Open && after.Phase == breaker.Open {
		j.s.Counts.Opened++
		x.opened, x.probe, x.probes, x.streak = now, nil, 0, 0
		x.nextProbe = now.Add(openFor - 2*j.lag())
		if j.s.plan.faults.slow == 0 {
			x.nextProbe = now.Add(openFor - time.Second) // the write took less
		}
		if after.Failures < least {
			j.violated(patience, key, "the circuit opened after %d failures; the policy says %d", after.Failures, least)
		}
		if spans := after.Since.Sub(after.FailingSince); spans < span-j.tolerance() {
			j.violated(patience, key, "the circuit opened after failures that span %s; the policy says %s", spans, span)
		}
	}
	if before.Phase == breaker.Open && after.Phase == breaker.Open && after.Failures > before.Failures {
		// The probe failed.
		x.probes++
		if x.probe != nil && !x.probe.ended.IsZero() {
			x.nextProbe = x.probe.ended.Add(min(maxOpenFor, openFor<<min(x.probes, 20)))
		}
	}
	if after.Phase != breaker.Open {
		x.nextProbe, x.probe = time.Time{}, nil
	}
	if after.Failures == 0 {
		x.clean = now
	}
}

// start checks the start of an attempt against the circuit.
func (j *checker) start(a *attempt) {
	x, now := j.endpointLog(a.key.EndpointID), time.Now()
	x.all = append(x.all, now)
	if x.state.Phase == breaker.Open {
		switch a.probe = a.claimID != "" && a.claimID == x.state.ProbeID; {
		case !a.probe && now.Sub(x.opened) > j.lag():
			j.violated(closedOut, a.key, "%s attempts, not as the probe; the circuit has been open for %s", a.w, now.Sub(x.opened))
		case a.probe:
			j.s.Counts.Probes++
			if before := x.probe; before != nil && before != a && before.ended.IsZero() {
				j.violated(oneProbe, a.key, "%s probes while the probe of %s (%s) is in flight", a.w, before.w, before.key)
			}
			if now.Before(x.nextProbe.Add(-j.tolerance())) {
				invariant := oneProbe
				if x.probe != nil {
					invariant = doubled
				}
				j.violated(invariant, a.key, "%s probes %s too early", a.w, x.nextProbe.Sub(now))
			}
			x.probe = a
		}
	}
	j.pace(a, x)
}

// pace checks the starts against the rate limit.
func (j *checker) pace(a *attempt, x *endpointLog) {
	now := time.Now()
	// A changed limit starts anew while slots of the former one are still reserved, so
	// all limits that an endpoint has had add up.
	limit, had := ratelimit.Limit{}, map[string]bool{}
	for _, v := range j.past[a.key.EndpointID] {
		if v.endpoint == nil {
			continue
		}
		l := v.endpoint.Limit
		if !l.Enabled() {
			return // there was a time without a limit
		}
		key := l.Key(a.key.EndpointID)
		if had[key] {
			continue
		}
		had[key] = true
		if l.Burst == 0 {
			l.Burst = max(2, l.PerMinute/12)
		}
		limit.PerMinute, limit.Burst = limit.PerMinute+l.PerMinute, limit.Burst+l.Burst
	}
	if !limit.Enabled() {
		return
	}
	x.starts = append(x.starts, now)
	if len(x.starts) > 400 {
		x.starts = x.starts[200:]
	}
	for i, from := range x.starts {
		window := now.Sub(from) + j.tolerance()
		allowed := float64(limit.Burst) + window.Minutes()*float64(limit.PerMinute)
		if n := len(x.starts) - i; float64(n) > allowed+1e-6 {
			j.violated(spaced, a.key, "%d attempts began in %s; burst %d and %d a minute allow %.2f", n, now.Sub(from), limit.Burst, limit.PerMinute, allowed)
			return
		}
	}
}

// stop checks the effect of an attempt whose worker is alive.
func (j *checker) stop(a *attempt) {
	id, now := a.key.EndpointID, time.Now()
	x := j.endpointLog(id)
	_, _, disableAfter, _, most, _, span := j.policies(id)
	wait := 20*time.Second + j.lag()
	since := x.state.Since
	// A slow read from before the end of the attempt may delay its report.
	faultless := func() bool { return !a.w.dead && !x.fault.After(now.Add(-dispatchTimeout)) && len(a.excuses) == 0 }
	switch {
	case a.outcome.Class == delivery.Success:
		x.success, x.streak = now, 0
		if a.probe {
			j.s.after(wait, func() {
				if faultless() && x.state.Phase == breaker.Open && x.state.Since.Equal(since) {
					j.violated(closes, a.key, "the probe of %s succeeded %s ago, and the circuit is still open", a.w, wait)
				}
			})
		}
	case !breaker.ConcernsEndpoint(a.outcome.Class):
		x.gone = x.gone || a.outcome.Class == delivery.Gone
	default:
		x.failures = append(x.failures, now)
		if x.state.Phase == breaker.Open || a.sent.Before(x.success.Add(wait)) || a.sent.Before(x.fault.Add(wait)) {
			x.streak = 0
			return
		}
		quiet := false // the failures' span begins anew after hours of silence
		if n := len(x.failures); n > 1 {
			quiet = now.Sub(x.failures[n-2]) > min(12*time.Hour, disableAfter/2)-j.lag()
		}
		if x.streak++; x.streak == 1 || quiet {
			x.streakFrom = now
		}
		from, streak := x.streakFrom, x.streak
		j.s.after(wait, func() {
			if !faultless() {
				// It may not have been counted: start the streak again.
				x.fault, x.streak = time.Now(), 0
				return
			}
			if streak >= most && now.Sub(from) >= span+j.lag() && x.streak >= streak && x.streakFrom.Equal(from) && x.opened.Before(from) && !x.success.After(from.Add(-wait)) {
				j.violated(opens, a.key, "%d attempts in a row have failed since %s, and the circuit is not open", streak, clock(from.Sub(j.s.start)))
			}
		})
	}
}

// disabled checks that an endpoint was disabled for a correct reason.
func (j *checker) disabled(e endpoint.Endpoint, reason string) {
	key, x := delivery.Key{EndpointID: e.ID}, j.endpointLog(e.ID)
	if !strings.HasPrefix(reason, "it has only failed since") {
		if !x.gone {
			j.violated(disabling, key, "it was disabled (%s), but its receiver never answered 410", reason)
		}
		return
	}
	_, _, after, _, _, _, _ := j.policies(e.ID)
	if failing := time.Since(x.success); failing < after-j.lag()-dispatchTimeout && !x.fault.After(x.success.Add(-time.Minute)) {
		j.violated(disabling, key, "it was disabled (%s), but an attempt succeeded %s ago", reason, failing)
	}
}
