package dispatch_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
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
)

// drive simulates the queue and the schedule: items arrive when their delay is over, in
// concurrent batches of up to ten, each processed by the next of the workers.
func (w *world) drive(span time.Duration, workers ...*dispatch.Dispatcher) {
	w.t.Helper()
	if len(workers) == 0 {
		workers = []*dispatch.Dispatcher{w.Dispatcher}
	}
	type waiting struct {
		at   time.Time
		item work.Item
	}
	var list []waiting
	var batches sync.WaitGroup
	next := 0
	sweepAt := time.Now()
	for end := time.Now().Add(span); time.Now().Before(end); time.Sleep(w.tick) {
		if !time.Now().Before(sweepAt) {
			sweepAt = sweepAt.Add(time.Minute)
			if _, err := w.Sweep(w.t.Context()); err != nil {
				w.t.Fatal(err)
			}
		}
		for _, sent := range w.queue.take() {
			// SQS counts whole seconds; the queue rounds up.
			delay := (sent.Delay + time.Second - 1).Truncate(time.Second)
			list = append(list, waiting{time.Now().Add(delay), sent})
		}
		var due []work.Item
		list = slices.DeleteFunc(list, func(x waiting) bool {
			if x.at.After(time.Now()) {
				return false
			}
			due = append(due, x.item)
			return true
		})
		for batch := range slices.Chunk(due, 10) {
			worker := workers[next%len(workers)]
			next++
			batches.Go(func() { w.deliverBy(worker, batch...) })
		}
	}
	batches.Wait()
}

// accept fans out n events a millisecond apart, so that their IDs are in order.
func (w *world) accept(n int) []work.Item {
	w.t.Helper()
	items := make([]work.Item, n)
	for i := range items {
		items[i] = w.fannedOut()
		time.Sleep(time.Millisecond)
	}
	return items
}

func (w *world) circuit(e endpoint.Endpoint) breaker.State {
	w.t.Helper()
	s, err := w.store.GetBreaker(w.t.Context(), e.Tenant, e.ID, true)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// outage attempts five events that the receiver refuses, three seconds apart: enough to
// open a circuit. The events' retries stay in the queue.
func (w *world) outage() (items []work.Item) {
	w.t.Helper()
	w.receiver.answer = answering(503)
	for range breaker.DefaultFailures {
		time.Sleep(3 * time.Second)
		item := w.fannedOut()
		w.deliver(item)
		items = append(items, item)
	}
	return items
}

// openFor sets how long a circuit stays open at first.
func openFor(d time.Duration) func(*endpoint.Endpoint) {
	return func(e *endpoint.Endpoint) { e.Breaker.OpenFor = d }
}

// requeue sends items to the queue.
func (w *world) requeue(items ...work.Item) { w.queue.Send(w.t.Context(), items) }

func TestFiveFailuresOpenTheCircuitAndTheBacklogUsesNoAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint(openFor(5 * time.Minute))
		w.outage()
		w.queue.take()
		s := w.circuit(e)
		if s.Phase != breaker.Open || s.OpenFor != 5*time.Minute || s.Cause == "" {
			t.Fatalf("after five failures: %+v", s)
		}
		waiting := w.accept(20)
		w.requeue(waiting...)
		w.drive(4 * time.Minute)
		if got := w.receiver.count(); got != 5 {
			t.Errorf("the receiver was asked %d times while its circuit was open, want 5 before", got)
		}
		for _, item := range waiting {
			if d := w.delivery(item); d.State != delivery.Pending || !d.InBacklog || d.Attempts != 0 || d.EventType == "" || d.Reason == "" {
				t.Fatalf("waits as %+v", d)
			}
		}
	})
}

func TestTheBacklogIsDrainedOldestFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *dispatch.Config) { c.Random = rand.Float64 })
		e := w.endpoint(openFor(5 * time.Minute))
		failed := w.outage()
		items := w.accept(250)
		w.requeue(items...)
		w.drive(time.Minute)
		before := w.receiver.count()
		w.receiver.answer = nil
		opened := w.circuit(e)
		w.drive(15 * time.Minute)
		for _, item := range append(failed, items...) {
			if d := w.delivery(item); d.State != delivery.Delivered {
				t.Fatalf("%s is %s", item.EventID, d.State)
			}
		}
		if s := w.circuit(e); !s.Clean() || !s.WakeAt.IsZero() {
			t.Errorf("the circuit is left as %+v", s)
		}
		flowed := w.receiver.at[before:]
		if first := flowed[0]; first.Before(opened.Until) || first.After(opened.Until.Add(2*time.Second)) {
			t.Errorf("the probe went %s from its time", first.Sub(opened.Until))
		}
		// Spread, at the rate of a draining and not all at once; in the order of
		// their events but for the jitter and a batch.
		if span := flowed[len(flowed)-1].Sub(flowed[1]); span < 4*time.Second {
			t.Errorf("250 waiting deliveries came within %s", span)
		}
		misplaced := 0
		for i, m := range w.receiver.got[before+1:] {
			place := slices.IndexFunc(items, func(x work.Item) bool { return x.EventID == m.EventID })
			if place >= 0 && (place-i > 70 || i-place > 70) {
				misplaced++
			}
		}
		if misplaced > 0 {
			t.Errorf("%d of 250 came more than a second's worth out of their order", misplaced)
		}
	})
}

func TestManyWorkersSendOneProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		workers := []*dispatch.Dispatcher{w.Dispatcher}
		for range 63 {
			workers = append(workers, dispatch.New(w.Config))
		}
		e := w.endpoint(openFor(5 * time.Minute))
		w.outage()
		w.queue.take()
		time.Sleep(5 * time.Minute)
		var under, most int
		var mu sync.Mutex
		w.receiver.answer = func(context.Context, destination.Message) delivery.Outcome {
			mu.Lock()
			under++
			most = max(most, under)
			mu.Unlock()
			time.Sleep(5 * time.Second)
			mu.Lock()
			under--
			mu.Unlock()
			return delivery.Outcome{Class: delivery.Answered, Status: 503, Error: "no"}
		}
		before := w.receiver.count()
		var all sync.WaitGroup
		for i, item := range w.accept(64) {
			all.Go(func() { w.deliverBy(workers[i], item) })
		}
		all.Wait()
		if probes := w.receiver.count() - before; probes != 1 || most != 1 {
			t.Errorf("64 workers sent %d probes, %d at once; want one", probes, most)
		}
		if s := w.circuit(e); s.Phase != breaker.Open || s.OpenFor != 10*time.Minute {
			t.Errorf("after the probe failed: %+v, want open for twice as long", s)
		}
	})
}

// The failures result in equal states, and would overwrite each other without WriteID.
func TestSimultaneousFailuresAllCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint()
		refuse := answering(503)
		w.receiver.answer = func(ctx context.Context, m destination.Message) delivery.Outcome {
			time.Sleep(500 * time.Millisecond)
			return refuse(ctx, m)
		}
		var all sync.WaitGroup
		for _, item := range w.accept(breaker.DefaultFailures) {
			other := *w
			other.Dispatcher = dispatch.New(w.Config)
			all.Go(func() { other.deliver(item) })
		}
		all.Wait()
		if s := w.circuit(e); s.Phase != breaker.Closed || s.Failures != breaker.DefaultFailures {
			t.Errorf("after %d failures at once the circuit is %+v", breaker.DefaultFailures, s)
		}
	})
}

func TestTheProbeOfADeadWorkerIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint(openFor(5 * time.Minute))
		w.outage()
		s := w.circuit(e)
		time.Sleep(5 * time.Minute)
		s, ok := s.ClaimProbe("of a worker that died", time.Now(), 25*time.Second)
		if !ok {
			t.Fatal("no probe")
		}
		if _, err := w.store.PutBreaker(t.Context(), s, time.Now()); err != nil {
			t.Fatal(err)
		}
		w.receiver.answer = nil
		items := w.accept(3)
		w.requeue(items...)
		w.drive(5 * time.Minute)
		for _, item := range items {
			if d := w.delivery(item); d.State != delivery.Delivered {
				t.Errorf("%s is %s", item.EventID, d.State)
			}
		}
	})
}

func TestARejectedEventDoesNotKeepTheCircuitOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.endpoint()
		poison := w.fannedOut()
		w.receiver.answer = func(_ context.Context, m destination.Message) delivery.Outcome {
			if m.EventID == poison.EventID {
				return delivery.Outcome{Class: delivery.Answered, Status: 500, Error: "the receiver answered 500"}
			}
			return delivery.Outcome{Class: delivery.Success, Status: 200}
		}
		w.requeue(poison)
		w.drive(2 * time.Minute) // it fails alone, until the circuit opens
		items := w.accept(20)
		w.requeue(items...)
		w.drive(12 * time.Minute)
		for _, item := range items {
			if d := w.delivery(item); d.State != delivery.Delivered {
				t.Errorf("behind the poison, %s is %s: %s", item.EventID, d.State, d.Reason)
			}
		}
	})
}

