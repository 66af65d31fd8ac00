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

// Shard is an ordered part of a table's stream.
type Shard interface {
	// Read returns up to limit records that follow the sequence number after (""
	// is the beginning), and waits until there is at least one. It returns
	// ErrShardEnd when none can follow any more.
	Read(ctx context.Context, after string, limit int) ([]events.DynamoDBEventRecord, error)
	// Done is told the sequence number up to which all records are dealt with.
	Done(upTo string) error
}

// ErrShardEnd says that a shard is closed and read to its end.
var ErrShardEnd = errors.New("shard has ended")

// StreamMapping is the event source mapping of one shard: batches in order, one
// at a time, each again until the function has dealt with it or it is given up.
type StreamMapping struct {
	Function *Function
	Shard    Shard
	Trigger  samtemplate.StreamTrigger
	// Failures gets the batches that are given up; nil drops them.
	Failures *queue.Queue
	// After is the checkpoint to go on from; "" is the beginning.
	After string
}

// Pauses between tries of a failing batch.
const (
	firstPause = 200 * time.Millisecond
	maxPause   = 10 * time.Second
)

// Run works until ctx ends or the shard does.
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
		if !m.work(ctx, wanted) {
			return nil
		}
		after = batch[len(batch)-1].Change.SequenceNumber
		if err := m.Shard.Done(after); err != nil {
			return err
		}
	}
}

// filters are a trigger's: they want a record that at least one of them matches.
type filters struct {
	patterns []*filter.Pattern
	// known is what was found of records like one, by what they have in common;
	// nil where a filter asks for more than that.
	known map[head]bool
}

// head is what of a record many others share.
type head struct {
	name, source, version, region, arn string
	identified                         bool
	identity                           events.DynamoDBUserIdentity
}

func compileFilters(texts []json.RawMessage) (*filters, error) {
	f := &filters{known: map[head]bool{}}
	for _, text := range texts {
		p, err := filter.Compile(text)
		if err != nil {
			return nil, fmt.Errorf("filter of a stream's trigger: %w", err)
		}
		f.patterns = append(f.patterns, p)
		for _, name := range p.Names() {
			switch name {
			case "eventName", "eventSource", "eventVersion", "awsRegion", "eventSourceARN", "userIdentity":
			default:
				f.known = nil
			}
		}
	}
	return f, nil
}

// apply keeps the records that are wanted.
func (f *filters) apply(batch []events.DynamoDBEventRecord) ([]events.DynamoDBEventRecord, error) {
	if len(f.patterns) == 0 {
		return batch, nil
	}
	wanted := make([]events.DynamoDBEventRecord, 0, len(batch))
	for _, record := range batch {
		ok, err := f.want(record)
		if err != nil {
			return nil, err
		}
		if ok {
			wanted = append(wanted, record)
		}
	}
	return wanted, nil
}

func (f *filters) want(record events.DynamoDBEventRecord) (bool, error) {
	like := head{name: record.EventName, source: record.EventSource, version: record.EventVersion, region: record.AWSRegion, arn: record.EventSourceArn}
	if u := record.UserIdentity; u != nil {
		like.identified, like.identity = true, *u
	}
	if wanted, ok := f.known[like]; ok {
		return wanted, nil
	}
	// Filters see the record without its images' size: those here ask for
	// nothing deeper than the record's own fields.
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
	if f.known != nil {
		f.known[like] = wanted
	}
	return wanted, nil
}

// work hands a batch to the function until all of it is dealt with or given up.
// It returns false if ctx ended first.
func (m *StreamMapping) work(ctx context.Context, batch []events.DynamoDBEventRecord) bool {
	tries, pause := 0, firstPause
	for len(batch) > 0 {
		done, err := m.try(ctx, batch)
		if done > 0 {
			batch, tries, pause = batch[done:], 0, firstPause
			continue
		}
		tries++
		if m.Trigger.Bisect && err != nil && len(batch) > 1 {
			// A batch that fails as a whole is halved, until the record that
			// fails stands alone. Halving counts as no try.
			half := len(batch) / 2
			if !m.work(ctx, batch[:half]) {
				return false
			}
			batch, tries = batch[half:], 0
			continue
		}
		if m.Trigger.MaxRetries >= 0 && tries > m.Trigger.MaxRetries || m.tooOld(batch[0]) {
			m.giveUp(batch[0])
			batch, tries, pause = batch[1:], 0, firstPause
			continue
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, maxPause)
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// try invokes the function once and returns how many records from the front it
// has dealt with.
func (m *StreamMapping) try(ctx context.Context, batch []events.DynamoDBEventRecord) (done int, err error) {
	var answer events.DynamoDBEventResponse
	payload, err := streamPayload(batch)
	if err == nil {
		err = m.Function.hand(context.WithoutCancel(ctx), payload, &answer)
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
			return 0, fmt.Errorf("the function reported %q, which is no sequence number of the batch", failed.ItemIdentifier)
		}
	}
	return first, nil
}

func (m *StreamMapping) tooOld(record events.DynamoDBEventRecord) bool {
	return m.Trigger.MaxAge > 0 && time.Since(record.Change.ApproximateCreationDateTime.Time) > m.Trigger.MaxAge
}

// giveUp tells the failure queue which record was given up, as Lambda does: by
// its place in the stream, not by its content.
func (m *StreamMapping) giveUp(record events.DynamoDBEventRecord) {
	m.Function.Log.Error("stream record given up", "function", m.Function.Folder, "sequence_number", record.Change.SequenceNumber)
	if m.Failures == nil {
		return
	}
	sequence := record.Change.SequenceNumber
	text, err := json.Marshal(map[string]any{
		"requestContext": map[string]any{"functionArn": m.Function.ARN, "condition": "RetryAttemptsExhausted"},
		"DDBStreamBatchInfo": map[string]any{
			"streamArn": m.Trigger.StreamARN, "startSequenceNumber": sequence, "endSequenceNumber": sequence, "batchSize": 1,
		},
	})
	if err == nil {
		_, err = m.Failures.Put(string(text), "", 0)
	}
	if err != nil {
		m.Function.Log.Error("failed record not kept", "error", err.Error())
	}
}
