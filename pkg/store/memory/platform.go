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

// platformTable keeps the platform's records as items, because its stream tells
// of items: their images before and after.
type platformTable struct {
	items  map[platform.Key]dynamoitem.Item
	open   *btree.BTreeG[platform.Ending] // by ExpiresAt
	closed *btree.BTreeG[platform.Ending] // by ClosedAt
}

func newPlatformTable() platformTable {
	index := func() *btree.BTreeG[platform.Ending] {
		return btree.NewBTreeGOptions(endsBefore, btree.Options{NoLocks: true})
	}
	return platformTable{items: map[platform.Key]dynamoitem.Item{}, open: index(), closed: index()}
}

func endsBefore(a, b platform.Ending) bool {
	if c := a.At.Compare(b.At); c != 0 {
		return c < 0
	}
	return a.ID < b.ID
}

// indexed is a discussion's place in the indexes; nil where it stands in none.
func (t platformTable) indexed(item dynamoitem.Item) (*btree.BTreeG[platform.Ending], platform.Ending) {
	if dynamoitem.KindOf(item) != platform.KindDiscussion {
		return nil, platform.Ending{}
	}
	for _, index := range []struct {
		of        *btree.BTreeG[platform.Ending]
		shard, at string
	}{{t.open, dynamoitem.ExpiringShard, dynamoitem.ExpiresAt}, {t.closed, dynamoitem.ClosedShard, dynamoitem.ClosedAt}} {
		if item[index.shard] == nil {
			continue
		}
		if e, err := dynamoitem.DecodeEnding(item, index.at); err == nil {
			return index.of, e
		}
	}
	return nil, platform.Ending{}
}

// write puts an item in the place of what stood there (nil removes it) and tells
// the stream. A write that changes nothing tells nobody, as on AWS.
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

// PutRecord writes one of the platform's records, as the platform does: whole,
// over whatever stood there.
func (s *Store) PutRecord(_ context.Context, record platform.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.write(record.Key(), dynamoitem.EncodeRecord(record))
	return nil
}

// DeleteRecord removes one of the platform's records; one that is not there is
// no error.
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

func (s *Store) moveDiscussion(id string, apply func(*platform.Discussion) (platform.Discussion, error)) (platform.Discussion, error) {
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

// ExtendDiscussion gives an open discussion more time and returns it:
// platform.ErrNotFound, ErrClosed or ErrNotLater where that can't be.
func (s *Store) ExtendDiscussion(_ context.Context, x platform.Extension) (platform.Discussion, error) {
	return s.moveDiscussion(x.ID, x.Apply)
}

// CloseDiscussion closes an open discussion and returns it: platform.ErrNotFound,
// ErrClosed or ErrNotExpired where that can't be.
func (s *Store) CloseDiscussion(_ context.Context, c platform.Closing) (platform.Discussion, error) {
	return s.moveDiscussion(c.ID, c.Apply)
}

// ListDiscussions returns a page of a tenant's discussions in their view's order.
func (s *Store) ListDiscussions(_ context.Context, q platform.Query) (platform.Page, error) {
	if err := q.Check(); err != nil {
		return platform.Page{}, err
	}
	var from platform.Ending
	if q.Cursor != "" {
		var err error
		if from, err = decodeEnding(q.Cursor); err != nil {
			return platform.Page{}, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var page platform.Page
	take := func(e platform.Ending) bool {
		if q.Cursor != "" && e == from {
			return true // the page before ended with it
		}
		d, err := s.discussion(e.ID)
		if err != nil || d == nil || !q.Shows(*d) {
			return q.View != platform.ViewExpiring || !e.At.After(q.Until)
		}
		if len(page.Discussions) == q.PageSize() {
			last := page.Discussions[len(page.Discussions)-1]
			at := last.ExpiresAt
			if q.View == platform.ViewClosed {
				at = last.ClosedAt
			}
			page.Next = encodeEnding(platform.Ending{ID: last.ID, At: at})
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

func decodeEnding(cursor string) (platform.Ending, error) {
	at, id, ok := strings.Cut(cursor, "/")
	millis, err := strconv.ParseInt(at, 10, 64)
	if !ok || err != nil || id == "" {
		return platform.Ending{}, fmt.Errorf("cursor %q is not one that a page ended with", cursor)
	}
	return platform.Ending{ID: id, At: time.UnixMilli(millis).UTC()}, nil
}

// ExpiredDiscussions returns up to limit open discussions of a shard whose time
// was over at a moment, and the cursor of those that follow ("" for none).
func (s *Store) ExpiredDiscussions(_ context.Context, shard int, at time.Time, cursor string, limit int) ([]platform.Ending, string, error) {
	var from platform.Ending
	if cursor != "" {
		var err error
		if from, err = decodeEnding(cursor); err != nil {
			return nil, "", err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var page []platform.Ending
	next := ""
	s.platform.open.Ascend(from, func(e platform.Ending) bool {
		if e.At.After(at) {
			return false
		}
		if e == from || platform.Shard(e.ID) != shard {
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
