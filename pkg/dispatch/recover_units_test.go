package dispatch_test

import (
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/ops/cost"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
	"github.com/tidings-dev/tidings/test/dynamotest"
)

// meteredStore returns a store on a DynamoDB API, and the units that it has consumed. Read
// them while nothing runs.
func meteredStore(t *testing.T) (*dynamo.Store, *cost.Count) {
	t.Helper()
	client, stack := dynamotest.New(t)
	var mu sync.Mutex
	units := &cost.Count{}
	return dynamo.New(client, local.Tables(stack.Name), dynamo.WithMeter(func(write bool, c types.ConsumedCapacity) {
		mu.Lock()
		defer mu.Unlock()
		if write {
			units.WriteUnits += aws.ToFloat64(c.CapacityUnits)
		} else {
			units.ReadUnits += aws.ToFloat64(c.CapacityUnits)
		}
	})), units
}

// workOff delivers what is queued, in batches of ten, and lets a second pass.
func workOff(t *testing.T, d *dispatch.Dispatcher, q *sentItems, c *clock) {
	t.Helper()
	var messages []work.Message
	for _, item := range q.take() {
		messages = append(messages, work.Message{ID: "m", Body: item.Encode()})
	}
	for i := 0; i < len(messages); i += 10 {
		if failed := d.Deliver(t.Context(), messages[i:min(i+10, len(messages))]); len(failed) > 0 {
			t.Fatal(failed)
		}
	}
	c.pass(time.Second)
}

// What jobs.Sending says is what DynamoDB counts, from the journal to the receiver.
func TestWhatARecoveredDeliveryCosts(t *testing.T) {
	if testing.Short() {
		t.Skip("recovers hundreds of events on a real DynamoDB API")
	}
	store, units := meteredStore(t)
	c, q, answers := &clock{now: time.Now().Truncate(time.Millisecond)}, &sentItems{}, &receiver{}
	d := dispatch.New(dispatch.Config{
		Events: store, Endpoints: store, Disabler: store, Deliveries: store, Due: store, Replays: store, Statistics: store, Journal: store, Jobs: store,
		Waiting: store, Breakers: store, Limits: store, Queue: q, Sender: answers, Log: slog.New(slog.DiscardHandler), Now: c.Now, CacheTime: dispatch.CacheTime,
	})
	from := c.Now()
	const n = 300
	var batch []event.Change
	for range n {
		id := event.NewID(c.Now())
		body, err := event.Event{ID: id, Type: "user.posted_comment", Timestamp: c.Now(), Data: []byte(comment)}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		a := event.Accepted{ID: id, Tenant: event.DefaultTenant, Body: body}
		if err := store.PutEvent(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		batch = append(batch, event.Change{Inserted: true, SequenceNumber: id, Event: a})
		c.pass(time.Millisecond)
	}
	if failed := d.FanOut(t.Context(), batch); failed != nil {
		t.Fatal(failed)
	}
	e := endpoint.Endpoint{
		Tenant: event.DefaultTenant, ID: endpoint.NewID(c.Now()), URL: "https://receiver.example/hook", EventTypes: []string{"*"}, Status: endpoint.Enabled,
		Secrets: []endpoint.SigningSecret{{Secret: signature.NewSecret()}}, CreatedAt: c.Now(), UpdatedAt: c.Now(),
	}
	if err := store.AddEndpoint(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	c.pass(dispatch.CacheTime)

	run := func(dryRun bool) (perEvent, readsPerEvent float64) {
		*units = cost.Count{}
		if _, err := d.StartJob(t.Context(), dispatch.Command{Kind: jobs.Backfill, EndpointID: e.ID, From: from, DryRun: dryRun}); err != nil {
			t.Fatal(err)
		}
		for range 120 {
			workOff(t, d, q, c)
		}
		return units.WriteUnits / n, units.ReadUnits / n
	}
	w, r := run(true)
	t.Logf("a dry run: %.2f write units and %.2f read units for each event", w, r)
	if w > 0.1 || r > 0.8 {
		t.Errorf("a dry run costs %.2f write units and %.2f read units for each event, want about 0.05 and 0.6", w, r)
	}
	w, r = run(false)
	t.Logf("a recovery: %.2f write units and %.2f read units for each delivery", w, r)
	page, err := store.QueryDeliveries(t.Context(), delivery.Query{EndpointID: e.ID, State: delivery.Delivered, Limit: 2 * n})
	if err != nil || len(page.Deliveries) != n {
		t.Fatalf("%d of %d are delivered, %v", len(page.Deliveries), n, err)
	}
	// A tenth more for the job, the circuit and statistics, of which there are many for few
	// deliveries.
	if most := jobs.Sending; w > 1.1*most.WriteUnits || w < 0.8*most.WriteUnits || r > 1.1*most.ReadUnits {
		t.Errorf("a delivery costs %.2f write units and %.2f read units, and jobs.Sending says %.1f and %.1f", w, r, most.WriteUnits, most.ReadUnits)
	}
}
