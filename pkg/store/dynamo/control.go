package dynamo

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// ReserveKey: see emit.Keys. An expired key counts as free, although DynamoDB deletes
// it only later.
func (s *Store) ReserveKey(ctx context.Context, tenant, key string, r event.Reservation, expires time.Time) (event.Reservation, error) {
	stored, failed, err := s.putIfFree(ctx, dynamoitem.EncodeReservation(tenant, key, r, expires))
	if err != nil {
		return r, fmt.Errorf("reserve an idempotency key: %w", err)
	}
	if failed {
		holds, _, err := dynamoitem.DecodeReservation(stored)
		return holds, err
	}
	return r, nil
}

// putIfFree writes an item of Control if there is none with its key, or an expired one.
func (s *Store) putIfFree(ctx context.Context, item dynamoitem.Item) (stored dynamoitem.Item, failed bool, err error) {
	return s.put(ctx, s.tables.Control, &dynamodb.PutItemInput{
		Item:                      item,
		ConditionExpression:       aws.String("attribute_not_exists(#key) OR expires_at <= :now"),
		ExpressionAttributeNames:  map[string]string{"#key": dynamoitem.Key},
		ExpressionAttributeValues: dynamoitem.Item{":now": dynamoitem.Seconds(time.Now())},
	})
}

// GetBreaker: see dispatch.Breakers.
func (s *Store) GetBreaker(ctx context.Context, tenant, endpointID string, consistent bool) (breaker.State, error) {
	clean := breaker.State{EndpointID: endpointID, Tenant: tenant}
	item, err := s.get(ctx, s.tables.Control, dynamoitem.BreakerKey(endpointID), consistent)
	if err != nil {
		return clean, fmt.Errorf("get the breaker of %s: %w", endpointID, err)
	}
	if item == nil {
		return clean, nil
	}
	b, err := dynamoitem.DecodeBreaker(item)
	if err != nil {
		clean.Version = dynamoitem.VersionOf(item) // so that PutBreaker can replace it
		return clean, fmt.Errorf("%w: %w", breaker.ErrUnreadable, err)
	}
	return b, nil
}

// PutBreaker: see dispatch.Breakers.
func (s *Store) PutBreaker(ctx context.Context, b breaker.State, now time.Time) (breaker.State, error) {
	was := b.Version
	b.Version++
	item := dynamoitem.EncodeBreaker(b, now)
	stored, failed, err := s.putVersion(ctx, s.tables.Control, item, was)
	switch {
	case err != nil:
		return b, fmt.Errorf("put the breaker of %s: %w", b.EndpointID, err)
	case failed && !reflect.DeepEqual(stored, item): // equal: our own write, repeated by the SDK
		return b, breaker.ErrConflict
	}
	return b, nil
}

// putVersion writes an item over version was. If that is 0, it writes the first one, or
// replaces one whose version is not a number.
func (s *Store) putVersion(ctx context.Context, table string, item dynamoitem.Item, was int) (stored dynamoitem.Item, failed bool, err error) {
	in := &dynamodb.PutItemInput{
		Item: item, ConditionExpression: aws.String("attribute_not_exists(#version) OR NOT attribute_type(#version, :number)"),
		ExpressionAttributeNames:  map[string]string{"#version": dynamoitem.Version},
		ExpressionAttributeValues: dynamoitem.Item{":number": dynamoitem.S("N")},
	}
	if was > 0 {
		in.ConditionExpression = aws.String("#version = :was")
		in.ExpressionAttributeValues = dynamoitem.Item{":was": dynamoitem.N(int64(was))}
	}
	return s.put(ctx, table, in)
}

// ListCircuits: see dispatch.Breakers.
func (s *Store) ListCircuits(ctx context.Context, by time.Time) ([]breaker.State, error) {
	var list []breaker.State
	in := &dynamodb.QueryInput{
		TableName: &s.tables.Control, IndexName: aws.String(dynamoitem.WakeIndex),
		KeyConditionExpression:    aws.String("wake_shard = :shard"),
		ExpressionAttributeValues: dynamoitem.Item{":shard": dynamoitem.N(dynamoitem.WakeIndexShard)},
		ReturnConsumedCapacity:    s.returnCapacity(),
	}
	if !by.IsZero() {
		in.KeyConditionExpression = aws.String("wake_shard = :shard AND wake_at <= :by")
		in.ExpressionAttributeValues[":by"] = dynamoitem.Millis(by)
	}
	pages := dynamodb.NewQueryPaginator(s.db, in)
	for pages.HasMorePages() {
		out, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("query the circuits: %w", err)
		}
		s.recordRead(out.ConsumedCapacity)
		for _, item := range out.Items {
			if b, err := dynamoitem.DecodeBreaker(item); err == nil { // an unreadable one is replaced at the next attempt
				list = append(list, b)
			}
		}
	}
	slices.SortFunc(list, breaker.CompareWakeAt)
	return list, nil
}

