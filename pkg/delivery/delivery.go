// Package delivery defines a delivery, which is the sending of one event to one
// endpoint, and its state machine. The transitions are pure functions (state, input,
// now → state). A store applies them, or writes the same rule as a condition; the
// conformance suite test/storetest checks that both agree. It promises that an
// attempt begins only with a claim, that exactly one worker wins a claim, and that
// the number of attempts never decreases, so that it is the fencing token of every
// later write.
package delivery

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/tidings-dev/tidings/pkg/event"
)

// State is the state of a delivery.
type State string

const (
	Pending   State = "pending"   // the next attempt has not begun
	InFlight  State = "in_flight" // claimed by a worker, until its lease expires
	Delivered State = "delivered" // the receiver accepted it
	Dead      State = "dead"      // a dead letter: no more attempts until it is replayed
	Skipped   State = "skipped"   // no more attempts: the endpoint is disabled or deleted, or the event has expired or was erased
)

// Settled reports whether the state is final until an operator replays the delivery.
func (s State) Settled() bool { return s == Delivered || s == Dead || s == Skipped }

// Indexed reports whether a store finds an endpoint's deliveries in this state without
// reading the others. Those that were delivered at once are not: it would cost each a write.
func (s State) Indexed() bool { return s == Dead || s == Skipped }

// States lists every state.
var States = []State{Pending, InFlight, Delivered, Dead, Skipped}

const (
	// UnsettledRetention is how long a delivery that is not settled is kept at least after its
	// last write, however short the retention of its event is. It is the longest age limit, 14
	// days, and a week, in which the sweep settles what is older. TTL so deletes nothing that
	// is pending, also if its endpoint's age limit was raised after the write.
	UnsettledRetention = 21 * 24 * time.Hour
	// MaxHistory is the maximum number of attempts in a delivery's history. It keeps
	// the item below 1 KB, which is one write unit. The log has every attempt.
	MaxHistory = 8
	// DueShards is the number of partitions of the due index.
	DueShards = 16
)

// Key identifies a delivery. It is derived from the event and the endpoint, so a
// repeated fan-out creates no second delivery.
type Key struct {
	EndpointID string
	EventID    string
}

func (k Key) String() string { return k.EndpointID + "/" + k.EventID }

// DueShard is the delivery's partition in the due index.
func (k Key) DueShard() int {
	h := fnv.New32a()
	h.Write([]byte(k.EndpointID))
	h.Write([]byte(k.EventID))
	return int(h.Sum32() % DueShards)
}

// Delivery is the sending of one event to one endpoint. Times have millisecond
// precision.
type Delivery struct {
	Key
	Tenant    string
	EventType string
	State     State

	// Attempts is the number of attempts begun, including those before a replay. It
	// never decreases.
	Attempts int
	// Uncounted is how many of them the retry policy does not count: those before
	// the last replay, and those that ended before a request was sent.
	Uncounted int
	// Since is when the age limit starts: when the event was accepted or last replayed.
	Since time.Time

	// ClaimID identifies the claim of the latest attempt, so that a worker recognizes
	// its own write if the store's response was lost.
	ClaimID    string
	LeaseUntil time.Time

	// NextAttemptAt is the earliest time of the next attempt.
	NextAttemptAt time.Time
	// DueAt is when the sweep checks the delivery. Zero keeps it out of the due index,
	// because it is settled or because the queue redelivers its work item.
	DueAt time.Time
	// InBacklog is set while the delivery waits in its endpoint's backlog. It is then in
	// the waiting index.
	InBacklog bool
	// Slot is the reserved time under the endpoint's rate limit; zero if none.
	Slot time.Time

	// Reason says why the delivery is dead, skipped or pending: the last failure and
	// its consequence, in one sentence.
	Reason  string
	Snippet string    // the beginning of the last failed response
	History []Attempt // oldest first

	// ErasedAt is when the event was erased; zero if it was not. No attempt begins then.
	ErasedAt time.Time

	// RetentionDays is that of the event: how many days the delivery is kept after its last
	// write, once it is settled. 0 means event.DefaultRetentionDays.
	RetentionDays int

	CreatedAt time.Time
	UpdatedAt time.Time
	ExpiresAt time.Time
}

