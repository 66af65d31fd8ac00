package dynamo

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

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
