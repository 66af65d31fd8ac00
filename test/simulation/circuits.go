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
	closedOut = "an open circuit lets nothing through"    // but what was under way, and its probe
	oneProbe  = "one probe at a time"                     // over all workers, and not before its time
	patience  = "a circuit opens after failures in a row" // and not before
	opens     = "failures in a row open the circuit"
	closes    = "a probe that succeeds closes the circuit"
	doubled   = "a failed probe doubles the wait"
	disabling = "an endpoint is disabled with a right reason"
	spaced    = "no more starts than burst + rate·t"
)

// side is what is known of an endpoint's circuit and limit, from its receiver's
// side and from the store's.
type side struct {
	state  breaker.State
	opened time.Time // when the store had it open
	clean  time.Time // when the store last had it without failures

	failures   []time.Time // ends of attempts that count against the endpoint
	success    time.Time   // end of the last that succeeded
	fault      time.Time   // when something last went wrong with a circuit's read or write
	streak     int         // failures in a row that nothing can have kept from being counted
	streakFrom time.Time

	probe     *attempt  // the latest
	probes    int       // that failed since the circuit opened
	nextProbe time.Time // not before

	starts []time.Time
	gone   bool // it said so
}

func (j *judge) side(endpointID string) *side {
	x := j.sides[endpointID]
	if x == nil {
		x = &side{clean: j.s.start}
		j.sides[endpointID] = x
	}
	return x
}

// lag is for how long after a circuit's change a worker may go on as it was: what
// it has read it uses for a moment, and then it may wait for its slot, or for the
// others of its batch.
func (j *judge) lag() time.Duration {
	if j.s.plan.faults.slow > 0 {
		return dispatchTimeout
	}
	return dispatch.CircuitTime + maxLag + 5*time.Second + j.tolerance()
}

func (j *judge) breakerFault(endpointID string) func(string) {
	return func(string) { j.side(endpointID).fault = time.Now() }
}

// policies are the bounds of all breaker policies that an endpoint has had.
func (j *judge) policies(endpointID string) (openFor, maxOpenFor, disableAfter time.Duration, least, most int) {
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
		least, most = min(least, failures), max(most, failures)
	}
	return openFor, maxOpenFor, disableAfter, least, most
}

// circuit is when the store has a circuit's new state.
func (j *judge) circuit(before, after breaker.State) {
	key, now := delivery.Key{EndpointID: after.EndpointID}, time.Now()
	x := j.side(after.EndpointID)
	x.state = after
	openFor, maxOpenFor, _, least, _ := j.policies(after.EndpointID)
	if after.Failures > 0 {
		// Those that ended before the count began may be reported late.
		from, seen := x.clean.Add(-j.lag()-dispatchTimeout), 0
		for _, at := range x.failures {
			if !at.Before(from) {
				seen++
			}
		}
		if after.Failures > seen {
			j.broken(patience, key, "the circuit counts %d failures and the receiver saw %d since the circuit was clean", after.Failures, seen)
		}
	}
	if before.Phase != breaker.Open && after.Phase == breaker.Open {
		j.s.Counts.Opened++
		x.opened, x.probe, x.probes, x.streak = now, nil, 0, 0
		x.nextProbe = now.Add(openFor - 2*j.lag())
		if j.s.plan.faults.slow == 0 {
			x.nextProbe = now.Add(openFor - time.Second) // its write took no longer
		}
		if after.Failures < least {
			j.broken(patience, key, "the circuit opened after %d failures; the policy says %d", after.Failures, least)
		}
	}
	if before.Phase == breaker.Open && after.Phase == breaker.Open && after.Failures > before.Failures {
		// Its probe has failed.
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

// start looks at the beginning of an attempt.
func (j *judge) start(a *attempt) {
	x, now := j.side(a.key.EndpointID), time.Now()
	if x.state.Phase == breaker.Open {
		switch a.probe = a.claimID != "" && a.claimID == x.state.ProbeID; {
		case !a.probe && now.Sub(x.opened) > j.lag():
			j.broken(closedOut, a.key, "%s attempts, not as the probe; the circuit has been open for %s", a.w, now.Sub(x.opened))
		case a.probe:
			j.s.Counts.Probes++
			if before := x.probe; before != nil && before != a && before.ended.IsZero() {
				j.broken(oneProbe, a.key, "%s probes while the probe of %s (%s) is under way", a.w, before.w, before.key)
			}
			if now.Before(x.nextProbe.Add(-j.tolerance())) {
				invariant := oneProbe
				if x.probe != nil {
					invariant = doubled
				}
				j.broken(invariant, a.key, "%s probes %s too early", a.w, x.nextProbe.Sub(now))
			}
			x.probe = a
		}
	}
	j.pace(a, x)
}

// pace holds the starts against the limit.
func (j *judge) pace(a *attempt, x *side) {
	now := time.Now()
	// A limit that is changed begins anew, and slots of the one before are still out:
	// what an endpoint ever had adds up.
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
			j.broken(spaced, a.key, "%d attempts began in %s; burst %d and %d a minute allow %.2f", n, now.Sub(from), limit.Burst, limit.PerMinute, allowed)
			return
		}
	}
}

// stop looks at the end of an attempt whose worker lives.
func (j *judge) stop(a *attempt) {
	id, now := a.key.EndpointID, time.Now()
	x := j.side(id)
	_, _, _, _, most := j.policies(id)
	wait := 20*time.Second + j.lag()
	since := x.state.Since
	// A read that was slow before the attempt ended may hold its report up.
	faultless := func() bool { return !a.w.dead && !x.fault.After(now.Add(-dispatchTimeout)) && len(a.excuses) == 0 }
	switch {
	case a.outcome.Class == delivery.Success:
		x.success, x.streak = now, 0
		if a.probe {
			j.s.after(wait, func() {
				if faultless() && x.state.Phase == breaker.Open && x.state.Since.Equal(since) {
					j.broken(closes, a.key, "the probe of %s succeeded %s ago, and the circuit is still open", a.w, wait)
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
		if x.streak++; x.streak == 1 {
			x.streakFrom = now
		}
		from, streak := x.streakFrom, x.streak
		j.s.after(wait, func() {
			if !faultless() {
				// It may not have been counted: begin anew.
				x.fault, x.streak = time.Now(), 0
				return
			}
			if streak >= most && x.streak >= streak && x.streakFrom.Equal(from) && x.opened.Before(from) && !x.success.After(from.Add(-wait)) {
				j.broken(opens, a.key, "%d attempts in a row have failed since %s, and the circuit is not open", streak, clock(from.Sub(j.s.start)))
			}
		})
	}
}

// disabled is when the store has an endpoint disabled that was not.
func (j *judge) disabled(e endpoint.Endpoint, reason string) {
	key, x := delivery.Key{EndpointID: e.ID}, j.side(e.ID)
	if !strings.HasPrefix(reason, "it has only failed since") {
		if !x.gone {
			j.broken(disabling, key, "it was disabled (%s), and its receiver never answered 410", reason)
		}
		return
	}
	_, _, after, _, _ := j.policies(e.ID)
	if failing := time.Since(x.success); failing < after-j.lag()-dispatchTimeout && !x.fault.After(x.success.Add(-time.Minute)) {
		j.broken(disabling, key, "it was disabled (%s), and its receiver took an attempt %s ago", reason, failing)
	}
}
