package dispatch_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
)

// missed fans events out while the endpoint is disabled, and enables it.
func (w *world) missed(e endpoint.Endpoint, n int) []event.Accepted {
	w.t.Helper()
	w.setStatus(e, endpoint.Disabled)
	var events []event.Accepted
	for range n {
		a, record := w.event("user.posted_comment", comment)
		if failed := w.FanOut(w.t.Context(), []event.Change{record}); failed != nil {
			w.t.Fatal(failed)
		}
		events = append(events, a)
		time.Sleep(time.Millisecond)
	}
	if items := w.queue.take(); len(items) != 0 {
		w.t.Fatalf("%d items for a disabled endpoint", len(items))
	}
	w.setStatus(e, endpoint.Enabled)
	return events
}

func (w *world) setStatus(e endpoint.Endpoint, status endpoint.Status) {
	w.t.Helper()
	stored, err := w.store.GetEndpoint(w.t.Context(), e.Tenant, e.ID)
	if err == nil {
		stored.Status = status
		_, err = w.store.UpdateEndpoint(w.t.Context(), stored)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	time.Sleep(dispatch.CacheTime)
}

// start starts a job.
func (w *world) start(c dispatch.Command) jobs.Job {
	w.t.Helper()
	c.Action = "start_job"
	result, err := w.Run(w.t.Context(), c)
	if err != nil {
		w.t.Fatal(err)
	}
	return result.(jobs.Job)
}

// job returns a job as it is stored.
func (w *world) job(j jobs.Job) jobs.Job {
	w.t.Helper()
	j, err := w.store.GetJob(w.t.Context(), jobs.Key{Tenant: j.Tenant, ID: j.ID})
	if err != nil {
		w.t.Fatal(err)
	}
	return j
}

// finish drives the queue until a job has ended.
func (w *world) finish(j jobs.Job) jobs.Job {
	w.t.Helper()
	for range 100 {
		if j = w.job(j); j.State != jobs.Running {
			return j
		}
		w.drive(time.Minute)
	}
	w.t.Fatalf("the job does not end: %+v", j)
	return j
}

// recover runs a recovery to its end.
func (w *world) recover(c dispatch.Command) jobs.Job {
	w.t.Helper()
	c.Kind = jobs.Recover
	return w.finish(w.start(c))
}

func (w *world) wantState(events []event.Accepted, e endpoint.Endpoint, want delivery.State) {
	w.t.Helper()
	for _, a := range events {
		d, err := w.store.GetDelivery(w.t.Context(), delivery.Key{EndpointID: e.ID, EventID: a.ID})
		if err != nil || d.State != want {
			w.t.Errorf("event %s: %s, error %v; want %s", a.ID, d.State, err, want)
		}
	}
}

func TestRecoverSendsWhatADisabledEndpointMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint()
		from := time.Now()
		events := w.missed(e, 30)
		c := dispatch.Command{Tenant: e.Tenant, EndpointID: e.ID, From: from, DryRun: true}
		want := map[string]int{jobs.Examined: 30, jobs.Sent: 30, jobs.Found(dispatch.Missing): 30}
		if j := w.recover(c); j.State != jobs.Done || !reflect.DeepEqual(j.Counts, want) {
			t.Fatalf("the dry run: %+v, want %v", j, want)
		}
		if n := w.receiver.count(); n != 0 {
			t.Fatalf("the dry run sent %d", n)
		}
		c.DryRun = false
		if j := w.recover(c); j.State != jobs.Done || !reflect.DeepEqual(j.Counts, want) || j.Progress != 1 {
			t.Fatalf("%+v, want %v", j, want)
		}
		w.drive(time.Minute)
		w.wantState(events, e, delivery.Delivered)
		// The same again finds nothing to send.
		if j := w.recover(c); j.Counts[jobs.Sent] != 0 || j.Counts[jobs.Found(delivery.Delivered)] != 30 {
			t.Errorf("the second time: %v, want 30 delivered", j.Counts)
		}
		w.drive(time.Minute)
		if n := w.receiver.count(); n != 30 {
			t.Errorf("%d attempts, want 30", n)
		}
	})
}