// ReserveSlots: see testsend.Limits. DynamoDB has no expression for the later of two
// times, so the write is tried for both cases. A third try is only necessary if the
// stored time passes between the two.
func (s *Store) ReserveSlots(ctx context.Context, key string, cost time.Duration, now time.Time) (time.Time, error) {
	fresh := ratelimit.Reserve(time.Time{}, now, cost)
	for range 3 {
		for _, try := range []struct {
			expression, condition string
			values                dynamoitem.Item
		}{
			{"SET #slots_at = #slots_at + :cost, #expires_at = :expires", "#slots_at > :now",
				dynamoitem.Item{":cost": dynamoitem.N(cost.Microseconds()), ":now": dynamoitem.Micros(now)}},
			{"SET #slots_at = :fresh, #expires_at = :expires", "attribute_not_exists(#slots_at) OR #slots_at <= :now",
				dynamoitem.Item{":fresh": dynamoitem.Micros(fresh), ":now": dynamoitem.Micros(now)}},
		} {
			try.values[":expires"] = dynamoitem.Seconds(fresh.Add(limitRetention))
			out, err := s.db.UpdateItem(ctx, &dynamodb.UpdateItemInput{
				TableName: &s.tables.Control, Key: dynamoitem.LimitKey(key),
				UpdateExpression: &try.expression, ConditionExpression: &try.condition,
				ExpressionAttributeNames: names(try.expression, try.condition), ExpressionAttributeValues: try.values,
				ReturnValues: types.ReturnValueUpdatedNew, ReturnConsumedCapacity: s.returnCapacity(),
			})
			if _, failed := conditionFailed(err); failed {
				continue
			}
			if err != nil {
				return time.Time{}, fmt.Errorf("reserve slots of %s: %w", key, err)
			}
			s.recordWrite(out.ConsumedCapacity)
			return dynamoitem.DecodeSlotsAt(out.Attributes)
		}
	}
	return time.Time{}, fmt.Errorf("reserve slots of %s: %w", key, errors.New("the item kept changing during the write"))
}

// Reserve: see dispatch.Limits. Like ReserveSlots, it tries the write for both cases.
func (s *Store) Reserve(ctx context.Context, key string, r ratelimit.Reservation) (time.Time, bool, error) {
	for range 3 {
		u := update{values: dynamoitem.Item{
			":now": dynamoitem.Micros(r.Now), ":cost": dynamoitem.N(r.Cost.Microseconds()), ":last": dynamoitem.Micros(r.AtMost.Add(-r.Cost)),
		}}
		u.sets = append(u.sets, "#slots_at = #slots_at + :cost")
		u.set(dynamoitem.ExpiresAt, dynamoitem.Seconds(r.Now.Add(limitRetention)))
		after, stored, ok, err := s.update(ctx, s.tables.Control, dynamoitem.LimitKey(key), u, "#slots_at > :now AND #slots_at <= :last")
		if err != nil {
			return time.Time{}, false, fmt.Errorf("reserve slots of %s: %w", key, err)
		}
		if ok {
			at, err := dynamoitem.DecodeSlotsAt(after)
			return at, true, err
		}
		var at time.Time
		if stored != nil {
			if at, err = dynamoitem.DecodeSlotsAt(stored); err != nil {
				return time.Time{}, false, err
			}
		}
		fresh, fits := r.Apply(at)
		if !fits {
			return fresh, false, nil
		}
		u = update{values: dynamoitem.Item{":now": dynamoitem.Micros(r.Now), ":stale": dynamoitem.Micros(r.Stale)}}
		u.set(dynamoitem.SlotsAt, dynamoitem.Micros(fresh))
		u.set(dynamoitem.ExpiresAt, dynamoitem.Seconds(r.Now.Add(limitRetention)))
		if after, _, ok, err = s.update(ctx, s.tables.Control, dynamoitem.LimitKey(key), u, "attribute_not_exists(#slots_at) OR #slots_at <= :now OR #slots_at > :stale"); err != nil {
			return time.Time{}, false, fmt.Errorf("reserve slots of %s: %w", key, err)
		}
		if ok {
			at, err := dynamoitem.DecodeSlotsAt(after)
			return at, true, err
		}
	}
	return time.Time{}, false, fmt.Errorf("reserve slots of %s: %w", key, errors.New("the item kept changing during the write"))
}

