package local_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	dispatchhandler "github.com/tidings-dev/tidings/functions/dispatch/handler"
	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/queue"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
	"github.com/tidings-dev/tidings/pkg/store/memory"
)

// street is a stack in a synctest bubble, on the memory store, with the batches of the
// template: some endpoints that answer at once, and some that do not. The clock is the
// bubble's, so what is measured is waiting for a worker, and not this machine.
type street struct {
	t     *testing.T
	store *memory.Store

	mu      sync.Mutex
	arrived map[string]map[string]time.Time // when it was answered, by endpoint, by event
	busy    int                             // attempts under way at the slow endpoints
	most    int
}

// concurrency is the number of concurrent batches of each mapping.
type concurrency struct {
	work, slow int
	// ramp makes the work queue's mapping begin with five batches and get five more each
	// second, as Lambda's does.
	ramp bool
}

const (
	quickAnswer = 20 * time.Millisecond
	hangs       = time.Hour
	slowHost    = "https://slow.example/" // the path is how long the receiver takes
)

// dispatchFunction returns the template's.
func dispatchFunction(t *testing.T) samtemplate.Function {
	t.Helper()
	parsed, err := samtemplate.Load("../../template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	stack, err := parsed.Resolve(samtemplate.Context{StackName: local.StackName, Region: "us-east-1", Account: "000000000000", QueueURL: func(name string) string { return name }})
	if err != nil {
		t.Fatal(err)
	}
	return stack.Functions[slices.IndexFunc(stack.Functions, func(f samtemplate.Function) bool { return f.Folder == "dispatch" })]
}

// mapping returns the mapping of a function that has a name.
func mapping(t *testing.T, f samtemplate.Function, name string) samtemplate.QueueTrigger {
	t.Helper()
	at := slices.IndexFunc(f.Queues, func(q samtemplate.QueueTrigger) bool { return q.Name == name })
	if at < 0 || f.Queues[at].MaxConcurrency < 2 {
		t.Fatalf("the template has no mapping %s, or it sets no concurrency", name)
	}
	return f.Queues[at]
}

func newStreet(t *testing.T, deployed samtemplate.Function, c concurrency) *street {
	t.Helper()
	s := &street{t: t, store: memory.New(time.Now), arrived: map[string]map[string]time.Time{}}
	open := func(name string) *queue.Queue {
		q, err := queue.Open(queue.Config{Name: name, Visibility: 6 * deployed.Timeout})
		if err != nil {
			t.Fatal(err)
		}
		return q
	}
	work, slow := open("work"), open("slow")
	random := rand.New(rand.NewPCG(1, 1))
	var dice sync.Mutex
	config := dispatch.Config{
		Events: s.store, Endpoints: s.store, Disabler: s.store, Deliveries: s.store, Due: s.store, Replays: s.store,
		Statistics: s.store, Waiting: s.store, Breakers: s.store, Limits: s.store, Journal: s.store, Jobs: s.store, Queue: work, SlowQueue: slow, Sender: s, CacheTime: dispatch.CacheTime,
		Log: slog.New(slog.DiscardHandler),
		Random: func() float64 {
			dice.Lock()
			defer dice.Unlock()
			return random.Float64()
		},
	}
	// As on Lambda, each environment has a dispatcher of its own, which knows only
	// what it has seen itself.
	var environments sync.Pool
	handle := func(ctx context.Context, payload json.RawMessage) (any, error) {
		d, ok := environments.Get().(*dispatch.Dispatcher)
		if !ok {
			d = dispatch.New(config)
		}
		defer environments.Put(d)
		return dispatchhandler.Route(d)(ctx, payload)
	}
	f := &local.Function{Function: deployed, ARN: "arn:f", Handle: handle, Log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	poll := func(q *queue.Queue, trigger samtemplate.QueueTrigger, concurrency int) {
		trigger.MaxConcurrency = concurrency
		running.Go(func() { _ = (&local.QueueMapping{Function: f, Queue: q, Trigger: trigger}).Run(ctx) })
	}
	running.Go(func() {
		_ = (&local.StreamMapping{Function: f, Shard: local.MemoryShard{Store: s.store, Table: dynamoitem.Events}, Trigger: deployed.Streams[0]}).Run(ctx)
	})
	poll(slow, mapping(t, deployed, "Slow"), c.slow)
	const step = 5
	if !c.ramp {
		poll(work, mapping(t, deployed, "Work"), c.work)
	} else {
		running.Go(func() {
			for n := 0; n < c.work && ctx.Err() == nil; n += step {
				poll(work, mapping(t, deployed, "Work"), step)
				select {
				case <-time.After(time.Second):
				case <-ctx.Done():
				}
			}
		})
	}
	for _, schedule := range deployed.Schedules {
		running.Go(func() { _ = local.RunSchedule(ctx, f, schedule) })
	}
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return s
}

// Deliver is the receivers'.
func (s *street) Deliver(ctx context.Context, target destination.Target, m destination.Message) delivery.Outcome {
	took, began := quickAnswer, time.Now()
	if takes, slow := strings.CutPrefix(target.URL, slowHost); slow {
		var err error
		if took, err = time.ParseDuration(takes); err != nil {
			panic(err) // a URL of this test
		}
		s.mu.Lock()
		s.busy++
		s.most = max(s.most, s.busy)
		s.mu.Unlock()
		defer func() {
			s.mu.Lock()
			s.busy--
			s.mu.Unlock()
		}()
	}
	select {
	case <-time.After(took):
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.arrived[target.ID] == nil {
			s.arrived[target.ID] = map[string]time.Time{}
		}
		s.arrived[target.ID][m.EventID] = time.Now()
		return delivery.Outcome{Class: delivery.Success, Status: 204, Timings: delivery.Timings{Total: took}}
	case <-ctx.Done():
		return delivery.Outcome{Class: delivery.Timeout, Error: "the receiver did not answer in time", Timings: delivery.Timings{Total: time.Since(began)}}
	}
}

// endpoint adds an endpoint; filter may be empty.
func (s *street) endpoint(url, eventType, filter string) string {
	s.t.Helper()
	e := endpoint.Endpoint{
		Tenant: event.DefaultTenant, ID: endpoint.NewID(time.Now()), URL: url, EventTypes: []string{eventType}, Filter: json.RawMessage(filter),
		Secrets: []endpoint.SigningSecret{{Secret: signature.NewSecret()}}, Status: endpoint.Enabled, Version: 1, CreatedAt: time.Now(), UpdatedAt: time.Now(),
	}
	if err := s.store.AddEndpoint(s.t.Context(), e); err != nil {
		s.t.Fatal(err)
	}
	return e.ID
}

func (s *street) emit(eventType, data string) string {
	id := event.NewID(time.Now())
	body, err := event.Event{ID: id, Type: eventType, Timestamp: time.Now(), Data: json.RawMessage(data)}.Encode()
	if err == nil {
		err = s.store.PutEvent(s.t.Context(), event.Accepted{ID: id, Tenant: event.DefaultTenant, Body: body, Subject: catalog.Default().Subject(eventType, []byte(data))})
	}
	if err != nil {
		s.t.Error(err)
	}
	return id
}

// slowly emits n events per second for so long, one by one, to the slow endpoints in turn,
// and returns the IDs.
func (s *street) slowly(endpoints, perSecond int, long time.Duration) (ids []string) {
	began := time.Now()
	for i := range int(float64(perSecond) * long.Seconds()) {
		time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / time.Duration(perSecond))))
		ids = append(ids, s.emit("user.flagged_comment", fmt.Sprintf(`{"comment_id":"c_%d","flagged_user_id":"u","reason":"spam"}`, i%endpoints)))
	}
	return ids
}

