package memory

import (
	"context"

	"github.com/tidwall/btree"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/ops/audit"
)

// PutAudit: see console.Audit.
func (s *Store) PutAudit(_ context.Context, e audit.Entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	log := s.audit[e.Tenant]
	if log == nil {
		log = new(btree.Map[string, audit.Entry])
		s.audit[e.Tenant] = log
	}
	log.Set(e.ID, e)
	return nil
}

// ListAudit: see console.Audit.
func (s *Store) ListAudit(_ context.Context, tenant string, limit int, cursor string) (page audit.Page, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	page.Entries, page.Next, err = newestFirst(s.audit[tenant], delivery.Query{Limit: limit, Cursor: cursor})
	return page, err
}

// newestFirst returns a page of rows that are ordered by a ULID, and the cursor of the next.
// rows may be nil.
func newestFirst[T any](rows *btree.Map[string, T], q delivery.Query) (page []T, next string, err error) {
	first, last, err := q.Bounds()
	if err != nil || rows == nil {
		return nil, "", err
	}
	shown := ""
	rows.Descend(last, func(id string, row T) bool {
		if id < first {
			return false
		}
		if len(page) == q.PageSize() {
			next = q.CursorAfter(shown)
			return false
		}
		page, shown = append(page, row), id
		return true
	})
	return page, next, nil
}
