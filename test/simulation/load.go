package simulation

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/delivery/retry"
	"github.com/tidings-dev/tidings/pkg/event"
)

// A load is what some seeds have instead of single events: thousands for one endpoint, beside
// a second one with few. loaded and beside are their places in the plan.
const loaded, beside = 0, 1

// loadWorkers is how many batches are delivered at a time under load: enough for receivers
// that are slow, as the template's MaximumConcurrency is.
const loadWorkers = 200

// fewWorkers and slowWorkers are how many batches are delivered at a time of the work queue
// and of the slow queue, where a receiver takes more workers than there are.
const fewWorkers, slowWorkers = 40, 20

// stream is a time in which events arrive at a rate.
type stream struct {
	from, to  time.Time
	every     time.Duration // 0: n at once
	n         int
	eventType string
}

// newLoad makes a plan one of a load. The receivers of its kinds are those that were seen to
// be left unused, flooded or slowed down.
func newLoad(r *rand.Rand, p *plan, start time.Time) {
	between := func(a, b float64) float64 { return a + (b-a)*r.Float64() }
	minutes := func(n float64) time.Duration { return time.Duration(n * float64(time.Minute)) }
	p.producers, p.operators, p.hot = nil, nil, nil
	p.workers, p.slowWorkers, p.busy, p.settle = loadWorkers, slowWorkers, 2*time.Hour, 100*time.Hour
	if r.Float64() < 0.6 {
		p.faults, p.storms, p.maxSkew = faults{}, nil, 0
	}
	p.endpoints = nil
	for i := range 2 {
		one := newEndpoint(r, i, event.DefaultTenant, start, p.busy)
		e := &one.endpoint
		e.Filter, e.Timeout, e.Limit, e.Breaker = nil, 0, ratelimit.Limit{}, breaker.Policy{}
		e.EventTypes = []string{[]string{"user.joined_community", "user.posted_comment"}[i]}
		e.Retry = retry.Policy{MaxAge: []time.Duration{0, minutes(between(3, 10))}[r.IntN(2)]}
		one.behaviours, one.hopeless = []period{{start, up}}, false
		p.endpoints = append(p.endpoints, one)
	}
	p.endpoints[beside].endpoint.Retry = retry.Policy{}
	main, begin := &p.endpoints[loaded], start.Add(time.Minute)
	flow := func(rate float64, from time.Time, long time.Duration) {
		p.streams = append(p.streams, stream{from: from, to: from.Add(long), every: time.Duration(float64(time.Second) / rate), eventType: "user.joined_community"})
	}
	limit := func() float64 {
		perMinute := 30 + r.IntN(220)
		main.endpoint.Limit = ratelimit.Limit{PerMinute: perMinute}
		return float64(perMinute) / 60
	}
	long := minutes(between(5, 15))
	switch r.IntN(5) {
	case 0: // a burst above the limit, and then less than it
		rate := limit()
		p.streams = append(p.streams, stream{from: begin, to: begin, n: min(int(rate*60*between(2, 20)), 2000), eventType: "user.joined_community"})
		flow(rate*between(0.3, 0.9), begin.Add(time.Second), long)
	case 1: // more than the limit for a while
		rate := limit()
		flow(min(rate*between(1.2, 3), 6), begin, long)
		flow(rate*between(0.2, 0.8), begin.Add(long), long)
	case 2: // a receiver that is slow and recovers
		main.behaviours = []period{{start, drags}, {begin.Add(long), up}}
		flow(between(2, 6), begin, long+minutes(between(1, 4)))
	case 3: // an outage, and events all the time
		main.behaviours = []period{{start, up}, {begin.Add(time.Minute), []behaviour{refuses, fails}[r.IntN(2)]}, {begin.Add(long), up}}
		flow(between(1, 3), begin, long+minutes(between(1, 4)))
	case 4: // a receiver that takes more workers than there are
		long = minutes(between(1, 3))
		main.behaviours = []period{{start, []behaviour{drags, hangs}[r.IntN(2)]}, {begin.Add(long), up}}
		p.workers = fewWorkers
		flow(between(10, 15), begin, long+time.Minute)
	}
	p.streams = append(p.streams, stream{from: begin, to: begin.Add(2 * long), every: 2 * time.Second, eventType: "user.posted_comment"})
	slices.SortStableFunc(p.streams, func(a, b stream) int { return a.from.Compare(b.from) })
}

