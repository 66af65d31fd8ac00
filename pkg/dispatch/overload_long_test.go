//go:build !race

// The race detector makes these take minutes; `make cover` runs them without it.

package dispatch_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/endpoint"
)

// Twice what the limit lets through, for an hour: all of the limit is used, new events are
// not stuck behind old ones, and what expires does so on time.
func TestSustainedOverloadUsesTheWholeLimit(t *testing.T) {
	if testing.Short() {
		t.Skip("an hour of overload")
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint(func(e *endpoint.Endpoint) {
			e.Limit, e.Retry.MaxAge = ratelimit.Limit{PerMinute: 120}, 10*time.Minute
		})
		j := w.record(func(destination.Message) delivery.Outcome { return accepts })
		began := time.Now()
		w.stream(j, 4*3600, 250*time.Millisecond)
		w.drive(75 * time.Minute)
		counts := w.receiver.perMinute(began, 60)
		took, missing := j.latencies(began.Add(30*time.Minute), began.Add(40*time.Minute))
		t.Logf("attempts per minute %v; of the events of ten minutes %d delivered (p50 %s, at most %s), %d expired", counts, len(took), quantile(took, 0.5), quantile(took, 1), missing)
		for minute, n := range counts {
			if n < 114 {
				t.Errorf("%d attempts in minute %d, want at least 95 %% of 120", n, minute)
			}
		}
		if quantile(took, 0.45) > 30*time.Second {
			t.Errorf("new events take %s (p45): they are stuck behind old ones", quantile(took, 0.45))
		}
		j.mu.Lock()
		defer j.mu.Unlock()
		for id := range j.emitted {
			d, err := w.store.GetDelivery(t.Context(), delivery.Key{EndpointID: e.ID, EventID: id})
			if err != nil || !d.State.Settled() || d.State == delivery.Dead && d.UpdatedAt.Sub(d.Since) > 20*time.Minute {
				t.Fatalf("%+v, %v", d, err)
			}
		}
	})
}

// capacity is a receiver of twenty workers that need 50 ms for an event, and a queue. It
// answers 503 when the queue is full.
type capacity struct {
	mu      sync.Mutex
	busy    int
	refused int
	workers chan struct{}
}

func (c *capacity) answer() delivery.Outcome {
	c.mu.Lock()
	if c.busy >= 300 {
		c.refused++
		c.mu.Unlock()
		return refuses
	}
	c.busy++
	c.mu.Unlock()
	c.workers <- struct{}{}
	time.Sleep(50 * time.Millisecond)
	<-c.workers
	c.mu.Lock()
	c.busy--
	c.mu.Unlock()
	return accepts
}

// Sixty thousand events wait after an outage of twenty minutes. They are gone within ten
// minutes, new events are not stuck behind them, and the receiver gets no more than it
// answers.
func TestTheBacklogOfAnOutageIsGoneWithinMinutes(t *testing.T) {
	if testing.Short() {
		t.Skip("delivers 120,000 events")
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.tick = 20 * time.Millisecond
		e := w.endpoint()
		began := time.Now()
		outage := began.Add(20 * time.Minute)
		server := &capacity{workers: make(chan struct{}, 20)}
		j := w.record(func(destination.Message) delivery.Outcome {
			if time.Now().Before(outage) {
				return refuses
			}
			return server.answer()
		})
		w.stream(j, 50*60*40, 20*time.Millisecond)
		w.drive(20 * time.Minute)
		closed := func() bool { return w.circuit(e).Phase != breaker.Open }
		for !closed() {
			w.drive(time.Second)
		}
		recovered := time.Now()
		w.drive(10 * time.Minute)
		_, missing := j.latencies(began, recovered)
		took, late := j.latencies(recovered.Add(time.Second), time.Now().Add(-10*time.Second))
		t.Logf("the probe came %s after the receiver; then at most %d attempts/s, %d refused; new events: p50 %s, p95 %s, at most %s",
			recovered.Sub(outage), w.receiver.perSecond(recovered), server.refused, quantile(took, 0.5), quantile(took, 0.95), quantile(took, 1))
		j.mu.Lock()
		var last time.Time
		for id, at := range j.delivered {
			if j.emitted[id].Before(recovered) && at.After(last) {
				last = at
			}
		}
		j.mu.Unlock()
		t.Logf("the last of the outage's events came %s after the receiver", last.Sub(outage))
		if missing > 0 || late > 0 || last.Sub(outage) > 10*time.Minute {
			t.Errorf("ten minutes later %d of the outage's and %d new events are not delivered", missing, late)
		}
		if p95 := quantile(took, 0.95); p95 > 5*time.Second {
			t.Errorf("new events' p95 is %s, want at most 5s", p95)
		}
		if server.refused > 0 {
			t.Errorf("the receiver refused %d attempts", server.refused)
		}
	})
}
