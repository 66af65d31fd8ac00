package dispatch_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/journal"
)

var errStore = errors.New("the table does not answer")

// unwell is a store of which some operations fail, by name.
type unwell struct {
	dispatch.Deliveries
	dispatch.DueIndex
	dispatch.Waiting
	dispatch.Limits
	dispatch.Replays
	fails map[string]error
	calls map[string]int
	mu    sync.Mutex
}

// in puts the store between a dispatcher and its own.
func (u *unwell) in(c *dispatch.Config) {
	u.Deliveries, u.DueIndex, u.Waiting, u.Limits, u.Replays, u.calls = c.Deliveries, c.Due, c.Waiting, c.Limits, c.Replays, map[string]int{}
	c.Deliveries, c.Due, c.Waiting, c.Limits, c.Replays = u, u, u, u, u
}

func (u *unwell) call(name string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.calls[name]++
	return u.fails[name]
}

func (u *unwell) Claim(ctx context.Context, c delivery.Claim) (delivery.Delivery, error) {
	if err := u.call("claim"); err != nil {
		return delivery.Delivery{}, err
	}
	return u.Deliveries.Claim(ctx, c)
}

func (u *unwell) Complete(ctx context.Context, d delivery.Delivery) error {
	if err := u.call("complete"); err != nil {
		return err
	}
	return u.Deliveries.Complete(ctx, d)
}

func (u *unwell) Settle(ctx context.Context, s delivery.Settle) error {
	if err := u.call("settle"); err != nil {
		return err
	}
	return u.Deliveries.Settle(ctx, s)
}

func (u *unwell) Park(ctx context.Context, p delivery.Park) (delivery.Delivery, error) {
	if err := u.call("park"); err != nil {
		return delivery.Delivery{}, err
	}
	return u.Deliveries.Park(ctx, p)
}

func (u *unwell) GetDelivery(ctx context.Context, k delivery.Key) (delivery.Delivery, error) {
	if err := u.call("get"); err != nil {
		return delivery.Delivery{}, err
	}
	return u.Deliveries.GetDelivery(ctx, k)
}

func (u *unwell) Due(ctx context.Context, shard int, before time.Time, cursor string, limit int) ([]delivery.Due, string, error) {
	if err := u.call("due"); err != nil {
		return nil, "", err
	}
	return u.DueIndex.Due(ctx, shard, before, cursor, limit)
}

func (u *unwell) ListBacklog(ctx context.Context, endpointID, after string, limit int) (delivery.Backlog, error) {
	if err := u.call("backlog"); err != nil {
		return delivery.Backlog{}, err
	}
	return u.Waiting.ListBacklog(ctx, endpointID, after, limit)
}

func (u *unwell) Reserve(ctx context.Context, key string, r ratelimit.Reservation) (time.Time, bool, error) {
	if err := u.call("reserve"); err != nil {
		return time.Time{}, false, err
	}
	return u.Limits.Reserve(ctx, key, r)
}

func (u *unwell) Replay(ctx context.Context, r delivery.Replay) (delivery.Delivery, error) {
	if err := u.call("replay"); err != nil {
		return delivery.Delivery{}, err
	}
	return u.Replays.Replay(ctx, r)
}

// limited gives an endpoint a rate limit.
func limited(e *endpoint.Endpoint) { e.Limit = ratelimit.Limit{PerMinute: 60, Burst: 5} }

// draining puts deliveries into the backlog of an endpoint, and lets its circuit drain.
func (w *world) draining(e endpoint.Endpoint, n int) (items []work.Item, wake work.Item) {
	w.t.Helper()
	s := w.putCircuit(breaker.State{Tenant: e.Tenant, EndpointID: e.ID, Phase: breaker.Open, Since: time.Now(), OpenFor: time.Hour, Until: time.Now().Add(time.Hour), WakeAt: time.Now().Add(time.Hour)})
	items = w.accept(n)
	for _, item := range items {
		w.deliver(item)
	}
	s = w.putCircuit(s.Close(time.Now()))
	w.queue.take()
	time.Sleep(dispatch.CircuitTime)
	return items, wakeOf(s)
}

