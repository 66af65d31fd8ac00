package dispatch_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/deployed"
	"github.com/tidings-dev/tidings/pkg/event/journal"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/store/memory"
)

const person, marker = "u_1042", "MARKER"

// about are events about the person: by the actor, the subject, and a field that the type
// marks as personal.
func (w *world) about() (events []event.Accepted, records []event.Change) {
	w.t.Helper()
	for _, e := range []struct{ eventType, actor, data string }{
		{"user.posted_comment", person, `{"discussion_id":"d1","comment_id":"c1","comment_text":"MARKER","user_name":"MARKER"}`},
		{"user.joined_platform", "", `{"user_id":"u_1042","email":"marker@example.com","name":"MARKER"}`},
		{"user.flagged_comment", "MARKER-other", `{"comment_id":"MARKER-c","flagged_user_id":"u_1042","comment_excerpt":"MARKER"}`},
	} {
		a, record := w.eventOf(e.eventType, e.actor, e.data)
		events, records = append(events, a), append(records, record)
	}
	return events, records
}

// eventOf is event, with an actor.
func (w *world) eventOf(eventType, actor, data string) (event.Accepted, event.Change) {
	w.t.Helper()
	if actor == "" {
		return w.event(eventType, data)
	}
	id := event.NewID(time.Now())
	body, err := event.Event{ID: id, Type: eventType, Timestamp: time.Now(), ActorUserID: actor, Data: json.RawMessage(data), RequestID: marker, IdempotencyKey: marker}.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	a := event.Accepted{ID: id, Tenant: event.DefaultTenant, Body: body, Subject: "c1"}
	if err := w.store.PutEvent(w.t.Context(), a); err != nil {
		w.t.Fatal(err)
	}
	w.events++
	return a, event.Change{Inserted: true, SequenceNumber: fmt.Sprintf("%021d", w.events), Event: a}
}

func (w *world) fanOut(records ...event.Change) {
	w.t.Helper()
	if failed := w.FanOut(w.t.Context(), records); failed != nil {
		w.t.Fatal(failed)
	}
}

func (w *world) erase(dry bool) jobs.Job {
	w.t.Helper()
	return w.finish(w.start(dispatch.Command{Kind: jobs.Erase, Subject: person, By: "ada", DryRun: dry, WithoutTenant: true}))
}

// startErasure starts an erasure, and returns it after its first step with the events.
func (w *world) startErasure() jobs.Job {
	w.t.Helper()
	j := w.start(dispatch.Command{Kind: jobs.Erase, Subject: person, By: "ada", WithoutTenant: true})
	w.deliver(w.queue.take()...)
	j = w.job(j)
	if wait := time.Until(j.NextAt); wait < 10*time.Second || j.Counts[jobs.Examined] != 0 {
		w.t.Errorf("before its events it waits for %s until fan-out checks their records: %+v", wait, j)
	}
	time.Sleep(time.Until(j.NextAt))
	w.deliver(w.queue.take()...)
	return w.job(j)
}

// wantErased checks that nothing that is stored of the events has the marker.
func (w *world) wantErased(endpoints []endpoint.Endpoint, events []event.Accepted) {
	w.t.Helper()
	for _, a := range events {
		held, err := w.store.GetEvent(w.t.Context(), a.ID)
		if err != nil || held.ErasedAt.IsZero() {
			w.t.Errorf("event %s is not erased: %v", a.ID, err)
		}
		w.wantNoMarker("the event", held)
		w.wantNoMarker("its body", string(held.Body))
		for _, e := range endpoints {
			d, err := w.store.GetDelivery(w.t.Context(), delivery.Key{EndpointID: e.ID, EventID: a.ID})
			if err != nil || d.ErasedAt.IsZero() || d.Reason != "erased" || !d.State.Settled() {
				w.t.Errorf("its delivery: %+v, %v", d, err)
			}
			w.wantNoMarker("its delivery", d)
		}
	}
	for _, a := range events {
		w.wantNoMarker("an entry of the journal", w.journaled(a.ID))
	}
	page, err := journal.Search(w.t.Context(), w.store, journal.Query{Tenant: event.DefaultTenant, Limit: 1000, Examine: 1000})
	if err != nil || len(page.Entries) == 0 {
		w.t.Errorf("the journal: %v, %v", page, err)
	}
	w.wantNoMarker("the journal", page)
}