// flow puts a stream's events into the store, as capture does: without emit.
func (c *cloud) flow(number int, f stream) {
	n := max(f.n, 1)
	for i := range n {
		c.put(number, i, f.eventType)
	}
	c.pump()
	if next := time.Now().Add(f.every); f.every > 0 && next.Before(f.to) {
		c.s.at(next, func() { c.flow(number, f) })
		return
	}
	c.producing--
}

func (c *cloud) put(number, i int, eventType string) {
	now := time.Now()
	c.puts++
	id := event.DerivedID(now, fmt.Sprintf("%d/%d/%d/%d", c.s.Seed, number, c.puts, i))
	data := `{"community_id":"c_1","community_name":"Gophers"}`
	if eventType == "user.posted_comment" {
		data = `{"discussion_id":"d_1","comment_id":"k_1","comment_text":"x"}`
	}
	body, err := event.Event{ID: id, Type: eventType, Timestamp: now, Data: []byte(data)}.Encode()
	if err == nil {
		err = c.s.store.PutEvent(context.Background(), event.Accepted{ID: id, Tenant: event.DefaultTenant, Body: body, Subject: eventTypes.Subject(eventType, []byte(data))})
	}
	if err != nil {
		panic(err)
	}
}

// The invariants of load. They are judged where there are no faults.
const (
	conserved = "a healthy receiver's limit is used"       // at least 95 % while anything unexpired waits
	prompt    = "one endpoint's trouble delays no other"   // by more than neighbourWait
	recovered = "a receiver that recovers is used at once" // not less than recoveredRate a second
	gentle    = "a drain starts slowly, in every second"   // see drained
)

const (
	// neighbourWait is how long an event may wait at most for its attempt at a healthy
	// endpoint without a limit: the stream, the queue and a worker.
	neighbourWait = 3 * time.Second
	// useWindow is the time over which the use of a limit is measured.
	useWindow = time.Minute
	// settledIn is how long a drain may take to reach full speed, once the receiver has
	// recovered and its circuit is closed: a slow start.
	settledIn = time.Minute
	// recoveredRate is how many attempts per second a healthy receiver without a limit gets
	// after that, while as many wait.
	recoveredRate = 40
)

// drained checks a claim of a delivery that was in its endpoint's backlog. Without a limit, a
// drain begins with breaker.StartRate in a second, and at most doubles every
// breaker.DoubleEvery up to breaker.MaxRate, whatever its steps and its workers do. Faults of
// the queue would let messages of several seconds arrive in one.
func (j *checker) drained(k delivery.Key) {
	p, now := j.s.plan.endpoints, time.Now()
	if len(j.s.plan.streams) == 0 || j.s.plan.faults != (faults{}) || k.EndpointID != p[loaded].endpoint.ID || p[loaded].endpoint.Limit.Enabled() {
		return
	}
	x := j.endpointLog(k.EndpointID)
	began := j.s.start
	for _, phase := range x.phases {
		if phase.phase == breaker.Draining {
			began = phase.at
		}
	}
	x.drains = append(x.drains, now)
	n := 0
	for _, at := range slices.Backward(x.drains) {
		if now.Sub(at) >= time.Second {
			break
		}
		n++
	}
	rate := min(breaker.StartRate<<min(int(now.Sub(began)/breaker.DoubleEvery), 20), breaker.MaxRate)
	// A claim takes a few milliseconds, and two steps may meet.
	if most := rate + rate/10 + 2; n > most {
		j.violated(gentle, k, "%d deliveries of the backlog are claimed within a second, %s after the drain began; at most %d may be", n, now.Sub(began), most)
	}
}

