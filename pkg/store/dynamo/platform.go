package dynamo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// PutRecord writes one of the platform's records and replaces the existing one.
func (s *Store) PutRecord(ctx context.Context, record platform.Record) error {
	if _, _, err := s.put(ctx, s.tables.Platform, &dynamodb.PutItemInput{Item: dynamoitem.EncodeRecord(record)}); err != nil {
		return fmt.Errorf("put a %s: %w", record.Kind(), err)
	}
	return nil
}

// DeleteRecord deletes one of the platform's records, if it exists.
func (s *Store) DeleteRecord(ctx context.Context, k platform.Key) error {
	out, err := s.db.DeleteItem(ctx, &dynamodb.DeleteItemInput{
		TableName: &s.tables.Platform, Key: dynamoitem.PlatformKey(k), ReturnConsumedCapacity: s.returnCapacity(),
	})
	if err != nil {
		return fmt.Errorf("delete %s: %w", k.PK, err)
	}
	s.recordWrite(out.ConsumedCapacity)
	return nil
}

// GetDiscussion returns a tenant's discussion, or platform.ErrNotFound.
func (s *Store) GetDiscussion(ctx context.Context, tenant, id string) (platform.Discussion, error) {
	item, err := s.get(ctx, s.tables.Platform, dynamoitem.PlatformKey(platform.DiscussionKey(id)), true)
	if err != nil {
		return platform.Discussion{}, fmt.Errorf("get discussion %s: %w", id, err)
	}
	if item == nil {
		return platform.Discussion{}, platform.ErrNotFound
	}
	d, err := dynamoitem.DecodeDiscussion(item)
	if err == nil && d.Tenant != tenant {
		err = platform.ErrNotFound
	}
	return d, err
}

// updateDiscussion applies a conditional update to a discussion. If the condition fails,
// apply, which is the same transition, gives the error for the stored discussion.
func (s *Store) updateDiscussion(ctx context.Context, id string, u update, condition string,
	apply func(*platform.Discussion) (platform.Discussion, error)) (platform.Discussion, error) {
	after, stored, ok, err := s.update(ctx, s.tables.Platform, dynamoitem.PlatformKey(platform.DiscussionKey(id)), u, condition)
	switch {
	case err != nil:
		return platform.Discussion{}, err
	case ok:
		return dynamoitem.DecodeDiscussion(after)
	case stored == nil:
		return apply(nil)
	}
	before, err := dynamoitem.DecodeDiscussion(stored)
	if err != nil {
		return before, err
	}
	d, err := apply(&before)
	if err == nil && d != before {
		err = errors.New("the discussion changed during the write; try again")
	}
	return d, err
}

// ofTenant returns the condition that a record belongs to the tenant. A record without a
// tenant belongs to the default tenant.
func ofTenant(u *update, tenant string) string {
	u.values[":owner"] = dynamoitem.S(tenant)
	u.values[":default"] = dynamoitem.S(event.DefaultTenant)
	return "(#tenant = :owner OR (attribute_not_exists(#tenant) AND :owner = :default))"
}

// ExtendDiscussion moves the end of an open discussion and returns the discussion. It
// fails with platform.ErrNotFound, ErrClosed or ErrNotLater.
func (s *Store) ExtendDiscussion(ctx context.Context, x platform.Extension) (platform.Discussion, error) {
	u := update{values: dynamoitem.Item{":open": dynamoitem.S(string(platform.Open))}}
	u.set(dynamoitem.ExpiresAt, dynamoitem.Millis(x.To))
	u.set(dynamoitem.ExpiringShard, dynamoitem.N(int64(platform.Shard(x.ID))))
	u.set(dynamoitem.UpdatedAt, dynamoitem.Millis(x.At))
	if x.By != "" {
		u.set(dynamoitem.ExtendedBy, dynamoitem.S(x.By))
	} else {
		u.remove(dynamoitem.ExtendedBy)
	}
	d, err := s.updateDiscussion(ctx, x.ID, u, "#status = :open AND #expires_at < :expires_at AND "+ofTenant(&u, x.Tenant), x.Apply)
	return d, wrapDiscussion(err, "extend", x.ID)
}