// journaled returns everything that the journal has of an event.
func (w *world) journaled(id string) string {
	w.t.Helper()
	items, err := journal.Holding(w.t.Context(), w.store, event.DefaultTenant, id)
	if err != nil {
		w.t.Fatal(err)
	}
	return fmt.Sprintf("%+v", items)
}

func (w *world) wantNoMarker(what string, of any) {
	w.t.Helper()
	if text := fmt.Sprintf("%+v", of); strings.Contains(strings.ToUpper(text), marker) || strings.Contains(text, person) {
		w.t.Errorf("%s has the person's data: %s", what, text)
	}
}

func TestAnErasureErasesThePersonsEventsAndNoOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		one, two := w.endpoint(), w.endpoint()
		comments := w.endpoint(func(e *endpoint.Endpoint) {
			e.EventTypes = []string{"user.posted_comment"}
			e.Filter = json.RawMessage(`{"data":{"discussion_id":["d2"]}}`)
		})
		time.Sleep(time.Hour)
		// The answers repeat what was sent, the first endpoint's after it failed.
		w.receiver.answer = func(_ context.Context, m destination.Message) delivery.Outcome {
			return delivery.Outcome{Class: delivery.Answered, Status: 400, Permanent: true, Error: "it answered 400", Snippet: string(m.Body)}
		}
		settled, records := w.about()
		other, otherRecord := w.event("user.posted_comment", comment)
		w.fanOut(append(records, otherRecord)...)
		w.drive(time.Minute)
		w.receiver.answer = answering(503)
		waiting, records := w.about() // with a retry in their future
		w.fanOut(records...)
		w.deliver(w.queue.take()...)
		retries := w.queue.take()
		queued, records := w.about() // on the queue, with their bodies
		w.fanOut(records...)
		items := append(retries, w.queue.take()...)
		foreign, record := w.event("user.posted_comment", strings.ReplaceAll(comment, "hello", person))
		foreign.ID, foreign.Tenant = event.NewID(time.Now()), "other"
		if err := w.store.PutEvent(t.Context(), foreign); err != nil {
			t.Fatal(err)
		}
		_ = record
		for id, f := range map[string]platform.FailedChange{
			"01KG4VZS4NCPSXFR1K7QEWBC9A": {Tenant: event.DefaultTenant, Record: []byte(`{"dynamodb":{"NewImage":{"user_id":{"S":"u_1042"}}}}`)},
			"01KG4VZS4NCPSXFR1K7QEWBC9B": {Key: `{"pk":{"S":"u_1042"}}`},
			"01KG4VZS4NCPSXFR1K7QEWBC9C": {Tenant: event.DefaultTenant, Record: []byte(`{"dynamodb":{"NewImage":{"user_id":{"S":"u_10420"}}}}`)},
			"01KG4VZS4NCPSXFR1K7QEWBC9D": {Tenant: "other", Record: []byte(`{"dynamodb":{"NewImage":{"user_id":{"S":"u_1042"}}}}`)},
		} {
			f.ID, f.Reason, f.FirstSeen = id, "x", time.Now()
			if _, err := w.store.KeepFailedChange(t.Context(), f); err != nil {
				t.Fatal(err)
			}
		}

		want := map[string]int{jobs.Examined: 11, jobs.Erased: 10, jobs.Stopped: 6, jobs.Removed: 2} // one of the comments is of the foreign data
		dry := w.erase(true)
		if dry.State != jobs.Done || !maps.Equal(dry.Counts, want) {
			t.Errorf("the dry run: %+v, want %v", dry, want)
		}
		if held, err := w.store.GetEvent(t.Context(), queued[0].ID); err != nil || string(held.Body) != string(queued[0].Body) {
			t.Errorf("the dry run changed an event: %+v, %v", held, err)
		}
		sent := w.receiver.count()
		done := w.startErasure()
		if done.State != jobs.Done || !maps.Equal(done.Counts, want) || done.Progress != 1 {
			t.Errorf("%+v, want %v", done, want)
		}
		all := append(append(settled, waiting...), queued...)
		w.wantErased([]endpoint.Endpoint{one, two}, all)
		for _, a := range settled {
			if d, err := w.store.GetDelivery(t.Context(), delivery.Key{EndpointID: one.ID, EventID: a.ID}); err != nil || d.State != delivery.Dead || len(d.History) != 1 {
				t.Errorf("a settled delivery keeps its record: %+v, %v", d, err)
			}
		}
		if d, err := w.store.GetDelivery(t.Context(), delivery.Key{EndpointID: comments.ID, EventID: queued[0].ID}); err == nil {
			t.Errorf("an endpoint that did not get the event has a record: %+v", d)
		}
		for _, a := range []event.Accepted{other, foreign} {
			if held, err := w.store.GetEvent(t.Context(), a.ID); err != nil || string(held.Body) != string(a.Body) || !held.ErasedAt.IsZero() {
				t.Errorf("an event that is not about the person: %+v, %v", held, err)
			}
		}
		page, err := w.store.ListFailedChanges(t.Context(), time.Time{}, 0, "")
		if err != nil || len(page.Changes) != 2 {
			t.Errorf("failed changes: %+v, %v", page, err)
		}

		// Nothing of them is sent any more, by any command.
		w.receiver.answer = nil
		w.queue.Send(t.Context(), items)
		w.drive(3 * time.Hour)
		for _, a := range all {
			_, err := w.Replay(t.Context(), dispatch.Command{EndpointID: one.ID, EventID: a.ID})
			if err == nil || !strings.Contains(err.Error(), "the event was erased at ") {
				t.Errorf("a replay: %v", err)
			}
		}
		everything := dispatch.Command{EndpointID: one.ID, From: time.Now().Add(-72 * time.Hour), States: dispatch.RecoverStates}
		if j := w.recover(everything); j.Counts[jobs.Found(dispatch.Erased)] != 9 || j.Counts[jobs.Sent] != 1 {
			t.Errorf("a recovery: %v", j.Counts)
		}
		late := w.endpoint()
		time.Sleep(dispatch.CacheTime)
		everything.EndpointID = late.ID
		if j := w.recover(everything); j.Counts[jobs.Found(dispatch.Erased)] != 9 || j.Counts[jobs.Sent] != 1 {
			t.Errorf("a backfill: %v", j.Counts)
		}
		if j := w.finish(w.start(dispatch.Command{Kind: jobs.Replay, EndpointID: one.ID, States: dispatch.ReplayStates})); j.Counts[jobs.Found(dispatch.Erased)] != 10 {
			t.Errorf("a bulk replay: %v", j.Counts)
		}
		w.drive(3 * time.Hour)
		for _, m := range w.receiver.got[sent:] {
			if m.EventID != other.ID {
				t.Errorf("sent after the erasure: %s to %s", m.Body, m.EventID)
			}
		}
		// The stream delivers its records again. While they are new, fan-out does not check them.
		for i := range records {
			records[i].At = time.Now().Add(-5 * time.Second)
		}
		w.fanOut(records...)
		w.queue.take()
		lost := event.NewID(time.Now()) // its event is gone
		if err := w.store.PutJournal(t.Context(), journal.Item{Tenant: event.DefaultTenant, Entries: []journal.Entry{{ID: lost, Actor: person}}}); err != nil {
			t.Fatal(err)
		}
		if held := w.journaled(queued[0].ID); !strings.Contains(held, person) {
			t.Errorf("the journal does not have it again, so the test proves little: %s", held)
		}
		if j := w.erase(false); j.Counts[jobs.Erased] != 0 {
			t.Errorf("the second erasure: %v", j.Counts)
		}
		w.wantErased([]endpoint.Endpoint{one, two}, all)
		w.wantNoMarker("the entry of an event that is gone", w.journaled(lost))
		// It delivers them later, to an endpoint that was added since, too.
		w.endpoint()
		for i := range records {
			records[i].At = time.Now().Add(-11 * time.Second)
		}
		w.fanOut(records...)
		w.drive(3 * time.Hour)
		w.wantErased([]endpoint.Endpoint{one, two}, all)
		for _, m := range w.receiver.got[sent:] {
			w.wantNoMarker("a request", string(m.Body))
		}
	})
}

