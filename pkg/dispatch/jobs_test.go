package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
	"github.com/tidings-dev/tidings/pkg/store/memory"
)

// lateJobs is a store that loses every third write of a job that a worker holds: the worker
// dies after its step, before the step is recorded.
type lateJobs struct {
	*memory.Store
	writes atomic.Int64
}

func (l *lateJobs) PutJob(ctx context.Context, j jobs.Job) (jobs.Job, error) {
	if stored, err := l.GetJob(ctx, jobs.Key{Tenant: j.Tenant, ID: j.ID}); err == nil && stored.Lease != "" && l.writes.Add(1)%3 == 1 {
		return j, errors.New("the worker is dead")
	}
	return l.Store.PutJob(ctx, j)
}

// failingParks refuses the backlog every third time.
type failingParks struct {
	*memory.Store
	calls atomic.Int64
}

func (f *failingParks) Park(ctx context.Context, p delivery.Park) (delivery.Delivery, error) {
	if f.calls.Add(1)%3 == 0 {
		return delivery.Delivery{}, errors.New("throttled")
	}
	return f.Store.Park(ctx, p)
}

// once checks that each event was received once.
func (w *world) once(events []event.Accepted) {
	w.t.Helper()
	times := map[string]int{}
	for _, m := range w.receiver.got {
		times[m.EventID]++
	}
	for _, a := range events {
		if times[a.ID] != 1 {
			w.t.Errorf("event %s was received %d times, want once", a.ID, times[a.ID])
		}
	}
}

// However its workers die, and also if several of them get its work items, a job sends each
// event once.
func TestAJobSendsEachEventOnceWhateverHappensToItsWorkers(t *testing.T) {
	for name, config := range map[string]func(*dispatch.Config, *memory.Store){
		"workers die before they record a step": func(c *dispatch.Config, s *memory.Store) { c.Jobs = &lateJobs{Store: s} },
		"writes of the backlog fail":            func(c *dispatch.Config, s *memory.Store) { c.Deliveries = &failingParks{Store: s} },
		"nothing fails":                         func(*dispatch.Config, *memory.Store) {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(c *dispatch.Config) { config(c, c.Jobs.(*memory.Store)) })
				e := w.endpoint()
				from := time.Now()
				events := w.missed(e, 700)
				skipped := w.missed(e, 20) // and settled as skipped
				for _, a := range skipped {
					settle := delivery.Settle{Key: delivery.Key{EndpointID: e.ID, EventID: a.ID}, Tenant: e.Tenant, Accepted: time.Now(), State: delivery.Skipped, Now: time.Now()}
					if err := w.store.Settle(t.Context(), settle); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(time.Second)
				states := []delivery.State{dispatch.Missing, delivery.Skipped, delivery.Delivered}
				j := w.start(dispatch.Command{Kind: jobs.Recover, EndpointID: e.ID, From: from, States: states})
				// Each item arrives twice, as SQS may deliver it.
				w.queue.Send(t.Context(), []work.Item{{Tenant: j.Tenant, JobID: j.ID}})
				if j = w.finish(j); j.State != jobs.Done {
					t.Fatalf("%+v", j)
				}
				w.drive(2 * time.Minute)
				w.once(append(events, skipped...))
			})
		})
	}
}

// staleQueries answers each query as it was answered the first time.
type staleQueries struct {
	*memory.Store
	first delivery.Page
}

func (s *staleQueries) QueryDeliveries(ctx context.Context, q delivery.Query) (delivery.Page, error) {
	if s.first.Deliveries == nil {
		page, err := s.Store.QueryDeliveries(ctx, q)
		s.first = page
		return page, err
	}
	return s.first, nil
}