// Expiry returns when a delivery in a state, written now, is deleted: as many days later as
// its event is kept after it was accepted. So it is there for as long as the event and the
// journal are, and a recovery or a batch of the stream that comes again finds it.
func Expiry(s State, now time.Time, days int) time.Time {
	keep := event.Retention(days)
	if !s.Settled() {
		keep = max(keep, UnsettledRetention)
	}
	return now.Add(keep)
}

// CountedAttempts is how many attempts count towards the retry policy.
func (d Delivery) CountedAttempts() int { return d.Attempts - d.Uncounted }

// LastStatus is the status of the response to the latest attempt that has ended; 0 if there
// was no response, or if the destination's protocol has no statuses.
func (d Delivery) LastStatus() int {
	if len(d.History) == 0 {
		return 0
	}
	return d.History[len(d.History)-1].Status
}

// Claim asks to begin an attempt.
type Claim struct {
	Key
	Tenant    string
	EventType string
	// Accepted is when the event was accepted: the time in its ID, or the time at which it
	// was stored if that was much later.
	Accepted      time.Time
	RetentionDays int // of the event
	// Attempts is how many attempts the worker believes have begun.
	Attempts int
	// ID identifies this claim. It is unique among all workers.
	ID    string
	Now   time.Time
	Lease time.Duration
}

// Cause is why a transition was refused.
type Cause string

const (
	// CauseSettled: the delivery is delivered, dead or skipped.
	CauseSettled Cause = "settled"
	// CauseInFlight: another worker holds the lease until Refusal.Until.
	CauseInFlight Cause = "in flight"
	// CauseEarly: the next attempt may not begin before Refusal.Until.
	CauseEarly Cause = "early"
	// CauseErased: the event was erased at Refusal.Until.
	CauseErased Cause = "erased"
	// CauseSuperseded: the work item is stale. The write that made it stale has set a
	// due time, so the item can be discarded.
	CauseSuperseded Cause = "superseded"
)

// Refusal is the error of a transition that the delivery's state does not allow. Its
// fields are those of the delivery.
type Refusal struct {
	Cause    Cause
	Until    time.Time // for CauseInFlight and CauseEarly; for CauseErased, since when
	DueAt    time.Time
	Slot     time.Time
	Attempts int
	State    State
}

func (r *Refusal) Error() string {
	s := fmt.Sprintf("delivery not changed: %s (state %s, %d attempts)", r.Cause, r.State, r.Attempts)
	if !r.Until.IsZero() {
		s += " until " + r.Until.UTC().Format(time.RFC3339)
	}
	return s
}

// ErrFenced is the error of a write by a worker that has lost its claim: the lease
// expired and another worker claimed the delivery, or another worker moved the due
// time.
var ErrFenced = errors.New("delivery: no longer claimed by this worker")

// ErrNotFound is returned for a delivery that does not exist.
var ErrNotFound = errors.New("delivery not found")

