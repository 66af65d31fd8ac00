package simulation

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/journal"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/platform"
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

// write makes a conditional write of a delivery, of which indexes show the former state for
// a while.
func (p ports) write(k delivery.Key, apply func() error) error {
	var before *delivery.Delivery
	if p.w.s.plan.faults.stale > 0 {
		if d, err := p.w.s.store.GetDelivery(context.Background(), k); err == nil {
			before = &d
		}
	}
	err := apply()
	if err == nil {
		p.w.s.checker.read(k)
	}
	if err == nil && p.w.s.plan.faults.stale > 0 {
		p.w.s.indexes.deliveries.wrote(k, before)
	}
	return err
}

// PutEvent implements emit.Events.
func (p ports) PutEvent(ctx context.Context, a event.Accepted) error {
	return p.w.call(ctx, &ioCall{what: "put event", key: delivery.Key{EventID: a.ID}, effect: func() error {
		err := p.w.s.store.PutEvent(ctx, a)
		p.w.s.cloud.pump()
		return err
	}})
}

// KeepFailedChange implements emit.FailedChanges.
func (p ports) KeepFailedChange(ctx context.Context, f platform.FailedChange) (bool, error) {
	return do(ctx, p, ioCall{what: "keep failed change", detail: " " + f.ID}, func() (bool, error) { return p.w.s.store.KeepFailedChange(ctx, f) })
}

// MarkStuckCapture implements emit.StuckCaptures.
func (p ports) MarkStuckCapture(ctx context.Context, mark platform.StuckCapture) error {
	return p.w.call(ctx, &ioCall{what: "mark capture as stuck", effect: func() error { return p.w.s.store.MarkStuckCapture(ctx, mark) }})
}

