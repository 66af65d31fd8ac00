package httpadapter

import (
	"context"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
)

// shared is a value that an endpoint's attempts share, such as a token. Without a valid one,
// one attempt gets it and the others wait, each until its own deadline. Nothing continues
// after the attempts. T is comparable so that a value that was refused can be dropped.
type shared[T comparable] struct {
	// get gets the value and says until when it is valid; or why there is none.
	get func(context.Context) (T, time.Time, *delivery.Outcome)
	now func() time.Time
	// late is the outcome of an attempt whose time ends while it waits for another's call.
	late delivery.Outcome

	mu    sync.Mutex
	value T
	since time.Time // when value was got
	until time.Time
	under *getting[T] // nil if nobody gets it
}

// getting is one attempt's call of get. The results are valid once done is closed.
type getting[T comparable] struct {
	done   chan struct{}
	value  T
	failed *delivery.Outcome
	// gaveUp means that the attempt ended before there was an answer, which says nothing to
	// those that have time left.
	gaveUp bool
}

// take returns a valid value, or why there is none.
func (s *shared[T]) take(ctx context.Context) (T, *delivery.Outcome) {
	for {
		s.mu.Lock()
		if s.now().Before(s.until) {
			defer s.mu.Unlock()
			return s.value, nil
		}
		g := s.under
		if g == nil {
			g = &getting[T]{done: make(chan struct{}), gaveUp: true}
			s.under = g
			s.mu.Unlock()
			s.fill(ctx, g)
			return g.value, g.failed
		}
		s.mu.Unlock()
		select {
		case <-g.done:
			if !g.gaveUp {
				return g.value, g.failed
			}
		case <-ctx.Done():
			var none T
			return none, &s.late
		}
	}
}

// fill makes the call, and wakes those that wait for it, also after a panic.
func (s *shared[T]) fill(ctx context.Context, g *getting[T]) {
	var until time.Time
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.under = nil
		if g.failed == nil && !g.gaveUp {
			s.value, s.since, s.until = g.value, s.now(), until
		}
		close(g.done)
	}()
	g.value, until, g.failed = s.get(ctx)
	g.gaveUp = g.failed != nil && ctx.Err() != nil
}

// peek returns the latest value, even if it is not valid any more.
func (s *shared[T]) peek() T {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.value
}

// dropAfter is the age from which a value that is refused may be a stale one. A younger one
// would be refused again, at the cost of a call for each attempt.
const dropAfter = time.Minute

// drop ends the validity of a value that was refused. It reports whether take will return
// another one: not if this one is too young to be stale.
func (s *shared[T]) drop(refused T) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.value != refused {
		return true // there is another one already
	}
	if s.now().Sub(s.since) < dropAfter {
		return false
	}
	s.until = time.Time{}
	return true
}
