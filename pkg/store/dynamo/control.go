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

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// Settle: see dispatch.Deliveries. Its own write, repeated, is refused as settled,
// which is what the caller wanted.
func (s *Store) Settle(ctx context.Context, settle delivery.Settle) error {
	u := update{values: dynamoitem.Item{
		":pending": dynamoitem.S(string(delivery.Pending)), ":in_flight": dynamoitem.S(string(delivery.InFlight)), ":now": dynamoitem.Millis(settle.Now),
	}}
	u.set(dynamoitem.State, dynamoitem.S(string(settle.State)))
	u.set(dynamoitem.Reason, dynamoitem.S(settle.Reason))
	u.set(dynamoitem.UpdatedAt, dynamoitem.Millis(settle.Now))
	u.set(dynamoitem.ExpiresAt, dynamoitem.Seconds(settle.Now.Add(delivery.Retention)))
	u.setIfAbsent(dynamoitem.Tenant, dynamoitem.S(settle.Tenant))
	u.setIfAbsent(dynamoitem.Attempts, dynamoitem.N(0))
	u.setIfAbsent(dynamoitem.Since, dynamoitem.Millis(settle.Accepted))
	if settle.EventType != "" {
		u.setIfAbsent(dynamoitem.EventType, dynamoitem.S(settle.EventType))
	}
	u.setIfAbsent(dynamoitem.CreatedAt, dynamoitem.Millis(settle.Now))
	for _, name := range []string{dynamoitem.LeaseUntil, dynamoitem.NextAt, dynamoitem.DueShard, dynamoitem.DueAt, dynamoitem.Waiting, dynamoitem.Slot} {
		u.remove(name)
	}
	condition := "#state = :pending OR (#state = :in_flight AND #lease_until <= :now)"
	if !settle.SinceBefore.IsZero() {
		condition = "(" + condition + ") AND #since <= :since_before"
		u.values[":since_before"] = dynamoitem.Millis(settle.SinceBefore)
	}
	_, against, ok, err := s.updateDelivery(ctx, settle.Key, u, "attribute_not_exists(#event_id) OR "+condition)
	if err != nil {
		return fmt.Errorf("settle %s: %w", settle.Key, err)
	}
	if ok {
		return nil
	}
	if _, err := refusal(against, settle.Apply); err != nil {
		return err
	}
	return fmt.Errorf("settle %s: its condition and its transition disagree", settle.Key)
}

// Park: see dispatch.Deliveries. Its own write, repeated, has the effect of one;
// for a slot it is refused as early, until that slot.
func (s *Store) Park(ctx context.Context, p delivery.Park) (delivery.Delivery, error) {
	u := update{values: dynamoitem.Item{
		":in_flight": dynamoitem.S(string(delivery.InFlight)), ":expected": dynamoitem.N(int64(p.Attempts)), ":now": dynamoitem.Millis(p.Now),
	}}
	u.set(dynamoitem.State, dynamoitem.S(string(delivery.Pending)))
	u.set(dynamoitem.Reason, dynamoitem.S(p.Reason))
	u.set(dynamoitem.DueShard, dynamoitem.N(int64(p.DueShard())))
	u.set(dynamoitem.DueAt, dynamoitem.Millis(p.DueAt))
	u.set(dynamoitem.UpdatedAt, dynamoitem.Millis(p.Now))
	u.set(dynamoitem.ExpiresAt, dynamoitem.Seconds(p.Now.Add(delivery.Retention)))
	if p.InBacklog {
		u.set(dynamoitem.Waiting, dynamoitem.S(p.EndpointID))
	} else {
		u.remove(dynamoitem.Waiting)
	}
	if !p.Slot.IsZero() {
		u.set(dynamoitem.NextAt, dynamoitem.Millis(p.Slot))
		u.set(dynamoitem.Slot, dynamoitem.Millis(p.Slot))
	} else {
		u.remove(dynamoitem.Slot)
	}
	if p.EventType != "" {
		u.setIfAbsent(dynamoitem.EventType, dynamoitem.S(p.EventType))
	}
	u.setIfAbsent(dynamoitem.Tenant, dynamoitem.S(p.Tenant))
	u.setIfAbsent(dynamoitem.Attempts, dynamoitem.N(0))
	u.setIfAbsent(dynamoitem.Since, dynamoitem.Millis(p.Accepted))
	u.setIfAbsent(dynamoitem.CreatedAt, dynamoitem.Millis(p.Now))
	u.remove(dynamoitem.LeaseUntil)
	u.remove(dynamoitem.ClaimID)
	condition := "(#state = :state AND #attempts = :expected AND (attribute_not_exists(#next_attempt_at) OR #next_attempt_at <= :now))" +
		" OR (#state = :in_flight AND #lease_until <= :now)"
	if p.Attempts == 0 {
		condition += " OR attribute_not_exists(#event_id)"
	}
	after, against, ok, err := s.updateDelivery(ctx, p.Key, u, condition)
	switch {
	case err != nil:
		return delivery.Delivery{}, fmt.Errorf("park %s: %w", p.Key, err)
	case ok:
		return dynamoitem.DecodeDelivery(after)
	}
	d, err := refusal(against, p.Apply)
	if err == nil {
		err = fmt.Errorf("park %s: its condition and its transition disagree", p.Key)
	}
	return d, err
}

