package dispatch_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/store/memory"
)

// world is a dispatcher with the memory store, a queue whose items the test delivers,
// and a receiver with answers set by the test. It runs in a synctest bubble, so that
// hours take no real time.
type world struct {
	*dispatch.Dispatcher
	t        *testing.T
	store    *memory.Store
	queue    *sentItems
	receiver *receiver
	tick     time.Duration // interval of drive
	events   int           // stored so far
}

func newWorld(t *testing.T, change ...func(*dispatch.Config)) *world {
	t.Helper()
	w := &world{t: t, store: memory.New(time.Now), queue: &sentItems{}, receiver: &receiver{}, tick: 50 * time.Millisecond}
	c := dispatch.Config{
		Events: w.store, Endpoints: w.store, Disabler: w.store, Deliveries: w.store,
		Due: w.store, Replays: w.store, Statistics: w.store, Waiting: w.store, Breakers: w.store, Limits: w.store, Journal: w.store, Jobs: w.store, StoredEvents: w.store, Erasures: w.store, Kept: w.store, Types: catalog.Default(), Queue: w.queue, Sender: w.receiver, CacheTime: dispatch.CacheTime,
		Log: slog.New(slog.DiscardHandler), Random: func() float64 { return 0 },
	}
	for _, f := range change {
		f(&c)
	}
	w.Dispatcher = dispatch.New(c)
	return w
}

// sentItems is a queue that keeps the items until the test takes them.
type sentItems struct {
	mu   sync.Mutex
	sent []work.Item
	fail func(work.Item) error // nil sends
}

func (q *sentItems) Send(_ context.Context, items []work.Item) []error {
	q.mu.Lock()
	defer q.mu.Unlock()
	var errs []error
	for i, item := range items {
		if q.fail != nil {
			if err := q.fail(item); err != nil {
				if errs == nil {
					errs = make([]error, len(items))
				}
				errs[i] = err
				continue
			}
		}
		q.sent = append(q.sent, item)
	}
	return errs
}

// take returns the items sent since the last call.
func (q *sentItems) take() []work.Item {
	q.mu.Lock()
	defer q.mu.Unlock()
	sent := q.sent
	q.sent = nil
	return sent
}

// receiver returns answer's outcome, or success by default, and detects overlapping
// attempts at one delivery.
type receiver struct {
	mu      sync.Mutex
	answer  func(ctx context.Context, m destination.Message) delivery.Outcome
	got     []destination.Message
	at      []time.Time
	busy    map[string]bool
	overlap bool
}

func (r *receiver) Deliver(ctx context.Context, target destination.Target, m destination.Message) delivery.Outcome {
	key := target.ID + m.EventID
	r.mu.Lock()
	if r.busy == nil {
		r.busy = map[string]bool{}
	}
	r.overlap = r.overlap || r.busy[key]
	r.busy[key] = true
	r.got = append(r.got, m)
	r.at = append(r.at, time.Now())
	answer := r.answer
	r.mu.Unlock()
	outcome := delivery.Outcome{Class: delivery.Success, Status: 200}
	if answer != nil {
		outcome = answer(ctx, m)
	}
	r.mu.Lock()
	r.busy[key] = false
	r.mu.Unlock()
	return outcome
}

func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.got)
}

func answering(status int) func(context.Context, destination.Message) delivery.Outcome {
	return func(context.Context, destination.Message) delivery.Outcome {
		o := delivery.Outcome{Class: delivery.Answered, Status: status, Error: fmt.Sprintf("the receiver answered %d", status)}
		if status == 410 {
			o.Class = delivery.Gone
		}
		return o
	}
}

// lost is a failure that does not count for the circuit breaker.
func lost(context.Context, destination.Message) delivery.Outcome {
	return delivery.Outcome{Class: delivery.Lost, Error: "lost"}
}

func (w *world) endpoint(change ...func(*endpoint.Endpoint)) endpoint.Endpoint {
	w.t.Helper()
	e := endpoint.Endpoint{
		Tenant: event.DefaultTenant, ID: endpoint.NewID(time.Now()), URL: "https://receiver.example/hook",
		EventTypes: []string{"*"}, Secrets: []endpoint.SigningSecret{{Secret: signature.NewSecret()}},
		Status: endpoint.Enabled, CreatedAt: time.Now(), UpdatedAt: time.Now(),
	}
	for _, f := range change {
		f(&e)
	}
	if err := w.store.AddEndpoint(w.t.Context(), e); err != nil {
		w.t.Fatal(err)
	}
	return e
}

// event stores an event and returns it with its stream record.
func (w *world) event(eventType, data string) (event.Accepted, event.Change) {
	w.t.Helper()
	id := event.NewID(time.Now())
	body, err := event.Event{ID: id, Type: eventType, Timestamp: time.Now(), Data: json.RawMessage(data)}.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	a := event.Accepted{
		ID: id, Tenant: event.DefaultTenant, Body: body,
		Subject: catalog.Default().Subject(eventType, []byte(data)), OldType: catalog.Default().OldName(eventType),
	}
	if err := w.store.PutEvent(w.t.Context(), a); err != nil {
		w.t.Fatal(err)
	}
	w.events++
	return a, event.Change{Inserted: true, SequenceNumber: fmt.Sprintf("%021d", w.events), Event: a}
}

const comment = `{"discussion_id":"d1","comment_id":"c1","comment_text":"hello"}`

