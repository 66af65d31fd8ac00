package simulation

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
)

// ports implements the interfaces through which a handler reaches the outside. Each
// method is an ioCall: it may be late, fail, succeed although an error is returned,
// or be the last call of the worker.
type ports struct{ w *worker }

// do makes a call whose effect returns a value.
func do[T any](ctx context.Context, p ports, o ioCall, effect func() (T, error)) (T, error) {
	var value T
	o.effect = func() (err error) {
		value, err = effect()
		return err
	}
	if err := p.w.call(ctx, &o); err != nil {
		// The write may have succeeded, but its result is lost.
		var nothing T
		return nothing, err
	}
	return value, nil
}

// PutEvent implements emit.Events.
func (p ports) PutEvent(ctx context.Context, a event.Accepted) error {
	return p.w.call(ctx, &ioCall{what: "put event", key: delivery.Key{EventID: a.ID}, effect: func() error {
		err := p.w.s.store.PutEvent(ctx, a)
		p.w.s.cloud.pump()
		return err
	}})
}

// ReserveKey implements emit.Keys.
func (p ports) ReserveKey(ctx context.Context, tenant, key string, r event.Reservation, expires time.Time) (event.Reservation, error) {
	return do(ctx, p, ioCall{what: "reserve key", detail: " " + key}, func() (event.Reservation, error) {
		return p.w.s.store.ReserveKey(ctx, tenant, key, r, expires)
	})
}

// GetEvent implements dispatch.Events.
func (p ports) GetEvent(ctx context.Context, id string) (event.Accepted, error) {
	return do(ctx, p, ioCall{what: "get event", key: delivery.Key{EventID: id}, read: true}, func() (event.Accepted, error) {
		return p.w.s.store.GetEvent(ctx, id)
	})
}

// GetEndpoint implements dispatch.Endpoints.
func (p ports) GetEndpoint(ctx context.Context, tenant, id string) (endpoint.Endpoint, error) {
	return do(ctx, p, ioCall{what: "get endpoint", key: delivery.Key{EndpointID: id}, read: true}, func() (endpoint.Endpoint, error) {
		return p.w.s.store.GetEndpoint(ctx, tenant, id)
	})
}

// ListEndpoints implements dispatch.Endpoints.
func (p ports) ListEndpoints(ctx context.Context, tenant string) ([]endpoint.Endpoint, error) {
	return do(ctx, p, ioCall{what: "list endpoints", detail: " of " + tenant, read: true}, func() ([]endpoint.Endpoint, error) {
		return p.w.s.store.ListEndpoints(ctx, tenant)
	})
}

// DisableEndpoint implements dispatch.Disabler.
func (p ports) DisableEndpoint(ctx context.Context, tenant, id, reason string, now time.Time) error {
	return p.w.call(ctx, &ioCall{what: "disable endpoint", key: delivery.Key{EndpointID: id}, effect: func() error {
		before, missing := p.w.s.store.GetEndpoint(ctx, tenant, id)
		err := p.w.s.store.DisableEndpoint(ctx, tenant, id, reason, now)
		if missing == nil && before.Status == endpoint.Enabled && err == nil {
			p.w.s.checker.disabled(before, reason)
			p.w.s.checker.endpointChanged(tenant, id)
		}
		return err
	}})
}

// Claim implements dispatch.Deliveries.
func (p ports) Claim(ctx context.Context, c delivery.Claim) (delivery.Delivery, error) {
	return do(ctx, p, ioCall{what: "claim", key: c.Key, detail: fmt.Sprintf(" after %d", c.Attempts)}, func() (delivery.Delivery, error) {
		d, err := p.w.s.store.Claim(ctx, c)
		if err == nil {
			p.w.s.checker.claimed(p.w, d)
		}
		return d, err
	})
}

// Complete implements dispatch.Deliveries.
func (p ports) Complete(ctx context.Context, d delivery.Delivery) error {
	a := p.w.s.checker.latestBy(p.w, d.Key)
	return p.w.call(ctx, &ioCall{what: "complete", key: d.Key, detail: fmt.Sprintf(" %d as %s", d.Attempts, d.State),
		effect: func() error {
			err := p.w.s.store.Complete(ctx, d)
			p.w.s.checker.completed(a, d, err)
			return err
		},
		onFault: func(how string) { a.excuse("its verdict: " + how) },
	})
}

