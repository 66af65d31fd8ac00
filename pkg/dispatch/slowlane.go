package dispatch

import (
	"context"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/endpoint"
)

// markTimeout is the timeout for marking an endpoint as slow. The mark only decides where
// attempts are made, so a late one is of no use.
const markTimeout = 2 * time.Second

// lanes sends items to the work queue, or to the slow queue those that belong there.
type lanes struct{ work, slow Queue }

// Send implements Queue.
func (l lanes) Send(ctx context.Context, items []work.Item) []error {
	var parts [2]struct {
		items     []work.Item
		positions []int
	}
	for i, item := range items {
		lane := 0
		if item.Slow {
			lane = 1
		}
		parts[lane].items, parts[lane].positions = append(parts[lane].items, item), append(parts[lane].positions, i)
	}
	switch {
	case len(parts[1].items) == 0:
		return l.work.Send(ctx, items)
	case len(parts[0].items) == 0:
		return l.slow.Send(ctx, items)
	}
	var errs []error
	for lane, queue := range []Queue{l.work, l.slow} {
		for n, err := range queue.Send(ctx, parts[lane].items) {
			if errs == nil {
				errs = make([]error, len(items))
			}
			errs[parts[lane].positions[n]] = err
		}
	}
	return errs
}

// watchDuration marks the endpoint as slow while an attempt is under way for long. The
// caller calls end after the attempt.
func (d *Dispatcher) watchDuration(ctx context.Context, ep *endpoint.Endpoint) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	timer := time.AfterFunc(breaker.SlowLaneAfter, func() {
		defer close(done)
		for err := error(nil); err == nil; err = sleep(ctx, breaker.SlowLaneRenew) {
			d.markSlow(ctx, ep)
		}
	})
	return func() {
		cancel()
		if !timer.Stop() {
			<-done // Lambda freezes what still runs when the invocation ends
		}
	}
}

// markSlow marks an endpoint as slow. Errors are only logged: the next slow attempt marks
// it.
func (d *Dispatcher) markSlow(ctx context.Context, ep *endpoint.Endpoint) {
	ctx, cancel := context.WithTimeout(ctx, markTimeout)
	defer cancel()
	now, entered := d.Now(), false
	s, changed, err := d.circuits.update(ctx, ep.Tenant, ep.ID, false, func(s breaker.State) (breaker.State, bool) {
		entered = !s.Slow(now)
		return s.MarkSlow(now)
	})
	switch {
	case err != nil && ctx.Err() == nil:
		d.Log.WarnContext(ctx, "slow_lane.not_marked", "endpoint_id", ep.ID, "error", err.Error())
	case changed && entered:
		d.Log.InfoContext(ctx, "slow_lane.entered", "endpoint_id", ep.ID, "tenant", ep.Tenant, "until", s.SlowUntil)
	}
}

// moveToSlowLane moves an item to the slow queue and reports whether it is there. If it
// is not, the attempt is made here: a worker is lost for its duration, but no delivery.
func (d *Dispatcher) moveToSlowLane(ctx context.Context, item work.Item) bool {
	item.Slow = true
	if errs := d.Queue.Send(ctx, []work.Item{item}); errs != nil {
		d.Log.WarnContext(ctx, "slow_lane.not_moved", "endpoint_id", item.EndpointID, "event_id", item.EventID, "error", errs[0].Error())
		return false
	}
	return true
}
