package destinationtest

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// Gate is a TCP relay between an adapter and its destination. It counts connections,
// and simulates a destination that is down or hangs.
type Gate struct {
	// Address is the address for adapters, host:port.
	Address string

	t        testing.TB
	backend  string
	accepted atomic.Int64
	frozen   atomic.Bool

	mu       sync.Mutex
	listener net.Listener
	open     map[net.Conn]struct{}
	dropped  *atomic.Bool // of the connections that are opened now
}

// NewGate starts a relay to the backend, host:port, for the duration of the test.
func NewGate(t testing.TB, backend string) *Gate {
	t.Helper()
	g := &Gate{t: t, backend: backend, open: map[net.Conn]struct{}{}, dropped: new(atomic.Bool), Address: "127.0.0.1:0"}
	g.Up()
	t.Cleanup(g.Down)
	return g
}

// Accepted returns the number of connections so far.
func (g *Gate) Accepted() int64 { return g.accepted.Load() }

// Up relays connections.
func (g *Gate) Up() {
	g.t.Helper()
	g.frozen.Store(false)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.listener != nil {
		return
	}
	listener, err := net.Listen("tcp", g.Address)
	if err != nil {
		g.t.Fatal(err)
	}
	g.listener, g.Address = listener, listener.Addr().String()
	go func() {
		for {
			front, err := listener.Accept()
			if err != nil {
				return // Down
			}
			g.accepted.Add(1)
			go g.relay(front)
		}
	}()
}

// Down refuses new connections and closes existing ones.
func (g *Gate) Down() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.listener == nil {
		return
	}
	_ = g.listener.Close()
	g.listener = nil
	for c := range g.open {
		_ = c.Close()
	}
	clear(g.open)
}

// Freeze keeps connections open and accepts new ones, but drops all data until Down.
func (g *Gate) Freeze() { g.frozen.Store(true) }

// Drop drops all data of the connections that are open now, and keeps them open, as a NAT
// gateway does that has forgotten them. New connections work.
func (g *Gate) Drop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dropped.Store(true)
	g.dropped = new(atomic.Bool)
}

func (g *Gate) relay(front net.Conn) {
	back, err := net.Dial("tcp", g.backend)
	if err != nil {
		_ = front.Close()
		return
	}
	g.mu.Lock()
	g.open[front], g.open[back] = struct{}{}, struct{}{}
	dropped := g.dropped
	g.mu.Unlock()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{front, back}, {back, front}} {
		both.Go(func() {
			_, _ = io.Copy(writer{g, dropped, way[0]}, way[1])
			_, _ = way[0].Close(), way[1].Close()
		})
	}
	both.Wait()
	g.mu.Lock()
	delete(g.open, front)
	delete(g.open, back)
	g.mu.Unlock()
}

// writer drops data while the gate is frozen, and once its connection is dropped.
type writer struct {
	gate    *Gate
	dropped *atomic.Bool
	to      net.Conn
}

func (w writer) Write(p []byte) (int, error) {
	if w.gate.frozen.Load() || w.dropped.Load() {
		return len(p), nil
	}
	return w.to.Write(p)
}
