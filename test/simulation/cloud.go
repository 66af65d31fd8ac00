package simulation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/aws/aws-lambda-go/events"

	dispatchhandler "github.com/tidings-dev/tidings/functions/dispatch/handler"
	emithandler "github.com/tidings-dev/tidings/functions/emit/handler"
	"github.com/tidings-dev/tidings/pkg/aws/lambdaevent"
	"github.com/tidings-dev/tidings/pkg/aws/sqsqueue"
	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/validate"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// Settings of the template; a test compares them with it.
const (
	emitTimeout     = 30 * time.Second
	dispatchTimeout = time.Minute
	visibility      = 6 * time.Minute
	maxReceives     = 10
	queueBatch      = 10
	streamBatch     = 100
	sweepEvery      = time.Minute
	streamRetention = 24 * time.Hour // of DynamoDB Streams
)

// cloud is everything between the functions: Lambda, streams, queue, schedule,
// producers and operators.
type cloud struct {
	s       *sim
	queue   *workQueue
	slow    *workQueue // of endpoints that answer slowly
	workers []*worker  // all, dead ones included
	idle    map[string][]*worker
	running int // goroutines of invocations, those of dead workers included

	shards []*shard
	read   string // sequence number up to which the Events table's stream was read

	captured *shard // the stream of the platform's table
	changes  string // sequence number up to which it was read

	nextTick  time.Time
	producing int // producers that still retry, and streams
	puts      int // events of streams
}

// invocation is one call of a function.
type invocation struct {
	name    string
	w       *worker
	payload json.RawMessage
	timeout *scheduled
	done    func(answer any, err error)
}

func newCloud(s *sim) *cloud {
	c := &cloud{s: s, idle: map[string][]*worker{}}
	c.queue, c.slow = newQueues(s)
	for i := range s.plan.shards {
		c.shards = append(c.shards, &shard{c: c, number: i, function: "dispatch", what: "fan out", begins: s.checker.fanOutBegins, done: s.checker.fannedOut})
	}
	c.captured = &shard{c: c, function: "emit", what: "capture", begins: func(string) {}, done: func(string) {}}
	return c
}

// begin schedules the plan.
func (c *cloud) begin() {
	s := c.s
	for _, p := range s.plan.endpoints {
		c.addEndpoint(p)
	}
	for i, p := range s.plan.producers {
		for range p.copies {
			c.producing++
			s.at(p.at, func() { c.produce(i, p) })
		}
	}
	for i, f := range s.plan.streams {
		c.producing++
		s.at(f.from, func() { c.flow(i, f) })
	}
	for _, o := range s.plan.operators {
		s.at(o.at, func() { c.operate(o) })
	}
	for i, change := range s.plan.changes {
		c.producing++
		s.at(change.at, func() { c.change(i, change) })
	}
	s.at(s.start.Add(s.plan.busy), func() {
		s.calm = true
		s.note(delivery.Key{}, "the faults are over")
	})
	c.nextTick = s.start.Add(s.between(0, sweepEvery))
	s.at(c.nextTick, c.tick)
}

// ---- Lambda --------------------------------------------------------------------------

// invoke calls a function in an idle or new worker.
func (c *cloud) invoke(function, name string, payload any, done func(answer any, err error)) {
	s := c.s
	body, err := json.Marshal(payload)
	if err != nil {
		panic(err) // cannot happen: our own types
	}
	s.Counts.Invocations++
	w := c.worker(function)
	inv := &invocation{name: name, w: w, payload: body, done: done}
	w.busy = inv
	limit := dispatchTimeout
	if function == "emit" {
		limit = emitTimeout
	}
	inv.timeout = s.after(limit, func() { w.kill(name + " ran out of time") })
	w.deadline = w.Now().Add(limit)
	ctx := invocationContext{context.Background(), w.deadline}
	c.running++
	go func() {
		answer, err := w.serve(ctx, inv.payload)
		end := &ioCall{w: w, what: "end of " + name, ends: true, result: make(chan error, 1)}
		end.begin = func() {
			end.finish(nil)
			c.returned(inv, answer, err)
		}
		s.arrive(end)
	}()
}

// returned ends an invocation whose handler returned.
func (c *cloud) returned(inv *invocation, answer any, err error) {
	w := inv.w
	if w.dead {
		return
	}
	w.busy = nil
	c.s.cancel(inv.timeout)
	c.idle[w.function] = append(c.idle[w.function], w)
	inv.done(answer, err)
}

// failed ends an invocation whose worker died.
func (c *cloud) failed(inv *invocation, err error) {
	inv.w.busy = nil
	c.s.cancel(inv.timeout)
	inv.done(nil, err)
}

