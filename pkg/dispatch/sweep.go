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
	// sweepWriters bounds the writes under way in one sweep.
	sweepWriters = 32
	// sweepReserve is what a sweep leaves of its invocation's time.
	sweepReserve = 10 * time.Second
)

// Swept says what a sweep did.
type Swept struct {
	Due    int  `json:"due"`    // deliveries found due
	Queued int  `json:"queued"` // of which this sweep queued so many; another one had the rest
	Done   bool `json:"done"`   // false if the time ran out; the next sweep goes on
}

// Sweep queues what is due, or will be before the next sweep: the far retries
// at their second, and the near ones whose work item was lost. Each delivery's
// due time is moved first, on condition that nobody has, so sweeps that overlap
// queue it once; if this one dies before it has queued, the moved due time
// brings the delivery back.
func (d *Dispatcher) Sweep(ctx context.Context) (Swept, error) {
	began := d.Now()
	var due, queued atomic.Int64
	var cut atomic.Bool
	seen := sweepNotes{began: began}
	// A shard that fails does not keep the others from being swept.
	var group errgroup.Group
	group.SetLimit(4)
	for shard := range delivery.DueShards {
		group.Go(func() error {
			d.countWaiting(ctx, shard, &seen) // before what is due is moved among it
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
				seen.page(page)
				queued.Add(int64(d.queueDue(ctx, page)))
				if next == "" {
					return nil
				}
				cursor = next
			}
		})
	}
	group.Go(func() error { return d.sweepCircuits(ctx, began) })
	err := group.Wait()
	swept := Swept{Due: int(due.Load()), Queued: int(queued.Load()), Done: err == nil && !cut.Load()}
	d.noteSweep(ctx, &seen, swept)
	d.Log.InfoContext(ctx, "sweep.done", "due", swept.Due, "queued", swept.Queued, "done", swept.Done, "ms", d.Now().Sub(began).Milliseconds())
	return swept, err
}

// queueDue moves the due times of a page and queues what it won. A delivery that
// can't be moved is logged and passed over: behind it others are due.
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
				return nil // another sweep has it, or a verdict came in between
			}
			if err != nil {
				d.Log.ErrorContext(ctx, "sweep.not_postponed", "endpoint_id", one.EndpointID, "event_id", one.EventID, "error", err.Error())
				return nil
			}
			begin := held.NextAttemptAt
			if held.State == delivery.InFlight {
				begin = held.LeaseUntil
			}
			items[i] = itemOf(held, begin.Sub(now))
			return nil
		})
	}
	_ = group.Wait() // each has said its own
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
