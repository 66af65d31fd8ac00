// Package destinationtest is the conformance suite of adapters: what a protocol has
// to do before it may carry somebody's events. Each adapter passes it against an
// in-process broker in the default tests, and against the real one in
// `make test-brokers`. It promises to judge from the receiving side: what it
// compares is what the broker hands out, and signatures are verified by the
// official Standard Webhooks library.
package destinationtest

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/signature"
)

// Received is a message as the destination's owner reads it.
type Received struct {
	Body []byte
	// Attributes by lower-case name: those of adapter.Message.Attributes, or of
	// its Headers where the protocol's consumers route by the body. More may be there.
	Attributes map[string]string
	// Key is what order is kept by: partition key, ordering key, message group.
	// Empty where the protocol has none.
	Key string
}

// Destination is one destination of the adapter's kind, fresh for one test; its
// gate may have served tests before, and is open.
type Destination struct {
	Kind   destination.Kind
	Target destination.Target
	// Missing is a target whose queue or topic does not exist; its URL is "" for
	// a protocol that can't tell.
	Missing destination.Target
	// Gate is what all connections to the destination pass.
	Gate *Gate
	// Receive waits for the next message and takes it.
	Receive func(ctx context.Context) (Received, error)
	// Keyed says that Received.Key must be the message's subject.
	Keyed bool
	// RoutedByBody says that consumers get the headers alone beside the body.
	RoutedByBody bool
	// TooLarge is the size of a body that the destination refuses; 0 if none.
	TooLarge int
	// Connections is how many connections 200 deliveries at once may need; 0 for
	// a stand-in that ends each connection after one request.
	Connections int64
	// Within is how long a delivery to a warm destination may take; 0 for no limit.
	Within time.Duration
}

const patience = 20 * time.Second

