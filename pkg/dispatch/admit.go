package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
)

// job is a work item whose attempt was admitted, or one that advances a stored job: it has
// only the item.
type job struct {
	item     work.Item
	endpoint *endpoint.Endpoint
	accepted event.Accepted
	event    event.Event
	at       time.Time // when the event was accepted
	since    time.Time // when its age began: when it was accepted, stored late, or replayed
	until    time.Time // the age limit: no attempt may begin later
	limit    ratelimit.Limit
	slot     time.Time // the earliest start under the limit
	share    bool      // the endpoint is behind: new events get half of the limit
	waits    bool      // there is no slot soon: the delivery must wait in the backlog
	probe    bool      // the circuit is half-open: the attempt must claim the probe
	sent     time.Time // when the message was put on the queue; zero if unknown
}

func (j *job) key() delivery.Key {
	return delivery.Key{EndpointID: j.endpoint.ID, EventID: j.accepted.ID}
}

// slotExpired reports whether the job needs a new slot: an attempt in an expired one
// would coincide with those of later slots and exceed the rate limit.
func (j *job) slotExpired(now time.Time) bool {
	return j.limit.Enabled() && now.After(j.slot.Add(ratelimit.Grace))
}

// admit decides whether an item's attempt may be made. It returns nil if not, after
// it has settled or parked the delivery.
func (d *Dispatcher) admit(ctx context.Context, item work.Item) (*job, error) {
	if item.Wake {
		return nil, d.wake(ctx, item)
	}
	ep, err := d.endpoints.get(ctx, item.Tenant, item.EndpointID)
	if err == nil && ep.Status != endpoint.Enabled || errors.Is(err, endpoint.ErrNotFound) {
		// Skipping is final, so it must not depend on a stale cache entry.
		ep, err = d.endpoints.fresh(ctx, item.Tenant, item.EndpointID)
	}
	switch {
	case errors.Is(err, endpoint.ErrNotFound):
		return nil, d.settle(ctx, item, delivery.Skipped, "the endpoint was deleted", time.Time{})
	case err != nil:
		return nil, err
	case ep.Status == endpoint.Disabled:
		return nil, d.settle(ctx, item, delivery.Skipped, "the endpoint is disabled: "+ep.StatusReason, time.Time{})
	}
	j := &job{item: item, endpoint: ep, slot: item.Slot}
	if j.at, err = event.IDTime(item.EventID); err != nil {
		return nil, err
	}
	if j.since = item.Since; j.since.IsZero() {
		j.since = j.at
	}
	now, limit := d.Now(), ep.Retry.AgeLimit()
	if j.until = j.since.Add(limit); now.After(j.until) {
		reason := fmt.Sprintf("older than the age limit of %s", limit)
		return nil, d.settle(ctx, item, delivery.Dead, reason, now.Add(-limit))
	}
	circuit, err := d.circuits.get(ctx, ep.Tenant, ep.ID, false)
	if err != nil {
		return nil, err
	}
	admission := circuit.Admit(now)
	waits := admission.Wait || ep.Status == endpoint.Paused
	if circuit.Slow(now) && !item.Slow && !waits && d.moveToSlowLane(ctx, item) {
		return nil, nil
	}
	j.accepted = event.Accepted{
		ID: item.EventID, Tenant: item.Tenant, Body: item.Body, Trace: item.Trace, Subject: item.Subject, OldType: item.OldType,
	}
	if len(item.Body) == 0 {
		j.accepted, err = d.Events.GetEvent(ctx, item.EventID)
		if errors.Is(err, event.ErrNotFound) {
			return nil, d.settle(ctx, item, delivery.Skipped, "the event has expired", time.Time{})
		}
		if err != nil {
			return nil, fmt.Errorf("event %s: %w", item.EventID, err)
		}
	}
	if !j.accepted.ErasedAt.IsZero() {
		return nil, d.settle(ctx, item, delivery.Skipped, delivery.Erased, time.Time{})
	}
	if item.Trace != "" {
		j.accepted.Trace = item.Trace // continues the trace of the fan-out, not of emit
	}
	if j.event, err = event.Decode(j.accepted.Body); err != nil {
		return nil, fmt.Errorf("event %s: %w", item.EventID, err)
	}
	if j.accepted, err = destination.InVersion(*ep, j.accepted, j.event.Type); err != nil {
		return nil, d.settle(ctx, item, delivery.Dead, "the event cannot be sent in the endpoint's version of its type: "+err.Error(), time.Time{})
	}
	if ep.Status == endpoint.Paused {
		return nil, d.wait(ctx, j, "the endpoint is paused: "+ep.StatusReason)
	}
	if admission.Wait {
		return nil, d.wait(ctx, j, "the circuit is open: "+circuit.Cause)
	}
	j.probe, j.limit = admission.Probe, ep.Limit
	j.share = circuit.Phase == breaker.Draining && circuit.Drain.Behind && !item.Backlog
	return j, nil
}
