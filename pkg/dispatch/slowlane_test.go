package dispatch_test

import (
	"context"
	"errors"
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
)

// answeringAfter makes a receiver that takes so long, or until the attempt's deadline.
func answeringAfter(took time.Duration) func(context.Context, destination.Message) delivery.Outcome {
	return func(ctx context.Context, _ destination.Message) delivery.Outcome {
		select {
		case <-time.After(took):
			return delivery.Outcome{Class: delivery.Success, Status: 200, Timings: delivery.Timings{Total: took}}
		case <-ctx.Done():
			return delivery.Outcome{Class: delivery.Timeout, Error: "no answer in time", Timings: delivery.Timings{Total: 10 * time.Second}}
		}
	}
}

// newLanes returns a world with a slow queue.
func newLanes(t *testing.T, change ...func(*dispatch.Config)) (*world, *sentItems) {
	slow := &sentItems{}
	return newWorld(t, append(change, func(c *dispatch.Config) { c.SlowQueue = slow })...), slow
}

func (w *world) slow(e endpoint.Endpoint) bool {
	w.t.Helper()
	s, err := w.store.GetBreaker(w.t.Context(), e.Tenant, e.ID, true)
	if err != nil {
		w.t.Fatal(err)
	}
	return s.Slow(time.Now())
}

func TestAnAttemptMarksItsEndpointAsSlowWhileItIsUnderWay(t *testing.T) {
	for name, c := range map[string]struct {
		takes time.Duration
		at    time.Duration
		want  bool
	}{
		"an answer within a second":               {999 * time.Millisecond, 2 * time.Second, false},
		"just before a second is over":            {time.Hour, 999 * time.Millisecond, false},
		"a second after it began":                 {time.Hour, time.Second + time.Millisecond, true},
		"as long as it is under way, it is again": {time.Hour, 25 * time.Second, true},
		"fifteen seconds after its latest mark":   {time.Hour, 40 * time.Second, false},
		"an answer after 1.5 s, a while later":    {1500 * time.Millisecond, 15 * time.Second, true},
		"it leaves the lane":                      {1500 * time.Millisecond, 16500 * time.Millisecond, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, _ := newLanes(t)
				e := w.endpoint(func(e *endpoint.Endpoint) { e.Timeout = 22 * time.Second })
				item := w.fannedOut()
				w.receiver.answer = answeringAfter(c.takes)
				go w.deliver(item)
				time.Sleep(c.at)
				if got := w.slow(e); got != c.want {
					t.Errorf("after %s, slow is %t, want %t", c.at, got, c.want)
				}
				time.Sleep(time.Minute)
			})
		})
	}
}

// Twenty attempts of 30 s under way at once, in four workers.
func TestAMarkCostsOneWritePerFewSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var marks atomic.Int64
		w, _ := newLanes(t, func(c *dispatch.Config) { c.Breakers = countedMarks{c.Breakers, &marks} })
		w.endpoint(func(e *endpoint.Endpoint) { e.Timeout = 29 * time.Second })
		w.receiver.answer = answeringAfter(28 * time.Second)
		for n := range 20 {
			worker := w.Dispatcher
			if n%5 == 0 {
				worker = dispatch.New(w.Config)
			}
			item := w.fannedOut()
			go w.deliverBy(worker, item)
		}
		time.Sleep(time.Minute)
		if n := marks.Load(); n < 2 || n > 6 {
			t.Errorf("%d marks in 28 s, want one each 5 s", n)
		}
	})
}

type countedMarks struct {
	dispatch.Breakers
	marks *atomic.Int64
}

func (c countedMarks) PutBreaker(ctx context.Context, s breaker.State, now time.Time) (breaker.State, error) {
	stored, err := c.Breakers.PutBreaker(ctx, s, now)
	if err == nil && !s.SlowUntil.IsZero() {
		c.marks.Add(1)
	}
	return stored, err
}

func TestDeliveriesOfASlowEndpointMoveToTheSlowQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, slow := newLanes(t)
		e := w.endpoint()
		first, second, third := w.fannedOut(), w.fannedOut(), w.fannedOut()
		w.receiver.answer = answeringAfter(3 * time.Second)
		w.deliver(first)
		w.receiver.answer = nil
		if failed := w.deliver(second); len(failed) > 0 || w.receiver.count() != 1 {
			t.Fatalf("failed %v, and %d attempts; the second belongs on the slow queue", failed, w.receiver.count())
		}
		moved := slow.take()
		if len(moved) != 1 || !moved[0].Slow || moved[0].EventID != second.EventID || string(moved[0].Body) != string(second.Body) || moved[0].Delay != 0 {
			t.Fatalf("on the slow queue: %+v", moved)
		}
		w.deliver(moved...)
		if d := w.delivery(second); d.State != delivery.Delivered || len(slow.take()) > 0 {
			t.Errorf("from the slow queue: %+v", d)
		}
		time.Sleep(breaker.SlowLaneFor)
		if w.deliver(third); w.delivery(third).State != delivery.Delivered || w.slow(e) {
			t.Error("the endpoint does not leave the slow lane")
		}
	})
}

func TestADeliveryIsAttemptedIfItCannotBeMovedToTheSlowQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, slow := newLanes(t)
		w.endpoint()
		first, second := w.fannedOut(), w.fannedOut()
		w.receiver.answer = answeringAfter(3 * time.Second)
		w.deliver(first)
		slow.fail = func(work.Item) error { return errors.New("access denied") }
		if failed := w.deliver(second); len(failed) > 0 {
			t.Errorf("failed: %v", failed)
		}
		if d := w.delivery(second); d.State != delivery.Delivered {
			t.Errorf("%+v", d)
		}
	})
}

func TestRetriesUseTheLaneOfTheirAttempt(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(context.Context, destination.Message) delivery.Outcome
		slow   bool
	}{
		"a timeout":       {answeringAfter(time.Hour), true},
		"a quick failure": {answering(503), false},
		"a second": {func(context.Context, destination.Message) delivery.Outcome {
			return delivery.Outcome{Class: delivery.Answered, Status: 503, Timings: delivery.Timings{Total: breaker.SlowLaneAfter}}
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, slow := newLanes(t)
				w.endpoint()
				w.receiver.answer = c.answer
				w.deliver(w.fannedOut())
				if inSlow, inWork := slow.take(), w.queue.take(); len(inSlow)+len(inWork) != 1 || (len(inSlow) == 1) != c.slow {
					t.Errorf("on the slow queue %+v, on the work queue %+v", inSlow, inWork)
				}
			})
		})
	}
}

// A batch for both queues: each error belongs to the item that was not sent.
func TestErrorsOfTwoQueuesBelongToTheirItems(t *testing.T) {
	for name, broken := range map[string]bool{"the work queue fails": false, "the slow queue fails": true} {
		t.Run(name, func(t *testing.T) {
			w, slow := newLanes(t)
			fail := func(work.Item) error { return errors.New("try again") }
			if broken {
				slow.fail = fail
			} else {
				w.queue.fail = fail
			}
			items := []work.Item{{EventID: "1"}, {EventID: "2", Slow: true}, {EventID: "3"}, {EventID: "4", Slow: true}}
			errs := w.Queue.Send(t.Context(), items)
			if len(errs) != len(items) {
				t.Fatalf("errors: %v", errs)
			}
			for i, item := range items {
				if (errs[i] != nil) != (item.Slow == broken) {
					t.Errorf("item %s: %v", item.EventID, errs[i])
				}
			}
			if n := len(w.queue.take()) + len(slow.take()); n != 2 {
				t.Errorf("%d were sent, want 2", n)
			}
		})
	}
}