// GetDelivery implements dispatch.Deliveries.
func (p ports) GetDelivery(ctx context.Context, k delivery.Key) (delivery.Delivery, error) {
	return do(ctx, p, ioCall{what: "get delivery", key: k, read: true}, func() (delivery.Delivery, error) {
		return p.w.s.store.GetDelivery(ctx, k)
	})
}

// Settle implements dispatch.Deliveries.
func (p ports) Settle(ctx context.Context, settle delivery.Settle) error {
	return p.w.call(ctx, &ioCall{what: "settle", key: settle.Key, detail: " as " + string(settle.State), effect: func() error {
		return p.w.s.store.Settle(ctx, settle)
	}})
}

// Park implements dispatch.Deliveries.
func (p ports) Park(ctx context.Context, park delivery.Park) (delivery.Delivery, error) {
	detail := " for its slot " + clock(park.Slot.Sub(p.w.s.start))
	if park.InBacklog {
		detail = " for the circuit"
	}
	return do(ctx, p, ioCall{what: "park", key: park.Key, detail: detail}, func() (delivery.Delivery, error) {
		d, err := p.w.s.store.Park(ctx, park)
		if err == nil {
			p.w.s.Counts.Parked++
			p.w.s.indexes.parked(d)
		}
		return d, err
	})
}

// Waiting implements dispatch.Waiting.
func (p ports) ListBacklog(ctx context.Context, endpointID string, limit int) ([]delivery.BacklogEntry, error) {
	return do(ctx, p, ioCall{what: "waiting", key: delivery.Key{EndpointID: endpointID}, read: true}, func() ([]delivery.BacklogEntry, error) {
		list, err := p.w.s.store.ListBacklog(ctx, endpointID, limit)
		return p.w.s.indexes.waiting(list), err
	})
}

// Release implements dispatch.Waiting.
func (p ports) Release(ctx context.Context, r delivery.Release) (delivery.Delivery, error) {
	return do(ctx, p, ioCall{what: "release", key: r.Key, detail: " at " + clock(r.NextAt.Sub(p.w.s.start))}, func() (delivery.Delivery, error) {
		return p.w.s.store.Release(ctx, r)
	})
}

// GetBreaker implements dispatch.Breakers.
func (p ports) GetBreaker(ctx context.Context, tenant, endpointID string, consistent bool) (breaker.State, error) {
	key := delivery.Key{EndpointID: endpointID}
	return do(ctx, p, ioCall{what: "get breaker", key: key, read: true, onFault: p.w.s.checker.breakerFault(endpointID)}, func() (breaker.State, error) {
		b, err := p.w.s.store.GetBreaker(ctx, tenant, endpointID, consistent)
		if !consistent {
			b = p.w.s.indexes.breaker(b)
		}
		return b, err
	})
}

// PutBreaker implements dispatch.Breakers.
func (p ports) PutBreaker(ctx context.Context, b breaker.State, now time.Time) (breaker.State, error) {
	key := delivery.Key{EndpointID: b.EndpointID}
	phase := string(b.Phase)
	if b.Phase == breaker.Closed {
		phase = "closed"
	}
	o := ioCall{what: "put breaker", key: key, detail: fmt.Sprintf(" %s, %d failures", phase, b.Failures), onFault: p.w.s.checker.breakerFault(b.EndpointID)}
	return do(ctx, p, o, func() (breaker.State, error) {
		before, _ := p.w.s.store.GetBreaker(ctx, b.Tenant, b.EndpointID, true)
		after, err := p.w.s.store.PutBreaker(ctx, b, now)
		if err == nil && after.Version != before.Version {
			p.w.s.indexes.wrote(before)
			p.w.s.checker.circuit(before, after)
		}
		return after, err
	})
}

// ListCircuits implements dispatch.Breakers.
func (p ports) ListCircuits(ctx context.Context, by time.Time) ([]breaker.State, error) {
	return do(ctx, p, ioCall{what: "list circuits", read: true}, func() ([]breaker.State, error) {
		return p.w.s.store.ListCircuits(ctx, by)
	})
}

