package dispatch_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
	"github.com/tidings-dev/tidings/pkg/store/memory"
)

// A step takes seconds, so none is made in the lane of the endpoints that answer quickly:
// not the first, not the following, and not one that the sweep or a redrive queues.
func TestJobsAreAdvancedInTheSlowLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, slow := newLanes(t)
		e := w.endpoint()
		from := time.Now()
		w.missed(e, 700)
		w.setStatus(e, endpoint.Paused) // so that the job has to wait
		j := w.start(dispatch.Command{Kind: jobs.Recover, EndpointID: e.ID, From: from})
		steps := func(after string) []work.Item {
			t.Helper()
			for _, item := range w.queue.take() {
				if item.JobID != "" {
					t.Errorf("%s: a step is queued beside attempts", after)
				}
			}
			items := slow.take()
			if len(items) != 1 || items[0].JobID != j.ID {
				t.Fatalf("%s: the slow lane has %+v, want one step of the job", after, items)
			}
			return items
		}
		first := steps("at the start")
		w.deliver(first...)
		steps("after a step")
		time.Sleep(2 * time.Minute)
		if _, err := w.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		steps("after a sweep")
		w.Config.DeadLetters = deadLetters(t, first[0].Encode())
		if _, err := w.Redrive(t.Context()); err != nil {
			t.Fatal(err)
		}
		steps("after a redrive")
	})
}

// dyingStore is a store whose worker dies after some writes of deliveries: every later call
// fails, until it is replaced.
type dyingStore struct {
	*memory.Store
	left atomic.Int64
}

var errDead = errors.New("the worker is dead")

func (d *dyingStore) Park(ctx context.Context, p delivery.Park) (delivery.Delivery, error) {
	if d.left.Add(-1) < 0 {
		return delivery.Delivery{}, errDead
	}
	return d.Store.Park(ctx, p)
}

func (d *dyingStore) Replay(ctx context.Context, r delivery.Replay) (delivery.Delivery, error) {
	if d.left.Add(-1) < 0 {
		return delivery.Delivery{}, errDead
	}
	return d.Store.Replay(ctx, r)
}

func (d *dyingStore) PutBreaker(ctx context.Context, b breaker.State, now time.Time) (breaker.State, error) {
	if d.left.Load() <= 0 {
		return b, errDead
	}
	return d.Store.PutBreaker(ctx, b, now)
}

func (d *dyingStore) PutJob(ctx context.Context, j jobs.Job) (jobs.Job, error) {
	if d.left.Load() <= 0 {
		return j, errDead
	}
	return d.Store.PutJob(ctx, j)
}

// A worker dies when it has added some deliveries to a backlog, and the job is cancelled, so
// no further step looks after them. They are sent.
func TestWhatADeadWorkerAddedToABacklogIsSent(t *testing.T) {
	for _, kind := range []jobs.Kind{jobs.Recover, jobs.Replay} {
		t.Run(string(kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				e := w.endpoint()
				from := time.Now()
				events := w.missed(e, 40)
				states := []delivery.State{dispatch.Missing}
				if kind == jobs.Replay {
					states[0] = delivery.Skipped
					for _, a := range events {
						settle := delivery.Settle{Key: delivery.Key{EndpointID: e.ID, EventID: a.ID}, Tenant: e.Tenant, Accepted: time.Now(), State: delivery.Skipped, Now: time.Now()}
						if err := w.store.Settle(t.Context(), settle); err != nil {
							t.Fatal(err)
						}
					}
					time.Sleep(time.Second)
				}
				j := w.start(dispatch.Command{Kind: kind, EndpointID: e.ID, From: from, States: states})
				w.queue.take()
				dying := &dyingStore{Store: w.store}
				dying.left.Store(20)
				worker := newWorld(t, func(c *dispatch.Config) {
					*c = w.Config
					c.Deliveries, c.Replays, c.Breakers, c.Jobs = dying, dying, dying, dying
				})
				worker.deliver(work.Item{Tenant: j.Tenant, JobID: j.ID})
				if _, err := w.Run(t.Context(), dispatch.Command{Action: "cancel_job", JobID: j.ID, By: "ada"}); err != nil {
					t.Fatal(err)
				}
				added, err := w.store.CountBacklog(t.Context(), e.ID, 100)
				if err != nil || added == 0 || added == 40 {
					t.Fatalf("%d deliveries are in the backlog, %v; want some", added, err)
				}
				w.queue.take() // the dead worker sent nothing more
				w.drive(3 * time.Minute)
				if n := w.receiver.count(); n != added {
					t.Errorf("%d of %d deliveries in the backlog were sent", n, added)
				}
			})
		})
	}
}

// An item that arrives before its time is sent again with the rest of its delay. One for
// another time is a duplicate, and is not: otherwise duplicates would never end.
func TestAnItemThatIsEarlyIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, slow := newLanes(t)
		e := w.endpoint()
		from := time.Now()
		w.missed(e, 700)
		w.setStatus(e, endpoint.Paused)
		j := w.start(dispatch.Command{Kind: jobs.Recover, EndpointID: e.ID, From: from})
		first := slow.take()
		w.deliver(first...)
		next := slow.take()
		j = w.job(j)
		if len(next) != 1 || next[0].Delay < 10*time.Second || !next[0].WakeAt.Equal(j.NextAt) {
			t.Fatalf("the next step: %+v, want one for %s", next, j.NextAt)
		}
		time.Sleep(next[0].Delay - 3*time.Second)
		w.deliver(next...)
		again := slow.take()
		if len(again) != 1 || again[0].JobID != j.ID || again[0].Delay != 3*time.Second {
			t.Fatalf("an item that is 3 s early: %+v, want it sent again for 3 s later", again)
		}
		w.deliver(first...)
		if more := slow.take(); len(more) != 0 {
			t.Errorf("a duplicate of an earlier step is sent again: %+v", more)
		}
		before := j.Version
		time.Sleep(again[0].Delay)
		w.deliver(again...)
		if j = w.job(j); j.Version == before {
			t.Error("no step is made at its time")
		}
	})
}

