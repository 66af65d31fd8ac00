package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
)

const (
	// recoverWorkers bounds the concurrent reads and writes of a step.
	recoverWorkers = 16
	// goalSpan is how long a job's deliveries may wait in the backlog: long enough that the
	// drain never runs out of them between two steps, and much shorter than the age limit.
	goalSpan = time.Minute
	// maxGoal is the most that a job keeps in a backlog: 16 s of the fastest drain.
	maxGoal = 5000
	// refillEvery and refillOpen are the longest times between two looks at a full backlog:
	// while it is drained, and while its circuit is open or its endpoint is paused.
	refillEvery, refillOpen = 5 * time.Second, 30 * time.Second
)

// backlogGoal is how many deliveries a job keeps in an endpoint's backlog, and how long it
// waits when held of them are in it (0 if it has room). A backlog that held everything at
// once would delay live deliveries that have to wait, and its end would reach the age limit
// before its turn.
func backlogGoal(limit ratelimit.Limit, s breaker.State, ageLimit time.Duration, held int) (goal int, wait time.Duration) {
	rate := float64(breaker.StartRate)
	switch {
	case limit.Enabled():
		rate = float64(limit.PerMinute) / 60 / 2 // new events get the other half
	case s.Phase == breaker.Draining:
		rate = float64(max(s.Drain.Rate, 1))
	}
	goal = min(max(int(rate*min(goalSpan, ageLimit/4).Seconds()), 1), maxGoal)
	if 2*held <= goal {
		return goal, 0
	}
	if s.Phase == breaker.Open {
		return goal, refillOpen
	}
	until := time.Duration(float64(held-goal/2) / rate * float64(time.Second))
	return goal, min(max(until, time.Second), refillEvery)
}

// roomFor returns how many deliveries a job may add to an endpoint's backlog now; if none,
// how long it should wait. A dry run adds nothing, so it has room.
func (d *Dispatcher) roomFor(ctx context.Context, j jobs.Job, ep *endpoint.Endpoint) (room int, wait time.Duration, err error) {
	if j.DryRun {
		return maxGoal, 0, nil
	}
	s, err := d.circuits.get(ctx, ep.Tenant, ep.ID, true)
	if err != nil {
		return 0, 0, err
	}
	held, err := d.Waiting.CountBacklog(ctx, ep.ID, maxGoal)
	if err != nil {
		return 0, 0, err
	}
	if held > 0 && s.Phase == breaker.Closed { // a worker died, or failed, after it had added them
		if err := d.hold(ctx, ep); err != nil {
			return 0, 0, err
		}
	}
	goal, wait := backlogGoal(ep.Limit, s, ep.Retry.AgeLimit(), held)
	switch {
	case wait == 0:
		return goal - held, 0, nil
	case ep.Status == endpoint.Paused:
		return 0, refillOpen, nil
	}
	return 0, wait, nil
}

// candidate is an event or a delivery that a job may put into a backlog.
type candidate struct {
	key       delivery.Key
	eventType string
	// retentionDays is that of the event. Of one without a delivery, matches finds it.
	retentionDays int
	// state is that of the delivery; Missing if there is none; "" if the endpoint does not
	// subscribe to the event.
	state   delivery.State
	wanted  bool
	waiting bool // it is in the backlog already
	// matches, if not nil, looks at an event that has no delivery: it is Missing if it matches
	// the filter.
	matches func(context.Context) (unsent, error)
}

// unsent is an event that has no delivery.
type unsent struct {
	state         delivery.State // Missing, Erased or ""
	retentionDays int
}

// refilled is what refill did.
type refilled struct {
	rest int // the first candidate that it did not get to
	sent int // candidates that were put into the backlog; in a dry run, that would be
}

