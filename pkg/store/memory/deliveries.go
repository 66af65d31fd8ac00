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

// listedPartition is a partition of the index of deliveries by state.
type listedPartition struct {
	endpointID string
	state      delivery.State
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
	if before != nil {
		s.unlist(*before)
	}
	if d.State.Indexed() {
		partition := listedPartition{d.EndpointID, d.State}
		if s.listed[partition] == nil {
			s.listed[partition] = new(btree.Set[string])
		}
		s.listed[partition].Insert(d.EventID)
	}
	byEvent := s.deliveries[d.EndpointID]
	if byEvent == nil {
		byEvent = new(btree.Map[string, *delivery.Delivery])
		s.deliveries[d.EndpointID] = byEvent
	}
	byEvent.Set(d.EventID, &d)
}

// unlist removes a delivery from the index of deliveries by state.
func (s *Store) unlist(d delivery.Delivery) {
	if events := s.listed[listedPartition{d.EndpointID, d.State}]; events != nil {
		events.Delete(d.EventID)
	}
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
	d.ErasedAt = before.ErasedAt // the event may have been erased since the claim
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

// EraseDelivery: see dispatch.Erasures.
func (s *Store) EraseDelivery(_ context.Context, e delivery.Erase) (after delivery.Delivery, was delivery.State, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.find(e.Key)
	if before != nil {
		was = before.State
	}
	after, ok := e.Apply(before)
	if !ok {
		return after, "", delivery.ErrNotFound
	}
	s.save(before, after)
	return after, was, nil
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
	before := ""
	s.descend(q, last, func(id string) bool {
		if id < first {
			return false
		}
		if q.Filtered() && q.Examine > 0 && page.Examined == q.Examine {
			page.Next = q.CursorAfter(before)
			return false
		}
		page.Examined, before = page.Examined+1, id
		d := s.find(delivery.Key{EndpointID: q.EndpointID, EventID: id})
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

// descend goes through the events that a query has to read, from last to the oldest.
func (s *Store) descend(q delivery.Query, last string, visit func(eventID string) bool) {
	if q.State.Indexed() {
		if events := s.listed[listedPartition{q.EndpointID, q.State}]; events != nil {
			events.Descend(last, visit)
		}
		return
	}
	if byEvent := s.deliveries[q.EndpointID]; byEvent != nil {
		byEvent.Descend(last, func(id string, _ *delivery.Delivery) bool { return visit(id) })
	}
}

// ListBacklog: see dispatch.Waiting.
func (s *Store) ListBacklog(_ context.Context, endpointID, after string, limit int) (page delivery.Backlog, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := s.waiting[endpointID]
	if set == nil {
		return page, nil
	}
	set.Ascend(after, func(eventID string) bool {
		if eventID == after {
			return true
		}
		if len(page.Deliveries) == limit {
			page.More = true
			return false
		}
		page.Deliveries = append(page.Deliveries, *s.find(delivery.Key{EndpointID: endpointID, EventID: eventID}))
		page.Last = eventID
		return true
	})
	return page, nil
}

// CountBacklog: see dispatch.Waiting.
func (s *Store) CountBacklog(_ context.Context, endpointID string, limit int) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if set := s.waiting[endpointID]; set != nil {
		return min(set.Len(), limit), nil
	}
	return 0, nil
}
