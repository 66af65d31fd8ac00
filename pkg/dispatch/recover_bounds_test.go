package dispatch_test

import (
	"context"
	"encoding/json"
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
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/journal"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
)

// sources are what a job reads and writes. Operations fail by name, and
// each write or read of one event takes a while.
type sources struct {
	dispatch.Events
	dispatch.Journal
	dispatch.Replays
	dispatch.Deliveries
	dispatch.Breakers
	fails   map[string]error
	queries []delivery.Query
	takes   time.Duration
	busy    atomic.Int64
	most    atomic.Int64 // at a time
}

func (s *sources) in(c *dispatch.Config) {
	s.Events, s.Journal, s.Replays, s.Deliveries, s.Breakers = c.Events, c.Journal, c.Replays, c.Deliveries, c.Breakers
	c.Events, c.Journal, c.Replays, c.Deliveries, c.Breakers = s, s, s, s, s
}

func (s *sources) work(name string) error {
	n := s.busy.Add(1)
	for most := s.most.Load(); n > most && !s.most.CompareAndSwap(most, n); most = s.most.Load() {
	}
	time.Sleep(s.takes)
	s.busy.Add(-1)
	return s.fails[name]
}

func (s *sources) GetEvent(ctx context.Context, id string) (event.Accepted, error) {
	if err := s.work("event"); err != nil {
		return event.Accepted{}, err
	}
	return s.Events.GetEvent(ctx, id)
}

func (s *sources) QueryJournal(ctx context.Context, r journal.Range) ([]journal.Item, bool, error) {
	if err := s.fails["journal"]; err != nil {
		return nil, false, err
	}
	return s.Journal.QueryJournal(ctx, r)
}

func (s *sources) QueryDeliveries(ctx context.Context, q delivery.Query) (delivery.Page, error) {
	s.queries = append(s.queries, q)
	if err := s.fails["query"]; err != nil {
		return delivery.Page{}, err
	}
	return s.Replays.QueryDeliveries(ctx, q)
}

func (s *sources) Replay(ctx context.Context, r delivery.Replay) (delivery.Delivery, error) {
	if err := s.work("replay"); err != nil {
		return delivery.Delivery{}, err
	}
	return s.Replays.Replay(ctx, r)
}

func (s *sources) Park(ctx context.Context, p delivery.Park) (delivery.Delivery, error) {
	if err := s.work("park"); err != nil {
		return delivery.Delivery{}, err
	}
	return s.Deliveries.Park(ctx, p)
}

func (s *sources) GetBreaker(ctx context.Context, tenant, id string, consistent bool) (breaker.State, error) {
	if err := s.fails["read the circuit"]; err != nil {
		return breaker.State{}, err
	}
	return s.Breakers.GetBreaker(ctx, tenant, id, consistent)
}

func (s *sources) PutBreaker(ctx context.Context, b breaker.State, now time.Time) (breaker.State, error) {
	if err := s.fails["write the circuit"]; err != nil {
		return b, err
	}
	return s.Breakers.PutBreaker(ctx, b, now)
}

// settled stores deliveries of n new events in a state.
func (w *world) settled(e endpoint.Endpoint, n int, state delivery.State) (events []event.Accepted) {
	w.t.Helper()
	events = w.missed(e, n)
	for _, a := range events {
		w.settleAs(e, a, state)
	}
	return events
}

func (w *world) settleAs(e endpoint.Endpoint, a event.Accepted, state delivery.State) {
	w.t.Helper()
	now := time.Now()
	if err := w.store.Settle(w.t.Context(), delivery.Settle{
		Key: delivery.Key{EndpointID: e.ID, EventID: a.ID}, Tenant: e.Tenant, EventType: "user.posted_comment", Accepted: now, State: state, Now: now,
	}); err != nil {
		w.t.Fatal(err)
	}
}