// Whatever the tables refuse, the message whose fate depends on it is not acknowledged.
func TestAMessageIsNotAcknowledgedWhileATableFails(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(*endpoint.Endpoint)
		prepare func(*world, endpoint.Endpoint) work.Message
		fails   string
		err     error
		failed  int
	}{
		"claim":    {nil, fresh, "claim", errStore, 1},
		"verdict":  {nil, fresh, "complete", errStore, 1},
		"fenced":   {nil, fresh, "complete", delivery.ErrFenced, 0},
		"settle":   {disabled, fresh, "settle", errStore, 1},
		"reserve":  {limited, fresh, "reserve", errStore, 1},
		"received": {limited, again, "get", errStore, 1},
		"received, and another slot": {limited, func(w *world, _ endpoint.Endpoint) work.Message {
			item := w.fannedOut()
			item.Slot = time.Now().Add(time.Second)
			return work.Message{Body: item.Encode()}
		}, "reserve", nil, 0},
		"park for a slot": {limited, func(w *world, _ endpoint.Endpoint) work.Message {
			item := w.fannedOut()
			item.Slot = time.Now().Add(5 * time.Second)
			return work.Message{Body: item.Encode()}
		}, "park", errStore, 1},
		"park in the backlog": {nil, func(w *world, e endpoint.Endpoint) work.Message {
			w.putCircuit(breaker.State{Tenant: e.Tenant, EndpointID: e.ID, Phase: breaker.Open, Until: time.Now().Add(time.Hour), WakeAt: time.Now().Add(time.Hour)})
			return fresh(w, e)
		}, "park", errStore, 1},
		"a probe's backlog": {nil, func(w *world, e endpoint.Endpoint) work.Message {
			return work.Message{Body: wakeOf(w.putCircuit(breaker.State{Tenant: e.Tenant, EndpointID: e.ID, Phase: breaker.Open, Until: time.Now(), WakeAt: time.Now()})).Encode()}
		}, "backlog", errStore, 1},
		"a drain's backlog": {nil, drained, "backlog", errStore, 1},
		"a drain's slots":   {limited, drained, "reserve", errStore, 1},
		"what a drain settles": {func(e *endpoint.Endpoint) { e.Retry.MaxAge = time.Minute }, func(w *world, e endpoint.Endpoint) work.Message {
			m := drained(w, e)
			time.Sleep(2 * time.Minute)
			return m
		}, "settle", errStore, 1},
		"a backlog to be skipped": {disabled, drained, "backlog", errStore, 1},
		"what is to be skipped": {nil, func(w *world, e endpoint.Endpoint) work.Message {
			m := drained(w, e)
			w.setStatus(e, endpoint.Disabled)
			return m
		}, "settle", errStore, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &unwell{}
				w := newWorld(t, store.in)
				change := c.change
				if change == nil {
					change = func(*endpoint.Endpoint) {}
				}
				off := false
				e := w.endpoint(func(e *endpoint.Endpoint) {
					change(e)
					off, e.Status = e.Status == endpoint.Disabled, endpoint.Enabled
				})
				m := c.prepare(w, e)
				if off {
					w.setStatus(e, endpoint.Disabled)
				}
				store.fails = map[string]error{c.fails: c.err}
				if failed := dispatch.New(w.Config).Deliver(t.Context(), []work.Message{m}); len(failed) != c.failed {
					t.Errorf("not acknowledged: %v, want %d", failed, c.failed)
				}
				store.fails = nil
			})
		})
	}
}

func disabled(e *endpoint.Endpoint) { e.Status = endpoint.Disabled }

func fresh(w *world, _ endpoint.Endpoint) work.Message {
	return work.Message{Body: w.fannedOut().Encode(), Receives: 1}
}

func again(w *world, e endpoint.Endpoint) work.Message {
	m := fresh(w, e)
	m.Receives = 2
	return m
}

