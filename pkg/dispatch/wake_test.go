package dispatch_test

import (
	"context"
	"errors"
	"strings"
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

// circuits is a table of circuit breakers that counts reads, notes whether they were
// consistent, and can fail.
type circuits struct {
	dispatch.Breakers
	reads   []bool // consistent
	readErr error
	putErr  error
	apply   bool // a failed put was applied
	listErr error
}

func (c *circuits) GetBreaker(ctx context.Context, tenant, id string, consistent bool) (breaker.State, error) {
	c.reads = append(c.reads, consistent)
	if c.readErr != nil {
		return breaker.State{}, c.readErr
	}
	return c.Breakers.GetBreaker(ctx, tenant, id, consistent)
}

func (c *circuits) PutBreaker(ctx context.Context, b breaker.State, now time.Time) (breaker.State, error) {
	if c.putErr == nil {
		return c.Breakers.PutBreaker(ctx, b, now)
	}
	if c.apply {
		if _, err := c.Breakers.PutBreaker(ctx, b, now); err != nil {
			return breaker.State{}, err
		}
	}
	return breaker.State{}, c.putErr
}

func (c *circuits) ListCircuits(ctx context.Context, by time.Time) ([]breaker.State, error) {
	if c.listErr != nil {
		return nil, c.listErr
	}
	return c.Breakers.ListCircuits(ctx, by)
}

func (c *circuits) in(config *dispatch.Config) {
	c.Breakers = config.Breakers
	config.Breakers = c
}

// putCircuit stores a circuit.
func (w *world) putCircuit(s breaker.State) breaker.State {
	w.t.Helper()
	was, err := w.store.GetBreaker(w.t.Context(), s.Tenant, s.EndpointID, true)
	if err != nil {
		w.t.Fatal(err)
	}
	s.Version, s.WriteID = was.Version, "of the test"
	if s, err = w.store.PutBreaker(w.t.Context(), s, time.Now()); err != nil {
		w.t.Fatal(err)
	}
	return s
}

// wakeOf is the item that wakes an endpoint.
func wakeOf(s breaker.State) work.Item {
	return work.Item{Tenant: s.Tenant, EndpointID: s.EndpointID, Wake: true, WakeAt: s.WakeAt}
}

func TestACircuitIsReadOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &circuits{}
		w := newWorld(t, c.in)
		w.endpoint()
		for at, want := range []int{1, 1, 2, 2, 3} { // every half second
			w.deliver(w.fannedOut())
			if len(c.reads) != want || c.reads[0] {
				t.Errorf("%d reads after delivery %d, consistent: %v; want %d", len(c.reads), at+1, c.reads, want)
			}
			time.Sleep(dispatch.CircuitTime / 2)
		}
	})
}

func TestTheCircuitCacheIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &circuits{}
		w := newWorld(t, c.in)
		e := w.endpoint()
		item := w.fannedOut()
		w.deliver(item)
		fill := func(n int) {
			for range n {
				w.deliver(work.Item{Tenant: e.Tenant, EndpointID: endpoint.NewID(time.Now()), Wake: true})
			}
		}
		read := func() bool {
			before := len(c.reads)
			w.deliver(w.fannedOut())
			return len(c.reads) > before
		}
		fill(9_999)
		if read() {
			t.Error("ten thousand circuits do not fit")
		}
		fill(1)
		if !read() {
			t.Error("one more fits")
		}
	})
}

// After a conflict the state is read consistently; after a write whose answer was lost it is
// read again, because it may have been applied.
func TestACircuitIsReadAgainAfterAFailedWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &circuits{putErr: breaker.ErrConflict}
		w := newWorld(t, c.in)
		w.endpoint()
		w.receiver.answer = answering(503)
		w.deliver(w.fannedOut())
		if len(c.reads) != 10 || c.reads[0] || !c.reads[1] || !c.reads[9] {
			t.Errorf("reads, and whether they were consistent: %v; want ten, all but the first", c.reads)
		}
		c.putErr, c.apply, c.reads = errors.New("the answer is lost"), true, nil
		time.Sleep(dispatch.CircuitTime)
		w.deliver(w.fannedOut())
		w.deliver(w.fannedOut())
		if len(c.reads) != 2 {
			t.Errorf("%d reads for two deliveries, want one for each", len(c.reads))
		}
	})
}

