package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tidings-dev/tidings/pkg/event/filter"
	"github.com/tidings-dev/tidings/pkg/local/queue"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
)

// Shard is an ordered part of a table's stream (DynamoDB Developer Guide, "Change data
// capture for DynamoDB Streams").
type Shard interface {
	// Read returns up to limit records after the sequence number after ("" is the
	// beginning). It blocks until there is at least one, and returns ErrShardEnd at the
	// end of a closed shard.
	Read(ctx context.Context, after string, limit int) ([]events.DynamoDBEventRecord, error)
	// Done stores the checkpoint: all records up to upTo are processed.
	Done(upTo string) error
}

// ErrShardEnd is returned at the end of a closed shard.
var ErrShardEnd = errors.New("end of shard")

// StreamMapping is the event source mapping of one shard. It invokes the function
// with one batch at a time, in order, and retries a batch until the function has
// processed it or its retries are exhausted.
type StreamMapping struct {
	Function *Function
	Shard    Shard
	Trigger  samtemplate.StreamTrigger
	// Failures receives the records whose retries are exhausted; nil drops them.
	Failures *queue.Queue
	// After is the checkpoint to resume from; "" is the beginning.
	After string
}

// Backoff between invocations with a failing batch.
const (
	minBackoff = 200 * time.Millisecond
	maxBackoff = 10 * time.Second
)

// Run polls until ctx is done or the shard ends.
func (m *StreamMapping) Run(ctx context.Context) error {
	filters, err := compileFilters(m.Trigger.Filters)
	if err != nil {
		return err
	}
	after := m.After
	for {
		batch, err := m.Shard.Read(ctx, after, m.Trigger.BatchSize)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, ErrShardEnd):
			return nil
		case err != nil:
			return err
		}
		wanted, err := filters.apply(batch)
		if err != nil {
			return err
		}
		if !m.process(ctx, wanted) {
			return nil
		}
		after = batch[len(batch)-1].Change.SequenceNumber
		if err := m.Shard.Done(after); err != nil {
			return err
		}
	}
}

// filters are a trigger's filter criteria; a record passes if any pattern matches.
type filters struct {
	patterns []*filter.Pattern
	// cache holds results by the fields that many records share; nil if a pattern uses
	// other fields.
	cache map[cacheKey]bool
}

// cacheKey has the fields of a record outside its change.
type cacheKey struct {
	name, source, version, region, arn string
	hasIdentity                        bool
	identity                           events.DynamoDBUserIdentity
}

func compileFilters(texts []json.RawMessage) (*filters, error) {
	f := &filters{cache: map[cacheKey]bool{}}
	for _, text := range texts {
		p, err := filter.Compile(text)
		if err != nil {
			return nil, fmt.Errorf("filter of a stream trigger: %w", err)
		}
		f.patterns = append(f.patterns, p)
		for _, name := range p.Names() {
			switch name {
			case "eventName", "eventSource", "eventVersion", "awsRegion", "eventSourceARN", "userIdentity":
			default:
				f.cache = nil
			}
		}
	}
	return f, nil
}

// apply returns the records that pass.
func (f *filters) apply(batch []events.DynamoDBEventRecord) ([]events.DynamoDBEventRecord, error) {
	if len(f.patterns) == 0 {
		return batch, nil
	}
	wanted := make([]events.DynamoDBEventRecord, 0, len(batch))
	for _, record := range batch {
		ok, err := f.matches(record)
		if err != nil {
			return nil, err
		}
		if ok {
			wanted = append(wanted, record)
		}
	}
	return wanted, nil
}

func (f *filters) matches(record events.DynamoDBEventRecord) (bool, error) {
	key := cacheKey{name: record.EventName, source: record.EventSource, version: record.EventVersion, region: record.AWSRegion, arn: record.EventSourceArn}
	if u := record.UserIdentity; u != nil {
		key.hasIdentity, key.identity = true, *u
	}
	if wanted, ok := f.cache[key]; ok {
		return wanted, nil
	}
	// Without the images, to keep the JSON small: no trigger filters on them.
	record.Change = events.DynamoDBStreamRecord{Keys: record.Change.Keys}
	text, err := json.Marshal(record)
	if err != nil {
		return false, fmt.Errorf("stream record: %w", err)
	}
	doc, err := filter.Parse(text)
	if err != nil {
		return false, fmt.Errorf("stream record: %w", err)
	}
	wanted := slices.ContainsFunc(f.patterns, func(p *filter.Pattern) bool { return p.Matches(doc) })
	if f.cache != nil {
		f.cache[key] = wanted
	}
	return wanted, nil
}

