package dispatch

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/destination"
)

const (
	// suspectAfter is the number of receives after which a message is suspected of
	// crashing its worker.
	suspectAfter = 2
	// suspectSpread is the maximum delay of a suspect that is sent back to the queue.
	suspectSpread = 30 * time.Second
)

// Deliver makes the attempts that a batch of messages asks for, concurrently, and
// returns the IDs of the messages that the queue has to deliver again. An error or a
// panic in one of them does not affect the others.
func (d *Dispatcher) Deliver(ctx context.Context, batch []work.Message) (failed []string) {
	ctx, counted := d.count(ctx)
	defer counted()
	errs := make([]error, len(batch))
	chosen := make([]int, 0, len(batch))
	var suspects []int
	for i, message := range batch {
		if message.Receives > suspectAfter {
			suspects = append(suspects, i)
		} else {
			chosen = append(chosen, i)
		}
	}
	// A message that crashes its worker makes SQS count a receive for the whole batch,
	// so any of the suspects may be innocent. Only one is processed per batch; the
	// others go back to the queue and arrive in other batches.
	if len(suspects) > 0 {
		one := int(d.Random() * float64(len(suspects)))
		chosen = append(chosen, suspects[one])
		for _, i := range slices.Delete(suspects, one, one+1) {
			errs[i] = d.requeueSuspect(ctx, batch[i].Body)
		}
	}
	d.process(ctx, batch, chosen, errs)
	for i, err := range errs {
		if err == nil {
			continue
		}
		d.Log.ErrorContext(ctx, "deliver.failed", "message_id", batch[i].ID,
			"receive_count", batch[i].Receives, "error", err.Error())
		failed = append(failed, batch[i].ID)
	}
	return failed
}

// process processes the chosen messages of a batch, one goroutine each, and stores
// their errors in errs. Messages that need a slot under a rate limit wait until all
// have been admitted, so that each endpoint's slots are reserved in one write; the
// others do not wait. Stored jobs are advanced meanwhile.
func (d *Dispatcher) process(ctx context.Context, batch []work.Message, chosen []int, errs []error) {
	needSlot := make([]*job, len(batch))
	var admitted, done sync.WaitGroup
	admitted.Add(len(chosen))
	reserved := make(chan struct{})
	for _, i := range chosen {
		done.Go(func() {
			destination.GrowStack(i)
			ctx := work.WithMessage(ctx, &batch[i])
			var j *job
			errs[i] = recoverToError(func() (err error) {
				j, err = d.read(ctx, batch[i])
				return err
			})
			if errs[i] == nil && j != nil && j.slotExpired(d.Now()) {
				needSlot[i] = j
				admitted.Done()
				<-reserved
			} else {
				admitted.Done()
			}
			if errs[i] != nil || j == nil {
				return
			}
			errs[i] = recoverToError(func() error {
				if j.item.JobID != "" {
					return d.advanceJob(ctx, j.item)
				}
				return d.claimAndAttempt(ctx, j)
			})
		})
	}
	admitted.Wait()
	d.reserveSlots(ctx, needSlot, errs)
	close(reserved)
	done.Wait()
}

// recoverToError turns a panic into an error.
func recoverToError(work func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return work()
}

// read decodes a message and returns its job, or nil if it needs no attempt.
func (d *Dispatcher) read(ctx context.Context, m work.Message) (*job, error) {
	item, err := work.Decode(m.Body)
	if err != nil {
		return nil, err
	}
	if item.JobID != "" {
		return &job{item: item}, nil // it takes seconds: no other message waits until it is done
	}
	if m.Receives > 1 {
		item.Backlog = false // its worker may have died after it had claimed the delivery
	}
	j, err := d.admit(ctx, item)
	if err != nil || j == nil {
		return nil, err
	}
	j.sent = m.SentAt
	if m.Receives > 1 && j.slotExpired(d.Now()) {
		return d.checkClaimable(ctx, j)
	}
	return j, nil
}

// requeueSuspect sends a suspect back to the queue with a random delay.
func (d *Dispatcher) requeueSuspect(ctx context.Context, body string) error {
	item, err := work.Decode(body)
	if err != nil {
		return err
	}
	item.Delay = time.Duration(d.Random() * float64(suspectSpread))
	if errs := d.Queue.Send(ctx, []work.Item{item}); errs != nil {
		return errs[0]
	}
	return nil
}
