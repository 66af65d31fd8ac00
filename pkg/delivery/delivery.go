// Package delivery is the vocabulary and the life of a delivery: one event on
// its way to one endpoint. The transitions are pure functions (state, input,
// now → state). The stores apply them, or write the same rule as a condition;
// the conformance suite in test/storetest holds them to it.
//
// What it promises: an attempt begins only by a claim, a claim is won by
// exactly one worker, and the number of attempts begun only ever grows, so it
// serves as the fencing token of everything written after.
package delivery

import (
	"encoding/base64"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/tidings-dev/tidings/pkg/event"
)

// State is where a delivery is in its life.
type State string

const (
	Pending   State = "pending"   // waits for its next attempt
	InFlight  State = "in_flight" // claimed by a worker, until its lease expires
	Delivered State = "delivered" // the receiver took it
	Dead      State = "dead"      // given up: a dead letter, to be seen and replayed
	Skipped   State = "skipped"   // not attempted any more because the endpoint is disabled or gone
)

// Settled reports whether nothing more happens by itself.
func (s State) Settled() bool { return s == Delivered || s == Dead || s == Skipped }

// States lists every state, for whoever validates a filter.
var States = []State{Pending, InFlight, Delivered, Dead, Skipped}

const (
	// Retention is how long a delivery is kept after it was last written.
	Retention = 30 * 24 * time.Hour
	// MaxHistory is how many attempts a delivery remembers, newest last. With
	// it the item stays under 1 KB, which is one write unit. Every attempt is
	// in the log besides.
	MaxHistory = 8
	// DueShards is the number of partitions of the due index.
	DueShards = 16
)

// Key identifies a delivery. It is the pair, so a fan-out replayed makes
// nothing twice.
type Key struct {
	EndpointID string
	EventID    string
}

func (k Key) String() string { return k.EndpointID + "/" + k.EventID }

// DueShard is the due index's partition in which the delivery waits.
func (k Key) DueShard() int {
	h := fnv.New32a()
	h.Write([]byte(k.EndpointID))
	h.Write([]byte(k.EventID))
	return int(h.Sum32() % DueShards)
}

// Delivery is one event on its way to one endpoint. Times have millisecond
// precision.
type Delivery struct {
	Key
	Tenant    string
	EventType string
	State     State

	// Attempts counts the attempts ever begun, replays included. It only grows.
	Attempts int
	// Uncounted is how many of them the retry policy does not count: those before
	// the last replay, and those that were called off before anything was sent.
	Uncounted int
	// Since is what the age limit counts from: the event's acceptance, or the
	// last replay.
	Since time.Time

	// ClaimID names the claim of the latest attempt, so that a worker whose
	// write was applied, but whose answer was lost, recognises it as its own.
	ClaimID    string
	LeaseUntil time.Time

	// NextAttemptAt is when the next attempt may begin; never earlier.
	NextAttemptAt time.Time
	// DueAt is when the sweep has to look at the delivery. Zero keeps it out of
	// the due index: nothing to look after, or the queue's own redelivery does.
	DueAt time.Time
	// InBacklog is set while the delivery waits for its endpoint's circuit to close.
	// It is then in the waiting index.
	InBacklog bool
	// Slot is the time reserved for it under the endpoint's rate limit; zero where
	// it holds none.
	Slot time.Time

	// Reason is why the delivery is dead, skipped or waiting: the last failure
	// in one sentence, and what was done about it.
	Reason  string
	Snippet string // beginning of the last failed answer
	History []Attempt

	CreatedAt time.Time
	UpdatedAt time.Time
	ExpiresAt time.Time
}

// CountedAttempts is how many attempts count towards the retry policy.
func (d Delivery) CountedAttempts() int { return d.Attempts - d.Uncounted }

// Claim asks to begin an attempt.
type Claim struct {
	Key
	Tenant    string
	EventType string
	// Accepted is when the event was accepted (the time in its id).
	Accepted time.Time
	// Attempts is how many attempts the claimer believes have begun.
	Attempts int
	// ID names this claim, unique among all workers.
	ID    string
	Now   time.Time
	Lease time.Duration
}

// Cause is why a claim or another transition was refused.
type Cause string

const (
	// CauseSettled: the delivery is delivered, dead or skipped.
	CauseSettled Cause = "settled"
	// CauseInFlight: another worker's lease is alive, until Refusal.Until.
	CauseInFlight Cause = "in flight"
	// CauseEarly: the next attempt may not begin before Refusal.Until.
	CauseEarly Cause = "early"
	// CauseSuperseded: the claimer's view is stale. Whatever made it so has
	// left a due time, so the claimer may forget the delivery.
	CauseSuperseded Cause = "superseded"
)

