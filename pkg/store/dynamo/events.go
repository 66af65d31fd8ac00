package dynamo

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// PutEvent: see emit.Events. A repeated write of its own returns ErrExists too; a
// caller that uses a fresh id can treat that as success.
func (s *Store) PutEvent(ctx context.Context, a event.Accepted) error {
	item, err := dynamoitem.EncodeEvent(a)
	if err != nil {
		return err
	}
	out, err := s.db.PutItem(ctx, &dynamodb.PutItemInput{
		TableName: &s.tables.Events, Item: item,
		ConditionExpression:    aws.String("attribute_not_exists(event_id)"),
		ReturnConsumedCapacity: s.returnCapacity(),
	})
	if _, failed := conditionFailed(err); failed {
		return event.ErrExists
	}
	if err != nil {
		return fmt.Errorf("put event %s: %w", a.ID, err)
	}
	s.recordWrite(out.ConsumedCapacity)
	return nil
}

// GetEvent: see dispatch.Events. If the eventually consistent read, which costs half,
// finds nothing, a consistent read decides.
func (s *Store) GetEvent(ctx context.Context, id string) (event.Accepted, error) {
	for _, consistent := range []bool{false, true} {
		item, err := s.get(ctx, s.tables.Events, dynamoitem.Item{dynamoitem.EventID: dynamoitem.S(id)}, consistent)
		if err != nil {
			return event.Accepted{}, fmt.Errorf("get event %s: %w", id, err)
		}
		if item != nil {
			return dynamoitem.DecodeEvent(item)
		}
	}
	return event.Accepted{}, event.ErrNotFound
}

// KeepEvent: see dispatch.Events. It changes no other attribute than the function's role
// permits, and costs a write unit per KB of the event, also if the event is kept already.
func (s *Store) KeepEvent(ctx context.Context, id string, until time.Time) error {
	u := update{values: dynamoitem.Item{":event_id": dynamoitem.S(id)}}
	u.set(dynamoitem.ExpiresAt, dynamoitem.Seconds(until))
	expression, condition := u.expression(), "#event_id = :event_id AND #expires_at < :expires_at"
	out, err := s.db.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName: &s.tables.Events, Key: dynamoitem.Item{dynamoitem.EventID: dynamoitem.S(id)}, UpdateExpression: &expression, ConditionExpression: &condition,
		ExpressionAttributeNames: names(expression, condition), ExpressionAttributeValues: u.values, ReturnConsumedCapacity: s.returnCapacity(),
	})
	if _, failed := conditionFailed(err); failed {
		return nil // it is kept for as long, or it is gone
	}
	if err != nil {
		return fmt.Errorf("keep event %s: %w", id, err)
	}
	s.recordWrite(out.ConsumedCapacity)
	return nil
}

// ScanEvents: see dispatch.StoredEvents. It makes one read of at most 1 MB of all tenants'
// events, for 256 read units: the read is consistent, so that it misses none.
func (s *Store) ScanEvents(ctx context.Context, q event.Scan) (page event.ScanPage, err error) {
	in := &dynamodb.ScanInput{
		TableName: &s.tables.Events, Segment: aws.Int32(int32(q.Segment)), TotalSegments: aws.Int32(int32(q.Segments)), ConsistentRead: aws.Bool(true),
		FilterExpression: aws.String("#tenant = :tenant"), ExpressionAttributeNames: map[string]string{"#tenant": dynamoitem.Tenant},
		ExpressionAttributeValues: dynamoitem.Item{":tenant": dynamoitem.S(q.Tenant)}, ReturnConsumedCapacity: s.returnCapacity(),
	}
	if q.Cursor != "" {
		in.ExclusiveStartKey = dynamoitem.Item{dynamoitem.EventID: dynamoitem.S(q.Cursor)}
	}
	out, err := s.db.Scan(ctx, in)
	if err != nil {
		return page, fmt.Errorf("scan the events: %w", err)
	}
	s.recordRead(out.ConsumedCapacity)
	for _, item := range out.Items {
		a, err := dynamoitem.DecodeEvent(item)
		if err != nil {
			return page, fmt.Errorf("scan the events: %w", err)
		}
		page.Events = append(page.Events, a)
	}
	if last, ok := out.LastEvaluatedKey[dynamoitem.EventID].(*types.AttributeValueMemberS); ok {
		page.Next = last.Value
	}
	return page, nil
}

// EraseEvent: see dispatch.StoredEvents. It changes no other attributes than those that the
// function's role permits.
func (s *Store) EraseEvent(ctx context.Context, a event.Accepted, e event.Erasure) error {
	erased, err := e.Apply(a)
	if err != nil {
		return fmt.Errorf("erase event %s: %w", a.ID, err)
	}
	item, err := dynamoitem.EncodeEvent(erased)
	if err != nil {
		return fmt.Errorf("erase event %s: %w", a.ID, err)
	}
	u := update{values: dynamoitem.Item{}}
	u.assign(item, dynamoitem.ErasedEventAttributes...)
	expression, condition := u.expression(), "#event_id = :event_id AND attribute_not_exists(#erased_at)"
	u.values[":event_id"] = dynamoitem.S(a.ID)
	out, err := s.db.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName: &s.tables.Events, Key: dynamoitem.Item{dynamoitem.EventID: dynamoitem.S(a.ID)}, UpdateExpression: &expression, ConditionExpression: &condition,
		ExpressionAttributeNames: names(expression, condition), ExpressionAttributeValues: u.values, ReturnConsumedCapacity: s.returnCapacity(),
	})
	if _, failed := conditionFailed(err); failed {
		return nil // it has expired, or it is erased: perhaps our own write, repeated by the SDK
	}
	if err != nil {
		return fmt.Errorf("erase event %s: %w", a.ID, err)
	}
	s.recordWrite(out.ConsumedCapacity)
	return nil
}

// ScanRange: see dispatch.EventScan. It makes one read of at most 1 MB, for 128 read units.
func (s *Store) ScanRange(ctx context.Context, q event.RangeScan) (page event.RangePage, err error) {
	first, last := event.IDRange(q.From, q.To)
	in := &dynamodb.ScanInput{
		TableName: &s.tables.Events, Segment: aws.Int32(int32(q.Segment)), TotalSegments: aws.Int32(int32(q.Segments)),
		FilterExpression:          aws.String("event_id BETWEEN :first AND :last"),
		ExpressionAttributeValues: dynamoitem.Item{":first": dynamoitem.S(first), ":last": dynamoitem.S(last)},
		ReturnConsumedCapacity:    s.returnCapacity(),
	}
	if q.After != "" {
		in.ExclusiveStartKey = dynamoitem.Item{dynamoitem.EventID: dynamoitem.S(q.After)}
	}
	out, err := s.scan(ctx, in)
	if err != nil {
		return page, err
	}
	for _, item := range out.Items {
		a, err := dynamoitem.DecodeEvent(item)
		a.ID = dynamoitem.TextOf(item, dynamoitem.EventID)
		page.Events = append(page.Events, event.Change{Inserted: true, Key: a.ID, Event: a, Err: err})
	}
	page.Next = dynamoitem.TextOf(out.LastEvaluatedKey, dynamoitem.EventID)
	return page, nil
}
