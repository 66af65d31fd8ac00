package dispatch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
)

// Replayed is the result of a replay.
type Replayed struct {
	Replayed int `json:"replayed"`
}

// Replay sends one settled delivery again. The limits on attempts and age count from
// now. The webhook-id stays the same, so that the receiver recognises an event that it
// has already processed.
func (d *Dispatcher) Replay(ctx context.Context, c Command) (Replayed, error) {
	if c.EndpointID == "" || c.EventID == "" {
		return Replayed{}, errors.New("replay: endpoint_id and event_id are required")
	}
	ep, err := d.enabled(ctx, c.tenant(), c.EndpointID)
	if err != nil {
		return Replayed{}, fmt.Errorf("replay: %w", err)
	}
	now, key := d.Now(), delivery.Key{EndpointID: c.EndpointID, EventID: c.EventID}
	held, err := d.Replays.Replay(ctx, delivery.Replay{Key: key, Now: now, DueAt: now.Add(Backstop)})
	var refused *delivery.Refusal
	switch {
	case errors.Is(err, delivery.ErrNotFound):
		return Replayed{}, fmt.Errorf("replay: no delivery of event %s to endpoint %s", c.EventID, c.EndpointID)
	case errors.As(err, &refused) && refused.Cause == delivery.CauseErased:
		return Replayed{}, fmt.Errorf("replay: the event was erased at %s: there is nothing left to send", refused.Until.UTC().Format(time.RFC3339))
	case errors.As(err, &refused):
		return Replayed{}, fmt.Errorf("replay: the delivery is already %s: nothing to replay", refused.State)
	case err != nil:
		return Replayed{}, err
	}
	d.Log.InfoContext(ctx, "delivery.replayed", "endpoint_id", key.EndpointID, "event_id", key.EventID)
	until := now.Add(ep.Retry.AgeLimit())
	if _, err := d.keepEvent(ctx, key.EventID, event.RetainedUntil(key.EventID, held.RetentionDays), until, until); err != nil {
		return Replayed{}, fmt.Errorf("replay: it is pending again, but its event may expire: %w", err)
	}
	// If it cannot be queued, the sweep queues it by its due time.
	if errs := d.Queue.Send(ctx, []work.Item{itemOf(held, held.NextAttemptAt.Sub(d.Now()))}); errs != nil {
		d.Log.WarnContext(ctx, "replay.not_queued", "endpoint_id", key.EndpointID, "event_id", key.EventID, "error", errs[0].Error())
	}
	return Replayed{Replayed: 1}, nil
}

// enabled returns an endpoint. It refuses one that is deleted or disabled, because what is
// sent again would end as skipped.
func (d *Dispatcher) enabled(ctx context.Context, tenant, id string) (*endpoint.Endpoint, error) {
	ep, err := d.endpoints.fresh(ctx, tenant, id)
	switch {
	case errors.Is(err, endpoint.ErrNotFound):
		return nil, refusef("tenant %s has no endpoint %s", tenant, id)
	case err != nil:
		return nil, err
	case ep.Status == endpoint.Disabled:
		return nil, refusef("endpoint %s is disabled (%s): enable it first", ep.ID, ep.StatusReason)
	}
	return ep, nil
}

// bulkReplay puts an endpoint's settled deliveries that match the job's parameters into its
// backlog again (jobs.Replay), newest first. A step can be repeated: a delivery is sent
// again only if it was settled before the job began.
type bulkReplay struct{ d *Dispatcher }

// ReplayStates are the states that a bulk replay can send again.
var ReplayStates = []delivery.State{delivery.Dead, delivery.Skipped, delivery.Delivered}

// replayExamined is how many deliveries a step reads.
const replayExamined = 2000

func (r bulkReplay) check(ctx context.Context, j jobs.Job) error {
	if j.EndpointID == "" {
		return errors.New("endpoint_id is required")
	}
	if err := checkStates(j, ReplayStates); err != nil {
		return err
	}
	if _, err := r.d.enabled(ctx, j.Tenant, j.EndpointID); err != nil {
		return err
	}
	return r.d.checkFrom(j, r.hasDeliveries(ctx, j.EndpointID))
}

func (r bulkReplay) step(ctx context.Context, j jobs.Job) (jobs.Step, error) {
	ep, err := r.d.enabled(ctx, j.Tenant, j.EndpointID)
	if err != nil {
		return jobs.Step{}, err
	}
	room, wait, err := r.d.roomFor(ctx, j, ep)
	if err != nil || room == 0 {
		return jobs.Step{Cursor: j.Cursor, Progress: j.Progress, Wait: wait}, err
	}
	p := j.Parameters
	states := p.States
	if len(states) == 0 {
		states = []delivery.State{delivery.Dead}
	}
	q := delivery.Query{EndpointID: ep.ID, From: p.From, To: p.To, Limit: recoverPage, Examine: replayExamined, Cursor: j.Cursor}
	if q.Status, err = delivery.ParseStatuses(p.Status); err != nil {
		return jobs.Step{}, &jobRefusal{err}
	}
	if len(states) == 1 {
		q.State = states[0]
	}
	if len(p.Types) == 1 {
		q.EventType = p.Types[0]
	}
	page, err := r.d.Replays.QueryDeliveries(ctx, q)
	if err != nil {
		return jobs.Step{}, err
	}
	var list []candidate
	for _, d := range page.Deliveries {
		if slices.Contains(states, d.State) && (len(p.Types) == 0 || slices.Contains(p.Types, d.EventType)) {
			c := candidate{key: d.Key, retentionDays: d.RetentionDays, state: d.State, wanted: d.UpdatedAt.Before(j.StartedAt)}
			if !d.ErasedAt.IsZero() {
				c.state, c.wanted = Erased, false
			}
			list = append(list, c)
		}
	}
	sent, err := r.d.refill(ctx, j, ep, list, room)
	if err != nil {
		return jobs.Step{}, err
	}
	if sent.rest < len(list) {
		page.Next = q.CursorAfter(list[sent.rest-1].key.EventID)
	}
	counts := map[string]int{jobs.Sent: sent.sent}
	for _, c := range list[:sent.rest] {
		counts[jobs.Found(c.state)]++
	}
	s := jobs.Step{Cursor: page.Next, Counts: counts, Done: page.Next == ""}
	if id, err := delivery.CursorEvent(page.Next); err == nil {
		at, _ := event.IDTime(id) // checked by CursorEvent
		from := p.From
		if from.IsZero() {
			from = p.To.Add(-event.Retention(r.d.RetentionDays)) // a guess: few deliveries are older
		}
		s.Progress = share(p.To.Sub(at), p.To.Sub(from))
	}
	return s, nil
}
