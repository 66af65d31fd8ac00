package dispatch

import (
	"context"

	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/ops/tracing"
)

// FanOut queues one work item for each event of the batch and each endpoint that
// matches it. It writes no delivery: until a worker claims it, the item is the
// delivery. That saves one write per delivery, and an event costs nothing for
// endpoints that do not match.
//
// If items could not be queued, FanOut returns the sequence number of the first record
// concerned. The stream then delivers that record and all later ones again; the claim
// makes items that are queued twice harmless. A record that cannot be read is logged
// with its key, counted and skipped, because retrying it would block its shard.
func (d *Dispatcher) FanOut(ctx context.Context, batch []event.Change) (failedFrom []string) {
	items := make([]work.Item, 0, len(batch))
	owner := make([]int, 0, len(batch)) // the record of each item
	failed, malformed := len(batch), 0
	fannedOut := make([]string, len(batch)) // event IDs
	for i, record := range batch {
		if !record.Inserted {
			continue
		}
		accepted, e, err := readRecord(record)
		if err != nil {
			malformed++
			d.Log.ErrorContext(ctx, "fanout.malformed_record", "keys", record.Key,
				"sequence_number", record.SequenceNumber, "error", err.Error())
			continue
		}
		under, end := d.Tracer.Begin("fan out", accepted.Trace)
		accepted.Trace = under
		more, err := d.itemsOf(ctx, accepted, e)
		// The trace shows the decision; each attempt shows that its item was queued.
		var found map[string]any
		if tracing.IsRecording(d.Tracer) {
			found = map[string]any{"event_id": accepted.ID, "event_type": e.Type, "tenant": accepted.Tenant, "endpoints": len(more)}
		}
		end(markOf(err), found)
		if err != nil {
			d.Log.ErrorContext(ctx, "fanout.failed", "sequence_number", record.SequenceNumber, "error", err.Error())
			failed = i
			break
		}
		fannedOut[i] = accepted.ID
		for range more {
			owner = append(owner, i)
		}
		items = append(items, more...)
	}
	if len(items) > 0 {
		for i, err := range d.Queue.Send(ctx, items) {
			if err == nil {
				continue
			}
			d.Log.ErrorContext(ctx, "fanout.not_queued", "event_id", items[i].EventID, "endpoint_id", items[i].EndpointID, "error", err.Error())
			failed = min(failed, owner[i])
		}
	}
	d.countFanOut(ctx, fannedOut[:failed], owner)
	d.Log.InfoContext(ctx, "fanout.done", "records", len(batch), "malformed", malformed, "queued", len(items))
	if failed == len(batch) {
		return nil
	}
	return []string{batch[failed].SequenceNumber}
}

// itemsOf returns the work items of one event. After an error, its record has to be
// delivered again.
func (d *Dispatcher) itemsOf(ctx context.Context, accepted event.Accepted, e event.Event) ([]work.Item, error) {
	ids, err := d.endpoints.subscribers(ctx, accepted.Tenant, e, accepted.Body)
	if err != nil {
		return nil, err
	}
	items := make([]work.Item, len(ids))
	for i, id := range ids {
		items[i] = work.Item{Tenant: accepted.Tenant, EndpointID: id, EventID: accepted.ID, EventType: e.Type, Trace: accepted.Trace}
		if work.Carries(accepted.Body) {
			items[i].Body = accepted.Body
		}
	}
	return items, nil
}

func readRecord(record event.Change) (event.Accepted, event.Event, error) {
	accepted, err := record.Event, record.Err
	if err != nil {
		return accepted, event.Event{}, err
	}
	if _, err := event.IDTime(accepted.ID); err != nil {
		return accepted, event.Event{}, err
	}
	e, err := event.Decode(accepted.Body)
	return accepted, e, err
}
