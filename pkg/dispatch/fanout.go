package dispatch

import (
	"context"

	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/ops/tracing"
)

// FanOut puts one work item on the queue for each endpoint that wants an event
// of the batch. It writes no delivery: the item is what holds the delivery until
// a worker claims it, so an event costs nothing for endpoints that don't want it
// and one write less for those that do.
//
// On failure it reports the first record that was not wholly queued; the stream
// then replays that record and everything after it, and the items that are on
// the queue twice are told apart by their claims. A record that can't be read
// will never be readable: it is logged with its key, counted and passed over,
// because behind it the whole shard would wait.
func (d *Dispatcher) FanOut(ctx context.Context, batch []event.Change) (failedFrom []string) {
	items := make([]work.Item, 0, len(batch))
	owner := make([]int, 0, len(batch)) // the record of each item
	failed, malformed := len(batch), 0
	fannedOut := make([]string, len(batch)) // the events' ids
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
		// It shows what was decided; that it was queued, each attempt shows.
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

// itemsOf returns the work items of one event; an error means that its record
// should come again.
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
