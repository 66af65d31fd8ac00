package dispatch_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
)

// letters is a dead-letter queue that answers in pages and can fail.
type letters struct {
	mu        sync.Mutex
	pages     [][]work.Letter
	takeErr   error // after the pages
	removeErr error
	removed   int
}

func (l *letters) Take(context.Context) ([]work.Letter, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pages) == 0 {
		return nil, l.takeErr
	}
	page := l.pages[0]
	l.pages = l.pages[1:]
	return page, nil
}

func (l *letters) Remove(_ context.Context, list []work.Letter) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.removeErr == nil {
		l.removed += len(list)
	}
	return l.removeErr
}

func (l *letters) in(c *dispatch.Config) { c.DeadLetters = l }

// deadItems are pages of one letter each, which have been redriven so often.
func deadItems(items []work.Item, redriven int) (pages [][]work.Letter) {
	for _, item := range items {
		item.Redriven = redriven
		pages = append(pages, []work.Letter{{Body: item.Encode(), Receipt: item.EventID}})
	}
	return pages
}

// What a redrive reports is what happened, also if it fails in between.
func TestARedriveReportsWhatHappened(t *testing.T) {
	for name, c := range map[string]struct {
		redriven  int // how often before
		bySweep   bool
		takeErr   error
		removeErr error
		settleErr error
		want      dispatch.Redriven
		fails     bool
		removed   int
		queued    int
	}{
		"by hand":                             {redriven: 5, want: dispatch.Redriven{Redriven: 3, Done: true}, removed: 3, queued: 3},
		"by hand, no more letters to be had":  {redriven: 5, takeErr: errStore, want: dispatch.Redriven{Redriven: 3}, fails: true, removed: 3, queued: 3},
		"by hand, letters cannot be removed":  {redriven: 5, removeErr: errStore, want: dispatch.Redriven{}, fails: true, queued: 1},
		"by the sweep, for the last time":     {redriven: 4, bySweep: true, removed: 3, queued: 3},
		"by the sweep, once too often":        {redriven: 5, bySweep: true, removed: 3},
		"by the sweep, and cannot be settled": {redriven: 5, bySweep: true, settleErr: errStore},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store, dead := &unwell{}, &letters{takeErr: c.takeErr, removeErr: c.removeErr}
				w := newWorld(t, store.in, dead.in)
				w.endpoint()
				items := w.accept(3)
				dead.pages = deadItems(items, c.redriven)
				store.fails = map[string]error{"settle": c.settleErr}
				if c.bySweep {
					if _, err := w.Sweep(t.Context()); err != nil {
						t.Fatal(err)
					}
				} else if got, err := w.Redrive(t.Context()); got != c.want || (err != nil) != c.fails {
					t.Errorf("%+v, %v; want %+v", got, err, c.want)
				}
				sent := w.queue.take()
				if dead.removed != c.removed || len(sent) != c.queued {
					t.Errorf("%d letters are removed, %d items queued; want %d and %d", dead.removed, len(sent), c.removed, c.queued)
				}
				for _, item := range sent {
					if want := map[bool]int{true: c.redriven + 1, false: 0}[c.bySweep]; item.Redriven != want {
						t.Errorf("queued as redriven %d times, want %d", item.Redriven, want)
					}
				}
				if c.redriven == 5 && c.bySweep && c.settleErr == nil {
					if d := w.delivery(items[0]); d.State != delivery.Dead {
						t.Errorf("it is %s", d.State)
					}
				}
			})
		})
	}
}

// A sweep asks the dead-letter queue in the first minute of each ten.
func TestDeadLettersAreRedrivenEveryTenMinutes(t *testing.T) {
	for at, redriven := range map[time.Duration]bool{0: true, time.Minute - time.Millisecond: true, time.Minute: false, 9 * time.Minute: false, 10 * time.Minute: true} {
		synctest.Test(t, func(t *testing.T) {
			dead := &letters{}
			w := newWorld(t, dead.in)
			w.endpoint()
			dead.pages = deadItems(w.accept(1), 0)
			time.Sleep(time.Until(time.Now().Truncate(10 * time.Minute).Add(10*time.Minute + at)))
			if _, err := w.Sweep(t.Context()); err != nil || (dead.removed == 1) != redriven {
				t.Errorf("%s after the full ten minutes: %d letters, %v", at, dead.removed, err)
			}
		})
	}
}

