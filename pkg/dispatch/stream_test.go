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

	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/journal"
	"github.com/tidings-dev/tidings/pkg/local/queue"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
)

// emitted stores n events, a while apart, and fans them out if handled.
func (w *world) emitted(n int, apart time.Duration, handled bool) (events []event.Accepted) {
	w.t.Helper()
	for range n {
		a, record := w.event("user.posted_comment", comment)
		if handled {
			if failed := w.FanOut(w.t.Context(), []event.Change{record}); failed != nil {
				w.t.Fatal(failed)
			}
		}
		events = append(events, a)
		time.Sleep(apart)
	}
	return events
}

// ofOtherTenant stores an event of another tenant.
func (w *world) ofOtherTenant(tenant string) event.Accepted {
	w.t.Helper()
	id := event.NewID(time.Now())
	body, err := event.Event{ID: id, Type: "user.posted_comment", Timestamp: time.Now(), Data: json.RawMessage(comment)}.Encode()
	a := event.Accepted{ID: id, Tenant: tenant, Body: body}
	if err == nil {
		err = w.store.PutEvent(w.t.Context(), a)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// withStream gives a world what a job of the stream needs, and a queue of dead letters.
func withStream(t *testing.T, letters *queue.Queue) func(*dispatch.Config) {
	return func(c *dispatch.Config) {
		store, ok := c.Endpoints.(storeOfAll)
		if !ok {
			t.Fatal("the world has no store")
		}
		c.JobList, c.Scan = store, store
		c.DeadLetters = deadLetters(t)
		if letters != nil {
			c.StreamDeadLetters = letters
		}
	}
}

type storeOfAll interface {
	dispatch.JobList
	dispatch.EventScan
}

// Fan-out fails for a day, and the stream drops its records. The job recovers all events of
// that day, exactly those, of every tenant, and each is delivered once.
func TestEverythingThatFanOutLostIsRecovered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, withStream(t, nil))
		w.endpoint()
		w.endpoint(func(e *endpoint.Endpoint) { e.Tenant = "t2" })
		before := w.emitted(40, time.Second, true)
		w.drive(5 * time.Second)
		from := time.Now()
		var lost []event.Accepted
		var handled []event.Accepted
		for range 40 { // in a day; some shards work on
			lost = append(lost, w.emitted(30, 100*time.Millisecond, false)...)
			lost = append(lost, w.ofOtherTenant("t2"))
			handled = append(handled, w.emitted(1, 0, true)...)
			w.drive(2 * time.Second)
			time.Sleep(35 * time.Minute)
		}
		// An event that cannot be decoded is counted, and stops nothing.
		if err := w.store.PutEvent(t.Context(), event.Accepted{ID: event.NewID(time.Now()), Tenant: event.DefaultTenant, Body: []byte("[")}); err != nil {
			t.Fatal(err)
		}
		to := time.Now()
		time.Sleep(80 * time.Hour)      // longer than the age limit, which counts from the recovery
		young := w.emitted(5, 0, false) // still on their way through the stream
		c := dispatch.Command{Kind: jobs.Stream, From: from, To: to, DryRun: true}

		received := w.receiver.count()
		dry := w.finish(w.start(c))
		if dry.State != jobs.Done || dry.Counts["found missing"] != len(lost) || dry.Counts[jobs.Sent] != len(lost) || dry.Counts["found unreadable"] != 1 {
			t.Errorf("the dry run counts %v, want %d", dry.Counts, len(lost))
		}
		w.drive(time.Minute)
		if w.receiver.count() != received {
			t.Errorf("a dry run sent %d", w.receiver.count()-received)
		}
		c.DryRun = false
		j := w.start(c)
		began := time.Now()
		j = w.finish(j)
		w.drive(2 * time.Minute)
		if j.State != jobs.Done || j.Counts["found missing"] != len(lost) || j.Counts[jobs.Sent] != len(lost) || j.Counts[jobs.Examined] != len(lost)+len(handled)+1 {
			t.Errorf("%s: %v, want %d lost ones", j.State, j.Counts, len(lost))
		}
		if took := time.Since(began); took < time.Duration(len(lost)/jobs.StreamRate)*time.Second {
			t.Errorf("%d were queued within %s, faster than %d/s", len(lost), took, jobs.StreamRate)
		}
		w.once(append(append(lost, handled...), before...))
		if n := w.receiver.count(); n != len(lost)+len(handled)+len(before) {
			t.Errorf("%d webhooks, want %d; the young %d come by the stream", n, len(lost)+len(handled)+len(before), len(young))
		}
		again := w.finish(w.start(dispatch.Command{Kind: jobs.Stream, From: from, To: to}))
		if again.Counts["found missing"] != 0 || again.Counts[jobs.Sent] != 0 {
			t.Errorf("a second job finds %v", again.Counts)
		}
	})
}

