// Package simulation runs the whole delivery system through years of faults:
// the real handlers of emit and dispatch and the real queue client, on the memory
// store, with a queue, streams, a schedule, receivers and operators that one seed
// decides. It runs on testing/synctest's clock, and every input and output of a
// worker waits for a scheduler that serves one at a time, so that whatever a seed
// finds it finds again, step by step. It promises that a run which broke none of
// the invariants in invariants.go kept the one promise of the system, as the
// receivers and the store saw it; and test/simulate shows, with deliberate defects,
// that a broken promise is found.
package simulation

import (
	"container/heap"
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/store/memory"
)

// Result is what became of one run.
type Result struct {
	Seed       uint64        `json:"seed"`
	Simulated  time.Duration `json:"simulated"`
	Hash       uint64        `json:"hash"` // of everything that happened, in its order
	Steps      int           `json:"steps"`
	Counts     Counts        `json:"counts"`
	Violations []Violation   `json:"violations,omitempty"`
	// Trace is everything that happened, where that was asked for.
	Trace []Line `json:"-"`
}

// Violation is an invariant that did not hold.
type Violation struct {
	Invariant string       `json:"invariant"`
	Key       delivery.Key `json:"key"`
	At        string       `json:"at"`
	Says      string       `json:"says"`
}

// Counts says how much a run was worth.
type Counts struct {
	Events, Deliveries, Attempts, Delivered, Dead, Skipped  int
	Killed, Throttled, LostAnswers, Slow, Late, Duplicates  int
	Replayed, Sweeps, Invocations, Edits, Redriven, Opened  int
	Probes, Parked, Limited, StreamReplays, QueueDuplicates int
}

// Add adds up.
func (c *Counts) Add(o Counts) {
	for _, p := range []struct {
		to   *int
		more int
	}{
		{&c.Events, o.Events}, {&c.Deliveries, o.Deliveries}, {&c.Attempts, o.Attempts}, {&c.Delivered, o.Delivered},
		{&c.Dead, o.Dead}, {&c.Skipped, o.Skipped}, {&c.Killed, o.Killed}, {&c.Throttled, o.Throttled},
		{&c.LostAnswers, o.LostAnswers}, {&c.Slow, o.Slow}, {&c.Late, o.Late}, {&c.Duplicates, o.Duplicates},
		{&c.Replayed, o.Replayed}, {&c.Sweeps, o.Sweeps}, {&c.Invocations, o.Invocations}, {&c.Edits, o.Edits},
		{&c.Redriven, o.Redriven}, {&c.Opened, o.Opened}, {&c.Probes, o.Probes}, {&c.Parked, o.Parked},
		{&c.Limited, o.Limited}, {&c.StreamReplays, o.StreamReplays}, {&c.QueueDuplicates, o.QueueDuplicates},
	} {
		*p.to += p.more
	}
}

// Line is one line of a trace.
type Line struct {
	At time.Duration
	// Key is the delivery that the line is about; its EventID, or both, may be empty.
	Key  delivery.Key
	Text string
}

// Run runs one seed. The trace costs time, and is kept only where asked for.
func Run(t *testing.T, seed uint64, trace bool) (r Result) {
	synctest.Test(t, func(*testing.T) { r = run(seed, trace) })
	return r
}

// maxSteps is where a run has gone astray: one takes 7,000, and a backlog behind a
// rate of three a minute 300,000.
const maxSteps = 500_000

// sim is one run. Everything in it belongs to the scheduler's goroutine, but for
// what mu guards: a worker's goroutine runs only while the scheduler waits for it.
type sim struct {
	Result
	plan    plan
	rng     *rand.Rand // decides as the run goes
	start   time.Time
	tracing bool
	calm    bool // faults are over: what remains has to settle

	store   *memory.Store
	cloud   *cloud
	network *network
	judge   *judge
	indexes *indexes

	mu      sync.Mutex
	arrived []*io         // what workers' goroutines want, since the last turn
	kick    chan struct{} // tells the scheduler, while it sleeps, that something has arrived
	agenda  agenda
	seq     uint64
	timer   *time.Timer
	over    bool
}