// CloseDiscussion closes an open discussion and returns it. It fails with
// platform.ErrNotFound, ErrClosed or ErrNotExpired: a discussion can be closed as
// expired only if it has not been extended in the meantime.
func (s *Store) CloseDiscussion(ctx context.Context, c platform.Closing) (platform.Discussion, error) {
	u := update{values: dynamoitem.Item{":open": dynamoitem.S(string(platform.Open))}}
	u.set(dynamoitem.Status, dynamoitem.S(string(platform.Closed)))
	u.set(dynamoitem.ClosedAt, dynamoitem.Millis(c.At))
	u.set(dynamoitem.ClosedShard, dynamoitem.N(int64(platform.Shard(c.ID))))
	u.set(dynamoitem.CloseReason, dynamoitem.S(string(c.Reason)))
	u.set(dynamoitem.UpdatedAt, dynamoitem.Millis(c.At))
	u.remove(dynamoitem.ExpiringShard)
	if c.By != "" {
		u.set(dynamoitem.ClosedBy, dynamoitem.S(c.By))
	}
	condition := "#status = :open AND "
	if c.Reason == platform.Expired {
		condition += "#expires_at <= :closed_at"
	} else {
		condition += ofTenant(&u, c.Tenant)
	}
	d, err := s.updateDiscussion(ctx, c.ID, u, condition, c.Apply)
	return d, wrapDiscussion(err, "close", c.ID)
}

// wrapDiscussion adds the discussion to an error, except to those that callers compare.
func wrapDiscussion(err error, operation, id string) error {
	for _, known := range []error{nil, platform.ErrNotFound, platform.ErrClosed, platform.ErrNotLater, platform.ErrNotExpired} {
		if errors.Is(err, known) {
			return err
		}
	}
	return fmt.Errorf("%s discussion %s: %w", operation, id, err)
}

// endings reads one shard of an index of discussions, page by page.
type endings struct {
	in    dynamodb.QueryInput
	at    string // the time attribute of the index
	page  []platform.Ending
	done  bool             // no more pages
	after *platform.Ending // the last one taken, for the cursor; nil before the first
}

func (s *Store) endings(shard int, index, at, shardName string, condition string, values dynamoitem.Item, ascending bool, limit int) *endings {
	values = mergeItems(values, dynamoitem.Item{":shard": dynamoitem.N(int64(shard))})
	return &endings{at: at, in: dynamodb.QueryInput{
		TableName: &s.tables.Platform, IndexName: aws.String(index),
		KeyConditionExpression:    aws.String(shardName + " = :shard" + condition),
		ExpressionAttributeValues: values, ScanIndexForward: aws.Bool(ascending), Limit: aws.Int32(int32(limit)),
		ReturnConsumedCapacity: s.returnCapacity(),
	}}
}

func mergeItems(a, b dynamoitem.Item) dynamoitem.Item {
	merged := maps.Clone(a)
	maps.Copy(merged, b)
	return merged
}

// from continues after an entry.
func (e *endings) from(shard int, shardName string, after platform.Ending) {
	e.after = &after
	e.in.ExclusiveStartKey = mergeItems(dynamoitem.PlatformKey(platform.DiscussionKey(after.ID)),
		dynamoitem.Item{shardName: dynamoitem.N(int64(shard)), e.at: dynamoitem.Millis(after.At)})
}

// fill reads pages until there is an entry or no more pages.
func (e *endings) fill(ctx context.Context, s *Store) error {
	for len(e.page) == 0 && !e.done {
		out, err := s.db.Query(ctx, &e.in)
		if err != nil {
			return fmt.Errorf("query the index %s: %w", *e.in.IndexName, err)
		}
		s.recordRead(out.ConsumedCapacity)
		for _, item := range out.Items {
			one, err := dynamoitem.DecodeEnding(item, e.at)
			if err != nil {
				return err
			}
			e.page = append(e.page, one)
		}
		e.in.ExclusiveStartKey = out.LastEvaluatedKey
		e.done = out.LastEvaluatedKey == nil
	}
	return nil
}