// Events of the last five minutes before the job began may still come by the stream. They are
// not fanned out, whatever the range says.
func TestAJobOfTheStreamLeavesYoungEventsToTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, withStream(t, nil))
		w.endpoint()
		from := time.Now()
		lost := w.emitted(4, time.Second, false)
		time.Sleep(5*time.Minute - time.Second) // since the last of them
		young := w.emitted(6, time.Second, false)
		j := w.finish(w.start(dispatch.Command{Kind: jobs.Stream, From: from, To: time.Now().Add(time.Hour)}))
		if j.State != jobs.Done || j.Counts[jobs.Sent] != len(lost) || j.Counts[jobs.Examined] != len(lost) {
			t.Errorf("%s: %v, want the %d old ones of %d", j.State, j.Counts, len(lost), len(lost)+len(young))
		}
	})
}

func TestWhatAJobOfTheStreamMustHave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, withStream(t, nil))
		e := w.endpoint()
		from := time.Now().Add(-time.Hour)
		for want, c := range map[string]dispatch.Command{
			"stream: it concerns all tenants, and belongs to the tenant default": {Tenant: "t2", From: from},
			"stream: from is required": {},
			"stream: it concerns all endpoints, types and states: give from and to only":        {From: from, EndpointID: e.ID},
			"stream: it concerns all endpoints, types and states: give from and to only ":       {From: from, Types: []string{"user.posted_comment"}},
			"stream: it concerns all endpoints, types and states: give from and to only" + "  ": {From: from, Status: "500"},
		} {
			c.Action, c.Kind = "start_job", jobs.Stream
			if _, err := w.Run(t.Context(), c); err == nil || err.Error() != strings.TrimSpace(want) {
				t.Errorf("error %v, want %s", err, want)
			}
		}
		j := w.start(dispatch.Command{Kind: jobs.Stream, From: from})
		if _, err := w.Run(t.Context(), dispatch.Command{Action: "start_job", Kind: jobs.Stream, From: from, DryRun: true}); err == nil || err.Error() != "stream: job "+j.ID+" is doing it: wait for its end, or cancel it" {
			t.Errorf("a second one at the same time: %v", err)
		}
		if again := w.start(dispatch.Command{Kind: jobs.Stream, JobID: j.ID, From: from}); again.ID != j.ID {
			t.Errorf("the same command again: %+v", again)
		}
		// A range in which every event may still be on its way has nothing to do.
		w.finish(j)
		if j = w.finish(w.start(dispatch.Command{Kind: jobs.Stream, From: time.Now().Add(-time.Minute)})); j.State != jobs.Done || j.Counts[jobs.Examined] != 0 {
			t.Errorf("the last minute: %+v", j)
		}
	})
}

// letterOf is what Lambda sends about a batch that it has given up.
func letterOf(first, last time.Time) string {
	return fmt.Sprintf(`{"requestContext":{"condition":"RetryAttemptsExhausted"},"version":"1.0","DDBStreamBatchInfo":{"shardId":"s","startSequenceNumber":"1","endSequenceNumber":"9",
		"approximateArrivalOfFirstRecord":%q,"approximateArrivalOfLastRecord":%q,"batchSize":100,"streamArn":"arn:stream"}}`, first.UTC().Format(time.RFC3339), last.UTC().Format(time.RFC3339))
}

func (w *world) streamJobs() (list []jobs.Job) {
	w.t.Helper()
	page, err := w.store.ListJobs(w.t.Context(), jobs.Query{Tenant: event.DefaultTenant})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, j := range page.Jobs {
		if j.Kind == jobs.Stream {
			list = append(list, j)
		}
	}
	return list
}

// brokenJournal fails while it is broken.
type brokenJournal struct {
	dispatch.Journal
	broken bool
}

func (f *brokenJournal) QueryJournal(ctx context.Context, r journal.Range) ([]journal.Item, bool, error) {
	if f.broken {
		return nil, false, errors.New("throttled")
	}
	return f.Journal.QueryJournal(ctx, r)
}

