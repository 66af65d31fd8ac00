package emit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/pkg/emit/capture"
	"github.com/tidings-dev/tidings/pkg/emit/capture/rules"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/deployed"
	"github.com/tidings-dev/tidings/pkg/event/validate"
	"github.com/tidings-dev/tidings/pkg/ops/tracing"
	"github.com/tidings-dev/tidings/pkg/platform"
)

// Capture stores the events of a batch of changes to the platform's table.
//
// If events could not be stored, Capture returns the sequence number of the first
// record concerned. The stream then delivers that record and all later ones again;
// events that are already stored are recognised by their ID. A change that should
// become an event and cannot, because its item cannot be read, the catalog rejects the
// event or the stored types of its tenant are damaged, is kept as a failed change, because
// retrying it would block its shard.
func (em *Emitter) Capture(ctx context.Context, batch []platform.Change) (failed []string) {
	var t captureTally
	first := len(batch)
	fail := func(i int) {
		t.mu.Lock()
		defer t.mu.Unlock()
		first = min(first, i)
	}
	var group errgroup.Group
	group.SetLimit(parallelPuts)
	// Changes of one item, and the two records of one join, are stored in order, those of
	// different items concurrently.
	for _, item := range byItem(batch) {
		group.Go(func() error {
			for n, i := range item {
				change := batch[i]
				err := em.indexDiscussion(ctx, change)
				var got captureResult
				if err == nil {
					got, err = em.captureOne(ctx, change)
				}
				t.stored(got)
				var refused *Error
				if errors.As(err, &refused) {
					err = em.keep(ctx, change, got.failed, refused, &t)
				}
				if err != nil {
					em.Log.ErrorContext(ctx, "capture.failed", "sequence_number", change.SequenceNumber, "error", err.Error())
					fail(slices.Min(item[n:])) // the rest was not captured either
					return nil
				}
			}
			return nil
		})
	}
	_ = group.Wait()                         // errors are logged above
	t.kinds = em.unknownKinds(batch[:first]) // the stream delivers the others again
	em.Log.InfoContext(ctx, "capture.done", "records", len(batch), "captured", t.events,
		"duplicates", t.duplicates, "malformed", t.malformed, "unknown_kinds", t.kinds)
	em.countCapture(ctx, &t)
	em.markStuck(ctx, batch, first)
	if first == len(batch) {
		return nil
	}
	return []string{batch[first].SequenceNumber}
}

// keep stores a change that cannot become an event. An error means that the stream has
// to deliver the change again.
func (em *Emitter) keep(ctx context.Context, change platform.Change, failed *failedRule, refused *Error, t *captureTally) error {
	f := failedChange(change, failed, refused, em.Now())
	if em.RetentionDays != event.DefaultRetentionDays {
		f.RetentionDays = em.RetentionDays
	}
	isNew, err := em.Failed.KeepFailedChange(ctx, f)
	if err != nil {
		return fmt.Errorf("a change cannot become an event (%s), and could not be kept: %w", refused.Message, err)
	}
	t.kept(isNew)
	em.Log.ErrorContext(ctx, "capture.malformed_record", "failed_change", f.ID, "keys", change.Key, "kind", f.Kind,
		"sequence_number", change.SequenceNumber, "error", refused.Message)
	return nil
}

// failedChange returns the record of a change that cannot become an event. failed is nil if
// no rule was applied.
func failedChange(c platform.Change, failed *failedRule, refused *Error, now time.Time) platform.FailedChange {
	f := platform.FailedChange{
		ID: c.FailedChangeID(), Key: c.Key, Operation: c.Operation, Reason: refused.Message,
		Stream: c.Stream, SequenceNumber: c.SequenceNumber, At: c.At, FirstSeen: now, LastTried: now, Attempts: 1, RecordBytes: len(c.Record),
	}
	if image := imageOf(c); image != nil {
		f.Kind = recordKind(image.Text("kind"))
		f.Tenant = image.Text("tenant")
	}
	if failed != nil {
		f.EventType, f.Tenant = failed.eventType, failed.tenant
	}
	if event.CheckTenant(f.Tenant) != nil {
		f.Tenant = ""
	}
	if f.Kept() {
		f.Record = c.Record
	}
	return f
}

// imageOf returns the change's newest image; nil if it has none.
func imageOf(c platform.Change) platform.Image {
	if c.New != nil {
		return c.New
	}
	return c.Old
}

// byItem groups the indexes of a batch's records by the item that they change.
// Memberships are grouped by user and community; see whoAddedFirst.
func byItem(changes []platform.Change) [][]int {
	place := map[string]int{}
	var groups [][]int
	for i, c := range changes {
		key := c.Key
		if image := imageOf(c); image != nil && image.Kind() == platform.KindMembership {
			key = "membership\n" + image.Text("user_id") + "\n" + image.Text("community_id")
		}
		at, ok := place[key]
		if !ok {
			at = len(groups)
			place[key] = at
			groups = append(groups, nil)
		}
		groups[at] = append(groups[at], i)
	}
	for _, group := range groups {
		whoAddedFirst(changes, group)
	}
	return groups
}

