package dynamo

import (
	"context"
	"encoding/base64"
	"encoding/json"
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

// PutRecord writes one of the platform's records, as the platform does: whole,
// over whatever stood there.
func (s *Store) PutRecord(ctx context.Context, record platform.Record) error {
	out, err := s.db.PutItem(ctx, &dynamodb.PutItemInput{
		TableName: &s.tables.Platform, Item: dynamoitem.EncodeRecord(record), ReturnConsumedCapacity: s.returnCapacity(),
	})
	if err != nil {
		return fmt.Errorf("put a %s: %w", record.Kind(), err)
	}
	s.recordWrite(out.ConsumedCapacity)
	return nil
}

// DeleteRecord removes one of the platform's records; one that is not there is
// no error.
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
	out, err := s.db.GetItem(ctx, &dynamodb.GetItemInput{
		TableName: &s.tables.Platform, Key: dynamoitem.PlatformKey(platform.DiscussionKey(id)),
		ConsistentRead: aws.Bool(true), ReturnConsumedCapacity: s.returnCapacity(),
	})
	if err != nil {
		return platform.Discussion{}, fmt.Errorf("get discussion %s: %w", id, err)
	}
	s.recordRead(out.ConsumedCapacity)
	if out.Item == nil {
		return platform.Discussion{}, platform.ErrNotFound
	}
	d, err := dynamoitem.DecodeDiscussion(out.Item)
	if err == nil && d.Tenant != tenant {
		err = platform.ErrNotFound
	}
	return d, err
}

// moveDiscussion applies an update to a discussion under a condition. Where the
// condition failed, apply is what the transition says of the discussion as it is.
func (s *Store) moveDiscussion(ctx context.Context, id string, u update, condition string,
	apply func(*platform.Discussion) (platform.Discussion, error)) (platform.Discussion, error) {
	expression := u.expression()
	out, err := s.db.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName: &s.tables.Platform, Key: dynamoitem.PlatformKey(platform.DiscussionKey(id)),
		UpdateExpression: &expression, ConditionExpression: &condition,
		ExpressionAttributeNames: names(expression, condition), ExpressionAttributeValues: u.values,
		ReturnValues:                        types.ReturnValueAllNew,
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
		ReturnConsumedCapacity:              s.returnCapacity(),
	})
	if old, failed := conditionFailed(err); failed {
		if old == nil {
			return apply(nil)
		}
		d, err := dynamoitem.DecodeDiscussion(old)
		if err != nil {
			return d, err
		}
		after, err := apply(&d)
		if err == nil && after != d {
			err = errors.New("what DynamoDB refused is allowed by the transition")
		}
		return after, err
	}
	if err != nil {
		return platform.Discussion{}, err
	}
	s.recordWrite(out.ConsumedCapacity)
	return dynamoitem.DecodeDiscussion(out.Attributes)
}

// ofTenant is the condition that a record is the tenant's; one that names none
// is the default tenant's.
func ofTenant(u *update, tenant string) string {
	u.values[":owner"] = dynamoitem.S(tenant)
	u.values[":default"] = dynamoitem.S(event.DefaultTenant)
	return "(#tenant = :owner OR (attribute_not_exists(#tenant) AND :owner = :default))"
}

// ExtendDiscussion gives an open discussion more time and returns it:
// platform.ErrNotFound, ErrClosed or ErrNotLater where that can't be.
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
	d, err := s.moveDiscussion(ctx, x.ID, u, "#status = :open AND #expires_at < :expires_at AND "+ofTenant(&u, x.Tenant), x.Apply)
	return d, about(err, "extend", x.ID)
}

// CloseDiscussion closes an open discussion and returns it: platform.ErrNotFound,
// ErrClosed or ErrNotExpired where that can't be. One that is closed for its
// expiry must have expired at that moment: an extension that came before wins.
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
	d, err := s.moveDiscussion(ctx, c.ID, u, condition, c.Apply)
	return d, about(err, "close", c.ID)
}

// about says which discussion an error is about, unless it is one that callers
// tell apart.
func about(err error, what, id string) error {
	for _, known := range []error{nil, platform.ErrNotFound, platform.ErrClosed, platform.ErrNotLater, platform.ErrNotExpired} {
		if errors.Is(err, known) {
			return err
		}
	}
	return fmt.Errorf("%s discussion %s: %w", what, id, err)
}

