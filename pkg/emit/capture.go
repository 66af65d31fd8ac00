package emit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/pkg/emit/capture"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/ops/tracing"
	"github.com/tidings-dev/tidings/pkg/platform"
)

// Capture stores the events of a batch of changes to the platform's table.
//
// If events could not be stored, Capture returns the sequence number of the first
// record concerned. The stream then delivers that record and all later ones again;
// events that are already stored are recognised by their ID. A record that cannot be
// read, or whose event the catalog rejects, is logged with its key, counted and
// skipped, because retrying it would block its shard.
func (em *Emitter) Capture(ctx context.Context, batch []platform.Change) (failed []string) {
	var captured, duplicates, malformed atomic.Int64
	var mu sync.Mutex
	first := len(batch)
	fail := func(i int) {
		mu.Lock()
		defer mu.Unlock()
		first = min(first, i)
	}
	var group errgroup.Group
	group.SetLimit(parallelPuts)
	// Changes of one item are stored in order, those of different items concurrently.
	for _, item := range byItem(batch) {
		group.Go(func() error {
			for _, i := range item {
				change := batch[i]
				n, repeated, err := em.captureOne(ctx, change)
				captured.Add(int64(n))
				duplicates.Add(int64(repeated))
				var refused *Error
				switch {
				case errors.As(err, &refused):
					malformed.Add(1)
					em.Log.ErrorContext(ctx, "capture.malformed_record", "keys", change.Key,
						"sequence_number", change.SequenceNumber, "error", refused.Message)
				case err != nil:
					em.Log.ErrorContext(ctx, "capture.failed", "sequence_number", change.SequenceNumber, "error", err.Error())
					fail(i)
					return nil
				}
			}
			return nil
		})
	}
	_ = group.Wait() // errors are logged above
	em.Log.InfoContext(ctx, "capture.done", "records", len(batch), "captured", captured.Load(),
		"duplicates", duplicates.Load(), "malformed", malformed.Load())
	if first == len(batch) {
		return nil
	}
	return []string{batch[first].SequenceNumber}
}

// byItem groups the indexes of a batch's records by the item that they change.
func byItem(changes []platform.Change) [][]int {
	place := map[string]int{}
	var groups [][]int
	for i, c := range changes {
		at, ok := place[c.Key]
		if !ok {
			at = len(groups)
			place[c.Key] = at
			groups = append(groups, nil)
		}
		groups[at] = append(groups[at], i)
	}
	return groups
}

// captureOne stores the events of one record. An *Error means that retrying cannot
// help.
func (em *Emitter) captureOne(ctx context.Context, change platform.Change) (stored, duplicates int, err error) {
	list, err := capture.Events(change)
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

// markOf returns the mark of a subsegment that stored an event.
func markOf(err error) string {
	if err != nil && !errors.Is(err, event.ErrExists) {
		return tracing.Fault
	}
	return tracing.OK
}

// checkCaptured applies the rules for producers' requests to a captured event.
func (em *Emitter) checkCaptured(c capture.Captured) error {
	_, err := em.check(Request{Event: c.Event.Type, Tenant: c.Tenant, ActorUserID: c.Event.ActorUserID, RequestID: c.Event.RequestID, Data: c.Event.Data})
	return err
}
