package memory

import (
	"bytes"
	"context"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

type reservation struct {
	event.Reservation
	expires time.Time
}

// ReserveKey: see emit.Keys.
func (s *Store) ReserveKey(_ context.Context, tenant, key string, r event.Reservation, expires time.Time) (event.Reservation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := dynamoitem.IdempotencyKey(tenant, key)
	if holds, ok := s.keys[name]; ok && s.now().Before(holds.expires) {
		return holds.Reservation, nil
	}
	s.keys[name] = reservation{r, expires}
	return r, nil
}

// GetBreaker: see dispatch.Breakers.
func (s *Store) GetBreaker(_ context.Context, tenant, endpointID string, _ bool) (breaker.State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b, ok := s.breakers[endpointID]; ok {
		return b, nil
	}
	return breaker.State{EndpointID: endpointID, Tenant: tenant}, nil
}

// PutBreaker: see dispatch.Breakers.
func (s *Store) PutBreaker(_ context.Context, b breaker.State, _ time.Time) (breaker.State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := b.Version
	b.Version++
	if stored := s.breakers[b.EndpointID]; stored.Version != was {
		if stored == b {
			return b, nil // the same write, repeated
		}
		return b, breaker.ErrConflict
	}
	s.breakers[b.EndpointID] = b
	return b, nil
}

// ListCircuits: see dispatch.Breakers.
func (s *Store) ListCircuits(_ context.Context, by time.Time) ([]breaker.State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []breaker.State
	for _, b := range s.breakers {
		if !b.WakeAt.IsZero() && (by.IsZero() || !b.WakeAt.After(by)) {
			list = append(list, b)
		}
	}
	slices.SortFunc(list, breaker.CompareWakeAt)
	return list, nil
}

// Reserve: see dispatch.Limits.
func (s *Store) Reserve(_ context.Context, key string, r ratelimit.Reservation) (time.Time, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	after, ok := r.Apply(s.slots[key])
	if ok {
		s.slots[key] = after
	}
	return after, ok, nil
}

// ReserveSlots: see testsend.Limits.
func (s *Store) ReserveSlots(_ context.Context, key string, cost time.Duration, now time.Time) (time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	after := ratelimit.Reserve(s.slots[key], now, cost).Truncate(time.Microsecond)
	s.slots[key] = after
	return after, nil
}

// bound is a value or a counter in Control.
type bound struct {
	value   string
	tally   int
	expires time.Time // zero means never
}

func (b bound) valid(now time.Time) bool { return b.expires.IsZero() || now.Before(b.expires) }

// PutValueIfAbsent: see console.SessionStore.
func (s *Store) PutValueIfAbsent(_ context.Context, key, value string, expires time.Time) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if holds, ok := s.bound[key]; ok && holds.valid(s.now()) {
		return holds.value, nil
	}
	s.bound[key] = bound{value: value, expires: expires}
	return value, nil
}

// GetValue: see console.SessionStore.
func (s *Store) GetValue(_ context.Context, key string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if holds, ok := s.bound[key]; ok && holds.valid(s.now()) {
		return holds.value, nil
	}
	return "", nil
}

// DeleteValue deletes a key of console.SessionStore. A missing key is not an error.
func (s *Store) DeleteValue(_ context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.bound, key)
	return nil
}

// IncrementCounter: see console.SessionStore.
func (s *Store) IncrementCounter(_ context.Context, key string, expires time.Time) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.bound[key]
	b.tally++
	b.expires = expires
	s.bound[key] = b
	return b.tally, nil
}

// document is a named document.
type document struct {
	text    []byte
	version int
	writer  string
}

// ReadDocument: see alert.Documents.
func (s *Store) ReadDocument(_ context.Context, name string) (text []byte, version int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.documents[name].text, s.documents[name].version, nil
}

// WriteDocument: see alert.Documents.
func (s *Store) WriteDocument(_ context.Context, name string, text []byte, was int, writer string) (stored bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if held := s.documents[name]; held.version != was {
		return held.version == was+1 && held.writer == writer, nil // the same write, repeated
	}
	s.documents[name] = document{bytes.Clone(text), was + 1, writer}
	return true, nil
}
