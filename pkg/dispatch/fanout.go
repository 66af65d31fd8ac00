package dispatch

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/journal"
	"github.com/tidings-dev/tidings/pkg/ops/tracing"
)

// FanOut queues one work item for each event of the batch and each endpoint that
// matches it. It writes no delivery: until a worker claims it, the item is the
// delivery. That saves one write per delivery, and an event costs nothing for
// endpoints that do not match.
//
// Each event is recorded in the journal, also if no endpoint matches it. It is matched with
// the endpoints as they were when the batch arrived, or later.
//
// If items could not be queued, or events not recorded, FanOut returns the sequence number of the first record
// concerned. The stream then delivers that record and all later ones again; the claim
// makes items that are queued twice harmless. A record that cannot be read is logged
// with its key, counted and skipped, because retrying it would block its shard.
func (d *Dispatcher) FanOut(ctx context.Context, batch []event.Change) (failedFrom []string) {
	if _, handled := d.fanOut(ctx, batch); handled < len(batch) {
		return []string{batch[handled].SequenceNumber}
	}
	return nil
}

// fanOut is FanOut. It returns how many items it queued, and how many records of the batch
// are handled: all those before the first that failed.
func (d *Dispatcher) fanOut(ctx context.Context, batch []event.Change) (queued, handled int) {
	t := &tally{}
	ctx = context.WithValue(ctx, tallyKey{}, t)
	items := make([]work.Item, 0, len(batch))
	owner := make([]int, 0, len(batch)) // the record of each item
	failed, malformed := len(batch), 0
	fannedOut := make([]fannedOutEvent, len(batch))
	updated := map[string]bool{} // the tenants whose endpoints are as new as the batch
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
		var more []work.Item
		if !updated[accepted.Tenant] {
			err = d.endpoints.update(ctx, accepted.Tenant)
			updated[accepted.Tenant] = true
		}
		erased := false
		if err == nil && !record.At.IsZero() && d.Now().Sub(record.At) > lateRecord {
			erased, err = d.erased(ctx, accepted.ID)
		}
		if erased {
			accepted.Subject, e.ActorUserID = "", ""
		} else if err == nil {
			more, err = d.itemsOf(ctx, accepted, e, storedLate(accepted.ID, record.At))
		}
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
		fannedOut[i] = fannedOutEvent{journalGroup{accepted.Tenant, accepted.RetentionDays}, journal.Entry{
			ID: accepted.ID, Type: e.Type, Subject: accepted.Subject, Actor: e.ActorUserID, Endpoints: len(more),
		}, accepted.Undefined}
		for range more {
			owner = append(owner, i)
		}
		items = append(items, more...)
	}
	queued = len(items)
	for i, err := range d.Queue.Send(ctx, items) {
		if err == nil {
			continue
		}
		queued--
		d.Log.ErrorContext(ctx, "fanout.not_queued", "event_id", items[i].EventID, "endpoint_id", items[i].EndpointID, "error", err.Error())
		failed = min(failed, owner[i])
	}
	failed = d.record(ctx, fannedOut[:failed])
	d.countFanOut(ctx, t, fannedOut[:failed], owner)
	d.Log.InfoContext(ctx, "fanout.done", "records", len(batch), "malformed", malformed, "queued", queued)
	return queued, failed
}

// lateRecord is how old a record is whose event may have been erased since. The record has
// the body as it was. An erasure waits for longer before it begins (eraseAfter), so that
// fan-out, which is faster as a rule, need not read events.
const lateRecord = 10 * time.Second

// erased reports whether an event was erased.
func (d *Dispatcher) erased(ctx context.Context, id string) (bool, error) {
	held, err := d.Events.GetEvent(ctx, id)
	if errors.Is(err, event.ErrNotFound) {
		return false, nil
	}
	return !held.ErasedAt.IsZero(), err
}

// fannedOutEvent is an event of a batch; the zero value stands for a record that is none.
type fannedOutEvent struct {
	journalGroup
	journal.Entry
	undefined bool // its type had no definition
}

// journalGroup is what the events of an item of the journal have in common.
type journalGroup struct {
	tenant        string
	retentionDays int
}

// journalWriters bounds the concurrent writes of a batch to the journal: one for each
// tenant and retention, or few more.
const journalWriters = 8

