package dynamo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// AddStatistics: see dispatch.Statistics. It is one update, of one write unit as
// long as the bucket's item is below 1 KB. The condition makes the SDK's own
// repetition harmless, unless another worker's batch came between: then the batch
// is counted twice, which statistics bear.
func (s *Store) AddStatistics(ctx context.Context, b stats.Batch) error {
	bucket := stats.Bucket(b.At)
	names := map[string]string{"#batch": dynamoitem.BatchID, "#expires": dynamoitem.ExpiresAt}
	values := dynamoitem.Item{":batch": dynamoitem.S(b.ID), ":expires": dynamoitem.Seconds(bucket.Add(stats.BucketTime + stats.Retention))}
	var adds []string
	expression := "SET #batch = :batch, #expires = :expires"
	if !b.LastEvent.IsZero() {
		names["#last_event"], values[":last_event"] = dynamoitem.LastEvent, dynamoitem.Millis(b.LastEvent)
		expression += ", #last_event = :last_event"
	}
	if b.Worked {
		names["#last_batch"], values[":last_batch"] = dynamoitem.LastBatch, dynamoitem.Millis(b.At)
		expression += ", #last_batch = :last_batch"
	}
	if len(b.Disabled) > 0 {
		names["#disabled"], values[":disabled"] = dynamoitem.DisabledEndpoints, dynamoitem.EndpointSet(b.Disabled)
		adds = append(adds, "#disabled :disabled")
	}
	if add := dynamoitem.AddTo(dynamoitem.EncodeCounts(b.At, b.Totals()), names, values); add != "" {
		adds = append(adds, add)
	}
	if adds != nil {
		expression += " ADD " + strings.Join(adds, ", ")
	}
	out, err := s.db.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName: &s.tables.Control, Key: dynamoitem.Item{dynamoitem.Key: dynamoitem.S(dynamoitem.StatisticsKey(bucket, b.Shard()))},
		UpdateExpression: &expression, ConditionExpression: aws.String("attribute_not_exists(#batch) OR #batch <> :batch"),
		ExpressionAttributeNames: names, ExpressionAttributeValues: values,
		ReturnConsumedCapacity: s.returnCapacity(),
	})
	if _, failed := conditionFailed(err); failed {
		return nil // our own write, repeated
	}
	if err != nil {
		return fmt.Errorf("add statistics: %w", err)
	}
	s.recordWrite(out.ConsumedCapacity)
	return nil
}

// NoteSweep: see dispatch.Statistics.
func (s *Store) NoteSweep(ctx context.Context, sweep stats.Sweep) error {
	out, err := s.db.PutItem(ctx, &dynamodb.PutItemInput{
		TableName: &s.tables.Control, Item: dynamoitem.EncodeSweep(sweep), ReturnConsumedCapacity: s.returnCapacity(),
	})
	if err != nil {
		return fmt.Errorf("note the sweep: %w", err)
	}
	s.recordWrite(out.ConsumedCapacity)
	return nil
}

// batchGet is how many items DynamoDB reads at once.
const batchGet = 100

// ReadStatistics: see stats.Source.
func (s *Store) ReadStatistics(ctx context.Context, buckets []time.Time) (map[time.Time]stats.Record, stats.Sweep, error) {
	keys := []dynamoitem.Item{{dynamoitem.Key: dynamoitem.S(dynamoitem.SweepKey)}}
	for _, b := range buckets {
		for shard := range stats.Shards {
			keys = append(keys, dynamoitem.Item{dynamoitem.Key: dynamoitem.S(dynamoitem.StatisticsKey(b, shard))})
		}
	}
	records, sweep := map[time.Time]stats.Record{}, stats.Sweep{}
	items, err := s.getAll(ctx, s.tables.Control, types.KeysAndAttributes{Keys: keys})
	if err != nil {
		return nil, sweep, fmt.Errorf("read statistics: %w", err)
	}
	for _, item := range items {
		if key, ok := item[dynamoitem.Key].(*types.AttributeValueMemberS); ok && key.Value == dynamoitem.SweepKey {
			if sweep, err = dynamoitem.DecodeSweep(item); err != nil {
				return nil, sweep, err
			}
			continue
		}
		bucket, part, err := dynamoitem.DecodeStatistics(item)
		if err != nil {
			return nil, sweep, err
		}
		records[bucket] = stats.Merge(records[bucket], part)
	}
	return records, sweep, nil
}