func drained(w *world, e endpoint.Endpoint) work.Message {
	_, wake := w.draining(e, 3)
	return work.Message{Body: wake.Encode()}
}

// A first receive needs no look at its delivery, and one without a limit needs none ever.
func TestOnlyARepeatedMessageWithoutASlotIsLookedUp(t *testing.T) {
	for name, c := range map[string]struct {
		change   func(*endpoint.Endpoint)
		receives int
		want     int
	}{
		"first":            {limited, 1, 0},
		"second":           {limited, 2, 1},
		"second, no limit": {func(*endpoint.Endpoint) {}, 2, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			store := &unwell{}
			w := newWorld(t, store.in)
			w.endpoint(c.change)
			m := fresh(w, endpoint.Endpoint{})
			m.Receives = c.receives
			w.Deliver(t.Context(), []work.Message{m})
			if store.calls["get"] != c.want || w.receiver.count() != 1 {
				t.Errorf("%s: %d reads of the delivery, %d attempts", name, store.calls["get"], w.receiver.count())
			}
		})
	}
}

// What is in the backlog keeps its place there: that its message must wait writes nothing.
func TestAMessageOfTheBacklogThatMustWaitWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &unwell{}
		w := newWorld(t, store.in)
		e := w.endpoint(openFor(time.Hour))
		w.outage()
		item := w.fannedOut()
		w.deliver(item)
		parks := store.calls["park"]
		item.Backlog = true
		w.Deliver(t.Context(), []work.Message{{Body: item.Encode(), Receives: 1}})
		if store.calls["park"] != parks {
			t.Error("it is parked again")
		}
		// For a slot, only its message waits.
		w.putCircuit(w.circuit(e).Reset())
		time.Sleep(dispatch.CircuitTime)
		e.Limit = ratelimit.Limit{PerMinute: 60, Burst: 5}
		if _, err := w.store.UpdateEndpoint(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		w.queue.take()
		item.Slot = time.Now().Add(5300 * time.Millisecond)
		worker := dispatch.New(w.Config)
		if failed := w.deliverBy(worker, item); len(failed) != 0 || store.calls["park"] != parks {
			t.Errorf("not acknowledged: %v", failed)
		}
		if sent := w.queue.take(); len(sent) != 1 || !sent[0].Slot.Equal(item.Slot) || sent[0].Delay != 5*time.Second || !sent[0].Backlog {
			t.Errorf("queued %+v", sent)
		}
		w.queue.fail = func(work.Item) error { return errStore }
		if failed := w.deliverBy(worker, item); len(failed) != 1 {
			t.Error("acknowledged, although it could not be put back")
		}
	})
}

// A slot that is not far away is waited for; before a later one the delivery is stored, to
// the next millisecond, and its message keeps the event.
func TestASlotIsWaitedForOrStored(t *testing.T) {
	for wait, stored := range map[time.Duration]bool{1100 * time.Millisecond: false, 1101 * time.Millisecond: true, 5*time.Second + 300*time.Microsecond: true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.endpoint(limited)
			item := w.fannedOut()
			began := time.Now()
			item.Slot = began.Add(wait)
			w.deliver(item)
			sent := w.queue.take()
			if !stored {
				if w.receiver.count() != 1 || w.receiver.at[0].Sub(began) != wait || len(sent) != 0 {
					t.Errorf("%s: attempts at %v", wait, w.receiver.at)
				}
				return
			}
			slot := began.Add((wait + time.Millisecond - 1).Truncate(time.Millisecond))
			d := w.delivery(item)
			if w.receiver.count() != 0 || !d.Slot.Equal(slot) || !d.DueAt.Equal(slot.Add(dispatch.Backstop)) {
				t.Errorf("%s: %d attempts, stored %+v", wait, w.receiver.count(), d)
			}
			if len(sent) != 1 || !sent[0].Slot.Equal(slot) || sent[0].Delay != wait.Truncate(time.Second) || len(sent[0].Body) == 0 {
				t.Errorf("%s: queued %+v", wait, sent)
			}
		})
	}
}

