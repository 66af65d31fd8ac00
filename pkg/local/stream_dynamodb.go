package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams/types"
	"golang.org/x/sync/errgroup"
)

const (
	// pollInterval is the time between reads of an empty shard. Lambda polls four times
	// a second; a local read is free.
	pollInterval = 25 * time.Millisecond
	// discoveryInterval is the time between searches for new shards.
	discoveryInterval = 5 * time.Second
)

// Checkpoints stores how far each shard is processed, in a file.
type Checkpoints struct {
	path string
	mu   sync.Mutex
	at   map[string]string // by shard
}

// OpenCheckpoints reads the file, if it exists. With an empty path, checkpoints are
// kept in memory.
func OpenCheckpoints(path string) (*Checkpoints, error) {
	c := &Checkpoints{path: path, at: map[string]string{}}
	if path == "" {
		return c, nil
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return c, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &c.at)
	}
	if err != nil {
		return nil, fmt.Errorf("checkpoints: %w", err)
	}
	return c, nil
}

// get returns a shard's checkpoint, or "".
func (c *Checkpoints) get(shard string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at[shard]
}

// set stores a checkpoint. It replaces the file atomically, so a killed process
// leaves the previous one.
func (c *Checkpoints) set(shard, sequence string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at[shard] = sequence
	if c.path == "" {
		return nil
	}
	text, err := json.Marshal(c.at)
	if err != nil {
		return err
	}
	fresh := c.path + ".new"
	if err := os.WriteFile(fresh, text, 0o600); err != nil {
		return fmt.Errorf("checkpoints: %w", err)
	}
	if err := os.Rename(fresh, filepath.Clean(c.path)); err != nil {
		return fmt.Errorf("checkpoints: %w", err)
	}
	return nil
}

// DynamoStream reads a table's stream with the DynamoDB Streams API.
type DynamoStream struct {
	DB          *dynamodb.Client
	Streams     *dynamodbstreams.Client
	Table       string
	Checkpoints *Checkpoints
	// Mapping returns the mapping of a shard that resumes after a checkpoint.
	Mapping func(shard Shard, after string) *StreamMapping
}

// Run processes all shards, each after its parent, until ctx is done.
func (s *DynamoStream) Run(ctx context.Context) error {
	table, err := s.DB.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &s.Table})
	if err != nil {
		return fmt.Errorf("table %s: %w", s.Table, err)
	}
	arn := table.Table.LatestStreamArn
	if arn == nil {
		return fmt.Errorf("table %s has no stream", s.Table)
	}
	group, groupCtx := errgroup.WithContext(ctx)
	ended := map[string]chan struct{}{} // by shard; closed at the end of the shard
	for {
		shards, err := s.shards(groupCtx, arn)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			_ = group.Wait()
			return err
		}
		for _, one := range shards {
			id := aws.ToString(one.ShardId)
			if ended[id] != nil {
				continue
			}
			done := make(chan struct{})
			ended[id] = done
			parent := ended[aws.ToString(one.ParentShardId)]
			group.Go(func() error {
				defer close(done)
				if parent != nil {
					select {
					case <-parent:
					case <-groupCtx.Done():
						return nil
					}
				}
				shard := &dynamoShard{stream: s, arn: arn, id: id}
				return s.Mapping(shard, s.Checkpoints.get(id)).Run(groupCtx)
			})
		}
		select {
		case <-time.After(discoveryInterval):
		case <-groupCtx.Done():
			return group.Wait()
		}
	}
}

func (s *DynamoStream) shards(ctx context.Context, arn *string) ([]types.Shard, error) {
	var list []types.Shard
	in := &dynamodbstreams.DescribeStreamInput{StreamArn: arn}
	for {
		out, err := s.Streams.DescribeStream(ctx, in)
		if err != nil {
			return nil, fmt.Errorf("stream of %s: %w", s.Table, err)
		}
		list = append(list, out.StreamDescription.Shards...)
		if out.StreamDescription.LastEvaluatedShardId == nil {
			return list, nil
		}
		in.ExclusiveStartShardId = out.StreamDescription.LastEvaluatedShardId
	}
}

// dynamoShard reads one shard. It keeps an iterator and is not safe for concurrent use.
type dynamoShard struct {
	stream   *DynamoStream
	arn      *string
	id       string
	iterator *string
	at       string // sequence number before the iterator
}

