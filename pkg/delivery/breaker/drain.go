package breaker

import "time"

// Drain is how far the drain of an endpoint's backlog has come. A pass goes through the
// backlog once, oldest event first.
type Drain struct {
	// Rate is how many deliveries are queued per second if the endpoint has no rate
	// limit. It doubles every DoubleEvery while the answers are quick and good, and
	// halves when one is not (slow start), so that a receiver that has just recovered
	// is not overloaded.
	Rate   int
	RateAt time.Time // when it changed
	// Cursor is the last event that was queued in this pass.
	Cursor string
	// SentAt is when the last delivery that was queued may be attempted: under a low rate
	// limit, its slot is minutes ahead.
	SentAt time.Time
	// Mark was the cursor, and what was queued until then had its slots by MarkAt. What
	// still waits before it a minute later was queued and got lost, or had to give way.
	Mark   string
	MarkAt time.Time
	// Behind says that the last step left something in the backlog. New events then get
	// half of the endpoint's rate limit.
	Behind bool
	// KeepUntil is the earliest end of the drain. The index of the backlog lags behind its
	// table: a delivery that was put there just now may not be in it yet.
	KeepUntil time.Time
}

const (
	// StartRate and MaxRate bound Drain.Rate at its beginning and at its top.
	StartRate = 10
	MaxRate   = 320
	// DoubleEvery is the time of good answers after which the rate doubles.
	DoubleEvery = 5 * time.Second
	// halveEvery is the least time from one change of the rate to the next halving, so
	// that one bad second does not stop the drain.
	halveEvery = time.Second
	// SlowAfter is the time from which an answer is too slow to increase the rate.
	SlowAfter = 2 * time.Second
	// IndexLag is how long the index of the backlog may lag behind its table.
	IndexLag = 10 * time.Second
	// Unclaimed is the time after its slot from which a queued delivery that still waits
	// counts as lost.
	Unclaimed = time.Minute
)

func beginDrain(now time.Time) Drain {
	return Drain{Rate: StartRate, RateAt: now, SentAt: now, MarkAt: now, KeepUntil: now.Add(IndexLag), Behind: true}
}

// Hold makes sure that somebody looks after the backlog, to which a delivery was added
// just now. It reports whether the state changed.
func (s State) Hold(now time.Time) (State, bool) {
	switch {
	case s.Phase == Open: // its probe is the wake-up
		return s, false
	case s.Phase == Closed:
		s.Phase, s.Since, s.WakeAt, s.Drain = Draining, now, now.Add(time.Second), beginDrain(now)
	case !s.Drain.KeepUntil.Before(now.Add(IndexLag)):
		return s, false
	}
	s.Drain.KeepUntil = now.Add(2 * IndexLag) // so that the next second writes nothing
	return s, true
}

// AnsweredBadly halves the rate of a drain after a failure or a slow answer. It reports
// whether the state changed.
func (s State) AnsweredBadly(now time.Time) (State, bool) {
	if s.Phase != Draining || s.Drain.Rate <= 1 || now.Sub(s.Drain.RateAt) < halveEvery {
		return s, false
	}
	s.Drain.Rate, s.Drain.RateAt = s.Drain.Rate/2, now
	return s, true
}

// Scan says which part of the backlog a step of the drain reads.
type Scan struct {
	Cursor string // where the previous step ended
	After  string // events after this one: the cursor, or "" for the whole backlog
	UpTo   string // what is not later than this counts as lost, and comes first; "" for none
}

// Scan returns what the next step reads. A while after the last slot, all that was queued
// has had its time, so the step reads the whole backlog.
func (d Drain) Scan(now time.Time) Scan {
	switch {
	case now.Sub(d.SentAt) >= IndexLag:
		return Scan{Cursor: d.Cursor}
	case d.Mark != "" && now.Sub(d.MarkAt) >= Unclaimed:
		return Scan{Cursor: d.Cursor, After: d.Cursor, UpTo: d.Mark}
	}
	return Scan{Cursor: d.Cursor, After: d.Cursor}
}

// Step is what a step of the drain did.
type Step struct {
	Scan
	Last string // the last event that it queued or settled after Scan.After; "" for none
	Sent int    // deliveries queued
	// Slot is the time of the last of them; the time of the step if it is zero.
	Slot time.Time
	Done bool // nothing is left after Last
	Next time.Time
	// Direct says that new events do not have to wait: once the backlog is empty, the next
	// step can wait until what was queued has had its time.
	Direct bool
}

// Advance records a step of the drain, and ends the drain if the backlog is empty.
func (s State) Advance(step Step, now time.Time) State {
	d := &s.Drain
	if s.Phase != Draining || d.Cursor != step.Cursor {
		return s // another step has been made in between
	}
	d.Cursor = step.After
	if step.Last != "" {
		d.Cursor = step.Last
	}
	if step.Sent > 0 {
		d.SentAt = later(now, step.Slot)
		if now.Sub(d.RateAt) >= DoubleEvery && d.Rate < MaxRate {
			d.Rate, d.RateAt = min(2*max(d.Rate, 1), MaxRate), now
		}
	}
	if now.Sub(d.MarkAt) >= Unclaimed {
		d.Mark, d.MarkAt = d.Cursor, later(now, d.SentAt)
	}
	s.WakeAt, d.Behind = step.Next, !step.Done
	if step.Done && (step.Sent == 0 || step.Direct) {
		s.WakeAt = later(s.WakeAt, d.SentAt.Add(IndexLag))
	}
	if step.Done && step.Sent == 0 && step.After == "" {
		if now.Before(d.KeepUntil) {
			s.WakeAt = later(s.WakeAt, d.KeepUntil)
		} else if now.Sub(d.SentAt) >= IndexLag {
			s.Phase, s.Since, s.WakeAt, s.Drain = Closed, time.Time{}, time.Time{}, Drain{}
		}
	}
	return s
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