// A worker that cannot read or write the circuit acknowledges nothing whose fate depends on
// it.
func TestAMessageIsNotAcknowledgedWithoutItsCircuit(t *testing.T) {
	failure := errors.New("throttled")
	for name, c := range map[string]struct {
		prepare func(*world, endpoint.Endpoint) work.Item
		fail    func(*circuits)
	}{
		"a delivery": {func(w *world, e endpoint.Endpoint) work.Item { return w.fannedOut() }, func(c *circuits) { c.readErr = failure }},
		"a probe": {func(w *world, e endpoint.Endpoint) work.Item {
			w.putCircuit(breaker.State{Tenant: e.Tenant, EndpointID: e.ID, Phase: breaker.Open, Until: time.Now(), WakeAt: time.Now()})
			return w.fannedOut()
		}, func(c *circuits) { c.putErr = failure }},
		"a delivery that has to wait": {func(w *world, e endpoint.Endpoint) work.Item {
			e.Limit.PerMinute = 1
			if _, err := w.store.UpdateEndpoint(w.t.Context(), e); err != nil {
				w.t.Fatal(err)
			}
			for range 20 { // there is no slot soon
				w.deliver(w.fannedOut())
			}
			s := w.circuit(e)
			w.putCircuit(s.Reset())
			time.Sleep(dispatch.CircuitTime)
			return w.fannedOut()
		}, func(c *circuits) { c.putErr = failure }},
		"a wake-up": {func(w *world, e endpoint.Endpoint) work.Item {
			return wakeOf(w.putCircuit(breaker.State{Tenant: e.Tenant, EndpointID: e.ID}.Close(time.Now())))
		}, func(c *circuits) { c.putErr = failure }},
		"a wake-up, unread": {func(w *world, e endpoint.Endpoint) work.Item {
			return wakeOf(w.putCircuit(breaker.State{Tenant: e.Tenant, EndpointID: e.ID}.Close(time.Now())))
		}, func(c *circuits) { c.readErr = failure }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				broken := &circuits{}
				w := newWorld(t, broken.in)
				e := w.endpoint()
				item := c.prepare(w, e)
				attempts := w.receiver.count()
				c.fail(broken)
				if failed := w.deliverBy(dispatch.New(w.Config), item); len(failed) != 1 || w.receiver.count() != attempts {
					t.Errorf("not acknowledged: %v; %d attempts", failed, w.receiver.count()-attempts)
				}
			})
		})
	}
}

// A worker whose invocation ends while it waits for another one's read of the circuit must
// not go on without it.
func TestAWaitForACircuitEndsWithTheInvocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *dispatch.Config) { c.Breakers = slowCircuits{c.Breakers} })
		w.endpoint()
		first, second := w.fannedOut(), w.fannedOut()
		go w.deliver(first)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if failed := w.Deliver(ctx, []work.Message{{ID: "m", Body: second.Encode()}}); len(failed) != 1 {
			t.Errorf("not acknowledged: %v", failed)
		}
		time.Sleep(time.Minute)
		if w.receiver.count() != 1 {
			t.Errorf("%d attempts, want that of the first", w.receiver.count())
		}
	})
}

// slowCircuits answers reads after half a minute.
type slowCircuits struct{ dispatch.Breakers }

func (s slowCircuits) GetBreaker(ctx context.Context, tenant, id string, consistent bool) (breaker.State, error) {
	time.Sleep(30 * time.Second)
	return s.Breakers.GetBreaker(ctx, tenant, id, consistent)
}

func TestASweepThatCannotListTheCircuitsFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, (&circuits{listErr: errors.New("throttled")}).in)
		if swept, err := w.Sweep(t.Context()); err == nil || swept.Done {
			t.Errorf("swept %+v, %v", swept, err)
		}
	})
}

// Only answers that say something about the receiver, and are bad or slow, slow a drain down.
func TestABadAnswerHalvesTheDrainsRate(t *testing.T) {
	for name, c := range map[string]struct {
		outcome delivery.Outcome
		want    int
	}{
		"quick":               {delivery.Outcome{Class: delivery.Success, Timings: delivery.Timings{Total: breaker.SlowAfter - 1}}, breaker.StartRate},
		"slow":                {delivery.Outcome{Class: delivery.Success, Timings: delivery.Timings{Total: breaker.SlowAfter}}, breaker.StartRate / 2},
		"failed":              {delivery.Outcome{Class: delivery.Answered, Timings: delivery.Timings{Total: 1}}, breaker.StartRate / 2},
		"lost":                {delivery.Outcome{Class: delivery.Lost, Timings: delivery.Timings{Total: 1}}, breaker.StartRate},
		"lost, after a while": {delivery.Outcome{Class: delivery.Lost, Timings: delivery.Timings{Total: time.Minute}}, breaker.StartRate},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			e := w.endpoint()
			w.putCircuit(breaker.State{Tenant: e.Tenant, EndpointID: e.ID}.Close(time.Now()))
			time.Sleep(2 * time.Second)
			w.receiver.answer = func(context.Context, destination.Message) delivery.Outcome { return c.outcome }
			w.deliver(w.fannedOut())
			if got := w.circuit(e).Drain.Rate; got != c.want {
				t.Errorf("%s: rate %d, want %d", name, got, c.want)
			}
		})
	}
}

