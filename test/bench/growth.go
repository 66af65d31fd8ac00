package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/aws/lambdamain"
	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/journal"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/dynamoemulator"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
	"github.com/tidings-dev/tidings/pkg/store/memory"
	"github.com/tidings-dev/tidings/test/streamtest"
)

// measureGrowth asks what grows: a fan out with the tenant's endpoints; a sweep, the
// console's pages and the health report with them and with what is stored.
func measureGrowth(ctx context.Context, r *Report, o options) error {
	stack, err := resolved()
	if err != nil {
		return err
	}
	if err := growingEndpoints(ctx, r, stack); err != nil {
		return err
	}
	if err := growingDeliveries(ctx, r, stack, o.short); err != nil {
		return err
	}
	return growingTables(ctx, r, o.short)
}

// chores are what is called beside delivering, whatever is stored.
var chores = []string{"sweep", "overview page", "deliveries page", "health report"}

// growingEndpoints is on the memory store: the code's own time.
func growingEndpoints(ctx context.Context, r *Report, stack *samtemplate.Stack) error {
	columns := []string{"fan out, µs an event"}
	for _, c := range chores {
		columns = append(columns, c+", ms")
	}
	t := r.table("growth-endpoints", "Growth: by the tenant's endpoints", "endpoints", columns...)
	t.Notes = []string{"On the memory store, so the figures are those of the code alone. Each endpoint has a filter; one endpoint matches. Endpoints are cached; batches have 100 events. " +
		"The pages are the console's, rendered. They query the latest deliveries of each endpoint, so their cost grows with the number of endpoints. Ten deliveries are stored for each endpoint."}
	for _, n := range []int{1, 100, 1000, 10_000} {
		var took []float64
		for range 5 {
			v, err := fanOutTime(ctx, n)
			if err != nil {
				return err
			}
			took = append(took, v)
		}
		if n == 10_000 {
			r.under(1000, of(took...).Median, "µs", "fan-out matching with 10,000 endpoints: an event")
		}
		store, err := stored(ctx, n, 10*n)
		if err != nil {
			return err
		}
		cells, err := choreTimes(ctx, store, stack)
		if err != nil {
			return err
		}
		t.add(thousands(n), append([]Cell{of(took...)}, cells...)...)
		fmt.Fprintf(os.Stderr, "  %s endpoints: fan out %s µs\n", thousands(n), of(took...))
	}
	return nil
}

// growingDeliveries is on the memory store, too.
func growingDeliveries(ctx context.Context, r *Report, stack *samtemplate.Stack, short bool) error {
	var columns []string
	for _, c := range chores {
		columns = append(columns, c+", ms")
	}
	t := r.table("growth-deliveries", "Growth: by stored deliveries", "deliveries stored, of 10 endpoints", columns...)
	t.Notes = []string{"On the memory store. No delivery is due, which is the usual case for a sweep. A page has 50 deliveries; the overview shows the latest eight."}
	sizes := []int{1_000, 10_000, 100_000, 1_000_000}
	if short {
		sizes = sizes[:3]
	}
	for _, n := range sizes {
		store, err := stored(ctx, 10, n)
		if err != nil {
			return err
		}
		cells, err := choreTimes(ctx, store, stack)
		if err != nil {
			return err
		}
		t.add(thousands(n), cells...)
		fmt.Fprintf(os.Stderr, "  %s deliveries: sweep %s ms\n", thousands(n), cells[0])
	}
	return nil
}

