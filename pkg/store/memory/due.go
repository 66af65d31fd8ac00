package memory

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
)

func dueBefore(a, b delivery.Due) bool {
	return cmp.Or(a.DueAt.Compare(b.DueAt), cmp.Compare(a.EndpointID, b.EndpointID), cmp.Compare(a.EventID, b.EventID)) < 0
}

// Due: see dispatch.DueIndex.
func (s *Store) Due(_ context.Context, shard int, before time.Time, cursor string, limit int) ([]delivery.Due, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var from delivery.Due
	if cursor != "" {
		var err error
		if from, err = decodeDue(cursor); err != nil {
			return nil, "", err
		}
	}
	var page []delivery.Due
	next := ""
	s.due[shard].Ascend(from, func(d delivery.Due) bool {
		if d.DueAt.After(before) {
			return false
		}
		if cursor != "" && !dueBefore(from, d) {
			return true // the last one of the previous page
		}
		if len(page) == limit {
			next = encodeDue(page[len(page)-1])
			return false
		}
		page = append(page, d)
		return true
	})
	return page, next, nil
}

func encodeDue(d delivery.Due) string {
	return fmt.Sprintf("%d/%s/%s", d.DueAt.UnixNano(), d.EndpointID, d.EventID)
}

func decodeDue(cursor string) (d delivery.Due, err error) {
	parts := strings.SplitN(cursor, "/", 3)
	var nanos int64
	if len(parts) == 3 {
		nanos, err = strconv.ParseInt(parts[0], 10, 64)
	}
	if len(parts) != 3 || err != nil {
		return d, fmt.Errorf("invalid cursor %.64q", cursor)
	}
	return delivery.Due{Key: delivery.Key{EndpointID: parts[1], EventID: parts[2]}, DueAt: time.Unix(0, nanos).UTC()}, nil
}

// Postpone: see dispatch.DueIndex.
func (s *Store) Postpone(_ context.Context, due delivery.Due, to time.Time) (delivery.Delivery, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.find(due.Key)
	if before == nil || before.DueAt.IsZero() || !before.DueAt.Equal(due.DueAt) {
		return delivery.Delivery{}, delivery.ErrFenced
	}
	after := *before
	after.DueAt = to
	s.save(before, after)
	return after, nil
}

// CountDue: see dispatch.DueIndex.
func (s *Store) CountDue(_ context.Context, shard int, after time.Time, limit int) (n int, more bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.due[shard].Ascend(delivery.Due{DueAt: after}, func(d delivery.Due) bool {
		if !d.DueAt.After(after) {
			return true
		}
		more = n == limit
		if !more {
			n++
		}
		return !more
	})
	return n, more, nil
}
