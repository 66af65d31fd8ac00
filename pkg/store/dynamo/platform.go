package dynamo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// PutRecord writes one of the platform's records and replaces the existing one. It
// indexes a discussion at once; those that the platform writes are indexed from its
// table's stream.
func (s *Store) PutRecord(ctx context.Context, record platform.Record) error {
	item := dynamoitem.EncodeRecord(record)
	if _, _, err := s.put(ctx, s.tables.Platform, &dynamodb.PutItemInput{Item: item}); err != nil {
		return fmt.Errorf("put a %s: %w", record.Kind(), err)
	}
	if record.Kind() != platform.KindDiscussion {
		return nil
	}
	d, err := dynamoitem.DecodeDiscussion(item)
	if err != nil {
		return err
	}
	return s.IndexDiscussion(ctx, dynamoitem.EncodeKey(dynamoitem.PlatformKey(record.Key())), nil, &d)
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

// IndexDiscussion indexes what a discussion's record has become; before or after is nil
// if there was, or is, no discussion. recordKey is the record's key, as in
// platform.Change. Changes of one record must come in order. An entry only says where a
// discussion is and when it ends: its readers also read the record.
func (s *Store) IndexDiscussion(ctx context.Context, recordKey string, before, after *platform.Discussion) error {
	var was, is dynamoitem.Item
	if before != nil {
		was = dynamoitem.EncodeEntry(*before, recordKey)
	}
	if after != nil {
		is = dynamoitem.EncodeEntry(*after, recordKey)
	}
	if reflect.DeepEqual(was, is) {
		return nil
	}
	if before != nil && (after == nil || before.Tenant != after.Tenant || before.ID != after.ID) {
		if err := s.deleteEntry(ctx, was); err != nil {
			return fmt.Errorf("remove discussion %s from the index: %w", before.ID, err)
		}
	}
	if after != nil {
		if _, _, err := s.put(ctx, s.tables.Discussions, &dynamodb.PutItemInput{Item: is}); err != nil {
			return fmt.Errorf("index discussion %s: %w", after.ID, err)
		}
	}
	return nil
}

// AddDiscussion indexes a discussion, unless it is indexed already.
func (s *Store) AddDiscussion(ctx context.Context, recordKey string, d platform.Discussion) error {
	_, _, err := s.put(ctx, s.tables.Discussions, &dynamodb.PutItemInput{
		Item: dynamoitem.EncodeEntry(d, recordKey), ConditionExpression: aws.String("attribute_not_exists(" + dynamoitem.DiscussionID + ")"),
	})
	if err != nil {
		return fmt.Errorf("index discussion %s: %w", d.ID, err)
	}
	return nil
}

// deleteEntry deletes an entry unless it is another record's by now.
func (s *Store) deleteEntry(ctx context.Context, entry dynamoitem.Item) error {
	out, err := s.db.DeleteItem(ctx, &dynamodb.DeleteItemInput{
		TableName:                 &s.tables.Discussions,
		Key:                       dynamoitem.Item{dynamoitem.Tenant: entry[dynamoitem.Tenant], dynamoitem.DiscussionID: entry[dynamoitem.DiscussionID]},
		ConditionExpression:       aws.String(dynamoitem.RecordKey + " = :record_key"),
		ExpressionAttributeValues: dynamoitem.Item{":record_key": entry[dynamoitem.RecordKey]},
		ReturnConsumedCapacity:    s.returnCapacity(),
	})
	if _, failed := conditionFailed(err); failed {
		return nil
	}
	if err != nil {
		return err
	}
	s.recordWrite(out.ConsumedCapacity)
	return nil
}

// correctEntry replaces an entry by that of the discussion as it is now (nil if it is
// gone), unless the entry has been changed since it was read. Its errors don't matter:
// the change of the record is in the stream, from which the index is kept.
func (s *Store) correctEntry(ctx context.Context, entry dynamoitem.Item, recordKey string, d *platform.Discussion) {
	if d == nil {
		_ = s.deleteEntry(ctx, entry)
		return
	}
	is := dynamoitem.EncodeEntry(*d, recordKey)
	if reflect.DeepEqual(is, entry) {
		return
	}
	read := update{values: dynamoitem.Item{}}
	condition := unchanged(&read, entry, dynamoitem.RecordKey, dynamoitem.ExpiresAt, dynamoitem.ClosedAt)
	_, _, _ = s.put(ctx, s.tables.Discussions, &dynamodb.PutItemInput{
		Item: is, ConditionExpression: &condition, ExpressionAttributeNames: names(condition), ExpressionAttributeValues: read.values,
	})
}

// discussionRecord is a discussion's item in the platform's table.
type discussionRecord struct {
	entry     dynamoitem.Item // its item of the index
	recordKey string
	key, item dynamoitem.Item // item is nil if it is gone, or is of another discussion by now
}

// discussionRecord reads a discussion's record. It returns nil if the index has none.
func (s *Store) discussionRecord(ctx context.Context, tenant, id string) (*discussionRecord, error) {
	entry, err := s.get(ctx, s.tables.Discussions, dynamoitem.EntryKey(tenant, id), true)
	if err != nil || entry == nil {
		return nil, err
	}
	r := discussionRecord{entry: entry}
	if r.recordKey, r.key, err = dynamoitem.DecodeRecordKey(entry); err != nil {
		return nil, err
	}
	r.item, err = s.get(ctx, s.tables.Platform, r.key, true)
	return &r, err
}

// GetDiscussion returns a tenant's discussion, or platform.ErrNotFound.
func (s *Store) GetDiscussion(ctx context.Context, tenant, id string) (platform.Discussion, error) {
	r, err := s.discussionRecord(ctx, tenant, id)
	switch {
	case err != nil:
		return platform.Discussion{}, fmt.Errorf("get discussion %s: %w", id, err)
	case r == nil || r.item == nil:
		return platform.Discussion{}, platform.ErrNotFound
	}
	d, err := dynamoitem.DecodeDiscussion(r.item)
	if err == nil && (d.Tenant != tenant || d.ID != id) {
		err = platform.ErrNotFound
	}
	return d, err
}

// maxConflicts is how often a change of a discussion is tried again because another
// program changed it at the same time.
const maxConflicts = 5

// changeDiscussion applies a transition to a discussion. It reads the record, and writes
// the result on the condition that the status and the end are still the ones that it
// read. The record's times can thus be in any form that dynamoitem reads, and the rules
// are in package platform only. repeatable means that a write which finds its own result
// has succeeded: the SDK repeats a write whose response was lost.
func (s *Store) changeDiscussion(ctx context.Context, tenant, id string, repeatable bool,
	apply func(*platform.Discussion) (platform.Discussion, error)) (platform.Discussion, error) {
	r, err := s.discussionRecord(ctx, tenant, id)
	if err != nil {
		return platform.Discussion{}, err
	}
	if r == nil {
		return apply(nil)
	}
	for range maxConflicts {
		if r.item == nil {
			s.correctEntry(ctx, r.entry, r.recordKey, nil)
			return apply(nil)
		}
		before, err := dynamoitem.DecodeDiscussion(r.item)
		if err != nil {
			return before, err
		}
		if before.Tenant != tenant || before.ID != id {
			s.correctEntry(ctx, r.entry, r.recordKey, nil)
			return apply(nil)
		}
		after, err := apply(&before)
		if err != nil || after == before {
			s.correctEntry(ctx, r.entry, r.recordKey, &before)
			return after, err
		}
		changes := dynamoitem.DiscussionChanges(r.item, before, after)
		u := update{values: dynamoitem.Item{}}
		for _, name := range slices.Sorted(maps.Keys(changes)) {
			u.assign(changes, name)
		}
		changed, stored, ok, err := s.update(ctx, s.tables.Platform, r.key, u, unchanged(&u, r.item, dynamoitem.Status, dynamoitem.ExpiresAt))
		if err != nil {
			return platform.Discussion{}, err
		}
		if !ok && repeatable && has(stored, changes) {
			changed, ok = stored, true
		}
		if ok {
			d, err := dynamoitem.DecodeDiscussion(changed)
			if err == nil {
				s.correctEntry(ctx, r.entry, r.recordKey, &d)
			}
			return d, err
		}
		r.item = stored
	}
	return platform.Discussion{}, errors.New("the discussion was changed by others at the same time; try again")
}

// unchanged returns the condition that attributes are those of an item.
func unchanged(u *update, item dynamoitem.Item, names ...string) string {
	var all []string
	for _, name := range names {
		if item[name] == nil {
			all = append(all, "attribute_not_exists(#"+name+")")
			continue
		}
		u.values[":read_"+name] = item[name]
		all = append(all, "#"+name+" = :read_"+name)
	}
	return strings.Join(all, " AND ")
}

// has reports whether an item has attributes; those that are nil must be missing.
func has(item, attributes dynamoitem.Item) bool {
	for name, value := range attributes {
		if !reflect.DeepEqual(item[name], value) {
			return false
		}
	}
	return true
}

// ExtendDiscussion moves the end of an open discussion and returns the discussion. It
// fails as platform.Extension does.
func (s *Store) ExtendDiscussion(ctx context.Context, x platform.Extension) (platform.Discussion, error) {
	d, err := s.changeDiscussion(ctx, x.Tenant, x.ID, true, x.Apply)
	return d, wrapDiscussion(err, "extend", x.ID)
}

// CloseDiscussion closes an open discussion and returns it. It fails as platform.Closing
// does: a discussion can be closed as expired only if it has not been extended in the
// meantime.
func (s *Store) CloseDiscussion(ctx context.Context, c platform.Closing) (platform.Discussion, error) {
	d, err := s.changeDiscussion(ctx, c.Tenant, c.ID, c.Reason == platform.ByHand, c.Apply)
	return d, wrapDiscussion(err, "close", c.ID)
}

// wrapDiscussion adds the discussion to an error, except to those that callers compare.
func wrapDiscussion(err error, operation, id string) error {
	for _, known := range []error{
		nil, platform.ErrNotFound, platform.ErrClosed, platform.ErrNotLater, platform.ErrNotExpired, platform.ErrPast, platform.ErrChanged,
	} {
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
	page  []indexEntry
	done  bool             // no more pages
	after *platform.Ending // the last one taken, for the cursor; nil before the first
}

// indexEntry is an entry of the index with the key of the discussion's record.
type indexEntry struct {
	platform.Ending
	recordKey string
	key       dynamoitem.Item
}

func (s *Store) endings(shard int, index, at, shardName string, condition string, values dynamoitem.Item, ascending bool, limit int) *endings {
	values = mergeItems(values, dynamoitem.Item{":shard": dynamoitem.N(int64(shard))})
	return &endings{at: at, in: dynamodb.QueryInput{
		TableName: &s.tables.Discussions, IndexName: aws.String(index),
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
	e.in.ExclusiveStartKey = mergeItems(dynamoitem.EntryKey(after.Tenant, after.ID),
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
			var one indexEntry
			if one.Ending, err = dynamoitem.DecodeEnding(item, e.at); err != nil {
				return err
			}
			if one.recordKey, one.key, err = dynamoitem.DecodeRecordKey(item); err != nil {
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
		var taken []indexEntry
		for len(taken) < q.PageSize()-len(page.Discussions) {
			next := -1
			for i, shard := range shards {
				if err := shard.fill(ctx, s); err != nil {
					return page, err
				}
				if len(shard.page) > 0 && (next < 0 || (platform.CompareEndings(shard.page[0].Ending, shards[next].page[0].Ending) < 0) == ascending) {
					next = i
				}
			}
			if next < 0 {
				break
			}
			one := shards[next].page[0]
			shards[next].page, shards[next].after = shards[next].page[1:], &one.Ending
			if one.Tenant == q.Tenant {
				taken = append(taken, one)
			}
		}
		if len(taken) == 0 {
			return page, nil
		}
		found, err := s.discussions(ctx, taken)
		if err != nil {
			return page, err
		}
		for _, one := range taken {
			if d, ok := found[one.recordKey]; ok && d.ID == one.ID && q.Shows(d) {
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

// discussions reads discussions, by the key of the record. It omits those that are
// missing or cannot be decoded: one malformed record must not hide the others.
func (s *Store) discussions(ctx context.Context, entries []indexEntry) (map[string]platform.Discussion, error) {
	keys := map[string]dynamoitem.Item{} // DynamoDB refuses a request with a key twice
	for _, e := range entries {
		keys[e.recordKey] = e.key
	}
	items, err := s.getAll(ctx, s.tables.Platform, types.KeysAndAttributes{Keys: slices.Collect(maps.Values(keys)), ConsistentRead: aws.Bool(true)})
	if err != nil {
		return nil, fmt.Errorf("get %d discussions: %w", len(keys), err)
	}
	found := map[string]platform.Discussion{}
	for _, item := range items {
		if d, err := dynamoitem.DecodeDiscussion(item); err == nil {
			found[keyOf(item, entries[0].key)] = d
		}
	}
	return found, nil
}

// keyOf returns an item's primary key, whose attributes are those of another key.
func keyOf(item, like dynamoitem.Item) string {
	key := dynamoitem.Item{}
	for name := range like {
		key[name] = item[name]
	}
	return dynamoitem.EncodeKey(key)
}

// place is the last entry of a shard on a page, as stored in a cursor.
type place struct {
	Shard  int
	At     int64 // epoch ms
	Tenant string
	ID     string
}

func encodePlaces(shards []*endings) string {
	var list []place
	for i, shard := range shards {
		if shard.after != nil {
			list = append(list, place{i, shard.after.At.UnixMilli(), shard.after.Tenant, shard.after.ID})
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
	if err != nil || slices.ContainsFunc(list, func(p place) bool { return p.ID == "" || p.Tenant == "" || p.Shard != platform.Shard(p.ID) }) {
		return nil, fmt.Errorf("invalid cursor %.64q", cursor)
	}
	for _, p := range list {
		places[p.Shard] = platform.Ending{Tenant: p.Tenant, ID: p.ID, At: time.UnixMilli(p.At).UTC()}
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
	page := make([]platform.Ending, len(e.page))
	for i, one := range e.page {
		page[i] = one.Ending
	}
	if e.done || len(page) == 0 {
		return page, "", nil
	}
	last := page[len(page)-1]
	return page, encodeCursor([]place{{shard, last.At.UnixMilli(), last.Tenant, last.ID}}), nil
}

// scanned is the partition of the index that says how far IndexTable has come, per table.
// It is not a tenant's name.
const (
	scanned  = "#scanned"
	scanNext = "scan_next" // key of the last item that was read; missing if the whole table was
)

// indexWriters is the number of entries that IndexTable writes concurrently.
const indexWriters = 16

// IndexTable indexes the discussions that were in the platform's table before its stream
// was captured: one page of the table per call, until it is done. It replaces no entry,
// because the stream's are newer. Several can run at the same time.
func (s *Store) IndexTable(ctx context.Context) (platform.Indexed, error) {
	if s.indexed.Load() {
		return platform.Indexed{Done: true}, nil
	}
	state, err := s.get(ctx, s.tables.Discussions, dynamoitem.EntryKey(scanned, s.tables.Platform), true)
	if err != nil {
		return platform.Indexed{}, fmt.Errorf("read how far %s is indexed: %w", s.tables.Platform, err)
	}
	in := &dynamodb.ScanInput{
		TableName: &s.tables.Platform, FilterExpression: aws.String("#kind = :discussion"),
		ExpressionAttributeNames:  map[string]string{"#kind": dynamoitem.Kind},
		ExpressionAttributeValues: dynamoitem.Item{":discussion": dynamoitem.S(string(platform.KindDiscussion))},
		ReturnConsumedCapacity:    s.returnCapacity(),
	}
	if state != nil {
		if state[scanNext] == nil {
			s.indexed.Store(true)
			return platform.Indexed{Done: true}, nil
		}
		next, ok := state[scanNext].(*types.AttributeValueMemberS)
		if !ok {
			return platform.Indexed{}, fmt.Errorf("how far %s is indexed is not a key", s.tables.Platform)
		}
		if in.ExclusiveStartKey, err = dynamoitem.DecodeKey(next.Value); err != nil {
			return platform.Indexed{}, err
		}
	}
	schema, err := s.aKey(ctx, s.tables.Platform)
	if err != nil {
		return platform.Indexed{}, err
	}
	out, err := s.scan(ctx, in)
	if err != nil {
		return platform.Indexed{}, err
	}
	done := platform.Indexed{Done: out.LastEvaluatedKey == nil}
	var group errgroup.Group
	group.SetLimit(indexWriters)
	for _, item := range out.Items {
		recordKey := keyOf(item, schema)
		d, err := dynamoitem.DecodeDiscussion(item)
		if err != nil {
			done.Malformed = append(done.Malformed, recordKey)
			continue
		}
		done.Discussions++
		group.Go(func() error { return s.AddDiscussion(ctx, recordKey, d) })
	}
	if err := group.Wait(); err != nil {
		return platform.Indexed{}, err
	}
	state = dynamoitem.EntryKey(scanned, s.tables.Platform)
	if !done.Done {
		state[scanNext] = dynamoitem.S(dynamoitem.EncodeKey(out.LastEvaluatedKey))
	}
	if _, _, err := s.put(ctx, s.tables.Discussions, &dynamodb.PutItemInput{Item: state}); err != nil {
		return done, fmt.Errorf("store how far %s is indexed: %w", s.tables.Platform, err)
	}
	return done, nil
}

// aKey returns the key of one of a table's items, nil if it has none: with a limit, a scan
// tells where to continue. So the names of the key's attributes need no permission of
// their own.
func (s *Store) aKey(ctx context.Context, table string) (dynamoitem.Item, error) {
	out, err := s.scan(ctx, &dynamodb.ScanInput{TableName: &table, Limit: aws.Int32(1), ReturnConsumedCapacity: s.returnCapacity()})
	if err != nil {
		return nil, err
	}
	return out.LastEvaluatedKey, nil
}

func (s *Store) scan(ctx context.Context, in *dynamodb.ScanInput) (*dynamodb.ScanOutput, error) {
	out, err := s.db.Scan(ctx, in)
	if err != nil {
		return nil, fmt.Errorf("scan %s: %w", *in.TableName, err)
	}
	s.recordRead(out.ConsumedCapacity)
	return out, nil
}
