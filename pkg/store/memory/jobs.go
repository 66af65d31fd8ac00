package memory

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/tidwall/btree"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
)

// GetJob: see dispatch.Jobs.
func (s *Store) GetJob(_ context.Context, k jobs.Key) (jobs.Job, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if list := s.jobs[k.Tenant]; list != nil {
		if j, ok := list.Get(strings.TrimPrefix(k.ID, "job_")); ok {
			return j, nil
		}
	}
	return jobs.Job{}, jobs.ErrNotFound
}

// PutJob: see dispatch.Jobs.
func (s *Store) PutJob(_ context.Context, j jobs.Job) (jobs.Job, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.jobs[j.Tenant]
	if list == nil {
		list = new(btree.Map[string, jobs.Job])
		s.jobs[j.Tenant] = list
	}
	id := strings.TrimPrefix(j.ID, "job_")
	stored, _ := list.Get(id)
	was := j.Version
	j.Version++
	j.Counts = maps.Clone(j.Counts)
	if stored.Version != was {
		if reflect.DeepEqual(stored, j) {
			return j, nil // the same write, repeated
		}
		return j, jobs.ErrConflict
	}
	list.Set(id, j)
	return j, nil
}

// ListJobs: see console.Jobs.
func (s *Store) ListJobs(_ context.Context, q jobs.Query) (page jobs.Page, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	page.Jobs, page.Next, err = newestFirst(s.jobs[q.Tenant], delivery.Query{Limit: q.Limit, Cursor: q.Cursor})
	return page, err
}

// DueJobs: see dispatch.Jobs.
func (s *Store) DueJobs(_ context.Context, by time.Time, limit int) ([]jobs.Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var due []jobs.Job
	for _, list := range s.jobs {
		list.Scan(func(_ string, j jobs.Job) bool {
			if at := j.CheckAt(); !at.IsZero() && !at.After(by) {
				due = append(due, j)
			}
			return true
		})
	}
	slices.SortFunc(due, func(a, b jobs.Job) int { return a.CheckAt().Compare(b.CheckAt()) })
	var keys []jobs.Key
	for _, j := range due[:min(len(due), limit)] {
		keys = append(keys, jobs.Key{Tenant: j.Tenant, ID: j.ID})
	}
	return keys, nil
}
