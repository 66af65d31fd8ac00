package local_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/receiver"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// world is a running system with a receiver.
type world struct {
	*local.System
	t        *testing.T
	receiver *receiver.Receiver
	url      string
	secret   signature.Secret
	arrived  chan receiver.Webhook
	stop     func()
}

// newWorld starts a system whose triggers with these names are paused.
func newWorld(t *testing.T, o local.Options, b receiver.Behaviour, paused ...string) *world {
	t.Helper()
	w := &world{t: t, receiver: receiver.New(1, b), secret: signature.NewSecret(), arrived: make(chan receiver.Webhook, 10_000)}
	w.receiver.Secrets = func() []string { return []string{w.secret.Reveal()} }
	w.receiver.OnWebhook = func(h receiver.Webhook) { w.arrived <- h }
	server := httptest.NewServer(w.receiver)
	t.Cleanup(server.Close)
	w.url = server.URL + "/"
	w.start(o, paused...)
	return w
}

func (w *world) start(o local.Options, paused ...string) {
	w.t.Helper()
	o.Template = filepath.Join("..", "..", "template.yaml")
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	system, err := local.Open(w.t.Context(), o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.System = system
	for _, trigger := range paused {
		system.Pause(trigger)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- system.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
		system.Close()
	})
	w.t.Cleanup(w.stop)
}

func (w *world) endpoint(url string) endpoint.Endpoint {
	w.t.Helper()
	now := time.Now()
	e := endpoint.Endpoint{
		Tenant: event.DefaultTenant, ID: endpoint.NewID(now), URL: url, EventTypes: []string{"*"}, Status: endpoint.Enabled, Version: 1,
		Secrets: []endpoint.SigningSecret{{Secret: w.secret}}, CreatedAt: now, UpdatedAt: now,
	}
	if err := w.Store.AddEndpoint(w.t.Context(), e); err != nil {
		w.t.Fatal(err)
	}
	return e
}

func (w *world) emit(r any) []emit.Result {
	w.t.Helper()
	body, err := json.Marshal(r)
	if err != nil {
		w.t.Fatal(err)
	}
	response, err := http.Post(w.URLs["emit"], "application/json", bytes.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusAccepted {
		w.t.Fatalf("emit answered %d", response.StatusCode)
	}
	var many struct {
		emit.Result
		Results []emit.Result
	}
	if err := json.NewDecoder(response.Body).Decode(&many); err != nil {
		w.t.Fatal(err)
	}
	if many.ID != "" {
		return []emit.Result{many.Result}
	}
	return many.Results
}

// patience is how long a test waits for what comes in a second or two, however busy the
// machine is.
const patience = 2 * time.Minute

// next waits for the receiver's next request.
func (w *world) next() receiver.Webhook {
	w.t.Helper()
	select {
	case h := <-w.arrived:
		return h
	case <-time.After(patience):
		w.t.Fatal("no request in time")
		return receiver.Webhook{}
	}
}

// settled waits until the delivery is delivered, dead or skipped.
func (w *world) settled(k delivery.Key) delivery.Delivery {
	w.t.Helper()
	for end := time.Now().Add(patience); ; {
		d, err := w.Store.GetDelivery(w.t.Context(), k)
		if err == nil && d.State.Settled() {
			return d
		}
		if time.Now().After(end) {
			w.t.Fatalf("delivery %s is not settled: %+v, %v", k, d, err)
		}
		runtime.Gosched()
	}
}

func request(t *testing.T, eventType string) emit.Request {
	t.Helper()
	kind, ok := catalog.Default().Type(eventType)
	if !ok {
		t.Fatalf("no type %s", eventType)
	}
	return emit.Request{Event: eventType, ActorUserID: "u_1", Data: kind.Samples[0]}
}

func TestEveryEventTypeArrivesVerified(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]local.Options{"on DynamoDB": {}, "in memory": {Memory: true}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, o, receiver.Behaviour{})
			e := w.endpoint(w.url)
			for _, name := range catalog.Default().Types() {
				id := w.emit(request(t, name))[0].ID
				got := w.next()
				if !got.Verified || got.ID != id || got.Type != name {
					t.Errorf("%s arrived as %+v", name, got)
				}
				if d := w.settled(delivery.Key{EndpointID: e.ID, EventID: id}); d.State != delivery.Delivered || d.EventType != name || d.History[0].Timings.Total < 0 {
					t.Errorf("%s ended as %+v", name, d)
				}
			}
		})
	}
}

