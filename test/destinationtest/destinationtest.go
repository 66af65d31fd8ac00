// Package destinationtest is the conformance suite for destination adapters, with
// helpers for their tests. Each adapter passes it against an in-process broker in the
// default tests, and against a real one in `make test-brokers`. It compares what a
// consumer receives, and verifies signatures with the official Standard Webhooks
// library.
package destinationtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/signature"
)

// Received is a message as a consumer receives it.
type Received struct {
	Body []byte
	// Attributes by lower-case name. They must include destination.Message.Attributes,
	// or its Headers if RoutedByBody is set.
	Attributes map[string]string
	// Key is the partition key, ordering key or message group, if there is one.
	Key string
}

// Destination is a new destination for one test. Its gate may be reused and is open.
type Destination struct {
	Kind   destination.Kind
	Target destination.Target
	// Missing is a target whose queue or topic does not exist. Its URL is empty if the
	// protocol does not report that.
	Missing destination.Target
	Gate    *Gate // all connections pass through it
	// Receive waits for the next message and removes it.
	Receive func(ctx context.Context) (Received, error)
	// Keyed means that Received.Key must be the message's subject.
	Keyed bool
	// RoutedByBody means that only the message's headers are sent besides the body.
	RoutedByBody bool
	// ValueOnly means that the protocol carries the body as a JSON value, whose bytes may be
	// others, and no headers: what arrives has the event type as its only attribute.
	ValueOnly bool
	// CloudEventPrefix is what the names of a CloudEvent's context attributes begin with in
	// binary mode. Empty: the Kind refuses the format cloudevents-binary.
	CloudEventPrefix string
	// TooLarge is the size in bytes of a body that the destination rejects; 0 for none.
	TooLarge int
	// Connections is the maximum number of connections for 200 concurrent deliveries;
	// 0 if the server closes each connection after one request.
	Connections int64
	// Within is the maximum duration of a delivery over an open connection; 0 for none.
	Within time.Duration
	// Clock is the clock of the Kind.
	Clock *Clock
}

// Clock is a clock that can be set ahead. The zero value shows the real time.
type Clock struct{ ahead atomic.Int64 }

// Now returns the time.
func (c *Clock) Now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// Pass lets time pass.
func (c *Clock) Pass(d time.Duration) { c.ahead.Add(int64(d)) }

const patience = 20 * time.Second

// Run runs the suite. It calls open for each test.
func Run(t *testing.T, open func(t *testing.T) Destination) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *suite)
	}{
		{"a message arrives unchanged and signed", arrives},
		{"a CloudEvent arrives in structured and in binary mode", cloudEvent},
		{"an attempt is fast and reports its duration", timely},
		{"a body that is too large fails permanently", tooLarge},
		{"a missing destination fails permanently", missing},
		{"a failure of an unreachable destination is not permanent", downThenBack},
		{"an attempt ends with its context", cancelled},
		{"200 concurrent deliveries use a bounded number of connections", concurrent},
		{"a warm adapter reuses its connections", warm},
		{"connections that idled over a freeze are not used again", frozen},
		{"Close leaves no goroutines", leaks},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := open(t)
			w := &suite{Destination: d, router: destination.NewRouter(10, d.Kind), secret: signature.NewSecret()}
			w.close = sync.OnceValue(w.router.Close)
			t.Cleanup(func() {
				if err := w.close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
			test.run(t, w)
		})
	}
}

// CheckURL checks that a router accepts a target, if want is empty, or refuses it with an error
// that contains want and the form of the URL. No error may repeat the password hunter2.
func CheckURL(t *testing.T, r *destination.Router, target destination.Target, want, form string) {
	t.Helper()
	err := r.Check(target)
	if want == "" {
		if err != nil {
			t.Error(err)
		}
		return
	}
	if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), form) {
		t.Errorf("error = %v, want it to say %q and show the form", err, want)
	}
	if err != nil && strings.Contains(err.Error(), "hunter2") {
		t.Error("the error repeats the password")
	}
}

// suite is one test's destination and router.
type suite struct {
	Destination
	router *destination.Router
	close  func() error
	secret signature.Secret
}

func (w *suite) message(text string) destination.Message { return Message(w.secret, text) }

