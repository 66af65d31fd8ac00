package local_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	dispatchhandler "github.com/tidings-dev/tidings/functions/dispatch/handler"
	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/validate"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/queue"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
	"github.com/tidings-dev/tidings/pkg/store/memory"
)

// flakyReceiver is a receiver in virtual time. It counts overlapping requests and
// requests after a success.
type flakyReceiver struct {
	mu         sync.Mutex
	random     *rand.Rand
	rate       float64
	running    map[string]int
	succeeded  map[string]bool
	requests   int
	overlaps   int
	duplicates int
}

func (f *flakyReceiver) Deliver(ctx context.Context, _ destination.Target, m destination.Message) delivery.Outcome {
	f.mu.Lock()
	f.requests++
	if f.running[m.EventID] > 0 {
		f.overlaps++
	}
	if f.succeeded[m.EventID] {
		f.duplicates++
	}
	f.running[m.EventID]++
	fails := f.random.Float64() < f.rate
	takes := time.Duration(f.random.IntN(3000)) * time.Millisecond
	f.mu.Unlock()
	o := delivery.Outcome{Class: delivery.Success, Status: 200}
	if fails {
		o = delivery.Outcome{Class: delivery.Answered, Status: 500, Error: "the receiver answered 500"}
	}
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		o = delivery.Outcome{Class: delivery.Timeout, Error: "no answer in time"}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running[m.EventID]--
	if o.Class == delivery.Success {
		f.succeeded[m.EventID] = true
	}
	return o
}

// With a receiver that fails 30 % of the requests and a queue that delivers messages
// twice, every event is delivered once and no two attempts overlap.
func TestAFailingReceiverGetsEveryEventOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 3 s")
	}
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n = 2_000
		f := &flakyReceiver{random: rand.New(rand.NewPCG(1, 2)), rate: 0.3, running: map[string]int{}, succeeded: map[string]bool{}}
		store := memory.New(time.Now)
		// A visibility timeout shorter than an attempt makes the queue deliver messages
		// twice, as SQS may.
		q, err := queue.Open(queue.Config{Visibility: 2 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		d := dispatch.New(dispatch.Config{
			Events: store, Endpoints: store, Disabler: store, Deliveries: store, Due: store, Replays: store, Statistics: store, Waiting: store, Breakers: store, Limits: store, Journal: store, Jobs: store,
			Queue: q, Sender: f, Log: slog.New(slog.DiscardHandler), CacheTime: dispatch.CacheTime,
		})
		fn := function(dispatchhandler.Route(d))
		fn.Timeout = time.Minute
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			stream := &local.StreamMapping{Function: fn, Shard: local.MemoryShard{Store: store, Table: dynamoitem.Events}, Trigger: samtemplate.StreamTrigger{BatchSize: 100, MaxRetries: -1, ReportsItems: true}}
			if err := stream.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		running.Go(func() {
			m := &local.QueueMapping{Function: fn, Queue: q, Trigger: samtemplate.QueueTrigger{BatchSize: 10, MaxConcurrency: 50, ReportsItems: true}}
			if err := m.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		running.Go(func() {
			if err := local.RunSchedule(ctx, fn, samtemplate.Schedule{Every: time.Minute, Input: json.RawMessage(`{"action":"sweep"}`)}); err != nil {
				t.Error(err)
			}
		})
		e := endpoint.Endpoint{Tenant: event.DefaultTenant, ID: endpoint.NewID(time.Now()), URL: "https://example.com", EventTypes: []string{"*"},
			Secrets: []endpoint.SigningSecret{{Secret: signature.NewSecret()}}, Status: endpoint.Enabled}
		if err := store.AddEndpoint(ctx, e); err != nil {
			t.Fatal(err)
		}
		em := &emit.Emitter{Catalog: validate.Default(), Events: store, Keys: store, Log: slog.New(slog.DiscardHandler), Now: time.Now}
		accepted := map[string]bool{}
		for i := range n {
			r := em.Emit(ctx, emit.Request{Event: "user.posted_comment", Data: json.RawMessage(fmt.Sprintf(`{"discussion_id":"d","comment_id":"c%d","comment_text":"hi"}`, i))})
			if r.Error != nil {
				t.Fatal(r.Error)
			}
			accepted[r.ID] = true
		}
		time.Sleep(73 * time.Hour) // virtual time: past the age limit of 72 h
		cancel()
		running.Wait()
		f.mu.Lock()
		defer f.mu.Unlock()
		lost := 0
		for id := range accepted {
			got, err := store.GetDelivery(t.Context(), delivery.Key{EndpointID: e.ID, EventID: id})
			if err != nil || got.State != delivery.Delivered || !f.succeeded[id] {
				lost++
			}
		}
		if lost != 0 || f.overlaps != 0 || f.duplicates != 0 {
			t.Errorf("%d of %d events lost, %d overlapping requests, %d duplicates", lost, n, f.overlaps, f.duplicates)
		}
		if f.requests < n*13/10 {
			t.Errorf("%d requests: the receiver did not fail", f.requests)
		}
		if s := q.Stats(); s != (queue.Stats{}) {
			t.Errorf("left in the queue: %+v", s)
		}
	})
}