// An attempt that is under way ends; its delivery is erased after it, however it ends.
func TestAnErasureWaitsForTheAttemptsUnderWay(t *testing.T) {
	for name, status := range map[string]int{"it succeeds": 200, "it fails": 503} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				e := w.endpoint()
				time.Sleep(time.Minute)
				events, records := w.about()
				w.fanOut(records...)
				w.receiver.answer = func(ctx context.Context, m destination.Message) delivery.Outcome {
					time.Sleep(25 * time.Second)
					if status == 200 {
						return delivery.Outcome{Class: delivery.Success, Status: status}
					}
					o := answering(status)(ctx, m)
					o.Snippet = string(m.Body)
					return o
				}
				items := w.queue.take()
				ended := make(chan []string)
				go func() { ended <- w.deliver(items...) }()
				time.Sleep(time.Second)
				j := w.startErasure()
				if j.State != jobs.Running || j.NextAt.Before(time.Now()) {
					t.Errorf("while the attempts are under way: %+v", j)
				}
				if failed := <-ended; failed != nil {
					t.Fatal(failed)
				}
				if j = w.finish(j); j.State != jobs.Done || j.Counts[jobs.Erased] != len(events) {
					t.Errorf("%+v", j)
				}
				w.drive(3 * time.Hour)
				w.wantErased([]endpoint.Endpoint{e}, events)
				if n := w.receiver.count(); n != len(events) {
					t.Errorf("%d attempts, want %d", n, len(events))
				}
			})
		})
	}
}

