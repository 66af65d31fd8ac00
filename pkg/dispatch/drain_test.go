package dispatch_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
)

// ledger notes the pages of the backlog that are read, and the keys of reservations.
type ledger struct {
	dispatch.Waiting
	dispatch.Limits
	pages []int // limits
	keys  []string
}

func (l *ledger) in(c *dispatch.Config) {
	l.Waiting, l.Limits = c.Waiting, c.Limits
	c.Waiting, c.Limits = l, l
}

func (l *ledger) ListBacklog(ctx context.Context, endpointID, after string, limit int) (delivery.Backlog, error) {
	l.pages = append(l.pages, limit)
	return l.Waiting.ListBacklog(ctx, endpointID, after, limit)
}

func (l *ledger) Reserve(ctx context.Context, key string, r ratelimit.Reservation) (time.Time, bool, error) {
	l.keys = append(l.keys, key)
	return l.Limits.Reserve(ctx, key, r)
}

// sentDeliveries returns the items of deliveries that were queued, without wake-ups.
func (w *world) sentDeliveries() []work.Item {
	return slices.DeleteFunc(w.queue.take(), func(i work.Item) bool { return i.Wake })
}

// A step of a drain without a limit queues two seconds' worth of its rate, evenly, oldest
// first, and reads no more than that.
func TestAStepOfADrainQueuesItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{}
		w := newWorld(t, l.in)
		e := w.endpoint()
		items, wake := w.draining(e, 30)
		l.pages = nil
		now := time.Now()
		w.deliver(wake)
		sent := w.sentDeliveries()
		if len(sent) != 2*breaker.StartRate || !slices.Equal(l.pages, []int{2 * breaker.StartRate}) {
			t.Fatalf("%d are queued, pages %v", len(sent), l.pages)
		}
		for i, one := range sent {
			at := now.Add(time.Duration(i) * time.Second / breaker.StartRate)
			if one.EventID != items[i].EventID || !one.Backlog || !one.Slot.Equal(at) || one.Delay != at.Sub(now).Truncate(time.Second) {
				t.Errorf("number %d: %+v, want at %s", i, one, at)
			}
		}
		s := w.circuit(e)
		if s.Drain.Cursor != items[19].EventID || !s.Drain.Behind || !s.Drain.SentAt.Equal(now) || !s.WakeAt.Equal(now.Add(2*time.Second)) {
			t.Errorf("after the step: %+v", s)
		}
		// The next step takes the rest, and then the drain waits until it has had its time.
		time.Sleep(2 * time.Second)
		w.deliver(wakeOf(s))
		if rest := w.sentDeliveries(); len(rest) != 10 || rest[0].EventID != items[20].EventID {
			t.Errorf("the second step: %+v", rest)
		}
		if s := w.circuit(e); s.Drain.Behind || !s.WakeAt.Equal(time.Now().Add(breaker.IndexLag)) {
			t.Errorf("after the second step: %+v", s)
		}
	})
}

// A step with a limit asks for its slots first, for what fits into the time ahead.
func TestAStepOfADrainUnderALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{}
		w := newWorld(t, l.in)
		limit := ratelimit.Limit{PerMinute: 60, Burst: 5}
		e := w.endpoint(func(e *endpoint.Endpoint) { e.Limit, e.Retry.MaxAge = limit, 10*time.Minute })
		items, _ := w.draining(e, 40)
		w.putCircuit(w.circuit(e).Reset())
		s := w.putCircuit(w.circuit(e).Close(time.Now()))
		time.Sleep(dispatch.CircuitTime)
		l.keys = nil
		now := time.Now()
		w.deliver(wakeOf(s))
		sent := w.sentDeliveries()
		if want := limit.DrainSlots(); len(l.keys) == 0 || l.keys[0] != limit.Key(e.ID) || len(sent) > want || len(sent) < want-1 {
			t.Fatalf("%d are queued of %d slots, reservations %v", len(sent), limit.DrainSlots(), l.keys)
		}
		for i, one := range sent {
			if one.EventID != items[i].EventID || one.Slot.After(now.Add(limit.DrainAhead()+time.Second)) || i > 5 && one.Slot.Sub(sent[i-1].Slot) < 900*time.Millisecond {
				t.Errorf("number %d: %+v", i, one)
			}
		}
		// There is no slot left: the next step comes when there is one, and reserves nothing.
		before := w.circuit(e)
		if before.Drain.Cursor != sent[len(sent)-1].EventID {
			t.Errorf("the drain goes on after %s", before.Drain.Cursor)
		}
		time.Sleep(time.Until(before.WakeAt))
		w.deliver(wakeOf(before))
		if s := w.circuit(e); s.WakeAt.Before(time.Now().Add(time.Second)) || s.WakeAt.After(time.Now().Add(limit.DrainAhead()+2*time.Second)) {
			t.Errorf("the step after that comes at %s: %+v", s.WakeAt, s)
		}
	})
}

// An empty backlog reserves no slot.
func TestAnEmptyBacklogReservesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{}
		w := newWorld(t, l.in)
		e := w.endpoint(limited)
		w.deliver(wakeOf(w.putCircuit(breaker.State{Tenant: e.Tenant, EndpointID: e.ID}.Close(time.Now()))))
		if len(l.keys) != 0 || len(w.sentDeliveries()) != 0 {
			t.Errorf("reservations %v", l.keys)
		}
	})
}

