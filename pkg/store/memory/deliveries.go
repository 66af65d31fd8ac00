package memory

import (
	"context"

	"github.com/tidwall/btree"

	"github.com/tidings-dev/tidings/pkg/delivery"
)

// find returns the stored delivery, or nil. It must not be modified; save replaces it.
func (s *Store) find(k delivery.Key) *delivery.Delivery {
	if byEvent := s.deliveries[k.EndpointID]; byEvent != nil {
		if d, ok := byEvent.Get(k.EventID); ok {
			return d
		}
	}
	return nil
}

func (s *Store) save(before *delivery.Delivery, d delivery.Delivery) {
	if before != nil && !before.DueAt.IsZero() {
		s.due[d.DueShard()].Delete(delivery.Due{Key: d.Key, DueAt: before.DueAt})
	}
	if !d.DueAt.IsZero() {
		s.due[d.DueShard()].Set(delivery.Due{Key: d.Key, DueAt: d.DueAt})
	}
	if set := s.waiting[d.EndpointID]; set != nil && !d.InBacklog {
		set.Delete(d.EventID)
	} else if d.InBacklog {
		if set == nil {
			set = new(btree.Set[string])
			s.waiting[d.EndpointID] = set
		}
		set.Insert(d.EventID)
	}
	byEvent := s.deliveries[d.EndpointID]
	if byEvent == nil {
		byEvent = new(btree.Map[string, *delivery.Delivery])
		s.deliveries[d.EndpointID] = byEvent
	}
	byEvent.Set(d.EventID, &d)
}

// updateDelivery applies a transition to a delivery under the lock.
func (s *Store) updateDelivery(k delivery.Key, apply func(*delivery.Delivery) (delivery.Delivery, *delivery.Refusal)) (delivery.Delivery, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.find(k)
	after, refused := apply(before)
	if refused != nil {
		return after, refused
	}
	s.save(before, after)
	return after, nil
}

// Claim: see dispatch.Deliveries.
func (s *Store) Claim(_ context.Context, c delivery.Claim) (delivery.Delivery, error) {
	return s.updateDelivery(c.Key, c.Apply)
}

// Complete: see dispatch.Deliveries.
func (s *Store) Complete(_ context.Context, d delivery.Delivery) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.find(d.Key)
	if before == nil || before.ClaimID != d.ClaimID || before.Attempts != d.Attempts {
		return delivery.ErrFenced
	}
	if before.State != delivery.InFlight {
		if before.State == d.State {
			return nil // the same write, repeated
		}
		return delivery.ErrFenced
	}
	s.save(before, d)
	return nil
}

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

// Replay: see dispatch.Replays.
func (s *Store) Replay(_ context.Context, r delivery.Replay) (delivery.Delivery, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.find(r.Key)
	if before == nil {
		return delivery.Delivery{}, delivery.ErrNotFound
	}
	after, refused := r.Apply(*before)
	if refused != nil {
		return after, refused
	}
	s.save(before, after)
	return after, nil
}

// GetDelivery returns one delivery, or delivery.ErrNotFound.
func (s *Store) GetDelivery(_ context.Context, k delivery.Key) (delivery.Delivery, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.find(k); d != nil {
		return *d, nil
	}
	return delivery.Delivery{}, delivery.ErrNotFound
}

// QueryDeliveries: see dispatch.Replays.
func (s *Store) QueryDeliveries(_ context.Context, q delivery.Query) (delivery.Page, error) {
	first, last, err := q.Bounds()
	if err != nil {
		return delivery.Page{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var page delivery.Page
	byEvent := s.deliveries[q.EndpointID]
	if byEvent == nil {
		return page, nil
	}
	filtered, examined, before := q.State != "" || q.EventType != "", 0, ""
	byEvent.Descend(last, func(id string, d *delivery.Delivery) bool {
		if id < first {
			return false
		}
		if filtered && q.Examine > 0 && examined == q.Examine {
			page.Next = q.CursorAfter(before)
			return false
		}
		examined, before = examined+1, id
		if !q.Matches(*d) {
			return true
		}
		if len(page.Deliveries) == q.PageSize() {
			page.Next = q.CursorAfter(page.Deliveries[len(page.Deliveries)-1].EventID)
			return false
		}
		page.Deliveries = append(page.Deliveries, *d)
		return true
	})
	return page, nil
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
