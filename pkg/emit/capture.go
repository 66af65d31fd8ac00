package emit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/aws/aws-lambda-go/events"
	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/pkg/emit/capture"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/ops/tracing"
)

// Capture takes in what a batch of the platform table's stream means.
//
// On failure it reports the first record whose event is not stored; the stream
// then replays that record and everything after it, and what is stored already
// is recognised by its id. A record that can't be read, or whose event the
// catalog refuses, will never be better: it is logged with its key, counted and
// passed over, because behind it the whole shard would wait.
func (em *Emitter) Capture(ctx context.Context, batch events.DynamoDBEvent) events.DynamoDBEventResponse {
	var captured, duplicates, malformed atomic.Int64
	var mu sync.Mutex
	failed := len(batch.Records)
	fail := func(i int) {
		mu.Lock()
		defer mu.Unlock()
		failed = min(failed, i)
	}
	var group errgroup.Group
	group.SetLimit(parallelPuts)
	// Changes of one item are put in their order; others side by side.
	for _, item := range byItem(batch.Records) {
		group.Go(func() error {
			for _, i := range item {
				record := batch.Records[i]
				n, again, err := em.captureOne(ctx, record)
				captured.Add(int64(n))
				duplicates.Add(int64(again))
				var refused *Error
				switch {
				case errors.As(err, &refused):
					malformed.Add(1)
					em.Log.ErrorContext(ctx, "capture.malformed_record", "keys", keyOf(record),
						"sequence_number", record.Change.SequenceNumber, "error", refused.Message)
				case err != nil:
					em.Log.ErrorContext(ctx, "capture.failed", "sequence_number", record.Change.SequenceNumber, "error", err.Error())
					fail(i)
					return nil
				}
			}
			return nil
		})
	}
	_ = group.Wait() // each has said its own
	em.Log.InfoContext(ctx, "capture.done", "records", len(batch.Records), "captured", captured.Load(),
		"duplicates", duplicates.Load(), "malformed", malformed.Load())
	if failed == len(batch.Records) {
		return events.DynamoDBEventResponse{}
	}
	// The mapping wants the sequence number, not the event id.
	return events.DynamoDBEventResponse{BatchItemFailures: []events.DynamoDBBatchItemFailure{
		{ItemIdentifier: batch.Records[failed].Change.SequenceNumber},
	}}
}

// byItem groups a batch's records by the item that they are about.
func byItem(records []events.DynamoDBEventRecord) [][]int {
	place := map[string]int{}
	var groups [][]int
	for i, r := range records {
		key := keyOf(r)
		at, ok := place[key]
		if !ok {
			at = len(groups)
			place[key] = at
			groups = append(groups, nil)
		}
		groups[at] = append(groups[at], i)
	}
	return groups
}

// keyOf is the key of the item that a record is about, as JSON.
func keyOf(r events.DynamoDBEventRecord) string {
	text, err := json.Marshal(r.Change.Keys)
	if err != nil {
		return r.Change.SequenceNumber
	}
	return string(text)
}

// captureOne stores the events of one record. An *Error says that it will never
// be readable.
func (em *Emitter) captureOne(ctx context.Context, record events.DynamoDBEventRecord) (stored, duplicates int, err error) {
	list, err := capture.Events(record)
	if err != nil {
		return 0, 0, &Error{Code: InvalidData, Message: err.Error()}
	}
	for _, c := range list {
		if err := em.checkCaptured(c); err != nil {
			return stored, duplicates, err
		}
		c.Event.TraceID = tracing.ID(tracing.FromContext(ctx))
		body, err := c.Event.Encode()
		if err != nil {
			return stored, duplicates, asRefusal(err)
		}
		under, end := em.begin(ctx, "capture event")
		err = em.Events.PutEvent(ctx, event.Accepted{ID: c.Event.ID, Tenant: c.Tenant, Body: body, Trace: under})
		end(markOf(err), map[string]any{"event_id": c.Event.ID, "event_type": c.Event.Type, "tenant": c.Tenant})
		switch {
		case errors.Is(err, event.ErrExists):
			duplicates++
			continue
		case err != nil:
			return stored, duplicates, fmt.Errorf("put event: %w", err)
		}
		stored++
		em.Log.LogAttrs(ctx, slog.LevelDebug, "event.captured", slog.String("event_id", c.Event.ID), slog.String("event_type", c.Event.Type), slog.String("tenant", c.Tenant))
	}
	return stored, duplicates, nil
}

// markOf marks a part of a trace in which an event was put.
func markOf(err error) string {
	if err != nil && !errors.Is(err, event.ErrExists) {
		return tracing.Fault
	}
	return tracing.OK
}

// checkCaptured holds a captured event to what producers are held to.
func (em *Emitter) checkCaptured(c capture.Captured) error {
	_, err := em.check(Request{Event: c.Event.Type, Tenant: c.Tenant, ActorUserID: c.Event.ActorUserID, RequestID: c.Event.RequestID, Data: c.Event.Data})
	return err
}
