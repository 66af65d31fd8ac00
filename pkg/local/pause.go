package local

import (
	"context"
	"sync"
)

// Pause stops a trigger of the running system until Resume: a schedule by its name
// without the stack's ("sweep", "alerts"), or a queue's mapping ("work", "slow").
// When Pause returns, the trigger takes no further message. Drills use it to
// simulate an outage.
func (s *System) Pause(trigger string) { s.gate(trigger).set(false) }

// Resume ends a Pause.
func (s *System) Resume(trigger string) { s.gate(trigger).set(true) }

func (s *System) gate(trigger string) *gate {
	s.gateMu.Lock()
	defer s.gateMu.Unlock()
	if s.gates == nil {
		s.gates = map[string]*gate{}
	}
	g := s.gates[trigger]
	if g == nil {
		g = newGate()
		s.gates[trigger] = g
	}
	return g
}

// gate lets a trigger through while it is open. A nil gate is always open.
type gate struct {
	mu      sync.Mutex
	closed  bool
	changed chan struct{}   // closed at the next change
	open    context.Context // done when the gate closes
	cancel  context.CancelFunc
}

func newGate() *gate {
	g := &gate{changed: make(chan struct{})}
	g.open, g.cancel = context.WithCancel(context.Background())
	return g
}

func (g *gate) set(open bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed == !open {
		return
	}
	g.closed = !open
	if open {
		g.open, g.cancel = context.WithCancel(context.Background())
	} else {
		g.cancel()
	}
	close(g.changed)
	g.changed = make(chan struct{})
}

// enter waits until the gate is open. The returned context is done when the gate
// closes or ctx is done.
func (g *gate) enter(ctx context.Context) (context.Context, context.CancelFunc) {
	if g == nil {
		return context.WithCancel(ctx)
	}
	for {
		g.mu.Lock()
		closed, changed, open := g.closed, g.changed, g.open
		g.mu.Unlock()
		if !closed {
			// A child of the gate's context, so that it is done before Pause returns: a
			// message that is sent afterwards stays on the queue.
			inside, cancel := context.WithCancel(open)
			stop := context.AfterFunc(ctx, cancel)
			return inside, func() {
				stop()
				cancel()
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.WithCancel(ctx)
		}
	}
}