// A message of a settled delivery that would have to wait is dropped, and holds no drain open.
func TestAMessageOfASettledDeliveryDoesNotWait(t *testing.T) {
	for name, change := range map[string]func(*work.Item){
		"for a slot":     func(i *work.Item) { i.Slot = time.Now().Add(5 * time.Second) },
		"in the backlog": func(*work.Item) {},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			e := w.endpoint(func(e *endpoint.Endpoint) { e.Limit = ratelimit.Limit{PerMinute: 1, Burst: 2} })
			item := w.fannedOut()
			w.deliver(item)
			if name == "in the backlog" {
				w.deliver(w.accept(30)...) // there is no slot soon
				w.putCircuit(w.circuit(e).Reset())
				time.Sleep(dispatch.CircuitTime)
			}
			w.queue.take()
			change(&item)
			failed, before := w.deliver(item), w.circuit(e)
			if sent := w.queue.take(); len(failed) != 0 || len(sent) != 0 || before.Phase != breaker.Closed {
				t.Errorf("%s: not acknowledged: %v, queued %+v, the circuit is %+v", name, failed, sent, before)
			}
		})
	}
}

// The first delivery that waits begins the drain; the others wait with it.
func TestOneWakeUpIsQueuedForABacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint(func(e *endpoint.Endpoint) { e.Limit = ratelimit.Limit{PerMinute: 1, Burst: 2} })
		items := w.accept(40)
		w.deliver(items...)
		wakes, waiting := 0, 0
		for _, sent := range w.queue.take() {
			if sent.Wake {
				wakes++
				if sent.Delay != time.Second {
					t.Errorf("queued %+v", sent)
				}
			}
		}
		if s := w.circuit(e); wakes != 1 || s.Phase != breaker.Draining {
			t.Errorf("%d wake-ups, the circuit is %+v", wakes, s)
		}
		for _, item := range items {
			made, err := event.IDTime(item.EventID)
			d := w.delivery(item)
			if err != nil || d.InBacklog && !d.DueAt.Equal(made.Add(e.Retry.AgeLimit()+time.Millisecond)) {
				t.Errorf("it waits until %s, as %+v", d.DueAt, d)
			}
			if d.InBacklog {
				waiting++
			}
		}
		if waiting < 20 {
			t.Errorf("%d wait in the backlog", waiting)
		}
	})
}

// A batch asks for its slots once or, if there are fewer, twice.
func TestABatchBeyondTheHorizonReservesTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &unwell{}
		w := newWorld(t, store.in)
		w.endpoint(limited)
		w.deliver(w.accept(60)...)
		if store.calls["reserve"] != 2 {
			t.Errorf("%d reservations", store.calls["reserve"])
		}
	})
}

// A refused message goes back to the queue unless the sweep is sure to queue it in time.
func TestARefusedMessageIsDroppedOnlyIfTheSweepHasIt(t *testing.T) {
	const far = work.MaxDelay + time.Second
	for name, c := range map[string]struct {
		cause delivery.Cause
		wait  time.Duration
		due   time.Duration // after the wait; -1 for none
		back  int
	}{
		"early, due then":            {delivery.CauseEarly, far, 0, 0},
		"early, due at its backstop": {delivery.CauseEarly, far, dispatch.Backstop, 0},
		"early, due after that":      {delivery.CauseEarly, far, dispatch.Backstop + time.Millisecond, 1},
		"early, not due":             {delivery.CauseEarly, far, -1, 1},
		"early, in the queue's time": {delivery.CauseEarly, work.MaxDelay, 0, 1},
		"in flight, due then":        {delivery.CauseInFlight, far, 0, 1},
		"settled":                    {delivery.CauseSettled, 0, -1, 0},
		"superseded":                 {delivery.CauseSuperseded, 0, -1, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			store := &unwell{}
			w := newWorld(t, store.in)
			w.endpoint()
			item := w.fannedOut()
			refusal := &delivery.Refusal{Cause: c.cause, Until: time.Now().Add(c.wait), Attempts: 7}
			if c.due >= 0 {
				refusal.DueAt = refusal.Until.Add(c.due)
			}
			store.fails = map[string]error{"claim": refusal}
			failed := w.deliver(item)
			sent := w.queue.take()
			if len(failed) != 0 || len(sent) != c.back || len(sent) == 1 && (sent[0].Delay != work.MaxDelay || sent[0].Attempts != 7) {
				t.Errorf("%s: not acknowledged: %v, queued %+v", name, failed, sent)
			}
		})
	}
}