// The sweep finds dead letters of the stream, starts one job for their time, and removes
// them when it has recovered all events; not before, and not after a job that failed.
func TestTheSweepRecoversWhatTheStreamLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		letters := deadLetters(t)
		var broken *brokenJournal
		w := newWorld(t, withStream(t, letters), func(c *dispatch.Config) {
			broken = &brokenJournal{Journal: c.Journal}
			c.Journal = broken
		})
		w.tick = time.Second
		w.endpoint()
		w.emitted(20, time.Second, true)
		w.drive(5 * time.Second)
		first := time.Now()
		lost := w.emitted(200, time.Second, false)
		last := time.Now()
		time.Sleep(24 * time.Hour)
		put := func(body string) {
			t.Helper()
			if _, err := letters.Put(body, "", 0); err != nil {
				t.Fatal(err)
			}
		}
		const foreign = `{"hello":"world"}`
		put(foreign)
		put(letterOf(first, first.Add(time.Minute)))
		put(letterOf(first.Add(time.Minute), last))

		broken.broken = true // until the first job has failed
		for range 30 {
			if list := w.streamJobs(); len(list) == 1 && list[0].State == jobs.Failed {
				break
			}
			w.drive(10 * time.Minute)
			if list := w.streamJobs(); len(list) > 1 && list[1].State == jobs.Running {
				t.Fatalf("two jobs at a time: %+v", list)
			}
		}
		if n := lettersIn(t, letters); n != 3 {
			t.Fatalf("after a job that failed, %d letters are left, want all three", n)
		}
		broken.broken = false
		w.drive(time.Hour)
		w.once(lost)
		if n := lettersIn(t, letters); n != 1 {
			t.Errorf("%d letters are left, want the one that nobody can read", n)
		}
		list := w.streamJobs()
		if done := list[0]; done.State != jobs.Done || done.Counts["found missing"] != len(lost) || done.By == "" {
			t.Errorf("%+v", done)
		}
		n := len(list)
		w.drive(time.Hour)
		if list = w.streamJobs(); len(list) != n {
			t.Errorf("without letters, %d more jobs were started", len(list)-n)
		}
	})
}

// An event that cannot be fanned out is passed over after a while, with an ERROR, so that
// it does not keep the others from being recovered.
func TestAnEventThatCannotBeFannedOutStopsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, withStream(t, nil))
		w.endpoint()
		from := time.Now()
		lost := w.emitted(250, 10*time.Millisecond, false)
		bad := lost[100]
		time.Sleep(time.Hour)
		w.queue.fail = func(item work.Item) error {
			if item.EventID == bad.ID {
				return errors.New("refused")
			}
			return nil
		}
		j := w.finish(w.start(dispatch.Command{Kind: jobs.Stream, From: from}))
		w.drive(2 * time.Minute)
		w.once(append(append([]event.Accepted{}, lost[:100]...), lost[101:]...))
		if j.State != jobs.Done || j.Counts["found failed"] != 1 {
			t.Errorf("%s: %v", j.State, j.Counts)
		}
	})
}

func lettersIn(t *testing.T, q *queue.Queue) int {
	t.Helper()
	d, err := q.Depth(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return d.Visible + d.Delayed + d.InFlight
}

// onePage is a scan whose first segment has all events.
type onePage struct{ dispatch.EventScan }

func (s onePage) ScanRange(ctx context.Context, q event.RangeScan) (event.RangePage, error) {
	if q.Segment > 0 {
		return event.RangePage{}, nil
	}
	q.Segments = 1
	return s.EventScan.ScanRange(ctx, q)
}

// A step ends within a page that has more deliveries than it may queue at once, and the next
// one goes on there.
func TestAStepOfTheStreamIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, withStream(t, nil), func(c *dispatch.Config) { c.Scan = onePage{c.Scan} })
		const endpoints = 11
		for range endpoints {
			w.endpoint()
		}
		from := time.Now()
		lost := w.emitted(250, 10*time.Millisecond, false)
		time.Sleep(time.Hour)
		j := w.start(dispatch.Command{Kind: jobs.Stream, From: from})
		w.queue.take()
		w.deliver(work.Item{Tenant: j.Tenant, JobID: j.ID})
		if n := w.job(j).Counts[jobs.Sent]; n != 100*endpoints {
			t.Errorf("the first step queued %d, want the %d of a hundred events", n, 100*endpoints)
		}
		j = w.finish(j)
		if j.State != jobs.Done || j.Counts["found missing"] != len(lost) || j.Counts[jobs.Examined] != len(lost) || j.Counts[jobs.Sent] != endpoints*len(lost) {
			t.Errorf("%s: %v, want %d events", j.State, j.Counts, len(lost))
		}
	})
}