// refill puts the candidates that are wanted into the endpoint's backlog, in their order, up
// to room of them. It sets the state of those that do not match the filter to "". Before
// anything is added, and again before it returns, it makes sure that somebody looks after
// the backlog: its worker may die at any point, and the job may end before its next step.
func (d *Dispatcher) refill(ctx context.Context, j jobs.Job, ep *endpoint.Endpoint, list []candidate, room int) (done refilled, err error) {
	waiting := false
	for done.rest < len(list) && done.sent < room {
		// Candidates that do not match take no room, so look at a few more.
		chunk := list[done.rest:min(len(list), done.rest+max(room-done.sent, recoverWorkers))]
		if err := matchAll(ctx, chunk); err != nil {
			return done, err
		}
		var chosen []candidate
		for _, c := range chunk {
			if c.wanted && done.sent+len(chosen) == room {
				break
			}
			done.rest++
			waiting = waiting || c.waiting || c.wanted
			if c.wanted {
				chosen = append(chosen, c)
			}
		}
		if waiting && !j.DryRun {
			if err := d.hold(ctx, ep); err != nil {
				return done, err
			}
		}
		n, err := d.addAll(ctx, j, ep, chosen)
		done.sent += n
		if err != nil && waiting && !j.DryRun {
			err = errors.Join(err, d.hold(ctx, ep))
		}
		if err != nil {
			return done, err
		}
	}
	if j.DryRun || !waiting {
		return done, nil
	}
	return done, d.hold(ctx, ep)
}

// matchAll evaluates the endpoint's filter for events that are missing.
func matchAll(ctx context.Context, list []candidate) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(recoverWorkers)
	for i := range list {
		c := &list[i]
		if c.matches == nil {
			continue
		}
		group.Go(func() error {
			f, err := c.matches(ctx)
			if err == nil && f.state != Missing {
				c.state, c.wanted = f.state, false
			}
			c.retentionDays = f.retentionDays
			c.matches = nil
			return err
		})
	}
	return group.Wait()
}

// addAll puts candidates into the backlog, and returns how many.
func (d *Dispatcher) addAll(ctx context.Context, j jobs.Job, ep *endpoint.Endpoint, list []candidate) (int, error) {
	if j.DryRun {
		return len(list), nil
	}
	added := make([]bool, len(list))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(recoverWorkers)
	for i, c := range list {
		group.Go(func() error {
			err := d.add(ctx, j, ep, c)
			var refused *delivery.Refusal
			if errors.As(err, &refused) || errors.Is(err, delivery.ErrNotFound) {
				return nil // something happened to it in the meantime
			}
			added[i] = err == nil
			return err
		})
	}
	err := group.Wait()
	n := 0
	for _, ok := range added {
		if ok {
			n++
		}
	}
	return n, err
}

// add puts a delivery into the backlog. Its age counts from now.
func (d *Dispatcher) add(ctx context.Context, j jobs.Job, ep *endpoint.Endpoint, c candidate) error {
	now := d.Now()
	until := now.Add(ep.Retry.AgeLimit())
	due := until.Add(time.Millisecond) // as in wait
	if _, err := d.keepEvent(ctx, c.key.EventID, event.RetainedUntil(c.key.EventID, c.retentionDays), until, until); err != nil {
		return err
	}
	if c.state == Missing {
		_, err := d.Deliveries.Park(ctx, delivery.Park{
			Key: c.key, Tenant: ep.Tenant, EventType: c.eventType, Accepted: now, RetentionDays: c.retentionDays, InBacklog: true, DueAt: due, Reason: "recovered by an operator", Now: now,
		})
		return err
	}
	_, err := d.Replays.Replay(ctx, delivery.Replay{Key: c.key, InBacklog: true, SettledBefore: j.StartedAt, Now: now, DueAt: due})
	return err
}

// hold makes sure that somebody looks after an endpoint's backlog, to which deliveries were
// added just now.
func (d *Dispatcher) hold(ctx context.Context, ep *endpoint.Endpoint) error {
	s, changed, err := d.circuits.update(ctx, ep.Tenant, ep.ID, true, func(s breaker.State) (breaker.State, bool) { return s.Hold(d.Now()) })
	if err != nil {
		return fmt.Errorf("backlog of %s: %w", ep.ID, err)
	}
	if changed {
		d.sendWake(ctx, s, s.WakeAt.Sub(d.Now()))
	}
	return nil
}
