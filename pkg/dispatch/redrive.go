package dispatch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
)

const (
	// redriveEvery is how often a sweep redrives the work queue's dead letters. Asking an
	// empty queue takes seconds, which cost more than the rest of the sweep.
	redriveEvery = 10 * time.Minute
	// maxRedrives is how often a dead letter is redriven by the sweep. A message is a dead
	// letter after an hour of receives, so this bridges a dependency's outage of hours. A
	// message that is still not processed is the cause itself.
	maxRedrives = 5
	// redriveWorkers take dead letters concurrently, once there are any: an outage of an
	// hour leaves hundreds of thousands.
	redriveWorkers = 16
)

// Redriven is the result of a redrive.
type Redriven struct {
	Redriven int `json:"redriven"` // items sent back to the work queue
	// GivenUp counts deliveries that were settled as dead because their items had been
	// redriven too often.
	GivenUp int `json:"given_up,omitempty"`
	// Unreadable counts letters that are not work items; they stay.
	Unreadable int  `json:"unreadable"`
	Done       bool `json:"done"` // false if the invocation ran out of time: invoke again
}

// Redrive sends the work queue's dead letters back to the work queue, until there are
// none or the invocation runs out of time. A letter is removed after its item was
// queued; if that fails, the item is on both queues, and the claim makes that harmless.
// It then starts a job if the Events stream has dead letters.
func (d *Dispatcher) Redrive(ctx context.Context) (Redriven, error) {
	done, err := d.redrive(ctx, false)
	if err == nil {
		err = d.checkStreamLetters(ctx)
	}
	return done, err
}

// sweepDeadLetters redrives dead letters after a sweep that succeeded: the tables and the
// queue work, so what failed while they did not can be tried again.
func (d *Dispatcher) sweepDeadLetters(ctx context.Context, began time.Time) {
	if d.DeadLetters == nil || began.Sub(began.Truncate(redriveEvery)) >= time.Minute {
		return
	}
	if _, err := d.redrive(ctx, true); err != nil {
		d.Log.WarnContext(ctx, "redrive.failed", "error", err.Error())
	}
	if err := d.checkStreamLetters(ctx); err != nil {
		d.Log.WarnContext(ctx, "stream_letters.failed", "error", err.Error())
	}
}

// redrive empties the dead-letter queue. By the sweep, a letter is redriven a limited
// number of times; then its delivery is dead, for all to see.
func (d *Dispatcher) redrive(ctx context.Context, bySweep bool) (done Redriven, err error) {
	var mu sync.Mutex
	step := func() (more bool, err error) {
		if deadline, ok := ctx.Deadline(); ok && deadline.Sub(d.Now()) < sweepReserve {
			return false, nil
		}
		letters, err := d.DeadLetters.Take(ctx)
		if err != nil {
			return false, err
		}
		if len(letters) == 0 {
			mu.Lock()
			done.Done = true
			mu.Unlock()
			return false, nil
		}
		part, err := d.redriveLetters(ctx, letters, bySweep)
		mu.Lock()
		defer mu.Unlock()
		done.Redriven += part.Redriven
		done.GivenUp += part.GivenUp
		done.Unreadable += part.Unreadable
		return true, err
	}
	more, err := step()
	var group errgroup.Group
	for range redriveWorkers {
		if !more || err != nil {
			break
		}
		group.Go(func() error {
			for {
				if more, err := step(); err != nil || !more {
					return err
				}
			}
		})
	}
	if err = errors.Join(err, group.Wait()); err != nil {
		done.Done = false
		return done, fmt.Errorf("redrive: %w", err)
	}
	if done.Done && (!bySweep || done.Redriven+done.GivenUp+done.Unreadable > 0) {
		d.Log.InfoContext(ctx, "redrive.done", "redriven", done.Redriven, "given_up", done.GivenUp, "unreadable", done.Unreadable)
	}
	return done, nil
}

// redriveLetters redrives some letters.
func (d *Dispatcher) redriveLetters(ctx context.Context, letters []work.Letter, bySweep bool) (done Redriven, err error) {
	var items []work.Item
	var readable, handled []work.Letter
	var failures []error
	for _, letter := range letters {
		item, err := work.Decode(letter.Body)
		switch {
		case err != nil:
			done.Unreadable++
			d.Log.WarnContext(ctx, "redrive.unreadable", "error", err.Error())
			continue
		case !bySweep:
			item.Redriven = 0
		case item.Redriven < maxRedrives:
			item.Redriven++
		default:
			if err := d.giveUp(ctx, item); err != nil {
				failures = append(failures, err)
				continue
			}
			done.GivenUp++
			handled = append(handled, letter)
			continue
		}
		item.Slow = item.JobID != "" // whether its endpoint is still slow is decided anew
		items, readable = append(items, item), append(readable, letter)
	}
	errs := d.Queue.Send(ctx, items)
	for i, letter := range readable {
		if errs == nil || errs[i] == nil {
			done.Redriven++
			handled = append(handled, letter)
		}
	}
	if err := d.DeadLetters.Remove(ctx, handled); err != nil {
		done.Redriven, done.GivenUp = 0, 0
		failures = append(failures, err)
	}
	return done, errors.Join(append(failures, errs...)...)
}

// giveUp settles the delivery of an item that was redriven too often. What wakes an
// endpoint or advances a job needs nothing: the sweep sends another.
func (d *Dispatcher) giveUp(ctx context.Context, item work.Item) error {
	if item.Wake || item.JobID != "" {
		return nil
	}
	reason := fmt.Sprintf("its work item was received over and over, and redriven %d times, and never processed: see deliver.failed and timeouts in the log", item.Redriven)
	return d.settle(ctx, item, delivery.Dead, reason, time.Time{})
}