func run(seed uint64, trace bool) Result {
	s := &sim{
		Result: Result{Seed: seed}, tracing: trace, start: time.Now(), kick: make(chan struct{}, 1),
		rng: rand.New(rand.NewPCG(seed, 1)), timer: time.NewTimer(time.Hour),
	}
	s.plan = newPlan(rand.New(rand.NewPCG(seed, 2)), s.start)
	s.store = memory.New(time.Now)
	s.judge = newJudge(s)
	s.indexes = newIndexes(s)
	s.network = newNetwork(s)
	s.cloud = newCloud(s)
	s.cloud.begin()
	s.schedule()
	s.judge.finish()
	s.Simulated = time.Since(s.start)
	s.timer.Stop()
	s.release()
	return s.Result
}

// happening is something that happens at a time.
type happening struct {
	at    time.Time
	seq   uint64 // among equals, in the order in which they were planned
	do    func()
	place int
}

type agenda []*happening

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	if c := a[i].at.Compare(a[j].at); c != 0 {
		return c < 0
	}
	return a[i].seq < a[j].seq
}
func (a agenda) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].place, a[j].place = i, j
}
func (a *agenda) Push(x any) {
	h := x.(*happening)
	h.place = len(*a)
	*a = append(*a, h)
}
func (a *agenda) Pop() any {
	old := *a
	h := old[len(old)-1]
	old[len(old)-1] = nil
	*a = old[:len(old)-1]
	h.place = -1
	return h
}

// at plans something.
func (s *sim) at(when time.Time, do func()) *happening {
	s.seq++
	h := &happening{at: when, seq: s.seq, do: do}
	heap.Push(&s.agenda, h)
	return h
}

func (s *sim) after(wait time.Duration, do func()) *happening {
	return s.at(time.Now().Add(max(wait, 0)), do)
}

func (s *sim) cancel(h *happening) {
	if h != nil && h.place >= 0 {
		heap.Remove(&s.agenda, h.place)
	}
}

// schedule is the heart: it lets one thing happen at a time, and after each waits
// until every goroutine waits again.
func (s *sim) schedule() {
	for !s.over {
		synctest.Wait()
		s.collect()
		if len(s.agenda) == 0 {
			s.judge.broken(quiet, delivery.Key{}, "nothing is planned any more, and the run is not over")
			return
		}
		next := s.agenda[0]
		if wait := time.Until(next.at); wait > 0 {
			s.timer.Reset(wait)
			select {
			case <-s.kick:
			case <-s.timer.C:
			}
			continue
		}
		heap.Pop(&s.agenda)
		if s.Steps++; s.Steps > maxSteps {
			s.judge.broken(quiet, delivery.Key{}, "%d steps and no end", maxSteps)
			return
		}
		next.do()
	}
}

// collect takes what workers want since the last turn and plans it. Several that
// arrived in one turn are put in an order that does not depend on how Go's
// scheduler ran their goroutines.
func (s *sim) collect() {
	s.mu.Lock()
	arrived := s.arrived
	s.arrived = nil
	s.mu.Unlock()
	if len(arrived) > 1 {
		slices.SortStableFunc(arrived, (*io).compare)
		s.tell(arrived)
	}
	for _, o := range arrived {
		o.plan()
	}
}

// tell tells those apart, of what is sorted, that look the same.
func (s *sim) tell(arrived []*io) {
	var same []*io
	for i, o := range arrived {
		if i > 0 && o.compare(arrived[i-1]) == 0 || i+1 < len(arrived) && o.compare(arrived[i+1]) == 0 {
			same = append(same, o)
		}
	}
	for _, o := range same {
		o.result <- errWhoAreYou
	}
	if len(same) > 0 {
		synctest.Wait()
		slices.SortStableFunc(arrived, (*io).compare)
	}
}