// getAll reads items by their keys, a hundred at a time; those that are not there
// are left out.
func (s *Store) getAll(ctx context.Context, table string, ask types.KeysAndAttributes) (items []dynamoitem.Item, err error) {
	for keys := ask.Keys; len(keys) > 0; {
		n := min(len(keys), batchGet)
		ask.Keys = keys[:n]
		out, err := s.db.BatchGetItem(ctx, &dynamodb.BatchGetItemInput{
			RequestItems:           map[string]types.KeysAndAttributes{table: ask},
			ReturnConsumedCapacity: s.returnCapacity(),
		})
		if err != nil {
			return nil, err
		}
		for i := range out.ConsumedCapacity {
			s.recordRead(&out.ConsumedCapacity[i])
		}
		items = append(items, out.Responses[table]...)
		left := out.UnprocessedKeys[table].Keys
		if len(left) == n {
			return nil, errors.New("the table is throttled")
		}
		keys = append(left, keys[n:]...)
	}
	return items, nil
}

// DisabledEndpoints returns those of the endpoints that are out of service, with
// the reason, by one read for each hundred.
func (s *Store) DisabledEndpoints(ctx context.Context, list []stats.Endpoint) (map[stats.Endpoint]string, error) {
	var keys []dynamoitem.Item
	for _, e := range list {
		keys = append(keys, dynamoitem.EndpointKey(e.Tenant, e.ID))
	}
	// Not the whole items: nobody here has to see a secret.
	items, err := s.getAll(ctx, s.tables.Endpoints, types.KeysAndAttributes{
		Keys: keys, ProjectionExpression: aws.String("#tenant, #endpoint_id, #status, #status_reason"),
		ExpressionAttributeNames: names("#tenant, #endpoint_id, #status, #status_reason"),
	})
	if err != nil {
		return nil, fmt.Errorf("read disabled endpoints: %w", err)
	}
	disabled := map[stats.Endpoint]string{}
	for _, item := range items {
		e, status, reason, err := dynamoitem.DecodeStatus(item)
		if err != nil {
			return nil, err
		}
		if status == endpoint.Disabled {
			disabled[e] = reason
		}
	}
	return disabled, nil
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

// ReadAlerts: see alert.Documents.
func (s *Store) ReadAlerts(ctx context.Context) (document []byte, version int, err error) {
	out, err := s.db.GetItem(ctx, &dynamodb.GetItemInput{
		TableName: &s.tables.Control, Key: dynamoitem.Item{dynamoitem.Key: dynamoitem.S(dynamoitem.AlertsKey)},
		ConsistentRead: aws.Bool(true), ReturnConsumedCapacity: s.returnCapacity(),
	})
	if err != nil {
		return nil, 0, fmt.Errorf("read the alerts' state: %w", err)
	}
	s.recordRead(out.ConsumedCapacity)
	if out.Item == nil {
		return nil, 0, nil
	}
	document, version, _, err = dynamoitem.DecodeAlerts(out.Item)
	return document, version, err
}

// WriteAlerts: see alert.Documents.
func (s *Store) WriteAlerts(ctx context.Context, document []byte, was int, writer string) (stored bool, err error) {
	condition := "#version = :was"
	if was == 0 {
		condition = "attribute_not_exists(#version)"
	}
	in := &dynamodb.PutItemInput{
		TableName: &s.tables.Control, Item: dynamoitem.EncodeAlerts(document, was+1, writer),
		ConditionExpression: &condition, ExpressionAttributeNames: map[string]string{"#version": dynamoitem.Version},
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
		ReturnConsumedCapacity:              s.returnCapacity(),
	}
	if was > 0 {
		in.ExpressionAttributeValues = dynamoitem.Item{":was": dynamoitem.N(int64(was))}
	}
	out, err := s.db.PutItem(ctx, in)
	if old, failed := conditionFailed(err); failed {
		if old == nil {
			return false, nil
		}
		_, version, by, err := dynamoitem.DecodeAlerts(old)
		return err == nil && version == was+1 && by == writer, err // our own write, repeated
	}
	if err != nil {
		return false, fmt.Errorf("write the alerts' state: %w", err)
	}
	s.recordWrite(out.ConsumedCapacity)
	return true, nil
}