// Apply begins an attempt. current is nil if the delivery has no record yet; its
// first attempt creates one. A claim that was applied before (same ID) succeeds
// again, because a store may repeat a write whose response was lost.
func (c Claim) Apply(current *Delivery) (Delivery, *Refusal) {
	if current == nil {
		if c.Attempts > 0 {
			return Delivery{}, &Refusal{Cause: CauseSuperseded} // the record has expired
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
	case !d.ErasedAt.IsZero():
		return d, d.refuse(CauseErased, d.ErasedAt)
	case d.State == InFlight:
		return c.begin(d), nil // the lease has expired
	case d.Attempts != c.Attempts:
		return d, d.refuse(CauseSuperseded, time.Time{})
	case c.Now.Before(d.NextAttemptAt):
		return d, d.refuse(CauseEarly, d.NextAttemptAt)
	}
	return c.begin(d), nil
}

func (c Claim) begin(d Delivery) Delivery {
	d.EventType = cmp.Or(d.EventType, c.EventType) // Settle may create the record without the type
	d.State = InFlight
	d.Attempts++
	d.InBacklog, d.Slot = false, time.Time{}
	d.ClaimID = c.ID
	d.LeaseUntil = c.Now.Add(c.Lease)
	d.keep(c.RetentionDays, c.Now)
	// DueAt stays, because changing it costs two index writes. A sweep that finds a
	// claimed delivery queues a work item whose claim is refused.
	return d
}

// keep sets the times of a write. A record that has no retention yet gets that of the event.
func (d *Delivery) keep(days int, now time.Time) {
	d.RetentionDays = cmp.Or(d.RetentionDays, days)
	d.UpdatedAt, d.ExpiresAt = now, Expiry(d.State, now, days)
}

func (d Delivery) refuse(cause Cause, until time.Time) *Refusal {
	return &Refusal{Cause: cause, Until: until, DueAt: d.DueAt, Slot: d.Slot, Attempts: d.Attempts, State: d.State}
}

// Conclusion ends the attempt of a claimed delivery. The store writes the result only
// if the worker still holds the claim.
type Conclusion struct {
	State   State     // Pending, Delivered or Dead
	NextAt  time.Time // Pending only: when the next attempt may begin
	DueAt   time.Time // Pending only: when the sweep checks the delivery
	Reason  string
	Snippet string
	Attempt Attempt // the attempt that ended
	// NotSent is set if no request was sent. The retry policy then does not count
	// the attempt.
	NotSent bool
	Now     time.Time
}

// Apply ends the attempt. Earlier attempts without a conclusion are added to the
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
	d.History = history[max(0, len(history)-MaxHistory):]
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
	d.keep(d.RetentionDays, c.Now)
	return d
}

// Settle settles a delivery without an attempt: as Skipped because its endpoint is
// disabled or deleted or its event has expired, or as Dead because of its age.
type Settle struct {
	Key
	Tenant    string
	EventType string // empty if unknown
	// Accepted is when the event was accepted: the time in its ID, or the time at which it
	// was stored if that was much later.
	Accepted      time.Time
	RetentionDays int   // of the event
	State         State // Skipped or Dead
	// SinceBefore, if not zero, refuses a delivery whose Since is later: it was
	// replayed in the meantime.
	SinceBefore time.Time
	Reason      string
	Now         time.Time
}

// Apply settles the delivery. It refuses one that is settled or whose lease has not
// expired.
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
	d.EventType = cmp.Or(d.EventType, s.EventType)
	d.State = s.State
	d.Reason = s.Reason
	d.LeaseUntil, d.NextAttemptAt, d.DueAt, d.InBacklog, d.Slot = time.Time{}, time.Time{}, time.Time{}, false, time.Time{}
	d.keep(s.RetentionDays, s.Now)
	return d, nil
}

// Park postpones a delivery without an attempt: in its endpoint's backlog, or until its
// slot under the rate limit.
type Park struct {
	Key
	Tenant    string
	EventType string
	// Accepted is when the event was accepted: the time in its ID, or the time at which it
	// was stored if that was much later.
	Accepted      time.Time
	RetentionDays int // of the event
	// Attempts is how many attempts the worker believes have begun.
	Attempts  int
	InBacklog bool      // until the endpoint's drain queues it
	Slot      time.Time // the reserved time under the rate limit; zero if none
	DueAt     time.Time // when the sweep checks the delivery
	Reason    string
	Now       time.Time
}

// Apply postpones the delivery. It refuses one that is settled, whose lease has not
// expired, of which another attempt has begun since, or whose next attempt is not due:
// otherwise a drain could start that attempt too early.
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
	d.EventType = cmp.Or(d.EventType, p.EventType)
	d.State = Pending
	d.InBacklog, d.Slot = p.InBacklog, p.Slot
	if !p.Slot.IsZero() {
		d.NextAttemptAt = p.Slot
	}
	d.DueAt = p.DueAt
	d.Reason = p.Reason
	d.ClaimID, d.LeaseUntil = "", time.Time{} // an expired lease
	d.keep(p.RetentionDays, p.Now)
	return d, nil
}