// spoiled is a store in which one job cannot be decoded until it is replaced.
type spoiled struct {
	*memory.Store
	id string
}

func (s *spoiled) GetJob(ctx context.Context, k jobs.Key) (jobs.Job, error) {
	j, err := s.Store.GetJob(ctx, k)
	if err == nil && k.ID == s.id && j.State == jobs.Running {
		return jobs.Job{ID: k.ID, Tenant: k.Tenant, Version: j.Version, State: jobs.Failed}, fmt.Errorf("job %s: %w", k.ID, jobs.ErrUnreadable)
	}
	return j, err
}

// One job that cannot be decoded fails, with one line in the log, and other jobs go on.
func TestAJobThatCannotBeDecodedFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var store *spoiled
		w := newWorld(t, func(c *dispatch.Config) {
			store = &spoiled{Store: c.Jobs.(*memory.Store)}
			c.Jobs, c.Log = store, slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelError}))
		})
		e := w.endpoint()
		from := time.Now()
		events := w.missed(e, 5)
		bad := w.start(dispatch.Command{Kind: jobs.Recover, EndpointID: e.ID, From: from})
		store.id = bad.ID
		good := w.finish(w.start(dispatch.Command{Kind: jobs.Recover, EndpointID: e.ID, From: from}))
		w.drive(5 * time.Minute)
		if w.once(events); good.State != jobs.Done {
			t.Errorf("the other job: %+v", good)
		}
		if bad = w.job(bad); bad.State != jobs.Failed || !strings.Contains(bad.Reason, "decoded") {
			t.Errorf("it is %s: %s", bad.State, bad.Reason)
		}
		if n := strings.Count(log.String(), "job.unreadable"); n != 1 || strings.Count(log.String(), "\n") != 1 {
			t.Errorf("the log has %d lines of it:\n%s", n, log.String())
		}
		due, err := w.store.DueJobs(t.Context(), time.Now().Add(jobs.Retention), 10)
		if err != nil || len(due) != 0 {
			t.Errorf("the sweep still looks after %v, %v", due, err)
		}
	})
}

// slowWrites is a store in which a delivery gets into its backlog late: its write takes
// longer than a drain waits for it. then is its result.
type slowWrites struct {
	*memory.Store
	then error
	dead atomic.Bool
}

func (s *slowWrites) Replay(ctx context.Context, r delivery.Replay) (delivery.Delivery, error) {
	time.Sleep(45 * time.Second)
	d, err := s.Store.Replay(ctx, r)
	s.dead.Store(errors.Is(s.then, errDead))
	return d, errors.Join(err, s.then)
}

func (s *slowWrites) PutBreaker(ctx context.Context, b breaker.State, now time.Time) (breaker.State, error) {
	if s.dead.Load() {
		return b, errDead
	}
	return s.Store.PutBreaker(ctx, b, now)
}

func (s *slowWrites) PutJob(ctx context.Context, j jobs.Job) (jobs.Job, error) {
	if s.dead.Load() {
		return j, errDead
	}
	return s.Store.PutJob(ctx, j)
}

// A delivery may get into the backlog when the drain that was to wait for it has ended. It
// is sent if the step then fails and the job is cancelled, and if the worker dies and the
// job goes on.
func TestWhatGetsIntoABacklogLateIsSent(t *testing.T) {
	for name, c := range map[string]struct {
		then   error
		cancel bool
	}{
		"the step fails, and the job is cancelled": {errors.New("throttled"), true},
		"the worker dies, and the job goes on":     {errDead, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				e := w.endpoint()
				events := w.missed(e, 1)
				settle := delivery.Settle{Key: delivery.Key{EndpointID: e.ID, EventID: events[0].ID}, Tenant: e.Tenant, Accepted: time.Now(), State: delivery.Skipped, Now: time.Now()}
				if err := w.store.Settle(t.Context(), settle); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				j := w.start(dispatch.Command{Kind: jobs.Replay, EndpointID: e.ID, States: []delivery.State{delivery.Skipped}})
				w.queue.take()
				slow := &slowWrites{Store: w.store, then: c.then}
				worker := newWorld(t, func(d *dispatch.Config) {
					*d = w.Config
					d.Replays, d.Breakers, d.Jobs = slow, slow, slow
				})
				done := make(chan struct{})
				go func() {
					defer close(done)
					worker.deliver(work.Item{Tenant: j.Tenant, JobID: j.ID})
				}()
				w.drive(44 * time.Second)
				if s := w.circuit(e); s.Phase != breaker.Closed {
					t.Fatalf("the drain has not ended: %+v", s)
				}
				<-done
				if c.cancel {
					if _, err := w.Run(t.Context(), dispatch.Command{Action: "cancel_job", JobID: j.ID, By: "ada"}); err != nil {
						t.Fatal(err)
					}
				}
				w.drive(4 * time.Minute)
				w.once(events)
			})
		})
	}
}
