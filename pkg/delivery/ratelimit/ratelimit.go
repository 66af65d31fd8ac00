// Package ratelimit spaces an endpoint's attempts: the generic cell rate
// algorithm (ITU-T I.371, "virtual scheduling"). All that is stored is one
// instant, the theoretical arrival time of the next attempt; whoever reserves
// slots moves it on by one write and computes the slots from what it became. It
// promises that attempts which begin within Grace of their slots are never more
// than burst + rate·t in any window of length t, as far as workers' clocks agree.
package ratelimit

import (
	"fmt"
	"time"
)

// Limit is how many attempts may begin. The zero value is no limit.
type Limit struct {
	PerMinute int // 1 to 60,000; 0 is no limit
	// Burst is how many may begin at once after a pause; 0 is five seconds'
	// worth, at least 2.
	Burst int
}

// Grace is how late after its slot an attempt may begin. One that is later needs
// another slot: it would come together with those that follow it.
const Grace = 250 * time.Millisecond

// MaxPerMinute is the highest limit.
const MaxPerMinute = 60_000

// Enabled reports whether there is a limit.
func (l Limit) Enabled() bool { return l.PerMinute > 0 }

// Validate refuses values outside the bounds that Limit names, and bursts that
// are too small to keep the rate: with less than Grace's worth the spacing would
// have to be much wider than asked for.
func (l Limit) Validate() error {
	switch {
	case l.PerMinute < 0 || l.PerMinute > MaxPerMinute:
		return fmt.Errorf("rate_per_minute is %d; it must be 1 to %d (0 for no limit)", l.PerMinute, MaxPerMinute)
	case l.Burst < 0 || l.Burst > 10_000:
		return fmt.Errorf("burst is %d; it must be 1 to 10000 (0 for five seconds' worth)", l.Burst)
	case l.Burst > 0 && !l.Enabled():
		return fmt.Errorf("burst is %d without rate_per_minute: a burst means nothing without a rate", l.Burst)
	case l.Enabled():
		nominal := time.Minute / time.Duration(l.PerMinute)
		for least := l.Burst; ; least++ {
			if spacing, _ := (Limit{l.PerMinute, least}).shape(); spacing <= nominal*3/2 {
				if least != l.Burst {
					return fmt.Errorf("burst is %d; at %d a minute it must be at least %d", l.Burst, l.PerMinute, least)
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

// shape returns the spacing of slots and how far ahead of it they may run.
//
// Slots at a spacing of T that run ahead by τ number at most 1 + (τ+t)/T in a
// window t; attempts up to Grace late, 1 + (τ+Grace+t)/T. With
// τ = (burst-1)·T - Grace that is burst + t/T. Where τ would be negative it is
// zero, and the spacing grows by what is missing.
func (l Limit) shape() (spacing, ahead time.Duration) {
	// Rounded up to a microsecond, which is how stores keep it.
	spacing = (time.Minute/time.Duration(l.PerMinute) + time.Microsecond).Truncate(time.Microsecond)
	ahead = time.Duration(l.burst()-1)*spacing - Grace
	if ahead < 0 {
		return spacing - ahead, 0
	}
	return spacing, ahead
}

// Key is what an endpoint's slots are kept under. A limit that is changed begins
// anew: what was reserved under the old one, perhaps for hours, holds nobody up.
func (l Limit) Key(endpointID string) string {
	if !l.Enabled() {
		return endpointID
	}
	return fmt.Sprintf("%s#%d#%d", endpointID, l.PerMinute, l.Burst)
}

// Cost is how far n attempts move the theoretical arrival time.
func (l Limit) Cost(n int) time.Duration {
	spacing, _ := l.shape()
	return time.Duration(n) * spacing
}

// Reserve is the transition that stores apply: cost later than at, or than now
// where at has passed.
func Reserve(at, now time.Time, cost time.Duration) time.Time {
	if at.Before(now) {
		at = now
	}
	return at.Add(cost)
}

// Slots returns when n attempts may begin whose reservation moved the theoretical
// arrival time to after; the earliest first, none before now.
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

// Stricter returns a limit that satisfies both an endpoint's own limit and a pace.
// Slots under either advance the same theoretical arrival time, so the pace's burst
// is reduced until it runs no further ahead of that time than the own limit does.
func Stricter(own, pace Limit) Limit {
	if !own.Enabled() {
		return pace
	}
	if !pace.Enabled() || own.PerMinute <= pace.PerMinute {
		return own
	}
	return Limit{PerMinute: pace.PerMinute, Burst: min(pace.burst(), 1+(own.burst()-1)*pace.PerMinute/own.PerMinute)}
}

// MaxInFlight is how many attempts at one endpoint a Pace has under way at the
// same time, roughly.
const MaxInFlight = 20

// Pace is the limit for an endpoint whose answers take so long (Little's law:
// what is under way is rate times duration). It keeps one slow endpoint from
// occupying the workers that all share. Zero is no limit.
func Pace(took time.Duration) Limit {
	if took <= 0 {
		return Limit{}
	}
	perMinute := min(max(1, int(MaxInFlight*time.Minute/took)), MaxPerMinute)
	return Limit{PerMinute: perMinute}
}