func TestFiveDaysOfFailuresDisableTheEndpointAndSkipItsBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint(openFor(5 * time.Minute))
		w.outage()
		w.tick = 5 * time.Second
		began := time.Now()
		var latest []work.Item
		for day := range 6 {
			latest = append(latest, w.accept(1)...)
			w.requeue(latest[day])
			w.drive(24 * time.Hour)
		}
		now, err := w.store.GetEndpoint(t.Context(), e.Tenant, e.ID)
		if err != nil || now.Status != endpoint.Disabled {
			t.Fatalf("after six failing days: %+v, %v", now.Status, err)
		}
		if after := now.UpdatedAt.Sub(began); after < breaker.DefaultDisableAfter || after > breaker.DefaultDisableAfter+2*time.Hour {
			t.Errorf("disabled after %s", after)
		}
		for i, item := range latest {
			if d := w.delivery(item); !d.State.Settled() || d.Reason == "" {
				t.Errorf("the event of day %d is %s (%s)", i, d.State, d.Reason)
			}
		}
		if s := w.circuit(e); !s.Clean() || !s.WakeAt.IsZero() {
			t.Errorf("its circuit is left as %+v", s)
		}
	})
}

func TestADeliveryInTheBacklogExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.endpoint(func(e *endpoint.Endpoint) { e.Retry.MaxAge = 10 * time.Minute })
		w.outage()
		w.queue.take()
		items := w.accept(3)
		w.requeue(items...)
		w.drive(30 * time.Minute)
		for _, item := range items {
			if d := w.delivery(item); d.State != delivery.Dead || d.Reason == "" {
				t.Errorf("%s is %s (%s), want dead of age", item.EventID, d.State, d.Reason)
			}
		}
	})
}

func TestClosingACircuitByHandDrainsTheBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint(openFor(5 * time.Minute))
		w.outage()
		w.queue.take()
		items := w.accept(3)
		w.requeue(items...)
		w.drive(10 * time.Second)
		w.receiver.answer = nil
		done, err := w.CloseCircuit(t.Context(), dispatch.Command{EndpointID: e.ID})
		if err != nil || !done.WasOpen {
			t.Fatalf("closed: %+v, %v", done, err)
		}
		w.drive(time.Minute)
		for _, item := range items {
			if d := w.delivery(item); d.State != delivery.Delivered {
				t.Errorf("%s is %s", item.EventID, d.State)
			}
		}
		if done, err := w.CloseCircuit(t.Context(), dispatch.Command{EndpointID: e.ID}); err != nil || done.WasOpen {
			t.Errorf("closed again: %+v, %v", done, err)
		}
		if _, err := w.CloseCircuit(t.Context(), dispatch.Command{Tenant: "other", EndpointID: e.ID}); err == nil || !strings.Contains(err.Error(), "has no endpoint") {
			t.Errorf("closed by another tenant: %v", err)
		}
		if _, err := w.CloseCircuit(t.Context(), dispatch.Command{}); err == nil {
			t.Error("closed nobody's")
		}
	})
}

// frugal counts the writes of breakers.
type frugal struct {
	dispatch.Breakers
	writes int
}

func (f *frugal) PutBreaker(ctx context.Context, b breaker.State, now time.Time) (breaker.State, error) {
	f.writes++
	return f.Breakers.PutBreaker(ctx, b, now)
}

func TestASuccessOnACleanBreakerWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &frugal{}
		w := newWorld(t, func(c *dispatch.Config) { f.Breakers = c.Breakers; c.Breakers = f })
		w.endpoint()
		w.deliver(w.accept(10)...)
		if w.receiver.count() != 10 || f.writes != 0 {
			t.Errorf("%d deliveries wrote the breaker %d times", w.receiver.count(), f.writes)
		}
	})
}

// mute is a store that cannot store breakers.
type mute struct{ dispatch.Breakers }

func (mute) PutBreaker(context.Context, breaker.State, time.Time) (breaker.State, error) {
	return breaker.State{}, errors.New("throttled")
}

func TestAVerdictIsStoredEvenIfTheBreakerIsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *dispatch.Config) { c.Breakers = mute{c.Breakers} })
		w.endpoint()
		w.receiver.answer = answering(503)
		item := w.fannedOut()
		if failed := w.deliver(item); len(failed) != 0 {
			t.Errorf("failed: %v", failed)
		}
		if d := w.delivery(item); d.State != delivery.Pending || d.Attempts != 1 {
			t.Errorf("delivery = %+v", d)
		}
	})
}