func (c *cloud) worker(function string) *worker {
	s := c.s
	if idle := c.idle[function]; len(idle) > 0 && !s.chance(0.02) {
		i := s.rng.IntN(len(idle))
		w := idle[i]
		c.idle[function] = slices.Delete(idle, i, i+1)
		return w
	}
	w := &worker{
		s: s, id: len(c.workers) + 1, function: function, open: map[*ioCall]bool{},
		rng: rand.New(rand.NewPCG(s.Seed, uint64(len(c.workers))+1000)),
	}
	if s.plan.maxSkew > 0 {
		w.skew = s.between(-s.plan.maxSkew, s.plan.maxSkew)
	}
	c.workers = append(c.workers, w)
	p := ports{w}
	switch function {
	case "emit":
		em := &emit.Emitter{Catalog: eventTypes, Events: p, Keys: p, Failed: p, Stuck: p, Statistics: p, Log: w.logger(), Now: w.Now, NewID: w.eventID, RetentionDays: w.s.plan.retentionDays}
		w.serve = emithandler.Route(em)
	case "dispatch":
		d := dispatch.New(dispatch.Config{
			Events: p, Endpoints: p, Disabler: p, Deliveries: p, Due: p, Replays: p,
			Waiting: p, Breakers: p, Limits: p, Journal: p, Jobs: p, JobList: p, Scan: p, Statistics: p,
			Queue: sqsqueue.New(p, "work"), SlowQueue: sqsqueue.New(p, "slow"), DeadLetters: sqsqueue.NewDeadLetters(p, "dead"), Sender: p, Log: w.logger(), CacheTime: dispatch.CacheTime,
			Now: w.Now, Random: w.Random, ClaimID: w.ClaimID, BeforeLock: w.beforeLock,
		})
		w.serve = dispatchhandler.Route(d)
	}
	return w
}

// eventTypes is created outside of all synctest bubbles.
var eventTypes = validate.Default()

// eventID returns a ULID whose random part depends on the seed.
func (w *worker) eventID(now time.Time) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ids++
	return event.DerivedID(now, fmt.Sprintf("%d/%d/%d", w.s.Seed, w.id, w.ids))
}

// ---- producers -----------------------------------------------------------------------

// produce publishes an event. With an idempotency key it retries until the event is
// accepted.
func (c *cloud) produce(number int, p produced) {
	s := c.s
	c.invoke("emit", "emit", p.request, func(answer any, err error) {
		if err == nil {
			result := answer.(emit.Result)
			s.note(delivery.Key{EventID: result.ID}, "event %s is accepted (producer %d, duplicate %v)", result.ID, number, result.Duplicate)
			s.checker.accepted(number, p, result)
			c.producing--
			return
		}
		if p.key == "" && s.chance(0.5) {
			c.producing--
			return // this producer does not retry
		}
		s.after(s.between(time.Second, 5*time.Minute), func() { c.produce(number, p) })
	})
}

// ---- the Events stream ---------------------------------------------------------------

// shard is an ordered part of the stream. It hands out one batch at a time, and
// retries it until it succeeds.
type shard struct {
	c        *cloud
	number   int
	function string
	what     string
	begins   func(id string) // of a record that is handed out
	done     func(id string) // of one that was processed
	records  []events.DynamoDBEventRecord
	ids      []string
	at       []time.Time // when each was written
	next     int         // first record that is not processed
	busy     bool
	tries    int
}

var noWait, stop = context.WithCancel(context.Background())

func init() { stop() }

// pump moves records from the store's stream to the shards.
func (c *cloud) pump() {
	for {
		records, err := c.s.store.Records(noWait, dynamoitem.Events, c.read, 1000)
		if err != nil {
			return // nothing more
		}
		for _, r := range records {
			c.read = r.Change.SequenceNumber
			id := r.Change.Keys[dynamoitem.EventID].String()
			c.s.checker.stored(id)
			sh := c.shards[hash(id)%uint64(len(c.shards))]
			sh.records, sh.ids = append(sh.records, r), append(sh.ids, id)
			sh.at = append(sh.at, time.Now())
			sh.poll()
		}
	}
}

