package memory

import (
	"context"
	"time"

	"github.com/tidwall/btree"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// failedChanges keeps failed changes by their ID.
type failedChanges struct {
	byID  btree.Map[string, platform.FailedChange]
	stuck platform.StuckCapture
}

// decoded returns a failed change as the codec returns it.
func decoded(f platform.FailedChange) (platform.FailedChange, error) {
	return dynamoitem.DecodeFailedChange(dynamoitem.EncodeFailedChange(f))
}

// KeepFailedChange: see emit.FailedChanges.
func (s *Store) KeepFailedChange(_ context.Context, f platform.FailedChange) (isNew bool, err error) {
	f, err = decoded(f)
	if err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.failed.byID.Get(f.ID); ok {
		return false, nil
	}
	s.failed.byID.Set(f.ID, f)
	return true, nil
}

// GetFailedChange: see emit.Recaptures.
func (s *Store) GetFailedChange(_ context.Context, id string) (platform.FailedChange, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, ok := s.failed.byID.Get(id)
	if !ok {
		return f, platform.ErrNoFailedChange
	}
	return f, nil
}

// FailAgain: see emit.Recaptures.
func (s *Store) FailAgain(_ context.Context, f platform.FailedChange, reason string, at time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	held, ok := s.failed.byID.Get(f.ID)
	if !ok || held.Attempts != f.Attempts {
		return nil // somebody else tried at the same time
	}
	held.Attempts, held.Reason, held.LastTried = held.Attempts+1, reason, at
	held, err := decoded(held)
	if err == nil {
		s.failed.byID.Set(f.ID, held)
	}
	return err
}

// RemoveFailedChange: see emit.Recaptures.
func (s *Store) RemoveFailedChange(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed.byID.Delete(id)
	return nil
}

// ListFailedChanges returns failed changes that were made since from, without their
// records, newest first. A limit of 0 means 100.
func (s *Store) ListFailedChanges(_ context.Context, from time.Time, limit int, cursor string) (platform.FailedChangePage, error) {
	var page platform.FailedChangePage
	q := delivery.Query{From: from, Limit: limit, Cursor: cursor}
	first, last, err := q.Bounds()
	if err != nil {
		return page, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed.byID.Descend(last, func(id string, f platform.FailedChange) bool {
		if id < first {
			return false
		}
		if len(page.Changes) == q.PageSize() {
			page.Next = q.CursorAfter(page.Changes[len(page.Changes)-1].ID)
			return false
		}
		f.Record = nil
		page.Changes = append(page.Changes, f)
		return true
	})
	return page, nil
}

// CountFailedChanges: see health.Capture.
func (s *Store) CountFailedChanges(context.Context) (n int, more bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed.byID.Len(), false, nil
}

// MarkStuckCapture: see emit.StuckCaptures.
func (s *Store) MarkStuckCapture(_ context.Context, mark platform.StuckCapture) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed.stuck.Continues(mark.FailedAt) {
		mark.Since = s.failed.stuck.Since
	}
	mark, err := dynamoitem.DecodeStuckCapture(dynamoitem.EncodeStuckCapture(mark))
	s.failed.stuck = mark
	return err
}

// ClearStuckCapture: see emit.StuckCaptures.
func (s *Store) ClearStuckCapture(_ context.Context, sequenceNumber string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed.stuck.SequenceNumber == sequenceNumber {
		s.failed.stuck = platform.StuckCapture{}
	}
	return nil
}

// ReadStuckCapture: see health.Capture.
func (s *Store) ReadStuckCapture(context.Context) (platform.StuckCapture, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed.stuck, nil
}
