package dispatch_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/retry"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/journal"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
)

// keeping counts the writes that keep events, and fails them if told so.
type keeping struct {
	dispatch.Events
	writes int
	fail   bool
}

func (k *keeping) KeepEvent(ctx context.Context, id string, until time.Time) error {
	k.writes++
	if k.fail {
		return errors.New("the table is away")
	}
	return k.Events.KeepEvent(ctx, id, until)
}

// shortLived stores an event that is kept for two days, with a text of some bytes, and fans it
// out. It returns its work item.
func (w *world) shortLived(bytes int) work.Item {
	w.t.Helper()
	id := event.NewID(time.Now())
	data, err := json.Marshal(map[string]string{"discussion_id": "d1", "comment_id": "c1", "comment_text": strings.Repeat("x", bytes)})
	if err != nil {
		w.t.Fatal(err)
	}
	body, err := event.Event{ID: id, Type: "user.posted_comment", Timestamp: time.Now(), Data: data}.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	a := event.Accepted{ID: id, Tenant: event.DefaultTenant, Body: body, Subject: "c1", RetentionDays: 2}
	if err := w.store.PutEvent(w.t.Context(), a); err != nil {
		w.t.Fatal(err)
	}
	w.FanOut(w.t.Context(), []event.Change{{Inserted: true, SequenceNumber: "1", Event: a}})
	sent := w.queue.take()
	if len(sent) != 1 {
		w.t.Fatalf("%d items are queued, want 1", len(sent))
	}
	return sent[0]
}

// expireWhile deletes what has expired once an hour, as DynamoDB's TTL does, for some time,
// and calls step every minute.
func (w *world) expireWhile(length time.Duration, step func()) {
	for end, n := time.Now().Add(length), 0; time.Now().Before(end); n++ {
		time.Sleep(time.Minute)
		step()
		if n%60 == 0 {
			for _, d := range w.store.DeleteExpired() {
				if !d.State.Settled() {
					w.t.Errorf("TTL deletes a delivery that is %s", d.State)
				}
			}
		}
	}
}

// An age limit of 14 days holds for events that are kept for two days: neither the delivery
// nor its event is deleted before its turn.
func TestAShortRetentionDoesNotCutAnAgeLimit(t *testing.T) {
	patient := func(e *endpoint.Endpoint) { e.Retry = retry.Policy{MaxAge: 14 * 24 * time.Hour} }
	for name, c := range map[string]struct {
		bytes  int
		paused bool
		answer bool // it fails until the end
		queued bool // the message stays on the queue until the end
	}{
		"a delivery that is retried":        {answer: true},
		"a large one that is retried":       {bytes: 5000, answer: true},
		"a delivery that waits":             {paused: true},
		"a large one that waits":            {bytes: 5000, paused: true},
		"a message that nobody takes":       {queued: true},
		"a large message that nobody takes": {bytes: 5000, queued: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				e := w.endpoint(patient)
				item := w.shortLived(c.bytes)
				if c.paused {
					w.setStatus(e, endpoint.Paused)
				}
				if c.answer {
					w.receiver.answer = lost
				}
				waiting := []work.Item{item}
				const length = 13 * 24 * time.Hour
				w.expireWhile(length, func() {
					if c.queued {
						return
					}
					w.deliver(waiting...)
					if _, err := w.Sweep(t.Context()); err != nil {
						t.Fatal(err)
					}
					waiting = w.queue.take()
				})
				if w.receiver.answer = nil; c.paused {
					w.setStatus(e, endpoint.Enabled)
				}
				if d := w.run(item, 12*time.Hour); d.State != delivery.Delivered {
					t.Errorf("after 13 days, the delivery is %s (%s) after %d attempts", d.State, d.Reason, d.Attempts)
				}
			})
		})
	}
}