func (s *dynamoShard) Read(ctx context.Context, after string, limit int) ([]events.DynamoDBEventRecord, error) {
	for {
		if s.iterator == nil || s.at != after {
			if err := s.seek(ctx, after); err != nil {
				return nil, err
			}
		}
		out, err := s.stream.Streams.GetRecords(ctx, &dynamodbstreams.GetRecordsInput{ShardIterator: s.iterator, Limit: aws.Int32(int32(limit))})
		var expired *types.ExpiredIteratorException
		if errors.As(err, &expired) {
			s.iterator = nil
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the stream of %s: %w", s.stream.Table, err)
		}
		s.iterator = out.NextShardIterator
		if len(out.Records) > 0 {
			batch := make([]events.DynamoDBEventRecord, len(out.Records))
			for i, r := range out.Records {
				batch[i] = lambdaRecord(r, aws.ToString(s.arn))
			}
			s.at = batch[len(batch)-1].Change.SequenceNumber
			return batch, nil
		}
		if s.iterator == nil {
			return nil, ErrShardEnd
		}
		select {
		case <-time.After(pollInterval):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *dynamoShard) seek(ctx context.Context, after string) error {
	in := &dynamodbstreams.GetShardIteratorInput{StreamArn: s.arn, ShardId: &s.id, ShardIteratorType: types.ShardIteratorTypeTrimHorizon}
	if after != "" {
		in.ShardIteratorType, in.SequenceNumber = types.ShardIteratorTypeAfterSequenceNumber, &after
	}
	out, err := s.stream.Streams.GetShardIterator(ctx, in)
	var trimmed *types.TrimmedDataAccessException
	if errors.As(err, &trimmed) {
		// The record of the checkpoint is no longer in the stream; start with the oldest.
		in.ShardIteratorType, in.SequenceNumber = types.ShardIteratorTypeTrimHorizon, nil
		out, err = s.stream.Streams.GetShardIterator(ctx, in)
	}
	if err != nil {
		return fmt.Errorf("stream of %s: %w", s.stream.Table, err)
	}
	s.iterator, s.at = out.ShardIterator, after
	return nil
}

func (s *dynamoShard) Done(upTo string) error { return s.stream.Checkpoints.set(s.id, upTo) }

// lambdaRecord converts a record to the form that Lambda passes to a function.
func lambdaRecord(r types.Record, arn string) events.DynamoDBEventRecord {
	record := events.DynamoDBEventRecord{
		AWSRegion: aws.ToString(r.AwsRegion), EventID: aws.ToString(r.EventID), EventName: string(r.EventName),
		EventSource: "aws:dynamodb", EventVersion: aws.ToString(r.EventVersion), EventSourceArn: arn,
	}
	if u := r.UserIdentity; u != nil {
		record.UserIdentity = &events.DynamoDBUserIdentity{Type: aws.ToString(u.Type), PrincipalID: aws.ToString(u.PrincipalId)}
	}
	if d := r.Dynamodb; d != nil {
		record.Change = events.DynamoDBStreamRecord{
			ApproximateCreationDateTime: events.SecondsEpochTime{Time: aws.ToTime(d.ApproximateCreationDateTime)},
			Keys:                        lambdaImage(d.Keys), NewImage: lambdaImage(d.NewImage), OldImage: lambdaImage(d.OldImage),
			SequenceNumber: aws.ToString(d.SequenceNumber), SizeBytes: aws.ToInt64(d.SizeBytes), StreamViewType: string(d.StreamViewType),
		}
	}
	return record
}

func lambdaImage(image map[string]types.AttributeValue) map[string]events.DynamoDBAttributeValue {
	if image == nil {
		return nil
	}
	out := make(map[string]events.DynamoDBAttributeValue, len(image))
	for name, value := range image {
		out[name] = lambdaValue(value)
	}
	return out
}

func lambdaValue(value types.AttributeValue) events.DynamoDBAttributeValue {
	switch v := value.(type) {
	case *types.AttributeValueMemberS:
		return events.NewStringAttribute(v.Value)
	case *types.AttributeValueMemberN:
		return events.NewNumberAttribute(v.Value)
	case *types.AttributeValueMemberBOOL:
		return events.NewBooleanAttribute(v.Value)
	case *types.AttributeValueMemberB:
		return events.NewBinaryAttribute(v.Value)
	case *types.AttributeValueMemberSS:
		return events.NewStringSetAttribute(v.Value)
	case *types.AttributeValueMemberNS:
		return events.NewNumberSetAttribute(v.Value)
	case *types.AttributeValueMemberBS:
		return events.NewBinarySetAttribute(v.Value)
	case *types.AttributeValueMemberM:
		return events.NewMapAttribute(lambdaImage(v.Value))
	case *types.AttributeValueMemberL:
		list := make([]events.DynamoDBAttributeValue, len(v.Value))
		for i, item := range v.Value {
			list[i] = lambdaValue(item)
		}
		return events.NewListAttribute(list)
	}
	return events.NewNullAttribute()
}