// The wake-up of a circuit that opens is queued if the queue can delay it that long; the
// sweep does the others.
func TestAnOpenedCircuitQueuesItsProbe(t *testing.T) {
	for open, want := range map[time.Duration]int{time.Minute: 1, work.MaxDelay: 1, work.MaxDelay + time.Second: 0} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			e := w.endpoint(openFor(open))
			w.outage()
			n := 0
			for _, sent := range w.queue.take() {
				if sent.Wake {
					n++
					if sent.Delay != open || !sent.WakeAt.Equal(w.circuit(e).WakeAt) {
						t.Errorf("open for %s: queued %+v", open, sent)
					}
				}
			}
			if n != want {
				t.Errorf("open for %s: %d wake-ups are queued, want %d", open, n, want)
			}
		})
	}
}

// What an operator closes, or what is disabled, is looked after at once.
func TestClosingACircuitWakesItsBacklog(t *testing.T) {
	for name, c := range map[string]struct {
		state   breaker.State
		changes bool
	}{
		"open":     {breaker.State{Phase: breaker.Open, Failures: 5}, true},
		"failing":  {breaker.State{Failures: 1}, true},
		"draining": {breaker.State{}.Close(time.Now()), false},
		"closed":   {breaker.State{}, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			e := w.endpoint()
			c.state.Tenant, c.state.EndpointID = e.Tenant, e.ID
			was := w.putCircuit(c.state)
			done, err := w.CloseCircuit(t.Context(), dispatch.Command{EndpointID: e.ID})
			s, sent := w.circuit(e), w.queue.take()
			if err != nil || done.WasOpen != (was.Phase == breaker.Open) || (s.Version != was.Version) != c.changes || (len(sent) == 1) != c.changes {
				t.Errorf("%s: %+v, %v; queued %+v, now %+v", name, done, err, sent, s)
			}
			if c.changes && (s.Phase != breaker.Draining || !sent[0].Wake || sent[0].Delay != 0) {
				t.Errorf("%s: queued %+v, now %+v", name, sent, s)
			}
		})
	}
}

func TestClosingACircuitReportsWhatFails(t *testing.T) {
	for name, change := range map[string]func(*dispatch.Config){
		"the endpoint is not read":    func(c *dispatch.Config) { c.Endpoints = absentTable{} },
		"the circuit is not read":     (&circuits{readErr: errors.New("throttled")}).in,
		"the circuit is never stored": (&circuits{putErr: breaker.ErrConflict}).in,
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			e := w.endpoint()
			w.putCircuit(breaker.State{Tenant: e.Tenant, EndpointID: e.ID, Failures: 1})
			change(&w.Config)
			if done, err := dispatch.New(w.Config).CloseCircuit(t.Context(), dispatch.Command{EndpointID: e.ID}); err == nil {
				t.Errorf("%s: %+v", name, done)
			}
		})
	}
}

// The fifth day's failed probe disables the endpoint, and its backlog is skipped at once. If
// the endpoint cannot be disabled, the message comes again.
func TestADisabledEndpointsBacklogIsWokenAtOnce(t *testing.T) {
	for name, broken := range map[string]bool{"disabled": false, "not disabled": true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			e := w.endpoint()
			w.putCircuit(breaker.State{
				Tenant: e.Tenant, EndpointID: e.ID, Phase: breaker.Open, Failures: 9, FailingSince: time.Now().Add(-breaker.DefaultDisableAfter),
				FailedAt: time.Now().Add(-time.Hour), OpenFor: time.Hour, Until: time.Now(), WakeAt: time.Now(),
			})
			if broken {
				w.Config.Disabler = absentTable{}
			}
			w.receiver.answer = answering(503)
			failed := w.deliverBy(dispatch.New(w.Config), w.fannedOut())
			wakes := 0
			for _, sent := range w.queue.take() {
				if sent.Wake && sent.Delay == 0 {
					wakes++
				}
			}
			if (len(failed) == 1) != broken || (wakes == 1) == broken {
				t.Errorf("%s: not acknowledged: %v, %d wake-ups", name, failed, wakes)
			}
		})
	}
}