// Backlog is a page of an endpoint's backlog.
type Backlog struct {
	// Deliveries are those of the page that still wait, oldest event first.
	Deliveries []Delivery
	// Last is the last event of the page, whether it still waits or not; "" if the page
	// is empty.
	Last string
	More bool // later ones may follow
}

// Replay sends a settled delivery again.
type Replay struct {
	Key
	InBacklog bool // until the endpoint's drain queues it
	// SettledBefore, if not zero, refuses a delivery that was settled at that time or later:
	// a job that repeats a step does not send again what it has sent.
	SettledBefore time.Time
	Now           time.Time
	DueAt         time.Time // when the sweep checks it, in case its work item is lost
}

// Apply makes a settled delivery pending, with its next attempt now, or in its turn of the
// backlog, and its retry policy restarted. It refuses a delivery that is not settled, or
// not early enough.
func (r Replay) Apply(d Delivery) (Delivery, *Refusal) {
	if !d.ErasedAt.IsZero() {
		return d, d.refuse(CauseErased, d.ErasedAt)
	}
	if !d.State.Settled() {
		cause, until := CauseInFlight, d.LeaseUntil
		if d.State == Pending {
			cause, until = CauseEarly, d.NextAttemptAt
		}
		return d, d.refuse(cause, until)
	}
	if !r.SettledBefore.IsZero() && !d.UpdatedAt.Before(r.SettledBefore) {
		return d, d.refuse(CauseSettled, time.Time{})
	}
	d.State, d.InBacklog = Pending, r.InBacklog
	d.Uncounted = d.Attempts
	d.Since = r.Now
	d.NextAttemptAt, d.DueAt = r.Now, r.DueAt
	d.Reason = "replayed by an operator"
	d.keep(d.RetentionDays, r.Now)
	return d, nil
}

// Erased is the reason of a delivery whose event was erased.
const Erased = "erased"

// Erase ends a delivery because its event was erased, and removes what its receiver answered,
// which can repeat the event.
type Erase struct {
	Key
	Tenant    string
	EventType string
	Accepted  time.Time // as in Settle
	// RetentionDays is that of the event.
	RetentionDays int
	// Create makes a record if there is none, so that a work item that is still on a queue
	// finds one.
	Create bool
	Now    time.Time
}

// Apply skips a delivery that is not settled; one that is keeps its state. A delivery whose
// attempt is under way is only marked, so that no other begins: erase it again when the
// attempt has ended, because its verdict has the receiver's answer. ok is false if there is
// no record to erase.
func (e Erase) Apply(current *Delivery) (after Delivery, ok bool) {
	d := Delivery{Key: e.Key, Tenant: e.Tenant, EventType: e.EventType, Since: e.Accepted, RetentionDays: e.RetentionDays, CreatedAt: e.Now, ExpiresAt: Expiry(Skipped, e.Now, e.RetentionDays)}
	switch {
	case current != nil:
		d = *current
	case !e.Create:
		return d, false
	}
	if d.ErasedAt.IsZero() {
		d.ErasedAt = e.Now
	}
	switch {
	case d.State == InFlight && e.Now.Before(d.LeaseUntil):
		return d, true
	case d.State.Settled() && d.Reason == Erased && d.Snippet == "":
		return d, true
	case !d.State.Settled():
		d.State = Skipped
	}
	d.LeaseUntil, d.NextAttemptAt, d.DueAt, d.InBacklog, d.Slot = time.Time{}, time.Time{}, time.Time{}, false, time.Time{}
	d.Reason, d.Snippet, d.UpdatedAt = Erased, "", e.Now
	return d, true
}

// Due is an entry of the due index: a delivery that the sweep checks at DueAt.
type Due struct {
	Key
	DueAt time.Time
}
