package dispatch_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
)

// sightings are what a receiver saw of a stream of events: when each was sent for the first
// time and when it was accepted.
type sightings struct {
	mu        sync.Mutex
	emitted   map[string]time.Time
	delivered map[string]time.Time
}

// record has the receiver behave as answer says, which may sleep, and notes what it
// accepts.
func (w *world) record(answer func(destination.Message) delivery.Outcome) *sightings {
	j := &sightings{emitted: map[string]time.Time{}, delivered: map[string]time.Time{}}
	w.receiver.answer = func(_ context.Context, m destination.Message) delivery.Outcome {
		began := time.Now()
		o := answer(m)
		o.Timings.Total = max(time.Since(began), time.Millisecond)
		j.mu.Lock()
		defer j.mu.Unlock()
		if o.Class == delivery.Success && j.delivered[m.EventID].IsZero() {
			j.delivered[m.EventID] = time.Now()
		}
		return o
	}
	return j
}

// emit emits one event, and leaves its work items in the queue.
func (w *world) emit(j *sightings) string {
	a, record := w.event("user.posted_comment", comment)
	j.mu.Lock()
	j.emitted[a.ID] = time.Now()
	j.mu.Unlock()
	w.FanOut(w.t.Context(), []event.Change{record})
	return a.ID
}

// stream emits n events one by one while the test drives the queue.
func (w *world) stream(j *sightings, n int, every time.Duration) {
	go func() {
		for range n {
			w.emit(j)
			select {
			case <-time.After(every):
			case <-w.t.Context().Done():
				return
			}
		}
	}()
}

// latencies returns how long the delivered events of a time took, in ascending order,
// and how many were not delivered.
func (j *sightings) latencies(from, to time.Time) (took []time.Duration, missing int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for id, at := range j.emitted {
		if at.Before(from) || !at.Before(to) {
			continue
		}
		if end := j.delivered[id]; end.IsZero() {
			missing++
		} else {
			took = append(took, end.Sub(at))
		}
	}
	slices.Sort(took)
	return took, missing
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(q*float64(len(sorted)-1))]
}

var (
	accepts = delivery.Outcome{Class: delivery.Success, Status: 200}
	refuses = delivery.Outcome{Class: delivery.Answered, Status: 503, Error: "the receiver answered 503"}
)

// A failure of a second is what retries are for: it must not open the circuit.
func TestABlipOfASecondDelaysOnlyItsOwnEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.tick = 5 * time.Millisecond
		w.endpoint()
		began := time.Now()
		var failures atomic.Int32
		j := w.record(func(destination.Message) delivery.Outcome {
			time.Sleep(2 * time.Millisecond)
			if since := time.Since(began); since >= 5*time.Second && since < 6*time.Second {
				failures.Add(1)
				return refuses
			}
			return accepts
		})
		w.stream(j, 15*50, 20*time.Millisecond)
		w.drive(30 * time.Second)
		took, missing := j.latencies(began, time.Now())
		failed := int(failures.Load())
		t.Logf("%d of %d attempts failed: p50 %s, p95 %s, at most %s", failed, len(took)+failed, quantile(took, 0.5), quantile(took, 0.95), quantile(took, 1))
		if missing > 0 || failed < 40 {
			t.Errorf("%d events are not delivered, %d attempts failed", missing, failed)
		}
		if p50, p95, most := quantile(took, 0.5), quantile(took, 0.95), quantile(took, 1); p50 >= 20*time.Millisecond || p95 >= 4*time.Second || most > 10*time.Second {
			t.Errorf("p50 %s, p95 %s, at most %s; want < 20ms, < 4s and 10s", p50, p95, most)
		}
	})
}

func TestAnEndpointThatFailsEachFirstAttemptGetsEveryEventSoon(t *testing.T) {
	for name, every := range map[string]time.Duration{"at once": 0, "one each second": time.Second, "twenty a second": 50 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.endpoint()
				var mu sync.Mutex
				seen := map[string]bool{}
				j := w.record(func(m destination.Message) delivery.Outcome {
					mu.Lock()
					defer mu.Unlock()
					if !seen[m.EventID] {
						seen[m.EventID] = true
						return refuses
					}
					return accepts
				})
				began := time.Now()
				w.stream(j, 60, every)
				w.drive(60*every + 20*time.Second)
				took, missing := j.latencies(began, time.Now())
				if most := quantile(took, 1); missing > 0 || most > 6*time.Second {
					t.Errorf("%d of 60 are not delivered, the others after at most %s; want all within 6s", missing, most)
				}
			})
		})
	}
}