// A worker dies after its step, which is made again when the deliveries have been sent
// already. The query does not show that yet.
func TestARepeatedStepSendsNothingAgain(t *testing.T) {
	for _, kind := range []jobs.Kind{jobs.Recover, jobs.Replay} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, func(c *dispatch.Config) {
				store := c.Jobs.(*memory.Store)
				c.Jobs, c.Replays = &lateJobs{Store: store}, &staleQueries{Store: store}
			})
			e := w.endpoint()
			from := time.Now()
			events := w.missed(e, 5)
			for _, a := range events {
				settle := delivery.Settle{Key: delivery.Key{EndpointID: e.ID, EventID: a.ID}, Tenant: e.Tenant, Accepted: time.Now(), State: delivery.Skipped, Now: time.Now()}
				if err := w.store.Settle(t.Context(), settle); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Second)
			j := w.finish(w.start(dispatch.Command{Kind: kind, EndpointID: e.ID, From: from, States: []delivery.State{delivery.Skipped}}))
			w.drive(time.Minute)
			if w.once(events); j.State != jobs.Done {
				t.Errorf("%s: %+v", kind, j)
			}
		})
	}
}

// A job does not put more into the backlog than the endpoint takes in a minute, so new
// events are not stuck behind it, and nothing expires.
func TestAJobIsPacedByItsEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint(func(e *endpoint.Endpoint) { e.Limit.PerMinute, e.Retry.MaxAge = 120, 10*time.Minute })
		from := time.Now()
		events := w.missed(e, 1500) // 25 minutes at half of the limit
		j := w.start(dispatch.Command{Kind: jobs.Recover, EndpointID: e.ID, From: from})
		time.Sleep(time.Millisecond)
		most, late := 0, time.Duration(0)
		for range 60 {
			if j = w.job(j); j.State != jobs.Running {
				break
			}
			a, record := w.event("user.posted_comment", comment)
			w.FanOut(t.Context(), []event.Change{record})
			began := time.Now()
			w.drive(30 * time.Second)
			held, err := w.store.CountBacklog(t.Context(), e.ID, 10_000)
			if err != nil {
				t.Fatal(err)
			}
			most = max(most, held)
			for i, m := range w.receiver.got {
				if m.EventID == a.ID {
					late = max(late, w.receiver.at[i].Sub(began))
				}
			}
		}
		j = w.finish(j)
		w.drive(5 * time.Minute)
		w.wantState(events, e, delivery.Delivered)
		if j.State != jobs.Done || j.Counts[jobs.Sent] != 1500 || most > 70 || late > 20*time.Second {
			t.Errorf("%s, %v; the backlog held up to %d, want at most 60 and a few new ones; a new event took up to %s", j.State, j.Counts, most, late)
		}
	})
}

// While the circuit is open, a job waits; the endpoint's deletion or disabling ends it.
func TestAJobEndsWithItsEndpoint(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(w *world, e endpoint.Endpoint)
		want string
	}{
		"disabled": {func(w *world, e endpoint.Endpoint) { w.setStatus(e, endpoint.Disabled) }, "is disabled"},
		"deleted":  {func(w *world, e endpoint.Endpoint) { _ = w.store.RemoveEndpoint(w.t.Context(), e.Tenant, e.ID) }, "has no endpoint"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				e := w.endpoint(func(e *endpoint.Endpoint) { e.Limit.PerMinute = 60 })
				from := time.Now()
				w.missed(e, 300)
				j := w.start(dispatch.Command{Kind: jobs.Recover, EndpointID: e.ID, From: from})
				w.drive(time.Minute)
				c.end(w, e)
				if j = w.finish(j); j.State != jobs.Failed || !strings.Contains(j.Reason, c.want) {
					t.Errorf("%s: %s, want failed because the endpoint %s", j.State, j.Reason, c.want)
				}
			})
		})
	}
}

// slowCounts is a store that takes a while to count a backlog.
type slowCounts struct{ *memory.Store }

func (s slowCounts) CountBacklog(ctx context.Context, endpointID string, limit int) (int, error) {
	time.Sleep(8 * time.Second)
	return s.Store.CountBacklog(ctx, endpointID, limit)
}