// Message returns a signed message with characters that encoders may change.
func Message(secret signature.Secret, text string) destination.Message {
	now := time.Now()
	id := event.NewID(now)
	body := []byte(`{"id":"` + id + `","data":{"text":"` + text + ` <&> Grüße 🎉  \u2028 1e21","a":1, "a":2}}` + "\n")
	return destination.Message{
		EventID: id, EventType: "user.posted_comment", Subject: "discussion d1/ä", Body: body,
		Headers: map[string]string{
			signature.HeaderID:        id,
			signature.HeaderTimestamp: strconv.FormatInt(now.Unix(), 10),
			signature.HeaderSignature: signature.Sign([]signature.Secret{secret}, id, now, body),
			"idempotency-key":         "order 66/ü",
		},
	}
}

func (w *suite) deliver(t *testing.T, target destination.Target, m destination.Message) delivery.Outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return w.router.Deliver(ctx, target, m)
}

// delivered delivers a message and requires success.
func (w *suite) delivered(t *testing.T, m destination.Message) delivery.Outcome {
	t.Helper()
	o := w.deliver(t, w.Target, m)
	if o.Class != delivery.Success || o.Permanent || o.Error != "" {
		t.Fatalf("outcome = %+v, want success", o)
	}
	return o
}

func (w *suite) receive(t *testing.T) Received {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	got, err := w.Receive(ctx)
	if err != nil {
		t.Fatalf("receive: %v", err)
	}
	return got
}

// key is a body as the protocol carries it.
func (w *suite) key(t *testing.T, body []byte) string {
	t.Helper()
	if !w.ValueOnly {
		return string(body)
	}
	var value any
	if err := json.Unmarshal(body, &value); err != nil {
		t.Fatalf("body %q: %v", body, err)
	}
	text, err := json.Marshal(value) // in the order of the keys
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// checkValue checks what arrived where ValueOnly is set.
func (w *suite) checkValue(t *testing.T, m destination.Message, got Received) {
	t.Helper()
	if have, want := w.key(t, got.Body), w.key(t, m.Body); have != want {
		t.Errorf("body = %s, want %s", have, want)
	}
	if diff := cmp.Diff(map[string]string{destination.AttributeEventType: m.EventType}, got.Attributes); diff != "" {
		t.Errorf("attributes (-sent +received):\n%s", diff)
	}
}

func arrives(t *testing.T, w *suite) {
	m := w.message("hello")
	w.delivered(t, m)
	got := w.receive(t)
	if w.ValueOnly {
		w.checkValue(t, m, got)
		return
	}
	want := m.Attributes("")
	if w.RoutedByBody {
		want = m.Headers
	}
	CheckReceived(t, w.secret, m, want, got)
	if w.Keyed && got.Key != m.Subject {
		t.Errorf("key = %q, want the subject %q", got.Key, m.Subject)
	}
}

// The names and values are those of the protocol bindings of CloudEvents 1.0.2.
func cloudEvent(t *testing.T, w *suite) {
	now := time.Now().Truncate(time.Millisecond)
	e := event.Event{ID: event.NewID(now), Type: "user.posted_comment", Timestamp: now, ActorUserID: "u_1/ü %", Data: []byte(`{"comment_id":"k","text":"<&> ü"}`), IdempotencyKey: "k"}
	body, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []endpoint.Format{endpoint.FormatCloudEvents, endpoint.FormatCloudEventsBinary} {
		binary := format == endpoint.FormatCloudEventsBinary
		target := w.Target
		target.Format = format
		if err := w.router.Check(target); err != nil {
			if binary && w.CloudEventPrefix == "" {
				continue
			}
			t.Fatal(err)
		}
		ep := endpoint.Endpoint{Tenant: "acme", Secrets: []endpoint.SigningSecret{{Secret: w.secret}}, Shape: endpoint.Shape{Format: format}}
		m, err := destination.Compose(ep, e, event.Accepted{ID: e.ID, Tenant: "acme", Body: body, Subject: "d_1"}, "", now)
		if err != nil {
			t.Fatal(err)
		}
		if o := w.deliver(t, target, m); o.Class != delivery.Success {
			t.Fatalf("%s: %+v", format, o)
		}
		got := w.receive(t)
		if w.ValueOnly {
			w.checkValue(t, m, got)
			continue
		}
		want := maps.Clone(m.Headers)
		want["content-type"] = map[bool]string{true: "application/json", false: "application/cloudevents+json"}[binary]
		if binary {
			actor := e.ActorUserID
			if w.RoutedByBody { // headers of HTTP are ASCII
				actor = "u_1/%C3%BC%20%25"
			}
			for name, value := range map[string]string{
				"specversion": "1.0", "id": e.ID, "source": "/tidings/acme", "type": e.Type, "subject": "d_1",
				"time": now.UTC().Format("2006-01-02T15:04:05.000Z"), "actoruserid": actor, "idempotencykey": "k",
			} {
				want[w.CloudEventPrefix+name] = value
			}
		}
		CheckReceived(t, w.secret, m, want, got)
		if binary != bytes.Equal(got.Body, e.Data) {
			t.Errorf("%s: body %s", format, got.Body)
		}
	}
}

// CheckReceived checks that a message was received unchanged, with these attributes, and
// that the official library verifies its signature.
func CheckReceived(t *testing.T, secret signature.Secret, m destination.Message, want map[string]string, got Received) {
	t.Helper()
	if !bytes.Equal(got.Body, m.Body) {
		t.Errorf("body = %q, want %q", got.Body, m.Body)
	}
	have := map[string]string{}
	for name := range want {
		have[name] = got.Attributes[name]
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("attributes (-sent +received):\n%s", diff)
	}
	verifier, err := standardwebhooks.NewWebhook(secret.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	headers := http.Header{}
	for name, value := range got.Attributes {
		headers.Set(name, value)
	}
	if err := verifier.Verify(got.Body, headers); err != nil {
		t.Errorf("the official library rejects the signature: %v", err)
	}
}

func timely(t *testing.T, w *suite) {
	w.delivered(t, w.message("cold"))
	// A client that waits for something makes every delivery slow; a busy machine does not.
	const tries = 20
	fastest := patience
	for i, first := 0, time.Now(); i < tries || w.Within > 0 && fastest > w.Within && time.Since(first) < patience; i++ {
		began := time.Now()
		o := w.delivered(t, w.message(fmt.Sprint("warm ", i)))
		took := time.Since(began)
		fastest = min(fastest, took)
		if o.Timings.Total <= 0 || o.Timings.Total > took {
			t.Errorf("Timings.Total = %s, measured %s", o.Timings.Total, took)
		}
	}
	t.Logf("fastest warm delivery: %s", fastest)
	if w.Within > 0 && fastest > w.Within {
		t.Errorf("the fastest warm delivery took %s, want at most %s", fastest, w.Within)
	}
}

func tooLarge(t *testing.T, w *suite) {
	if w.TooLarge == 0 {
		t.Skip("the destination has no size limit")
	}
	m := w.message(strings.Repeat("x", w.TooLarge))
	w.permanent(t, w.Target, m, delivery.TooLarge)
	// Other messages are not affected.
	w.delivered(t, w.message("hello"))
}

func missing(t *testing.T, w *suite) {
	if w.Missing.URL == "" {
		t.Skip("the protocol does not report missing destinations")
	}
	w.permanent(t, w.Missing, w.message("hello"), delivery.Missing)
}

// permanent delivers a message and requires a permanent failure with an explanation.
func (w *suite) permanent(t *testing.T, target destination.Target, m destination.Message, class delivery.Class) {
	t.Helper()
	o := w.deliver(t, target, m)
	if o.Class != class || !o.Permanent {
		t.Errorf("outcome = %+v, want %s, permanent", o, class)
	}
	if len(o.Error) < 20 || strings.Contains(o.Error, w.secret.Reveal()) {
		t.Errorf("error = %q, want an explanation without the secret", o.Error)
	}
}

func downThenBack(t *testing.T, w *suite) {
	w.delivered(t, w.message("before"))
	w.Gate.Down()
	for i := range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		o := w.router.Deliver(ctx, w.Target, w.message("while down"))
		cancel()
		if o.Class == delivery.Success || o.Permanent || o.Error == "" {
			t.Errorf("attempt %d while down: %+v, want a failure that is not permanent", i+1, o)
		}
	}
	w.Gate.Up()
	// Clients may delay their reconnect, so the delivery is retried.
	m := w.message("after")
	for began := time.Now(); ; {
		o := w.deliver(t, w.Target, m)
		if o.Class == delivery.Success {
			break
		}
		if o.Permanent || time.Since(began) > patience {
			t.Fatalf("after Up: %+v", o)
		}
	}
	for {
		if got := w.receive(t); w.key(t, got.Body) == w.key(t, m.Body) {
			return
		}
	}
}

func cancelled(t *testing.T, w *suite) {
	w.delivered(t, w.message("warm"))
	w.Gate.Freeze()
	const limit = 300 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	began := time.Now()
	o := w.router.Deliver(ctx, w.Target, w.message("hello"))
	if took := time.Since(began); took < limit/2 || took > patience {
		t.Errorf("returned after %s, the context ended after %s", took, limit)
	}
	if o.Class != delivery.Timeout || o.Permanent || o.Error == "" {
		t.Errorf("outcome = %+v, want a timeout that is not permanent", o)
	}
	w.Gate.Down() // closes the frozen connections
}

func concurrent(t *testing.T, w *suite) {
	const n = 200
	before := w.Gate.Accepted()
	sent := map[string]bool{}
	var all sync.WaitGroup
	failed := make(chan string, n)
	for i := range n {
		m := w.message(fmt.Sprint("number ", i))
		sent[w.key(t, m.Body)] = true
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if o := w.router.Deliver(ctx, w.Target, m); o.Class != delivery.Success {
				failed <- fmt.Sprintf("%+v", o)
			}
		})
	}
	all.Wait()
	close(failed)
	for o := range failed {
		t.Fatalf("one of %d deliveries: %s", n, o)
	}
	// A connection may break and be replaced. Without a limit there would be one for each.
	if made, limit := w.Gate.Accepted()-before, w.Connections+n/10; w.Connections > 0 && made > limit {
		t.Errorf("%d connections for %d concurrent deliveries, want about %d at most", made, n, w.Connections)
	}
	for range n {
		got := w.receive(t)
		if !sent[w.key(t, got.Body)] {
			t.Errorf("received an unknown or duplicate message: %q", got.Body)
		}
		delete(sent, w.key(t, got.Body))
	}
	if len(sent) > 0 {
		t.Errorf("%d of %d did not arrive", len(sent), n)
	}
}

// together makes n deliveries at once, so that several connections are open.
func (w *suite) together(t *testing.T, n int, text string) {
	t.Helper()
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			if o := w.deliver(t, w.Target, w.message(text)); o.Class != delivery.Success {
				t.Errorf("outcome = %+v", o)
			}
		})
	}
	all.Wait()
}

func warm(t *testing.T, w *suite) {
	if w.Connections == 0 {
		t.Skip("the server closes each connection after one request")
	}
	// Concurrent deliveries open several connections. A sequential client may need a
	// second one, if it returns before its connection is idle again.
	w.together(t, 8, "warming")
	// Reconnects are allowed, but not one connection per request: a busy machine can be too
	// slow for a client to see that its connection can be used again.
	const requests, limit = 50, 25
	before := w.Gate.Accepted()
	for i := range requests {
		w.delivered(t, w.message(fmt.Sprint("number ", i)))
	}
	if made := w.Gate.Accepted() - before; made > limit {
		t.Errorf("%d deliveries through a warm adapter made %d connections, want at most %d", requests, made, limit)
	}
}

// frozen: a function is frozen between invocations, so that no timer and no keep-alive of
// its clients runs, and the network drops its idle connections meanwhile.
func frozen(t *testing.T, w *suite) {
	w.together(t, 4, "before the freeze")
	w.Gate.Drop()
	w.Clock.Pass(6 * time.Minute)
	for i := range 3 {
		w.delivered(t, w.message(fmt.Sprint("after the freeze ", i)))
	}
}

func leaks(t *testing.T, w *suite) {
	open := runtime.NumGoroutine()
	for i := range 20 {
		target := w.Target
		target.ID = fmt.Sprint("endpoint ", i) // more than the router's limit
		if o := w.deliver(t, target, w.message("hello")); o.Class != delivery.Success {
			t.Fatalf("outcome = %+v", o)
		}
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	// The servers' goroutines end when they notice the closed connections.
	for began := time.Now(); runtime.NumGoroutine() > open; time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > patience {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d more goroutines than before the first delivery:\n%s", runtime.NumGoroutine()-open, stacks[:runtime.Stack(stacks, true)])
		}
	}
}