// Release: see dispatch.Waiting. Its own write, repeated, is ErrFenced: the due
// time that it has set brings the delivery back.
func (s *Store) Release(ctx context.Context, r delivery.Release) (delivery.Delivery, error) {
	u := update{values: dynamoitem.Item{":pending": dynamoitem.S(string(delivery.Pending))}}
	u.set(dynamoitem.NextAt, dynamoitem.Millis(r.NextAt))
	u.set(dynamoitem.DueShard, dynamoitem.N(int64(r.DueShard())))
	u.set(dynamoitem.DueAt, dynamoitem.Millis(r.DueAt))
	u.set(dynamoitem.UpdatedAt, dynamoitem.Millis(r.Now))
	u.set(dynamoitem.ExpiresAt, dynamoitem.Seconds(r.Now.Add(delivery.Retention)))
	u.remove(dynamoitem.Waiting)
	after, _, ok, err := s.updateDelivery(ctx, r.Key, u, "#state = :pending AND attribute_exists(#waiting)")
	switch {
	case err != nil:
		return delivery.Delivery{}, fmt.Errorf("release %s: %w", r.Key, err)
	case !ok:
		return delivery.Delivery{}, delivery.ErrFenced
	}
	return dynamoitem.DecodeDelivery(after)
}

// ListBacklog: see dispatch.Waiting. The index follows the table by moments; what it
// does not show yet has a due time, too.
func (s *Store) ListBacklog(ctx context.Context, endpointID string, limit int) ([]delivery.BacklogEntry, error) {
	out, err := s.db.Query(ctx, &dynamodb.QueryInput{
		TableName: &s.tables.Deliveries, IndexName: aws.String(dynamoitem.WaitingIndex),
		KeyConditionExpression:    aws.String("waiting = :endpoint"),
		ExpressionAttributeValues: dynamoitem.Item{":endpoint": dynamoitem.S(endpointID)},
		Limit:                     aws.Int32(int32(limit)), ReturnConsumedCapacity: s.returnCapacity(),
	})
	if err != nil {
		return nil, fmt.Errorf("query what waits for %s: %w", endpointID, err)
	}
	s.recordRead(out.ConsumedCapacity)
	list := make([]delivery.BacklogEntry, len(out.Items))
	for i, item := range out.Items {
		if list[i], err = dynamoitem.DecodeBacklogEntry(item); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// GetBreaker: see dispatch.Breakers.
func (s *Store) GetBreaker(ctx context.Context, tenant, endpointID string, consistent bool) (breaker.State, error) {
	clean := breaker.State{EndpointID: endpointID, Tenant: tenant}
	out, err := s.db.GetItem(ctx, &dynamodb.GetItemInput{
		TableName: &s.tables.Control, Key: dynamoitem.BreakerKey(endpointID), ConsistentRead: &consistent, ReturnConsumedCapacity: s.returnCapacity(),
	})
	if err != nil {
		return clean, fmt.Errorf("get the breaker of %s: %w", endpointID, err)
	}
	s.recordRead(out.ConsumedCapacity)
	if out.Item == nil {
		return clean, nil
	}
	return dynamoitem.DecodeBreaker(out.Item)
}

// PutBreaker: see dispatch.Breakers.
func (s *Store) PutBreaker(ctx context.Context, b breaker.State, now time.Time) (breaker.State, error) {
	was := b.Version
	b.Version++
	in := &dynamodb.PutItemInput{
		TableName: &s.tables.Control, Item: dynamoitem.EncodeBreaker(b, now),
		ConditionExpression:                 aws.String("attribute_not_exists(#version)"),
		ExpressionAttributeNames:            map[string]string{"#version": dynamoitem.Version},
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
		ReturnConsumedCapacity:              s.returnCapacity(),
	}
	if was > 0 {
		in.ConditionExpression = aws.String("#version = :was")
		in.ExpressionAttributeValues = dynamoitem.Item{":was": dynamoitem.N(int64(was))}
	}
	out, err := s.db.PutItem(ctx, in)
	if old, failed := conditionFailed(err); failed {
		if reflect.DeepEqual(old, in.Item) {
			return b, nil // our own write, repeated by the SDK
		}
		return b, breaker.ErrConflict
	}
	if err != nil {
		return b, fmt.Errorf("put the breaker of %s: %w", b.EndpointID, err)
	}
	s.recordWrite(out.ConsumedCapacity)
	return b, nil
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
			b, err := dynamoitem.DecodeBreaker(item)
			if err != nil {
				return nil, err
			}
			list = append(list, b)
		}
	}
	slices.SortFunc(list, breaker.CompareWakeAt)
	return list, nil
}

// ReserveSlots: see dispatch.Limits. The larger of two times is not an expression
// that DynamoDB has, so the write is tried for either case; time passing between
// the two tries is the only way to need a third.
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
	return time.Time{}, fmt.Errorf("reserve slots of %s: %w", key, errors.New("the item changes faster than it can be written"))
}

// limitRetention is how long a rate limit's item is kept after its last write:
// longer than anything waits for a slot.
const limitRetention = 30 * 24 * time.Hour
