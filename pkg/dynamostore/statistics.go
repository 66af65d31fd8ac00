package dynamostore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/schema"
	"github.com/tidings-dev/tidings/pkg/stats"
)

// AddStatistics: see dispatch.Statistics. It is one update, of one write unit as
// long as the bucket's item is below 1 KB. The condition makes the SDK's own
// repetition harmless, unless another worker's batch came between: then the batch
// is counted twice, which statistics bear.
func (s *Store) AddStatistics(ctx context.Context, b stats.Batch) error {
	bucket := stats.Bucket(b.At)
	names := map[string]string{"#batch": schema.BatchID, "#expires": schema.ExpiresAt}
	values := schema.Item{":batch": schema.S(b.ID), ":expires": schema.Seconds(bucket.Add(stats.BucketTime + stats.Retention))}
	expression := "SET #batch = :batch, #expires = :expires"
	if !b.LastEvent.IsZero() {
		names["#last_event"], values[":last_event"] = schema.LastEvent, schema.Millis(b.LastEvent)
		expression += ", #last_event = :last_event"
	}
	if b.Worked {
		names["#last_batch"], values[":last_batch"] = schema.LastBatch, schema.Millis(b.At)
		expression += ", #last_batch = :last_batch"
	}
	if add := schema.AddTo(schema.EncodeCounts(b.At, b.Totals()), names, values); add != "" {
		expression += " ADD " + add
	}
	out, err := s.db.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName: &s.tables.Control, Key: schema.Item{schema.Key: schema.S(schema.StatisticsKey(bucket, b.Shard()))},
		UpdateExpression: &expression, ConditionExpression: aws.String("attribute_not_exists(#batch) OR #batch <> :batch"),
		ExpressionAttributeNames: names, ExpressionAttributeValues: values,
		ReturnConsumedCapacity: s.wantCapacity(),
	})
	if _, failed := conditionFailed(err); failed {
		return nil // our own write, repeated
	}
	if err != nil {
		return fmt.Errorf("add statistics: %w", err)
	}
	s.wrote(out.ConsumedCapacity)
	return nil
}

// NoteSweep: see dispatch.Statistics.
func (s *Store) NoteSweep(ctx context.Context, sweep stats.Sweep) error {
	out, err := s.db.PutItem(ctx, &dynamodb.PutItemInput{
		TableName: &s.tables.Control, Item: schema.EncodeSweep(sweep), ReturnConsumedCapacity: s.wantCapacity(),
	})
	if err != nil {
		return fmt.Errorf("note the sweep: %w", err)
	}
	s.wrote(out.ConsumedCapacity)
	return nil
}

// batchGet is how many items DynamoDB reads at once.
const batchGet = 100

// ReadStatistics: see stats.Source.
func (s *Store) ReadStatistics(ctx context.Context, buckets []time.Time) (stats.Record, error) {
	keys := []schema.Item{{schema.Key: schema.S(schema.SweepKey)}}
	for _, b := range buckets {
		for shard := range stats.Shards {
			keys = append(keys, schema.Item{schema.Key: schema.S(schema.StatisticsKey(b, shard))})
		}
	}
	var parts []stats.Record
	for len(keys) > 0 {
		n := min(len(keys), batchGet)
		out, err := s.db.BatchGetItem(ctx, &dynamodb.BatchGetItemInput{
			RequestItems:           map[string]types.KeysAndAttributes{s.tables.Control: {Keys: keys[:n]}},
			ReturnConsumedCapacity: s.wantCapacity(),
		})
		if err != nil {
			return stats.Record{}, fmt.Errorf("read statistics: %w", err)
		}
		for i := range out.ConsumedCapacity {
			s.read(&out.ConsumedCapacity[i])
		}
		for _, item := range out.Responses[s.tables.Control] {
			part, err := decodeStatistics(item)
			if err != nil {
				return stats.Record{}, err
			}
			parts = append(parts, part)
		}
		left := out.UnprocessedKeys[s.tables.Control].Keys
		if len(left) == n {
			return stats.Record{}, errors.New("read statistics: the table is throttled")
		}
		keys = append(left, keys[n:]...)
	}
	return stats.Merge(parts...), nil
}

func decodeStatistics(item schema.Item) (stats.Record, error) {
	if key, ok := item[schema.Key].(*types.AttributeValueMemberS); ok && key.Value == schema.SweepKey {
		sweep, err := schema.DecodeSweep(item)
		return stats.Record{Sweep: sweep}, err
	}
	return schema.DecodeStatistics(item)
}

// CountDue: see dispatch.DueIndex.
func (s *Store) CountDue(ctx context.Context, shard int, after time.Time, limit int) (n int, more bool, err error) {
	out, err := s.db.Query(ctx, &dynamodb.QueryInput{
		TableName: &s.tables.Deliveries, IndexName: aws.String(schema.DueIndex), Select: types.SelectCount,
		KeyConditionExpression:    aws.String("due_shard = :shard AND due_at > :after"),
		ExpressionAttributeValues: schema.Item{":shard": schema.N(int64(shard)), ":after": schema.Millis(after)},
		Limit:                     aws.Int32(int32(limit)), ReturnConsumedCapacity: s.wantCapacity(),
	})
	if err != nil {
		return 0, false, fmt.Errorf("count the due index: %w", err)
	}
	s.read(out.ConsumedCapacity)
	return int(out.Count), out.LastEvaluatedKey != nil, nil
}
