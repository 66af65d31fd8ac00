package dynamo

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// AddStatistics: see dispatch.Statistics. It costs one write unit as long as the
// bucket's item is below 1 KB. The condition ignores a write that the SDK repeats,
// unless another batch was added in between: then the batch counts twice, which is
// acceptable for statistics.
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
	// Names are foreign text, so they cannot be part of a placeholder's name.
	for name, value := range dynamoitem.EncodeNames(b) {
		place := fmt.Sprint("name", len(adds))
		names["#"+place], values[":"+place] = name, value
		adds = append(adds, "#"+place+" :"+place)
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
		return nil // our own write, repeated by the SDK
	}
	if err != nil {
		return fmt.Errorf("add statistics: %w", err)
	}
	s.recordWrite(out.ConsumedCapacity)
	return nil
}

// NoteSweep: see dispatch.Statistics.
func (s *Store) NoteSweep(ctx context.Context, sweep stats.Sweep) error {
	if _, _, err := s.put(ctx, s.tables.Control, &dynamodb.PutItemInput{Item: dynamoitem.EncodeSweep(sweep)}); err != nil {
		return fmt.Errorf("write the sweep's statistics: %w", err)
	}
	return nil
}

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

// ReadDays: see stats.Days.
func (s *Store) ReadDays(ctx context.Context, dates []time.Time) (map[time.Time]stats.Day, error) {
	var keys []dynamoitem.Item
	for _, date := range dates {
		keys = append(keys, dynamoitem.Item{dynamoitem.Key: dynamoitem.S(dynamoitem.DayKey(date))})
	}
	items, err := s.getAll(ctx, s.tables.Control, types.KeysAndAttributes{Keys: keys})
	if err != nil {
		return nil, fmt.Errorf("read the statistics of days: %w", err)
	}
	days := map[time.Time]stats.Day{}
	for _, item := range items {
		d, err := dynamoitem.DecodeDay(item)
		if err != nil {
			return nil, err
		}
		days[d.Date] = d
	}
	return days, nil
}

// PutDay: see stats.Days. A write that the SDK repeats finds its own day.
func (s *Store) PutDay(ctx context.Context, d stats.Day, was time.Time) (bool, error) {
	in := &dynamodb.PutItemInput{
		Item: dynamoitem.EncodeDay(d), ConditionExpression: aws.String("attribute_not_exists(#at) OR #at = :at"),
		ExpressionAttributeNames: map[string]string{"#at": dynamoitem.DayAt}, ExpressionAttributeValues: dynamoitem.Item{":at": dynamoitem.Millis(d.At)},
	}
	if !was.IsZero() {
		in.ConditionExpression = aws.String("#at = :was OR #at = :at")
		in.ExpressionAttributeValues[":was"] = dynamoitem.Millis(was)
	}
	_, refused, err := s.put(ctx, s.tables.Control, in)
	if err != nil {
		return false, fmt.Errorf("write the statistics of a day: %w", err)
	}
	return !refused, nil
}
