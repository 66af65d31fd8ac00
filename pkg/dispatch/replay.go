package dispatch

import (
	"context"
	"errors"
	"fmt"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
)

// Replayed is the result of a replay.
type Replayed struct {
	Replayed int `json:"replayed"`
	// Next is the cursor of the next call; empty if all are done.
	Next string `json:"next,omitempty"`
}

// replayPage is how many dead letters are read at a time.
const replayPage = 100

// Replay sends one settled delivery again. The limits on attempts and age count from
// now. The webhook-id stays the same, so that the receiver recognises an event that it
// has already processed.
func (d *Dispatcher) Replay(ctx context.Context, c Command) (Replayed, error) {
	if c.EndpointID == "" || c.EventID == "" {
		return Replayed{}, errors.New("replay: endpoint_id and event_id are required")
	}
	if err := d.replayable(ctx, c); err != nil {
		return Replayed{}, err
	}
	held, err := d.replay(ctx, delivery.Key{EndpointID: c.EndpointID, EventID: c.EventID})
	var refused *delivery.Refusal
	switch {
	case errors.Is(err, delivery.ErrNotFound):
		return Replayed{}, fmt.Errorf("replay: no delivery of event %s to endpoint %s", c.EventID, c.EndpointID)
	case errors.As(err, &refused):
		return Replayed{}, fmt.Errorf("replay: the delivery is already %s: nothing to replay", refused.State)
	case err != nil:
		return Replayed{}, err
	}
	return Replayed{Replayed: 1}, d.queueReplays(ctx, []delivery.Delivery{held})
}

// ReplayDead sends an endpoint's dead letters again, newest first, for events accepted
// from c.From to c.To. If the invocation runs out of time, Next is the cursor.
func (d *Dispatcher) ReplayDead(ctx context.Context, c Command) (Replayed, error) {
	if c.EndpointID == "" {
		return Replayed{}, errors.New("replay_dead: endpoint_id is required")
	}
	if err := d.replayable(ctx, c); err != nil {
		return Replayed{}, err
	}
	done := Replayed{Next: c.Cursor}
	for {
		page, err := d.Replays.QueryDeliveries(ctx, delivery.Query{
			EndpointID: c.EndpointID, From: c.From, To: c.To, State: delivery.Dead, Limit: replayPage, Cursor: done.Next,
		})
		if err != nil {
			return done, fmt.Errorf("replay_dead: %w", err)
		}
		var held []delivery.Delivery
		for _, one := range page.Deliveries {
			replayed, err := d.replay(ctx, one.Key)
			var refused *delivery.Refusal
			if errors.As(err, &refused) || errors.Is(err, delivery.ErrNotFound) {
				continue // replayed by another call, or just expired
			}
			if err != nil {
				return done, err
			}
			held = append(held, replayed)
		}
		if err := d.queueReplays(ctx, held); err != nil {
			return done, err
		}
		done.Replayed += len(held)
		done.Next = page.Next
		deadline, limited := ctx.Deadline()
		if done.Next == "" || limited && deadline.Sub(d.Now()) < sweepReserve {
			return done, nil
		}
	}
}

// replayable returns an error if the endpoint is deleted or disabled, because a replay
// would end as skipped.
func (d *Dispatcher) replayable(ctx context.Context, c Command) error {
	tenant := c.Tenant
	if tenant == "" {
		tenant = event.DefaultTenant
	}
	ep, err := d.endpoints.fresh(ctx, tenant, c.EndpointID)
	switch {
	case errors.Is(err, endpoint.ErrNotFound):
		return fmt.Errorf("replay: tenant %s has no endpoint %s", tenant, c.EndpointID)
	case err != nil:
		return err
	case ep.Status != endpoint.Enabled:
		return fmt.Errorf("replay: endpoint %s is disabled (%s): enable it first", ep.ID, ep.StatusReason)
	}
	return nil
}

func (d *Dispatcher) replay(ctx context.Context, key delivery.Key) (delivery.Delivery, error) {
	now := d.Now()
	held, err := d.Replays.Replay(ctx, delivery.Replay{Key: key, Now: now, DueAt: now.Add(Backstop)})
	if err != nil {
		return held, err
	}
	d.Log.InfoContext(ctx, "delivery.replayed", "endpoint_id", key.EndpointID, "event_id", key.EventID)
	return held, nil
}

// queueReplays queues replayed deliveries. The sweep queues those that could not be
// queued, by their due time.
func (d *Dispatcher) queueReplays(ctx context.Context, held []delivery.Delivery) error {
	if len(held) == 0 {
		return nil
	}
	items := make([]work.Item, len(held))
	for i, one := range held {
		items[i] = itemOf(one, one.NextAttemptAt.Sub(d.Now()))
	}
	for i, err := range d.Queue.Send(ctx, items) {
		if err != nil {
			d.Log.WarnContext(ctx, "replay.not_queued", "endpoint_id", items[i].EndpointID, "event_id", items[i].EventID, "error", err.Error())
		}
	}
	return nil
}