func TestRecoverTakesTheStatesAndEventsThatAreAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint(func(e *endpoint.Endpoint) { e.Filter = json.RawMessage(`{"data":{"discussion_id":["d1"]}}`) })
		from := time.Now()
		settled := w.missed(e, 4)
		for i, state := range []delivery.State{delivery.Dead, delivery.Skipped, delivery.Skipped} {
			key := delivery.Key{EndpointID: e.ID, EventID: settled[i].ID}
			if err := w.store.Settle(t.Context(), delivery.Settle{Key: key, Tenant: e.Tenant, EventType: "user.posted_comment", Accepted: time.Now(), State: state, Reason: "r", Now: time.Now()}); err != nil {
				t.Fatal(err)
			}
		}
		// Events that the filter, the type or the time keeps out.
		other, record := w.event("user.posted_comment", `{"discussion_id":"d2"}`)
		w.FanOut(t.Context(), []event.Change{record})
		end := time.Now()
		time.Sleep(time.Minute)
		_, record = w.event("user.posted_comment", comment)
		w.FanOut(t.Context(), []event.Change{record})
		w.queue.take()

		all := map[string]int{jobs.Found(dispatch.Missing): 1, jobs.Found(delivery.Dead): 1, jobs.Found(delivery.Skipped): 2, jobs.Examined: 5}
		for _, c := range []struct {
			states []delivery.State
			types  []string
			want   int
		}{
			{nil, nil, 1},
			{[]delivery.State{delivery.Dead}, nil, 1},
			{[]delivery.State{delivery.Skipped, delivery.Dead}, nil, 3},
			{dispatch.RecoverStates, nil, 4},
			{dispatch.RecoverStates, []string{"user.joined_community"}, 0},
		} {
			j := w.recover(dispatch.Command{Tenant: e.Tenant, EndpointID: e.ID, From: from, To: end, States: c.states, Types: c.types, DryRun: true})
			if all[jobs.Sent] = c.want; j.Counts[jobs.Sent] != c.want || c.types == nil && !reflect.DeepEqual(j.Counts, all) {
				t.Errorf("%v of types %v: %v, want %v", c.states, c.types, j.Counts, all)
			}
		}
		w.recover(dispatch.Command{Tenant: e.Tenant, EndpointID: e.ID, From: from, To: end, States: dispatch.RecoverStates})
		w.drive(time.Minute)
		w.wantState(settled, e, delivery.Delivered)
		if _, err := w.store.GetDelivery(t.Context(), delivery.Key{EndpointID: e.ID, EventID: other.ID}); !errors.Is(err, delivery.ErrNotFound) {
			t.Errorf("an event that the filter keeps out: error %v, want no delivery", err)
		}
	})
}

// An endpoint that is added later gets the past, as far as its filter matches it, the oldest
// events first.
func TestBackfillSendsANewEndpointThePast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		from := time.Now()
		var events []event.Accepted
		for range 4 {
			a, record := w.event("user.posted_comment", comment)
			w.FanOut(t.Context(), []event.Change{record})
			_, record = w.event("user.posted_comment", `{"discussion_id":"d2"}`)
			w.FanOut(t.Context(), []event.Change{record})
			events = append(events, a)
			time.Sleep(60 * time.Hour)
		}
		e := w.endpoint(func(e *endpoint.Endpoint) { e.Filter = json.RawMessage(`{"data":{"discussion_id":["d1"]}}`) })
		j := w.finish(w.start(dispatch.Command{Kind: jobs.Backfill, Tenant: e.Tenant, EndpointID: e.ID, From: from}))
		if j.Counts[jobs.Examined] != 8 || j.Counts[jobs.Sent] != 4 {
			t.Errorf("%v, want 4 of 8 events", j.Counts)
		}
		w.drive(time.Minute)
		w.wantState(events, e, delivery.Delivered)
		for i, m := range w.receiver.got {
			if m.EventID != events[i].ID {
				t.Errorf("event %d is %s, want the oldest first", i, m.EventID)
			}
		}
	})
}