// explain logs what became of the events since a time that were not delivered.
func (w *world) explain(j *sightings, from time.Time) {
	w.t.Helper()
	endpoints, err := w.store.ListEndpoints(w.t.Context(), event.DefaultTenant)
	if err != nil {
		w.t.Fatal(err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for id, at := range j.emitted {
		if !at.Before(from) && j.delivered[id].IsZero() {
			d, err := w.store.GetDelivery(w.t.Context(), delivery.Key{EndpointID: endpoints[0].ID, EventID: id})
			w.t.Logf("emitted after %s: %s, %d attempts, updated %s later: %s %v", at.Sub(from), d.State, d.Attempts, d.UpdatedAt.Sub(at), d.Reason, err)
		}
	}
}

// perMinute counts the attempts in each minute from a time.
func (r *receiver) perMinute(from time.Time, minutes int) []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	counts := make([]int, minutes)
	for _, at := range r.at {
		if n := int(at.Sub(from) / time.Minute); n < minutes {
			counts[n]++
		}
	}
	return counts
}

// perSecond is the highest number of attempts within a second.
func (r *receiver) perSecond(from time.Time) (most int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := 0
	for i, at := range r.at {
		for at.Sub(r.at[first]) >= time.Second {
			first++
		}
		if at.After(from) {
			most = max(most, i-first+1)
		}
	}
	return most
}

// A burst fills the rate limit for a quarter of an hour, and half of what the limit lets
// through comes after it. Slots that were reserved far ahead used to outlive their
// deliveries: 715 of these events died unattempted while the limit was unused.
func TestABurstBehindARateLimitDoesNotDelayNewEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.endpoint(func(e *endpoint.Endpoint) {
			e.Limit, e.Retry.MaxAge = ratelimit.Limit{PerMinute: 60}, 3*time.Minute
		})
		j := w.record(func(destination.Message) delivery.Outcome { return accepts })
		began := time.Now()
		for range 900 {
			w.emit(j)
			time.Sleep(time.Millisecond)
		}
		after := time.Now()
		const minutes = 20
		go func() {
			for time.Since(after) < minutes*time.Minute {
				time.Sleep(2 * time.Second)
				w.emit(j)
			}
		}()
		w.drive(minutes*time.Minute + 4*time.Minute)
		took, missing := j.latencies(after, time.Now())
		counts := w.receiver.perMinute(began, minutes)
		t.Logf("attempts per minute %v; %d new events: p50 %s, p95 %s, at most %s", counts, len(took), quantile(took, 0.5), quantile(took, 0.95), quantile(took, 1))
		if missing > 0 || quantile(took, 1) > 40*time.Second {
			w.explain(j, after)
			t.Errorf("%d new events are not delivered, the others take at most %s", missing, quantile(took, 1))
		}
		// While the burst waits, which it may for three minutes, the limit is used.
		for minute, n := range counts[:3] {
			if n < 57 {
				t.Errorf("%d attempts in minute %d, want at least 95 %% of 60", n, minute)
			}
		}
		if old, _ := j.latencies(began, after); len(old) < 85 {
			t.Errorf("only %d of the burst were delivered", len(old))
		}
	})
}

// A receiver that is slow for five minutes and always answers well: nothing may be left of
// it a minute later.
func TestAReceiverThatWasSlowGetsFullSpeedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.endpoint(func(e *endpoint.Endpoint) { e.Retry.MaxAge = time.Minute })
		began := time.Now()
		j := w.record(func(destination.Message) delivery.Outcome {
			if time.Since(began) < 5*time.Minute {
				time.Sleep(5 * time.Second)
			} else {
				time.Sleep(10 * time.Millisecond)
			}
			return accepts
		})
		w.stream(j, 15*600, 100*time.Millisecond)
		w.drive(17 * time.Minute)
		counts := w.receiver.perMinute(began, 15)
		took, missing := j.latencies(began.Add(6*time.Minute), time.Now())
		_, before := j.latencies(began, began.Add(6*time.Minute))
		t.Logf("attempts per minute %v; after it was fast again p50 %s, p80 %s, at most %s", counts, quantile(took, 0.5), quantile(took, 0.8), quantile(took, 1))
		if missing > 0 || before > 0 {
			t.Errorf("%d and %d events are not delivered", before, missing)
		}
		if p80 := quantile(took, 0.8); p80 > 2*time.Second {
			t.Errorf("p80 is %s, want at most 2s", p80)
		}
		for minute, n := range counts[6:] {
			if n < 590 {
				t.Errorf("%d attempts in minute %d, want 600", n, 6+minute)
			}
		}
	})
}

// A step of the drain keeps its rate in every second, whatever the sweep does: it used to
// queue what was parked as well, and a receiver that had just recovered got 930 attempts in
// one second.
func TestADrainNeverExceedsItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.endpoint()
		w.outage()
		w.requeue(w.accept(3000)...)
		w.drive(7 * time.Hour) // looks at parked deliveries came every six hours
		from := time.Now()
		w.receiver.answer = nil
		w.drive(70 * time.Minute)
		most := w.receiver.perSecond(from)
		t.Logf("%d attempts, at most %d within a second", w.receiver.count(), most)
		if most > breaker.MaxRate*11/10 || w.receiver.count() < 3000 {
			t.Errorf("%d attempts within one second, %d in all; the drain promises %d a second", most, w.receiver.count(), breaker.MaxRate)
		}
	})
}
