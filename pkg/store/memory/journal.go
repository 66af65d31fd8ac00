package memory

import (
	"context"

	"github.com/tidwall/btree"

	"github.com/tidings-dev/tidings/pkg/event/journal"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// journalPage is how many items QueryJournal returns at a time.
const journalPage = 100

// PutJournal: see dispatch.Journal.
func (s *Store) PutJournal(_ context.Context, i journal.Item) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	partition := dynamoitem.JournalPartition(i.Tenant, i.Shard())
	items := s.journal[partition]
	if items == nil {
		items = new(btree.Map[string, journal.Item])
		s.journal[partition] = items
	}
	items.Set(i.Key(), i)
	return nil
}

// QueryJournal: see journal.Source.
func (s *Store) QueryJournal(_ context.Context, r journal.Range) (found []journal.Item, more bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	items := s.journal[dynamoitem.JournalPartition(r.Tenant, r.Shard)]
	if items == nil {
		return nil, false, nil
	}
	items.Descend(r.Before, func(key string, i journal.Item) bool {
		if key == r.Before {
			return true
		}
		if key < r.First {
			return false
		}
		if more = len(found) == journalPage; more {
			return false
		}
		found = append(found, i)
		return true
	})
	return found, more, nil
}
