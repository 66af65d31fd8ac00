package dispatch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
)

const (
	// sweepPage is how many due deliveries are read at a time.
	sweepPage = 250
	// sweepWriters bounds the concurrent writes of a sweep.
	sweepWriters = 32
	// sweepReserve is how long before the invocation's deadline a sweep stops.
	sweepReserve = 10 * time.Second
)

// Swept is the result of a sweep.
type Swept struct {
	Due    int  `json:"due"`    // deliveries found due
	Queued int  `json:"queued"` // deliveries queued by this sweep, and not by an overlapping one
	Done   bool `json:"done"`   // false if the sweep ran out of time; the next one continues
}

// Sweep queues the deliveries that are due, or will be before the next sweep: retries
// later than the queue's maximum delay, and others whose work item was lost. It moves
// each due time first, conditionally, so that overlapping sweeps queue a delivery once.
// If a sweep dies before it has queued the delivery, a later one finds it by the moved
// due time.
func (d *Dispatcher) Sweep(ctx context.Context) (Swept, error) {
	began := d.Now()
	var due, queued atomic.Int64
	var cut atomic.Bool
	counts := sweepCounts{began: began}
	// An error in one shard does not stop the others.
	var group errgroup.Group
	group.SetLimit(4)
	for shard := range delivery.DueShards {
		group.Go(func() error {
			d.countNotDue(ctx, shard, &counts) // before due times are moved
			cursor := ""
			for {
				if deadline, ok := ctx.Deadline(); ok && deadline.Sub(d.Now()) < sweepReserve {
					cut.Store(true)
					return nil
				}
				page, next, err := d.Due.Due(ctx, shard, began.Add(Lookahead), cursor, sweepPage)
				if err != nil {
					return fmt.Errorf("due index, shard %d: %w", shard, err)
				}
				due.Add(int64(len(page)))
				counts.addDue(page)
				queued.Add(int64(d.queueDue(ctx, page)))
				if next == "" {
					return nil
				}
				cursor = next
			}
		})
	}
	group.Go(func() error { return d.sweepCircuits(ctx, began) })
	group.Go(func() error { return d.sweepJobs(ctx, began) })
	err := group.Wait()
	swept := Swept{Due: int(due.Load()), Queued: int(queued.Load()), Done: err == nil && !cut.Load()}
	d.noteSweep(ctx, &counts, swept)
	if err == nil {
		d.sweepDeadLetters(ctx, began)
	}
	d.Log.InfoContext(ctx, "sweep.done", "due", swept.Due, "queued", swept.Queued, "done", swept.Done, "ms", d.Now().Sub(began).Milliseconds())
	return swept, err
}

// queueDue moves the due times of a page and queues those deliveries. One whose due time
// cannot be moved is logged and skipped, so that it does not hold up the others.
func (d *Dispatcher) queueDue(ctx context.Context, page []delivery.Due) int {
	items := make([]work.Item, len(page))
	var group errgroup.Group
	group.SetLimit(sweepWriters / 4)
	for i, one := range page {
		group.Go(func() error {
			now := d.Now()
			to := one.DueAt
			if to.Before(now) {
				to = now
			}
			held, err := d.Due.Postpone(ctx, one, to.Add(Backstop))
			if errors.Is(err, delivery.ErrFenced) {
				return nil // queued by another sweep, or concluded in the meantime
			}
			if err != nil {
				d.Log.ErrorContext(ctx, "sweep.not_postponed", "endpoint_id", one.EndpointID, "event_id", one.EventID, "error", err.Error())
				return nil
			}
			begin := held.NextAttemptAt
			switch {
			case held.State == delivery.InFlight:
				begin = held.LeaseUntil
			case held.InBacklog:
				begin = one.DueAt // it expires then
			}
			items[i] = itemOf(held, begin.Sub(now))
			return nil
		})
	}
	_ = group.Wait() // errors are logged above
	won := slices.DeleteFunc(items, func(i work.Item) bool { return i.EventID == "" })
	if len(won) == 0 {
		return 0
	}
	sent := len(won)
	for i, failed := range d.Queue.Send(ctx, won) {
		if failed != nil {
			sent--
			d.Log.WarnContext(ctx, "sweep.not_queued", "endpoint_id", won[i].EndpointID, "event_id", won[i].EventID, "error", failed.Error())
		}
	}
	return sent
}