// advance starts a job and delivers its first work item.
func (w *world) advance(c dispatch.Command) jobs.Job {
	w.t.Helper()
	j := w.start(c)
	items := w.queue.take()
	if failed := w.deliver(items...); failed != nil {
		w.t.Fatal(failed)
	}
	return w.job(j)
}

// Whatever fails in a step, the step counts as failed, and is made again.
func TestAStepOfAJobFailsWithWhatItNeeds(t *testing.T) {
	for _, c := range []struct {
		kind jobs.Kind
		what string
	}{
		{jobs.Recover, "journal"}, {jobs.Recover, "query"}, {jobs.Recover, "event"}, {jobs.Recover, "park"}, {jobs.Recover, "replay"},
		{jobs.Recover, "read the circuit"}, {jobs.Recover, "write the circuit"},
		{jobs.Replay, "query"}, {jobs.Replay, "replay"}, {jobs.Replay, "read the circuit"}, {jobs.Replay, "write the circuit"},
	} {
		t.Run(string(c.kind)+", "+c.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &sources{}
				w := newWorld(t, s.in)
				e := w.endpoint()
				from := time.Now()
				events := append(w.missed(e, 3), w.settled(e, 3, delivery.Skipped)...)
				time.Sleep(time.Second)
				states := []delivery.State{dispatch.Missing, delivery.Skipped}
				if c.kind == jobs.Replay {
					states, events = states[1:], events[3:]
				}
				s.fails = map[string]error{c.what: errStore}
				j := w.advance(dispatch.Command{Kind: c.kind, EndpointID: e.ID, From: from, States: states})
				if j.State != jobs.Running || j.Failures != 1 || !strings.Contains(j.Reason, errStore.Error()) || j.Cursor != "" || len(j.Counts) != 0 {
					t.Fatalf("after the step: %+v", j)
				}
				s.fails = nil
				if j = w.finish(j); j.State != jobs.Done {
					t.Errorf("after that: %+v", j)
				}
				w.drive(2 * time.Minute)
				w.once(events)
			})
		})
	}
}

// A job whose endpoint has no room makes no step, and that is no failure.
func TestAJobWaitsWithoutAFailureWhileABacklogIsFull(t *testing.T) {
	for _, kind := range []jobs.Kind{jobs.Recover, jobs.Replay} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			e := w.endpoint(func(e *endpoint.Endpoint) { e.Limit.PerMinute = 120 })
			from := time.Now()
			events := w.settled(e, 100, delivery.Dead)
			time.Sleep(time.Second)
			j := w.advance(dispatch.Command{Kind: kind, EndpointID: e.ID, From: from, States: []delivery.State{delivery.Dead}})
			if j.State != jobs.Running || j.Failures != 0 || j.Reason != "" || j.Counts[jobs.Sent] != 60 || j.Counts[jobs.Found(delivery.Dead)] != 60 || !j.NextAt.After(time.Now()) {
				t.Errorf("%s: with a full backlog: %+v", kind, j)
			}
			if j.Progress < 0 || j.Progress > 0.99 || (kind == jobs.Replay) != (j.Progress > 0) {
				t.Errorf("%s: progress %g", kind, j.Progress)
			}
			j = w.finish(j)
			w.drive(5 * time.Minute)
			w.once(events)
			if j.State != jobs.Done || j.Counts[jobs.Sent] != 100 || j.Counts[jobs.Found(delivery.Dead)] != 100 || kind == jobs.Recover && j.Counts[jobs.Examined] != 100 {
				t.Errorf("%s: at its end: %+v", kind, j)
			}
		})
	}
}

