package dispatch

import (
	"context"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/event"
)

// keepMargin is how much longer than a delivery may need it an event is kept, for looks that
// come late: the sweep may stand still, or the queue.
const keepMargin = 24 * time.Hour

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