// process invokes the function until the whole batch is processed or discarded. It
// returns false if ctx is done first.
func (m *StreamMapping) process(ctx context.Context, batch []events.DynamoDBEventRecord) bool {
	failures, backoff := 0, minBackoff
	for len(batch) > 0 {
		done, err := m.invoke(ctx, batch)
		if done > 0 {
			batch, failures, backoff = batch[done:], 0, minBackoff
			continue
		}
		failures++
		if m.Trigger.Bisect && err != nil && len(batch) > 1 {
			// As Lambda does: halve a failing batch until the failing record is alone.
			// Halving does not count as a retry.
			half := len(batch) / 2
			if !m.process(ctx, batch[:half]) {
				return false
			}
			batch, failures = batch[half:], 0
			continue
		}
		if m.Trigger.MaxRetries >= 0 && failures > m.Trigger.MaxRetries || m.tooOld(batch[0]) {
			m.discard(batch[0])
			batch, failures, backoff = batch[1:], 0, minBackoff
			continue
		}
		select {
		case <-time.After(backoff):
			backoff = min(2*backoff, maxBackoff)
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// invoke invokes the function once and returns how many records at the front of the
// batch it processed.
func (m *StreamMapping) invoke(ctx context.Context, batch []events.DynamoDBEventRecord) (done int, err error) {
	var answer events.DynamoDBEventResponse
	payload, err := streamPayload(batch)
	if err == nil {
		err = m.Function.callRaw(context.WithoutCancel(ctx), payload, &answer)
	}
	if err != nil {
		m.Function.Log.Error("stream batch failed", "function", m.Function.Folder, "records", len(batch), "error", err.Error())
		return 0, err
	}
	if !m.Trigger.ReportsItems || len(answer.BatchItemFailures) == 0 {
		return len(batch), nil
	}
	first := len(batch)
	for _, failed := range answer.BatchItemFailures {
		found := false
		for i, record := range batch {
			if record.Change.SequenceNumber == failed.ItemIdentifier {
				first, found = min(first, i), true
			}
		}
		if !found {
			return 0, fmt.Errorf("the function reported %q as failed, which is not a sequence number of the batch", failed.ItemIdentifier)
		}
	}
	return first, nil
}

func (m *StreamMapping) tooOld(record events.DynamoDBEventRecord) bool {
	return m.Trigger.MaxAge > 0 && time.Since(record.Change.ApproximateCreationDateTime.Time) > m.Trigger.MaxAge
}

// discard reports a record to the failure queue as Lambda does: with its position in
// the stream, without its content.
func (m *StreamMapping) discard(record events.DynamoDBEventRecord) {
	m.Function.Log.Error("stream record discarded", "function", m.Function.Folder, "sequence_number", record.Change.SequenceNumber)
	if m.Failures == nil {
		return
	}
	sequence := record.Change.SequenceNumber
	text, err := json.Marshal(map[string]any{
		"requestContext": map[string]any{"functionArn": m.Function.ARN, "condition": "RetryAttemptsExhausted"},
		"DDBStreamBatchInfo": map[string]any{
			"streamArn": m.Trigger.StreamARN, "startSequenceNumber": sequence, "endSequenceNumber": sequence, "batchSize": 1,
			"approximateArrivalOfFirstRecord": record.Change.ApproximateCreationDateTime.UTC(),
			"approximateArrivalOfLastRecord":  record.Change.ApproximateCreationDateTime.UTC(),
		},
	})
	if err == nil {
		_, err = m.Failures.Put(string(text), "", 0)
	}
	if err != nil {
		m.Function.Log.Error("discarded stream record not queued", "error", err.Error())
	}
}
