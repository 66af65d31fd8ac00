package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tidings-dev/tidings/pkg/catalog"
	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/memstore"
	"github.com/tidings-dev/tidings/pkg/schema"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/work"
)

// measureGrowth asks what grows: a fan out with the tenant's endpoints, and a
// sweep and a page of deliveries with what is stored.
func measureGrowth(ctx context.Context, r *Report, o options) error {
	t := r.table("growth-endpoints", "Growth: fan out of one event, by the tenant's endpoints", "endpoints, of which one wants the event", "µs an event")
	t.Notes = []string{"Memory store, endpoints cached, each with a filter that is evaluated; batches of 100 events."}
	for _, n := range []int{1, 100, 1000, 10_000} {
		var took []float64
		for range 3 {
			v, err := fanOutTime(ctx, n)
			if err != nil {
				return err
			}
			took = append(took, v)
		}
		t.add(fmt.Sprint(n), of(took...))
		if n == 10_000 {
			r.under(1000, of(took...).Median, "µs", "fan-out matching with 10,000 endpoints: an event")
		}
	}
	g := r.table("growth-deliveries", "Growth: by stored deliveries", "deliveries stored", "sweep, ms", "page of 50, µs", "statistics of a day, µs")
	g.Notes = []string{"Memory store, so the figures are the code's own; nothing is due, which is what a sweep finds at most times. On DynamoDB a sweep is 34 read units, " +
		"a page one query, a day's statistics three requests, whatever is stored."}
	sizes := []int{1_000, 10_000, 100_000, 1_000_000}
	if o.short {
		sizes = sizes[:3]
	}
	for _, n := range sizes {
		sweep, page, statistics, err := storedTimes(ctx, n)
		if err != nil {
			return err
		}
		g.add(fmt.Sprint(n), of(sweep...), of(page...), of(statistics...))
	}
	return nil
}

func memoryDispatch(store *memstore.Store, queue dispatch.Queue) *dispatch.Dispatcher {
	return dispatch.New(dispatch.Config{
		Catalog: catalog.Default(), Events: store, Endpoints: store, Disabler: store, Deliveries: store, Due: store, Replays: store,
		Statistics: store, Waiting: store, Breakers: store, Limits: store, Queue: queue, Log: slog.New(slog.DiscardHandler), CacheTime: time.Hour,
	})
}

func fanOutTime(ctx context.Context, endpoints int) (float64, error) {
	store := memstore.New(time.Now)
	now := time.Now()
	secret := signature.NewSecret()
	for i := range endpoints {
		e := endpoint.Endpoint{
			Tenant: event.DefaultTenant, ID: endpoint.NewID(now), URL: "https://receiver.example.com/", EventTypes: []string{"*"}, Status: endpoint.Enabled,
			Filter:  json.RawMessage(fmt.Sprintf(`{"data":{"discussion_id":["d_%d"]}}`, i)),
			Secrets: []endpoint.SigningSecret{{Secret: secret}}, Version: 1, CreatedAt: now, UpdatedAt: now,
		}
		if err := store.AddEndpoint(ctx, e); err != nil {
			return 0, err
		}
	}
	sink := &sinkQueue{}
	d := memoryDispatch(store, sink)
	var batch events.DynamoDBEvent
	for i := range 100 {
		id := event.NewID(now)
		body, err := event.Event{ID: id, Type: "user.posted_comment", Timestamp: now, Data: json.RawMessage(`{"discussion_id":"d_0","comment_id":"m_1","comment_text":"hello"}`)}.Encode()
		if err != nil {
			return 0, err
		}
		item, err := schema.EncodeEvent(event.Accepted{ID: id, Tenant: event.DefaultTenant, Body: body})
		if err != nil {
			return 0, err
		}
		batch.Records = append(batch.Records, events.DynamoDBEventRecord{
			EventName: string(events.DynamoDBOperationTypeInsert),
			Change:    events.DynamoDBStreamRecord{NewImage: schema.Image(item), SequenceNumber: fmt.Sprint(i)},
		})
	}
	d.FanOut(ctx, batch) // fills the cache
	sink.items = 0
	began := time.Now()
	d.FanOut(ctx, batch)
	took := time.Since(began)
	if sink.items != len(batch.Records) {
		return 0, fmt.Errorf("fan out made %d items of %d events", sink.items, len(batch.Records))
	}
	return float64(took.Microseconds()) / float64(len(batch.Records)), nil
}

func storedTimes(ctx context.Context, n int) (sweep, page, statistics []float64, err error) {
	store := memstore.New(time.Now)
	now := time.Now().Truncate(time.Millisecond)
	for i := range n {
		at := now.Add(-time.Duration(n-i) * time.Millisecond)
		claimed, err := store.Claim(ctx, delivery.Claim{
			Key: delivery.Key{EndpointID: fmt.Sprintf("ep_%d", i%10), EventID: event.NewID(at)}, Tenant: event.DefaultTenant,
			EventType: "user.posted_comment", Accepted: at, ID: "claim", Now: at, Lease: time.Minute,
		})
		if err != nil {
			return nil, nil, nil, err
		}
		done := delivery.Conclusion{State: delivery.Delivered, Attempt: delivery.Attempt{Number: 1, At: at, Class: delivery.Success, Status: 204}, Now: at}
		if err := store.Complete(ctx, done.Apply(claimed)); err != nil {
			return nil, nil, nil, err
		}
	}
	d := memoryDispatch(store, &sinkQueue{})
	for range 5 {
		began := time.Now()
		if _, err := d.Sweep(ctx); err != nil {
			return nil, nil, nil, err
		}
		sweep = append(sweep, float64(time.Since(began).Microseconds())/1000)
		began = time.Now()
		got, err := store.QueryDeliveries(ctx, delivery.Query{EndpointID: "ep_1", Limit: 50})
		if err != nil || len(got.Deliveries) != 50 {
			return nil, nil, nil, fmt.Errorf("a page has %d deliveries, want 50 (%w)", len(got.Deliveries), err)
		}
		page = append(page, float64(time.Since(began).Nanoseconds())/1000)
		began = time.Now()
		if _, _, err := store.ReadStatistics(ctx, []time.Time{now}); err != nil {
			return nil, nil, nil, err
		}
		statistics = append(statistics, float64(time.Since(began).Nanoseconds())/1000)
	}
	return sweep, page, statistics, nil
}

// sinkQueue counts what is sent to it and keeps nothing.
type sinkQueue struct{ items int }

func (q *sinkQueue) Send(_ context.Context, items []work.Item) []error {
	q.items += len(items)
	return nil
}