func (sh *shard) poll() {
	s := sh.c.s
	if sh.busy || sh.next >= len(sh.records) {
		return
	}
	sh.busy = true
	s.after(s.between(0, 300*time.Millisecond)+min(time.Duration(sh.tries)*time.Second, 30*time.Second), func() {
		// DynamoDB Streams keep a record for 24 hours.
		for sh.next < len(sh.records) && time.Since(sh.at[sh.next]) > streamRetention {
			s.note(delivery.Key{EventID: sh.ids[sh.next]}, "the stream trims the record of %s", sh.ids[sh.next])
			s.checker.trimmed[sh.ids[sh.next]] = true
			sh.next++
		}
		if sh.next == len(sh.records) {
			sh.busy = false
			return
		}
		size := 1 + s.rng.IntN(streamBatch)
		if s.chance(0.5) && len(s.plan.streams) == 0 {
			size = 1 + s.rng.IntN(4)
		}
		from, to := sh.next, min(sh.next+size, len(sh.records))
		for _, id := range sh.ids[from:to] {
			sh.begins(id)
		}
		s.note(delivery.Key{}, "shard %d hands out records %d to %d to %s", sh.number, from, to-1, sh.function)
		sh.c.invoke(sh.function, sh.what, events.DynamoDBEvent{Records: sh.records[from:to]}, func(answer any, err error) {
			sh.busy = false
			done := to
			if err == nil {
				for _, f := range answer.(lambdaevent.BatchResponse).Failures {
					for i := from; i < done; i++ {
						if sh.records[i].Change.SequenceNumber == f.ID {
							done = i
						}
					}
				}
			} else {
				done = from
			}
			if sh.tries++; done > from {
				sh.tries = 0
			}
			for _, id := range sh.ids[from:done] {
				sh.done(id)
			}
			sh.next = done
			if s.faulty(s.plan.faults.streamReplay) {
				s.Counts.StreamReplays++
				sh.next = max(0, done-1-s.rng.IntN(10))
				s.note(delivery.Key{}, "shard %d forgets where it was and goes on with record %d", sh.number, sh.next)
			}
			sh.poll()
		})
	})
}

// ---- the schedule --------------------------------------------------------------------

// tick is a minute of the schedule. Most sweeps that would find nothing are left out
// to save time.
func (c *cloud) tick() {
	s := c.s
	now := time.Now()
	s.checker.expire()
	idle := !c.due(now.Add(dispatch.Lookahead + 5*time.Second))
	if s.calm && c.settled() {
		s.over = true
		return
	}
	if now.Sub(s.start) > s.plan.busy+s.plan.settle {
		s.over = true
		s.checker.unsettled()
		return
	}
	if !idle || s.chance(0.05) {
		if !s.faulty(s.plan.faults.sweepMissed) {
			c.sweep()
			if s.faulty(s.plan.faults.sweepTwice) {
				s.after(s.between(0, 20*time.Second), c.sweep)
			}
		}
	}
	next := c.nextTick.Add(sweepEvery)
	if idle {
		// Nothing changes before the next scheduled function.
		until := now.Add(s.plan.settle)
		if s.agenda.Len() > 0 {
			until = s.agenda.At(0).at
		}
		if due, ok := c.earliestDue(); ok && due.Add(-dispatch.Lookahead-10*time.Second).Before(until) {
			until = due.Add(-dispatch.Lookahead - 10*time.Second)
		}
		if skip := until.Sub(next) / sweepEvery; skip > 0 {
			next = next.Add(skip * sweepEvery)
		}
	}
	c.nextTick = next
	s.at(next, c.tick)
}

func (c *cloud) due(before time.Time) bool {
	due, ok := c.earliestDue()
	return ok && !due.After(before)
}

func (c *cloud) earliestDue() (earliest time.Time, ok bool) {
	for shard := range delivery.DueShards {
		page, _, err := c.s.store.Due(context.Background(), shard, c.s.start.Add(10_000*time.Hour), "", 1)
		if err != nil {
			panic(err)
		}
		if len(page) > 0 && (!ok || page[0].DueAt.Before(earliest)) {
			earliest, ok = page[0].DueAt, true
		}
	}
	circuits, err := c.s.store.ListCircuits(context.Background(), time.Time{})
	if err != nil {
		panic(err)
	}
	for _, circuit := range circuits {
		// An open one for which nothing waits is looked after in vain.
		waiting, err := c.s.store.ListBacklog(context.Background(), circuit.EndpointID, "", 1)
		if err != nil {
			panic(err)
		}
		if (len(waiting.Deliveries) > 0 || circuit.Phase != breaker.Open) && (!ok || circuit.WakeAt.Before(earliest)) {
			earliest, ok = circuit.WakeAt, true
		}
	}
	return earliest, ok
}

// waits reports whether any delivery has a due time.
func (c *cloud) waits() bool {
	for shard := range delivery.DueShards {
		if n, more, err := c.s.store.CountDue(context.Background(), shard, time.Time{}, 1); err != nil || n > 0 || more {
			return true
		}
	}
	return false
}