// growingTables counts, on the local DynamoDB, what the same calls read.
func growingTables(ctx context.Context, r *Report, short bool) error {
	t := r.table("growth-reads", "Growth: what is read of DynamoDB and SQS", "stored", "requests", "DynamoDB read units", "ms on the local DynamoDB")
	t.Notes = []string{"Counted like the units above: the most expensive of three calls, by functions with empty caches. The tables hold settled deliveries and a full day of statistics; no delivery is due. " +
		"A fan-out is of one event, with no endpoint cached. A million deliveries are not measured, because the emulator takes minutes to store them; no query counts all deliveries."}
	sizes := []struct{ endpoints, deliveries int }{{10, 1_000}, {10, 10_000}, {10, 100_000}, {100, 10_000}, {1_000, 10_000}}
	if short {
		sizes = sizes[:2]
	}
	reports, units := 0.0, map[string][]float64{} // by the chore, for the sizes of ten endpoints
	for _, size := range sizes {
		reads, err := countChores(ctx, size.endpoints, size.deliveries)
		if err != nil {
			return err
		}
		for _, chore := range append([]string{"fan out"}, chores...) {
			c := reads[chore]
			t.add(fmt.Sprintf("%s deliveries, %s endpoints: %s", thousands(size.deliveries), thousands(size.endpoints), chore), of(c.requests), of(c.units), of(c.ms))
			if size.endpoints == 10 {
				units[chore] = append(units[chore], c.units)
			}
		}
		reports = max(reports, reads["health report"].requests)
		fmt.Fprintf(os.Stderr, "  %s deliveries, %s endpoints in DynamoDB: a health report makes %g requests\n", thousands(size.deliveries), thousands(size.endpoints), reads["health report"].requests)
	}
	r.under(10, reports, "requests", "health report, whatever the traffic, queues included")
	for _, chore := range chores {
		all := units[chore]
		// How many buckets of statistics are still open depends on the minute.
		r.atMost(1.02, slices.Max(all)/all[0], "", fmt.Sprintf("%s: read units with %s deliveries, of those with 1,000", chore, thousands(sizes[min(2, len(all)-1)].deliveries)))
	}
	return nil
}

// thousands writes a count for people.
func thousands(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// resolved is the template as it is deployed by default.
func resolved() (*samtemplate.Stack, error) {
	parsed, err := samtemplate.Load(templateFile)
	if err != nil {
		return nil, err
	}
	return parsed.Resolve(samtemplate.Context{
		StackName: local.StackName, Region: dynamoemulator.Region, Account: "000000000000", QueueURL: func(name string) string { return name },
	})
}

// household is the functions that are called beside delivering.
type household map[string]func(context.Context) error

// keep builds a household on a backend, with functions that know nothing yet.
func keep(ctx context.Context, b local.Backend, stack *samtemplate.Stack, sessions console.SessionStore) (household, error) {
	token, err := console.Token(ctx, sessions, console.Invitation{Name: "bench", Role: console.Admin, Tenant: event.DefaultTenant}, time.Now(), time.Hour)
	if err != nil {
		return nil, err
	}
	functions := map[string]lambdamain.Handler{}
	for _, f := range stack.Functions {
		if functions[f.Folder], err = b.Build(f.Folder, f.Environment); err != nil {
			return nil, err
		}
	}
	call := func(function, payload string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := functions[function].Invoke(ctx, []byte(payload))
			return err
		}
	}
	page := func(path string) func(context.Context) error {
		request := events.LambdaFunctionURLRequest{Version: "2.0", RawPath: path, Headers: map[string]string{"host": "console.example.com", "accept": "text/html", "x-tidings-session": token}}
		request.RequestContext.HTTP.Method, request.RequestContext.HTTP.Path = http.MethodGet, path
		return func(ctx context.Context) error {
			payload, err := json.Marshal(request)
			if err != nil {
				return err
			}
			text, err := functions["console"].Invoke(ctx, payload)
			if err != nil {
				return err
			}
			var answer events.LambdaFunctionURLResponse
			if err := json.Unmarshal(text, &answer); err != nil {
				return err
			}
			if answer.StatusCode != http.StatusOK {
				return fmt.Errorf("the console's page %s is answered %d: %.300s", path, answer.StatusCode, answer.Body)
			}
			return nil
		}
	}
	return household{
		"sweep": call("dispatch", `{"action":"sweep"}`), "health report": call("health", `{"action":"report"}`),
		"overview page": page("/"), "deliveries page": page("/deliveries"),
	}, nil
}

// choreTimes are the milliseconds of each chore on a memory store.
func choreTimes(ctx context.Context, store *memory.Store, stack *samtemplate.Stack) (cells []Cell, err error) {
	b := (&pipeline{log: &ledger{}, sqs: newCountedSQS(time.Now)}).backend()
	b.Store = func(dynamo.Tables) local.Store { return store }
	b.Pace = nil
	h, err := keep(ctx, b, stack, store)
	if err != nil {
		return nil, err
	}
	for _, chore := range chores {
		var took []float64
		for n := range 6 {
			began := time.Now()
			if err := h[chore](ctx); err != nil {
				return nil, fmt.Errorf("%s: %w", chore, err)
			}
			if n > 0 { // the first parses templates, and reads what is closed
				took = append(took, float64(time.Since(began).Microseconds())/1000)
			}
		}
		cells = append(cells, of(took...))
	}
	return cells, nil
}

