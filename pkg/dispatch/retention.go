package dispatch

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/journal"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
)

// keepMargin is how much longer than a delivery may need it an event is kept, for looks that
// come late: the sweep may stand still, or the queue.
const keepMargin = 24 * time.Hour

// fromMargin is how much earlier than the retention a job may begin without a question: TTL
// deletes late, and a job that was counted in a dry run is started later with the same range.
const fromMargin = 24 * time.Hour

// An event is deleted at the end of its retention, or when no delivery needs it any more:
// whatever is later. Its retention can be shorter than an endpoint's age limit, so where a
// delivery stays pending beyond the retention, it prolongs the event's life to the end of
// its own age limit. That costs a write of the event. It is rare: with the default retention
// it happens to replays of old events only, and with a short one to deliveries that fail for
// as long, or wait in a backlog. Nothing else pays for it. The first attempt needs nothing:
// its message has the event, or the event was kept by fan-out because it is too large.
//
// keepEvent does that for an event which is deleted at expires, at the earliest, if the next
// look at a delivery of it can be as late as next, and the last one at until. It reports
// whether it has written.
func (d *Dispatcher) keepEvent(ctx context.Context, id string, expires, next, until time.Time) (bool, error) {
	if !expires.Before(next.Add(keepMargin)) {
		return false, nil
	}
	return true, d.Events.KeepEvent(ctx, id, until.Add(keepMargin))
}

// expires is when the job's event is deleted, at the earliest.
func (j *job) expires() time.Time {
	if !j.accepted.ExpiresAt.IsZero() {
		return j.accepted.ExpiresAt
	}
	return event.RetainedUntil(j.item.EventID, j.item.RetentionDays) // the event came with the message
}

// dropEvent removes the event from an item, so that the next worker reads it, and learns
// until when it is kept.
func dropEvent(item *work.Item) { item.Body, item.Subject, item.OldType = nil, "", "" }

// isPast reports whether an event's retention has ended. It may still be there because a
// delivery needed it, or because TTL deletes hours later. The journal and the deliveries that
// were settled are gone then, so nothing may conclude from their absence that the event was
// not handled.
func isPast(id string, days int, now time.Time) bool {
	return now.Add(time.Hour).After(event.RetainedUntil(id, days))
}

// checkFrom refuses a job that begins before everything that is kept, because its caller
// expects events that are gone. The retention does not decide alone: a type may have a
// longer one, the deployment may have had, and an event may have been stored late. So it asks
// whether anything of the job is left from before; found reports that for a range of time.
func (d *Dispatcher) checkFrom(j jobs.Job, found func(from, to time.Time) (bool, error)) error {
	p, earliest := j.Parameters, d.Now().Add(-event.Retention(d.RetentionDays))
	if j.DryRun || p.From.IsZero() || !p.From.Before(earliest.Add(-fromMargin)) {
		return nil // a dry run finds nothing, and says so
	}
	to := earliest
	if p.To.Before(to) {
		to = p.To
	}
	if left, err := found(p.From, to); err != nil || left {
		return err
	}
	return fmt.Errorf("from is too early (%s): events are kept for %d days, and nothing is left from before %s: give that time or a later one",
		p.From.UTC().Format(time.RFC3339), cmp.Or(d.RetentionDays, event.DefaultRetentionDays), earliest.UTC().Format(time.RFC3339))
}

// hasEvents reports whether the journal has an event of the tenant in a range of time.
func (r recovery) hasEvents(ctx context.Context, tenant string) func(from, to time.Time) (bool, error) {
	return func(from, to time.Time) (bool, error) {
		page, err := journal.Search(ctx, r.d.Journal, journal.Query{Tenant: tenant, Filter: journal.Filter{From: from, To: to}, Limit: 1, Examine: 1})
		return len(page.Entries) > 0, err
	}
}

// hasDeliveries reports whether the endpoint has a delivery of an event of a range of time.
func (r bulkReplay) hasDeliveries(ctx context.Context, endpointID string) func(from, to time.Time) (bool, error) {
	return func(from, to time.Time) (bool, error) {
		page, err := r.d.Replays.QueryDeliveries(ctx, delivery.Query{EndpointID: endpointID, From: from, To: to, Limit: 1})
		return len(page.Deliveries) > 0, err
	}
}