// fannedOut stores one event, fans it out, and returns its only work item.
func (w *world) fannedOut() work.Item {
	w.t.Helper()
	before := w.queue.take()
	defer func() { w.queue.Send(w.t.Context(), before) }()
	_, record := w.event("user.posted_comment", comment)
	w.FanOut(w.t.Context(), []event.Change{record})
	sent := w.queue.take()
	if len(sent) != 1 {
		w.t.Fatalf("fan out queued %d items, want 1", len(sent))
	}
	return sent[0]
}

// deliver delivers items as one batch and returns the failures.
func (w *world) deliver(items ...work.Item) []string {
	w.t.Helper()
	return w.deliverBy(w.Dispatcher, items...)
}

// deliverBy is deliver by one of several workers.
func (w *world) deliverBy(worker *dispatch.Dispatcher, items ...work.Item) []string {
	w.t.Helper()
	var batch []work.Message
	for i, item := range items {
		batch = append(batch, work.Message{ID: fmt.Sprint("m", i), Body: item.Encode()})
	}
	return worker.Deliver(w.t.Context(), batch)
}

func (w *world) delivery(item work.Item) delivery.Delivery {
	w.t.Helper()
	d, err := w.store.GetDelivery(w.t.Context(), delivery.Key{EndpointID: item.EndpointID, EventID: item.EventID})
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

// run delivers every item when its delay is over, and sweeps every minute, until the
// delivery is settled or the limit is reached.
func (w *world) run(item work.Item, limit time.Duration) delivery.Delivery {
	w.t.Helper()
	type waiting struct {
		at   time.Time
		item work.Item
	}
	list := []waiting{{time.Now(), item}}
	sweepAt := time.Now()
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(time.Second) {
		if !time.Now().Before(sweepAt) {
			if _, err := w.Sweep(w.t.Context()); err != nil {
				w.t.Fatal(err)
			}
			sweepAt = sweepAt.Add(time.Minute)
		}
		var due []work.Item
		list = slices.DeleteFunc(list, func(x waiting) bool {
			if x.at.After(time.Now()) {
				return false
			}
			due = append(due, x.item)
			return true
		})
		if len(due) > 0 {
			w.deliver(due...)
		}
		for _, sent := range w.queue.take() {
			list = append(list, waiting{time.Now().Add(sent.Delay), sent})
		}
		if d, err := w.store.GetDelivery(w.t.Context(), delivery.Key{EndpointID: item.EndpointID, EventID: item.EventID}); err == nil && d.State.Settled() {
			return d
		}
	}
	return w.delivery(item)
}

func TestFanOutQueuesOneItemPerMatchingEndpoint(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*endpoint.Endpoint)
		want   bool
	}{
		"subscribed to the exact type":        {func(e *endpoint.Endpoint) { e.EventTypes = []string{"user.posted_comment"} }, true},
		"subscribed to the group":             {func(e *endpoint.Endpoint) { e.EventTypes = []string{"user.*"} }, true},
		"subscribed to everything":            {func(e *endpoint.Endpoint) { e.EventTypes = []string{"*"} }, true},
		"subscribed to another type":          {func(e *endpoint.Endpoint) { e.EventTypes = []string{"user.flagged_comment"} }, false},
		"subscribed to another group":         {func(e *endpoint.Endpoint) { e.EventTypes = []string{"discussion.*"} }, false},
		"a filter that matches the data":      {func(e *endpoint.Endpoint) { e.Filter = json.RawMessage(`{"data":{"discussion_id":["d1"]}}`) }, true},
		"a filter that does not match":        {func(e *endpoint.Endpoint) { e.Filter = json.RawMessage(`{"data":{"discussion_id":["d2"]}}`) }, false},
		"disabled":                            {func(e *endpoint.Endpoint) { e.Status = endpoint.Disabled }, false},
		"of another tenant":                   {func(e *endpoint.Endpoint) { e.Tenant = "other" }, false},
		"a stored filter that cannot be read": {func(e *endpoint.Endpoint) { e.Filter = json.RawMessage(`{"data":5}`) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				e := w.endpoint(c.change)
				a, record := w.event("user.posted_comment", comment)
				response := w.FanOut(t.Context(), []event.Change{record})
				if len(response) != 0 {
					t.Errorf("failures: %v", response)
				}
				var want []work.Item
				if c.want {
					want = []work.Item{{Tenant: e.Tenant, EndpointID: e.ID, EventID: a.ID, EventType: "user.posted_comment", Body: a.Body, Subject: "d1"}}
				}
				if got := w.queue.take(); !reflect.DeepEqual(got, want) {
					t.Errorf("queued %+v, want %+v", got, want)
				}
			})
		})
	}
}

// The filter of an endpoint with old names matches both names of a renamed type.
func TestFiltersMatchBothNamesOfARenamedType(t *testing.T) {
	const byOld, byNew, neither = `{"event":["user.welcome_email_sent"]}`, `{"event":["user.joined_platform"]}`, `{"event":["user.posted_comment"]}`
	for name, c := range map[string]struct {
		filter   string
		oldNames bool
		want     int
	}{
		"the new name": {byNew, false, 1}, "the old name, not enabled": {byOld, false, 0},
		"the old name": {byOld, true, 1}, "the new name, with old names": {byNew, true, 1}, "another name": {neither, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.endpoint(func(e *endpoint.Endpoint) { e.Filter, e.OldNames = json.RawMessage(c.filter), c.oldNames })
				_, record := w.event("user.joined_platform", `{"user_id":"u"}`)
				w.FanOut(t.Context(), []event.Change{record})
				if got := w.queue.take(); len(got) != c.want {
					t.Errorf("queued %+v, want %d", got, c.want)
				}
			})
		})
	}
}