// Refusal is the error of a move that the delivery's state does not allow.
type Refusal struct {
	Cause Cause
	Until time.Time // for CauseInFlight and CauseEarly
	// DueAt is when the sweep looks at the delivery; zero where it does not.
	DueAt time.Time
	// Slot is what the delivery has reserved under its endpoint's rate limit.
	Slot time.Time
	// Attempts is how many attempts have begun.
	Attempts int
	State    State
}

func (r *Refusal) Error() string {
	s := fmt.Sprintf("delivery refused: %s (state %s, %d attempts)", r.Cause, r.State, r.Attempts)
	if !r.Until.IsZero() {
		s += " until " + r.Until.UTC().Format(time.RFC3339)
	}
	return s
}

// ErrFenced is the error of a write by a worker that no longer holds the claim:
// its lease expired and somebody took over, or the due time was moved.
var ErrFenced = errors.New("delivery: no longer held by this worker")

// ErrNotFound is the error of asking for a delivery that does not exist.
var ErrNotFound = errors.New("delivery not found")

// Apply begins an attempt. current is nil where the delivery has no record yet:
// its first attempt makes one. On refusal the state stays as it is.
//
// A claim that was applied already (same ID) is won again: a store may retry a
// write whose answer was lost.
func (c Claim) Apply(current *Delivery) (Delivery, *Refusal) {
	if current == nil {
		if c.Attempts > 0 {
			// The record has expired: so has the wish.
			return Delivery{}, &Refusal{Cause: CauseSuperseded}
		}
		d := Delivery{
			Key: c.Key, Tenant: c.Tenant, EventType: c.EventType,
			Since: c.Accepted, CreatedAt: c.Now,
		}
		return c.begin(d), nil
	}
	d := *current
	switch {
	case d.State == InFlight && d.ClaimID == c.ID:
		return d, nil
	case d.State.Settled():
		return d, d.refuse(CauseSettled, time.Time{})
	case d.State == InFlight && c.Now.Before(d.LeaseUntil):
		return d, d.refuse(CauseInFlight, d.LeaseUntil)
	case d.State == InFlight:
		return c.begin(d), nil // the lease expired: take over
	case d.Attempts != c.Attempts:
		return d, d.refuse(CauseSuperseded, time.Time{})
	case c.Now.Before(d.NextAttemptAt):
		return d, d.refuse(CauseEarly, d.NextAttemptAt)
	}
	return c.begin(d), nil
}

func (c Claim) begin(d Delivery) Delivery {
	if d.EventType == "" {
		d.EventType = c.EventType // a skip made the record, without reading the event
	}
	d.State = InFlight
	d.Attempts++
	d.InBacklog, d.Slot = false, time.Time{}
	d.ClaimID = c.ID
	d.LeaseUntil = c.Now.Add(c.Lease)
	d.UpdatedAt = c.Now
	d.ExpiresAt = c.Now.Add(Retention)
	// DueAt stays: moving it would cost two index writes, and the sweep that
	// finds a claimed delivery only asks for a claim that is then refused.
	return d
}

func (d Delivery) refuse(cause Cause, until time.Time) *Refusal {
	return &Refusal{Cause: cause, Until: until, DueAt: d.DueAt, Slot: d.Slot, Attempts: d.Attempts, State: d.State}
}

// Conclusion is what an attempt's decision makes of a claimed delivery.
// The result is to be stored only if the claim is still held.
type Conclusion struct {
	State   State     // Pending, Delivered or Dead
	NextAt  time.Time // Pending only: when the next attempt may begin
	DueAt   time.Time // Pending only: when the sweep has to look
	Reason  string
	Snippet string
	Attempt Attempt // the one that just ended
	// NotSent is set if no request was sent: the attempt then does not count
	// towards the retry policy.
	NotSent bool
	Now     time.Time
}