// With 64 workers, attempts never exceed the limit, and they reach it.
func TestManyWorkersKeepTheRateLimit(t *testing.T) {
	for name, limit := range map[string]ratelimit.Limit{
		"a default burst":                 {PerMinute: 600},
		"a burst of ten":                  {PerMinute: 600, Burst: 10},
		"one at a time":                   {PerMinute: 60, Burst: 2},
		"more than a second's in a batch": {PerMinute: 3000, Burst: 50},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				if err := limit.Validate(); err != nil {
					t.Fatal(err)
				}
				w := newWorld(t)
				workers := []*dispatch.Dispatcher{w.Dispatcher}
				for range 63 {
					workers = append(workers, dispatch.New(w.Config))
				}
				w.endpoint(func(e *endpoint.Endpoint) { e.Limit = limit })
				random := rand.New(rand.NewPCG(3, 4))
				var mu sync.Mutex
				w.receiver.answer = func(context.Context, destination.Message) delivery.Outcome {
					mu.Lock()
					fails := random.IntN(10) == 0
					mu.Unlock()
					if fails {
						return delivery.Outcome{Class: delivery.Lost, Error: "lost"}
					}
					return delivery.Outcome{Class: delivery.Success, Status: 200}
				}
				n := min(3*limit.PerMinute/2, 900)
				began := time.Now()
				items := w.accept(n)
				w.requeue(items...)
				w.drive(5*time.Minute, workers...)
				for _, item := range items {
					if d := w.delivery(item); d.State != delivery.Delivered {
						t.Fatalf("%s is %s: %s", item.EventID, d.State, d.Reason)
					}
				}
				burst := limit.Burst
				if burst == 0 {
					burst = limit.PerMinute / 12
				}
				at := slices.SortedFunc(slices.Values(w.receiver.at), time.Time.Compare)
				for i := range at {
					for j := i + 1; j < len(at); j++ {
						window := at[j].Sub(at[i])
						if most := float64(burst) + window.Minutes()*float64(limit.PerMinute); float64(j-i+1) > most+1e-6 {
							t.Fatalf("%d attempts began within %s; at most %.1f may", j-i+1, window, most)
						}
					}
				}
				if took, ideal := at[len(at)-1].Sub(began), time.Duration(n)*time.Minute/time.Duration(limit.PerMinute); took > 2*ideal+10*time.Second {
					t.Errorf("what the limit lets through in %s, and a tenth again, took %s", ideal, took)
				}
			})
		})
	}
}

func TestABatchReservesItsSlotsInOneWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		counting := &reservations{}
		w := newWorld(t, func(c *dispatch.Config) { counting.Limits = c.Limits; c.Limits = counting })
		w.endpoint(func(e *endpoint.Endpoint) { e.Limit = ratelimit.Limit{PerMinute: 60, Burst: 5} })
		items := w.accept(10)
		slices.Reverse(items)
		w.deliver(items...)
		if counting.n != 1 {
			t.Errorf("ten deliveries reserved in %d writes, want one", counting.n)
		}
		// The oldest went at once, the others have their turns.
		for i, item := range items {
			d := w.delivery(item)
			if old := i >= 5; old != (d.State == delivery.Delivered) {
				t.Errorf("number %d of ten, counted from the oldest, is %s (slot %s)", 10-i, d.State, d.Slot)
			}
		}
		for _, sent := range w.queue.take() {
			if sent.Slot.IsZero() || sent.Delay > time.Until(sent.Slot) {
				t.Errorf("queued %+v: it would miss its slot", sent)
			}
		}
	})
}

// redeliver delivers a message that was received before.
func (w *world) redeliver(item work.Item) []string {
	return w.Deliver(w.t.Context(), []work.Message{{ID: "m", Body: item.Encode(), Receives: 2}})
}

func TestARepeatedMessageOfASettledDeliveryTakesNoSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		counting := &reservations{}
		w := newWorld(t, func(c *dispatch.Config) { counting.Limits = c.Limits; c.Limits = counting })
		w.endpoint(func(e *endpoint.Endpoint) { e.Limit = ratelimit.Limit{PerMinute: 1, Burst: 2} })
		items := w.accept(3)
		w.deliver(items[:2]...) // the burst: they are delivered
		w.deliver(items[2])     // waits for its turn
		if counting.n != 2 || w.receiver.count() != 2 || w.delivery(items[2]).Slot.IsZero() {
			t.Fatalf("%d reservations, %d attempts", counting.n, w.receiver.count())
		}
		w.queue.take()
		for _, item := range items {
			if failed := w.redeliver(item); len(failed) != 0 {
				t.Errorf("%+v comes once more", item)
			}
		}
		if counting.n != 2 {
			t.Errorf("%d reservations for what is delivered or has its slot", counting.n-2)
		}
		fresh := w.accept(1)[0]
		w.redeliver(fresh) // its worker died before it had stored anything
		if counting.n != 3 || w.delivery(fresh).Slot.IsZero() {
			t.Errorf("%d reservations for a delivery that needs one", counting.n-2)
		}
	})
}