// endings is one shard of an index of discussions, read page by page.
type endings struct {
	in   dynamodb.QueryInput
	at   string // the index's time
	page []platform.Ending
	done bool
	// after is the last one that was taken, for the cursor; nil before the first.
	after *platform.Ending
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

// from begins after a place.
func (e *endings) from(shard int, shardName string, after platform.Ending) {
	e.after = &after
	e.in.ExclusiveStartKey = mergeItems(dynamoitem.PlatformKey(platform.DiscussionKey(after.ID)),
		dynamoitem.Item{shardName: dynamoitem.N(int64(shard)), e.at: dynamoitem.Millis(after.At)})
}

// fill sees to it that the next one is there, or that none is.
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

// ListDiscussions returns a page of a tenant's discussions in their view's order.
// The index follows the table by moments; what is shown is as the table has it.
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
				if len(shard.page) > 0 && (next < 0 || before(shard.page[0], shards[next].page[0]) == ascending) {
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
			page.Next, err = encodePlaces(shards)
			return page, err
		}
	}
	return page, nil
}

func before(a, b platform.Ending) bool {
	if c := a.At.Compare(b.At); c != 0 {
		return c < 0
	}
	return a.ID < b.ID
}

// discussions returns those of the ids that are there, as they are now. What
// can't be read is left out: one broken record must not hide the others.
func (s *Store) discussions(ctx context.Context, ids []string) (map[string]platform.Discussion, error) {
	found := map[string]platform.Discussion{}
	keys := make([]dynamoitem.Item, len(ids))
	for i, id := range ids {
		keys[i] = dynamoitem.PlatformKey(platform.DiscussionKey(id))
	}
	for wait := 50 * time.Millisecond; len(keys) > 0; wait *= 2 {
		out, err := s.db.BatchGetItem(ctx, &dynamodb.BatchGetItemInput{
			RequestItems:           map[string]types.KeysAndAttributes{s.tables.Platform: {Keys: keys, ConsistentRead: aws.Bool(true)}},
			ReturnConsumedCapacity: s.returnCapacity(),
		})
		if err != nil {
			return nil, fmt.Errorf("get %d discussions: %w", len(ids), err)
		}
		for i := range out.ConsumedCapacity {
			s.recordRead(&out.ConsumedCapacity[i])
		}
		for _, item := range out.Responses[s.tables.Platform] {
			if d, err := dynamoitem.DecodeDiscussion(item); err == nil {
				found[d.ID] = d
			}
		}
		// DynamoDB leaves out what it has no throughput for just now.
		keys = out.UnprocessedKeys[s.tables.Platform].Keys
		if len(keys) > 0 {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}
	return found, nil
}

// place is where a shard's part of a page ended, as a cursor says it.
type place struct {
	Shard int
	At    int64 // epoch ms
	ID    string
}

func encodePlaces(shards []*endings) (string, error) {
	var list []place
	for i, shard := range shards {
		if shard.after != nil {
			list = append(list, place{i, shard.after.At.UnixMilli(), shard.after.ID})
		}
	}
	text, err := json.Marshal(list)
	return base64.RawURLEncoding.EncodeToString(text), err
}

func decodePlaces(cursor string) (map[int]platform.Ending, error) {
	places := map[int]platform.Ending{}
	if cursor == "" {
		return places, nil
	}
	var list []place
	text, err := base64.RawURLEncoding.DecodeString(cursor)
	if err == nil {
		err = json.Unmarshal(text, &list)
	}
	wrong := err != nil || slices.ContainsFunc(list, func(p place) bool { return p.ID == "" || p.Shard != platform.Shard(p.ID) })
	if wrong {
		return nil, fmt.Errorf("cursor %q is not one that a page ended with", cursor)
	}
	for _, p := range list {
		places[p.Shard] = platform.Ending{ID: p.ID, At: time.UnixMilli(p.At).UTC()}
	}
	return places, nil
}

// ExpiredDiscussions returns up to limit open discussions of a shard whose time
// was over at a moment, and the cursor of those that follow ("" for none). The
// index follows the table by moments: closing decides.
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
	text, err := json.Marshal([]place{{shard, last.At.UnixMilli(), last.ID}})
	return e.page, base64.RawURLEncoding.EncodeToString(text), err
}