// An erasure that was cancelled while attempts were under way has emptied their events. The
// next erasure, also of another person, completes it.
func TestAnErasureCompletesAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint()
		time.Sleep(time.Minute)
		events, records := w.about()
		w.fanOut(records...)
		w.receiver.answer = func(_ context.Context, m destination.Message) delivery.Outcome {
			time.Sleep(25 * time.Second)
			return delivery.Outcome{Class: delivery.Answered, Status: 400, Permanent: true, Error: "it answered 400", Snippet: string(m.Body)}
		}
		items := w.queue.take()
		ended := make(chan []string)
		go func() { ended <- w.deliver(items...) }()
		time.Sleep(time.Second)
		j := w.startErasure()
		if _, err := w.CancelJob(t.Context(), dispatch.Command{JobID: j.ID, By: "ada"}); err != nil {
			t.Fatal(err)
		}
		if failed := <-ended; failed != nil {
			t.Fatal(failed)
		}
		w.drive(10 * time.Second)
		if j = w.job(j); j.State != jobs.Cancelled || j.Counts[jobs.Erased] != len(events) {
			t.Fatalf("%+v", j)
		}
		d, err := w.store.GetDelivery(t.Context(), delivery.Key{EndpointID: e.ID, EventID: events[0].ID})
		if err != nil || d.Snippet == "" {
			t.Fatalf("the answer is not stored, so the test proves little: %+v, %v", d, err)
		}
		if j = w.erase(false); j.State != jobs.Done || j.Counts[jobs.Erased] != 0 {
			t.Errorf("%+v", j)
		}
		w.wantErased([]endpoint.Endpoint{e}, events)
	})
}

// A change that is captured again makes the event whose ID it had long ago, and a request
// that is repeated with its idempotency key, too. Its messages are on the queue.
func TestAnErasureStopsAnEventThatWasStoredLongAfterItsID(t *testing.T) {
	for name, updated := range map[string]bool{"the endpoint is as it was": false, "it matches no longer": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				id := event.NewID(time.Now())
				time.Sleep(29 * 24 * time.Hour)
				e := w.endpoint()
				time.Sleep(time.Minute)
				body, err := event.Event{ID: id, Type: "user.posted_comment", Timestamp: time.Now(), ActorUserID: person, Data: json.RawMessage(comment)}.Encode()
				if err != nil {
					t.Fatal(err)
				}
				a := event.Accepted{ID: id, Tenant: event.DefaultTenant, Body: body}
				if err := w.store.PutEvent(t.Context(), a); err != nil {
					t.Fatal(err)
				}
				w.fanOut(event.Change{Inserted: true, SequenceNumber: "1", Event: a, At: time.Now()})
				items := w.queue.take()
				if updated {
					e.EventTypes, e.UpdatedAt = []string{"user.joined_platform"}, time.Now()
					if _, err := w.store.UpdateEndpoint(t.Context(), e); err != nil {
						t.Fatal(err)
					}
				}
				if j := w.erase(false); j.State != jobs.Done || j.Counts[jobs.Erased] != 1 {
					t.Errorf("%+v", j)
				}
				w.queue.Send(t.Context(), items)
				w.drive(time.Minute)
				if n := w.receiver.count(); n != 0 || len(items) != 1 {
					t.Errorf("%d of %d messages were sent after the erasure", n, len(items))
				}
			})
		})
	}
}