// An endpoint's filter sees the version that the endpoint gets, and it gets the same version
// in each attempt.
func TestEachEndpointGetsItsVersionOfAnEvent(t *testing.T) {
	const one, two = `{"data":{"status":["paid"]}}`, `{"data":{"state":["settled"]}}`
	for name, c := range map[string]struct {
		pin    int
		before bool // created before version 2
		filter string
		want   string // the data that it gets; none if empty
	}{
		"an old endpoint":                   {0, true, ``, `{"status":"paid"}`},
		"an old endpoint, filtered":         {0, true, one, `{"status":"paid"}`},
		"an old endpoint, filtered by 2":    {0, true, two, ``},
		"an old endpoint, pinned to 2":      {2, true, two, `{"state":"settled"}`},
		"a new endpoint":                    {0, false, ``, `{"state":"settled"}`},
		"a new endpoint, filtered":          {0, false, two, `{"state":"settled"}`},
		"a new endpoint, filtered by 1":     {0, false, one, ``},
		"a new endpoint, pinned to 1":       {1, false, one, `{"status":"paid"}`},
		"a new endpoint, pinned, no filter": {1, false, ``, `{"status":"paid"}`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.endpoint(func(e *endpoint.Endpoint) {
					e.Filter, e.TypeVersions = json.RawMessage(c.filter), map[string]int{"order.paid": c.pin}
					if c.pin == 0 {
						e.TypeVersions = nil
					}
					if c.before {
						e.CreatedAt = e.CreatedAt.Add(-time.Hour)
					}
				})
				a := event.Accepted{ID: event.NewID(time.Now()), Tenant: event.DefaultTenant}
				var err error
				if a.Body, err = (event.Event{ID: a.ID, Type: "order.paid", Version: 2, Timestamp: time.Now(), Data: []byte(`{"state":"settled"}`)}).Encode(); err != nil {
					t.Fatal(err)
				}
				if a.Versions, err = event.EncodeVersions([]event.Version{{Number: 2, Since: time.Now().Add(-time.Minute)}, {Number: 1, Data: []byte(`{"status":"paid"}`)}}); err != nil {
					t.Fatal(err)
				}
				if err := w.store.PutEvent(t.Context(), a); err != nil {
					t.Fatal(err)
				}
				w.receiver.answer = answering(500)
				w.FanOut(t.Context(), []event.Change{{Inserted: true, SequenceNumber: "1", Event: a}})
				items := w.queue.take()
				if len(items) == 0 && c.want == "" {
					return
				}
				if len(items) != 1 || c.want == "" {
					t.Fatalf("queued %+v, want the data %s", items, c.want)
				}
				w.run(items[0], 10*time.Second)
				if w.receiver.count() < 2 {
					t.Fatal("there was no second attempt")
				}
				for _, m := range w.receiver.got {
					if !strings.Contains(string(m.Body), `"data":`+c.want) || !bytes.Equal(m.Body, w.receiver.got[0].Body) {
						t.Errorf("sent %s, want the data %s", m.Body, c.want)
					}
				}
			})
		})
	}
}

// Fan-out counts the events whose type has no definition by type, in the write that it
// makes for each batch. A process counts 20 names in ten minutes.
func TestFanOutCountsTypesWithoutADefinition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // not at the edge of a bucket
		writes := 0
		w := newWorld(t, func(c *dispatch.Config) { c.Statistics = countedWrites{c.Statistics, &writes} })
		of := func(name string, undefined bool) event.Change {
			_, record := w.event(name, `{}`)
			record.Event.Undefined = undefined
			return record
		}
		batch := []event.Change{of("order.payd", true), of("user.posted_comment", false), of("order.payd", true)}
		if failed := w.FanOut(t.Context(), batch); len(failed) != 0 || writes != 1 {
			t.Fatalf("failures %v, %d writes of statistics", failed, writes)
		}
		for i := range 25 {
			if failed := w.FanOut(t.Context(), []event.Change{of(fmt.Sprintf("random.type_%d", i), true)}); len(failed) != 0 {
				t.Fatal(failed)
			}
		}
		summary, err := (&stats.Reader{Source: w.store, Now: time.Now}).Summary(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		last := stats.Bucket(time.Now())
		types := summary.UndefinedTypes
		if len(types) != 21 || types["order.payd"] != (stats.Seen{Count: 2, Last: last}) || types["random.type_18"].Count != 1 || types[stats.OtherNames] != (stats.Seen{Count: 6, Last: last}) {
			t.Errorf("counted %v", types)
		}
	})
}

// countedWrites counts the writes of statistics.
type countedWrites struct {
	dispatch.Statistics
	n *int
}

func (c countedWrites) AddStatistics(ctx context.Context, b stats.Batch) error {
	*c.n++
	return c.Statistics.AddStatistics(ctx, b)
}

func TestFanOutSkipsMalformedRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.endpoint()
		_, good := w.event("user.posted_comment", comment)
		response := w.FanOut(t.Context(), []event.Change{
			{Inserted: true, Err: errors.New("an attribute is missing")},
			{Inserted: true, Event: event.Accepted{ID: "7", Tenant: "default", Body: good.Event.Body}},
			{Inserted: true, Event: event.Accepted{ID: event.NewID(time.Now()), Tenant: "default", Body: []byte("{not json")}},
			good,
		})
		if len(response) != 0 {
			t.Errorf("a malformed record blocks the shard: %v", response)
		}
		if got := len(w.queue.take()); got != 1 {
			t.Errorf("queued %d items behind malformed records, want 1", got)
		}
	})
}

