package dispatch

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
)

// slotWait is how long a worker itself waits for a slot. The queue delays by whole
// seconds, rounded down, so the rest of the time is waited here.
const slotWait = 1100 * time.Millisecond

// reserveSlots reserves a slot for each job that is not nil: one write per endpoint,
// oldest event first. If it fails, each of the endpoint's jobs gets the error. Items of
// the backlog are no new events, and are reserved by themselves.
func (d *Dispatcher) reserveSlots(ctx context.Context, jobs []*job, errs []error) {
	type group struct {
		endpointID string
		share      bool
	}
	var byEndpoint map[group][]int
	for i, j := range jobs {
		if j != nil {
			if byEndpoint == nil {
				byEndpoint = map[group][]int{}
			}
			of := group{j.endpoint.ID, j.share}
			byEndpoint[of] = append(byEndpoint[of], i)
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

// reserveEndpointSlots reserves slots for jobs of one endpoint, and lets those wait in
// the backlog for which there is no slot soon.
func (d *Dispatcher) reserveEndpointSlots(ctx context.Context, jobs []*job) error {
	limit, id, now := jobs[0].limit, jobs[0].endpoint.ID, d.Now()
	until := now.Add(limit.Horizon())
	for _, j := range jobs {
		j.waits = true
	}
	if jobs[0].share {
		half := limit.Half()
		n, _, err := d.reserve(ctx, half.Key(id), len(jobs), func(n int) ratelimit.Reservation { return half.Reserve(n, now) }, half.Fits)
		if err != nil || n == 0 {
			return err
		}
		jobs = jobs[:n]
		// There is room for them behind a burst that came before there was a backlog.
		until = until.Add(min(limit.Horizon()/2, ratelimit.MaxHorizon-limit.Horizon()))
	}
	for _, j := range jobs {
		if j.until.Before(until) {
			until = j.until
		}
	}
	n, after, err := d.reserve(ctx, limit.Key(id), len(jobs), func(n int) ratelimit.Reservation { return limit.Reserve(n, now, until) }, limit.Fits)
	if err != nil {
		return err
	}
	for i, slot := range limit.Slots(after, n, now) {
		jobs[i].slot, jobs[i].waits = slot, false
	}
	return nil
}

// reserve reserves up to n slots, as many as there is room for.
func (d *Dispatcher) reserve(ctx context.Context, key string, n int, of func(int) ratelimit.Reservation, fits func(ratelimit.Reservation, time.Time, int) int) (int, time.Time, error) {
	for n > 0 {
		r := of(n)
		at, ok, err := d.Limits.Reserve(ctx, key, r)
		if err != nil || ok {
			return n, at, err
		}
		if n = min(n-1, fits(r, at, n)); n <= 0 {
			return 0, at, nil
		}
	}
	return 0, time.Time{}, nil
}

// waitForSlot waits until the job's slot. It returns false if there is none, if it is too
// far away, or if it expired in the meantime; the delivery then waits elsewhere.
func (d *Dispatcher) waitForSlot(ctx context.Context, j *job) (bool, error) {
	if j.waits {
		return false, d.wait(ctx, j, "waiting for its turn under the rate limit")
	}
	wait := j.slot.Sub(d.Now())
	if wait > slotWait {
		return false, d.parkForSlot(ctx, j)
	}
	if err := sleep(ctx, wait); err != nil {
		return false, err
	}
	if !j.slotExpired(d.Now()) {
		return true, nil
	}
	if err := d.reserveEndpointSlots(ctx, []*job{j}); err != nil {
		return false, err
	}
	if j.waits {
		return false, d.wait(ctx, j, "waiting for its turn under the rate limit")
	}
	return false, d.parkForSlot(ctx, j)
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