// A worker that waits for a slot until its invocation is cancelled must not acknowledge.
func TestAWaitForASlotEndsWithTheInvocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.endpoint(limited)
		item := w.fannedOut()
		item.Slot = time.Now().Add(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if failed := w.Deliver(ctx, []work.Message{{ID: "m", Body: item.Encode()}}); len(failed) != 1 || w.receiver.count() != 0 {
			t.Errorf("not acknowledged: %v, %d attempts", failed, w.receiver.count())
		}
	})
}

func TestAMessageThatAnInvocationHasNoTimeForGoesBackOrStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.endpoint()
		item := w.fannedOut()
		w.queue.fail = func(work.Item) error { return errStore }
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if failed := w.Deliver(ctx, []work.Message{{ID: "m", Body: item.Encode()}}); len(failed) != 1 {
			t.Errorf("not acknowledged: %v", failed)
		}
	})
}

// Suspects wait for up to half a minute, and those that make no sense are left to the queue.
func TestSuspectsAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *dispatch.Config) { c.Random = func() float64 { return 0.5 } })
		w.endpoint()
		items := w.accept(2)
		w.queue.take()
		batch := []work.Message{{ID: "0", Body: items[0].Encode(), Receives: 3}, {ID: "1", Body: "{", Receives: 3}, {ID: "2", Body: items[1].Encode(), Receives: 3}, {ID: "3", Body: "{", Receives: 3}}
		failed := w.Deliver(t.Context(), batch) // the third is chosen
		sent := w.queue.take()
		if !slices.Equal(failed, []string{"1", "3"}) || w.receiver.count() != 1 || len(sent) != 1 || sent[0].EventID != items[0].EventID || sent[0].Delay != 15*time.Second {
			t.Errorf("not acknowledged: %v, %d attempts, queued %+v", failed, w.receiver.count(), sent)
		}
	})
}

// A retry begins its life as a dead letter anew: it was processed.
func TestARetryIsNotCountedAsRedriven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.endpoint()
		w.receiver.answer = lost
		item := w.fannedOut()
		item.Redriven = 3
		w.deliver(item)
		if sent := w.queue.take(); len(sent) != 1 || sent[0].Redriven != 0 {
			t.Errorf("queued %+v", sent)
		}
	})
}

// The age of a skipped delivery counts from its event, or from what its message says.
func TestASkippedDeliveryHasTheAgeOfItsEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint()
		items := w.accept(3)
		items[1].Since = time.Now().Add(-time.Minute)
		items[2].EventID = "7"
		w.setStatus(e, endpoint.Disabled)
		time.Sleep(time.Hour)
		if failed := w.deliver(items...); !slices.Equal(failed, []string{"m2"}) {
			t.Errorf("not acknowledged: %v; want that whose id has no time", failed)
		}
		made, err := event.IDTime(items[0].EventID)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []time.Time{made, items[1].Since} {
			if d := w.delivery(items[i]); d.State != delivery.Skipped || !d.Since.Equal(want) {
				t.Errorf("number %d: %s since %s, want %s", i, d.State, d.Since, want)
			}
		}
	})
}

