package dispatch_test

import (
	"context"
	"errors"
	"fmt"
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

// Each test here holds a bound to the millisecond, or a step that the sweep would make up
// for later.

func TestASlotIsValidForItsGrace(t *testing.T) {
	for late, want := range map[time.Duration]int{0: 0, ratelimit.Grace: 0, ratelimit.Grace + time.Millisecond: 1} {
		synctest.Test(t, func(t *testing.T) {
			counting := &reservations{}
			w := newWorld(t, func(c *dispatch.Config) { counting.Limits = c.Limits; c.Limits = counting })
			w.endpoint(func(e *endpoint.Endpoint) { e.Limit = ratelimit.Limit{PerMinute: 60, Burst: 5} })
			item := w.fannedOut()
			item.Slot = time.Now().Add(-late)
			w.deliver(item)
			if counting.n != want || w.receiver.count() != 1 {
				t.Errorf("%s after its slot: %d reservations, %d attempts", late, counting.n, w.receiver.count())
			}
		})
	}
}

func TestADeliveryIsAttemptedUpToItsAgeLimit(t *testing.T) {
	const limit = time.Hour
	for age, state := range map[time.Duration]delivery.State{limit: delivery.Delivered, limit + time.Millisecond: delivery.Dead} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.endpoint(func(e *endpoint.Endpoint) { e.Retry.MaxAge = limit })
			item := w.fannedOut()
			item.Since = time.Now()
			time.Sleep(age)
			w.deliver(item)
			if d := w.delivery(item); d.State != state || (w.receiver.count() == 1) != (state == delivery.Delivered) {
				t.Errorf("%s old: %s after %d attempts", age, d.State, w.receiver.count())
			}
		})
	}
}

func TestEveryAttemptThatThePolicyAllowsIsMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.endpoint(func(e *endpoint.Endpoint) { e.Retry.MaxAttempts = 3 })
		w.receiver.answer = lost
		if d := w.run(w.fannedOut(), time.Hour); d.State != delivery.Dead || w.receiver.count() != 3 {
			t.Errorf("%s after %d attempts, want dead after 3: %s", d.State, w.receiver.count(), d.Reason)
		}
	})
}

// What no attempt can come of is not acknowledged either: it ends in the dead-letter queue,
// where an operator sees it.
func TestAMessageThatMakesNoSenseIsNotAcknowledged(t *testing.T) {
	for name, change := range map[string]func(*work.Item){
		"an id without a time": func(i *work.Item) { i.EventID = "7" },
		"an event of no JSON":  func(i *work.Item) { i.Body = []byte("{not json") },
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.endpoint()
			item := w.fannedOut()
			change(&item)
			if failed := w.deliver(item); len(failed) != 1 || w.receiver.count() != 0 {
				t.Errorf("%s: not acknowledged: %v, %d attempts", name, failed, w.receiver.count())
			}
		})
	}
}

// reads counts the reads of endpoints.
type reads struct {
	dispatch.Endpoints
	n int
}

func (r *reads) GetEndpoint(ctx context.Context, tenant, id string) (endpoint.Endpoint, error) {
	r.n++
	return r.Endpoints.GetEndpoint(ctx, tenant, id)
}

func TestAnEndpointIsReadOnceForEachCacheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		counting := &reads{}
		w := newWorld(t, func(c *dispatch.Config) { counting.Endpoints = c.Endpoints; c.Endpoints = counting })
		w.endpoint()
		items := w.accept(3)
		worker := dispatch.New(w.Config) // it has not fanned out, so it has no list
		for i, want := range []int{1, 1, 2} {
			w.deliverBy(worker, items[i])
			if counting.n != want {
				t.Errorf("%d reads after delivery %d, want %d", counting.n, i+1, want)
			}
			time.Sleep(dispatch.CacheTime / 2)
		}
	})
}

func TestAnAttemptIsTimedIfItsAdapterDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.endpoint()
		w.receiver.answer = func(context.Context, destination.Message) delivery.Outcome {
			time.Sleep(3 * time.Second)
			return delivery.Outcome{Class: delivery.Lost}
		}
		item := w.fannedOut()
		w.deliver(item)
		if took := w.delivery(item).History[0].Timings.Total; took != 3*time.Second {
			t.Errorf("the attempt took %s, want 3s", took)
		}
	})
}

// probing returns a world whose next attempt is the probe of an open circuit.
func probing(t *testing.T, change ...func(*dispatch.Config)) (*world, endpoint.Endpoint, work.Item) {
	t.Helper()
	w := newWorld(t, change...)
	e := w.endpoint(openFor(5 * time.Minute))
	w.outage()
	w.queue.take()
	time.Sleep(5 * time.Minute)
	return w, e, w.fannedOut()
}