// ClearStuckCapture implements emit.StuckCaptures.
func (p ports) ClearStuckCapture(ctx context.Context, sequenceNumber string) error {
	return p.w.call(ctx, &ioCall{what: "clear the mark of capture", effect: func() error { return p.w.s.store.ClearStuckCapture(ctx, sequenceNumber) }})
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

// KeepEvent implements dispatch.Events.
func (p ports) KeepEvent(ctx context.Context, id string, until time.Time) error {
	return p.w.call(ctx, &ioCall{what: "keep event", key: delivery.Key{EventID: id}, effect: func() error { return p.w.s.store.KeepEvent(ctx, id, until) }})
}

// ScanRange implements dispatch.EventScan.
func (p ports) ScanRange(ctx context.Context, q event.RangeScan) (event.RangePage, error) {
	return do(ctx, p, ioCall{what: "scan events", read: true}, func() (event.RangePage, error) { return p.w.s.store.ScanRange(ctx, q) })
}

// ListJobs implements dispatch.JobList.
func (p ports) ListJobs(ctx context.Context, q jobs.Query) (jobs.Page, error) {
	return do(ctx, p, ioCall{what: "list jobs", read: true}, func() (jobs.Page, error) { return p.w.s.store.ListJobs(ctx, q) })
}

// GetEndpoint implements dispatch.Endpoints.
func (p ports) GetEndpoint(ctx context.Context, tenant, id string) (endpoint.Endpoint, error) {
	return do(ctx, p, ioCall{what: "get endpoint", key: delivery.Key{EndpointID: id}, read: true}, func() (endpoint.Endpoint, error) {
		return p.w.s.store.GetEndpoint(ctx, tenant, id)
	})
}

// ReadEndpoints implements dispatch.Endpoints.
func (p ports) ReadEndpoints(ctx context.Context, tenant string, consistent bool) (endpoint.List, error) {
	return do(ctx, p, ioCall{what: "list endpoints", detail: " of " + tenant, read: true}, func() (endpoint.List, error) {
		return p.w.s.store.ReadEndpoints(ctx, tenant, consistent)
	})
}

// EndpointsVersion implements dispatch.Endpoints.
func (p ports) EndpointsVersion(ctx context.Context, tenant string) (int64, error) {
	return do(ctx, p, ioCall{what: "version of the endpoints", detail: " of " + tenant, read: true}, func() (int64, error) {
		return p.w.s.store.EndpointsVersion(ctx, tenant)
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
		var d delivery.Delivery
		before, missing := p.w.s.store.GetDelivery(ctx, c.Key)
		waited := missing == nil && before.InBacklog
		err := p.write(c.Key, func() (err error) {
			d, err = p.w.s.store.Claim(ctx, c)
			return err
		})
		if err == nil {
			p.w.s.checker.claimed(p.w, d)
		}
		if err == nil && waited {
			p.w.s.checker.drained(c.Key)
		}
		return d, err
	})
}

// Complete implements dispatch.Deliveries.
func (p ports) Complete(ctx context.Context, d delivery.Delivery) error {
	a := p.w.s.checker.attemptOf(p.w, d.Key, d.ClaimID)
	return p.w.call(ctx, &ioCall{what: "complete", key: d.Key, detail: fmt.Sprintf(" %d as %s", d.Attempts, d.State),
		effect: func() error {
			err := p.write(d.Key, func() error { return p.w.s.store.Complete(ctx, d) })
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
		return p.write(settle.Key, func() error { return p.w.s.store.Settle(ctx, settle) })
	}})
}

// Park implements dispatch.Deliveries.
func (p ports) Park(ctx context.Context, park delivery.Park) (delivery.Delivery, error) {
	detail := " for its slot " + clock(park.Slot.Sub(p.w.s.start))
	if park.InBacklog {
		detail = " in the backlog"
	}
	return do(ctx, p, ioCall{what: "park", key: park.Key, detail: detail}, func() (delivery.Delivery, error) {
		var d delivery.Delivery
		err := p.write(park.Key, func() (err error) {
			d, err = p.w.s.store.Park(ctx, park)
			return err
		})
		if err == nil {
			p.w.s.Counts.Parked++
		}
		return d, err
	})
}

// ListBacklog implements dispatch.Waiting.
func (p ports) ListBacklog(ctx context.Context, endpointID, after string, limit int) (delivery.Backlog, error) {
	return do(ctx, p, ioCall{what: "waiting", key: delivery.Key{EndpointID: endpointID}, detail: " after " + after, read: true}, func() (delivery.Backlog, error) {
		page, err := p.w.s.store.ListBacklog(ctx, endpointID, after, limit)
		return p.w.s.indexes.waiting(endpointID, after, page, limit), err
	})
}

// CountBacklog implements dispatch.Waiting.
func (p ports) CountBacklog(ctx context.Context, endpointID string, limit int) (int, error) {
	return do(ctx, p, ioCall{what: "count the backlog", key: delivery.Key{EndpointID: endpointID}, read: true}, func() (int, error) {
		return p.w.s.store.CountBacklog(ctx, endpointID, limit)
	})
}

// GetJob implements dispatch.Jobs.
func (p ports) GetJob(ctx context.Context, k jobs.Key) (jobs.Job, error) {
	return do(ctx, p, ioCall{what: "get job", detail: " " + k.ID, read: true}, func() (jobs.Job, error) { return p.w.s.store.GetJob(ctx, k) })
}

// PutJob implements dispatch.Jobs.
func (p ports) PutJob(ctx context.Context, j jobs.Job) (jobs.Job, error) {
	return do(ctx, p, ioCall{what: "put job", detail: fmt.Sprintf(" %s %s %v", j.ID, j.State, j.Counts)}, func() (jobs.Job, error) {
		return p.w.s.store.PutJob(ctx, j)
	})
}

// DueJobs implements dispatch.Jobs.
func (p ports) DueJobs(ctx context.Context, by time.Time, limit int) ([]jobs.Key, error) {
	return do(ctx, p, ioCall{what: "due jobs", read: true}, func() ([]jobs.Key, error) { return p.w.s.store.DueJobs(ctx, by, limit) })
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
	o := ioCall{what: "put breaker", key: key, indexes: []string{wakePartition}, detail: fmt.Sprintf(" %s, %d failures", phase, b.Failures), onFault: p.w.s.checker.breakerFault(b.EndpointID)}
	return do(ctx, p, o, func() (breaker.State, error) {
		before, _ := p.w.s.store.GetBreaker(ctx, b.Tenant, b.EndpointID, true)
		after, err := p.w.s.store.PutBreaker(ctx, b, now)
		if err == nil && after.Version != before.Version {
			p.w.s.indexes.breakers.wrote(before.EndpointID, before)
			p.w.s.checker.circuit(before, after)
		}
		return after, err
	})
}

// ListCircuits implements dispatch.Breakers.
func (p ports) ListCircuits(ctx context.Context, by time.Time) ([]breaker.State, error) {
	return do(ctx, p, ioCall{what: "list circuits", indexes: []string{wakePartition}, read: true}, func() ([]breaker.State, error) {
		list, err := p.w.s.store.ListCircuits(ctx, by)
		return p.w.s.indexes.circuits(by, list), err
	})
}

// Reserve implements dispatch.Limits.
func (p ports) Reserve(ctx context.Context, key string, r ratelimit.Reservation) (at time.Time, ok bool, err error) {
	endpointID, _, _ := strings.Cut(key, "#")
	at, err = do(ctx, p, ioCall{what: "reserve slots", key: delivery.Key{EndpointID: endpointID}, detail: " of " + key + " " + r.Cost.String()}, func() (at time.Time, err error) {
		p.w.s.Counts.Limited++
		at, ok, err = p.w.s.store.Reserve(ctx, key, r)
		return at, err
	})
	return at, ok && err == nil, err
}

// CountDue implements dispatch.DueIndex.
func (p ports) CountDue(ctx context.Context, shard int, after time.Time, limit int) (n int, more bool, err error) {
	n, err = do(ctx, p, ioCall{what: "count due", detail: fmt.Sprintf(" shard %02d", shard), indexes: []string{duePartition(shard)}, read: true}, func() (n int, err error) {
		n, more, err = p.w.s.store.CountDue(ctx, shard, after, limit)
		return n, err
	})
	return n, more, err
}

// PutJournal implements dispatch.Journal.
func (p ports) PutJournal(ctx context.Context, i journal.Item) error {
	return p.w.call(ctx, &ioCall{what: "put journal", detail: fmt.Sprintf(" of %d events", len(i.Entries)), effect: func() error { return p.w.s.store.PutJournal(ctx, i) }})
}

// QueryJournal implements dispatch.Journal.
func (p ports) QueryJournal(ctx context.Context, r journal.Range) (items []journal.Item, more bool, err error) {
	items, err = do(ctx, p, ioCall{what: "query journal", read: true}, func() (items []journal.Item, err error) {
		items, more, err = p.w.s.store.QueryJournal(ctx, r)
		return items, err
	})
	return items, more, err
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
	page, err := do(ctx, p, ioCall{what: "due", detail: fmt.Sprintf(" shard %02d", shard), indexes: []string{duePartition(shard)}, read: true}, func() (page []delivery.Due, err error) {
		page, next, err = p.w.s.store.Due(ctx, shard, before, cursor, limit)
		return p.w.s.indexes.due(shard, before, page), err
	})
	return page, next, err
}

// Postpone implements dispatch.DueIndex.
func (p ports) Postpone(ctx context.Context, d delivery.Due, to time.Time) (delivery.Delivery, error) {
	return do(ctx, p, ioCall{what: "postpone", key: d.Key}, func() (delivery.Delivery, error) {
		var moved delivery.Delivery
		err := p.write(d.Key, func() (err error) {
			moved, err = p.w.s.store.Postpone(ctx, d, to)
			return err
		})
		return moved, err
	})
}

// Replay implements dispatch.Replays.
func (p ports) Replay(ctx context.Context, r delivery.Replay) (delivery.Delivery, error) {
	return do(ctx, p, ioCall{what: "replay", key: r.Key}, func() (delivery.Delivery, error) {
		var d delivery.Delivery
		err := p.write(r.Key, func() (err error) {
			d, err = p.w.s.store.Replay(ctx, r)
			return err
		})
		if err == nil {
			p.w.s.checker.replayed(r.Key)
		}
		return d, err
	})
}

// QueryDeliveries implements dispatch.Replays.
func (p ports) QueryDeliveries(ctx context.Context, q delivery.Query) (delivery.Page, error) {
	return do(ctx, p, ioCall{what: "query deliveries", key: delivery.Key{EndpointID: q.EndpointID}, read: true}, func() (delivery.Page, error) {
		page, err := p.w.s.store.QueryDeliveries(ctx, q)
		page.Deliveries = p.w.s.indexes.page(page.Deliveries)
		return page, err
	})
}

// SendMessageBatch implements queue.Client.
func (p ports) SendMessageBatch(ctx context.Context, in *sqs.SendMessageBatchInput, _ ...func(*sqs.Options)) (*sqs.SendMessageBatchOutput, error) {
	detail := ""
	for _, e := range in.Entries {
		detail += " " + *e.MessageBody
	}
	q := p.w.s.cloud.queue
	if *in.QueueUrl == p.w.s.cloud.slow.name {
		q = p.w.s.cloud.slow
	}
	return do(ctx, p, ioCall{what: "send", detail: detail}, func() (*sqs.SendMessageBatchOutput, error) { return q.send(in), nil })
}

// ReceiveMessage implements sqsqueue.DeadClient.
func (p ports) ReceiveMessage(ctx context.Context, in *sqs.ReceiveMessageInput, _ ...func(*sqs.Options)) (*sqs.ReceiveMessageOutput, error) {
	return do(ctx, p, ioCall{what: "receive dead letters"}, func() (*sqs.ReceiveMessageOutput, error) {
		return p.w.s.cloud.queue.takeDead(int(in.MaxNumberOfMessages)), nil
	})
}

// DeleteMessage implements sqsqueue.DeadClient.
func (p ports) DeleteMessage(ctx context.Context, in *sqs.DeleteMessageInput, _ ...func(*sqs.Options)) (*sqs.DeleteMessageOutput, error) {
	return do(ctx, p, ioCall{what: "delete a dead letter", detail: " " + *in.ReceiptHandle}, func() (*sqs.DeleteMessageOutput, error) {
		_ = p.w.s.cloud.queue.dead.Delete(*in.ReceiptHandle) // an old receipt deletes nothing
		return &sqs.DeleteMessageOutput{}, nil
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
