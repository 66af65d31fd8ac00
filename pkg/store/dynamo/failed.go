package dynamo

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// KeepFailedChange: see emit.FailedChanges.
func (s *Store) KeepFailedChange(ctx context.Context, f platform.FailedChange) (isNew bool, err error) {
	item := dynamoitem.EncodeFailedChange(f)
	stored, failed, err := s.put(ctx, s.tables.Deliveries, &dynamodb.PutItemInput{Item: item, ConditionExpression: aws.String("attribute_not_exists(event_id)")})
	if err != nil {
		return false, fmt.Errorf("keep a failed change: %w", err)
	}
	return !failed || reflect.DeepEqual(stored, item), nil // equal: our own write, repeated by the SDK
}

// GetFailedChange: see emit.Recaptures.
func (s *Store) GetFailedChange(ctx context.Context, id string) (platform.FailedChange, error) {
	item, err := s.get(ctx, s.tables.Deliveries, dynamoitem.FailedChangeKey(id), true)
	if err != nil {
		return platform.FailedChange{}, fmt.Errorf("get failed change %.64q: %w", id, err)
	}
	if item == nil {
		return platform.FailedChange{}, platform.ErrNoFailedChange
	}
	return dynamoitem.DecodeFailedChange(item)
}

// FailAgain: see emit.Recaptures.
func (s *Store) FailAgain(ctx context.Context, f platform.FailedChange, reason string, at time.Time) error {
	u := update{values: dynamoitem.Item{":was": dynamoitem.N(int64(f.Attempts))}}
	u.set(dynamoitem.Attempts, dynamoitem.N(int64(f.Attempts+1)))
	u.set("last_tried", dynamoitem.Millis(at))
	u.set(dynamoitem.Reason, dynamoitem.S(reason))
	// If the condition fails, somebody else tried at the same time, or it was our own
	// write, repeated by the SDK.
	if _, _, _, err := s.update(ctx, s.tables.Deliveries, dynamoitem.FailedChangeKey(f.ID), u, "#attempts = :was"); err != nil {
		return fmt.Errorf("update failed change %s: %w", f.ID, err)
	}
	return nil
}

// RemoveFailedChange: see emit.Recaptures.
func (s *Store) RemoveFailedChange(ctx context.Context, id string) error {
	out, err := s.db.DeleteItem(ctx, &dynamodb.DeleteItemInput{
		TableName: &s.tables.Deliveries, Key: dynamoitem.FailedChangeKey(id), ReturnConsumedCapacity: s.returnCapacity(),
	})
	if err != nil {
		return fmt.Errorf("remove failed change %s: %w", id, err)
	}
	s.recordWrite(out.ConsumedCapacity)
	return nil
}

// ListFailedChanges returns failed changes that were made since from, without their
// records, newest first. A limit of 0 means 100. It reads whole items: up to 44 read units
// for each.
func (s *Store) ListFailedChanges(ctx context.Context, from time.Time, limit int, cursor string) (platform.FailedChangePage, error) {
	var page platform.FailedChangePage
	q := delivery.Query{EndpointID: dynamoitem.FailedChanges, From: from, Limit: limit, Cursor: cursor}
	in, err := s.newestFirst(q)
	if err != nil {
		return page, err
	}
	projection := "#" + strings.Join(dynamoitem.FailedChangeAttributes, ", #")
	in.ProjectionExpression = &projection
	maps.Copy(in.ExpressionAttributeNames, names(projection))
	for {
		out, err := s.db.Query(ctx, in)
		if err != nil {
			return page, fmt.Errorf("list failed changes: %w", err)
		}
		s.recordRead(out.ConsumedCapacity)
		for _, item := range out.Items {
			if len(page.Changes) == q.PageSize() {
				page.Next = q.CursorAfter(page.Changes[len(page.Changes)-1].ID)
				return page, nil
			}
			f, err := dynamoitem.DecodeFailedChange(item)
			if err != nil {
				return page, err
			}
			page.Changes = append(page.Changes, f)
		}
		if out.LastEvaluatedKey == nil {
			return page, nil
		}
		in.ExclusiveStartKey = out.LastEvaluatedKey
	}
}

// CountFailedChanges: see health.Capture. It makes one read of at most 1 MB.
func (s *Store) CountFailedChanges(ctx context.Context) (n int, more bool, err error) {
	out, err := s.db.Query(ctx, &dynamodb.QueryInput{
		TableName: &s.tables.Deliveries, KeyConditionExpression: aws.String("endpoint_id = :partition"),
		ExpressionAttributeValues: dynamoitem.Item{":partition": dynamoitem.S(dynamoitem.FailedChanges)},
		Select:                    types.SelectCount, Limit: aws.Int32(countedFailedChanges), ReturnConsumedCapacity: s.returnCapacity(),
	})
	if err != nil {
		return 0, false, fmt.Errorf("count failed changes: %w", err)
	}
	s.recordRead(out.ConsumedCapacity)
	return int(out.Count), out.LastEvaluatedKey != nil, nil
}

// countedFailedChanges is the maximum number that CountFailedChanges counts.
const countedFailedChanges = 1000

// MarkStuckCapture: see emit.StuckCaptures.
func (s *Store) MarkStuckCapture(ctx context.Context, mark platform.StuckCapture) error {
	was, err := s.ReadStuckCapture(ctx)
	if err != nil {
		return err
	}
	if was.Continues(mark.FailedAt) {
		mark.Since = was.Since
	}
	if _, _, err := s.put(ctx, s.tables.Control, &dynamodb.PutItemInput{Item: dynamoitem.EncodeStuckCapture(mark)}); err != nil {
		return fmt.Errorf("mark capture as stuck: %w", err)
	}
	return nil
}

// ClearStuckCapture: see emit.StuckCaptures.
func (s *Store) ClearStuckCapture(ctx context.Context, sequenceNumber string) error {
	out, err := s.db.DeleteItem(ctx, &dynamodb.DeleteItemInput{
		TableName: &s.tables.Control, Key: dynamoitem.Item{dynamoitem.Key: dynamoitem.S(dynamoitem.StuckCaptureKey)},
		ConditionExpression:       aws.String("sequence_number = :number"),
		ExpressionAttributeValues: dynamoitem.Item{":number": dynamoitem.S(sequenceNumber)}, ReturnConsumedCapacity: s.returnCapacity(),
	})
	if _, failed := conditionFailed(err); failed {
		return nil // another shard of the stream is stuck, or it was our own write, repeated by the SDK
	}
	if err != nil {
		return fmt.Errorf("mark capture as no longer stuck: %w", err)
	}
	s.recordWrite(out.ConsumedCapacity)
	return nil
}

// ReadStuckCapture: see health.Capture.
func (s *Store) ReadStuckCapture(ctx context.Context) (platform.StuckCapture, error) {
	item, err := s.get(ctx, s.tables.Control, dynamoitem.Item{dynamoitem.Key: dynamoitem.S(dynamoitem.StuckCaptureKey)}, false)
	if err != nil {
		return platform.StuckCapture{}, fmt.Errorf("read whether capture is stuck: %w", err)
	}
	if item == nil {
		return platform.StuckCapture{}, nil
	}
	return dynamoitem.DecodeStuckCapture(item)
}