// Run runs the suite. open makes a fresh destination for each test of it.
func Run(t *testing.T, open func(t *testing.T) Destination) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *suite)
	}{
		{"a message arrives as it is, signed", arrives},
		{"an attempt is reported with its time, and takes little of it", timely},
		{"a body that is too large is dead at once", tooLarge},
		{"a destination that does not exist is dead at once", missing},
		{"a destination that is down is retried, and served when it is back", downThenBack},
		{"an attempt ends with its context", cancelled},
		{"200 deliveries at once arrive, over a bounded number of connections", concurrent},
		{"a warm adapter reuses its connections", warm},
		{"nothing is left behind after Close", leaks},
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

// world is one test's destination with the adapters before it.
type suite struct {
	Destination
	router *destination.Router
	close  func() error
	secret signature.Secret
}

// message is a signed message with all that encodings get wrong.
func (w *suite) message(text string) destination.Message {
	now := time.Now()
	id := event.NewID(now)
	body := []byte(`{"id":"` + id + `","data":{"text":"` + text + ` <&> Grüße 🎉  \u2028 1e21","a":1, "a":2}}` + "\n")
	return destination.Message{
		EventID: id, EventType: "user.posted_comment", Subject: "discussion d1/ä", Body: body,
		Headers: map[string]string{
			signature.HeaderID:        id,
			signature.HeaderTimestamp: strconv.FormatInt(now.Unix(), 10),
			signature.HeaderSignature: signature.Sign([]signature.Secret{w.secret}, id, now, body),
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

// delivered delivers a message that must arrive.
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

func arrives(t *testing.T, w *suite) {
	m := w.message("hello")
	w.delivered(t, m)
	got := w.receive(t)
	if !bytes.Equal(got.Body, m.Body) {
		t.Errorf("body = %q, want %q", got.Body, m.Body)
	}
	want := m.Attributes()
	if w.RoutedByBody {
		want = m.Headers
	}
	have := map[string]string{}
	for name := range want {
		have[name] = got.Attributes[name]
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("attributes (-sent +received):\n%s", diff)
	}
	if w.Keyed && got.Key != m.Subject {
		t.Errorf("key = %q, want the subject %q", got.Key, m.Subject)
	}
	// The judge is the official library, with what the broker handed out.
	judge, err := standardwebhooks.NewWebhook(w.secret.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	headers := http.Header{}
	for name, value := range got.Attributes {
		headers.Set(name, value)
	}
	if err := judge.Verify(got.Body, headers); err != nil {
		t.Errorf("the official library: %v", err)
	}
}

func timely(t *testing.T, w *suite) {
	w.delivered(t, w.message("cold"))
	const tries = 20
	fastest := patience
	for i := range tries {
		began := time.Now()
		o := w.delivered(t, w.message(fmt.Sprint("warm ", i)))
		took := time.Since(began)
		fastest = min(fastest, took)
		if o.Timings.Total <= 0 || o.Timings.Total > took {
			t.Errorf("total = %s of %s", o.Timings.Total, took)
		}
	}
	t.Logf("fastest of %d warm deliveries: %s", tries, fastest)
	if w.Within > 0 && fastest > w.Within {
		t.Errorf("the fastest of %d warm deliveries took %s, want at most %s", tries, fastest, w.Within)
	}
}

func tooLarge(t *testing.T, w *suite) {
	if w.TooLarge == 0 {
		t.Skip("the destination takes any size")
	}
	m := w.message(strings.Repeat("x", w.TooLarge))
	w.permanent(t, w.Target, m, delivery.TooLarge)
	// One that is refused takes nobody along.
	w.delivered(t, w.message("hello"))
}

func missing(t *testing.T, w *suite) {
	if w.Missing.URL == "" {
		t.Skip("the protocol cannot tell")
	}
	w.permanent(t, w.Missing, w.message("hello"), delivery.Missing)
}

// permanent delivers what must be dead at once, with a sentence.
func (w *suite) permanent(t *testing.T, target destination.Target, m destination.Message, class delivery.Class) {
	t.Helper()
	o := w.deliver(t, target, m)
	if o.Class != class || !o.Permanent {
		t.Errorf("outcome = %+v, want %s, permanent", o, class)
	}
	if len(o.Error) < 20 || strings.Contains(o.Error, w.secret.Reveal()) {
		t.Errorf("error = %q, want a sentence that says what to do", o.Error)
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
			t.Errorf("attempt %d while down: %+v, want a failure that a retry may cure", i+1, o)
		}
	}
	w.Gate.Up()
	// A client may wait a moment before it dials again; the delivery is retried as
	// dispatch would, and has to arrive soon.
	m := w.message("after")
	for began := time.Now(); ; {
		o := w.deliver(t, w.Target, m)
		if o.Class == delivery.Success {
			break
		}
		if o.Permanent || time.Since(began) > patience {
			t.Fatalf("after it came back: %+v", o)
		}
	}
	for {
		if got := w.receive(t); bytes.Equal(got.Body, m.Body) {
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
	if took := time.Since(began); took < limit/2 || took > limit+2*time.Second {
		t.Errorf("returned after %s, the context ended after %s", took, limit)
	}
	if o.Class != delivery.Timeout || o.Permanent || o.Error == "" {
		t.Errorf("outcome = %+v, want timeout, to be retried", o)
	}
	w.Gate.Down() // so that what was frozen ends
}

func concurrent(t *testing.T, w *suite) {
	const n = 200
	before := w.Gate.Accepted()
	sent := map[string]bool{}
	var all sync.WaitGroup
	failed := make(chan string, n)
	for i := range n {
		m := w.message(fmt.Sprint("number ", i))
		sent[string(m.Body)] = true
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
		t.Fatalf("one of %d: %s", n, o)
	}
	if made := w.Gate.Accepted() - before; w.Connections > 0 && made > w.Connections {
		t.Errorf("%d connections for %d deliveries at once, want at most %d", made, n, w.Connections)
	}
	for range n {
		got := w.receive(t)
		if !sent[string(got.Body)] {
			t.Errorf("received what was not sent, or twice: %q", got.Body)
		}
		delete(sent, string(got.Body))
	}
	if len(sent) > 0 {
		t.Errorf("%d of %d did not arrive", len(sent), n)
	}
}

func warm(t *testing.T, w *suite) {
	if w.Connections == 0 {
		t.Skip("the stand-in keeps no connection open")
	}
	// Warm up with concurrent deliveries, as a batch from the queue does: a client
	// that returns before it has put its connection back sometimes needs a second.
	var batch sync.WaitGroup
	for range 8 {
		batch.Go(func() {
			if o := w.deliver(t, w.Target, w.message("warming")); o.Class != delivery.Success {
				t.Errorf("outcome = %+v", o)
			}
		})
	}
	batch.Wait()
	// A connection that the peer or an idle limit closed may be opened again. What
	// must not happen is that requests open one each.
	const requests, limit = 50, 5
	before := w.Gate.Accepted()
	for i := range requests {
		w.delivered(t, w.message(fmt.Sprint("number ", i)))
	}
	if made := w.Gate.Accepted() - before; made > limit {
		t.Errorf("%d deliveries through a warm adapter made %d connections, want at most %d", requests, made, limit)
	}
}

func leaks(t *testing.T, w *suite) {
	open := runtime.NumGoroutine()
	for i := range 20 {
		target := w.Target
		target.ID = fmt.Sprint("endpoint ", i) // more than the router keeps
		if o := w.deliver(t, target, w.message("hello")); o.Class != delivery.Success {
			t.Fatalf("outcome = %+v", o)
		}
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	// What serves a connection on the other side ends when it notices.
	for began := time.Now(); runtime.NumGoroutine() > open; time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > 5*time.Second {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines more than before the first delivery:\n%s", runtime.NumGoroutine()-open, stacks[:runtime.Stack(stacks, true)])
		}
	}
}
