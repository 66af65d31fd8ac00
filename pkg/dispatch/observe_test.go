package dispatch_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
)

const traceID = "1-5759e988-bd862e3fe1be46a994272793"

// traceOf is a header of the trace.
func traceOf(parent string) string { return "Root=" + traceID + ";Parent=" + parent + ";Sampled=1" }

// parts is a tracer that records its subsegments.
type parts struct {
	mu   sync.Mutex
	list []string
}

func (p *parts) Begin(name, header string) (under string, end func(mark string, annotations map[string]any)) {
	return traceOf(fmt.Sprintf("%016x", len(name))), func(mark string, annotations map[string]any) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.list = append(p.list, fmt.Sprintf("%s under %s: %q %v/%v/%v/%v/%v", name, header, mark,
			annotations["endpoint_id"], annotations["protocol"], annotations["attempt"], annotations["outcome"], annotations["status"]))
	}
}

func (p *parts) take() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := strings.Join(p.list, "\n")
	p.list = nil
	return text
}

// documented returns the fields of docs/logs.md.
func documented(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/logs.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTheLogLineOfAnAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		traced := &parts{}
		w := newWorld(t, func(c *dispatch.Config) {
			c.Log, c.Tracer = slog.New(slog.NewJSONHandler(&log, nil)), traced
		})
		ep := w.endpoint(func(e *endpoint.Endpoint) { e.Traceparent = true })
		item := w.fannedOut()
		if got := traced.take(); got != `fan out under : "" <nil>/<nil>/<nil>/<nil>/<nil>` || item.Trace != traceOf("0000000000000007") {
			t.Errorf("fanned out: %s; item under %q", got, item.Trace)
		}
		body, err := w.store.GetEvent(t.Context(), item.EventID)
		if err != nil {
			t.Fatal(err)
		}
		docs := documented(t)
		// attempt hands an item on, which lay in the queue for 700 ms, and returns its line.
		attempt := func(item work.Item, o delivery.Outcome) map[string]any {
			log.Reset()
			w.receiver.answer = func(context.Context, destination.Message) delivery.Outcome { return o }
			sent := time.Now()
			time.Sleep(700 * time.Millisecond)
			w.Deliver(t.Context(), []work.Message{{ID: "m", Body: item.Encode(), SentAt: sent}})
			var found map[string]any
			for line := range strings.Lines(log.String()) {
				var fields map[string]any
				if err := json.Unmarshal([]byte(line), &fields); err != nil {
					t.Fatal(err)
				}
				if fields["msg"] != "delivery.attempted" {
					continue
				}
				if found != nil {
					t.Errorf("two lines for one attempt:\n%s", log.String())
				}
				found = fields
			}
			for name := range found {
				if name != "time" && name != "level" && name != "msg" && !strings.Contains(docs, "`"+name+"`") {
					t.Errorf("%s is not in docs/logs.md", name)
				}
			}
			delete(found, "time")
			return found
		}
		// The numbers are JSON's: all of them float64.
		common := func(more map[string]any) map[string]any {
			m := map[string]any{
				"msg": "delivery.attempted", "event_id": item.EventID, "event_type": "user.posted_comment", "endpoint_id": ep.ID,
				"trace_id": traceID, "queue_ms": 700.0, "bytes": float64(len(body.Body)),
				"dns_ms": 1.0, "connect_ms": 2.0, "tls_ms": 3.0, "first_byte_ms": 4.0, "total_ms": 11.0,
			}
			for k, v := range more {
				m[k] = v
			}
			return m
		}
		timings := delivery.Timings{DNS: time.Millisecond, Connect: 2 * time.Millisecond, TLS: 3 * time.Millisecond, FirstByte: 4 * time.Millisecond, Total: 11 * time.Millisecond}

		got := attempt(item, delivery.Outcome{Class: delivery.Throttled, Status: 429, Error: "the receiver answered 429 Too Many Requests", Snippet: "snippet-secret", RetryAfter: 5 * time.Second, Timings: timings})
		next := time.Now().Add(5 * time.Second)
		if diff := cmp.Diff(common(map[string]any{
			"level": "WARN", "attempt": 1.0, "outcome": "throttled", "status": 429.0, "state": "pending", "age_ms": 700.0,
			"error": "the receiver answered 429 Too Many Requests", "permanent": false, "retry_after_ms": 5000.0, "next_attempt_at": next.Format(time.RFC3339Nano),
		}), got); diff != "" {
			t.Errorf("a failure (-want +got):\n%s", diff)
		}
		if got := traced.take(); got != `attempt under `+traceOf("0000000000000007")+`: "throttle" `+ep.ID+`/http/1/throttled/429` {
			t.Errorf("traced: %s", got)
		}
		if got := w.receiver.got[0].Headers["traceparent"]; got != "00-5759e988bd862e3fe1be46a994272793-0000000000000007-01" {
			t.Errorf("traceparent = %q", got)
		}

		again := w.queue.take()
		if len(again) != 1 || again[0].Trace != item.Trace {
			t.Fatalf("the retry's item = %+v", again)
		}
		time.Sleep(5 * time.Second)
		got = attempt(again[0], delivery.Outcome{Class: delivery.Success, Status: 204, Timings: timings})
		if diff := cmp.Diff(common(map[string]any{
			"level": "INFO", "attempt": 2.0, "outcome": "success", "status": 204.0, "age_ms": 6400.0,
		}), got); diff != "" {
			t.Errorf("a success (-want +got):\n%s", diff)
		}
		if got := traced.take(); got != `attempt under `+traceOf("0000000000000007")+`: "" `+ep.ID+`/http/2/success/204` {
			t.Errorf("traced: %s", got)
		}

		// What is not as mostly is said; what did not happen is not.
		queue := w.endpoint(func(e *endpoint.Endpoint) { e.Tenant, e.URL = "acme", "sqs://webhooks-a?region=us-east-1" })
		item.Tenant, item.EndpointID = queue.Tenant, queue.ID
		want := common(map[string]any{
			"level": "INFO", "attempt": 1.0, "outcome": "success", "age_ms": 7100.0, "endpoint_id": queue.ID, "tenant": "acme", "protocol": "sqs",
		})
		for _, phase := range []string{"dns_ms", "connect_ms", "tls_ms", "first_byte_ms"} {
			delete(want, phase)
		}
		got = attempt(item, delivery.Outcome{Class: delivery.Success, Timings: delivery.Timings{Total: 11 * time.Millisecond}})
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("an attempt by another protocol (-want +got):\n%s", diff)
		}
	})
}

// A large event is read from the store, whose trace header is the one of emit.
func TestAttemptsAtALargeEventContinueTheFanOutsTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		traced := &parts{}
		w := newWorld(t, func(c *dispatch.Config) { c.Tracer = traced })
		w.endpoint()
		_, record := w.event("user.posted_comment", `{"discussion_id":"d1","comment_id":"c1","comment_text":"`+strings.Repeat("x", 2*work.MaxBody)+`"}`)
		w.FanOut(t.Context(), []event.Change{record})
		items := w.queue.take()
		traced.take()
		if len(items) != 1 || items[0].Body != nil {
			t.Fatalf("items = %+v", items)
		}
		w.deliver(items...)
		if got := traced.take(); !strings.HasPrefix(got, "attempt under "+traceOf("0000000000000007")) {
			t.Errorf("traced: %s", got)
		}
	})
}
