package dynamo

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
	"github.com/tidings-dev/tidings/pkg/systemtest/testrun"
)

// PutTestRun: see testreceiver.Store.
func (s *Store) PutTestRun(ctx context.Context, r testrun.Run) error {
	if _, _, err := s.put(ctx, s.tables.TestReceiver, &dynamodb.PutItemInput{Item: dynamoitem.EncodeTestRun(r)}); err != nil {
		return fmt.Errorf("put test run %s: %w", r.ID, err)
	}
	return nil
}

// GetTestRun: see testreceiver.Store.
func (s *Store) GetTestRun(ctx context.Context, id string) (testrun.Run, error) {
	item, err := s.get(ctx, s.tables.TestReceiver, dynamoitem.TestRunKey(id), true)
	if err != nil {
		return testrun.Run{}, fmt.Errorf("get test run %s: %w", id, err)
	}
	if item == nil {
		return testrun.Run{}, testrun.ErrNotFound
	}
	return dynamoitem.DecodeTestRun(item)
}

// DeleteTestRun: see testreceiver.Store.
func (s *Store) DeleteTestRun(ctx context.Context, id string) error {
	out, err := s.db.DeleteItem(ctx, &dynamodb.DeleteItemInput{
		TableName: &s.tables.TestReceiver, Key: dynamoitem.TestRunKey(id), ReturnConsumedCapacity: s.returnCapacity(),
	})
	if err != nil {
		return fmt.Errorf("delete test run %s: %w", id, err)
	}
	s.recordWrite(out.ConsumedCapacity)
	return nil
}

// PutArrival: see testreceiver.Store.
func (s *Store) PutArrival(ctx context.Context, run testrun.Run, a testrun.Arrival) error {
	if _, _, err := s.put(ctx, s.tables.TestReceiver, &dynamodb.PutItemInput{Item: dynamoitem.EncodeArrival(run, a)}); err != nil {
		return fmt.Errorf("put an arrival of test run %s: %w", run.ID, err)
	}
	return nil
}

// ListArrivals: see testreceiver.Store.
func (s *Store) ListArrivals(ctx context.Context, id, cursor string, limit int) (page testrun.Page, err error) {
	in := &dynamodb.QueryInput{
		TableName:                 &s.tables.TestReceiver,
		KeyConditionExpression:    aws.String("#run = :run"),
		ExpressionAttributeNames:  map[string]string{"#run": dynamoitem.TestRun},
		ExpressionAttributeValues: dynamoitem.Item{":run": dynamoitem.S(id)},
		ConsistentRead:            aws.Bool(true), Limit: aws.Int32(int32(limit)), ReturnConsumedCapacity: s.returnCapacity(),
		// The run's own item sorts before its arrivals.
		ExclusiveStartKey: dynamoitem.TestRunKey(id),
	}
	if cursor != "" {
		in.ExclusiveStartKey[dynamoitem.TestKey] = dynamoitem.S(cursor)
	}
	out, err := s.db.Query(ctx, in)
	if err != nil {
		return page, fmt.Errorf("list the arrivals of test run %s: %w", id, err)
	}
	s.recordRead(out.ConsumedCapacity)
	for _, item := range out.Items {
		a, err := dynamoitem.DecodeArrival(item)
		if err != nil {
			return page, err
		}
		page.Arrivals = append(page.Arrivals, a)
	}
	if n := len(page.Arrivals); out.LastEvaluatedKey != nil && n > 0 {
		page.Next = page.Arrivals[n-1].Key()
	}
	return page, nil
}