// ListDiscussions returns a page of a tenant's discussions in the order of the view. The
// index is eventually consistent; the discussions are read from the table.
func (s *Store) ListDiscussions(ctx context.Context, q platform.Query) (platform.Page, error) {
	if err := q.Check(); err != nil {
		return platform.Page{}, err
	}
	places, err := decodePlaces(q.Cursor)
	if err != nil {
		return platform.Page{}, err
	}
	index, at, shardName, condition, ascending := dynamoitem.ExpiringIndex, dynamoitem.ExpiresAt, dynamoitem.ExpiringShard, "", true
	values := dynamoitem.Item{}
	switch q.View {
	case platform.ViewExpiring:
		condition = " AND " + at + " <= :until"
		values[":until"] = dynamoitem.Millis(q.Until)
	case platform.ViewClosed:
		index, at, shardName, ascending = dynamoitem.ClosedIndex, dynamoitem.ClosedAt, dynamoitem.ClosedShard, false
	}
	shards := make([]*endings, platform.Shards)
	for i := range shards {
		shards[i] = s.endings(i, index, at, shardName, condition, values, ascending, q.PageSize())
		if place, ok := places[i]; ok {
			shards[i].from(i, shardName, place)
		}
	}
	var page platform.Page
	for {
		var ids []string
		for len(ids) < q.PageSize()-len(page.Discussions) {
			next := -1
			for i, shard := range shards {
				if err := shard.fill(ctx, s); err != nil {
					return page, err
				}
				if len(shard.page) > 0 && (next < 0 || (platform.CompareEndings(shard.page[0], shards[next].page[0]) < 0) == ascending) {
					next = i
				}
			}
			if next < 0 {
				break
			}
			taken := shards[next].page[0]
			shards[next].page, shards[next].after = shards[next].page[1:], &taken
			ids = append(ids, taken.ID)
		}
		if len(ids) == 0 {
			return page, nil
		}
		found, err := s.discussions(ctx, ids)
		if err != nil {
			return page, err
		}
		for _, id := range ids {
			if d, ok := found[id]; ok && q.Shows(d) {
				page.Discussions = append(page.Discussions, d)
			}
		}
		if len(page.Discussions) == q.PageSize() {
			break
		}
	}
	for _, shard := range shards {
		if !shard.done || len(shard.page) > 0 {
			page.Next = encodePlaces(shards)
			return page, nil
		}
	}
	return page, nil
}

// discussions reads discussions by id. It omits those that are missing or cannot be
// decoded: one malformed record must not hide the others.
func (s *Store) discussions(ctx context.Context, ids []string) (map[string]platform.Discussion, error) {
	found := map[string]platform.Discussion{}
	keys := make([]dynamoitem.Item, len(ids))
	for i, id := range ids {
		keys[i] = dynamoitem.PlatformKey(platform.DiscussionKey(id))
	}
	items, err := s.getAll(ctx, s.tables.Platform, types.KeysAndAttributes{Keys: keys, ConsistentRead: aws.Bool(true)})
	if err != nil {
		return nil, fmt.Errorf("get %d discussions: %w", len(ids), err)
	}
	for _, item := range items {
		if d, err := dynamoitem.DecodeDiscussion(item); err == nil {
			found[d.ID] = d
		}
	}
	return found, nil
}

// place is the last entry of a shard on a page, as stored in a cursor.
type place struct {
	Shard int
	At    int64 // epoch ms
	ID    string
}

func encodePlaces(shards []*endings) string {
	var list []place
	for i, shard := range shards {
		if shard.after != nil {
			list = append(list, place{i, shard.after.At.UnixMilli(), shard.after.ID})
		}
	}
	return encodeCursor(list)
}

func decodePlaces(cursor string) (map[int]platform.Ending, error) {
	places := map[int]platform.Ending{}
	if cursor == "" {
		return places, nil
	}
	var list []place
	err := decodeCursor(cursor, &list)
	if err != nil || slices.ContainsFunc(list, func(p place) bool { return p.ID == "" || p.Shard != platform.Shard(p.ID) }) {
		return nil, fmt.Errorf("invalid cursor %.64q", cursor)
	}
	for _, p := range list {
		places[p.Shard] = platform.Ending{ID: p.ID, At: time.UnixMilli(p.At).UTC()}
	}
	return places, nil
}

// ExpiredDiscussions returns up to limit open discussions of a shard that expired at or
// before a time, and the cursor of the next page ("" for none). The index is eventually
// consistent; CloseDiscussion checks the expiry again.
func (s *Store) ExpiredDiscussions(ctx context.Context, shard int, at time.Time, cursor string, limit int) ([]platform.Ending, string, error) {
	places, err := decodePlaces(cursor)
	if err != nil {
		return nil, "", err
	}
	e := s.endings(shard, dynamoitem.ExpiringIndex, dynamoitem.ExpiresAt, dynamoitem.ExpiringShard, " AND expires_at <= :at", dynamoitem.Item{":at": dynamoitem.Millis(at)}, true, limit)
	if place, ok := places[shard]; ok {
		e.from(shard, dynamoitem.ExpiringShard, place)
	}
	if err := e.fill(ctx, s); err != nil {
		return nil, "", err
	}
	if e.done || len(e.page) == 0 {
		return e.page, "", nil
	}
	last := e.page[len(e.page)-1]
	return e.page, encodeCursor([]place{{shard, last.At.UnixMilli(), last.ID}}), nil
}