// A drain settles what has expired, to the millisecond, and in a step no more than a
// thousand.
func TestADrainSettlesWhatHasExpired(t *testing.T) {
	for late, state := range map[time.Duration]delivery.State{0: delivery.Pending, time.Millisecond: delivery.Dead} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			e := w.endpoint(func(e *endpoint.Endpoint) { e.Retry.MaxAge = time.Hour })
			items, wake := w.draining(e, 1)
			time.Sleep(time.Until(w.delivery(items[0]).Since.Add(time.Hour + late)))
			w.deliver(wake)
			if d := w.delivery(items[0]); d.State != state || state == delivery.Dead && !strings.Contains(d.Reason, "age limit of 1h") {
				t.Errorf("%s after its age limit: %s, %s", late, d.State, d.Reason)
			}
		})
	}
}

func TestAStepSettlesAThousandAtMost(t *testing.T) {
	for name, off := range map[string]bool{"expired": false, "of a disabled endpoint": true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			e := w.endpoint(func(e *endpoint.Endpoint) { e.Retry.MaxAge = time.Hour })
			items, wake := w.draining(e, 1300)
			if off {
				w.setStatus(e, endpoint.Disabled)
			} else {
				time.Sleep(2 * time.Hour)
			}
			count := func() (n int) {
				for _, item := range items {
					if w.delivery(item).State.Settled() {
						n++
					}
				}
				return n
			}
			w.deliver(wake)
			if n := count(); n < 1000 || n > 1019 {
				t.Errorf("%s: %d are settled in the first step", name, n)
			}
			s := w.circuit(e)
			if wakes := w.queue.take(); s.WakeAt.IsZero() || len(wakes) != 1 || !wakes[0].WakeAt.Equal(s.WakeAt) {
				t.Errorf("%s: queued %+v, the circuit is %+v", name, wakes, s)
			}
			time.Sleep(time.Until(s.WakeAt))
			w.deliver(wakeOf(s))
			if n := count(); n != 1300 {
				t.Errorf("%s: %d are settled in the second step", name, n)
			}
		})
	}
}

// While the backlog is behind, a new event asks for a share of the limit first; one of the
// backlog does not, nor does any when nothing is behind.
func TestNewEventsShareTheLimitWithTheBacklog(t *testing.T) {
	for name, c := range map[string]struct {
		behind, backlog bool
		shares          bool
	}{
		"a new event":        {true, false, true},
		"one of the backlog": {true, true, false},
		"nothing is behind":  {false, false, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := &ledger{}
			w := newWorld(t, l.in)
			e := w.endpoint(limited)
			s := breaker.State{Tenant: e.Tenant, EndpointID: e.ID}.Close(time.Now())
			s.Drain.Behind = c.behind
			w.putCircuit(s)
			item := w.fannedOut()
			item.Backlog = c.backlog
			w.deliver(item)
			want := []string{e.Limit.Key(e.ID)}
			if c.shares {
				want = []string{e.Limit.Half().Key(e.ID), e.Limit.Key(e.ID)}
			}
			if !slices.Equal(l.keys, want) || w.receiver.count() != 1 {
				t.Errorf("%s: reservations %v, want %v; %d attempts", name, l.keys, want, w.receiver.count())
			}
		})
	}
}

// A success that ends a row of failures wakes nobody: the circuit was not open.
func TestASuccessAfterAFailureWakesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint()
		w.putCircuit(breaker.State{Tenant: e.Tenant, EndpointID: e.ID, Failures: 1, FailingSince: time.Now(), FailedAt: time.Now()})
		w.deliver(w.fannedOut())
		if sent := w.queue.take(); len(sent) != 0 || !w.circuit(e).Clean() {
			t.Errorf("queued %+v, the circuit is %+v", sent, w.circuit(e))
		}
	})
}

func TestAWaitForACircuitEndsWithTheInvocationForAWakeUpToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *dispatch.Config) { c.Breakers = slowCircuits{c.Breakers} })
		e := w.endpoint()
		go w.deliver(w.fannedOut())
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		wake := work.Item{Tenant: e.Tenant, EndpointID: e.ID, Wake: true}
		if failed := w.Deliver(ctx, []work.Message{{ID: "m", Body: wake.Encode()}}); len(failed) != 1 {
			t.Errorf("not acknowledged: %v", failed)
		}
		time.Sleep(time.Minute)
	})
}

// A slot is never later than the age limit of its delivery: what would get such a slot waits.
func TestASlotIsNeverLaterThanTheAgeLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint(func(e *endpoint.Endpoint) {
			e.Limit, e.Retry.MaxAge = ratelimit.Limit{PerMinute: 1, Burst: 2}, 3*time.Minute
		})
		items := w.accept(8)
		w.deliver(items...)
		slots := 0
		for _, item := range items {
			d := w.delivery(item)
			if d.Slot.After(d.Since.Add(e.Retry.AgeLimit())) {
				t.Errorf("its slot is %s after its age limit", d.Slot.Sub(d.Since.Add(e.Retry.AgeLimit())))
			}
			if !d.Slot.IsZero() {
				slots++
			}
		}
		if slots == 0 || slots > 3 {
			t.Errorf("%d slots within three minutes", slots)
		}
	})
}

// A share of the limit that cannot be reserved acknowledges nothing.
func TestAShareThatCannotBeReservedIsNotAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &unwell{fails: map[string]error{"reserve": errStore}}
		w := newWorld(t, store.in)
		e := w.endpoint(limited)
		w.putCircuit(breaker.State{Tenant: e.Tenant, EndpointID: e.ID}.Close(time.Now()))
		if failed := w.deliver(w.fannedOut()); len(failed) != 1 || w.receiver.count() != 0 {
			t.Errorf("not acknowledged: %v, %d attempts", failed, w.receiver.count())
		}
	})
}
