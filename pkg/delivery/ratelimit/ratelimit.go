// Package ratelimit limits the rate of an endpoint's attempts with the generic cell
// rate algorithm (ITU-T I.371, "virtual scheduling"). The only stored state is the
// theoretical arrival time of the next attempt. A worker reserves slots by advancing
// it with one write, and computes the slots from the new value. It promises that at
// most burst + rate·t attempts begin in any window of length t, if each begins within
// Grace of its slot and the workers' clocks agree.
package ratelimit

import (
	"fmt"
	"time"
)

// Limit is an endpoint's rate limit. The zero value is no limit.
type Limit struct {
	PerMinute int // attempts per minute, 1 to 60,000; 0 is no limit
	// Burst is how many attempts may begin at the same time after a pause, up to
	// 10,000. 0 is the default: five seconds of the rate, at least 2.
	Burst int
}

// Grace is how long after its slot an attempt may begin. A later one needs a new slot,
// because it would coincide with the attempts that follow it.
const Grace = 250 * time.Millisecond

// MaxPerMinute is the maximum of Limit.PerMinute.
const MaxPerMinute = 60_000

// Enabled reports whether there is a limit.
func (l Limit) Enabled() bool { return l.PerMinute > 0 }

// Validate checks the bounds that Limit documents. It also rejects a burst that is too
// small for its rate: because of Grace, the rate would then not be reached.
func (l Limit) Validate() error {
	switch {
	case l.PerMinute < 0 || l.PerMinute > MaxPerMinute:
		return fmt.Errorf("rate_per_minute is %d; it must be 1 to %d (0 for no limit)", l.PerMinute, MaxPerMinute)
	case l.Burst < 0 || l.Burst > 10_000:
		return fmt.Errorf("burst is %d; it must be 1 to 10000 (0 for the default, five seconds of the rate)", l.Burst)
	case l.Burst > 0 && !l.Enabled():
		return fmt.Errorf("burst is %d without rate_per_minute; set rate_per_minute too", l.Burst)
	case l.Enabled():
		nominal := time.Minute / time.Duration(l.PerMinute)
		for minimum := l.Burst; ; minimum++ {
			if spacing, _ := (Limit{l.PerMinute, minimum}).shape(); spacing <= nominal*3/2 {
				if minimum != l.Burst {
					return fmt.Errorf("burst is %d; at %d per minute it must be at least %d", l.Burst, l.PerMinute, minimum)
				}
				break
			}
		}
	}
	return nil
}

// burst is Burst or its default.
func (l Limit) burst() int {
	if l.Burst > 0 {
		return l.Burst
	}
	return max(2, l.PerMinute/12)
}

// shape returns the spacing of slots and by how much a slot may precede its
// theoretical arrival time.
//
// With a spacing of T and a tolerance of τ there are at most 1 + (τ+t)/T slots in a
// window of length t, and at most 1 + (τ+Grace+t)/T attempts that begin up to Grace
// late. With τ = (burst-1)·T - Grace that is burst + t/T. A negative τ is replaced by
// zero and a spacing that is wider by as much.
func (l Limit) shape() (spacing, ahead time.Duration) {
	// Stores keep microseconds: round up.
	spacing = (time.Minute/time.Duration(l.PerMinute) + time.Microsecond).Truncate(time.Microsecond)
	ahead = time.Duration(l.burst()-1)*spacing - Grace
	if ahead < 0 {
		return spacing - ahead, 0
	}
	return spacing, ahead
}

// Key returns the key under which an endpoint's slots are stored. It contains the
// limit, so that slots reserved under an old limit do not delay attempts under a new
// one.
func (l Limit) Key(endpointID string) string {
	if !l.Enabled() {
		return endpointID
	}
	return fmt.Sprintf("%s#%d#%d", endpointID, l.PerMinute, l.Burst)
}

// Horizon is how far ahead a slot may be reserved: ten attempts, within the bounds. What
// does not get a slot by then waits in the endpoint's backlog. Slots far ahead would
// outlive the deliveries that hold them, and new events could not share the rate.
func (l Limit) Horizon() time.Duration {
	spacing, _ := l.shape()
	return min(max(10*spacing, MinHorizon), MaxHorizon)
}

// DrainAhead is how far ahead the slots of a backlog are reserved: so short that a new
// event does not wait long behind them, so long that no slot is missed between two steps
// of the drain.
func (l Limit) DrainAhead() time.Duration {
	spacing, _ := l.shape()
	return min(max(2*spacing, 6*time.Second), MaxHorizon)
}