// arrive is called by workers' goroutines.
func (s *sim) arrive(o *io) {
	s.mu.Lock()
	s.arrived = append(s.arrived, o)
	s.mu.Unlock()
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// release ends every goroutine that is still there, so that the bubble can end.
func (s *sim) release() {
	for _, w := range s.cloud.workers {
		w.dead = true
	}
	for range 1000 {
		synctest.Wait()
		s.mu.Lock()
		arrived := s.arrived
		s.arrived = nil
		s.mu.Unlock()
		for _, o := range arrived {
			o.plan()
		}
		for _, w := range s.cloud.workers {
			for o := range w.open {
				o.finish(errKilled)
			}
		}
		if s.cloud.running == 0 {
			return
		}
		time.Sleep(time.Minute) // timers that workers wait for
	}
}

// note writes a line of the trace, and always counts into the hash.
func (s *sim) note(key delivery.Key, format string, args ...any) {
	if !s.tracing {
		return
	}
	s.Trace = append(s.Trace, Line{At: time.Since(s.start), Key: key, Text: fmt.Sprintf(format, args...)})
}

// mark counts something into the hash of the run.
func (s *sim) mark(parts ...string) {
	h := s.Hash ^ uint64(time.Since(s.start))
	for _, p := range parts {
		for i := range len(p) {
			h = (h ^ uint64(p[i])) * 1099511628211
		}
		h = (h ^ 0xff) * 1099511628211
	}
	s.Hash = h
}

// chance is true with a probability.
func (s *sim) chance(p float64) bool { return p > 0 && s.rng.Float64() < p }

// between is a random time from a to b.
func (s *sim) between(a, b time.Duration) time.Duration {
	if b <= a {
		return a
	}
	return a + time.Duration(s.rng.Int64N(int64(b-a)))
}

// Explain renders what led to a violation: the lines about its delivery and its
// endpoint up to it, the latest where there are many, and a few after it.
func Explain(trace []Line, v Violation) string {
	text := strings.SplitAfter(Render(trace, v.Key), "\n")
	at := len(text)
	for i, line := range text {
		if strings.Contains(line, "BROKEN: ") {
			at = i
			break
		}
	}
	from, to := max(0, at-150), min(len(text), at+6)
	return strings.Join(text[from:to], "")
}

// Render prints the lines of a trace that are about a delivery (or its endpoint);
// all of them for a key without ids.
func Render(trace []Line, key delivery.Key) string {
	var b strings.Builder
	for _, l := range trace {
		switch none := (delivery.Key{}); {
		case key == none:
		case l.Key == none,
			l.Key.EndpointID != "" && key.EndpointID != "" && l.Key.EndpointID != key.EndpointID,
			l.Key.EventID != "" && key.EventID != "" && l.Key.EventID != key.EventID:
			continue
		}
		fmt.Fprintf(&b, "%14s  %s\n", clock(l.At), l.Text)
	}
	return b.String()
}

func clock(d time.Duration) string {
	return fmt.Sprintf("%dd %02d:%02d:%02d.%03d", d/(24*time.Hour), d/time.Hour%24, d/time.Minute%60, d/time.Second%60, d/time.Millisecond%1000)
}

// logger writes a worker's log into the trace.
type logger struct {
	slog.Handler
	w *worker
}

func (w *worker) logger() *slog.Logger {
	if !w.s.tracing {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(logger{slog.DiscardHandler, w})
}

func (logger) Enabled(context.Context, slog.Level) bool { return true }

func (l logger) Handle(_ context.Context, r slog.Record) error {
	if l.w.dead {
		return nil
	}
	var b strings.Builder
	var key delivery.Key
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "endpoint_id":
			key.EndpointID = a.Value.String()
		case "event_id":
			key.EventID = a.Value.String()
		case "event_type", "tenant", "dns_ms", "connect_ms", "tls_ms", "first_byte_ms":
			return true
		}
		fmt.Fprintf(&b, " %s=%s", a.Key, a.Value)
		return true
	})
	if r.Message == "sweep.done" || r.Message == "event.accepted" {
		return nil // the cloud notes both
	}
	l.w.s.mu.Lock()
	defer l.w.s.mu.Unlock()
	l.w.s.note(key, "%s logs %s%s", l.w, r.Message, b.String())
	return nil
}

func hash(text string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(text))
	return h.Sum64()
}
