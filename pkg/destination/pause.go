package destination

import (
	"sync"
	"time"
)

// Pause finds pauses between attempts. Timers do not run while a function is frozen, so
// that an idle timeout has not closed a connection that the other side has closed
// meanwhile. The zero value is ready; it is safe for concurrent use.
type Pause struct {
	// Now is the clock; nil means time.Now.
	Now func() time.Time

	mu sync.Mutex
	// last is wall-clock time: the monotonic clock of a frozen function may stand still.
	last time.Time
}

// Exceeds reports whether the previous call is longer ago than the limit, or the clock was
// set back since.
func (p *Pause) Exceeds(limit time.Duration) bool {
	now := time.Now
	if p.Now != nil {
		now = p.Now
	}
	at := now().Round(0)
	p.mu.Lock()
	gap := at.Sub(p.last)
	p.last = at
	p.mu.Unlock()
	return gap > limit || gap < 0
}