// An event that is nested more deeply than filters can read must not block its shard.
func TestFanOutPassesOverWhatAFilterCannotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		all := w.endpoint()
		filtered := w.endpoint(func(e *endpoint.Endpoint) { e.Filter = json.RawMessage(`{"data":{"a":["b"]}}`) })
		deep, record := w.event("user.posted_comment", `{"a":`+strings.Repeat("[", 40)+strings.Repeat("]", 40)+`}`)
		_, next := w.event("user.posted_comment", comment)
		if response := w.FanOut(t.Context(), []event.Change{record, next}); len(response) != 0 {
			t.Errorf("the shard is blocked: %v", response)
		}
		var queued []string
		for _, item := range w.queue.take() {
			queued = append(queued, item.EndpointID)
		}
		if !slices.Equal(queued, []string{all.ID, all.ID}) {
			t.Errorf("queued for %v, want both events for the endpoint without a filter", queued)
		}
		d, err := w.store.GetDelivery(t.Context(), delivery.Key{EndpointID: filtered.ID, EventID: deep.ID})
		if err != nil || d.State != delivery.Skipped || !strings.Contains(d.Reason, "filter") {
			t.Errorf("delivery %+v, %v; want it skipped, with the reason", d, err)
		}
	})
}

// An endpoint whose filter does not compile must not get every event.
func TestFanOutDisablesAnEndpointWhoseFilterIsInvalid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		all := w.endpoint()
		broken := w.endpoint(func(e *endpoint.Endpoint) {
			e.Filter = json.RawMessage(`{"data":{"a":[{"operator of a later version":1}]}}`)
		})
		first, record := w.event("user.posted_comment", comment)
		_, next := w.event("user.posted_comment", comment)
		if response := w.FanOut(t.Context(), []event.Change{record, next}); len(response) != 0 {
			t.Errorf("the shard is blocked: %v", response)
		}
		for _, item := range w.queue.take() {
			if item.EndpointID != all.ID {
				t.Errorf("queued %+v", item)
			}
		}
		e, err := w.store.GetEndpoint(t.Context(), broken.Tenant, broken.ID)
		if err != nil || e.Status == endpoint.Enabled || !strings.Contains(e.StatusReason, "filter") {
			t.Errorf("endpoint %+v, %v; want it disabled, with the reason", e, err)
		}
		d, err := w.store.GetDelivery(t.Context(), delivery.Key{EndpointID: broken.ID, EventID: first.ID})
		if err != nil || d.State != delivery.Skipped || !strings.Contains(d.Reason, "filter") {
			t.Errorf("delivery %+v, %v; want it skipped, with the reason", d, err)
		}
		if s := w.statistics(); len(s.Disabled) != 1 || s.Hour.Skipped == 0 {
			t.Errorf("statistics %+v, want the endpoint, for the alert, and the skipped delivery", s)
		}
	})
}

func TestFanOutIgnoresExpiredEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.endpoint()
		_, record := w.event("user.posted_comment", comment)
		record.Inserted = false
		w.FanOut(t.Context(), []event.Change{record})
		if got := w.queue.take(); len(got) != 0 {
			t.Errorf("queued %v for an expired event", got)
		}
	})
}

func TestFanOutReportsTheFirstRecordThatWasNotQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		w := newWorld(t, func(c *dispatch.Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
		w.endpoint()
		var batch []event.Change
		var ids []string
		for range 4 {
			a, record := w.event("user.posted_comment", comment)
			ids = append(ids, a.ID)
			batch = append(batch, record)
		}
		w.queue.fail = func(i work.Item) error {
			if i.EventID == ids[1] || i.EventID == ids[3] {
				return errors.New("throttled")
			}
			return nil
		}
		response := w.FanOut(t.Context(), batch)
		want := []string{batch[1].SequenceNumber}
		if !slices.Equal(response, want) {
			t.Errorf("failures = %v, want the second record's sequence number %v", response, want)
		}
		if !strings.Contains(log.String(), "msg=fanout.done records=4 malformed=0 queued=2") {
			t.Errorf("the log does not count the two items that were queued:\n%s", &log)
		}
	})
}

// failing is a store whose endpoints cannot be read.
type failing struct{ dispatch.Endpoints }

func (failing) ReadEndpoints(context.Context, string, bool) (endpoint.List, error) {
	return endpoint.List{}, errors.New("throttled")
}

func TestFanOutReportsTheRecordWhoseEndpointsCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *dispatch.Config) { c.Endpoints = failing{c.Endpoints} })
		_, record := w.event("user.posted_comment", comment)
		response := w.FanOut(t.Context(), []event.Change{record})
		if len(response) != 1 {
			t.Error("the event would be lost: no failure was reported")
		}
	})
}

func TestSuccessfulDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint()
		item := w.fannedOut()
		if failed := w.deliver(item); failed != nil {
			t.Fatalf("failures: %v", failed)
		}
		d := w.delivery(item)
		if d.State != delivery.Delivered || d.Attempts != 1 || !d.DueAt.IsZero() {
			t.Errorf("delivery = %+v, want delivered by one attempt and out of the due index", d)
		}
		if sent := w.queue.take(); len(sent) != 0 {
			t.Errorf("success queued %v", sent)
		}
		m := w.receiver.got[0]
		stored, err := w.store.GetEvent(t.Context(), item.EventID)
		if err != nil {
			t.Fatal(err)
		}
		if string(m.Body) != string(stored.Body) {
			t.Errorf("sent %s, stored %s", m.Body, stored.Body)
		}
		if m.Headers["idempotency-key"] != item.EventID || m.Headers[signature.HeaderID] != item.EventID || m.Subject != "d1" {
			t.Errorf("message = %+v", m)
		}
		err = signature.Verify(e.Secrets[0].Secret, m.Headers[signature.HeaderID], m.Headers[signature.HeaderTimestamp],
			m.Headers[signature.HeaderSignature], m.Body, time.Now())
		if err != nil {
			t.Error(err)
		}
	})
}

