package dispatch

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
)

const (
	// maxCircuits bounds the cache; when it is full, it is emptied.
	maxCircuits = 10_000
	// circuitTries is how often a change is repeated after a write conflict. Conflicts
	// are few: an open circuit does not count further failures.
	circuitTries = 10
)

// circuitCache reads and writes circuit breakers and caches them for CircuitTime.
type circuitCache struct {
	store Breakers
	now   func() time.Time
	newID func() string // unique among all workers
	log   *slog.Logger
	// beforeLock is Config.BeforeLock.
	beforeLock func(context.Context)

	mu      sync.Mutex
	entries map[string]*cachedCircuit
}

// cachedCircuit is one cached breaker. lock protects the other fields; it is a channel
// and not a mutex because it is held during I/O, so waiting for it must be
// cancellable.
type cachedCircuit struct {
	lock  chan struct{}
	at    time.Time
	state breaker.State
}

// lock returns the locked entry of an endpoint.
func (c *circuitCache) lock(ctx context.Context, endpointID string) (*cachedCircuit, error) {
	c.mu.Lock()
	entry := c.entries[endpointID]
	if entry == nil {
		if len(c.entries) >= maxCircuits {
			clear(c.entries)
		}
		entry = &cachedCircuit{lock: make(chan struct{}, 1)}
		c.entries[endpointID] = entry
	}
	c.mu.Unlock()
	c.beforeLock(ctx)
	select {
	case entry.lock <- struct{}{}:
		return entry, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// get returns a circuit's state: at most CircuitTime old, or read now if fresh.
func (c *circuitCache) get(ctx context.Context, tenant, endpointID string, fresh bool) (breaker.State, error) {
	entry, err := c.lock(ctx, endpointID)
	if err != nil {
		return breaker.State{}, err
	}
	defer func() { <-entry.lock }()
	return c.read(ctx, entry, tenant, endpointID, fresh)
}

func (c *circuitCache) read(ctx context.Context, entry *cachedCircuit, tenant, endpointID string, fresh bool) (breaker.State, error) {
	now := c.now()
	if !fresh && now.Sub(entry.at) < CircuitTime {
		return entry.state, nil
	}
	s, err := c.store.GetBreaker(ctx, tenant, endpointID, fresh)
	if errors.Is(err, breaker.ErrUnreadable) {
		// A delivery must not wait for somebody to repair it.
		c.log.ErrorContext(ctx, "circuit.unreadable", "endpoint_id", endpointID, "error", err.Error())
		err = nil
	}
	if err != nil {
		return s, err
	}
	entry.at, entry.state = now, s
	return s, nil
}

// update applies a change and stores the result, if apply says that it changed
// anything. After a write conflict it reads the state and applies the change again. It
// returns the resulting state.
func (c *circuitCache) update(ctx context.Context, tenant, endpointID string, fresh bool, apply func(breaker.State) (breaker.State, bool)) (s breaker.State, changed bool, err error) {
	entry, err := c.lock(ctx, endpointID)
	if err != nil {
		return s, false, err
	}
	defer func() { <-entry.lock }()
	for range circuitTries {
		if s, err = c.read(ctx, entry, tenant, endpointID, fresh); err != nil {
			return s, false, err
		}
		next, changed := apply(s)
		if !changed {
			return s, false, nil
		}
		now := c.now()
		next.WriteID = c.newID()
		next, err = c.store.PutBreaker(ctx, next, now)
		if err == nil {
			entry.at, entry.state = now, next
			return next, true, nil
		}
		entry.at = time.Time{}
		if !errors.Is(err, breaker.ErrConflict) {
			return s, false, err
		}
		fresh = true
	}
	return s, false, err
}
