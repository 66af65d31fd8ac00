package dispatch_test

import (
	"bytes"
	"context"
	"log/slog"
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

// take reserves slots of an endpoint's limit, as others would.
func (w *world) take(e endpoint.Endpoint, n int) {
	w.t.Helper()
	now := time.Now()
	if _, ok, err := w.store.Reserve(w.t.Context(), e.Limit.Key(e.ID), e.Limit.Reserve(n, now, now.Add(time.Hour))); err != nil || !ok {
		w.t.Fatal(ok, err)
	}
}

// wakes returns the wake-ups that were queued.
func (w *world) wakes() []work.Item {
	return slices.DeleteFunc(w.queue.take(), func(i work.Item) bool { return !i.Wake })
}

// When all slots of the near future are taken, the drain comes back when there is one.
func TestADrainWithoutASlotComesBackWhenThereIsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint(func(e *endpoint.Endpoint) { e.Limit = ratelimit.Limit{PerMinute: 120, Burst: 5} })
		_, wake := w.draining(e, 3)
		w.take(e, 120) // a minute of the limit
		now := time.Now()
		w.deliver(wake)
		s := w.circuit(e)
		// Slots are reserved up to six seconds ahead, and a burst of five is possible.
		if in := s.WakeAt.Sub(now); in < 52*time.Second || in > 53*time.Second || len(w.sentDeliveries()) != 0 || !s.Drain.Behind {
			t.Fatalf("the next step comes in %s: %+v", in, s)
		}
		time.Sleep(time.Until(s.WakeAt))
		w.deliver(wakeOf(s))
		if sent := w.sentDeliveries(); len(sent) == 0 {
			t.Error("there is no slot then")
		}
	})
}

// A drain makes a step for each slot: no slot is missed, and no step finds the limit full.
func TestADrainUnderALowLimitMakesAStepPerSlot(t *testing.T) {
	for _, limit := range []ratelimit.Limit{{PerMinute: 1}, {PerMinute: 5}, {PerMinute: 20}, {PerMinute: 1, Burst: 1}} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			e := w.endpoint(func(e *endpoint.Endpoint) { e.Limit = limit })
			const held = 40
			items, wake := w.draining(e, held)
			began, steps, sent := time.Now(), 0, 0
			var queued []work.Item
			for s := w.circuit(e); s.Phase == breaker.Draining && steps <= 2*held; s = w.circuit(e) {
				if len(queued) > 0 && queued[0].Slot.Before(s.WakeAt) {
					time.Sleep(time.Until(queued[0].Slot))
					w.deliver(queued[0])
					queued, sent = queued[1:], sent+1
					continue
				}
				time.Sleep(time.Until(s.WakeAt))
				w.deliver(wake)
				queued, steps, wake = append(queued, w.sentDeliveries()...), steps+1, wakeOf(w.circuit(e))
			}
			for _, item := range queued {
				time.Sleep(time.Until(item.Slot))
				w.deliver(item)
				sent++
			}
			took, nominal := time.Since(began), time.Duration(held)*time.Minute/time.Duration(limit.PerMinute)
			if sent != len(items) || steps > held+3 || took > nominal*11/10+10*time.Second {
				t.Errorf("%+v: %d sent in %d steps and %s; want %d in at most %d and %s", limit, sent, steps, took, held, held+3, nominal)
			}
		})
	}
}

// A step reads as many as it has slots for, and no more than five hundred.
func TestAStepReadsWhatItHasSlotsFor(t *testing.T) {
	for name, c := range map[string]struct {
		limit      ratelimit.Limit
		held, sent int
		pages      []int
	}{
		"a small limit": {ratelimit.Limit{PerMinute: 60, Burst: 5}, 20, 10, []int{11}},
		"a large limit": {ratelimit.Limit{PerMinute: 60_000}, 600, 500, []int{250, 250}},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := &ledger{}
			w := newWorld(t, l.in)
			_, wake := w.draining(w.endpoint(func(e *endpoint.Endpoint) { e.Limit = c.limit }), c.held)
			l.pages = nil
			w.deliver(wake)
			if sent := w.sentDeliveries(); len(sent) != c.sent || !slices.Equal(l.pages, c.pages) {
				t.Errorf("%s: %d are queued, want %d; pages %v, want %v", name, len(sent), c.sent, l.pages, c.pages)
			}
		})
	}
}