// A replay takes what matches its filter, and nothing else.
func TestBulkReplayTakesWhatMatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint(func(e *endpoint.Endpoint) { e.Retry.MaxAttempts = 1 })
		settle := func(status, n int) (events []string) {
			w.receiver.answer = answering(status)
			if status == 200 {
				w.receiver.answer = nil
			}
			for range n {
				item := w.fannedOut()
				w.deliver(item)
				events = append(events, item.EventID)
				time.Sleep(time.Minute) // so that the circuit stays closed
			}
			w.queue.take()
			return events
		}
		early := settle(500, 1)
		settle(200, 1)
		from := time.Now()
		dead500 := settle(500, 2)
		settle(200, 1)
		dead404 := settle(404, 1)
		delivered := settle(200, 2)
		for name, c := range map[string]struct {
			command dispatch.Command
			want    int
		}{
			"dead letters by default":         {dispatch.Command{}, len(early) + len(dead500) + len(dead404)},
			"of a range of times":             {dispatch.Command{From: from}, len(dead500) + len(dead404)},
			"of a status":                     {dispatch.Command{From: from, Status: "404"}, 1},
			"of a range of statuses":          {dispatch.Command{From: from, Status: "400..599"}, 3},
			"of a type":                       {dispatch.Command{From: from, Types: []string{"user.posted_comment"}}, len(dead500) + len(dead404)},
			"of another type":                 {dispatch.Command{Types: []string{"user.left_community"}}, 0},
			"of two states":                   {dispatch.Command{From: from, States: []delivery.State{delivery.Dead, delivery.Delivered}}, 4 + len(delivered)},
			"of a state that nothing is in":   {dispatch.Command{States: []delivery.State{delivery.Skipped}}, 0},
			"of two types, neither received":  {dispatch.Command{Types: []string{"user.joined_community", "user.left_community"}}, 0},
			"of two states, one of them none": {dispatch.Command{From: from, States: []delivery.State{delivery.Dead, delivery.Skipped}}, 3},
			"of two types, one not received":  {dispatch.Command{From: from, Types: []string{"user.posted_comment", "user.left_community"}}, 3},
		} {
			c.command.Kind, c.command.EndpointID, c.command.DryRun = jobs.Replay, e.ID, true
			if j := w.finish(w.start(c.command)); j.State != jobs.Done || j.Counts[jobs.Sent] != c.want {
				t.Errorf("%s: %s, %v, want %d", name, j.State, j.Counts, c.want)
			}
		}
		before := w.receiver.count()
		j := w.finish(w.start(dispatch.Command{Kind: jobs.Replay, EndpointID: e.ID, From: from, Status: "500"}))
		w.drive(time.Minute)
		if n := w.receiver.count() - before; n != 2 || j.Counts[jobs.Sent] != 2 {
			t.Errorf("%d attempts, %v, want 2", n, j.Counts)
		}
		for _, id := range dead500 {
			if d, err := w.store.GetDelivery(t.Context(), delivery.Key{EndpointID: e.ID, EventID: id}); err != nil || d.State != delivery.Delivered {
				t.Errorf("dead letter %s: %s, %v", id, d.State, err)
			}
		}
		if d, err := w.store.GetDelivery(t.Context(), delivery.Key{EndpointID: e.ID, EventID: early[0]}); err != nil || d.State != delivery.Dead {
			t.Errorf("the one outside the range: %s, %v", d.State, err)
		}
	})
}

func TestAJobIsRefusedThatCannotWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e, off := w.endpoint(), w.endpoint(func(e *endpoint.Endpoint) { e.Status, e.StatusReason = endpoint.Disabled, "gone" })
		now := time.Now()
		for want, c := range map[string]dispatch.Command{
			`start_job: unknown kind "paint"; the kinds are [`:                                              {Kind: "paint"},
			"recover: endpoint_id and from are required":                                                    {Kind: jobs.Recover, Tenant: e.Tenant, EndpointID: e.ID},
			"replay: endpoint_id is required":                                                               {Kind: jobs.Replay, Tenant: e.Tenant},
			"recover: tenant " + e.Tenant + " has no endpoint ep_none":                                      {Kind: jobs.Recover, Tenant: e.Tenant, EndpointID: "ep_none", From: now},
			"backfill: tenant other has no endpoint " + e.ID:                                                {Kind: jobs.Backfill, Tenant: "other", EndpointID: e.ID, From: now},
			fmt.Sprintf("recover: endpoint %s is disabled (gone): enable it first", off.ID):                 {Kind: jobs.Recover, Tenant: e.Tenant, EndpointID: off.ID, From: now},
			fmt.Sprintf("replay: endpoint %s is disabled (gone): enable it first", off.ID):                  {Kind: jobs.Replay, Tenant: e.Tenant, EndpointID: off.ID},
			`recover: "pending" is not a state that a recover can send; the states are [missing skipped de`: {Kind: jobs.Recover, Tenant: e.Tenant, EndpointID: e.ID, From: now, States: []delivery.State{"pending"}},
			`replay: "missing" is not a state that a replay can send; the states are [dead skipped deliver`: {Kind: jobs.Replay, Tenant: e.Tenant, EndpointID: e.ID, States: []delivery.State{dispatch.Missing}},
			"recover: from (":       {Kind: jobs.Recover, Tenant: e.Tenant, EndpointID: e.ID, From: now, To: now.Add(-time.Hour)},
			`replay: status: "many`: {Kind: jobs.Replay, Tenant: e.Tenant, EndpointID: e.ID, Status: "many"},
			"recover: 61 event typ": {Kind: jobs.Recover, Tenant: e.Tenant, EndpointID: e.ID, From: now, Types: make([]string, jobs.MaxTypes+1)},
			`recover: "job_x" is n`: {Kind: jobs.Recover, Tenant: e.Tenant, EndpointID: e.ID, From: now, JobID: "job_x"},
		} {
			if _, err := w.StartJob(t.Context(), c); err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("error %v, want %s", err, want)
			}
		}
		for i := range jobs.MaxRunning {
			w.start(dispatch.Command{Kind: jobs.Recover, EndpointID: e.ID, From: now.Add(time.Duration(-i) * time.Second)})
		}
		_, err := w.StartJob(t.Context(), dispatch.Command{Kind: jobs.Recover, EndpointID: e.ID, From: now})
		if want := fmt.Sprintf("recover: %d jobs of tenant %s are running", jobs.MaxRunning, e.Tenant); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	})
}
