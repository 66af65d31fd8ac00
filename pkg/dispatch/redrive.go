package dispatch

import (
	"context"
	"errors"
	"fmt"

	"github.com/tidings-dev/tidings/pkg/delivery/work"
)

// Redriven is the result of a redrive.
type Redriven struct {
	Redriven int `json:"redriven"` // items sent back to the work queue
	// Unreadable counts letters that are not work items; they stay.
	Unreadable int  `json:"unreadable"`
	Done       bool `json:"done"` // false if the invocation ran out of time: invoke again
}

// Redrive sends the work queue's dead letters back to the work queue, until there are
// none or the invocation runs out of time. A letter is removed after its item was
// queued; if that fails, the item is on both queues, and the claim makes that harmless.
func (d *Dispatcher) Redrive(ctx context.Context) (Redriven, error) {
	var done Redriven
	for {
		if deadline, ok := ctx.Deadline(); ok && deadline.Sub(d.Now()) < sweepReserve {
			return done, nil
		}
		letters, err := d.DeadLetters.Take(ctx)
		if err != nil {
			return done, fmt.Errorf("redrive: %w", err)
		}
		if len(letters) == 0 {
			done.Done = true
			d.Log.InfoContext(ctx, "redrive.done", "redriven", done.Redriven, "unreadable", done.Unreadable)
			return done, nil
		}
		var items []work.Item
		var readable []work.Letter
		for _, letter := range letters {
			item, err := work.Decode(letter.Body)
			if err != nil {
				done.Unreadable++
				d.Log.WarnContext(ctx, "redrive.unreadable", "error", err.Error())
				continue
			}
			items, readable = append(items, item), append(readable, letter)
		}
		var queued []work.Letter
		errs := d.Queue.Send(ctx, items)
		for i, letter := range readable {
			if errs == nil || errs[i] == nil {
				queued = append(queued, letter)
			}
		}
		if err := d.DeadLetters.Remove(ctx, queued); err != nil {
			return done, fmt.Errorf("redrive: %w", err)
		}
		done.Redriven += len(queued)
		if err := errors.Join(errs...); err != nil {
			return done, fmt.Errorf("redrive: %w", err)
		}
	}
}