// limitRetention is how long a rate limit's item is kept after its last write. It is
// longer than any delivery waits for a slot.
const limitRetention = 30 * 24 * time.Hour

// PutValueIfAbsent: see console.SessionStore. An expired value counts as absent,
// although DynamoDB deletes it only later.
func (s *Store) PutValueIfAbsent(ctx context.Context, key, value string, expires time.Time) (string, error) {
	stored, failed, err := s.putIfFree(ctx, dynamoitem.EncodeBound(key, value, expires))
	if err != nil {
		return "", fmt.Errorf("write a key of Control: %w", err)
	}
	if failed {
		holds, _, err := dynamoitem.DecodeBound(stored)
		return holds, err
	}
	return value, nil
}

// GetValue: see console.SessionStore.
func (s *Store) GetValue(ctx context.Context, key string) (string, error) {
	item, err := s.get(ctx, s.tables.Control, dynamoitem.Item{dynamoitem.Key: dynamoitem.S(key)}, true)
	if err != nil {
		return "", fmt.Errorf("read a key of Control: %w", err)
	}
	if item == nil {
		return "", nil
	}
	value, expires, err := dynamoitem.DecodeBound(item)
	if err != nil || !expires.IsZero() && !time.Now().Before(expires) {
		return "", err
	}
	return value, nil
}

// DeleteValue deletes a key of console.SessionStore. A missing key is not an error.
func (s *Store) DeleteValue(ctx context.Context, key string) error {
	out, err := s.db.DeleteItem(ctx, &dynamodb.DeleteItemInput{
		TableName: &s.tables.Control, Key: dynamoitem.Item{dynamoitem.Key: dynamoitem.S(key)}, ReturnConsumedCapacity: s.returnCapacity(),
	})
	if err != nil {
		return fmt.Errorf("delete a key of Control: %w", err)
	}
	s.recordWrite(out.ConsumedCapacity)
	return nil
}

// IncrementCounter: see console.SessionStore. A retry by the SDK can increment it twice.
func (s *Store) IncrementCounter(ctx context.Context, key string, expires time.Time) (int, error) {
	out, err := s.db.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName: &s.tables.Control, Key: dynamoitem.Item{dynamoitem.Key: dynamoitem.S(key)},
		UpdateExpression:          aws.String("SET expires_at = :expires ADD tally :one"),
		ExpressionAttributeValues: dynamoitem.Item{":expires": dynamoitem.Seconds(expires), ":one": dynamoitem.N(1)},
		ReturnValues:              types.ReturnValueUpdatedNew, ReturnConsumedCapacity: s.returnCapacity(),
	})
	if err != nil {
		return 0, fmt.Errorf("increment a counter in Control: %w", err)
	}
	s.recordWrite(out.ConsumedCapacity)
	return dynamoitem.DecodeTally(out.Attributes)
}

// ReadDocument: see alert.Documents.
func (s *Store) ReadDocument(ctx context.Context, name string) (document []byte, version int, err error) {
	item, err := s.get(ctx, s.tables.Control, dynamoitem.Item{dynamoitem.Key: dynamoitem.S(name)}, true)
	if err != nil {
		return nil, 0, fmt.Errorf("read document %s: %w", name, err)
	}
	if item == nil {
		return nil, 0, nil
	}
	document, version, _, err = dynamoitem.DecodeDocument(item)
	return document, version, err
}

// WriteDocument: see alert.Documents.
func (s *Store) WriteDocument(ctx context.Context, name string, document []byte, was int, writer string) (stored bool, err error) {
	held, failed, err := s.putVersion(ctx, s.tables.Control, dynamoitem.EncodeDocument(name, document, was+1, writer), was)
	switch {
	case err != nil:
		return false, fmt.Errorf("write document %s: %w", name, err)
	case failed && held == nil:
		return false, nil
	case failed:
		_, version, by, err := dynamoitem.DecodeDocument(held)
		return err == nil && version == was+1 && by == writer, err // our own write, repeated by the SDK
	}
	return true, nil
}