// Endings of invocations and failures of tables, as a sweep and a replay report them.
func TestASweepReportsWhetherItIsDone(t *testing.T) {
	for name, c := range map[string]struct {
		left  time.Duration
		fails error
		done  bool
		err   bool
	}{
		"enough time":      {10*time.Second + time.Millisecond, nil, true, false},
		"no time":          {10*time.Second - time.Millisecond, nil, false, false},
		"the index is out": {time.Hour, errStore, false, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			store := &unwell{fails: map[string]error{"due": c.fails}}
			w := newWorld(t, store.in)
			ctx, cancel := context.WithTimeout(t.Context(), c.left)
			defer cancel()
			if swept, err := w.Sweep(ctx); swept.Done != c.done || (err != nil) != c.err {
				t.Errorf("%s: %+v, %v", name, swept, err)
			}
		})
	}
}

// What a sweep queues comes at its time: a retry at its time, an attempt in flight when its
// lease ends, what is in a backlog when it expires, and what is overdue at once. The due
// time that it leaves is three minutes later than that, or than now.
func TestASweepQueuesForTheRightTime(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(*world) work.Item
		delay   time.Duration
		due     time.Duration // from now
	}{
		"a retry": {func(w *world) work.Item {
			w.receiver.answer = func(ctx context.Context, m destination.Message) delivery.Outcome {
				return delivery.Outcome{Class: delivery.Lost, RetryAfter: time.Hour}
			}
			item := w.fannedOut()
			w.deliver(item)
			time.Sleep(59 * time.Minute)
			return item
		}, time.Minute, time.Minute + dispatch.Backstop},
		"an overdue retry": {func(w *world) work.Item {
			w.receiver.answer = func(ctx context.Context, m destination.Message) delivery.Outcome {
				return delivery.Outcome{Class: delivery.Lost, RetryAfter: time.Hour}
			}
			item := w.fannedOut()
			w.deliver(item)
			time.Sleep(10 * time.Hour)
			return item
		}, 0, dispatch.Backstop},
		"in flight": {func(w *world) work.Item {
			w.receiver.answer = lost
			item := w.fannedOut()
			w.deliver(item) // due again, three minutes after its retry
			time.Sleep(dispatch.Backstop)
			if _, err := w.store.Claim(w.t.Context(), delivery.Claim{
				Key: delivery.Key{EndpointID: item.EndpointID, EventID: item.EventID}, Attempts: 1, ID: "of another worker", Now: time.Now(), Lease: 25 * time.Second,
			}); err != nil {
				w.t.Fatal(err)
			}
			return item
		}, 25 * time.Second, 2*time.Second + dispatch.Backstop},
		"in a backlog": {func(w *world) work.Item {
			e, err := w.store.ListEndpoints(w.t.Context(), event.DefaultTenant)
			if err != nil {
				w.t.Fatal(err)
			}
			items, _ := w.draining(e[0], 1)
			made, err := event.IDTime(items[0].EventID)
			if err != nil {
				w.t.Fatal(err)
			}
			time.Sleep(time.Until(made.Add(72*time.Hour + time.Millisecond - 30*time.Second)))
			return items[0]
		}, 30 * time.Second, 30*time.Second + dispatch.Backstop},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.endpoint()
				item := c.prepare(w)
				w.queue.take()
				if _, err := w.Sweep(t.Context()); err != nil {
					t.Fatal(err)
				}
				var found []work.Item
				for _, sent := range w.queue.take() {
					if !sent.Wake {
						found = append(found, sent)
					}
				}
				if len(found) != 1 || found[0].Delay != c.delay {
					t.Errorf("queued %+v, want a delay of %s", found, c.delay)
				}
				if due := time.Until(w.delivery(item).DueAt); due != c.due {
					t.Errorf("due again in %s, want %s", due, c.due)
				}
			})
		})
	}
}

// A sweep counts what it queued: not what the queue refused, which a later sweep finds.
func TestASweepCountsWhatItQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.endpoint()
		w.receiver.answer = lost
		items := w.accept(3)
		w.deliver(items...)
		w.queue.take()
		time.Sleep(dispatch.Backstop)
		w.queue.fail = func(item work.Item) error {
			if item.EventID == items[1].EventID {
				return errStore
			}
			return nil
		}
		if swept, err := w.Sweep(t.Context()); err != nil || swept.Due != 3 || swept.Queued != 2 {
			t.Errorf("swept %+v, %v", swept, err)
		}
	})
}