// whoAddedFirst moves the record that names the organiser to the front, if a batch has
// both records of a join: the event has the data of the one that is captured first.
func whoAddedFirst(changes []platform.Change, group []int) {
	if len(group) != 2 {
		return
	}
	a, b := changes[group[0]], changes[group[1]]
	if a.Key != b.Key && organiser(a) == "" && organiser(b) != "" {
		group[0], group[1] = group[1], group[0]
	}
}

// organiser returns who added the member, if the change's newest image says so.
func organiser(c platform.Change) string {
	if image := imageOf(c); image != nil {
		return image.Text("added_by")
	}
	return ""
}

// captureResult is what became of one change.
type captureResult struct {
	stored, duplicates int // events
	// failed is the rule whose event was refused, or that could not be evaluated.
	failed *failedRule
}

// failedRule says which event a change should have become, and of which tenant. The tenant is
// empty if it is unknown.
type failedRule struct{ eventType, tenant string }

// captureOne stores the events of one record. An *Error means that an event was refused, or
// a rule could not be evaluated, and that retrying cannot help; the other events are stored.
func (em *Emitter) captureOne(ctx context.Context, change platform.Change) (got captureResult, err error) {
	set, err := em.rules(ctx)
	if err != nil {
		return got, err
	}
	list, err := set.Events(change)
	var first *Error
	if err != nil {
		first, got.failed = &Error{Code: InvalidData, Message: err.Error()}, &failedRule{}
		var at *rules.EvaluationError
		if errors.As(err, &at) {
			got.failed = &failedRule{at.Rule.Event, at.Tenant}
		}
	}
	for _, c := range list {
		err := em.storeCaptured(ctx, c, &got)
		var refused *Error
		switch {
		case err == nil:
		case !errors.As(err, &refused):
			return got, err
		case first == nil:
			first, got.failed = refused, &failedRule{c.Event.Type, c.Tenant}
		}
	}
	if first != nil {
		return got, first
	}
	return got, nil
}

// storeCaptured stores an event. An *Error means that it was refused.
func (em *Emitter) storeCaptured(ctx context.Context, c capture.Captured, got *captureResult) error {
	types, err := em.Catalog.Of(ctx, c.Tenant)
	var damaged *deployed.UnreadableError
	if errors.As(err, &damaged) { // the changes of all other tenants would wait behind this one
		return &Error{Code: UnknownType, Message: damaged.Error()}
	}
	if err != nil {
		return err
	}
	checked, err := checkCaptured(types, c)
	if err != nil {
		return err
	}
	c.Event.Version, c.Event.Data = checked.event.Version, checked.event.Data
	c.Event.TraceID = tracing.ID(tracing.FromContext(ctx))
	body, err := c.Event.Encode()
	if err == nil {
		err = event.CheckVersions(body, checked.versions)
	}
	if err != nil {
		return asRefusal(err)
	}
	switch changed, err := em.once(ctx, &c); {
	case err != nil:
		return err
	case changed:
		if body, err = c.Event.Encode(); err != nil {
			return asRefusal(err)
		}
	}
	under, end := em.begin(ctx, "capture event")
	err = em.Events.PutEvent(ctx, event.Accepted{
		ID: c.Event.ID, Tenant: c.Tenant, Body: body, Trace: under, Subject: checked.subject, OldType: types.OldName(c.Event.Type), Versions: checked.versions,
		Undefined:     types.Allows(c.Event.Type),
		RetentionDays: event.StoredDays(c.Event.ID, em.Now(), em.retentionDays(types, c.Event.Type)),
	})
	end(markOf(err), map[string]any{"event_id": c.Event.ID, "event_type": c.Event.Type, "tenant": c.Tenant})
	switch {
	case errors.Is(err, event.ErrExists):
		got.duplicates++
		return nil
	case err != nil:
		return fmt.Errorf("put event: %w", err)
	}
	got.stored++
	em.Log.LogAttrs(ctx, slog.LevelDebug, "event.captured", slog.String("event_id", c.Event.ID), slog.String("event_type", c.Event.Type), slog.String("tenant", c.Tenant))
	return nil
}

// rules returns the capture rules. They are read, and compiled, at the first change that is
// captured, so that emit's other work does not wait for them.
func (em *Emitter) rules(ctx context.Context) (*rules.Set, error) {
	if em.Rules == nil {
		return rules.Shipped(), nil
	}
	return em.Rules.Current(ctx)
}

// markOf returns the mark of a subsegment that stored an event.
func markOf(err error) string {
	if err != nil && !errors.Is(err, event.ErrExists) {
		return tracing.Fault
	}
	return tracing.OK
}

// checkCaptured applies the rules for producers' requests to a captured event.
func checkCaptured(types *validate.Catalog, c capture.Captured) (checked, error) {
	return check(types, Request{Event: c.Event.Type, Tenant: c.Tenant, ActorUserID: c.Event.ActorUserID, RequestID: c.Event.RequestID, Data: c.Event.Data})
}
