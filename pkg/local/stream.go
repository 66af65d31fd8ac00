package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tidings-dev/tidings/pkg/localqueue"
	"github.com/tidings-dev/tidings/pkg/pattern"
	"github.com/tidings-dev/tidings/pkg/template"
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
	Trigger  template.StreamTrigger
	// Failures gets the batches that are given up; nil drops them.
	Failures *localqueue.Queue
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
		wanted, err := apply(filters, batch)
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

func compileFilters(texts []json.RawMessage) ([]*pattern.Pattern, error) {
	var filters []*pattern.Pattern
	for _, text := range texts {
		p, err := pattern.Compile(text)
		if err != nil {
			return nil, fmt.Errorf("filter of a stream's trigger: %w", err)
		}
		filters = append(filters, p)
	}
	return filters, nil
}

// apply keeps the records that at least one filter matches.
func apply(filters []*pattern.Pattern, batch []events.DynamoDBEventRecord) ([]events.DynamoDBEventRecord, error) {
	if len(filters) == 0 {
		return batch, nil
	}
	var wanted []events.DynamoDBEventRecord
	for _, record := range batch {
		// Filters see the record without its images' size: those here ask for
		// nothing deeper than the record's own fields.
		head := record
		head.Change = events.DynamoDBStreamRecord{Keys: record.Change.Keys}
		text, err := json.Marshal(head)
		if err != nil {
			return nil, fmt.Errorf("stream record: %w", err)
		}
		doc, err := pattern.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("stream record: %w", err)
		}
		for _, f := range filters {
			if f.Matches(doc) {
				wanted = append(wanted, record)
				break
			}
		}
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
	if err := m.Function.call(context.WithoutCancel(ctx), events.DynamoDBEvent{Records: batch}, &answer); err != nil {
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
