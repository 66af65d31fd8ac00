package memory

import (
	"context"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
)

// Settle: see dispatch.Deliveries.
func (s *Store) Settle(_ context.Context, settle delivery.Settle) error {
	_, err := s.updateDelivery(settle.Key, settle.Apply)
	return err
}

// Park: see dispatch.Deliveries.
func (s *Store) Park(_ context.Context, p delivery.Park) (delivery.Delivery, error) {
	return s.updateDelivery(p.Key, p.Apply)
}

// Release: see dispatch.Waiting.
func (s *Store) Release(_ context.Context, r delivery.Release) (delivery.Delivery, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.find(r.Key)
	if before == nil {
		return delivery.Delivery{}, delivery.ErrFenced
	}
	after, ok := r.Apply(*before)
	if !ok {
		return after, delivery.ErrFenced
	}
	s.save(before, after)
	return after, nil
}

// ListBacklog: see dispatch.Waiting.
func (s *Store) ListBacklog(_ context.Context, endpointID string, limit int) ([]delivery.BacklogEntry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []delivery.BacklogEntry{}
	if set := s.waiting[endpointID]; set != nil {
		set.Scan(func(eventID string) bool {
			key := delivery.Key{EndpointID: endpointID, EventID: eventID}
			list = append(list, delivery.BacklogEntry{Key: key, Attempts: s.find(key).Attempts})
			return len(list) < limit
		})
	}
	return list, nil
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
			return b, nil // our own write, repeated
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

// ReserveSlots: see dispatch.Limits.
func (s *Store) ReserveSlots(_ context.Context, key string, cost time.Duration, now time.Time) (time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	after := ratelimit.Reserve(s.slots[key], now, cost).Truncate(time.Microsecond)
	s.slots[key] = after
	return after, nil
}