// A replay that cannot be done says why, and one that fails says so.
func TestAReplayReportsWhatFails(t *testing.T) {
	for name, c := range map[string]struct {
		endpoint, event bool // are named
		fails           string
		says            string // "" if it succeeds
	}{
		"no event":                    {true, false, "", "event_id are required"},
		"no endpoint":                 {false, true, "", "event_id are required"},
		"the table fails":             {true, true, "replay", errStore.Error()},
		"the endpoint cannot be read": {true, true, "endpoint", "the table is away"},
		"done":                        {true, true, "", ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			store := &unwell{}
			w := newWorld(t, store.in)
			e := w.endpoint()
			w.receiver.answer = func(context.Context, destination.Message) delivery.Outcome {
				return delivery.Outcome{Class: delivery.TooLarge, Permanent: true}
			}
			item := w.fannedOut()
			w.deliver(item)
			command := dispatch.Command{Action: "replay"}
			if c.endpoint {
				command.EndpointID = e.ID
			}
			if c.event {
				command.EventID = item.EventID
			}
			store.fails = map[string]error{c.fails: errStore}
			if c.fails == "endpoint" {
				w.Config.Endpoints = absentTable{}
			}
			answer, err := dispatch.New(w.Config).Run(t.Context(), command)
			if (err != nil) != (c.says != "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Fatalf("%s: %+v, %v; want %q", name, answer, err, c.says)
			}
			if err == nil && len(w.queue.take()) != 1 {
				t.Errorf("%s: %+v, and nothing is queued", name, answer)
			}
		})
	}
}

// A retried fan-out: whatever it could not do, its record is delivered again.
func TestAFanOutThatCannotSkipIsRepeated(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 400) + "1" + strings.Repeat("}", 400)
	for name, c := range map[string]struct {
		filter, data string
		settle       error
		disable      bool
	}{
		"a filter that cannot be evaluated":                          {`{"data":{"discussion_id":["d1"]}}`, `{"discussion_id":"d1","x":` + deep + `}`, errStore, false},
		"a filter that does not compile":                             {`{"data":5}`, comment, errStore, false},
		"a filter that does not compile, and cannot be disabled for": {`{"data":5}`, comment, nil, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			store := &unwell{}
			w := newWorld(t, store.in)
			w.endpoint(filtered(c.filter))
			_, record := w.event("user.posted_comment", c.data)
			store.fails = map[string]error{"settle": c.settle}
			if c.disable {
				w.Config.Disabler = absentTable{}
			}
			worker := dispatch.New(w.Config)
			if failed := worker.FanOut(t.Context(), []event.Change{record}); len(failed) != 1 || failed[0] != record.SequenceNumber {
				t.Errorf("%s: failed from %v", name, failed)
			}
			store.fails = nil
		})
	}
}

// An event that is stored ten minutes after its id was made has the age of its storing.
func TestAnEventThatIsTenMinutesLateIsYounger(t *testing.T) {
	for late, younger := range map[time.Duration]bool{10*time.Minute - time.Millisecond: false, 10 * time.Minute: true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.endpoint()
			_, record := w.event("user.posted_comment", comment)
			made, err := event.IDTime(record.Event.ID)
			if err != nil {
				t.Fatal(err)
			}
			record.At = made.Add(late)
			w.FanOut(t.Context(), []event.Change{record})
			if sent := w.queue.take(); len(sent) != 1 || sent[0].Since.IsZero() == younger {
				t.Errorf("%s late: queued %+v", late, sent)
			}
		})
	}
}

// filtered gives an endpoint a filter.
func filtered(filter string) func(*endpoint.Endpoint) {
	return func(e *endpoint.Endpoint) { e.Filter = json.RawMessage(filter) }
}

// A redrive is not complete if it failed, also if another of its workers found no more letters.
func TestARedriveThatFailedIsNotDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead := &letters{}
		w := newWorld(t, dead.in)
		w.endpoint()
		dead.pages = deadItems(w.accept(30), 0)
		var n atomic.Int64
		w.queue.fail = func(work.Item) error {
			if n.Add(1) != 2 {
				return nil
			}
			return errStore
		}
		if got, err := w.Redrive(t.Context()); err == nil || got.Done {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

// What a sweep gives up, and what it cannot, is in its log.
func TestASweepReportsTheLettersThatItGivesUp(t *testing.T) {
	for name, c := range map[string]struct {
		fails error
		log   string
	}{"given up": {nil, "redrive.done redriven=0 given_up=3"}, "cannot be settled": {errStore, "redrive.failed"}} {
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			store, dead := &unwell{}, &letters{}
			w := newWorld(t, store.in, dead.in, func(c *dispatch.Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
			w.endpoint()
			dead.pages = deadItems(w.accept(3), 5)
			store.fails = map[string]error{"settle": c.fails}
			if _, err := w.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(log.String(), "msg="+c.log) {
				t.Errorf("%s: the log is %s", name, log.String())
			}
		})
	}
}

// A letter that wakes an endpoint or advances a job is given up without a trace, and whether
// the endpoint of a delivery is slow is decided anew.
func TestWhatIsRedrivenDependsOnTheItem(t *testing.T) {
	for name, c := range map[string]struct {
		item     work.Item
		redriven int
		settled  int
		queued   int
	}{
		"a wake-up, once too often":       {work.Item{Tenant: "t", EndpointID: "ep_1", Wake: true}, 5, 0, 0},
		"a job, once too often":           {work.Item{Tenant: "t", JobID: "job_1"}, 5, 0, 0},
		"a delivery, once too often":      {work.Item{Tenant: "t", EndpointID: "ep_1", EventID: event.NewID(time.Now())}, 5, 1, 0},
		"a delivery of a slow endpoint":   {work.Item{Tenant: "t", EndpointID: "ep_1", EventID: event.NewID(time.Now()), Slow: true}, 0, 0, 1},
		"a wake-up that was not redriven": {work.Item{Tenant: "t", EndpointID: "ep_1", Wake: true}, 0, 0, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			store, dead := &unwell{}, &letters{}
			w := newWorld(t, store.in, dead.in)
			dead.pages = deadItems([]work.Item{c.item}, c.redriven)
			if _, err := w.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			sent := w.queue.take()
			if store.calls["settle"] != c.settled || len(sent) != c.queued || dead.removed != 1 {
				t.Fatalf("%s: %d settled, queued %+v, %d letters removed", name, store.calls["settle"], sent, dead.removed)
			}
			if c.queued > 0 && sent[0].Slow {
				t.Errorf("%s: it is still for the slow lane", name)
			}
		})
	}
}

