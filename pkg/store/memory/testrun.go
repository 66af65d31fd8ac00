package memory

import (
	"context"

	"github.com/tidwall/btree"

	"github.com/tidings-dev/tidings/pkg/systemtest/testrun"
)

// testRuns are the runs that are open, and the arrivals of all runs by their key.
type testRuns struct {
	open     map[string]testrun.Run
	arrivals map[string]*btree.Map[string, testrun.Arrival]
}

// PutTestRun: see testreceiver.Store.
func (s *Store) PutTestRun(_ context.Context, r testrun.Run) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.testRuns.open[r.ID] = r
	return nil
}

// GetTestRun: see testreceiver.Store.
func (s *Store) GetTestRun(_ context.Context, id string) (testrun.Run, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.testRuns.open[id]
	if !ok {
		return r, testrun.ErrNotFound
	}
	return r, nil
}

// DeleteTestRun: see testreceiver.Store.
func (s *Store) DeleteTestRun(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.testRuns.open, id)
	return nil
}

// PutArrival: see testreceiver.Store.
func (s *Store) PutArrival(_ context.Context, run testrun.Run, a testrun.Arrival) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.testRuns.arrivals[run.ID]
	if all == nil {
		all = new(btree.Map[string, testrun.Arrival])
		s.testRuns.arrivals[run.ID] = all
	}
	all.Set(a.Key(), a)
	return nil
}

// ListArrivals: see testreceiver.Store.
func (s *Store) ListArrivals(_ context.Context, id, cursor string, limit int) (page testrun.Page, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.testRuns.arrivals[id]
	if all == nil {
		return page, nil
	}
	all.Ascend(cursor, func(key string, a testrun.Arrival) bool {
		switch {
		case key == cursor:
		case len(page.Arrivals) == limit:
			page.Next = page.Arrivals[limit-1].Key()
			return false
		default:
			page.Arrivals = append(page.Arrivals, a)
		}
		return true
	})
	return page, nil
}
