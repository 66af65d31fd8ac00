package dispatch

import (
	"context"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
)

// countLimit bounds how many deliveries that are not due yet the sweep counts per shard,
// which limits its cost.
const countLimit = 500

// tally counts what happened in a batch so far.
type tally struct {
	mu sync.Mutex
	stats.Batch
}

type tallyKey struct{}

// count returns a context whose operations are counted, and a function that stores the
// counts in one write.
func (d *Dispatcher) count(ctx context.Context) (context.Context, func()) {
	t := &tally{Batch: stats.Batch{Worked: true}}
	return context.WithValue(ctx, tallyKey{}, t), func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		d.addStatistics(ctx, t.Batch)
	}
}

func (d *Dispatcher) addStatistics(ctx context.Context, b stats.Batch) {
	if err := stats.Write(ctx, d.Statistics, b, d.Now()); err != nil {
		d.Log.WarnContext(ctx, "statistics.not_stored", "attempts", b.Attempts, "delivered", b.Delivered, "failed", b.Failed,
			"dead", b.Dead, "accepted", b.Accepted, "error", err.Error())
	}
}

// counted counts verdicts in the context's tally after the store accepted them.
type counted struct{ Deliveries }

func (c counted) Complete(ctx context.Context, d delivery.Delivery) error {
	err := c.Deliveries.Complete(ctx, d)
	if t, ok := ctx.Value(tallyKey{}).(*tally); ok && err == nil {
		t.completed(d)
	}
	return err
}

func (c counted) Settle(ctx context.Context, s delivery.Settle) error {
	err := c.Deliveries.Settle(ctx, s)
	if t, ok := ctx.Value(tallyKey{}).(*tally); ok && err == nil {
		t.settled(s.State)
	}
	return err
}

// countedDisabler adds disabled endpoints to the context's tally.
type countedDisabler struct{ Disabler }

func (c countedDisabler) DisableEndpoint(ctx context.Context, tenant, id, reason string, now time.Time) error {
	err := c.Disabler.DisableEndpoint(ctx, tenant, id, reason, now)
	if t, ok := ctx.Value(tallyKey{}).(*tally); ok && err == nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.Disabled = append(t.Disabled, stats.Endpoint{Tenant: tenant, ID: id})
	}
	return err
}

func (t *tally) completed(d delivery.Delivery) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(d.History); n > 0 {
		switch d.History[n-1].Class {
		case delivery.CalledOff:
			return // nothing was sent
		case delivery.Invalid:
			if d.State == delivery.Dead {
				t.Dead++ // but no failed attempt: the receiver is not the cause
			}
			return
		}
	}
	t.Attempts++
	switch d.State {
	case delivery.Delivered:
		t.Delivered++
		t.Latencies = append(t.Latencies, d.UpdatedAt.Sub(d.Since))
		return
	case delivery.Pending:
		t.Retried++
	case delivery.Dead:
		t.Dead++
	}
	t.Failed++
}

func (t *tally) settled(s delivery.State) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s == delivery.Dead {
		t.Dead++
	} else {
		t.Skipped++
	}
}

// countFanOut counts the events that were fanned out, their deliveries, and what is in the
// tally. owner is the index of each delivery's event in events.
func (d *Dispatcher) countFanOut(ctx context.Context, t *tally, events []fannedOutEvent, owner []int) {
	t.mu.Lock()
	b := t.Batch
	t.mu.Unlock()
	for _, e := range events {
		at, err := event.IDTime(e.ID)
		if err != nil {
			continue // the record was skipped
		}
		b.Accepted++
		if e.undefined {
			if b.UndefinedTypes == nil {
				b.UndefinedTypes = map[string]int64{}
			}
			b.UndefinedTypes[d.undefined.Name(e.Type, d.Now())]++
		}
		if at.After(b.LastEvent) {
			b.LastEvent = at
		}
	}
	for _, place := range owner {
		if place < len(events) {
			b.Queued++
		}
	}
	d.addStatistics(ctx, b)
}

// sweepCounts collects the figures of a sweep from its shards.
type sweepCounts struct {
	began time.Time

	mu sync.Mutex
	stats.Sweep
}

// addDue counts a page of due deliveries. Those that were due before the sweep began are
// overdue: the previous sweep should have queued them.
func (n *sweepCounts) addDue(page []delivery.Due) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, d := range page {
		n.Retrying++
		if !d.DueAt.Before(n.began) {
			continue
		}
		n.Overdue++
		if n.OldestDue.IsZero() || d.DueAt.Before(n.OldestDue) {
			n.OldestDue = d.DueAt
		}
	}
}

// countNotDue counts the deliveries of a shard that are not due yet.
func (d *Dispatcher) countNotDue(ctx context.Context, shard int, n *sweepCounts) {
	count, more, err := d.Due.CountDue(ctx, shard, n.began.Add(Lookahead), countLimit)
	if err != nil {
		d.Log.WarnContext(ctx, "sweep.not_counted", "shard", shard, "error", err.Error())
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.Retrying += count
	n.More = n.More || more || err != nil
}

func (d *Dispatcher) noteSweep(ctx context.Context, n *sweepCounts, swept Swept) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stats.WriteTime)
	defer cancel()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.At, n.Done, n.Due, n.Queued = n.began, swept.Done, swept.Due, swept.Queued
	if err := d.Statistics.NoteSweep(ctx, n.Sweep); err != nil {
		d.Log.WarnContext(ctx, "sweep.not_noted", "error", err.Error())
	}
}