func TestRetriesAreOnTimeAndKeepTheID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.endpoint(func(e *endpoint.Endpoint) { e.Breaker.Failures = 100 })
		item := w.fannedOut()
		w.receiver.answer = answering(500)
		began := time.Now()
		d := w.run(item, 80*time.Hour)
		if d.State != delivery.Dead || d.Attempts < 20 || d.Attempts > 30 {
			t.Fatalf("after only failures: %s after %d attempts (%s), want dead after 20 to 30", d.State, d.Attempts, d.Reason)
		}
		at := began
		for i, got := range w.receiver.at {
			if i > 0 {
				at = at.Add(min(time.Second<<i, 6*time.Hour))
			}
			// A sweep every minute and a queue that counts whole seconds keep the
			// second; the attempts take no time here.
			if late := got.Sub(at); late < 0 || late > time.Second {
				t.Errorf("attempt %d began %s from its time", i+1, late)
			}
			at = got
			if id := w.receiver.got[i].Headers[signature.HeaderID]; id != item.EventID {
				t.Errorf("attempt %d has webhook-id %s", i+1, id)
			}
		}
	})
}

func TestRetryAfterIsHonoured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.endpoint()
		item := w.fannedOut()
		w.receiver.answer = func(context.Context, destination.Message) delivery.Outcome {
			return delivery.Outcome{Class: delivery.Throttled, Status: 429, RetryAfter: 100 * time.Second}
		}
		w.deliver(item)
		sent := w.queue.take()
		if len(sent) != 1 || sent[0].Delay != 100*time.Second {
			t.Errorf("queued %+v, want one item delayed by 100 s", sent)
		}
	})
}

func TestSweepQueuesARetryWhoseItemWasLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.endpoint()
		item := w.fannedOut()
		w.receiver.answer = answering(500)
		w.deliver(item)
		w.queue.take() // lost
		w.receiver.answer = nil
		var swept []work.Item
		began := time.Now()
		for len(swept) == 0 && time.Since(began) < time.Hour {
			time.Sleep(time.Minute)
			if _, err := w.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			swept = w.queue.take()
		}
		if time.Since(began) > dispatch.Backstop {
			t.Errorf("the sweep took %s to notice", time.Since(began))
		}
		w.deliver(swept...)
		if d := w.delivery(item); d.State != delivery.Delivered {
			t.Errorf("state = %s", d.State)
		}
	})
}

func TestOverlappingSweepsQueueADeliveryOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.endpoint()
		w.receiver.answer = lost
		const n = 300
		for range n {
			w.deliver(w.fannedOut())
			w.queue.take()
		}
		time.Sleep(dispatch.Backstop + time.Minute)
		var sweeps sync.WaitGroup
		for range 8 {
			sweeps.Go(func() {
				if _, err := w.Sweep(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		sweeps.Wait()
		if got := len(w.queue.take()); got != n {
			t.Errorf("8 overlapping sweeps queued %d items for %d due deliveries", got, n)
		}
	})
}

// stuck is a due index in which one delivery's due time cannot be moved.
type stuck struct {
	dispatch.DueIndex
	event string
}

func (s *stuck) Postpone(ctx context.Context, d delivery.Due, to time.Time) (delivery.Delivery, error) {
	if d.EventID == s.event {
		return delivery.Delivery{}, errors.New("the record cannot be read")
	}
	return s.DueIndex.Postpone(ctx, d, to)
}

func TestSweepContinuesAfterAFailedPostpone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		poison := &stuck{}
		w := newWorld(t, func(c *dispatch.Config) {
			poison.DueIndex = c.Due
			c.Due = poison
		})
		w.endpoint()
		w.receiver.answer = lost
		for range 50 {
			item := w.fannedOut()
			poison.event = item.EventID // the last one
			w.deliver(item)
			w.queue.take()
		}
		time.Sleep(dispatch.Backstop)
		swept, err := w.Sweep(t.Context())
		if err != nil || swept.Due != 50 || swept.Queued != 49 {
			t.Errorf("swept %+v, %v; want 49 of 50 queued", swept, err)
		}
	})
}

// slowly is a store that reads events slowly.
type slowly struct{ dispatch.Events }

func (s slowly) GetEvent(ctx context.Context, id string) (event.Accepted, error) {
	time.Sleep(5 * time.Second)
	return s.Events.GetEvent(ctx, id)
}

func TestASlowReadDoesNotDelayTheRestOfItsBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *dispatch.Config) { c.Events = slowly{c.Events} })
		w.endpoint()
		slow, quick := w.fannedOut(), w.fannedOut()
		slow.Body = nil // too large to travel with its item
		began := time.Now()
		if failed := w.deliver(slow, quick); len(failed) != 0 {
			t.Fatal(failed)
		}
		if len(w.receiver.at) != 2 || w.receiver.got[0].EventID != quick.EventID || !w.receiver.at[0].Equal(began) || !w.receiver.at[1].Equal(began.Add(5*time.Second)) {
			t.Errorf("attempts at %v, begun at %v", w.receiver.at, began)
		}
	})
}

func TestManyWorkersMakeOneAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.endpoint()
		item := w.fannedOut()
		w.receiver.answer = func(context.Context, destination.Message) delivery.Outcome {
			time.Sleep(time.Second)
			return delivery.Outcome{Class: delivery.Success, Status: 204}
		}
		var workers sync.WaitGroup
		for range 64 {
			workers.Go(func() { w.deliver(item) })
		}
		workers.Wait()
		if w.receiver.count() != 1 {
			t.Errorf("%d attempts, want 1", w.receiver.count())
		}
		// The losers must not drop the delivery while the winner may yet die.
		sent := w.queue.take()
		if len(sent) == 0 {
			t.Fatal("no loser put the item back")
		}
		for _, back := range sent {
			if back.Delay <= 0 {
				t.Errorf("put back with delay %s: it would spin", back.Delay)
			}
		}
		time.Sleep(time.Minute)
		if failed := w.deliver(sent...); failed != nil || w.receiver.count() != 1 || len(w.queue.take()) != 0 {
			t.Errorf("items put back did not end quietly: failed %v, %d attempts", failed, w.receiver.count())
		}
	})
}

func TestADeliveryIsTakenOverWhenItsLeaseEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint()
		item := w.fannedOut()
		// A worker claims and dies.
		_, err := w.store.Claim(t.Context(), delivery.Claim{
			Key:    delivery.Key{EndpointID: e.ID, EventID: item.EventID},
			Tenant: e.Tenant, EventType: "user.posted_comment", Accepted: time.Now(), ID: "dead worker",
			Now: time.Now(), Lease: endpoint.DefaultTimeout + dispatch.LeaseMargin,
		})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		d := w.run(item, time.Hour)
		if d.State != delivery.Delivered || d.Attempts != 2 || w.receiver.count() != 1 {
			t.Fatalf("delivery = %+v after %d requests", d, w.receiver.count())
		}
		if took := time.Since(began); took < endpoint.DefaultTimeout+dispatch.LeaseMargin || took > time.Minute {
			t.Errorf("taken over after %s", took)
		}
		if d.History[0].Class != delivery.Lost {
			t.Errorf("history = %+v, want the dead worker's attempt as lost", d.History)
		}
	})
}

func TestAnAttemptEndsBeforeItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.endpoint()
		item := w.fannedOut()
		var hung time.Duration
		w.receiver.answer = func(ctx context.Context, _ destination.Message) delivery.Outcome {
			began := time.Now()
			<-ctx.Done()
			hung = time.Since(began)
			return delivery.Outcome{Class: delivery.Timeout, Error: "no answer in time"}
		}
		w.deliver(item)
		if hung != endpoint.DefaultTimeout {
			t.Errorf("the attempt was cut after %s, want %s", hung, endpoint.DefaultTimeout)
		}
	})
}

func TestADeliveryWhoseWorkersAllDiedBecomesADeadLetter(t *testing.T) {
	for name, c := range map[string]struct{ maxAttempts, deaths int }{
		"as many as the policy allows": {2, 2},
		"eight in a row":               {0, 8},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				e := w.endpoint(func(e *endpoint.Endpoint) { e.Retry.MaxAttempts = c.maxAttempts })
				item := w.fannedOut()
				for i := range c.deaths {
					_, err := w.store.Claim(t.Context(), delivery.Claim{
						Key: delivery.Key{EndpointID: e.ID, EventID: item.EventID}, Tenant: e.Tenant, Accepted: time.Now(), Attempts: i,
						ID: fmt.Sprint("dead worker ", i), Now: time.Now(), Lease: time.Second,
					})
					if err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Second)
				}
				w.deliver(item)
				if d := w.delivery(item); d.State != delivery.Dead || w.receiver.count() != 0 {
					t.Errorf("state %s after %d requests, want dead without one", d.State, w.receiver.count())
				}
			})
		})
	}
}

func TestALimitThatWasLoweredSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *dispatch.Config) { c.CacheTime = 0 })
		e := w.endpoint()
		item := w.fannedOut()
		w.receiver.answer = answering(500)
		w.deliver(item)
		e.Retry.MaxAttempts = 1
		if _, err := w.store.UpdateEndpoint(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // until the retry is due
		w.deliver(w.queue.take()...)
		if d := w.delivery(item); d.State != delivery.Dead || !strings.Contains(d.Reason, "attempt 2 is over the endpoint's limit, which is 1 now") || w.receiver.count() != 1 {
			t.Errorf("%s (%s) after %d requests", d.State, d.Reason, w.receiver.count())
		}
	})
}

func TestGoneDisablesTheEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint()
		first, second := w.fannedOut(), w.fannedOut()
		w.receiver.answer = answering(410)
		w.deliver(first)
		if d := w.delivery(first); d.State != delivery.Dead {
			t.Errorf("the delivery that was answered 410 is %s", d.State)
		}
		after, err := w.store.GetEndpoint(t.Context(), e.Tenant, e.ID)
		if err != nil || after.Status != endpoint.Disabled || after.StatusReason == "" {
			t.Errorf("endpoint = %+v, %v; want disabled with a reason", after, err)
		}
		if got := w.statistics().Disabled; len(got) != 1 || got[0].ID != e.ID {
			t.Errorf("noted as disabled: %v", got)
		}
		w.deliver(second)
		if d := w.delivery(second); d.State != delivery.Skipped || w.receiver.count() != 1 {
			t.Errorf("the waiting delivery is %s after %d requests, want skipped after 1", d.State, w.receiver.count())
		}
	})
}