// read is what one call read.
type read struct{ requests, units, ms float64 }

// countChores counts what each chore reads, and a fan out, on fresh tables.
func countChores(ctx context.Context, endpoints, deliveries int) (map[string]read, error) {
	server, stack, err := database(ctx)
	if err != nil {
		return nil, err
	}
	defer server.Stop()
	db, tables := server.Client(), local.Tables(local.StackName)
	now := time.Now().Truncate(time.Millisecond)
	list := growingList(endpoints, now)
	if err := fill(ctx, db, tables.Endpoints, len(list), func(i int) dynamoitem.Item { return dynamoitem.EncodeEndpoint(list[i]) }); err != nil {
		return nil, err
	}
	err = fill(ctx, db, tables.Deliveries, deliveries, func(i int) dynamoitem.Item {
		at := now.Add(-time.Duration(deliveries-i) * time.Millisecond)
		return dynamoitem.EncodeDelivery(delivery.Delivery{
			Key: delivery.Key{EndpointID: list[i%endpoints].ID, EventID: event.NewID(at)}, Tenant: event.DefaultTenant, EventType: "user.posted_comment",
			State: delivery.Delivered, Attempts: 1, Since: at, CreatedAt: at, UpdatedAt: at, ExpiresAt: at.Add(event.Retention(0)),
		})
	})
	if err != nil {
		return nil, err
	}
	p := &pipeline{meter: &meter{Client: db}, log: &ledger{}, sqs: newCountedSQS(time.Now)}
	notes := dynamo.New(db, tables)
	// A day in which there was something in each part of each bucket.
	for _, b := range stats.Buckets(now.Add(-24*time.Hour), now) {
		for n := range 2 * stats.Shards {
			batch := stats.Batch{ID: fmt.Sprintf("%d#%d", b.Unix(), n), At: b, Worked: true, Counts: stats.Counts{Attempts: int64(deliveries), Delivered: int64(deliveries)}}
			if err := notes.AddStatistics(ctx, batch); err != nil {
				return nil, err
			}
		}
	}
	reads := map[string]read{}
	count := func(chore string, call func() error) error {
		p.takeIdle()
		began := time.Now()
		if err := call(); err != nil {
			return fmt.Errorf("%s: %w", chore, err)
		}
		took := float64(time.Since(began).Microseconds()) / 1000
		u, was := p.takeIdle(), reads[chore]
		reads[chore] = read{max(was.requests, u.Requests+u.SQS), max(was.units, u.Reads), max(was.ms, took)}
		return nil
	}
	for range 3 {
		b := p.backend()
		b.Pace = nil
		h, err := keep(ctx, b, stack, notes)
		if err != nil {
			return nil, err
		}
		for _, chore := range chores {
			if err := count(chore, func() error { return h[chore](ctx) }); err != nil {
				return nil, err
			}
		}
		d := dispatch.New(dispatch.Config{
			Events: dynamo.New(p.meter, tables), Endpoints: dynamo.New(p.meter, tables), Statistics: noStatistics{}, Journal: noStatistics{},
			Queue: &sinkQueue{}, Log: slog.New(slog.DiscardHandler), CacheTime: dispatch.CacheTime,
		})
		batch, err := commentBatch(1)
		if err != nil {
			return nil, err
		}
		if err := count("fan out", func() error {
			if failed := d.FanOut(ctx, batch); len(failed) > 0 {
				return errors.New("the fan out failed")
			}
			return nil
		}); err != nil {
			return nil, err
		}
	}
	return reads, nil
}

// noStatistics are what a fan-out writes and does not read.
type noStatistics struct{ journal.Source }

// AddStatistics, NoteSweep and PutJournal keep nothing.
func (noStatistics) AddStatistics(context.Context, stats.Batch) error { return nil }
func (noStatistics) NoteSweep(context.Context, stats.Sweep) error     { return nil }
func (noStatistics) PutJournal(context.Context, journal.Item) error   { return nil }

// fill puts n items into a table, as many at a time as a request takes.
func fill(ctx context.Context, db *dynamodb.Client, table string, n int, item func(i int) dynamoitem.Item) error {
	const most = 25 // BatchWriteItem
	for from := 0; from < n; from += most {
		var puts []types.WriteRequest
		for i := from; i < min(from+most, n); i++ {
			puts = append(puts, types.WriteRequest{PutRequest: &types.PutRequest{Item: item(i)}})
		}
		for len(puts) > 0 {
			out, err := db.BatchWriteItem(ctx, &dynamodb.BatchWriteItemInput{RequestItems: map[string][]types.WriteRequest{table: puts}})
			if err != nil {
				return fmt.Errorf("fill %s: %w", table, err)
			}
			puts = out.UnprocessedItems[table]
		}
	}
	return nil
}

