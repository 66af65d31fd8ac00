package memory

import (
	"cmp"
	"slices"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// DeleteExpired deletes the deliveries whose ExpiresAt has passed, as DynamoDB's TTL does,
// and events at the end of their retention. It returns the deliveries. The simulation calls
// it; the local runner lives for less than the retention.
func (s *Store) DeleteExpired() (deleted []delivery.Delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	for _, byEvent := range s.deliveries {
		byEvent.Scan(func(_ string, d *delivery.Delivery) bool {
			if !now.Before(d.ExpiresAt) {
				deleted = append(deleted, *d)
			}
			return true
		})
	}
	slices.SortFunc(deleted, func(a, b delivery.Delivery) int {
		return cmp.Or(cmp.Compare(a.EndpointID, b.EndpointID), cmp.Compare(a.EventID, b.EventID))
	})
	for _, d := range deleted {
		s.deliveries[d.EndpointID].Delete(d.EventID)
		s.due[d.DueShard()].Delete(delivery.Due{Key: d.Key, DueAt: d.DueAt})
		s.unlist(d)
		if waiting := s.waiting[d.EndpointID]; waiting != nil {
			waiting.Delete(d.EventID)
		}
	}
	for id := range s.events {
		if accepted, err := event.IDTime(id); err == nil && !now.Before(accepted.Add(dynamoitem.EventRetention)) {
			delete(s.events, id)
		}
	}
	return deleted
}
