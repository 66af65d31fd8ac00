package local_test

import (
	"context"
	"encoding/json"
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

// street is a stack in a synctest bubble, on the memory store, with the batches
// and the concurrency of the template: some endpoints that answer at once, and one
// that does not.
type street struct {
	t     *testing.T
	store *memory.Store
	slow  time.Duration

	mu      sync.Mutex
	arrived map[string]map[string]time.Time // when it was answered, by endpoint, by event
	busy    int                             // attempts under way at the slow endpoint
	most    int
}

const (
	quickAnswer = 20 * time.Millisecond
	slowPath    = "https://slow.example/"
)

func newStreet(t *testing.T, slow time.Duration) *street {
	t.Helper()
	s := &street{t: t, store: memory.New(time.Now), slow: slow, arrived: map[string]map[string]time.Time{}}
	parsed, err := samtemplate.Load("../../template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	stack, err := parsed.Resolve(samtemplate.Context{StackName: local.StackName, Region: "us-east-1", Account: "000000000000", QueueURL: func(name string) string { return name }})
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(stack.Functions, func(f samtemplate.Function) bool { return f.Folder == "dispatch" })
	deployed := stack.Functions[at]
	if deployed.Queues[0].MaxConcurrency < 2 {
		t.Fatal("the template sets no concurrency")
	}
	queue, err := queue.Open(queue.Config{Name: "work", Visibility: 6 * deployed.Timeout})
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 1))
	var dice sync.Mutex
	config := dispatch.Config{
		Catalog: catalog.Default(), Events: s.store, Endpoints: s.store, Disabler: s.store, Deliveries: s.store, Due: s.store, Replays: s.store,
		Statistics: s.store, Waiting: s.store, Breakers: s.store, Limits: s.store, Queue: queue, Sender: s, CacheTime: dispatch.CacheTime,
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
	running.Go(func() {
		_ = (&local.StreamMapping{Function: f, Shard: local.MemoryShard{Store: s.store, Table: dynamoitem.Events}, Trigger: deployed.Streams[0]}).Run(ctx)
	})
	running.Go(func() { _ = (&local.QueueMapping{Function: f, Queue: queue, Trigger: deployed.Queues[0]}).Run(ctx) })
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
	s.mu.Lock()
	took := quickAnswer
	if target.URL == slowPath {
		took = s.slow
		s.busy++
		s.most = max(s.most, s.busy)
	}
	s.mu.Unlock()
	defer func() {
		if target.URL == slowPath {
			s.mu.Lock()
			s.busy--
			s.mu.Unlock()
		}
	}()
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
		return delivery.Outcome{Class: delivery.Timeout, Error: "the receiver did not answer in time"}
	}
}

func (s *street) endpoint(url, eventType string) string {
	s.t.Helper()
	e := endpoint.Endpoint{
		Tenant: event.DefaultTenant, ID: endpoint.NewID(time.Now()), URL: url, EventTypes: []string{eventType}, Timeout: 2 * s.slow,
		Secrets: []endpoint.SigningSecret{{Secret: signature.NewSecret()}}, Status: endpoint.Enabled, Version: 1, CreatedAt: time.Now(), UpdatedAt: time.Now(),
	}
	if err := s.store.AddEndpoint(s.t.Context(), e); err != nil {
		s.t.Fatal(err)
	}
	return e.ID
}

func (s *street) emit(eventType, data string) string {
	s.t.Helper()
	id := event.NewID(time.Now())
	body, err := event.Event{ID: id, Type: eventType, Timestamp: time.Now(), Data: json.RawMessage(data)}.Encode()
	if err == nil {
		err = s.store.PutEvent(s.t.Context(), event.Accepted{ID: id, Tenant: event.DefaultTenant, Body: body})
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return id
}

// took emits twenty events a second for so long, and returns the slowest
// twentieth's time until the quick endpoints had answered, and the longest.
func (s *street) took(quick []string, long time.Duration) (p95, longest time.Duration) {
	s.t.Helper()
	began := map[string]time.Time{}
	for end := time.Now().Add(long); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		began[s.emit("user.posted_comment", `{"discussion_id":"d","comment_id":"c","comment_text":"x"}`)] = time.Now()
	}
	time.Sleep(time.Minute) // until even the last of them has come
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []time.Duration
	for id, at := range began {
		for _, e := range quick {
			first, ok := s.arrived[e][id]
			if !ok {
				s.t.Fatalf("event %s has not come to %s", id, e)
			}
			all = append(all, first.Sub(at))
		}
	}
	slices.Sort(all)
	return all[len(all)*95/100], all[len(all)-1]
}

func (s *street) underWay() (now, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	most, s.most = s.most, s.busy
	return s.busy, most
}

// quick are five endpoints that answer at once.
func (s *street) quick() []string {
	var ids []string
	for i := range 5 {
		ids = append(ids, s.endpoint("https://quick.example/"+strings.Repeat("x", i), "user.posted_comment"))
	}
	return ids
}

// flag emits n events for the slow endpoint.
func (s *street) flag(n int) (ids []string) {
	for range n {
		ids = append(ids, s.emit("user.flagged_comment", `{"comment_id":"c","flagged_user_id":"u","reason":"spam"}`))
	}
	return ids
}

// One endpoint that takes ten seconds a request, with a thousand deliveries
// waiting, and its neighbours. The clock is the bubble's, so what is measured is
// waiting for a worker, and not this machine.
func TestASlowEndpointDoesNotDelayOthers(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 2 s")
	}
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStreet(t, 10*time.Second)
		slow, quick := s.endpoint(slowPath, "user.flagged_comment"), s.quick()
		s.flag(1) // shows how slow it is
		alone, _ := s.took(quick, 20*time.Second)
		s.underWay()
		waiting := s.flag(1000)
		beside, longest := s.took(quick, 20*time.Second)
		_, most := s.underWay()
		t.Logf("p95 alone %s, beside a thousand waiting %s, the longest %s; at most %d attempts at the slow endpoint at once", alone, beside, longest, most)
		if beside > alone*6/5 {
			t.Errorf("p95 is %s beside the slow endpoint, %s alone: more than 20 %% more", beside, alone)
		}
		time.Sleep(20 * time.Minute) // pending deliveries are delivered in the end
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, id := range waiting {
			if _, ok := s.arrived[slow][id]; !ok {
				t.Fatalf("event %s has not come to the slow endpoint", id)
			}
		}
	})
}

// While nobody knows yet that an endpoint is slow, a thousand deliveries at once
// take all the workers that the template allows. That ends with its first answers.
func TestANewlySlowEndpointDelaysOthersOnlyUntilItsFirstResponses(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 2 s")
	}
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStreet(t, 10*time.Second)
		s.endpoint(slowPath, "user.flagged_comment")
		quick := s.quick()
		time.Sleep(time.Minute)
		s.flag(1000)
		time.Sleep(time.Second)
		first, longest := s.took(quick, 9*time.Second)
		_, most := s.underWay()
		after, _ := s.took(quick, 20*time.Second)
		t.Logf("p95 %s until the first answers, the longest %s, %s afterwards; at most %d attempts at the slow endpoint at once", first, longest, after, most)
		if longest > s.slow+2*time.Second {
			t.Errorf("an event to a quick endpoint took %s", longest)
		}
		if after > quickAnswer*6/5 {
			t.Errorf("p95 is still %s once the endpoint is known to be slow", after)
		}
	})
}
