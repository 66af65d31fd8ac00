package simulation

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
)

// network has the receivers.
type network struct {
	s         *sim
	receivers map[string]*receiver // by endpoint
}

func newNetwork(s *sim) *network { return &network{s: s, receivers: map[string]*receiver{}} }

// attempt is an attempt as its receiver sees it.
type attempt struct {
	w        *worker
	key      delivery.Key
	body     []byte
	sent     time.Time // by the worker
	deadline time.Time // of the worker
	arrived  time.Time // zero if it did not
	ended    time.Time // zero while in flight
	outcome  delivery.Outcome
	finish   func(delivery.Outcome)
	planned  *scheduled
	claimID  string
	probe    bool // of its endpoint's circuit

	took    bool           // the receiver got it
	works   time.Time      // until then the receiver works on it
	acked   bool           // and a living worker got the response
	stored  delivery.State // stored verdict
	excuses []string       // faults that may have prevented the write of its verdict
}

// excuse records a fault. A nil attempt never began.
func (a *attempt) excuse(why string) {
	if a != nil {
		a.excuses = append(a.excuses, why)
	}
}

// behaviour is how a receiver behaves for a while.
type behaviour string

const (
	up         behaviour = "up"
	refuses    behaviour = "refuses connections"
	hangs      behaviour = "hangs"
	fails      behaviour = "answers 500"
	throttles  behaviour = "answers 429"
	flaps      behaviour = "flaps"
	slow       behaviour = "is slow"
	drags      behaviour = "takes five seconds"
	lies       behaviour = "takes it and breaks the connection"
	unwilling  behaviour = "answers 410"
	overloaded behaviour = "answers 503 with Retry-After"
)

// receiver is the receiver of one endpoint.
type receiver struct {
	behaviours []period // in chronological order
}

type period struct {
	from      time.Time
	behaviour behaviour
}

func (r *receiver) at(now time.Time) behaviour {
	m := up
	for _, s := range r.behaviours {
		if s.from.After(now) {
			break
		}
		m = s.behaviour
	}
	return m
}

// upSince returns since when the receiver has been healthy, if it is.
func (r *receiver) upSince(now time.Time) (since time.Time, well bool) {
	for _, s := range r.behaviours {
		if s.from.After(now) {
			break
		}
		if s.behaviour == up {
			if !well {
				since, well = s.from, true
			}
		} else {
			well = false
		}
	}
	return since, well
}

// begin sends an attempt.
func (n *network) begin(a *attempt, o *ioCall, outcome *delivery.Outcome) {
	s := n.s
	a.finish = func(out delivery.Outcome) {
		*outcome = out
		o.finish(nil)
	}
	s.checker.sent(a)
	a.w.sends = append(a.w.sends, a)
	arrives := time.Now().Add(s.between(time.Millisecond, 30*time.Millisecond))
	if s.faulty(s.plan.faults.slow) {
		arrives = arrives.Add(s.between(0, 20*time.Second))
	}
	if !arrives.Before(a.deadline) {
		a.planned = s.at(a.deadline, func() {
			n.end(a, delivery.Outcome{Class: delivery.Timeout, Error: "no connection in time"})
		})
		return
	}
	a.planned = s.at(arrives, func() { n.arrive(a) })
}

// arrive has the receiver handle the attempt.
func (n *network) arrive(a *attempt) {
	s := n.s
	r := n.receivers[a.key.EndpointID]
	m := r.at(time.Now())
	if m == flaps {
		m = up
		if s.chance(0.5) {
			m = fails
		}
	}
	if m == refuses {
		n.end(a, delivery.Outcome{Class: delivery.Connect, Error: "connection refused"})
		return
	}
	a.arrived = time.Now()
	s.checker.arrived(a)
	s.note(a.key, "receiver sees an attempt of %s and %s", a.w, m)
	takes := s.between(5*time.Millisecond, 300*time.Millisecond)
	out := delivery.Outcome{Class: delivery.Answered, Status: 500, Error: "the receiver answered 500"}
	switch m {
	case up:
		out = delivery.Outcome{Class: delivery.Success, Status: 200}
	case slow:
		out, takes = delivery.Outcome{Class: delivery.Success, Status: 200}, s.between(time.Second, 14*time.Second)
	case drags:
		out, takes = delivery.Outcome{Class: delivery.Success, Status: 200}, 5*time.Second
	case hangs:
		takes = time.Hour
	case lies:
		out = delivery.Outcome{Class: delivery.Protocol, Error: "the connection broke before the answer"}
	case throttles:
		out = delivery.Outcome{Class: delivery.Throttled, Status: 429, Error: "the receiver answered 429", RetryAfter: s.hint()}
	case overloaded:
		out = delivery.Outcome{Class: delivery.Answered, Status: 503, Error: "the receiver answered 503", RetryAfter: s.hint()}
	case unwilling:
		out = delivery.Outcome{Class: delivery.Gone, Status: 410, Error: "the receiver answered 410"}
	}
	ends := time.Now().Add(takes)
	if !ends.Before(a.deadline) {
		ends, out = a.deadline, delivery.Outcome{Class: delivery.Timeout, Error: "no answer in time"}
		// The receiver may or may not have processed it.
		a.took = m == slow && s.chance(0.5)
	}
	// It goes on working after the connection was closed, or for as long as it hangs.
	a.works = ends
	if m == slow || m == hangs || m == lies {
		a.works = a.arrived.Add(takes)
		if s.chance(0.3) {
			a.works = a.works.Add(s.between(0, 2*time.Minute))
		}
	}
	a.planned = s.at(ends, func() {
		if out.Class == delivery.Success || m == lies {
			a.took = true
		}
		n.end(a, out)
	})
}

// hint returns a Retry-After, plausible in most cases.
func (s *sim) hint() time.Duration {
	if s.chance(0.1) {
		return 30 * time.Hour
	}
	return s.between(0, 2*time.Hour).Truncate(time.Second)
}

// end gives the worker the response or timeout.
func (n *network) end(a *attempt, out delivery.Outcome) {
	s := n.s
	a.ended, a.outcome = time.Now(), out
	a.acked = out.Class == delivery.Success
	if out.Timings.Total = a.ended.Sub(a.sent); out.Timings.Total == 0 {
		out.Timings.Total = time.Nanosecond
	}
	n.forget(a)
	s.mark("attempt", a.key.EndpointID, a.key.EventID, string(out.Class))
	s.note(a.key, "%s attempt ends: %s %s (took %s)", a.w, out.Class, out.Error, out.Timings.Total.Truncate(time.Millisecond))
	s.checker.stop(a)
	if s.faulty(s.plan.faults.kill) {
		a.w.kill(fmt.Sprintf("killed with the answer (%s) in its hands", out.Class))
	}
	if a.w.dead {
		a.excuse("its worker died")
	}
	a.finish(out)
}

// cut ends the attempt of a killed worker.
func (n *network) cut(a *attempt, why string) {
	n.s.cancel(a.planned)
	if a.arrived.IsZero() && n.s.chance(0.3) {
		// The request is on its way.
		n.s.after(n.s.between(0, 5*time.Second), func() { n.late(a) })
	}
	a.ended, a.outcome = time.Now(), delivery.Outcome{Class: delivery.Lost}
	a.excuse("its worker died during it")
	if !a.arrived.IsZero() && n.s.chance(0.5) {
		a.took = true // the receiver may have processed it
	}
	n.forget(a)
	n.s.note(a.key, "%s dies during its attempt: %s", a.w, why)
	a.finish(a.outcome)
}

// late has the receiver handle a request whose worker died while it was on its way.
func (n *network) late(a *attempt) {
	if m := n.receivers[a.key.EndpointID].at(time.Now()); m == refuses {
		return
	} else if m == up || m == slow || m == lies {
		a.took = true
	}
	a.arrived = time.Now()
	a.works = a.arrived.Add(n.s.between(0, time.Minute))
	n.s.checker.arrived(a)
	n.s.note(a.key, "receiver sees an attempt of %s, which is dead", a.w)
}

func (n *network) forget(a *attempt) {
	a.w.sends = slices.DeleteFunc(a.w.sends, func(b *attempt) bool { return a == b })
}

// sameBody reports whether the receiver got the accepted body.
func (a *attempt) sameBody(want []byte) bool { return bytes.Equal(a.body, want) }