// A wake-up that comes a little early waits; one that comes much earlier, or for another
// time, does nothing.
func TestAWakeUpComesAtItsTime(t *testing.T) {
	const open = 10 * time.Minute
	for name, c := range map[string]struct {
		early time.Duration
		other bool          // for another time
		back  time.Duration // -1 for never
		woken bool
	}{
		"at its time":             {0, false, -1, true},
		"early":                   {3 * time.Second, false, 3 * time.Second, false},
		"ten seconds early":       {10 * time.Second, false, 10 * time.Second, false},
		"more than that":          {10*time.Second + time.Millisecond, false, -1, false},
		"for another time":        {0, true, -1, false},
		"for another time, early": {3 * time.Second, true, -1, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				e := w.endpoint()
				until := time.Now().Add(open)
				s := w.putCircuit(breaker.State{Tenant: e.Tenant, EndpointID: e.ID, Phase: breaker.Open, Since: time.Now(), OpenFor: open, Until: until, WakeAt: until})
				item := wakeOf(s)
				if c.other {
					item.WakeAt = item.WakeAt.Add(-time.Second)
				}
				time.Sleep(open - c.early)
				if failed := w.deliver(item); len(failed) != 0 {
					t.Fatalf("not acknowledged: %v", failed)
				}
				sent, now := w.queue.take(), w.circuit(e)
				if (len(sent) == 1) != (c.back >= 0) || len(sent) == 1 && (sent[0].Delay != c.back || !sent[0].WakeAt.Equal(until)) {
					t.Errorf("queued %+v, want a delay of %s", sent, c.back)
				}
				if (now.Version != s.Version) != c.woken {
					t.Errorf("the circuit is %+v", now)
				}
			})
		})
	}
}

// An open circuit without a backlog is checked again: soon at first, and then every five
// minutes.
func TestACircuitWithoutABacklogIsCheckedAgain(t *testing.T) {
	for open, want := range map[time.Duration]time.Duration{time.Second: 10 * time.Second, time.Minute: time.Minute, time.Hour: 5 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			e := w.endpoint()
			s := w.putCircuit(breaker.State{Tenant: e.Tenant, EndpointID: e.ID, Phase: breaker.Open, Since: time.Now().Add(-open), OpenFor: time.Second, Until: time.Now(), WakeAt: time.Now()})
			w.deliver(wakeOf(s))
			if got := time.Until(w.circuit(e).WakeAt); got != want {
				t.Errorf("open for %s: checked again after %s, want %s", open, got, want)
			}
		})
	}
}

// A wake-up without a time does what is to be done, and nothing for an endpoint that needs
// nothing.
func TestAWakeUpOfAQuietEndpointDoesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint()
		s := w.putCircuit(breaker.State{Tenant: e.Tenant, EndpointID: e.ID, Failures: 1})
		item := wakeOf(s)
		if failed := w.deliver(item); len(failed) != 0 || w.circuit(e) != s || len(w.queue.take()) != 0 {
			t.Errorf("not acknowledged: %v; now %+v", failed, w.circuit(e))
		}
		item.WakeAt = time.Now()
		if failed := w.deliver(item); len(failed) != 0 || w.circuit(e) != s || len(w.queue.take()) != 0 {
			t.Errorf("not acknowledged: %v; now %+v", failed, w.circuit(e))
		}
	})
}

func TestTheBacklogOfADeletedEndpointIsSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint(openFor(10 * time.Minute))
		w.outage()
		items := w.accept(5)
		w.deliver(items...)
		if err := w.store.RemoveEndpoint(t.Context(), e.Tenant, e.ID); err != nil {
			t.Fatal(err)
		}
		w.queue.take()
		if failed := w.deliver(wakeOf(w.circuit(e))); len(failed) != 0 {
			t.Fatalf("not acknowledged: %v", failed)
		}
		for _, item := range items {
			if d := w.delivery(item); d.State != delivery.Skipped || !strings.Contains(d.Reason, "deleted") {
				t.Errorf("it is %s: %s", d.State, d.Reason)
			}
		}
		if s := w.circuit(e); !s.Clean() || !s.WakeAt.IsZero() {
			t.Errorf("its circuit is %+v", s)
		}
	})
}

func TestAWakeUpWhoseEndpointCannotBeReadIsNotAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *dispatch.Config) { c.Endpoints = absentTable{} })
		if failed := w.deliver(work.Item{Tenant: "default", EndpointID: "ep_1", Wake: true}); len(failed) != 1 {
			t.Errorf("not acknowledged: %v", failed)
		}
	})
}