// DrainSlots is the number of slots within DrainAhead after a pause.
func (l Limit) DrainSlots() int {
	spacing, _ := l.shape()
	return l.burst() + int(l.DrainAhead()/spacing) + 1
}

// Bounds of Horizon. A queue cannot delay an item for longer than MaxHorizon.
const (
	MinHorizon = 30 * time.Second
	MaxHorizon = 15 * time.Minute
)

// Reservation asks for slots by advancing a theoretical arrival time.
type Reservation struct {
	Now  time.Time
	Cost time.Duration // see Limit.Cost
	// AtMost refuses the reservation if the time would be later.
	AtMost time.Time
	// Stale is the time from which a stored time is ignored: no reservation makes it so
	// late, except those of version 0.9, which reached arbitrarily far ahead.
	Stale time.Time
}

// Reserve returns the reservation of slots for n attempts, the last of which begins not
// later than until.
func (l Limit) Reserve(n int, now, until time.Time) Reservation {
	spacing, ahead := l.shape()
	return Reservation{
		Now: now, Cost: time.Duration(n) * spacing, AtMost: until.Add(spacing + ahead).Truncate(time.Microsecond),
		Stale: now.Add(2*MaxHorizon + spacing + ahead),
	}
}

// Apply is the transition that stores apply to the theoretical arrival time at. If it
// refuses, it returns the time from which the reservation would begin.
func (r Reservation) Apply(at time.Time) (after time.Time, ok bool) {
	if at.Before(r.Now) || at.After(r.Stale) {
		at = r.Now
	}
	if after = at.Add(r.Cost).Truncate(time.Microsecond); after.After(r.AtMost) {
		return at, false
	}
	return after, true
}

// Missing returns how long it takes until the reservation would be granted, if the
// theoretical arrival time is at and nobody else reserves.
func (r Reservation) Missing(at time.Time) time.Duration { return max(0, at.Add(r.Cost).Sub(r.AtMost)) }

// Fits returns how many attempts a refused reservation has room for, at most n.
func (l Limit) Fits(r Reservation, from time.Time, n int) int {
	spacing, _ := l.shape()
	return max(0, min(n, int(r.AtMost.Sub(from)/spacing)))
}

// Half is the share of new events while the endpoint's backlog is drained. The zero
// value is no share.
type Half struct{ limit Limit }

// Half returns the share of new events: every second slot.
func (l Limit) Half() Half { return Half{l} }

// Key is the key under which the share is stored.
func (h Half) Key(endpointID string) string { return h.limit.Key(endpointID) + "#new" }

// Reserve asks for the share of n new events. They may come unevenly: a second of events
// within half the horizon is within the share.
func (h Half) Reserve(n int, now time.Time) Reservation {
	spacing, _ := h.limit.shape()
	return Reservation{
		Now: now, Cost: time.Duration(2*n) * spacing, AtMost: now.Add(h.limit.Horizon() / 2).Truncate(time.Microsecond),
		Stale: now.Add(2 * MaxHorizon),
	}
}

// Fits returns how many new events a refused reservation has room for, at most n.
func (h Half) Fits(r Reservation, from time.Time, n int) int {
	spacing, _ := h.limit.shape()
	return max(0, min(n, int(r.AtMost.Sub(from)/(2*spacing))))
}

// Cost is by how much n attempts advance the theoretical arrival time.
func (l Limit) Cost(n int) time.Duration {
	spacing, _ := l.shape()
	return time.Duration(n) * spacing
}

// Reserve is the transition that stores apply to the theoretical arrival time at: it
// returns the later of at and now, plus cost.
func Reserve(at, now time.Time, cost time.Duration) time.Time {
	if at.Before(now) {
		at = now
	}
	return at.Add(cost)
}

// Slots returns when n attempts may begin whose reservation advanced the theoretical
// arrival time to after. They are in ascending order and not before now.
func (l Limit) Slots(after time.Time, n int, now time.Time) []time.Time {
	spacing, ahead := l.shape()
	slots := make([]time.Time, n)
	for i := range slots {
		slots[i] = after.Add(-time.Duration(n-i)*spacing - ahead)
		if slots[i].Before(now) {
			slots[i] = now
		}
	}
	return slots
}