// Apply ends the attempt. Attempts that no worker ever concluded show in the
// history as Lost.
func (c Conclusion) Apply(d Delivery) Delivery {
	last := d.Uncounted
	if n := len(d.History); n > 0 {
		last = max(last, d.History[n-1].Number)
	}
	history := append([]Attempt(nil), d.History...)
	for n := last + 1; n < c.Attempt.Number; n++ {
		history = append(history, Attempt{Number: n, Class: Lost})
	}
	history = append(history, c.Attempt)
	if len(history) > MaxHistory {
		history = history[len(history)-MaxHistory:]
	}
	d.History = history
	if c.NotSent {
		d.Uncounted++
	}
	d.State = c.State
	d.Reason = c.Reason
	d.Snippet = c.Snippet
	d.LeaseUntil = time.Time{}
	d.NextAttemptAt, d.DueAt, d.InBacklog, d.Slot = time.Time{}, time.Time{}, false, time.Time{}
	if c.State == Pending {
		d.NextAttemptAt, d.DueAt = c.NextAt, c.DueAt
	}
	d.UpdatedAt = c.Now
	d.ExpiresAt = c.Now.Add(Retention)
	return d
}

// Settle asks to settle a delivery without an attempt: as skipped, because its
// endpoint is disabled or gone, or its event has expired; as dead, because it has
// waited for too long.
type Settle struct {
	Key
	Tenant    string
	EventType string // where it is known
	// Accepted is when the event was accepted (the time in its id).
	Accepted time.Time
	State    State // Skipped or Dead
	// SinceBefore, if not zero, is the age that the delivery must have: one that
	// was replayed in the meantime has not.
	SinceBefore time.Time
	Reason      string
	Now         time.Time
}

// Apply settles the delivery. It is refused where the delivery is settled already
// or an attempt's lease is alive.
func (s Settle) Apply(current *Delivery) (Delivery, *Refusal) {
	var d Delivery
	if current == nil {
		d = Delivery{Key: s.Key, Tenant: s.Tenant, EventType: s.EventType, CreatedAt: s.Now, Since: s.Accepted}
	} else {
		d = *current
		if d.State.Settled() {
			return d, d.refuse(CauseSettled, time.Time{})
		}
		if d.State == InFlight && s.Now.Before(d.LeaseUntil) {
			return d, d.refuse(CauseInFlight, d.LeaseUntil)
		}
		if !s.SinceBefore.IsZero() && d.Since.After(s.SinceBefore) {
			return d, d.refuse(CauseSuperseded, time.Time{})
		}
	}
	if d.EventType == "" {
		d.EventType = s.EventType
	}
	d.State = s.State
	d.Reason = s.Reason
	d.LeaseUntil, d.NextAttemptAt, d.DueAt, d.InBacklog, d.Slot = time.Time{}, time.Time{}, time.Time{}, false, time.Time{}
	d.UpdatedAt = s.Now
	d.ExpiresAt = s.Now.Add(Retention)
	return d, nil
}

// Park asks to let a delivery wait without an attempt: for its endpoint's circuit,
// or for its slot under the rate limit.
type Park struct {
	Key
	Tenant    string
	EventType string
	// Accepted is when the event was accepted (the time in its id).
	Accepted time.Time
	// Attempts is how many attempts whoever asks believes have begun.
	Attempts  int
	InBacklog bool      // for the circuit
	Slot      time.Time // for its slot under the rate limit; zero where it holds none
	DueAt     time.Time // when the sweep has to look
	Reason    string
	Now       time.Time
}

// Apply makes the delivery wait. It is refused where it is settled, an attempt's
// lease is alive, or another attempt has begun since; and before its time: what
// waits for something else would be let go without regard to it.
func (p Park) Apply(current *Delivery) (Delivery, *Refusal) {
	var d Delivery
	if current == nil {
		if p.Attempts > 0 {
			return Delivery{}, &Refusal{Cause: CauseSuperseded} // the record has expired
		}
		d = Delivery{Key: p.Key, Tenant: p.Tenant, Since: p.Accepted, CreatedAt: p.Now}
	} else {
		d = *current
		switch {
		case d.State.Settled():
			return d, d.refuse(CauseSettled, time.Time{})
		case d.State == InFlight && p.Now.Before(d.LeaseUntil):
			return d, d.refuse(CauseInFlight, d.LeaseUntil)
		case d.State == Pending && d.Attempts != p.Attempts:
			return d, d.refuse(CauseSuperseded, time.Time{})
		case d.State == Pending && p.Now.Before(d.NextAttemptAt):
			return d, d.refuse(CauseEarly, d.NextAttemptAt)
		}
	}
	if d.EventType == "" {
		d.EventType = p.EventType
	}
	d.State = Pending
	d.InBacklog, d.Slot = p.InBacklog, p.Slot
	if !p.Slot.IsZero() {
		d.NextAttemptAt = p.Slot
	}
	d.DueAt = p.DueAt
	d.Reason = p.Reason
	d.ClaimID, d.LeaseUntil = "", time.Time{} // of a worker that died
	d.UpdatedAt = p.Now
	d.ExpiresAt = p.Now.Add(Retention)
	return d, nil
}