// The progress of a replay is the part of its range that it has gone through, newest event
// first; without a beginning, of the time for which deliveries are kept.
func TestTheProgressOfAReplay(t *testing.T) {
	for name, days := range map[string]int{"of its range": -1, "of the default retention": 0, "of the deployment's retention": 5} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, func(c *dispatch.Config) { c.RetentionDays = max(days, 0) })
			e := w.endpoint(func(e *endpoint.Endpoint) { e.Limit.PerMinute = 120 })
			from := time.Now()
			w.settled(e, 1, delivery.Dead)
			time.Sleep(5 * time.Hour)
			first := time.Now()
			w.settled(e, 60, delivery.Dead)
			time.Sleep(5 * time.Hour)
			command := dispatch.Command{Kind: jobs.Replay, EndpointID: e.ID, From: from}
			whole := time.Since(from)
			if days >= 0 {
				command.From, whole = time.Time{}, event.Retention(days)
			}
			want := float64(time.Since(first)) / float64(whole)
			if j := w.advance(command); j.Counts[jobs.Sent] != 60 || j.Progress < want-0.002 || j.Progress > want+0.002 {
				t.Errorf("%s: %g after %v, want %g", name, j.Progress, j.Counts, want)
			}
		})
	}
}

// An event of the last millisecond of the range is recovered, also if a window ends there.
func TestARangeIncludesItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint()
		from := time.Now()
		time.Sleep(10*time.Minute - 2*dispatch.CacheTime)
		w.setStatus(e, endpoint.Disabled)
		w.setStatus(e, endpoint.Enabled)
		a, record := w.event("user.posted_comment", comment)
		w.FanOut(t.Context(), []event.Change{record})
		w.queue.take() // and lost
		if at, err := event.IDTime(a.ID); err != nil || !at.Equal(from.Add(10*time.Minute)) {
			t.Fatal(at, err)
		}
		time.Sleep(time.Minute)
		j := w.recover(dispatch.Command{EndpointID: e.ID, From: from, To: from.Add(10 * time.Minute)})
		if j.Counts[jobs.Sent] != 1 {
			t.Errorf("%+v", j)
		}
	})
}

// What a window holds decides how long the next one is, also if it took several steps.
func TestAWindowIsAsLongAsTheEventsAllow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint()
		from := time.Now()
		w.missed(e, 200)
		time.Sleep(time.Hour)
		j := w.recover(dispatch.Command{EndpointID: e.ID, From: from, To: from.Add(15 * time.Minute), DryRun: true})
		var cursor struct {
			From time.Time     `json:"from"`
			Span time.Duration `json:"span"`
		}
		if err := json.Unmarshal([]byte(j.Cursor), &cursor); err != nil {
			t.Fatal(err)
		}
		if !cursor.From.Equal(from.Add(20*time.Minute)) || cursor.Span != 20*time.Minute {
			t.Errorf("%+v, want two windows of ten minutes, and then a longer one", cursor)
		}
	})
}

// A delivery that was settled in the millisecond in which the job began may be its own.
func TestAJobLeavesWhatWasSettledWhenItBegan(t *testing.T) {
	for _, kind := range []jobs.Kind{jobs.Recover, jobs.Replay} {
		for early, sent := range map[time.Duration]int{0: 0, time.Millisecond: 1} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				e := w.endpoint()
				from := time.Now()
				w.settled(e, 0, delivery.Dead)
				a, _ := w.event("user.posted_comment", comment)
				w.settleAs(e, a, delivery.Dead)
				w.recordJournal(e, a)
				time.Sleep(early)
				j := w.finish(w.start(dispatch.Command{Kind: kind, EndpointID: e.ID, From: from, To: time.Now().Add(time.Second), States: []delivery.State{delivery.Dead}, DryRun: true}))
				if j.Counts[jobs.Sent] != sent || j.Counts[jobs.Found(delivery.Dead)] != 1 {
					t.Errorf("%s, settled %s before: %v, want %d", kind, early, j.Counts, sent)
				}
			})
		}
	}
}

// recordJournal records an event as one that no endpoint got.
func (w *world) recordJournal(e endpoint.Endpoint, a event.Accepted) {
	w.t.Helper()
	w.setStatusNow(e, endpoint.Disabled)
	if failed := w.FanOut(w.t.Context(), []event.Change{{Inserted: true, SequenceNumber: "1", Event: a}}); failed != nil {
		w.t.Fatal(failed)
	}
	w.setStatusNow(e, endpoint.Enabled)
	w.queue.take()
}

