package local

import (
	"context"
	"sync"
)

// Hold stops a trigger of the running system, until it is released: a schedule by
// its name after the stack's ("sweep", "alerts"), or the work queue's mapping
// ("work"). Drills break what is deployed with it.
func (s *System) Hold(trigger string) { s.gate(trigger).set(false) }

// Release lets a trigger that was held go on.
func (s *System) Release(trigger string) { s.gate(trigger).set(true) }

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

// gate is open or shut. A nil gate is always open.
type gate struct {
	mu      sync.Mutex
	shut    bool
	changed chan struct{}   // closed when it is opened or shut
	open    context.Context // ends when it is shut
	close   context.CancelFunc
}

func newGate() *gate {
	g := &gate{changed: make(chan struct{})}
	g.open, g.close = context.WithCancel(context.Background())
	return g
}

func (g *gate) set(open bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut == !open {
		return
	}
	g.shut = !open
	if open {
		g.open, g.close = context.WithCancel(context.Background())
	} else {
		g.close()
	}
	close(g.changed)
	g.changed = make(chan struct{})
}

// enter waits until the gate is open. The context it returns ends when the gate is
// shut, or with ctx.
func (g *gate) enter(ctx context.Context) (context.Context, context.CancelFunc) {
	if g == nil {
		return context.WithCancel(ctx)
	}
	for {
		g.mu.Lock()
		shut, changed, open := g.shut, g.changed, g.open
		g.mu.Unlock()
		if !shut {
			// Under the gate's own context, so that it has ended when Hold returns: what is
			// queued afterwards stays on the queue.
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