func TestDeliveriesOfADeletedEndpointAreSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint()
		waiting, retried := w.fannedOut(), w.fannedOut()
		w.receiver.answer = answering(500)
		w.deliver(retried)
		retry := w.queue.take()
		if err := w.store.RemoveEndpoint(t.Context(), e.Tenant, e.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(dispatch.CacheTime)
		if failed := w.deliver(append(retry, waiting)...); len(failed) != 0 {
			t.Errorf("not acknowledged: %v", failed)
		}
		for _, item := range []work.Item{waiting, retried} {
			if d := w.delivery(item); d.State != delivery.Skipped || !d.DueAt.IsZero() || d.Reason == "" {
				t.Errorf("delivery = %+v, want skipped with a reason and out of the due index", d)
			}
		}
	})
}

func TestSkippingIgnoresTheCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint()
		item := w.fannedOut()
		if err := w.store.DisableEndpoint(t.Context(), e.Tenant, e.ID, "by hand", time.Now()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(dispatch.CacheTime)
		w.fanOutNothing() // caches the endpoint as disabled
		e, err := w.store.GetEndpoint(t.Context(), e.Tenant, e.ID)
		if err != nil {
			t.Fatal(err)
		}
		e.Status, e.StatusReason = endpoint.Enabled, ""
		if _, err := w.store.UpdateEndpoint(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		w.deliver(item)
		if d := w.delivery(item); d.State != delivery.Delivered {
			t.Errorf("state = %s (%s)", d.State, d.Reason)
		}
	})
}

func (w *world) fanOutNothing() {
	w.t.Helper()
	before := w.queue.take()
	defer func() { w.queue.Send(w.t.Context(), before) }()
	_, record := w.event("user.posted_comment", comment)
	w.FanOut(w.t.Context(), []event.Change{record})
	if sent := w.queue.take(); len(sent) != 0 {
		w.t.Fatalf("queued %v", sent)
	}
}

func TestAFailingMessageDoesNotAffectItsBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.endpoint()
		good, poison := w.fannedOut(), w.fannedOut()
		w.receiver.answer = func(_ context.Context, m destination.Message) delivery.Outcome {
			if m.EventID == poison.EventID {
				panic("an adapter's bug")
			}
			return delivery.Outcome{Class: delivery.Success, Status: 200}
		}
		batch := []work.Message{
			{ID: "poison", Body: poison.Encode()}, {ID: "malformed", Body: "{"}, {ID: "good", Body: good.Encode()},
		}
		failed := w.Deliver(t.Context(), batch)
		if !slices.Equal(failed, []string{"poison", "malformed"}) {
			t.Errorf("failed = %v, want the poison and the malformed one", failed)
		}
		if d := w.delivery(good); d.State != delivery.Delivered {
			t.Errorf("the good one is %s", d.State)
		}
	})
}

func TestReplay(t *testing.T) {
	dead := func(w *world) work.Item {
		item := w.fannedOut()
		w.receiver.answer = func(context.Context, destination.Message) delivery.Outcome {
			return delivery.Outcome{Class: delivery.Blocked, Permanent: true, Error: "the address is not public"}
		}
		w.deliver(item)
		w.receiver.answer = nil
		if d := w.delivery(item); d.State != delivery.Dead {
			w.t.Fatalf("state = %s, want dead at once", d.State)
		}
		return item
	}
	command := func(item work.Item) dispatch.Command {
		return dispatch.Command{Action: "replay", EndpointID: item.EndpointID, EventID: item.EventID}
	}
	t.Run("a dead letter is sent again with its ID", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.endpoint()
			item := dead(w)
			if _, err := w.Replay(t.Context(), command(item)); err != nil {
				t.Fatal(err)
			}
			sent := w.queue.take()
			if len(sent) != 1 {
				t.Fatalf("queued %v", sent)
			}
			w.deliver(sent...)
			if d := w.delivery(item); d.State != delivery.Delivered || w.receiver.got[1].Headers[signature.HeaderID] != item.EventID {
				t.Errorf("delivery = %+v", d)
			}
		})
	})
	t.Run("attempts and age count from the replay", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.endpoint()
			item := dead(w)
			time.Sleep(100 * time.Hour)
			if _, err := w.Replay(t.Context(), command(item)); err != nil {
				t.Fatal(err)
			}
			w.receiver.answer = answering(500)
			w.deliver(w.queue.take()...)
			if d := w.delivery(item); d.State != delivery.Pending || d.CountedAttempts() != 1 {
				t.Errorf("after a failed replay: %s, round %d (%s)", d.State, d.CountedAttempts(), d.Reason)
			}
		})
	})
	t.Run("sweep queues a replay whose item was lost", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.endpoint()
			item := dead(w)
			w.queue.fail = func(work.Item) error { return errors.New("down") }
			if _, err := w.Replay(t.Context(), command(item)); err != nil {
				t.Fatal(err)
			}
			w.queue.fail = nil
			time.Sleep(dispatch.Backstop)
			if _, err := w.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			if sent := w.queue.take(); len(sent) != 1 {
				t.Errorf("swept %v", sent)
			}
		})
	})
	t.Run("errors", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			e := w.endpoint()
			item := w.fannedOut()
			w.receiver.answer = answering(500)
			w.deliver(item)
			for name, c := range map[string]dispatch.Command{
				"a pending delivery":    command(item),
				"an unknown delivery":   {EndpointID: e.ID, EventID: event.NewID(time.Now())},
				"an unknown endpoint":   {EndpointID: "ep_nobody", EventID: item.EventID},
				"a command without IDs": {},
			} {
				if _, err := w.Replay(t.Context(), c); err == nil {
					t.Errorf("%s: no error", name)
				}
			}
			if err := w.store.DisableEndpoint(t.Context(), e.Tenant, e.ID, "by hand", time.Now()); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Replay(t.Context(), command(item)); err == nil {
				t.Error("a disabled endpoint: no error")
			}
		})
	})
}