// An event costs 3 write units and at most 1 read unit, and 2 write units for each
// further endpoint. Statistics cost 1 write unit per batch, in the Control table; nothing
// else writes there in this test.
func TestUnitsOfOneEvent(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 2 s")
	}
	t.Parallel()
	for _, fan := range []int{1, 3} {
		t.Run(fmt.Sprint(fan, " endpoints"), func(t *testing.T) {
			var mu sync.Mutex
			var writes, reads, statistics float64
			// Schedules fire at the start, and read and write too.
			w := newWorld(t, local.Options{Meter: func(write bool, c types.ConsumedCapacity) {
				mu.Lock()
				defer mu.Unlock()
				if write && strings.HasSuffix(aws.ToString(c.TableName), "-"+dynamoitem.Control) {
					statistics += aws.ToFloat64(c.CapacityUnits)
				} else if write {
					writes += aws.ToFloat64(c.CapacityUnits)
				} else {
					reads += aws.ToFloat64(c.CapacityUnits)
				}
			}}, receiver.Behaviour{}, "sweep", "alerts", "close-discussions")
			var ids []string
			for i := range fan {
				ids = append(ids, w.endpoint(fmt.Sprint(w.url, i)).ID)
			}
			one := func() {
				event := w.emit(request(t, "user.joined_community"))[0].ID
				for _, id := range ids {
					w.settled(delivery.Key{EndpointID: id, EventID: event})
				}
			}
			want := float64(3 + 2*(fan-1) + 1) // the last for the journal, as the event comes alone
			// A write is visible in the table shortly before its units are counted.
			counted := func(n float64) {
				t.Helper()
				for end := time.Now().Add(patience); ; runtime.Gosched() {
					mu.Lock()
					enough := writes >= n
					mu.Unlock()
					if enough {
						return
					}
					if time.Now().After(end) {
						t.Fatalf("%.2f write units, want %g", writes, n)
					}
				}
			}
			one()
			counted(want)
			mu.Lock()
			writes, reads, statistics = 0, 0, 0
			mu.Unlock()
			const n = 10
			for range n {
				one()
			}
			counted(want * n)
			mu.Lock()
			defer mu.Unlock()
			if writes/n != want {
				t.Errorf("%.2f write units an event, want %g", writes/n, want)
			}
			// One event at a time gives the smallest batches: one of the stream and one per
			// endpoint of the queue.
			if most := float64(1 + fan); statistics == 0 || statistics > (n+1)*most {
				t.Errorf("%.2f write units an event for statistics, want at most %g, one a batch", statistics/n, most)
			}
			// Each endpoint's worker reads the event for half a unit. Reads of the endpoint
			// list are cached.
			if most := 0.5 + 0.5*float64(fan); reads/n > most {
				t.Errorf("%.2f read units an event, want at most %g", reads/n, most)
			}
		})
	}
}

func TestFailedDeliveriesAreRetriedUntilTheySucceed(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 2 s")
	}
	t.Parallel()
	w := newWorld(t, local.Options{Memory: true}, receiver.Behaviour{FailRate: 1, FailStatus: 503, RetryAfter: "1"})
	e := w.endpoint(w.url)
	id := w.emit(request(t, "user.posted_comment"))[0].ID
	first := w.next()
	w.receiver.SetBehaviour(receiver.Behaviour{})
	second := w.next()
	// 2 s with up to 25 % less jitter, and not only when the sweep comes, a minute later.
	if waited := second.Began.Sub(first.Began); waited < 1500*time.Millisecond || waited > 40*time.Second {
		t.Errorf("retried after %s", waited)
	}
	d := w.settled(delivery.Key{EndpointID: e.ID, EventID: id})
	if d.State != delivery.Delivered || d.Attempts != 2 || second.ID != id || first.Status != 503 {
		t.Errorf("delivery = %+v", d)
	}
	if c := w.receiver.Counts(); c.Overlaps != 0 || c.Duplicates != 0 || c.Unverified != 0 {
		t.Errorf("counts = %+v", c)
	}
}

func TestARestartedRunnerResumesDeliveries(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := newWorld(t, local.Options{StateDir: dir}, receiver.Behaviour{FailRate: 1})
	e := w.endpoint(w.url)
	id := w.emit(request(t, "user.posted_comment"))[0].ID
	w.next()
	w.stop()
	w.receiver.SetBehaviour(receiver.Behaviour{})
	w.start(local.Options{StateDir: dir})
	if d := w.settled(delivery.Key{EndpointID: e.ID, EventID: id}); d.State != delivery.Delivered {
		t.Errorf("delivery = %+v", d)
	}
}

func TestTwoRunnersCannotShareAStateDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	newWorld(t, local.Options{StateDir: dir, Memory: true}, receiver.Behaviour{})
	_, err := local.Open(t.Context(), local.Options{Template: filepath.Join("..", "..", "template.yaml"), StateDir: dir, Memory: true, Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "another runner") {
		t.Errorf("opened: %v", err)
	}
}

func TestTheLogContainsNoSecretAndNoPayload(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var log bytes.Buffer
	handler := slog.NewJSONHandler(writer(func(b []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return log.Write(b)
	}), &slog.HandlerOptions{Level: slog.LevelDebug})
	w := newWorld(t, local.Options{Memory: true, Log: slog.New(handler)}, receiver.Behaviour{})
	good := w.endpoint(w.url + "path-secret?token=query-secret")
	bad := w.endpoint("http://127.0.0.1:1/path-secret?token=query-secret")
	r := emit.Request{Event: "user.posted_comment", Data: json.RawMessage(`{"discussion_id":"d","comment_id":"c","comment_text":"payload-secret"}`)}
	id := w.emit(r)[0].ID
	w.settled(delivery.Key{EndpointID: good.ID, EventID: id})
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if d, err := w.Store.GetDelivery(t.Context(), delivery.Key{EndpointID: bad.ID, EventID: id}); err == nil && d.State == delivery.Pending {
			break
		}
		runtime.Gosched()
	}
	response, err := http.Post(w.URLs["emit"], "application/json", strings.NewReader(`{"event":"user.joined_platform","data":{"email":"payload-secret"}}`))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	w.stop()
	mu.Lock()
	defer mu.Unlock()
	text := log.String()
	if !strings.Contains(text, "delivery.attempted") || !strings.Contains(text, "event.refused") {
		t.Fatalf("the log does not contain the expected entries:\n%s", text)
	}
	for _, secret := range []string{"payload-secret", "path-secret", "query-secret", w.secret.Reveal(), strings.TrimPrefix(w.secret.Reveal(), "whsec_")} {
		if strings.Contains(text, secret) {
			t.Errorf("the log contains %q", secret)
		}
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }
