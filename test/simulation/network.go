package simulation

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
)

// network is where the receivers are.
type network struct {
	s         *sim
	receivers map[string]*receiver // by endpoint
}

func newNetwork(s *sim) *network { return &network{s: s, receivers: map[string]*receiver{}} }

// attempt is one, as its receiver sees it.
type attempt struct {
	w        *worker
	key      delivery.Key
	body     []byte
	sent     time.Time // when the worker began it
	deadline time.Time // when the worker ends it
	arrived  time.Time // zero if it never did
	ended    time.Time // zero while it is under way
	outcome  delivery.Outcome
	finish   func(delivery.Outcome)
	planned  *happening
	claimID  string
	probe    bool // of its endpoint's circuit

	took    bool           // the receiver has it
	acked   bool           // and a living worker knows
	stored  delivery.State // what its verdict was, when it was stored
	excuses []string       // faults that may have kept its verdict from being stored
}

// excuse notes a fault. A nil attempt is one that never began.
func (a *attempt) excuse(why string) {
	if a != nil {
		a.excuses = append(a.excuses, why)
	}
}

// mood is how a receiver behaves for a while.
type mood string

const (
	up         mood = "up"
	refuses    mood = "refuses connections"
	hangs      mood = "hangs"
	fails      mood = "answers 500"
	throttles  mood = "answers 429"
	flaps      mood = "flaps"
	slow       mood = "is slow"
	lies       mood = "takes it and breaks the connection"
	unwilling  mood = "answers 410"
	overloaded mood = "answers 503 with Retry-After"
)

// receiver is one endpoint's other end.
type receiver struct {
	moods []spell // in the order of time
}

type spell struct {
	from time.Time
	mood mood
}

func (r *receiver) at(now time.Time) mood {
	m := up
	for _, s := range r.moods {
		if s.from.After(now) {
			break
		}
		m = s.mood
	}
	return m
}

// upSince is when the receiver last became well; zero where it is not well.
func (r *receiver) upSince(now time.Time) (since time.Time, well bool) {
	for _, s := range r.moods {
		if s.from.After(now) {
			break
		}
		if s.mood == up {
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
func (n *network) begin(a *attempt, o *io, outcome *delivery.Outcome) {
	s := n.s
	a.finish = func(out delivery.Outcome) {
		*outcome = out
		o.finish(nil)
	}
	s.judge.sent(a)
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

// arrive is when the receiver sees it.
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
	s.note(a.key, "receiver sees an attempt of %s and %s", a.w, m)
	takes := s.between(5*time.Millisecond, 300*time.Millisecond)
	out := delivery.Outcome{Class: delivery.Answered, Status: 500, Error: "the receiver answered 500"}
	switch m {
	case up:
		out = delivery.Outcome{Class: delivery.Success, Status: 200}
	case slow:
		out, takes = delivery.Outcome{Class: delivery.Success, Status: 200}, s.between(time.Second, 14*time.Second)
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
		// Whether it was dealt with nobody knows.
		a.took = m == slow && s.chance(0.5)
	}
	a.planned = s.at(ends, func() {
		if out.Class == delivery.Success || m == lies {
			a.took = true
		}
		n.end(a, out)
	})
}

// hint is a Retry-After: a plausible one mostly.
func (s *sim) hint() time.Duration {
	if s.chance(0.1) {
		return 30 * time.Hour
	}
	return s.between(0, 2*time.Hour).Truncate(time.Second)
}

// end is when the worker has its answer, or gives up.
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
	s.judge.stop(a)
	if s.faulty(s.plan.faults.kill) {
		a.w.kill(fmt.Sprintf("killed with the answer (%s) in its hands", out.Class))
	}
	if a.w.dead {
		a.excuse("its worker died")
	}
	a.finish(out)
}

// cut ends an attempt because its worker died.
func (n *network) cut(a *attempt, why string) {
	n.s.cancel(a.planned)
	a.ended, a.outcome = time.Now(), delivery.Outcome{Class: delivery.Lost}
	a.excuse("its worker died during it")
	if !a.arrived.IsZero() && n.s.chance(0.5) {
		a.took = true // what had arrived may have been dealt with
	}
	n.forget(a)
	n.s.note(a.key, "%s dies during its attempt: %s", a.w, why)
	a.finish(a.outcome)
}

func (n *network) forget(a *attempt) {
	a.w.sends = slices.DeleteFunc(a.w.sends, func(b *attempt) bool { return a == b })
}

// sameBody says whether the receiver got what was accepted.
func (a *attempt) sameBody(want []byte) bool { return bytes.Equal(a.body, want) }