// The other messages of its batch do not wait for a job, also those that need a slot under a
// rate limit.
func TestAJobHoldsUpNoAttemptOfItsBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *dispatch.Config) { c.Waiting = slowCounts{c.Jobs.(*memory.Store)} })
		e := w.endpoint(func(e *endpoint.Endpoint) { e.Limit.PerMinute = 600 })
		j := w.start(dispatch.Command{Kind: jobs.Recover, EndpointID: e.ID, From: time.Now().Add(-time.Minute)})
		item, began := w.fannedOut(), time.Now()
		if failed := w.deliver(work.Item{Tenant: j.Tenant, JobID: j.ID}, item); failed != nil {
			t.Fatal(failed)
		}
		if w.receiver.count() != 1 || w.receiver.at[0].Sub(began) > time.Second {
			t.Errorf("the attempts beside a job were at %v, want one within a second after %s", w.receiver.at, began)
		}
		if j = w.job(j); j.UpdatedAt.Sub(began) < 8*time.Second {
			t.Errorf("the job's step took %s", j.UpdatedAt.Sub(began))
		}
	})
}

// A job fills the backlog of a paused endpoint once, and then looks at it twice a minute.
func TestAJobWaitsForAPausedEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint()
		from := time.Now()
		events := w.missed(e, 700) // more than a backlog gets at once
		w.setStatus(e, endpoint.Paused)
		j := w.start(dispatch.Command{Kind: jobs.Recover, EndpointID: e.ID, From: from})
		w.drive(time.Minute)
		before := w.job(j)
		w.drive(10 * time.Minute)
		j = w.job(j)
		if j.State != jobs.Running || j.Counts[jobs.Sent] == 0 || w.receiver.count() != 0 {
			t.Fatalf("%s: %v, %d received", j.State, j.Counts, w.receiver.count())
		}
		if writes := j.Version - before.Version; writes > 2*25 { // to take the job, and to record the wait
			t.Errorf("it was written %d times in ten minutes", writes)
		}
		w.setStatus(e, endpoint.Enabled)
		if j = w.finish(j); j.State != jobs.Done {
			t.Fatalf("%+v", j)
		}
		w.drive(5 * time.Minute)
		w.once(events)
	})
}

func TestACancelledJobStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint(func(e *endpoint.Endpoint) { e.Limit.PerMinute = 60 })
		from := time.Now()
		w.missed(e, 300)
		j := w.start(dispatch.Command{Kind: jobs.Recover, EndpointID: e.ID, From: from})
		w.drive(time.Minute)
		cancel := dispatch.Command{Action: "cancel_job", JobID: j.ID, By: "ada"}
		if _, err := w.Run(t.Context(), cancel); err != nil {
			t.Fatal(err)
		}
		sent := w.job(j).Counts[jobs.Sent]
		if sent == 0 || sent == 300 {
			t.Fatalf("%d were sent before it was cancelled", sent)
		}
		w.drive(10 * time.Minute)
		if j = w.job(j); j.State != jobs.Cancelled || j.Reason != "cancelled by ada" || j.Counts[jobs.Sent] != sent || w.receiver.count() != sent {
			t.Errorf("%s: %d received, %v; want %d", j.State, w.receiver.count(), j.Counts, sent)
		}
		for want, c := range map[string]dispatch.Command{
			"cancel_job: job " + j.ID + " has ended already: it is cancelled": cancel,
			`cancel_job: tenant other has no job "` + j.ID + `"`:              {Action: "cancel_job", Tenant: "other", JobID: j.ID},
			`cancel_job: tenant default has no job "x"`:                       {Action: "cancel_job", JobID: "x"},
		} {
			if _, err := w.Run(t.Context(), c); err == nil || err.Error() != want {
				t.Errorf("error %v, want %s", err, want)
			}
		}
	})
}