// quickly emits 50 events per second for so long, one by one, to the quick endpoints. It
// returns how long each delivery took, by when its event was emitted.
func (s *street) quickly(quick []string, long time.Duration) (took map[time.Duration][]time.Duration) {
	s.t.Helper()
	began, emitted := time.Now(), map[string]time.Time{}
	for time.Since(began) < long {
		emitted[s.emit("user.posted_comment", `{"discussion_id":"d","comment_id":"c","comment_text":"x"}`)] = time.Now()
		time.Sleep(20 * time.Millisecond)
	}
	time.Sleep(time.Minute) // until even the last of them has come
	s.mu.Lock()
	defer s.mu.Unlock()
	took = map[time.Duration][]time.Duration{}
	for id, at := range emitted {
		for _, e := range quick {
			first, ok := s.arrived[e][id]
			if !ok {
				s.t.Fatalf("event %s has not come to %s", id, e)
			}
			took[at.Sub(began)] = append(took[at.Sub(began)], first.Sub(at))
		}
	}
	return took
}

// between returns the times of what was emitted in a span, sorted.
func between(took map[time.Duration][]time.Duration, from, to time.Duration) (sorted []time.Duration) {
	for at, list := range took {
		if at >= from && at < to {
			sorted = append(sorted, list...)
		}
	}
	slices.Sort(sorted)
	return sorted
}

