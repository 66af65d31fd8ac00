package simulation

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
)

var (
	errKilled    = errors.New("the worker is dead")
	errThrottled = errors.New("throughput exceeded: throttled")
	errLost      = errors.New("connection reset before the answer came")
)

// worker is one execution environment of a function, with its own caches and clock.
// It serves one invocation at a time.
type worker struct {
	s        *sim
	id       int
	function string
	skew     time.Duration // of its clock
	deadline time.Time     // of the current invocation, on its clock
	dead     bool
	busy     *invocation
	serve    func(context.Context, json.RawMessage) (any, error)
	open     map[*ioCall]bool // under way
	sends    []*attempt       // under way

	mu     sync.Mutex
	rng    *rand.Rand
	claims int
	ids    int
}

func (w *worker) String() string { return fmt.Sprintf("worker %d", w.id) }

// Now is the worker's own clock.
func (w *worker) Now() time.Time { return time.Now().Add(w.skew) }

// Random returns the random number for jitter.
func (w *worker) Random() float64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rng.Float64()
}

// ClaimID returns an id that is unique among all workers.
func (w *worker) ClaimID() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.claims++
	return fmt.Sprintf("w%d-%d", w.id, w.claims)
}

// invocationContext is the context of an invocation. It never ends, because a worker
// is killed at its timeout. Its deadline is on the worker's clock.
type invocationContext struct {
	context.Context
	deadline time.Time
}

// beforeLock waits for the scheduler, so the seed decides which goroutine gets a lock
// first.
func (w *worker) beforeLock(ctx context.Context) {
	_ = w.call(ctx, &ioCall{what: "wait", instant: true, read: true})
}

func (c invocationContext) Deadline() (time.Time, bool) { return c.deadline, true }

// ioCall is one input or output of a worker, which waits for the scheduler.
type ioCall struct {
	w       *worker
	what    string
	key     delivery.Key
	detail  string
	indexes []string     // partitions of indexes, beside those of the key
	read    bool         // has no effect, so lost or repeated requests do not matter
	effect  func() error // runs in the scheduler's goroutine
	onFault func(string) // called for faults after which the caller may not know the outcome
	begin   func()       // instead of effect, for calls that end themselves with finish
	ends    bool         // the call ends the invocation's goroutine

	instant bool // takes no time and never fails

	deadline time.Time // zero for none
	slow     time.Duration
	result   chan error
	finished bool
	message  string // that the call is made for; empty outside a message
}

func (o *ioCall) compare(other *ioCall) int {
	return cmp.Or(cmp.Compare(o.w.id, other.w.id), cmp.Compare(o.what, other.what),
		cmp.Compare(o.key.EndpointID, other.key.EndpointID), cmp.Compare(o.key.EventID, other.key.EventID), cmp.Compare(o.detail, other.detail),
		cmp.Compare(o.message, other.message))
}

// call waits until the scheduler has served a call.
func (w *worker) call(ctx context.Context, o *ioCall) error {
	o.w, o.result, o.message = w, make(chan error, 1), work.MessageID(ctx)
	// The invocation's own deadline ends no call: the worker is killed then.
	if at, ok := ctx.Deadline(); ok && !at.Equal(w.deadline) {
		// Slightly before, because at the deadline itself the order of the two
		// events is undefined.
		o.deadline = at.Add(-time.Millisecond)
	}
	w.s.arrive(o)
	return <-o.result
}

func (o *ioCall) finish(err error) {
	if o.finished {
		return
	}
	o.finished = true
	delete(o.w.open, o)
	o.result <- err
}

