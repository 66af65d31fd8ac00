package memory

import (
	"context"
	"time"

	"github.com/tidwall/btree"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/ops/audit"
)

// bound is a value in Control, or a counter.
type bound struct {
	value   string
	tally   int
	expires time.Time // zero is never
}

func (b bound) living(now time.Time) bool { return b.expires.IsZero() || now.Before(b.expires) }

// Bind: see console.Notes.
func (s *Store) Bind(_ context.Context, key, value string, expires time.Time) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if holds, ok := s.bound[key]; ok && holds.living(s.now()) {
		return holds.value, nil
	}
	s.bound[key] = bound{value: value, expires: expires}
	return value, nil
}

// Bound: see console.Notes.
func (s *Store) Bound(_ context.Context, key string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if holds, ok := s.bound[key]; ok && holds.living(s.now()) {
		return holds.value, nil
	}
	return "", nil
}

// Unbind: see console.Notes.
func (s *Store) Unbind(_ context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.bound, key)
	return nil
}

// Count: see console.Notes.
func (s *Store) Count(_ context.Context, key string, expires time.Time) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.bound[key]
	b.tally++
	b.expires = expires
	s.bound[key] = b
	return b.tally, nil
}

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