// life is when a delivery could be attempted, and when it was.
type life struct {
	key     delivery.Key
	from    time.Time
	until   time.Time // its age limit
	attempt time.Time // the first; zero if there was none
}

// judgeLoad checks the use of the loaded endpoint, and the delay of the one beside it.
func (j *checker) judgeLoad() {
	s := j.s
	if len(s.plan.streams) == 0 || s.plan.faults != (faults{}) {
		return
	}
	var lives [2][]life
	for _, f := range j.events {
		for i, p := range s.plan.endpoints {
			if !p.endpoint.Subscribes(f.decoded.Type) {
				continue
			}
			one := life{key: delivery.Key{EndpointID: p.endpoint.ID, EventID: f.id}, from: f.done, until: f.stored.Add(p.endpoint.Retry.AgeLimit())}
			if t := j.deliveries[one.key]; t != nil && len(t.attempts) > 0 {
				one.attempt = t.attempts[0].sent
			}
			lives[i] = append(lives[i], one)
		}
	}
	for i := range lives {
		slices.SortFunc(lives[i], func(a, b life) int { return a.from.Compare(b.from) })
	}
	for _, one := range lives[beside] {
		if one.attempt.IsZero() || one.attempt.Sub(one.from) > neighbourWait {
			j.violated(prompt, one.key, "it was first attempted at %s, %s after its event was fanned out", clock(one.attempt.Sub(s.start)), one.attempt.Sub(one.from))
			return
		}
	}
	p := s.plan.endpoints[loaded]
	x := j.endpointLog(p.endpoint.ID)
	end := s.start.Add(s.plan.busy)
	// waiting is how many wait at a time that could have been attempted for a while.
	waiting := func(at time.Time) (n int) {
		for _, one := range lives[loaded] {
			if one.from.Add(5*time.Second).Before(at) && one.until.After(at.Add(5*time.Second)) && (one.attempt.IsZero() || one.attempt.After(at)) {
				n++
			}
		}
		return n
	}
	started := func(from, to time.Time) (n int) {
		for _, at := range x.all {
			if !at.Before(from) && at.Before(to) {
				n++
			}
		}
		return n
	}
	limit := p.endpoint.Limit
	for from := s.start.Add(time.Minute); from.Before(end); from = from.Add(useWindow / 2) {
		to := from.Add(useWindow)
		since, well := s.network.receivers[p.endpoint.ID].upSince(to)
		if !well || from.Before(since.Add(settledIn)) && since.After(s.start) || x.openWithin(from.Add(-settledIn), to) {
			continue
		}
		least, want := int(^uint(0)>>1), recoveredRate*int(useWindow.Seconds())
		for at := from; !at.After(to); at = at.Add(5 * time.Second) {
			least = min(least, waiting(at))
		}
		if limit.Enabled() {
			want = limit.PerMinute
		}
		if least == 0 || !limit.Enabled() && least < want {
			continue
		}
		if got := started(from, to); float64(got) < 0.95*float64(want)-1 {
			invariant := conserved
			if !limit.Enabled() {
				invariant = recovered
			}
			j.violated(invariant, delivery.Key{EndpointID: p.endpoint.ID}, "from %s on, %d attempts began in %s, of %d that the receiver takes, while at least %d waited",
				clock(from.Sub(s.start)), got, useWindow, want, least)
			return
		}
	}
}

// openWithin reports whether the circuit was open at any time from one time to another.
func (x *endpointLog) openWithin(from, to time.Time) bool {
	open := false // before from, and then at any time
	for _, p := range x.phases {
		switch {
		case p.at.After(to):
			return open
		case !p.at.After(from):
			open = p.phase == breaker.Open
		case p.phase == breaker.Open:
			return true
		}
	}
	return open
}