// plan decides when a call arrives.
func (o *ioCall) plan() {
	s, w := o.w.s, o.w
	if o.ends {
		s.cloud.running--
	}
	if w.dead {
		o.finish(errKilled)
		return
	}
	w.open[o] = true
	if o.instant {
		s.at(time.Now(), func() {
			s.mark(o.what)
			o.finish(nil)
		})
		return
	}
	if o.begin != nil {
		o.begin()
		return
	}
	wait := s.between(500*time.Microsecond, 8*time.Millisecond)
	if s.faulty(s.plan.faults.slow) {
		s.Counts.Slow++
		slow := s.between(time.Second, 40*time.Second)
		if s.chance(0.2) { // TCP repeats what was lost for minutes
			slow = s.between(40*time.Second, 8*time.Minute)
		}
		if s.chance(0.5) {
			wait += slow // the request is late
		} else {
			o.slow = slow // the response is late
		}
		o.faulted("slow")
	}
	when := time.Now().Add(wait)
	if !o.deadline.IsZero() && when.After(o.deadline) {
		// The caller gives up; the request may still arrive.
		arrives := s.chance(0.5)
		s.at(o.deadline, func() {
			if !w.dead {
				o.say("given up at the deadline")
			}
			o.faulted("given up")
			o.finish(context.DeadlineExceeded)
		})
		if arrives && !o.read {
			s.at(when, func() {
				s.Counts.Late++
				err := o.effect()
				o.say("arrives after its caller gave up: %s", says(err))
			})
		}
		return
	}
	s.at(when, o.arrive)
}

// arrive decides on a fault and runs the call's effect.
func (o *ioCall) arrive() {
	s, w := o.w.s, o.w
	if w.dead {
		// The request may have been sent before the worker died.
		if !o.read && s.chance(0.5) {
			err := o.effect()
			o.say("arrives after its worker's death: %s", says(err))
		}
		o.finish(errKilled)
		return
	}
	f := &s.plan.faults
	switch {
	case s.faulty(f.kill):
		w.kill("killed before " + o.what)
		o.finish(errKilled)
		return
	case s.faulty(f.throttle), s.hot(o):
		s.Counts.Throttled++
		o.say("throttled")
		o.faulted("throttled")
		o.answer(errThrottled)
		return
	case !o.read && s.faulty(f.lose):
		s.Counts.LostAnswers++
		err := o.effect()
		o.say("done (%s), answer lost", says(err))
		o.faulted("answer lost")
		o.answer(errLost)
		return
	case !o.read && s.faulty(f.twice):
		// The client lost the response and repeated the request.
		err := o.effect()
		o.say("done (%s), answer lost, repeated by the client", says(err))
		o.faulted("repeated")
	}
	err := o.effect()
	if !o.read || err != nil {
		o.say("%s", says(err))
	}
	s.mark(o.what, o.key.EndpointID, o.key.EventID, says(err))
	if s.faulty(f.kill) {
		w.kill("killed after " + o.what)
		o.finish(errKilled)
		return
	}
	o.answer(err)
}

// answer returns the response to the caller, possibly late.
func (o *ioCall) answer(err error) {
	if o.slow == 0 {
		o.finish(err)
		return
	}
	when := time.Now().Add(o.slow)
	if !o.deadline.IsZero() && when.After(o.deadline) {
		when, err = o.deadline, context.DeadlineExceeded
	}
	o.w.s.at(when, func() {
		if o.w.dead {
			err = errKilled
		} else {
			o.say("answer arrives %s late: %s", o.slow.Truncate(time.Millisecond), says(err))
		}
		o.finish(err)
	})
}

func (o *ioCall) faulted(how string) {
	if o.onFault != nil {
		o.onFault(how)
	}
}

func (o *ioCall) say(format string, args ...any) {
	if o.w.s.tracing {
		o.w.s.note(o.key, "%s %s%s: %s", o.w, o.what, o.detail, fmt.Sprintf(format, args...))
	}
}

func says(err error) string {
	if err == nil {
		return "ok"
	}
	return err.Error()
}

// kill ends a worker. Further calls of its goroutines have no effect.
func (w *worker) kill(why string) {
	if w.dead {
		return
	}
	w.dead = true
	w.s.Counts.Killed++
	w.s.mark("kill", why)
	w.s.note(delivery.Key{}, "%s dies: %s", w, why)
	for _, o := range slices.SortedFunc(maps.Keys(w.open), (*ioCall).compare) {
		if o.key != (delivery.Key{}) {
			w.s.note(o.key, "%s dies (%s), with %s under way", w, why, o.what)
		}
		o.faulted("its worker died")
	}
	for _, a := range slices.Clone(w.sends) {
		w.s.network.cut(a, why)
	}
	if w.busy != nil {
		w.s.cloud.failed(w.busy, errKilled)
	}
}
