package memory

import (
	"cmp"
	"context"
	"hash/fnv"
	"slices"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// PutEvent: see emit.Events.
func (s *Store) PutEvent(_ context.Context, a event.Accepted) error {
	if _, err := event.IDTime(a.ID); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.events[a.ID]; ok {
		return event.ErrExists
	}
	a.Body = slices.Clone(a.Body)
	a.ExpiresAt = event.RetainedUntil(a.ID, a.RetentionDays).Truncate(time.Second)
	s.events[a.ID] = a
	s.feeds[dynamoitem.Events].add(eventPut{s.now(), a})
	return nil
}

// eventPut is the insertion of an event.
type eventPut struct {
	at    time.Time
	event event.Accepted
}

func (p eventPut) record() events.DynamoDBEventRecord {
	image, size, err := dynamoitem.EventImage(p.event)
	if err != nil {
		panic(err) // PutEvent has checked the id
	}
	return events.DynamoDBEventRecord{
		EventName: string(events.DynamoDBOperationTypeInsert),
		Change: events.DynamoDBStreamRecord{
			ApproximateCreationDateTime: events.SecondsEpochTime{Time: p.at},
			Keys:                        map[string]events.DynamoDBAttributeValue{dynamoitem.EventID: image[dynamoitem.EventID]},
			NewImage:                    image,
			SizeBytes:                   int64(size),
			StreamViewType:              string(events.DynamoDBStreamViewTypeNewImage),
		},
	}
}

// GetEvent: see dispatch.Events.
func (s *Store) GetEvent(_ context.Context, id string) (event.Accepted, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.events[id]
	if !ok {
		return a, event.ErrNotFound
	}
	return a, nil
}

// KeepEvent: see dispatch.Events.
func (s *Store) KeepEvent(_ context.Context, id string, until time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a, ok := s.events[id]; ok && a.ExpiresAt.Before(until.Truncate(time.Second)) {
		a.ExpiresAt = until.UTC().Truncate(time.Second)
		s.events[id] = a
	}
	return nil
}

// scanPage is how many events ScanEvents reads at a time.
const scanPage = 1000

// ScanEvents: see dispatch.StoredEvents.
func (s *Store) ScanEvents(_ context.Context, q event.Scan) (page event.ScanPage, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []string
	for id := range s.events {
		if id > q.Cursor && segmentOf(id, q.Segments) == q.Segment {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	if len(ids) > scanPage {
		ids = ids[:scanPage]
		page.Next = ids[scanPage-1]
	}
	for _, id := range ids {
		if a := s.events[id]; a.Tenant == q.Tenant {
			page.Events = append(page.Events, a)
		}
	}
	return page, nil
}

func segmentOf(id string, segments int) int {
	h := fnv.New32a()
	h.Write([]byte(id))
	return int(h.Sum32() % uint32(segments))
}

// EraseEvent: see dispatch.StoredEvents.
func (s *Store) EraseEvent(_ context.Context, a event.Accepted, e event.Erasure) error {
	erased, err := e.Apply(a)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if held, ok := s.events[a.ID]; ok && held.ErasedAt.IsZero() {
		erased.ExpiresAt = held.ExpiresAt
		s.events[a.ID] = erased
	}
	return nil
}

// rangePage is how many events ScanRange reads at a time.
const rangePage = 1000

// ScanRange: see dispatch.EventScan.
func (s *Store) ScanRange(_ context.Context, q event.RangeScan) (page event.RangePage, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// A table is read in the order of its keys' hashes.
	place := func(id string) uint64 {
		h := fnv.New64a()
		h.Write([]byte(id))
		return h.Sum64()
	}
	var ids []string
	for id := range s.events {
		if place(id)%uint64(q.Segments) == uint64(q.Segment) && (q.After == "" || place(id) > place(q.After)) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b string) int { return cmp.Compare(place(a), place(b)) })
	if len(ids) > rangePage {
		ids = ids[:rangePage]
		page.Next = ids[rangePage-1]
	}
	first, last := event.IDRange(q.From, q.To)
	for _, id := range ids {
		if id >= first && id <= last {
			page.Events = append(page.Events, event.Change{Inserted: true, Key: id, Event: s.events[id]})
		}
	}
	return page, nil
}