// ReserveSlots implements dispatch.Limits.
func (p ports) ReserveSlots(ctx context.Context, endpointID string, cost time.Duration, now time.Time) (time.Time, error) {
	return do(ctx, p, ioCall{what: "reserve slots", key: delivery.Key{EndpointID: endpointID}, detail: " of " + cost.String()}, func() (time.Time, error) {
		p.w.s.Counts.Limited++
		return p.w.s.store.ReserveSlots(ctx, endpointID, cost, now)
	})
}

// CountDue implements dispatch.DueIndex.
func (p ports) CountDue(ctx context.Context, shard int, after time.Time, limit int) (n int, more bool, err error) {
	n, err = do(ctx, p, ioCall{what: "count due", detail: fmt.Sprintf(" shard %02d", shard), read: true}, func() (n int, err error) {
		n, more, err = p.w.s.store.CountDue(ctx, shard, after, limit)
		return n, err
	})
	return n, more, err
}

// AddStatistics implements dispatch.Statistics.
func (p ports) AddStatistics(ctx context.Context, b stats.Batch) error {
	return p.w.call(ctx, &ioCall{what: "add statistics", effect: func() error { return p.w.s.store.AddStatistics(ctx, b) }})
}

// NoteSweep implements dispatch.Statistics.
func (p ports) NoteSweep(ctx context.Context, note stats.Sweep) error {
	return p.w.call(ctx, &ioCall{what: "note sweep", effect: func() error { return p.w.s.store.NoteSweep(ctx, note) }})
}

// Due implements dispatch.DueIndex.
func (p ports) Due(ctx context.Context, shard int, before time.Time, cursor string, limit int) ([]delivery.Due, string, error) {
	next := ""
	page, err := do(ctx, p, ioCall{what: "due", detail: fmt.Sprintf(" shard %02d", shard), read: true}, func() (page []delivery.Due, err error) {
		page, next, err = p.w.s.store.Due(ctx, shard, before, cursor, limit)
		return page, err
	})
	return page, next, err
}

// Postpone implements dispatch.DueIndex.
func (p ports) Postpone(ctx context.Context, d delivery.Due, to time.Time) (delivery.Delivery, error) {
	return do(ctx, p, ioCall{what: "postpone", key: d.Key}, func() (delivery.Delivery, error) {
		return p.w.s.store.Postpone(ctx, d, to)
	})
}

// Replay implements dispatch.Replays.
func (p ports) Replay(ctx context.Context, r delivery.Replay) (delivery.Delivery, error) {
	return do(ctx, p, ioCall{what: "replay", key: r.Key}, func() (delivery.Delivery, error) {
		d, err := p.w.s.store.Replay(ctx, r)
		if err == nil {
			p.w.s.checker.replayed(r.Key)
		}
		return d, err
	})
}

// QueryDeliveries implements dispatch.Replays.
func (p ports) QueryDeliveries(ctx context.Context, q delivery.Query) (delivery.Page, error) {
	return do(ctx, p, ioCall{what: "query deliveries", key: delivery.Key{EndpointID: q.EndpointID}, read: true}, func() (delivery.Page, error) {
		return p.w.s.store.QueryDeliveries(ctx, q)
	})
}

// SendMessageBatch implements queue.Client.
func (p ports) SendMessageBatch(ctx context.Context, in *sqs.SendMessageBatchInput, _ ...func(*sqs.Options)) (*sqs.SendMessageBatchOutput, error) {
	detail := ""
	for _, e := range in.Entries {
		detail += " " + *e.MessageBody
	}
	return do(ctx, p, ioCall{what: "send", detail: detail}, func() (*sqs.SendMessageBatchOutput, error) {
		return p.w.s.cloud.queue.send(in), nil
	})
}

// Deliver implements dispatch.Sender.
func (p ports) Deliver(ctx context.Context, t destination.Target, m destination.Message) (outcome delivery.Outcome) {
	key := delivery.Key{EndpointID: t.ID, EventID: m.EventID}
	a := &attempt{w: p.w, key: key, sent: time.Now(), body: m.Body}
	o := &ioCall{what: "attempt", key: key}
	o.begin = func() { p.w.s.network.begin(a, o, &outcome) }
	deadline, _ := ctx.Deadline()
	a.deadline = deadline.Add(-p.w.skew) // it is on the worker's clock
	if err := p.w.call(context.Background(), o); err != nil {
		return delivery.Outcome{Class: delivery.Connect, Error: err.Error()}
	}
	return outcome
}
