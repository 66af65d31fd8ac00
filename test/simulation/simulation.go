// Package simulation runs the whole delivery system through years of faults: the real
// handlers of emit and dispatch and the real queue client, on the memory store and
// the local queue. A seed decides what streams, schedule, receivers and operators do.
// The run uses the virtual clock of testing/synctest, and a scheduler serves one
// input or output of a worker at a time, so that a seed always gives the same run. It
// promises that a run without violation kept the invariants in invariants.go and
// circuits.go, as the receivers and the store saw it. test/simulate checks with
// deliberate defects that violations are found.
package simulation

import (
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
	"github.com/tidings-dev/tidings/pkg/local/priority"
	"github.com/tidings-dev/tidings/pkg/store/memory"
)

// Result is the result of one run.
type Result struct {
	Seed       uint64        `json:"seed"`
	Simulated  time.Duration `json:"simulated"`
	Hash       uint64        `json:"hash"` // of all events of the run, in order
	Steps      int           `json:"steps"`
	Counts     Counts        `json:"counts"`
	Violations []Violation   `json:"violations,omitempty"`
	// Trace has all events of the run, if requested.
	Trace []Line `json:"-"`
}

// Violation is a violated invariant.
type Violation struct {
	Invariant string       `json:"invariant"`
	Key       delivery.Key `json:"key"`
	At        string       `json:"at"`
	Says      string       `json:"says"`
}

// Counts counts what happened in a run.
type Counts struct {
	Events, Deliveries, Attempts, Delivered, Dead, Skipped  int
	Killed, Throttled, LostAnswers, Slow, Late, Duplicates  int
	Replayed, Sweeps, Invocations, Edits, Redriven, Opened  int
	Probes, Parked, Limited, StreamReplays, QueueDuplicates int
}

// Add adds the counts of another run.
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

// Run runs one seed, with a trace if requested.
func Run(t *testing.T, seed uint64, trace bool) (r Result) {
	synctest.Test(t, func(*testing.T) { r = run(seed, trace) })
	return r
}

// maxSteps is the limit for a run. A usual one takes 7,000 steps; one with a backlog
// behind a limit of three per minute takes 300,000.
const maxSteps = 2_000_000

// sim is one run. Only the scheduler's goroutine uses it, except for the fields that
// mu guards: a worker's goroutine runs only while the scheduler waits for it.
type sim struct {
	Result
	plan    plan
	rng     *rand.Rand // for decisions during the run
	start   time.Time
	tracing bool
	calm    bool // the faults are over, and the rest must settle

	store   *memory.Store
	cloud   *cloud
	network *network
	checker *checker
	indexes *indexes

	mu      sync.Mutex
	arrived []*ioCall     // calls of the workers since the last turn
	kick    chan struct{} // wakes the scheduler when a call has arrived
	agenda  priority.Queue[*scheduled]
	seq     uint64
	timer   *time.Timer
	over    bool
}

func run(seed uint64, trace bool) Result {
	s := &sim{
		Result: Result{Seed: seed}, tracing: trace, start: time.Now(), kick: make(chan struct{}, 1),
		rng: rand.New(rand.NewPCG(seed, 1)), timer: time.NewTimer(time.Hour),
	}
	s.agenda.Before = func(a, b *scheduled) bool {
		if c := a.at.Compare(b.at); c != 0 {
			return c < 0
		}
		return a.seq < b.seq
	}
	s.plan = newPlan(rand.New(rand.NewPCG(seed, 2)), s.start)
	s.store = memory.New(time.Now)
	s.checker = newChecker(s)
	s.indexes = newIndexes(s)
	s.network = newNetwork(s)
	s.cloud = newCloud(s)
	s.cloud.begin()
	s.schedule()
	s.checker.finish()
	s.Simulated = time.Since(s.start)
	s.timer.Stop()
	s.release()
	return s.Result
}

// scheduled is a function that runs at a time.
type scheduled struct {
	at    time.Time
	seq   uint64 // order among equal times
	do    func()
	place int // in the agenda
}

func (h *scheduled) Position() *int { return &h.place }

// at schedules a function.
func (s *sim) at(when time.Time, do func()) *scheduled {
	s.seq++
	h := &scheduled{at: when, seq: s.seq, do: do, place: -1}
	s.agenda.Put(h)
	return h
}

func (s *sim) after(wait time.Duration, do func()) *scheduled {
	return s.at(time.Now().Add(max(wait, 0)), do)
}

func (s *sim) cancel(h *scheduled) {
	if h != nil {
		s.agenda.Remove(h)
	}
}

// schedule runs one scheduled function at a time, and after each waits until every
// goroutine is blocked.
func (s *sim) schedule() {
	for !s.over {
		synctest.Wait()
		s.collect()
		if s.agenda.Len() == 0 {
			s.checker.violated(quiet, delivery.Key{}, "nothing is scheduled, but the run is not over")
			return
		}
		next := s.agenda.At(0)
		if wait := time.Until(next.at); wait > 0 {
			s.timer.Reset(wait)
			select {
			case <-s.kick:
			case <-s.timer.C:
			}
			continue
		}
		s.agenda.Pop()
		if s.Steps++; s.Steps > maxSteps {
			s.checker.violated(quiet, delivery.Key{}, "the run did not end within %d steps", maxSteps)
			return
		}
		next.do()
	}
}

// collect schedules the calls that arrived since the last turn, in an order that does
// not depend on Go's scheduler.
func (s *sim) collect() {
	s.mu.Lock()
	arrived := s.arrived
	s.arrived = nil
	s.mu.Unlock()
	if len(arrived) > 1 {
		slices.SortStableFunc(arrived, (*ioCall).compare)
	}
	for _, o := range arrived {
		o.plan()
	}
}

// arrive passes a call to the scheduler. Workers' goroutines use it.
func (s *sim) arrive(o *ioCall) {
	s.mu.Lock()
	s.arrived = append(s.arrived, o)
	s.mu.Unlock()
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// release ends all goroutines, so that the synctest bubble can end.
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
		time.Sleep(time.Minute) // for timers of the workers
	}
}

// note writes a line of the trace.
func (s *sim) note(key delivery.Key, format string, args ...any) {
	if !s.tracing {
		return
	}
	s.Trace = append(s.Trace, Line{At: time.Since(s.start), Key: key, Text: fmt.Sprintf(format, args...)})
}

// mark adds an event to the hash of the run.
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

// chance returns true with a probability.
func (s *sim) chance(p float64) bool { return p > 0 && s.rng.Float64() < p }

// between returns a random time from a to b.
func (s *sim) between(a, b time.Duration) time.Duration {
	if b <= a {
		return a
	}
	return a + time.Duration(s.rng.Int64N(int64(b-a)))
}

// Explain renders the last 150 lines of the trace about a violation's delivery and
// endpoint, and a few lines after it.
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

// Render returns the lines of a trace about a delivery or its endpoint; all lines for
// an empty key.
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

// logger is a slog.Handler that writes a worker's log into the trace.
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
		return nil // the cloud traces both
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