// The drain begins when the probe has succeeded, not with the next sweep.
func TestAClosedCircuitWakesItsBacklogAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, e, item := probing(t)
		w.receiver.answer = nil
		w.deliver(item)
		sent := w.queue.take()
		if s := w.circuit(e); s.Phase != breaker.Draining || len(sent) != 1 || !sent[0].Wake || sent[0].Delay != 0 || !sent[0].WakeAt.Equal(s.WakeAt) {
			t.Errorf("queued %+v, with the circuit %+v", sent, s)
		}
	})
}

// failedClaims is a store in which no delivery can be claimed.
type failedClaims struct{ dispatch.Deliveries }

func (failedClaims) Claim(context.Context, delivery.Claim) (delivery.Delivery, error) {
	return delivery.Delivery{}, errors.New("throttled")
}

// A probe that did not tell anything about the receiver is given to the next delivery at
// once, not when its lease ends.
func TestAProbeThatToldNothingIsReturned(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(context.Context, destination.Message) delivery.Outcome
		claim  bool
	}{
		"its worker lost the answer":     {lost, true},
		"its delivery cannot be claimed": {nil, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			w, e, item := probing(t)
			w.receiver.answer = c.answer
			if !c.claim {
				w.Config.Deliveries = failedClaims{w.Config.Deliveries}
			}
			w.deliverBy(dispatch.New(w.Config), item)
			if s := w.circuit(e); s.Phase != breaker.Open || s.ProbeID != "" || s.WakeAt.After(time.Now()) {
				t.Errorf("%s: the circuit is %+v", name, s)
			}
			if !c.claim {
				if sent := w.queue.take(); len(sent) != 1 || !sent[0].Wake {
					t.Errorf("%s: queued %+v", name, sent)
				}
			}
		})
	}
}

// A retry that the queue can hold back is queued and has a due time as a backstop; a later
// one has its due time only.
func TestARetryWithinFifteenMinutesIsQueued(t *testing.T) {
	for wait, queued := range map[time.Duration]bool{work.MaxDelay: true, work.MaxDelay + time.Millisecond: false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.endpoint()
			w.receiver.answer = func(context.Context, destination.Message) delivery.Outcome {
				return delivery.Outcome{Class: delivery.Lost, RetryAfter: wait}
			}
			item := w.fannedOut()
			w.deliver(item)
			sent, d := w.queue.take(), w.delivery(item)
			due := d.NextAttemptAt
			if queued {
				due = due.Add(dispatch.Backstop)
			}
			if (len(sent) == 1) != queued || queued && sent[0].Delay != wait || !d.NextAttemptAt.Equal(time.Now().Add(wait)) || !d.DueAt.Equal(due) {
				t.Errorf("a retry after %s: queued %+v, due %s after its time", wait, sent, d.DueAt.Sub(d.NextAttemptAt))
			}
		})
	}
}

// A message that finds its delivery in flight comes back a second after the lease ends, or
// after fifteen minutes; one that comes too early comes back at its time.
func TestARefusedMessageComesBackInTime(t *testing.T) {
	for name, c := range map[string]struct {
		timeout, wait time.Duration // of the attempt in flight; until the retry
		back          time.Duration // -1 for never
	}{
		"in flight":                     {timeout: 10 * time.Second, back: 10*time.Second + dispatch.LeaseMargin + time.Second},
		"early":                         {wait: 10 * time.Minute, back: 10 * time.Minute},
		"early by what the queue takes": {wait: work.MaxDelay, back: work.MaxDelay},
		"early by more":                 {wait: work.MaxDelay + time.Second, back: -1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.endpoint()
				item := w.fannedOut()
				if c.timeout > 0 {
					begun, end := make(chan struct{}), make(chan struct{})
					w.receiver.answer = func(context.Context, destination.Message) delivery.Outcome {
						close(begun)
						<-end
						return delivery.Outcome{Class: delivery.Success}
					}
					go w.deliver(item)
					<-begun
					defer func() { close(end); synctest.Wait() }()
				} else {
					w.receiver.answer = func(context.Context, destination.Message) delivery.Outcome {
						return delivery.Outcome{Class: delivery.Lost, RetryAfter: c.wait}
					}
					w.deliver(item)
					w.queue.take()
					item.Attempts = 1
				}
				if failed := w.deliverBy(dispatch.New(w.Config), item); len(failed) != 0 {
					t.Fatalf("not acknowledged: %v", failed)
				}
				sent := w.queue.take()
				switch {
				case c.back < 0 && len(sent) != 0:
					t.Errorf("queued %+v; the sweep does that", sent)
				case c.back >= 0 && (len(sent) != 1 || sent[0].Delay != c.back || sent[0].Attempts != 1):
					t.Errorf("queued %s, want a delay of %s", fmt.Sprintf("%+v", sent), c.back)
				}
			})
		})
	}
}