// growingList is a tenant's endpoints, each with a filter of its own.
func growingList(n int, now time.Time) (list []endpoint.Endpoint) {
	secret := signature.NewSecret()
	for i := range n {
		list = append(list, endpoint.Endpoint{
			Tenant: event.DefaultTenant, ID: endpoint.NewID(now), URL: "https://receiver.example.com/", EventTypes: []string{"*"}, Status: endpoint.Enabled,
			Filter:  about(fmt.Sprintf("d_%d", i)),
			Secrets: []endpoint.SigningSecret{{Secret: secret}}, Version: 1, CreatedAt: now, UpdatedAt: now,
		})
	}
	return list
}

// commentBatch is a batch of the stream of n events that the first endpoint wants.
func commentBatch(n int) ([]event.Change, error) {
	var records []events.DynamoDBEventRecord
	now := time.Now()
	for i := range n {
		id := event.NewID(now)
		body, err := event.Event{ID: id, Type: "user.posted_comment", Timestamp: now, Data: json.RawMessage(`{"discussion_id":"d_0","comment_id":"m_1","comment_text":"hello"}`)}.Encode()
		if err != nil {
			return nil, err
		}
		item, err := dynamoitem.EncodeEvent(event.Accepted{ID: id, Tenant: event.DefaultTenant, Body: body, Subject: "d_0"})
		if err != nil {
			return nil, err
		}
		records = append(records, recordOf(item, i))
	}
	return streamtest.Events(records...), nil
}

func memoryDispatch(store *memory.Store, queue dispatch.Queue) *dispatch.Dispatcher {
	return dispatch.New(dispatch.Config{
		Events: store, Endpoints: store, Disabler: store, Deliveries: store, Due: store, Replays: store,
		Statistics: store, Waiting: store, Breakers: store, Limits: store, Journal: store, Jobs: store, Queue: queue, Log: slog.New(slog.DiscardHandler), CacheTime: time.Hour,
	})
}

func fanOutTime(ctx context.Context, endpoints int) (float64, error) {
	store, err := stored(ctx, endpoints, 0)
	if err != nil {
		return 0, err
	}
	sink := &sinkQueue{}
	d := memoryDispatch(store, sink)
	batch, err := commentBatch(100)
	if err != nil {
		return 0, err
	}
	d.FanOut(ctx, batch) // fills the cache
	sink.items = 0
	began := time.Now()
	d.FanOut(ctx, batch)
	took := time.Since(began)
	if sink.items != len(batch) {
		return 0, fmt.Errorf("fan out made %d items of %d events", sink.items, len(batch))
	}
	return float64(took.Microseconds()) / float64(len(batch)), nil
}

// stored is a memory store with endpoints and settled deliveries to them.
func stored(ctx context.Context, endpoints, deliveries int) (*memory.Store, error) {
	store := memory.New(time.Now)
	now := time.Now().Truncate(time.Millisecond)
	list := growingList(endpoints, now)
	for _, e := range list {
		if err := store.AddEndpoint(ctx, e); err != nil {
			return nil, err
		}
	}
	for i := range deliveries {
		at := now.Add(-time.Duration(deliveries-i) * time.Millisecond)
		claimed, err := store.Claim(ctx, delivery.Claim{
			Key: delivery.Key{EndpointID: list[i%endpoints].ID, EventID: event.NewID(at)}, Tenant: event.DefaultTenant,
			EventType: "user.posted_comment", Accepted: at, ID: "claim", Now: at, Lease: time.Minute,
		})
		if err != nil {
			return nil, err
		}
		done := delivery.Conclusion{State: delivery.Delivered, Attempt: delivery.Attempt{Number: 1, At: at, Class: delivery.Success, Status: 204}, Now: at}
		if err := store.Complete(ctx, done.Apply(claimed)); err != nil {
			return nil, err
		}
	}
	return store, nil
}

// sinkQueue counts what is sent to it and keeps nothing.
type sinkQueue struct{ items int }

func (q *sinkQueue) Send(_ context.Context, items []work.Item) []error {
	q.items += len(items)
	return nil
}
