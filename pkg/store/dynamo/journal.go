package dynamo

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/tidings-dev/tidings/pkg/event/journal"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// PutJournal: see dispatch.Journal. It costs a write unit per KB: 12 events or more.
func (s *Store) PutJournal(ctx context.Context, i journal.Item) error {
	item, err := dynamoitem.EncodeJournal(i)
	if err != nil {
		return err
	}
	if _, _, err := s.put(ctx, s.tables.Deliveries, &dynamodb.PutItemInput{Item: item}); err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	return nil
}

// QueryJournal: see journal.Source. It makes one read of at most 1 MB, about 12,000
// events, for 128 read units.
func (s *Store) QueryJournal(ctx context.Context, r journal.Range) (items []journal.Item, more bool, err error) {
	condition := "#endpoint_id = :partition AND #event_id >= :first"
	partition := dynamoitem.S(dynamoitem.JournalPartition(r.Tenant, r.Shard))
	out, err := s.db.Query(ctx, &dynamodb.QueryInput{
		TableName: &s.tables.Deliveries, KeyConditionExpression: &condition, ExpressionAttributeNames: names(condition),
		ExpressionAttributeValues: dynamoitem.Item{":partition": partition, ":first": dynamoitem.S(r.First)},
		ExclusiveStartKey:         dynamoitem.Item{dynamoitem.EndpointID: partition, dynamoitem.EventID: dynamoitem.S(r.Before)},
		ScanIndexForward:          aws.Bool(false), ReturnConsumedCapacity: s.returnCapacity(),
	})
	if err != nil {
		return nil, false, fmt.Errorf("read the journal: %w", err)
	}
	s.recordRead(out.ConsumedCapacity)
	for _, item := range out.Items {
		i, err := dynamoitem.DecodeJournal(item)
		if err != nil {
			return nil, false, err
		}
		items = append(items, i)
	}
	return items, out.LastEvaluatedKey != nil, nil
}