// BacklogEntry is a delivery in its endpoint's backlog, with its number of attempts
// so far.
type BacklogEntry struct {
	Key
	Attempts int
}

// Release asks to let a delivery go that waits for its endpoint's circuit.
type Release struct {
	Key
	NextAt time.Time // when its attempt may begin
	DueAt  time.Time // when the sweep looks if its work item is lost
	Now    time.Time
}

// Apply lets the delivery go. It reports false for one that does not wait (any
// more): of two that would release it, one does.
func (r Release) Apply(d Delivery) (Delivery, bool) {
	if d.State != Pending || !d.InBacklog {
		return d, false
	}
	d.InBacklog = false
	d.NextAttemptAt, d.DueAt = r.NextAt, r.DueAt
	d.UpdatedAt = r.Now
	d.ExpiresAt = r.Now.Add(Retention)
	return d, true
}

// Replay asks to begin again with a settled delivery.
type Replay struct {
	Key
	Now time.Time
	// DueAt is when the sweep looks if the replay's work item is lost.
	DueAt time.Time
}

// Apply makes a settled delivery pending, due now, with its retry policy's
// count and age begun anew. It is refused for one that is not settled.
func (r Replay) Apply(d Delivery) (Delivery, *Refusal) {
	if !d.State.Settled() {
		cause, until := CauseInFlight, d.LeaseUntil
		if d.State == Pending {
			cause, until = CauseEarly, d.NextAttemptAt
		}
		return d, d.refuse(cause, until)
	}
	d.State = Pending
	d.Uncounted = d.Attempts
	d.Since = r.Now
	d.NextAttemptAt, d.DueAt = r.Now, r.DueAt
	d.Reason = "replayed by an operator"
	d.UpdatedAt = r.Now
	d.ExpiresAt = r.Now.Add(Retention)
	return d, nil
}

// Query selects deliveries of one endpoint, newest event first.
type Query struct {
	EndpointID string
	From, To   time.Time // of the event's acceptance, both included; zero is unbounded
	State      State     // empty: every state
	EventType  string    // empty: every type
	Limit      int       // at most so many a page; 0 means 100
	// Examine bounds what is read for one page where a state or a type is asked
	// for: after so many deliveries the page ends, full or not. 0 reads on until
	// the page is full.
	Examine int
	Cursor  string // where the page before ended; empty for the first
}

// Matches reports whether a delivery is of the state and the type asked for.
func (q Query) Matches(d Delivery) bool {
	return (q.State == "" || d.State == q.State) && (q.EventType == "" || d.EventType == q.EventType)
}

// Page is what a query found. Next is empty on the last page; a page may be
// short, even empty, and still have a next one.
type Page struct {
	Deliveries []Delivery
	Next       string
}

// Due is a delivery the sweep has to look at.
type Due struct {
	Key
	DueAt time.Time
}

// PageSize is how many deliveries a page holds at most.
func (q Query) PageSize() int {
	if q.Limit <= 0 {
		return 100
	}
	return q.Limit
}

// Bounds returns the smallest and the largest event id that the query wants of
// what its cursor has left. It fails on a cursor that no page ended with.
func (q Query) Bounds() (first, last string, err error) {
	to := q.To
	if to.IsZero() {
		to = time.UnixMilli(1<<48 - 1) // the last instant of a ULID
	}
	from := q.From
	if from.IsZero() {
		from = time.UnixMilli(0)
	}
	first, last = event.IDRange(from, to)
	if q.Cursor == "" {
		return first, last, nil
	}
	id, err := base64.RawURLEncoding.DecodeString(q.Cursor)
	before := ""
	if err == nil {
		before, err = event.IDBefore(string(id))
	}
	// Another query's cursor would widen this one.
	if err != nil || before < first || string(id) > last {
		return "", "", fmt.Errorf("cursor %.64q is not one that a page of this query ended with", q.Cursor)
	}
	return first, before, nil
}

// CursorAfter is the cursor of a page that ended with the event.
func (q Query) CursorAfter(eventID string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(eventID))
}

// CursorEvent is the event that CursorAfter was given.
func CursorEvent(cursor string) (string, error) {
	id, err := base64.RawURLEncoding.DecodeString(cursor)
	if err == nil {
		_, err = event.IDTime(string(id))
	}
	if err != nil {
		return "", fmt.Errorf("cursor %q is not one that a page ended with", cursor)
	}
	return string(id), nil
}
