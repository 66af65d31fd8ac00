package memory

import (
	"context"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/tidwall/btree"

	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// platformTable keeps the platform's records as items, because the records of its stream
// contain items.
type platformTable struct {
	items  map[platform.Key]dynamoitem.Item
	open   *btree.BTreeG[platform.Ending] // by ExpiresAt
	closed *btree.BTreeG[platform.Ending] // by ClosedAt
}

func newPlatformTable() platformTable {
	index := func() *btree.BTreeG[platform.Ending] {
		less := func(a, b platform.Ending) bool { return platform.CompareEndings(a, b) < 0 }
		return btree.NewBTreeGOptions(less, btree.Options{NoLocks: true})
	}
	return platformTable{items: map[platform.Key]dynamoitem.Item{}, open: index(), closed: index()}
}

// indexed returns the index that contains a discussion, and its entry. The index is nil
// if there is none.
func (t platformTable) indexed(item dynamoitem.Item) (*btree.BTreeG[platform.Ending], platform.Ending) {
	if dynamoitem.KindOf(item) != platform.KindDiscussion {
		return nil, platform.Ending{}
	}
	d, err := dynamoitem.DecodeDiscussion(item)
	e := platform.EndingOf(d)
	switch {
	case err != nil || e.At.IsZero():
		return nil, e
	case d.Status == platform.Open:
		return t.open, e
	}
	return t.closed, e
}

// IndexDiscussion does nothing: this store indexes every write.
func (s *Store) IndexDiscussion(context.Context, string, *platform.Discussion, *platform.Discussion) error {
	return nil
}

// AddDiscussion does nothing: this store indexes every write.
func (s *Store) AddDiscussion(context.Context, string, platform.Discussion) error { return nil }

// IndexTable has nothing to do: this store indexes every write.
func (s *Store) IndexTable(context.Context) (platform.Indexed, error) {
	return platform.Indexed{Done: true}, nil
}

// write replaces an item (nil deletes it) and adds the change to the stream. As on AWS, a
// write that changes nothing has no stream record.
func (s *Store) write(k platform.Key, after dynamoitem.Item) {
	before := s.platform.items[k]
	if before == nil && after == nil || before != nil && reflect.DeepEqual(before, after) {
		return
	}
	if index, e := s.platform.indexed(before); index != nil {
		index.Delete(e)
	}
	change := events.DynamoDBStreamRecord{
		ApproximateCreationDateTime: events.SecondsEpochTime{Time: s.now()},
		Keys:                        dynamoitem.Image(dynamoitem.PlatformKey(k)),
		StreamViewType:              string(events.DynamoDBStreamViewTypeNewAndOldImages),
	}
	name := events.DynamoDBOperationTypeModify
	if before == nil {
		name = events.DynamoDBOperationTypeInsert
	} else {
		change.OldImage = dynamoitem.Image(before)
		change.SizeBytes += int64(dynamoitem.Size(before))
	}
	if after == nil {
		name = events.DynamoDBOperationTypeRemove
		delete(s.platform.items, k)
	} else {
		change.NewImage = dynamoitem.Image(after)
		change.SizeBytes += int64(dynamoitem.Size(after))
		s.platform.items[k] = after
		if index, e := s.platform.indexed(after); index != nil {
			index.Set(e)
		}
	}
	s.feeds[dynamoitem.Platform].add(recordWrite{EventName: string(name), Change: change})
}

// recordWrite is a change of one of the platform's records.
type recordWrite events.DynamoDBEventRecord

func (w recordWrite) record() events.DynamoDBEventRecord { return events.DynamoDBEventRecord(w) }

// PutRecord writes one of the platform's records and replaces the existing one.
func (s *Store) PutRecord(_ context.Context, record platform.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.write(record.Key(), dynamoitem.EncodeRecord(record))
	return nil
}

// DeleteRecord deletes one of the platform's records, if it exists.
func (s *Store) DeleteRecord(_ context.Context, k platform.Key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.write(k, nil)
	return nil
}

func (s *Store) discussion(id string) (*platform.Discussion, error) {
	item := s.platform.items[platform.DiscussionKey(id)]
	if item == nil {
		return nil, nil
	}
	d, err := dynamoitem.DecodeDiscussion(item)
	return &d, err
}

// GetDiscussion returns a tenant's discussion, or platform.ErrNotFound.
func (s *Store) GetDiscussion(_ context.Context, tenant, id string) (platform.Discussion, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.discussion(id)
	switch {
	case err != nil:
		return platform.Discussion{}, err
	case d == nil || d.Tenant != tenant:
		return platform.Discussion{}, platform.ErrNotFound
	}
	return *d, nil
}

func (s *Store) updateDiscussion(id string, apply func(*platform.Discussion) (platform.Discussion, error)) (platform.Discussion, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, err := s.discussion(id)
	if err != nil {
		return platform.Discussion{}, err
	}
	after, err := apply(before)
	if err == nil {
		s.write(platform.DiscussionKey(id), dynamoitem.EncodeRecord(after))
	}
	return after, err
}

// ExtendDiscussion moves the end of an open discussion and returns the discussion. It
// fails with platform.ErrNotFound, ErrClosed or ErrNotLater.
func (s *Store) ExtendDiscussion(_ context.Context, x platform.Extension) (platform.Discussion, error) {
	return s.updateDiscussion(x.ID, x.Apply)
}

// CloseDiscussion closes an open discussion and returns it. It fails with
// platform.ErrNotFound, ErrClosed or ErrNotExpired.
func (s *Store) CloseDiscussion(_ context.Context, c platform.Closing) (platform.Discussion, error) {
	return s.updateDiscussion(c.ID, c.Apply)
}

// ListDiscussions returns a page of a tenant's discussions in the order of the view.
func (s *Store) ListDiscussions(_ context.Context, q platform.Query) (platform.Page, error) {
	if err := q.Check(); err != nil {
		return platform.Page{}, err
	}
	from, err := decodeEnding(q.Cursor)
	if err != nil {
		return platform.Page{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var page platform.Page
	take := func(e platform.Ending) bool {
		if q.Cursor != "" && platform.CompareEndings(e, from) == 0 {
			return true // the last one of the previous page
		}
		d, err := s.discussion(e.ID)
		if err != nil || d == nil || !q.Shows(*d) {
			return q.View != platform.ViewExpiring || !e.At.After(q.Until)
		}
		if len(page.Discussions) == q.PageSize() {
			last := page.Discussions[len(page.Discussions)-1]
			page.Next = encodeEnding(platform.EndingOf(last))
			return false
		}
		page.Discussions = append(page.Discussions, *d)
		return true
	}
	switch {
	case q.View != platform.ViewClosed:
		s.platform.open.Ascend(from, take)
	case q.Cursor != "":
		s.platform.closed.Descend(from, take)
	default:
		s.platform.closed.Reverse(take)
	}
	return page, nil
}

func encodeEnding(e platform.Ending) string { return fmt.Sprintf("%d/%s", e.At.UnixMilli(), e.ID) }

// decodeEnding returns the zero value for an empty cursor.
func decodeEnding(cursor string) (platform.Ending, error) {
	if cursor == "" {
		return platform.Ending{}, nil
	}
	at, id, ok := strings.Cut(cursor, "/")
	millis, err := strconv.ParseInt(at, 10, 64)
	if !ok || err != nil || id == "" {
		return platform.Ending{}, fmt.Errorf("invalid cursor %.64q", cursor)
	}
	return platform.Ending{ID: id, At: time.UnixMilli(millis).UTC()}, nil
}

// ExpiredDiscussions returns up to limit open discussions of a shard that expired at or
// before a time, and the cursor of the next page ("" for none).
func (s *Store) ExpiredDiscussions(_ context.Context, shard int, at time.Time, cursor string, limit int) ([]platform.Ending, string, error) {
	from, err := decodeEnding(cursor)
	if err != nil {
		return nil, "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var page []platform.Ending
	next := ""
	s.platform.open.Ascend(from, func(e platform.Ending) bool {
		if e.At.After(at) {
			return false
		}
		if platform.CompareEndings(e, from) == 0 || platform.Shard(e.ID) != shard {
			return true
		}
		if len(page) == limit {
			next = encodeEnding(page[len(page)-1])
			return false
		}
		page = append(page, e)
		return true
	})
	return page, next, nil
}
