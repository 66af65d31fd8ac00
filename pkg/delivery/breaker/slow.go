package breaker

import "time"

const (
	// SlowLaneAfter is how long an attempt must have been under way to make its endpoint
	// slow.
	SlowLaneAfter = time.Second
	// SlowLaneFor is how long an endpoint stays slow after the latest such attempt. It then
	// leaves the slow lane by itself, without a write.
	SlowLaneFor = 15 * time.Second
	// SlowLaneRenew is the least time from one mark of an endpoint to the next, so that an
	// endpoint costs at most one write in this time, however many attempts are under way.
	// An attempt that goes on renews the mark this often.
	SlowLaneRenew = 5 * time.Second
)

// Slow reports whether the endpoint's deliveries use the slow lane.
func (s State) Slow(now time.Time) bool { return now.Before(s.SlowUntil) }

// InSlowLane returns since when the endpoint's deliveries use the slow lane; zero if they do
// not.
func (s State) InSlowLane(now time.Time) time.Time {
	if !s.Slow(now) {
		return time.Time{}
	}
	return s.SlowSince
}

// MarkSlow records that an attempt is slow. It reports whether the state changed.
func (s State) MarkSlow(now time.Time) (State, bool) {
	if s.SlowUntil.Sub(now) > SlowLaneFor-SlowLaneRenew {
		return s, false
	}
	if !s.Slow(now) || s.SlowSince.IsZero() { // an earlier version did not record it
		s.SlowSince = now
	}
	s.SlowUntil = now.Add(SlowLaneFor)
	return s, true
}