// An event whose delivery succeeds, or is retried within its retention, costs no write more.
func TestKeepingAnEventCostsOnlyDeliveriesThatOutliveIt(t *testing.T) {
	for name, c := range map[string]struct {
		fails time.Duration // how long the receiver fails
		days  int
		least int // writes
		most  int
	}{
		"success at once":                     {0, 2, 0, 0},
		"an hour of retries":                  {time.Hour, 2, 0, 0},
		"two days of retries, of the default": {48 * time.Hour, 0, 0, 0},
		"two days of retries, kept for two":   {48 * time.Hour, 2, 1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var k *keeping
				w := newWorld(t, func(c *dispatch.Config) {
					k = &keeping{Events: c.Events}
					c.Events = k
				})
				w.endpoint()
				began := time.Now()
				w.receiver.answer = func(ctx context.Context, m destination.Message) delivery.Outcome {
					if time.Since(began) < c.fails {
						return lost(ctx, m)
					}
					return delivery.Outcome{Class: delivery.Success, Status: 200}
				}
				var one work.Item
				if c.days == 0 {
					one = w.fannedOut()
				} else {
					one = w.shortLived(0)
				}
				if d := w.run(one, 72*time.Hour); d.State != delivery.Delivered {
					t.Fatalf("it is %s (%s)", d.State, d.Reason)
				}
				if k.writes < c.least || k.writes > c.most {
					t.Errorf("the event was kept by %d writes, want %d to %d", k.writes, c.least, c.most)
				}
			})
		})
	}
}

// A retry that cannot keep its event comes soon, and tries again.
func TestARetryThatCannotKeepItsEventComesSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var k *keeping
		w := newWorld(t, func(c *dispatch.Config) {
			k = &keeping{Events: c.Events, fail: true}
			c.Events = k
		})
		w.endpoint(func(e *endpoint.Endpoint) {
			e.Retry = retry.Policy{MaxAge: 14 * 24 * time.Hour, MaxDelay: 24 * time.Hour}
		})
		item := w.shortLived(0)
		w.receiver.answer = func(context.Context, destination.Message) delivery.Outcome {
			return delivery.Outcome{Class: delivery.Answered, Status: 503, Error: "busy", RetryAfter: 24 * time.Hour}
		}
		time.Sleep(2 * time.Hour) // the next attempt would come within a day of the event's end
		w.deliver(item)
		if d := w.delivery(item); d.State != delivery.Pending || time.Until(d.NextAttemptAt) > work.MaxDelay {
			t.Errorf("the next attempt is in %s (%s)", time.Until(d.NextAttemptAt), d.State)
		}
		k.fail = false
		time.Sleep(work.MaxDelay)
		w.deliver(w.queue.take()...)
		if d := w.delivery(item); time.Until(d.NextAttemptAt) < 23*time.Hour || k.writes != 2 {
			t.Errorf("the next attempt is in %s, after %d writes", time.Until(d.NextAttemptAt), k.writes)
		}
	})
}

// What is sent again is kept until its new age limit, whenever the event would have expired.
func TestAReplayKeepsItsEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint()
		item := w.fannedOut()
		w.deliver(item)
		time.Sleep(29 * 24 * time.Hour)
		w.setStatus(e, endpoint.Paused)
		if _, err := w.Replay(t.Context(), dispatch.Command{EndpointID: e.ID, EventID: item.EventID}); err != nil {
			t.Fatal(err)
		}
		waiting := w.queue.take()
		w.expireWhile(48*time.Hour, func() {
			w.deliver(waiting...)
			waiting = nil
		})
		w.setStatus(e, endpoint.Enabled)
		w.queue.take()
		if d := w.run(item, 3*time.Hour); d.State != delivery.Delivered || w.receiver.count() != 2 {
			t.Errorf("the replay is %s (%s), %d requests", d.State, d.Reason, w.receiver.count())
		}
	})
}

// The journal keeps events of each retention apart, for as long as the events themselves.
func TestTheJournalKeepsEventsByTheirRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var batch []event.Change
		for n := range 6 {
			_, record := w.event("user.posted_comment", comment)
			record.Event.RetentionDays = []int{0, 2, 90}[n%3]
			batch = append(batch, record)
		}
		if failed := w.FanOut(t.Context(), batch); failed != nil {
			t.Fatal(failed)
		}
		for _, c := range batch {
			items, err := journal.Holding(t.Context(), w.store, event.DefaultTenant, c.Event.ID)
			if err != nil || len(items) != 1 || items[0].RetentionDays != c.Event.RetentionDays || len(items[0].Entries) != 2 {
				t.Errorf("an event that is kept for %d days is in %+v (%v)", c.Event.RetentionDays, items, err)
			}
		}
	})
}

