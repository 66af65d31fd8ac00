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
func (s *Store) ListAudit(_ context.Context, tenant string, limit int, cursor string) (audit.Page, error) {
	q := delivery.Query{Limit: limit, Cursor: cursor}
	first, last, err := q.Bounds()
	if err != nil {
		return audit.Page{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var page audit.Page
	log := s.audit[tenant]
	if log == nil {
		return page, nil
	}
	log.Descend(last, func(id string, e audit.Entry) bool {
		if id < first {
			return false
		}
		if len(page.Entries) == q.PageSize() {
			page.Next = q.CursorAfter(page.Entries[len(page.Entries)-1].ID)
			return false
		}
		page.Entries = append(page.Entries, e)
		return true
	})
	return page, nil
}
