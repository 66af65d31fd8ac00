package memory

import (
	"context"

	"github.com/tidings-dev/tidings/pkg/delivery"
)

// ListPending: see console.Deliveries.
func (s *Store) ListPending(_ context.Context, q delivery.PendingQuery) (page delivery.PendingPage, err error) {
	_, last, err := q.Bounds()
	if err != nil {
		return page, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []delivery.Key
	for _, id := range q.Endpoints {
		n := 0
		if set := s.waiting[id]; set != nil {
			set.Descend(last, func(eventID string) bool {
				found = append(found, delivery.Key{EndpointID: id, EventID: eventID})
				n++
				return n < q.Limit+2
			})
		}
	}
	for shard := range delivery.DueShards {
		n := 0
		s.due[shard].Scan(func(d delivery.Due) bool {
			if d.DueAt.After(q.DueBy) {
				return false
			}
			if n++; n > q.MaxDue {
				page.Partial = true
				return false
			}
			found = append(found, d.Key)
			return true
		})
	}
	if page.Partial {
		return page, nil
	}
	keys, more, err := q.Page(found)
	for _, k := range keys {
		if d := s.find(k); d != nil && d.State == delivery.Pending {
			page.Deliveries = append(page.Deliveries, *d)
		}
	}
	if more {
		page.Last = keys[len(keys)-1]
	}
	return page, err
}
