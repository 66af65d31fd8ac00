package dispatch_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
	"github.com/tidings-dev/tidings/test/dynamotest"
)

// clock is a clock that the test moves. The store is a real one, so that virtual time is
// not to be had.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// What a delivery costs does not depend on how long it waits: three units to put it into
// the backlog, with its two index entries, two for the claim and two for the verdict. The
// endpoint's probes, and what the sweep writes each minute, are not the delivery's.
func TestADeliveryThatWaitsOutAnOutageCostsSevenUnits(t *testing.T) {
	if testing.Short() {
		t.Skip("sweeps a real DynamoDB API for three days")
	}
	client, stack := dynamotest.New(t)
	var mu sync.Mutex
	units := 0.0
	store := dynamo.New(client, local.Tables(stack.Name), dynamo.WithMeter(func(write bool, c types.ConsumedCapacity) {
		if write && strings.Contains(aws.ToString(c.TableName), "Deliveries") {
			mu.Lock()
			units += aws.ToFloat64(c.CapacityUnits)
			mu.Unlock()
		}
	}))
	c, q, answers := &clock{now: time.Now().Truncate(time.Millisecond)}, &sentItems{}, &receiver{}
	d := dispatch.New(dispatch.Config{
		Events: store, Endpoints: store, Disabler: store, Deliveries: store, Due: store, Replays: store, Statistics: store,
		Waiting: store, Breakers: store, Limits: store, Jobs: store, Queue: q, Sender: answers, Log: slog.New(slog.DiscardHandler), Now: c.Now,
	})
	e := endpoint.Endpoint{
		Tenant: event.DefaultTenant, ID: endpoint.NewID(c.Now()), URL: "https://receiver.example/hook", EventTypes: []string{"*"}, Status: endpoint.Enabled,
		Secrets: []endpoint.SigningSecret{{Secret: signature.NewSecret()}}, CreatedAt: c.Now(), UpdatedAt: c.Now(),
	}
	if err := store.AddEndpoint(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	item := func() work.Item {
		id := event.NewID(c.Now())
		body, err := event.Event{ID: id, Type: "user.posted_comment", Timestamp: c.Now(), Data: []byte(comment)}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := store.PutEvent(t.Context(), event.Accepted{ID: id, Tenant: e.Tenant, Body: body}); err != nil {
			t.Fatal(err)
		}
		c.pass(time.Millisecond)
		return work.Item{Tenant: e.Tenant, EndpointID: e.ID, EventID: id, EventType: "user.posted_comment", Body: body}
	}
	deliver := func(items ...work.Item) {
		for _, one := range items {
			if failed := d.Deliver(t.Context(), []work.Message{{ID: "m", Body: one.Encode()}}); len(failed) > 0 {
				t.Fatalf("not acknowledged: %+v", one)
			}
		}
	}
	// Five events that no retry can help open the circuit.
	answers.answer = func(context.Context, destination.Message) delivery.Outcome {
		return delivery.Outcome{Class: delivery.Answered, Status: 400, Permanent: true, Error: "the receiver answered 400"}
	}
	for range breaker.DefaultFailures {
		c.pass(3 * time.Second)
		deliver(item())
	}
	q.take()

	const n = 20
	before := units
	var waiting []work.Item
	for range n {
		waiting = append(waiting, item())
	}
	deliver(waiting...)
	for range 71 {
		c.pass(time.Hour)
		if _, err := d.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, sent := range q.take() {
			if !sent.Wake {
				t.Fatalf("the sweep queued %+v", sent)
			}
		}
	}
	answers.answer = nil
	if _, err := d.CloseCircuit(t.Context(), dispatch.Command{EndpointID: e.ID}); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		for _, sent := range q.take() {
			c.pass(sent.Delay)
			deliver(sent)
		}
		c.pass(time.Second)
	}
	for _, one := range waiting {
		held, err := store.GetDelivery(t.Context(), delivery.Key{EndpointID: one.EndpointID, EventID: one.EventID})
		if err != nil || held.State != delivery.Delivered || held.Attempts != 1 {
			t.Fatalf("%+v, %v", held, err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if each := (units - before) / n; each != 7 {
		t.Errorf("a delivery that waited for 71 hours cost %.2f write units, want 7", each)
	}
}