// An event that is there only because a delivery of it is pending is not missing elsewhere,
// and not lost: the journal and the other deliveries have ended with its retention.
func TestAnEventBeyondItsRetentionIsNotSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *dispatch.Config) { withStream(t, nil)(c) })
		e := w.endpoint()
		item := w.shortLived(0)
		w.deliver(item)
		if err := w.store.KeepEvent(t.Context(), item.EventID, time.Now().Add(10*24*time.Hour)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * 24 * time.Hour)
		w.store.DeleteExpired()
		if _, err := w.store.GetEvent(t.Context(), item.EventID); err != nil {
			t.Fatal(err)
		}
		// As a batch that has it with another event would have it.
		at, _ := event.IDTime(item.EventID)
		i := journal.Item{Tenant: event.DefaultTenant, RetentionDays: 30, Entries: []journal.Entry{{ID: item.EventID, Type: "user.posted_comment"}}}
		for _, c := range []dispatch.Command{
			{Action: "start_job", Kind: jobs.Stream, From: at.Add(-time.Hour)},
			{Action: "start_job", Kind: jobs.Recover, EndpointID: e.ID, From: at.Add(-time.Hour)},
		} {
			if c.Kind == jobs.Recover {
				if err := w.store.PutJournal(t.Context(), i); err != nil {
					t.Fatal(err)
				}
			}
			j := w.finish(w.start(c))
			if j.State != jobs.Done || j.Counts[jobs.Sent] != 0 {
				t.Errorf("%s is %s (%s) and sends %d", c.Kind, j.State, j.Reason, j.Counts[jobs.Sent])
			}
		}
	})
}

// A job that begins before everything that is kept is refused, with the retention and the
// earliest time. What is left from before, for whatever reason, can be sent.
func TestAJobDoesNotBeginBeforeTheRetention(t *testing.T) {
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		days    int           // of the deployment; 0 is the default
		from    time.Duration // before now
		left    int           // retention of an event that is 20 days old; -1: there is none
		refused int           // the days that the error names; 0: it is started
	}{
		"within the retention":                    {0, 29 * day, -1, 0},
		"a day before it":                         {0, 31 * day, -1, 0},
		"earlier":                                 {0, 31*day + time.Second, -1, 30},
		"years before it":                         {0, 2000 * day, 0, 30},
		"the deployment's":                        {5, 7 * day, -1, 5},
		"within a long one":                       {90, 80 * day, -1, 0},
		"before a long one":                       {90, 92 * day, -1, 90},
		"an event that its type keeps for longer": {5, 25 * day, 90, 0},
		"an event that is younger":                {5, 19 * day, 90, 5},
		"an event that is gone":                   {5, 25 * day, 5, 5},
	} {
		for _, kind := range []jobs.Kind{jobs.Recover, jobs.Backfill, jobs.Replay} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(config *dispatch.Config) { config.RetentionDays = c.days })
				e := w.endpoint()
				if c.left >= 0 {
					_, record := w.event("user.posted_comment", comment)
					record.Event.RetentionDays = c.left
					if failed := w.FanOut(t.Context(), []event.Change{record}); failed != nil {
						t.Fatal(failed)
					}
					w.deliver(w.queue.take()...)
				}
				time.Sleep(20 * day)
				w.store.DeleteExpired()
				now := time.Now()
				want := ""
				if c.refused > 0 {
					want = fmt.Sprintf("%s: from is too early (%s): events are kept for %d days, and nothing is left from before %s: give that time or a later one",
						kind, now.Add(-c.from).UTC().Format(time.RFC3339), c.refused, now.Add(-time.Duration(c.refused)*day).UTC().Format(time.RFC3339))
				}
				_, err := w.Run(t.Context(), dispatch.Command{Action: "start_job", Kind: kind, EndpointID: e.ID, From: now.Add(-c.from)})
				if got := fmt.Sprint(err); err == nil && want != "" || err != nil && got != want {
					t.Errorf("%s, %s: %s; want %s", name, kind, got, want)
				}
				if _, err := w.Run(t.Context(), dispatch.Command{Action: "start_job", Kind: kind, EndpointID: e.ID, From: now.Add(-c.from), DryRun: true}); err != nil {
					t.Errorf("%s, %s, a dry run: %v", name, kind, err)
				}
			})
		}
	}
}

// A job of the stream reads all events, whatever its range is: an early beginning costs
// nothing, and the sweep must not fail with old dead letters.
func TestAJobOfTheStreamMayBeginBeforeTheRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, withStream(t, nil), func(c *dispatch.Config) { c.RetentionDays = 1 })
		w.endpoint()
		lost := w.emitted(3, time.Second, false)
		time.Sleep(time.Hour)
		j := w.finish(w.start(dispatch.Command{Kind: jobs.Stream, From: time.Now().Add(-1000 * 24 * time.Hour)}))
		if j.State != jobs.Done || j.Counts[jobs.Sent] != len(lost) {
			t.Errorf("%s: %v", j.State, j.Counts)
		}
	})
}