// setStatusNow is setStatus without the time for which endpoints are cached.
func (w *world) setStatusNow(e endpoint.Endpoint, status endpoint.Status) {
	w.t.Helper()
	stored, err := w.store.GetEndpoint(w.t.Context(), e.Tenant, e.ID)
	if err == nil {
		stored.Status = status
		_, err = w.store.UpdateEndpoint(w.t.Context(), stored)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// A job wakes an endpoint whose backlog it has added to, or finds without anybody looking
// after it, and no other one.
func TestAJobWakesAnEndpointThatHasABacklog(t *testing.T) {
	none := func(*world, endpoint.Endpoint) {}
	park := func(w *world, e endpoint.Endpoint) {
		a, _ := w.event("user.posted_comment", comment)
		now := time.Now()
		if _, err := w.store.Park(w.t.Context(), delivery.Park{
			Key: delivery.Key{EndpointID: e.ID, EventID: a.ID}, Tenant: e.Tenant, Accepted: now, InBacklog: true, DueAt: now.Add(time.Hour), Now: now,
		}); err != nil {
			w.t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		prepare func(*world, endpoint.Endpoint)
		dry     bool
		wakes   int
	}{
		"nothing to send":      {none, false, 0},
		"nothing that is sent": {func(w *world, e endpoint.Endpoint) { w.settled(e, 3, delivery.Delivered) }, false, 0},
		"something to send":    {func(w *world, e endpoint.Endpoint) { w.missed(e, 3) }, false, 1},
		"and something older that is not": {func(w *world, e endpoint.Endpoint) {
			w.settled(e, 1, delivery.Delivered)
			w.missed(e, 1)
		}, false, 1},
		"a dry run":                           {func(w *world, e endpoint.Endpoint) { w.missed(e, 3) }, true, 0},
		"a backlog nobody looks after":        {park, false, 1},
		"a dry run leaves even that as it is": {park, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				e := w.endpoint()
				from := time.Now()
				c.prepare(w, e)
				time.Sleep(time.Second)
				w.advance(dispatch.Command{Kind: jobs.Recover, EndpointID: e.ID, From: from, To: time.Now(), DryRun: c.dry})
				sent := w.wakes()
				if len(sent) != c.wakes || (w.circuit(e).Phase == breaker.Draining) != (c.wakes > 0) {
					t.Fatalf("queued %+v, the circuit is %+v", sent, w.circuit(e))
				}
				if c.wakes > 0 && (sent[0].Delay != time.Second || !sent[0].WakeAt.Equal(w.circuit(e).WakeAt)) {
					t.Errorf("queued %+v", sent[0])
				}
			})
		})
	}
}

// A backlog that nobody can be made to look after is a failure of the step.
func TestAStepFailsWithoutAWakeUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sources{}
		w := newWorld(t, s.in)
		e := w.endpoint()
		_, wake := w.draining(e, 1)
		w.putCircuit(w.circuit(e).Reset())
		s.fails = map[string]error{"write the circuit": errStore}
		if j := w.advance(dispatch.Command{Kind: jobs.Recover, EndpointID: e.ID, From: wake.WakeAt.Add(-time.Hour)}); j.Failures != 1 {
			t.Errorf("%+v", j)
		}
	})
}

func TestAReplayEndsWithItsEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint()
		j := w.start(dispatch.Command{Kind: jobs.Replay, EndpointID: e.ID})
		w.setStatus(e, endpoint.Disabled)
		if j = w.finish(j); j.State != jobs.Failed || !strings.Contains(j.Reason, "is disabled") {
			t.Errorf("%+v", j)
		}
	})
}