// record writes the events to the journal. It returns the place of the first event that
// could not be written, len(events) if there is none.
func (d *Dispatcher) record(ctx context.Context, events []fannedOutEvent) (failed int) {
	groups := map[journalGroup][]journal.Entry{}
	place := make(map[string]int, len(events)) // by event ID
	for i, e := range events {
		if e.ID != "" {
			groups[e.journalGroup] = append(groups[e.journalGroup], e.Entry)
			place[e.ID] = i
		}
	}
	var group errgroup.Group
	group.SetLimit(journalWriters)
	var mu sync.Mutex
	failed = len(events)
	for _, g := range slices.SortedFunc(maps.Keys(groups), func(a, b journalGroup) int {
		return cmp.Or(strings.Compare(a.tenant, b.tenant), a.retentionDays-b.retentionDays)
	}) {
		for _, item := range journal.Pack(g.tenant, groups[g]) {
			item.RetentionDays = g.retentionDays
			group.Go(func() error {
				err := d.Journal.PutJournal(ctx, item)
				if err == nil {
					return nil
				}
				d.Log.ErrorContext(ctx, "fanout.not_recorded", "tenant", g.tenant, "events", len(item.Entries), "error", err.Error())
				mu.Lock()
				defer mu.Unlock()
				for _, e := range item.Entries {
					failed = min(failed, place[e.ID])
				}
				return nil
			})
		}
	}
	_ = group.Wait() // errors are logged above
	return failed
}

// lateAfter is how much later than the time in its ID an event must be stored for its age
// to count from then. Below it, the difference does not matter, and the work item is
// shorter without a time.
const lateAfter = 10 * time.Minute

// storedLate returns the time at which an event was stored, if that was long after its ID
// was made: a request that was repeated with its idempotency key after a failure, or a
// change that was captured again. Otherwise it returns the zero time.
func storedLate(eventID string, stored time.Time) time.Time {
	made, err := event.IDTime(eventID)
	if err != nil || stored.Sub(made) < lateAfter {
		return time.Time{}
	}
	return stored
}

// itemsOf returns the work items of one event, whose age counts from since, if that is not
// zero. After an error, its record has to be delivered again.
func (d *Dispatcher) itemsOf(ctx context.Context, accepted event.Accepted, e event.Event, since time.Time) ([]work.Item, error) {
	found, err := d.endpoints.subscribers(ctx, accepted, e)
	if err != nil {
		return nil, err
	}
	// The record of a skipped delivery lets an operator find the event, and replay it.
	skip := func(endpointID, reason string) error {
		item := work.Item{Tenant: accepted.Tenant, EndpointID: endpointID, EventID: accepted.ID, EventType: e.Type, Since: since, RetentionDays: accepted.RetentionDays}
		return d.settle(ctx, item, delivery.Skipped, reason, time.Time{})
	}
	for _, id := range found.unreadable {
		d.Log.ErrorContext(ctx, "fanout.not_evaluated", "event_id", accepted.ID, "endpoint_id", id)
		if err := skip(id, "the endpoint's filter cannot be evaluated: the event nests too deeply"); err != nil {
			return nil, err
		}
	}
	for _, s := range found.broken {
		reason := "the filter is invalid: " + s.broken.Error()
		if err := skip(s.endpoint.ID, "the endpoint was disabled: "+reason); err != nil {
			return nil, err
		}
		if err := d.disable(ctx, s.endpoint, reason, d.Now()); err != nil {
			return nil, err
		}
	}
	carried := work.Carries(accepted.Body) && len(accepted.Versions) == 0 // a body alone has one version
	if !carried && len(found.matching) > 0 {
		// Until a worker has the message, only the table has the event.
		from := since
		if from.IsZero() {
			from, _ = event.IDTime(accepted.ID) // readRecord has checked it
		}
		until := from.Add(found.ageLimit)
		if _, err := d.keepEvent(ctx, accepted.ID, event.RetainedUntil(accepted.ID, accepted.RetentionDays), until, until); err != nil {
			return nil, err
		}
	}
	items := make([]work.Item, len(found.matching))
	for i, id := range found.matching {
		items[i] = work.Item{Tenant: accepted.Tenant, EndpointID: id, EventID: accepted.ID, EventType: e.Type, Since: since, RetentionDays: accepted.RetentionDays, Trace: accepted.Trace}
		if carried {
			items[i].Body, items[i].Subject, items[i].OldType = accepted.Body, accepted.Subject, accepted.OldType
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