// Receivers that hang or are slow, and their neighbours: two endpoints that answer at once
// and get 50 events per second. Everything is emitted one by one. From the third second on,
// the neighbours wait for nobody, and before it for three seconds at most. An account with
// a quota of ten has too few workers for the first two seconds: it waits until the first
// attempts end.
func TestASlowReceiverDelaysNoOther(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 20 s")
	}
	deployed := dispatchFunction(t)
	standard := concurrency{work: mapping(t, deployed, "Work").MaxConcurrency, slow: mapping(t, deployed, "Slow").MaxConcurrency}
	ramp, ten := standard, concurrency{work: 5, slow: 2}
	ramp.ramp = true
	for name, c := range map[string]struct {
		concurrency
		takes     time.Duration
		endpoints int
		perSecond int // of the slow endpoints, in all
		long      time.Duration
		settled   time.Duration // from then on the neighbours wait for nobody
		first     time.Duration // the longest that one may take before
	}{
		"one hangs, 20/s":                    {standard, hangs, 1, 20, 20 * time.Second, 3 * time.Second, 3 * time.Second},
		"one hangs, 300 in 0.2 s":            {standard, hangs, 1, 1500, 200 * time.Millisecond, 3 * time.Second, 3 * time.Second},
		"five hang, 20/s each":               {standard, hangs, 5, 100, 20 * time.Second, 3 * time.Second, 3 * time.Second},
		"one answers after 9 s, 10/s":        {standard, 9 * time.Second, 1, 10, 20 * time.Second, 3 * time.Second, 3 * time.Second},
		"one hangs, 1,000 at 200/s":          {standard, hangs, 1, 200, 5 * time.Second, 3 * time.Second, 3 * time.Second},
		"one hangs, 20/s, ramp":              {ramp, hangs, 1, 20, 20 * time.Second, 3 * time.Second, 3 * time.Second},
		"one hangs, 300 in 0.2 s, ramp":      {ramp, hangs, 1, 1500, 200 * time.Millisecond, 3 * time.Second, 3 * time.Second},
		"one answers after 9 s, 10/s, ramp":  {ramp, 9 * time.Second, 1, 10, 20 * time.Second, 3 * time.Second, 3 * time.Second},
		"one hangs, 20/s, quota of 10":       {ten, hangs, 1, 20, 20 * time.Second, 12 * time.Second, 12 * time.Second},
		"one answers after 9 s, quota of 10": {ten, 9 * time.Second, 1, 10, 20 * time.Second, 12 * time.Second, 12 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStreet(t, deployed, c.concurrency)
				var quick, slow []string
				for i := range 2 {
					quick = append(quick, s.endpoint(fmt.Sprintf("https://quick.example/%d", i), "user.posted_comment", ""))
				}
				for i := range c.endpoints {
					slow = append(slow, s.endpoint(slowHost+c.takes.String(), "user.flagged_comment", fmt.Sprintf(`{"data":{"comment_id":["c_%d"]}}`, i)))
				}
				var waiting []string
				var emitting sync.WaitGroup
				emitting.Go(func() { waiting = s.slowly(c.endpoints, c.perSecond, c.long) })
				took := s.quickly(quick, 30*time.Second)
				emitting.Wait()
				first, then := between(took, 0, c.settled), between(took, c.settled, time.Hour)
				p50, p95 := then[len(then)/2], then[len(then)*95/100]
				s.mu.Lock() // attempts go on
				most := s.most
				s.mu.Unlock()
				t.Logf("the longest %s, then p50 %s, p95 %s, the longest %s; at most %d attempts at the slow endpoints at once", first[len(first)-1], p50, p95, then[len(then)-1], most)
				if longest := first[len(first)-1]; longest > c.first {
					t.Errorf("before %s, a delivery took %s, want at most %s", c.settled, longest, c.first)
				}
				if p50 > 2*quickAnswer || p95 > 3*quickAnswer {
					t.Errorf("from %s on, p50 is %s and p95 is %s; alone both are %s", c.settled, p50, p95, quickAnswer)
				}
				if c.takes == hangs {
					return
				}
				time.Sleep(20 * time.Minute) // what is slow is delivered in the end
				s.mu.Lock()
				defer s.mu.Unlock()
				for _, id := range waiting {
					if _, ok := s.arrived[slow[0]][id]; !ok {
						t.Fatalf("event %s has not come to the slow endpoint", id)
					}
				}
			})
		})
	}
}