// What a job recovers is due when it reaches its age limit, which counts from now.
func TestWhatAJobRecoversIsDueAtItsAgeLimit(t *testing.T) {
	for _, kind := range []jobs.Kind{jobs.Recover, jobs.Replay} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			e := w.endpoint(func(e *endpoint.Endpoint) { e.Retry.MaxAge = time.Hour })
			from := time.Now()
			var events []event.Accepted
			if kind == jobs.Replay {
				events = w.settled(e, 1, delivery.Dead)
			} else {
				events = w.missed(e, 1)
			}
			time.Sleep(24 * time.Hour)
			now := time.Now()
			w.advance(dispatch.Command{Kind: kind, EndpointID: e.ID, From: from})
			d, err := w.store.GetDelivery(t.Context(), delivery.Key{EndpointID: e.ID, EventID: events[0].ID})
			if err != nil || !d.InBacklog || !d.Since.Equal(now) || !d.DueAt.Equal(now.Add(time.Hour+time.Millisecond)) {
				t.Errorf("%s: %+v, %v", kind, d, err)
			}
		})
	}
}

// A step makes at most sixteen reads or writes at a time.
func TestAStepOfAJobMakesSixteenRequestsAtATime(t *testing.T) {
	for name, dry := range map[string]bool{"reads": true, "writes": false} {
		synctest.Test(t, func(t *testing.T) {
			s := &sources{takes: time.Millisecond}
			w := newWorld(t, s.in)
			e := w.endpoint()
			from := time.Now()
			if dry {
				w.missed(e, 60)
			} else {
				w.settled(e, 60, delivery.Dead)
			}
			time.Sleep(time.Second)
			w.advance(dispatch.Command{Kind: jobs.Recover, EndpointID: e.ID, From: from, States: dispatch.RecoverStates, DryRun: dry})
			if n := s.most.Load(); n != 16 {
				t.Errorf("%s: %d at a time", name, n)
			}
		})
	}
}

// A replay of one state and one type reads no others.
func TestAReplayReadsNoMoreThanItNeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sources{}
		w := newWorld(t, s.in)
		e := w.endpoint()
		w.advance(dispatch.Command{Kind: jobs.Replay, EndpointID: e.ID, Types: []string{"user.posted_comment"}, States: []delivery.State{delivery.Skipped}})
		w.advance(dispatch.Command{Kind: jobs.Replay, EndpointID: e.ID, Types: []string{"a", "b"}, States: []delivery.State{delivery.Skipped, delivery.Dead}})
		if len(s.queries) != 2 {
			t.Fatalf("%+v", s.queries)
		}
		if q := s.queries[0]; q.State != delivery.Skipped || q.EventType != "user.posted_comment" {
			t.Errorf("one state and one type: %+v", q)
		}
		if q := s.queries[1]; q.State != "" || q.EventType != "" {
			t.Errorf("two of each: %+v", q)
		}
	})
}

// A job whose parameters cannot be read, as those of a later version, ends.
func TestAJobThatCannotBeUnderstoodFails(t *testing.T) {
	for name, j := range map[string]jobs.Job{
		"an unknown kind":                {Kind: "paint"},
		"an unknown status":              {Kind: jobs.Replay, Parameters: jobs.Parameters{Status: "many"}},
		"an unreadable cursor":           {Kind: jobs.Recover, Cursor: "{"},
		"an erasure's unreadable cursor": {Kind: jobs.Erase, Cursor: "{"},
		"an erasure's unknown part":      {Kind: jobs.Erase, Cursor: `{"part":"backups"}`},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			e := w.endpoint()
			now := time.Now()
			j.ID, j.Tenant, j.EndpointID, j.State, j.StartedAt, j.UpdatedAt, j.NextAt = jobs.NewID(now), e.Tenant, e.ID, jobs.Running, now, now, now
			j, err := w.store.PutJob(t.Context(), j)
			if err != nil {
				t.Fatal(err)
			}
			if failed := w.deliver(work.Item{Tenant: j.Tenant, JobID: j.ID}); failed != nil {
				t.Errorf("%s: not acknowledged", name)
			}
			if j = w.job(j); j.State != jobs.Failed || j.Reason == "" {
				t.Errorf("%s: %+v", name, j)
			}
		})
	}
}