// A step that fails may have put some deliveries into the backlog. They are sent, although
// the job takes no further step.
func TestAFailedStepLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *dispatch.Config) { c.Deliveries = &failingParks{Store: c.Jobs.(*memory.Store)} })
		e := w.endpoint()
		from := time.Now()
		w.missed(e, 5)
		j := w.start(dispatch.Command{Kind: jobs.Recover, EndpointID: e.ID, From: from})
		w.queue.take()
		w.deliver(work.Item{Tenant: j.Tenant, JobID: j.ID})
		if j = w.job(j); j.Failures != 1 || j.Reason == "" {
			t.Fatalf("the step did not fail: %+v", j)
		}
		if _, err := w.Run(t.Context(), dispatch.Command{Action: "cancel_job", JobID: j.ID, By: "ada"}); err != nil {
			t.Fatal(err)
		}
		added, err := w.store.CountBacklog(t.Context(), e.ID, 10)
		if err != nil || added == 0 {
			t.Fatalf("%d deliveries in the backlog, %v", added, err)
		}
		w.drive(2 * time.Minute)
		if n := w.receiver.count(); n != added {
			t.Errorf("%d of %d deliveries in the backlog were sent", n, added)
		}
	})
}

// The command that starts a job can be repeated, as after a lost response.
func TestAJobIsStartedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint()
		from := time.Now()
		w.missed(e, 3)
		c := dispatch.Command{Kind: jobs.Recover, JobID: jobs.NewID(time.Now()), EndpointID: e.ID, From: from}
		j := w.start(c)
		if again := w.start(c); again.ID != j.ID || !again.StartedAt.Equal(j.StartedAt) {
			t.Errorf("started again: %+v", again)
		}
		w.finish(j)
		if again := w.start(c); again.State != jobs.Done {
			t.Errorf("started again after its end: %+v", again)
		}
	})
}

// Events that are lost in every way after which they are in the journal are recovered, all
// of them, by one job.
func TestEverythingThatAnEndpointMissedIsRecovered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint()
		from := time.Now()
		var lost []event.Accepted
		accept := func(n int) {
			for range n {
				a, record := w.event("user.posted_comment", comment)
				if failed := w.FanOut(t.Context(), []event.Change{record}); failed != nil {
					t.Fatal(failed)
				}
				lost = append(lost, a)
				time.Sleep(time.Millisecond)
			}
		}
		// The queue loses every message.
		accept(20)
		w.queue.take()
		// The endpoint is disabled: what is fanned out, and what is in the queue.
		accept(20)
		inQueue := w.queue.take()
		lost = append(lost, w.missed(e, 20)...)
		w.setStatus(e, endpoint.Disabled)
		w.deliver(inQueue...)
		// The receiver is gone: 410 disables the endpoint, the others become dead or skipped.
		w.setStatus(e, endpoint.Enabled)
		w.receiver.answer = answering(410)
		accept(20)
		w.deliver(w.queue.take()...)
		w.receiver.answer = nil
		// Fan-out works with an old list, in which the endpoint is still disabled.
		stored, err := w.store.GetEndpoint(t.Context(), e.Tenant, e.ID)
		if err != nil {
			t.Fatal(err)
		}
		accept(1) // the list is cached
		stored.Status = endpoint.Enabled
		if _, err := w.store.UpdateEndpoint(t.Context(), stored); err != nil {
			t.Fatal(err)
		}
		accept(20)
		w.queue.take()
		time.Sleep(time.Hour)

		j := w.recover(dispatch.Command{EndpointID: e.ID, From: from, States: []delivery.State{dispatch.Missing, delivery.Skipped, delivery.Dead}})
		w.drive(5 * time.Minute)
		w.wantState(lost, e, delivery.Delivered)
		if j.State != jobs.Done || j.Counts[jobs.Sent] != len(lost) {
			t.Errorf("%s: %v, want all %d", j.State, j.Counts, len(lost))
		}
		if c := w.circuit(e); !c.Clean() {
			t.Errorf("the circuit afterwards: %+v", c)
		}
		fmt.Fprintln(t.Output(), j.Counts)
	})
}