type reservations struct {
	dispatch.Limits
	n int
}

func (r *reservations) Reserve(ctx context.Context, key string, reservation ratelimit.Reservation) (time.Time, bool, error) {
	time.Sleep(time.Millisecond) // what does not wait for it comes first
	r.n++
	return r.Limits.Reserve(ctx, key, reservation)
}

// Slots that were reserved far ahead under the old limit do not delay later deliveries.
func TestARaisedLimitAppliesToLaterDeliveries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *dispatch.Config) { c.CacheTime = 0 })
		e := w.endpoint(func(e *endpoint.Endpoint) { e.Limit = ratelimit.Limit{PerMinute: 1} })
		w.requeue(w.accept(60)...)
		w.drive(10 * time.Second)
		e.Limit = ratelimit.Limit{PerMinute: 600, Burst: 10}
		if _, err := w.store.UpdateEndpoint(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		next := w.accept(5)
		w.requeue(next...)
		w.drive(10 * time.Second)
		for _, item := range next {
			if d := w.delivery(item); d.State != delivery.Delivered {
				t.Errorf("under the new limit, %s is %s until %s", item.EventID, d.State, d.NextAttemptAt)
			}
		}
	})
}

// unreadable is a store whose breakers cannot be decoded.
type unreadable struct{ dispatch.Breakers }

func (u unreadable) GetBreaker(ctx context.Context, tenant, endpointID string, consistent bool) (breaker.State, error) {
	s, err := u.Breakers.GetBreaker(ctx, tenant, endpointID, consistent)
	if err != nil {
		return s, err
	}
	return s, fmt.Errorf("%w: attribute is not a number", breaker.ErrUnreadable)
}

func TestAnUnreadableBreakerDoesNotStallItsEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		w := newWorld(t, func(c *dispatch.Config) {
			c.Breakers = unreadable{c.Breakers}
			c.Log = slog.New(slog.NewTextHandler(&log, nil))
		})
		w.endpoint()
		item := w.fannedOut()
		w.deliver(item)
		if d := w.delivery(item); d.State != delivery.Delivered {
			t.Errorf("the delivery is %s, want delivered", d.State)
		}
		if !strings.Contains(log.String(), "circuit.unreadable") {
			t.Errorf("the log does not say why:\n%s", log.String())
		}
	})
}

// The message says that the delivery is in the backlog, but its worker died after it had
// claimed the delivery. While the circuit is open, nothing else would hold it.
func TestAMessageOfTheBacklogWhoseWorkerDiedWaitsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.endpoint(openFor(time.Hour))
		w.outage()
		item := w.accept(1)[0]
		w.deliver(item)
		claimed, err := w.store.Claim(t.Context(), delivery.Claim{
			Key: delivery.Key{EndpointID: item.EndpointID, EventID: item.EventID}, ID: "of a worker that died", Now: time.Now(), Lease: 25 * time.Second,
		})
		if err != nil || claimed.InBacklog {
			t.Fatalf("%+v, %v", claimed, err)
		}
		item.Backlog = true
		time.Sleep(6 * time.Minute)
		w.redeliver(item)
		if d := w.delivery(item); d.State != delivery.Pending || !d.InBacklog {
			t.Errorf("it is %s, in the backlog: %t", d.State, d.InBacklog)
		}
	})
}

// What is queued after a claim, or because of another worker's, is no longer in the
// backlog.
func TestItemsAfterAClaimAreNotOfTheBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.endpoint()
		w.receiver.answer = answering(503)
		item := w.accept(1)[0]
		item.Backlog = true
		w.deliver(item)
		retried := w.queue.take()
		if len(retried) != 1 || retried[0].Backlog || retried[0].Attempts != 1 {
			t.Errorf("after a failed attempt: %+v", retried)
		}
		other := w.accept(1)[0]
		if _, err := w.store.Claim(t.Context(), delivery.Claim{
			Key: delivery.Key{EndpointID: other.EndpointID, EventID: other.EventID}, ID: "of another worker", Now: time.Now(), Lease: 25 * time.Second,
		}); err != nil {
			t.Fatal(err)
		}
		other.Backlog = true
		w.deliver(other)
		if back := w.queue.take(); len(back) != 1 || back[0].Backlog || back[0].Attempts != 1 {
			t.Errorf("put back for another worker's attempt: %+v", back)
		}
	})
}