// What was read and got no slot is left for the next step, also if it is all that is left.
func TestWhatGetsNoSlotIsLeftForTheNextStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint(limited)
		items, wake := w.draining(e, 10)
		w.take(e, 5)
		w.deliver(wake)
		s := w.circuit(e)
		if sent := w.sentDeliveries(); len(sent) != 5 || s.Drain.Cursor != items[4].EventID || !s.Drain.Behind {
			t.Fatalf("%d are queued, the drain is %+v", len(sent), s.Drain)
		}
		time.Sleep(time.Until(s.WakeAt))
		w.deliver(wakeOf(s))
		if sent := w.sentDeliveries(); len(sent) == 0 || sent[0].EventID != items[5].EventID {
			t.Errorf("the next step: %+v", sent)
		}
	})
}

// lostUpTo lets a drain look for lost deliveries up to one of them, of 22.
func (w *world) lostUpTo(e endpoint.Endpoint, n int) (items []work.Item, wake func() work.Item) {
	items, _ = w.draining(e, 22)
	return items, func() work.Item {
		now := time.Now()
		s := breaker.State{Tenant: e.Tenant, EndpointID: e.ID}.Close(now)
		s.Drain.Cursor, s.Drain.Mark, s.Drain.MarkAt = items[n].EventID, items[n].EventID, now.Add(-breaker.Unclaimed)
		s = w.putCircuit(s)
		w.queue.take()
		return wakeOf(s)
	}
}

// What was queued a minute ago and still waits is queued again, up to and including the last
// one that was.
func TestAStepQueuesAgainWhatGotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{}
		w := newWorld(t, l.in)
		items, wake := w.lostUpTo(w.endpoint(), 19)
		item := wake()
		l.pages = nil
		w.deliver(item)
		if sent := w.sentDeliveries(); len(sent) != 20 || sent[0].EventID != items[0].EventID || sent[19].EventID != items[19].EventID || !slices.Equal(l.pages, []int{20}) {
			t.Errorf("%d are queued, pages %v", len(sent), l.pages)
		}
	})
}

// Those that expire before the end of the step take no room in it, but are read only up to
// the last that may have got lost.
func TestAStepReadsNoMoreThanWhatGotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{}
		w := newWorld(t, l.in)
		items, wake := w.lostUpTo(w.endpoint(func(e *endpoint.Endpoint) { e.Retry.MaxAge = time.Hour }), 19)
		time.Sleep(time.Until(w.delivery(items[0]).Since.Add(time.Hour - time.Second)))
		item := wake()
		l.pages = nil
		w.deliver(item)
		if !slices.Equal(l.pages, []int{20}) {
			t.Errorf("pages %v", l.pages)
		}
	})
}

func TestLostDeliveriesThatCannotBeReadAreNotAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &unwell{}
		w := newWorld(t, store.in)
		_, wake := w.lostUpTo(w.endpoint(), 19)
		item := wake()
		store.fails = map[string]error{"backlog": errStore}
		if failed := w.deliver(item); len(failed) != 1 {
			t.Errorf("not acknowledged: %v", failed)
		}
	})
}

// A delivery that expires exactly at the end of a step takes room in it.
func TestADeliveryTakesRoomInAStepUpToItsAgeLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{}
		w := newWorld(t, l.in)
		items, wake := w.draining(w.endpoint(func(e *endpoint.Endpoint) { e.Retry.MaxAge = time.Hour }), 30)
		time.Sleep(time.Until(w.delivery(items[0]).Since.Add(time.Hour - 2*time.Second)))
		l.pages = nil
		w.deliver(wake)
		if !slices.Equal(l.pages, []int{20}) {
			t.Errorf("pages %v", l.pages)
		}
	})
}

// meanwhile does something when the backlog is first read.
type meanwhile struct {
	dispatch.Waiting
	do func()
}

func (m *meanwhile) in(c *dispatch.Config) { m.Waiting, c.Waiting = c.Waiting, m }