// Failed changes that have no tenant can be any tenant's: only an operator's erasure removes
// them. It looks in the item only.
func TestAnErasureRemovesFailedChangesOfItsTenant(t *testing.T) {
	record := func(part string) []byte {
		return []byte(`{"eventName":"INSERT","awsRegion":"eu-west-1","dynamodb":{"StreamViewType":"NEW_AND_OLD_IMAGES",` + part + `}}`)
	}
	images := record(`"Keys":{"pk":{"S":"a key"}},"OldImage":{"name":{"S":"before"}},"NewImage":{"name":{"S":"after"}}`)
	for name, c := range map[string]struct {
		subject       string
		change        platform.FailedChange
		withoutTenant bool
		want          int
	}{
		"its tenant's, by the old image":         {"before", platform.FailedChange{Tenant: event.DefaultTenant, Record: images}, false, 1},
		"its tenant's, by the new image":         {"after", platform.FailedChange{Tenant: event.DefaultTenant, Record: images}, false, 1},
		"its tenant's, by the key in the record": {"a key", platform.FailedChange{Tenant: event.DefaultTenant, Record: images}, false, 1},
		"its tenant's, by the key":               {"k_1", platform.FailedChange{Tenant: event.DefaultTenant, Key: `{"pk":{"S":"k_1"}}`}, false, 1},
		"the operation":                          {"INSERT", platform.FailedChange{Tenant: event.DefaultTenant, Record: images}, true, 0},
		"the region":                             {"eu-west-1", platform.FailedChange{Tenant: event.DefaultTenant, Record: images}, true, 0},
		"the name of a field":                    {"name", platform.FailedChange{Tenant: event.DefaultTenant, Record: images}, true, 0},
		"an unreadable record":                   {"after", platform.FailedChange{Tenant: event.DefaultTenant, Record: images[:len(images)-2]}, false, 1},
		"of no tenant, by an admin":              {"after", platform.FailedChange{Record: images}, false, 0},
		"of no tenant, by an operator":           {"after", platform.FailedChange{Record: images}, true, 1},
		"another tenant's, by an operator":       {"after", platform.FailedChange{Tenant: "other", Record: images}, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				c.change.ID, c.change.Reason, c.change.FirstSeen = "01KG4VZS4NCPSXFR1K7QEWBC9A", "x", time.Now()
				if _, err := w.store.KeepFailedChange(t.Context(), c.change); err != nil {
					t.Fatal(err)
				}
				j := w.finish(w.start(dispatch.Command{Kind: jobs.Erase, Subject: c.subject, WithoutTenant: c.withoutTenant}))
				left, err := w.store.ListFailedChanges(t.Context(), time.Time{}, 0, "")
				if err != nil || j.State != jobs.Done || j.Counts[jobs.Removed] != c.want || len(left.Changes) != 1-c.want {
					t.Errorf("%+v, %d left, %v; want %d removed", j, len(left.Changes), err, c.want)
				}
			})
		})
	}
}

// An event that nests too deeply for filters goes to endpoints without a filter.
func TestAnErasureStopsAnEventThatFiltersCannotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint()
		w.endpoint(func(e *endpoint.Endpoint) { e.Filter = json.RawMessage(`{"data":{"discussion_id":["d1"]}}`) })
		time.Sleep(time.Minute)
		depth := 2000
		a, record := w.eventOf("user.posted_comment", person, `{"discussion_id":"d1","comment_id":"c1","deep":`+strings.Repeat("[", depth)+strings.Repeat("]", depth)+`}`)
		w.fanOut(record)
		items := w.queue.take()
		if len(items) != 1 || items[0].EndpointID != e.ID {
			t.Fatalf("queued: %+v", items)
		}
		w.erase(false)
		w.queue.Send(t.Context(), items)
		w.drive(time.Minute)
		if n := w.receiver.count(); n != 0 {
			t.Errorf("%d messages were sent after the erasure", n)
		}
		w.wantErased([]endpoint.Endpoint{e}, []event.Accepted{a})
	})
}

// slowScans is a store whose pages of events take their time.
type slowScans struct {
	*memory.Store
	takes time.Duration
}

func (s *slowScans) ScanEvents(ctx context.Context, q event.Scan) (event.ScanPage, error) {
	time.Sleep(s.takes)
	return s.Store.ScanEvents(ctx, q)
}