func (c *cloud) sweep() {
	c.s.Counts.Sweeps++
	c.invoke("dispatch", "sweep", dispatch.Command{Action: "sweep"}, func(answer any, err error) {
		if err != nil {
			c.s.note(delivery.Key{}, "a sweep failed: %v", err)
		}
	})
}

// settled reports whether the system has come to rest. It first redrives dead letters.
func (c *cloud) settled() bool {
	if c.waits() || c.producing > 0 {
		return false
	}
	for _, sh := range append(slices.Clip(c.shards), c.captured) {
		if sh.busy || sh.next < len(sh.records) {
			return false
		}
	}
	c.queue.redrive()
	if !c.queue.empty() || !c.slow.empty() {
		return false
	}
	for _, w := range c.workers {
		if w.busy != nil {
			return false
		}
	}
	return true
}

// ---- operators -----------------------------------------------------------------------

func (c *cloud) addEndpoint(p planned) {
	if err := c.s.store.AddEndpoint(context.Background(), p.endpoint); err != nil && !errors.Is(err, endpoint.ErrConflict) {
		panic(err)
	}
	c.s.network.receivers[p.endpoint.ID] = &receiver{behaviours: p.behaviours}
	c.s.checker.endpointChanged(p.endpoint.Tenant, p.endpoint.ID)
}

func (c *cloud) operate(o operation) {
	s, ctx := c.s, context.Background()
	p := s.plan.endpoints[o.endpoint]
	e, err := s.store.GetEndpoint(ctx, p.endpoint.Tenant, p.endpoint.ID)
	key := delivery.Key{EndpointID: p.endpoint.ID}
	s.Counts.Edits++
	s.mark("operator", o.what)
	switch {
	case o.what == "redrive":
		c.queue.redrive()
	case o.what == "add":
		p = newEndpoint(s.rng, 100+len(s.network.receivers), p.endpoint.Tenant, time.Now(), max(s.plan.busy-time.Since(s.start), time.Second))
		s.note(delivery.Key{EndpointID: p.endpoint.ID}, "an operator adds endpoint %s", p.endpoint.ID)
		c.addEndpoint(p)
	case err != nil: // it was deleted
	case o.what == "close circuit":
		s.note(key, "an operator closes the circuit")
		// Closing resets the count, at some time during the invocation.
		forget := func() {
			x := s.checker.endpointLog(e.ID)
			x.fault, x.streak = time.Now(), 0
		}
		forget()
		c.invoke("dispatch", "close circuit", dispatch.Command{Action: "close_circuit", Tenant: e.Tenant, EndpointID: e.ID}, func(any, error) { forget() })
	case o.what == "remove":
		s.note(key, "an operator removes endpoint %s", e.ID)
		if err := s.store.RemoveEndpoint(ctx, e.Tenant, e.ID); err != nil {
			panic(err)
		}
		s.checker.endpointChanged(e.Tenant, e.ID)
	case o.what == "replay" || o.what == "replay dead":
		command := dispatch.Command{Action: "start_job", Kind: jobs.Replay, JobID: fmt.Sprintf("job_%s", event.DerivedID(time.Now(), e.ID)), Tenant: e.Tenant, EndpointID: e.ID}
		if o.what == "replay" {
			page, err := s.store.QueryDeliveries(ctx, delivery.Query{EndpointID: e.ID, Limit: 1000})
			if err != nil {
				panic(err)
			}
			if len(page.Deliveries) == 0 {
				return
			}
			command.Action, command.Kind, command.EventID = "replay", "", page.Deliveries[s.rng.IntN(len(page.Deliveries))].EventID
		}
		s.note(delivery.Key{EndpointID: e.ID, EventID: command.EventID}, "an operator asks for a %s", command.Action)
		c.invoke("dispatch", "replay", command, func(answer any, err error) {
			s.note(delivery.Key{EndpointID: e.ID, EventID: command.EventID}, "%s: %+v, %v", command.Action, answer, err)
		})
	case o.what == "edit" || o.what == "disable" || o.what == "pause" || o.what == "enable":
		switch o.what {
		case "edit":
			shape(s.rng, &e)
		case "disable":
			e.Status, e.StatusReason = endpoint.Disabled, "disabled by an operator"
		case "pause":
			e.Status, e.StatusReason = endpoint.Paused, "paused by an operator"
		case "enable":
			e.Status, e.StatusReason = endpoint.Enabled, ""
		}
		e.UpdatedAt = time.Now()
		s.note(key, "an operator does %s on endpoint %s", o.what, e.ID)
		if _, err := s.store.UpdateEndpoint(ctx, e); err != nil {
			panic(err)
		}
		s.checker.endpointChanged(e.Tenant, e.ID)
	}
}