// statistics reads the statistics.
func (w *world) statistics() stats.Summary {
	w.t.Helper()
	s, err := (&stats.Reader{Source: w.store, Now: time.Now}).Summary(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func TestStatisticsCountWhatHappened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint(func(e *endpoint.Endpoint) { e.Retry.MaxAttempts = 2 })
		accepted := time.Now()
		first, second, third := w.fannedOut(), w.fannedOut(), w.fannedOut()
		time.Sleep(3 * time.Second)
		w.deliver(first)
		w.receiver.answer = answering(503)
		w.deliver(second)
		w.deliver(second) // refused: it is not time yet
		w.queue.take()
		time.Sleep(10 * time.Second)
		second.Attempts = 1
		w.deliver(second)
		if err := w.store.DisableEndpoint(t.Context(), e.Tenant, e.ID, "enough", time.Now()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(dispatch.CacheTime)
		last := time.Now()
		w.deliver(third)
		s := w.statistics()
		want := stats.Counts{Accepted: 3, Queued: 3, Attempts: 3, Delivered: 1, Failed: 2, Retried: 1, Dead: 1, Skipped: 1}
		want.Latency.Count(3 * time.Second)
		if s.Hour != want || s.Day != want {
			t.Errorf("counted\n%+v, want\n%+v", s.Hour, want)
		}
		if !s.LastBatch.Equal(last) || s.LastEvent.Before(accepted.Truncate(time.Millisecond)) || s.LastEvent.After(accepted.Add(time.Second)) {
			t.Errorf("last batch %s, want %s; last event %s, want %s", s.LastBatch, last, s.LastEvent, accepted)
		}
	})
}

func TestASweepStoresItsFigures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.endpoint()
		w.receiver.answer = lost
		for range 30 {
			w.deliver(w.fannedOut())
			w.queue.take()
		}
		sweep := func() stats.Sweep {
			t.Helper()
			if _, err := w.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			s := w.statistics().Sweep
			if !s.At.Equal(time.Now()) || !s.Done {
				t.Fatalf("noted %+v at %s", s, time.Now())
			}
			return s
		}
		if s := sweep(); s.Retrying != 30 || s.Overdue != 0 || s.Due != 0 || s.More {
			t.Errorf("at once: %+v, want 30 that retry and none due", s)
		}
		due := time.Now().Add(2*time.Second + dispatch.Backstop)
		time.Sleep(dispatch.Backstop + time.Minute)
		if s := sweep(); s.Retrying != 30 || s.Overdue != 30 || s.Due != 30 || s.Queued != 30 || s.OldestDue.Sub(due).Abs() > time.Second {
			t.Errorf("a minute late: %+v, want 30 overdue since %s", s, due)
		}
		if s := sweep(); s.Retrying != 30 || s.Overdue != 0 || !s.OldestDue.IsZero() {
			t.Errorf("after it: %+v, want none overdue", s)
		}
	})
}

// deaf is a store that cannot store statistics.
type deaf struct{ calls int }

func (d *deaf) AddStatistics(context.Context, stats.Batch) error {
	d.calls++
	return errors.New("the table is away")
}
func (d *deaf) NoteSweep(context.Context, stats.Sweep) error { return errors.New("the table is away") }

func TestDeliveriesDoNotDependOnStatistics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &deaf{}
		w := newWorld(t, func(c *dispatch.Config) { c.Statistics = d })
		w.endpoint()
		items := []work.Item{w.fannedOut(), w.fannedOut()}
		before := d.calls
		if failed := w.deliver(items...); failed != nil {
			t.Errorf("failed: %v", failed)
		}
		for _, item := range items {
			if got := w.delivery(item); got.State != delivery.Delivered {
				t.Errorf("state = %s", got.State)
			}
		}
		if d.calls != before+1 {
			t.Errorf("%d writes for one batch of two deliveries, want 1", d.calls-before)
		}
		if _, err := w.Sweep(t.Context()); err != nil {
			t.Errorf("sweep: %v", err)
		}
	})
}

func TestARepeatedRecordIsCountedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.endpoint()
		_, one := w.event("user.posted_comment", `{"discussion_id":"d_1","comment_id":"c_1","comment_text":"x"}`)
		stored, two := w.event("user.posted_comment", `{"discussion_id":"d_1","comment_id":"c_2","comment_text":"x"}`)
		w.queue.fail = func(i work.Item) error {
			if i.EventID == stored.ID {
				return errors.New("no")
			}
			return nil
		}
		w.FanOut(t.Context(), []event.Change{one, two})
		w.queue.fail = nil
		w.FanOut(t.Context(), []event.Change{two})
		if s := w.statistics(); s.Hour.Accepted != 2 || s.Hour.Queued != 2 {
			t.Errorf("%d accepted, %d queued; want 2 and 2", s.Hour.Accepted, s.Hour.Queued)
		}
	})
}