// A worker that was overtaken, and whose endpoint must be disabled and cannot be, comes again.
func TestAnOvertakenWorkerReportsThatItCouldNotDisable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &unwell{}
		w := newWorld(t, store.in)
		e := w.endpoint()
		w.putCircuit(breaker.State{
			Tenant: e.Tenant, EndpointID: e.ID, Phase: breaker.Open, Failures: 9, FailingSince: time.Now().Add(-breaker.DefaultDisableAfter),
			FailedAt: time.Now().Add(-time.Hour), OpenFor: time.Hour, Until: time.Now(), WakeAt: time.Now(),
		})
		w.Config.Disabler = absentTable{}
		w.receiver.answer = answering(503)
		store.fails = map[string]error{"complete": delivery.ErrFenced}
		if failed := w.deliverBy(dispatch.New(w.Config), w.fannedOut()); len(failed) != 1 {
			t.Errorf("not acknowledged: %v", failed)
		}
	})
}

func TestAnUnknownCommandIsRefused(t *testing.T) {
	w := newWorld(t)
	if done, err := w.Run(t.Context(), dispatch.Command{Action: "explode"}); err == nil {
		t.Errorf("done: %+v", done)
	}
}

func TestJitterHasADefault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *dispatch.Config) { c.Random = nil })
		w.endpoint()
		w.receiver.answer = lost
		waits := map[time.Duration]bool{}
		for range 20 {
			w.deliver(w.fannedOut())
			for _, sent := range w.queue.take() {
				waits[sent.Delay] = true
			}
		}
		if len(waits) < 10 {
			t.Errorf("twenty retries wait for %v", waits)
		}
	})
}

// busy counts what is under way at the same time.
type busy struct {
	dispatch.Deliveries
	dispatch.DueIndex
	dispatch.Journal
	mu   sync.Mutex
	now  map[string]int
	most map[string]int
}

func (b *busy) during(name string) {
	b.mu.Lock()
	b.now[name]++
	b.most[name] = max(b.most[name], b.now[name])
	b.mu.Unlock()
	time.Sleep(100 * time.Millisecond)
	b.mu.Lock()
	b.now[name]--
	b.mu.Unlock()
}

func (b *busy) Settle(ctx context.Context, s delivery.Settle) error {
	b.during("settle")
	return b.Deliveries.Settle(ctx, s)
}

func (b *busy) Due(ctx context.Context, shard int, before time.Time, cursor string, limit int) ([]delivery.Due, string, error) {
	b.during("due")
	return b.DueIndex.Due(ctx, shard, before, cursor, limit)
}

func (b *busy) Postpone(ctx context.Context, d delivery.Due, to time.Time) (delivery.Delivery, error) {
	b.during("postpone")
	return b.DueIndex.Postpone(ctx, d, to)
}

func (b *busy) PutJournal(ctx context.Context, i journal.Item) error {
	b.during("journal")
	return b.Journal.PutJournal(ctx, i)
}

// A table gets a bounded number of requests at a time, and more than one.
func TestConcurrentRequestsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &busy{now: map[string]int{}, most: map[string]int{}}
		w := newWorld(t, func(c *dispatch.Config) {
			b.Deliveries, b.DueIndex, b.Journal = c.Deliveries, c.Due, c.Journal
			c.Deliveries, c.Due, c.Journal = b, b, b
		})
		e := w.endpoint()
		w.receiver.answer = func(context.Context, destination.Message) delivery.Outcome {
			return delivery.Outcome{Class: delivery.Lost}
		}
		w.deliver(w.accept(600)...) // their retries are due in sixteen shards
		w.queue.take()
		time.Sleep(time.Hour)
		if swept, err := w.Sweep(t.Context()); err != nil || swept.Queued != 600 {
			t.Fatalf("swept %+v, %v", swept, err)
		}
		_, wake := w.draining(e, 100)
		w.setStatus(e, endpoint.Disabled)
		w.deliver(wake)
		var batch []event.Change
		for i := range 20 {
			accepted, record := w.event("user.posted_comment", comment)
			accepted.Tenant = "tenant-" + string(rune('a'+i))
			record.Event = accepted
			batch = append(batch, record)
		}
		w.FanOut(t.Context(), batch)
		for name, want := range map[string]int{"settle": 32, "due": 4, "postpone": 32, "journal": 8} {
			if b.most[name] != want {
				t.Errorf("%s: %d at the same time, want %d", name, b.most[name], want)
			}
		}
	})
}
