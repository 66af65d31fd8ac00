package memory

import (
	"cmp"
	"maps"
	"slices"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/journal"
)

// DeleteExpired deletes the deliveries whose ExpiresAt has passed, as DynamoDB's TTL does,
// and with them events and items of the journal. It returns the deliveries. The simulation
// calls it; the local runner lives for less than the retention.
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
	maps.DeleteFunc(s.events, func(_ string, a event.Accepted) bool { return !now.Before(a.ExpiresAt) })
	for _, items := range s.journal {
		var old []string
		items.Scan(func(key string, i journal.Item) bool {
			if !now.Before(event.RetainedUntil(i.Entries[len(i.Entries)-1].ID, i.RetentionDays)) {
				old = append(old, key)
			}
			return true
		})
		for _, key := range old {
			items.Delete(key)
		}
	}
	return deleted
}