// A step ends after its time also if the tenant has no events on the pages that it reads, and
// gets on also if one page takes longer.
func TestAnErasureMakesShortStepsThatGetOn(t *testing.T) {
	for name, c := range map[string]struct {
		events      int
		takes, step time.Duration
	}{
		"pages without events": {1, time.Second, 12 * time.Second},
		"slow pages":           {20, 12 * time.Second, 13 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(config *dispatch.Config) {
					config.StoredEvents = &slowScans{config.Jobs.(*memory.Store), c.takes}
				})
				var all []event.Accepted
				for range c.events {
					events, _ := w.about()
					all = append(all, events...)
				}
				j := w.start(dispatch.Command{Kind: jobs.Erase, Subject: person, DryRun: true})
				began := time.Now()
				w.deliver(w.queue.take()...)
				if took := time.Since(began); took < c.takes || took > c.step {
					t.Errorf("a step took %s", took)
				}
				if j = w.finish(j); j.State != jobs.Done || j.Counts[jobs.Erased] != len(all) || j.Counts[jobs.Examined] != len(all) {
					t.Errorf("%+v", j)
				}
			})
		})
	}
}

// fanOutFirst is a store whose next event to be erased is fanned out just before, to an
// endpoint that is new.
type fanOutFirst struct {
	*memory.Store
	before func()
}

func (f *fanOutFirst) EraseEvent(ctx context.Context, a event.Accepted, e event.Erasure) error {
	f.before()
	return f.Store.EraseEvent(ctx, a, e)
}

func TestAnErasureStopsWhatIsFannedOutMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := &fanOutFirst{}
		w := newWorld(t, func(c *dispatch.Config) {
			late.Store = c.Jobs.(*memory.Store)
			c.StoredEvents = late
		})
		a, record := w.eventOf("user.posted_comment", person, comment)
		record.At = time.Now()
		time.Sleep(time.Minute)
		var e endpoint.Endpoint
		late.before = func() {
			e = w.endpoint()
			w.fanOut(record)
		}
		j := w.erase(false)
		w.drive(time.Minute)
		if n := w.receiver.count(); n != 0 || j.Counts[jobs.Erased] != 1 {
			t.Errorf("%d messages were sent after the erasure: %+v", n, j)
		}
		w.wantErased([]endpoint.Endpoint{e}, []event.Accepted{a})
	})
}

// dyingErasures is a store whose caller dies after every second change.
type dyingErasures struct {
	*memory.Store
	n int
}

func (d *dyingErasures) died() error {
	if d.n++; d.n%2 == 0 {
		return fmt.Errorf("the worker is dead")
	}
	return nil
}

func (d *dyingErasures) EraseEvent(ctx context.Context, a event.Accepted, e event.Erasure) error {
	if err := d.Store.EraseEvent(ctx, a, e); err != nil {
		return err
	}
	return d.died()
}

func (d *dyingErasures) EraseDelivery(ctx context.Context, e delivery.Erase) (delivery.Delivery, delivery.State, error) {
	after, was, err := d.Store.EraseDelivery(ctx, e)
	if err != nil {
		return after, was, err
	}
	return after, was, d.died()
}

func TestAnErasureIsCompleteWhateverHappensToItsWorkers(t *testing.T) {
	for name, config := range map[string]func(*dispatch.Config, *memory.Store){
		"workers die before they record a step": func(c *dispatch.Config, s *memory.Store) { c.Jobs = &lateJobs{Store: s} },
		"workers die after an event is erased":  func(c *dispatch.Config, s *memory.Store) { c.StoredEvents = &dyingErasures{Store: s} },
		"workers die after a delivery is erased": func(c *dispatch.Config, s *memory.Store) {
			c.Erasures = &dyingErasures{Store: s}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(c *dispatch.Config) { config(c, c.Jobs.(*memory.Store)) })
				e := w.endpoint()
				time.Sleep(time.Minute)
				var all []event.Accepted
				for range 4 {
					events, records := w.about()
					w.fanOut(records...)
					all = append(all, events...)
				}
				w.queue.take()
				if j := w.erase(false); j.State != jobs.Done {
					t.Errorf("%+v", j)
				}
				w.wantErased([]endpoint.Endpoint{e}, all)
			})
		})
	}
}

func TestAnErasureNeedsAPersonAndNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint()
		for name, c := range map[string]dispatch.Command{
			"nobody": {}, "a letter": {Subject: "u"}, "a long text": {Subject: strings.Repeat("u", 257)}, "not UTF-8": {Subject: "u_\xff"},
			"an endpoint": {Subject: person, EndpointID: e.ID}, "a type": {Subject: person, Types: []string{"user.posted_comment"}},
			"a time": {Subject: person, From: time.Now().Add(-time.Hour)},
		} {
			c.Kind = jobs.Erase
			if _, err := w.StartJob(t.Context(), c); err == nil {
				t.Errorf("%s: accepted", name)
			}
		}
		for _, subject := range []string{"u1", strings.Repeat("u", 256)} {
			if _, err := w.StartJob(t.Context(), dispatch.Command{Kind: jobs.Erase, Subject: subject}); err != nil {
				t.Errorf("a subject of %d bytes: %v", len(subject), err)
			}
		}
		w = newWorld(t, func(c *dispatch.Config) { c.StoredEvents = nil })
		if _, err := w.StartJob(t.Context(), dispatch.Command{Kind: jobs.Erase, Subject: person}); err == nil {
			t.Error("accepted without a table of events")
		}
	})
}

// The cursor remembers 200 attempts under way. With more, the erasure waits for some to end
// before it goes on.
func TestAnErasureWaitsWhenManyAttemptsAreUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		const endpoints = 70
		var list []endpoint.Endpoint
		for range endpoints {
			list = append(list, w.endpoint())
		}
		time.Sleep(time.Minute)
		var all []event.Accepted
		for range 2 { // six events are 420 attempts
			events, records := w.about()
			w.fanOut(records...)
			all = append(all, events...)
		}
		w.receiver.answer = func(context.Context, destination.Message) delivery.Outcome {
			time.Sleep(25 * time.Second)
			return delivery.Outcome{Class: delivery.Success, Status: 200}
		}
		ended := make(chan []string)
		items := w.queue.take()
		go func() { ended <- w.deliver(items...) }()
		time.Sleep(time.Second)
		j := w.startErasure()
		var place struct {
			Part string
			Late []delivery.Key
		}
		if err := json.Unmarshal([]byte(j.Cursor), &place); err != nil || place.Part != "events" || len(place.Late) < 200 || len(place.Late) >= 200+endpoints || j.Progress <= 0 || j.Progress >= 1 {
			t.Errorf("part %q, %d attempts are remembered, progress %f, %v", place.Part, len(place.Late), j.Progress, err)
		}
		if failed := <-ended; failed != nil {
			t.Fatal(failed)
		}
		if j = w.finish(j); j.State != jobs.Done || j.Counts[jobs.Erased] != len(all) || j.Progress != 1 {
			t.Errorf("%+v", j)
		}
		w.wantErased(list, all)
	})
}

// The personal fields of an event are those of its tenant's own type. Another tenant's type of
// that name says nothing about it, so all of its fields count.
func TestAnErasureKnowsTheTypesOfItsTenant(t *testing.T) {
	for owner, want := range map[string]int{event.DefaultTenant: 1, "other": 2} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, func(c *dispatch.Config) {
				c.Types = &deployed.Live{Source: c.Events.(*memory.Store), Now: time.Now, Log: c.Log}
			})
			lost, err := catalog.Parse([]byte(`{"title":"parcel.lost","description":"x","type":"object","properties":{"note":{"type":"string"},"owner":{"type":"string","x-personal":true}},"examples":[{}]}`))
			if err == nil {
				_, err = deployed.WriteTenant(t.Context(), w.store, deployed.Set{}, owner, []catalog.Type{lost}, "op", "w", time.Now())
			}
			if err != nil {
				t.Fatal(err)
			}
			about, _ := w.event("parcel.lost", `{"owner":"u_1042"}`)
			mentioned, _ := w.event("parcel.lost", `{"note":"u_1042"}`)
			w.erase(false)
			erased := 0
			for _, a := range []event.Accepted{about, mentioned} {
				held, err := w.store.GetEvent(t.Context(), a.ID)
				if err != nil {
					t.Fatal(err)
				}
				if !held.ErasedAt.IsZero() {
					erased++
				}
			}
			if erased != want {
				t.Errorf("with the type of %s, %d of 2 events are erased, want %d", owner, erased, want)
			}
		})
	}
}
