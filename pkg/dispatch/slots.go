package dispatch

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"
)

// slotWait is how long a worker itself waits for a slot. The queue delays by whole
// seconds, rounded down, so the rest of the time is waited here.
const slotWait = 1100 * time.Millisecond

// reserveSlots reserves a slot for each job that is not nil: one write per endpoint,
// oldest event first. If it fails, each of the endpoint's jobs gets the error.
func (d *Dispatcher) reserveSlots(ctx context.Context, jobs []*job, errs []error) {
	var byEndpoint map[string][]int
	for i, j := range jobs {
		if j != nil {
			if byEndpoint == nil {
				byEndpoint = map[string][]int{}
			}
			byEndpoint[j.endpoint.ID] = append(byEndpoint[j.endpoint.ID], i)
		}
	}
	var running sync.WaitGroup
	for _, indexes := range byEndpoint {
		running.Go(func() {
			slices.SortStableFunc(indexes, func(a, b int) int { return cmp.Compare(jobs[a].accepted.ID, jobs[b].accepted.ID) })
			sorted := make([]*job, len(indexes))
			for n, i := range indexes {
				sorted[n] = jobs[i]
			}
			if err := d.reserveEndpointSlots(ctx, sorted); err != nil {
				for _, i := range indexes {
					errs[i] = err
				}
			}
		})
	}
	running.Wait()
}

// reserveEndpointSlots reserves slots for jobs of one endpoint.
func (d *Dispatcher) reserveEndpointSlots(ctx context.Context, jobs []*job) error {
	limit, now := jobs[0].limit, d.Now()
	after, err := d.Limits.ReserveSlots(ctx, jobs[0].endpoint.Limit.Key(jobs[0].endpoint.ID), limit.Cost(len(jobs)), now)
	if err != nil {
		return err
	}
	for i, slot := range limit.Slots(after, len(jobs), now) {
		jobs[i].slot = slot
	}
	return nil
}

// waitForSlot waits until the job's slot. It returns false if the slot is too far
// away, or expired in the meantime; the delivery is then parked.
func (d *Dispatcher) waitForSlot(ctx context.Context, j *job) (bool, error) {
	wait := j.slot.Sub(d.Now())
	if wait > slotWait {
		return false, d.parkForSlot(ctx, j)
	}
	if err := sleep(ctx, wait); err != nil {
		return false, err
	}
	if j.slotExpired(d.Now()) {
		if err := d.reserveEndpointSlots(ctx, []*job{j}); err != nil {
			return false, err
		}
		return false, d.parkForSlot(ctx, j)
	}
	return true, nil
}

// sleep waits, or returns ctx's error if it ends first.
func sleep(ctx context.Context, wait time.Duration) error {
	if wait <= 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// roundUpToMillisecond rounds up because stores keep milliseconds, and an attempt
// must not begin before its slot.
func roundUpToMillisecond(slot time.Time) time.Time {
	return slot.Add(time.Millisecond - 1).Truncate(time.Millisecond)
}
