package dynamo

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// dueCursor is the last entry of a page of the due index.
type dueCursor struct {
	At                  int64 // epoch ms
	EndpointID, EventID string
}

// Due: see dispatch.DueIndex. The index is eventually consistent: the next sweep
// finds what it does not show yet.
func (s *Store) Due(ctx context.Context, shard int, before time.Time, cursor string, limit int) ([]delivery.Due, string, error) {
	in := &dynamodb.QueryInput{
		TableName: &s.tables.Deliveries, IndexName: aws.String(dynamoitem.DueIndex),
		KeyConditionExpression:    aws.String("due_shard = :shard AND due_at <= :before"),
		ExpressionAttributeValues: dynamoitem.Item{":shard": dynamoitem.N(int64(shard)), ":before": dynamoitem.Millis(before)},
		Limit:                     aws.Int32(int32(limit)), ReturnConsumedCapacity: s.returnCapacity(),
	}
	if cursor != "" {
		var at dueCursor
		if err := decodeCursor(cursor, &at); err != nil || at.EndpointID == "" || at.EventID == "" {
			return nil, "", fmt.Errorf("invalid cursor %.64q", cursor)
		}
		in.ExclusiveStartKey = dynamoitem.Item{
			dynamoitem.DueShard: dynamoitem.N(int64(shard)), dynamoitem.DueAt: dynamoitem.N(at.At),
			dynamoitem.EndpointID: dynamoitem.S(at.EndpointID), dynamoitem.EventID: dynamoitem.S(at.EventID),
		}
	}
	out, err := s.db.Query(ctx, in)
	if err != nil {
		return nil, "", fmt.Errorf("query the due index: %w", err)
	}
	s.recordRead(out.ConsumedCapacity)
	page := make([]delivery.Due, 0, len(out.Items))
	for _, item := range out.Items {
		due, err := dynamoitem.DecodeDue(item)
		if err != nil {
			return nil, "", err
		}
		page = append(page, due)
	}
	if out.LastEvaluatedKey == nil {
		return page, "", nil
	}
	last, err := dynamoitem.DecodeDue(out.LastEvaluatedKey)
	if err != nil {
		return nil, "", err
	}
	return page, encodeCursor(dueCursor{last.DueAt.UnixMilli(), last.EndpointID, last.EventID}), nil
}

// Postpone: see dispatch.DueIndex. A repeated write of its own returns ErrFenced; a
// later sweep finds the delivery by its new due time.
func (s *Store) Postpone(ctx context.Context, due delivery.Due, to time.Time) (delivery.Delivery, error) {
	u := update{values: dynamoitem.Item{":was": dynamoitem.Millis(due.DueAt)}}
	u.set(dynamoitem.DueAt, dynamoitem.Millis(to))
	after, _, ok, err := s.updateDelivery(ctx, due.Key, u, "#due_at = :was")
	switch {
	case err != nil:
		return delivery.Delivery{}, fmt.Errorf("postpone %s: %w", due.Key, err)
	case !ok:
		return delivery.Delivery{}, delivery.ErrFenced
	}
	return dynamoitem.DecodeDelivery(after)
}

// CountDue: see dispatch.DueIndex.
func (s *Store) CountDue(ctx context.Context, shard int, after time.Time, limit int) (n int, more bool, err error) {
	out, err := s.db.Query(ctx, &dynamodb.QueryInput{
		TableName: &s.tables.Deliveries, IndexName: aws.String(dynamoitem.DueIndex), Select: types.SelectCount,
		KeyConditionExpression:    aws.String("due_shard = :shard AND due_at > :after"),
		ExpressionAttributeValues: dynamoitem.Item{":shard": dynamoitem.N(int64(shard)), ":after": dynamoitem.Millis(after)},
		Limit:                     aws.Int32(int32(limit)), ReturnConsumedCapacity: s.returnCapacity(),
	})
	if err != nil {
		return 0, false, fmt.Errorf("count the due index: %w", err)
	}
	s.recordRead(out.ConsumedCapacity)
	return int(out.Count), out.LastEvaluatedKey != nil, nil
}