// cursors notes the cursors with which the due index is read. It answers in pages.
type cursors struct {
	dispatch.DueIndex
	mu   sync.Mutex
	seen []string
}

func (c *cursors) Due(_ context.Context, shard int, _ time.Time, cursor string, _ int) ([]delivery.Due, string, error) {
	if shard > 0 {
		return nil, "", nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = append(c.seen, cursor)
	return nil, map[int]string{1: "second", 2: "third"}[len(c.seen)], nil
}

func TestASweepContinuesAfterEachPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		index := &cursors{}
		w := newWorld(t, func(c *dispatch.Config) { index.DueIndex, c.Due = c.Due, index })
		if _, err := w.Sweep(t.Context()); err != nil || !slices.Equal(index.seen, []string{"", "second", "third"}) {
			t.Errorf("it reads from %q, %v", index.seen, err)
		}
	})
}

// A circuit whose write failed is read again: the write may have been applied.
func TestACachedCircuitIsForgottenAfterAFailedWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &circuits{putErr: errStore, apply: true}
		w := newWorld(t, table.in)
		w.endpoint()
		w.receiver.answer = answering(503)
		w.deliver(w.fannedOut())
		before := len(table.reads)
		w.deliver(w.fannedOut())
		// A consistent read would be that after the conflict of the next write.
		if len(table.reads) == before || table.reads[before] {
			t.Errorf("reads, and whether they were consistent: %v, want another after the first %d", table.reads, before)
		}
	})
}

// Of a batch, the version of a tenant's endpoints is read once; if the endpoints cannot be read
// then, nothing is fanned out to the old ones.
func TestABatchReadsTheVersionOfEndpointsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := &readsOfLists{}
		w := newWorld(t, func(c *dispatch.Config) { list.Endpoints, c.Endpoints = c.Endpoints, list })
		e := w.endpoint()
		w.fannedOut() // the endpoints are cached
		var batch []event.Change
		for range 3 {
			_, record := w.event("user.posted_comment", comment)
			batch = append(batch, record)
		}
		list.versions = 0
		if failed := w.FanOut(t.Context(), batch); failed != nil || list.versions != 1 {
			t.Errorf("%d reads of the version, failed %v", list.versions, failed)
		}
		w.queue.take()
		w.setStatusNow(e, endpoint.Disabled) // and announced
		list.Endpoints = unlisted{list.Endpoints}
		if failed := w.FanOut(t.Context(), batch); len(failed) != 1 || len(w.queue.take()) != 0 {
			t.Errorf("failed %v, want the batch", failed)
		}
	})
}

// unlisted has endpoints that cannot be listed.
type unlisted struct{ dispatch.Endpoints }

func (unlisted) ReadEndpoints(context.Context, string, bool) (endpoint.List, error) {
	return endpoint.List{}, errStore
}

// A delivery that begins to wait for a drain that is under way queues no other step of it.
func TestWhatWaitsQueuesNoSecondStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint(limited)
		item := w.fannedOut()
		s := breaker.State{Tenant: e.Tenant, EndpointID: e.ID}.Close(time.Now())
		s.Drain.KeepUntil, s.WakeAt = time.Now(), time.Now().Add(time.Minute)
		w.putCircuit(s)
		w.take(e, 200)
		w.deliver(item)
		if sent := w.queue.take(); !w.delivery(item).InBacklog || len(sent) != 0 || !w.circuit(e).Drain.KeepUntil.After(time.Now()) {
			t.Errorf("queued %+v, the circuit is %+v", sent, w.circuit(e))
		}
	})
}