func (m *meanwhile) ListBacklog(ctx context.Context, endpointID, after string, limit int) (delivery.Backlog, error) {
	if m.do != nil {
		m.do()
		m.do = nil
	}
	return m.Waiting.ListBacklog(ctx, endpointID, after, limit)
}

// What happens to a circuit while a step reads the backlog decides whether the step queues
// the next one.
func TestAStepThatIsNotRecordedQueuesNoOther(t *testing.T) {
	moved := func(w *world, e endpoint.Endpoint, _ *circuits) {
		s := w.circuit(e)
		s.Drain.Cursor = "another"
		w.putCircuit(s)
	}
	reset := func(w *world, e endpoint.Endpoint, _ *circuits) { w.putCircuit(w.circuit(e).Reset()) }
	broken := func(_ *world, _ endpoint.Endpoint, c *circuits) { c.putErr = errStore }
	for name, c := range map[string]struct {
		off    bool
		held   int
		do     func(*world, endpoint.Endpoint, *circuits)
		failed int
	}{
		"another worker has made the step":              {false, 3, moved, 0},
		"the step cannot be recorded":                   {false, 3, broken, 1},
		"the end of a backlog cannot be recorded":       {true, 3, broken, 1},
		"a part of a skipped one cannot be recorded":    {true, 1100, broken, 1},
		"another worker has skipped the backlog":        {true, 1100, reset, 0},
		"nothing happens, and the backlog was the last": {true, 3, func(*world, endpoint.Endpoint, *circuits) {}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				table, m := &circuits{}, &meanwhile{}
				w := newWorld(t, table.in, m.in)
				e := w.endpoint()
				_, wake := w.draining(e, c.held)
				if c.off {
					w.setStatus(e, endpoint.Disabled)
				}
				m.do = func() { c.do(w, e, table) }
				if failed := w.deliver(wake); len(failed) != c.failed {
					t.Errorf("not acknowledged: %v, want %d", failed, c.failed)
				}
				if sent := w.wakes(); len(sent) != 0 {
					t.Errorf("queued %+v", sent)
				}
			})
		})
	}
}

// Whatever state the circuit of a disabled endpoint is in: without a backlog, nobody looks at
// it again.
func TestADisabledEndpointIsNotWokenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint()
		s := w.putCircuit(breaker.State{Tenant: e.Tenant, EndpointID: e.ID, WakeAt: time.Now()})
		w.setStatus(e, endpoint.Disabled)
		w.deliver(wakeOf(s))
		if s := w.circuit(e); !s.WakeAt.IsZero() || len(w.queue.take()) != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// A delivery that has to wait does not move to the slow lane first.
func TestWhatWaitsDoesNotMoveToTheSlowLane(t *testing.T) {
	for name, c := range map[string]struct {
		phase  breaker.Phase
		status endpoint.Status
	}{"the circuit is open": {breaker.Open, endpoint.Enabled}, "the endpoint is paused": {breaker.Closed, endpoint.Paused}} {
		synctest.Test(t, func(t *testing.T) {
			w, slow := newLanes(t)
			e := w.endpoint()
			item := w.fannedOut()
			w.setStatus(e, c.status)
			until := time.Now().Add(time.Hour)
			s := breaker.State{Tenant: e.Tenant, EndpointID: e.ID, Phase: c.phase, SlowUntil: until}
			if c.phase == breaker.Open {
				s.Until, s.WakeAt = until, until
			}
			w.putCircuit(s)
			w.deliver(item)
			if sent := slow.take(); len(sent) != 0 || !w.delivery(item).InBacklog {
				t.Errorf("%s: on the slow queue %+v, the delivery is %+v", name, sent, w.delivery(item))
			}
		})
	}
}

// behind lets an endpoint be behind with its backlog.
func (w *world) behind(e endpoint.Endpoint) {
	w.t.Helper()
	w.putCircuit(breaker.State{Tenant: e.Tenant, EndpointID: e.ID}.Close(time.Now()))
	time.Sleep(dispatch.CircuitTime)
}

// While the backlog is behind, new events get no more than their share at once: every second
// slot of half the time ahead.
func TestNewEventsGetNoMoreThanTheirShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint(limited)
		items := w.accept(10)
		w.behind(e)
		w.deliver(items...)
		waiting := 0
		for _, item := range items {
			if w.delivery(item).InBacklog {
				waiting++
			}
		}
		if waiting != 3 {
			t.Errorf("%d of ten wait in the backlog, want 3: 30 s at 60 per minute are 30 slots, a quarter of them is 7", waiting)
		}
	})
}

// There is room for their share behind a burst that came before there was a backlog, up to
// half of the time ahead.
func TestNewEventsGetTheirShareBehindABurst(t *testing.T) {
	for taken, waits := range map[int]bool{40: false, 60: true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			e := w.endpoint(limited)
			item := w.fannedOut()
			w.behind(e)
			w.take(e, taken)
			w.deliver(item)
			if d := w.delivery(item); d.InBacklog != waits {
				t.Errorf("behind %d slots: %+v", taken, d)
			}
		})
	}
}

// noShares fails reservations of shares, and nothing else.
type noShares struct{ dispatch.Limits }

func (n noShares) Reserve(ctx context.Context, key string, r ratelimit.Reservation) (time.Time, bool, error) {
	if strings.HasSuffix(key, "#new") {
		return time.Time{}, false, errStore
	}
	return n.Limits.Reserve(ctx, key, r)
}

func TestWithoutAShareNoSlotIsReserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *dispatch.Config) { c.Limits = noShares{c.Limits} })
		e := w.endpoint(limited)
		item := w.fannedOut()
		w.behind(e)
		if failed := w.deliver(item); len(failed) != 1 || w.receiver.count() != 0 {
			t.Errorf("not acknowledged: %v, %d attempts", failed, w.receiver.count())
		}
	})
}

// lateLimits answers the first reservation after a second, when the slot has passed.
type lateLimits struct {
	dispatch.Limits
	n      int
	second func(context.Context) error // before the second one
}

func (l *lateLimits) Reserve(ctx context.Context, key string, r ratelimit.Reservation) (time.Time, bool, error) {
	at, ok, err := l.Limits.Reserve(ctx, key, r)
	if l.n++; l.n == 1 {
		time.Sleep(time.Second)
		if err := l.second(ctx); err != nil {
			l.Limits = noLimits{}
		}
	}
	return at, ok, err
}

// noLimits is a table that does not answer.
type noLimits struct{}

func (noLimits) Reserve(context.Context, string, ratelimit.Reservation) (time.Time, bool, error) {
	return time.Time{}, false, errStore
}

// A slot that has passed when its reservation is answered is replaced by another: later, or
// in the backlog if there is none.
func TestASlotThatHasPassedIsReplaced(t *testing.T) {
	for name, c := range map[string]struct {
		second          func(w *world, e endpoint.Endpoint) error
		failed          int
		parked, waiting bool
	}{
		"by a later one":     {func(*world, endpoint.Endpoint) error { return nil }, 0, true, false},
		"there is none soon": {func(w *world, e endpoint.Endpoint) error { w.take(e, 100); return nil }, 0, false, true},
		"the table fails":    {func(*world, endpoint.Endpoint) error { return errStore }, 1, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				limits := &lateLimits{}
				w := newWorld(t, func(c *dispatch.Config) { limits.Limits, c.Limits = c.Limits, limits })
				e := w.endpoint(limited)
				limits.second = func(context.Context) error { return c.second(w, e) }
				item := w.fannedOut()
				if failed := w.deliver(item); len(failed) != c.failed || w.receiver.count() != 0 {
					t.Fatalf("not acknowledged: %v, %d attempts", failed, w.receiver.count())
				}
				if c.failed > 0 {
					return
				}
				if d := w.delivery(item); d.State != delivery.Pending || d.InBacklog != c.waiting || d.Slot.IsZero() == c.parked {
					t.Errorf("%+v", d)
				}
			})
		})
	}
}

// However often an endpoint is marked as slow, its log says once that it entered the lane.
func TestTheLogSaysOnceThatAnEndpointIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		w, _ := newLanes(t, func(c *dispatch.Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
		w.endpoint(func(e *endpoint.Endpoint) { e.Timeout = 25 * time.Second })
		w.receiver.answer = answeringAfter(24 * time.Second)
		w.deliver(w.fannedOut())
		if n := strings.Count(log.String(), "slow_lane.entered"); n != 1 {
			t.Errorf("%d times", n)
		}
	})
}
