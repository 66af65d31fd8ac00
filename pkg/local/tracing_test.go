package local_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/receiver"
	"github.com/tidings-dev/tidings/pkg/ops/tracing"
	"github.com/tidings-dev/tidings/test/xraytest"
)

// hook is a received request.
type hook struct {
	traceparent []string
	body        []byte
}

// One trace covers emit, fan-out, the queue and every attempt including retries, and
// continues at receivers of endpoints with traceparent enabled.
func TestOneTraceFromEmitToEachAttempt(t *testing.T) {
	t.Parallel()
	daemon := xraytest.New(t)
	w := newWorld(t, local.Options{Memory: true, XRay: daemon.Address}, receiver.Behaviour{})
	hooks := make(chan hook, 100)
	server := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		hooks <- hook{r.Header[http.CanonicalHeaderKey(tracing.HeaderTraceparent)], body}
		if strings.HasPrefix(r.URL.Path, "/limited") {
			out.WriteHeader(http.StatusTooManyRequests)
		}
	}))
	defer server.Close()
	add := func(path string, traceparent bool) endpoint.Endpoint {
		e := w.endpoint(server.URL + path + "?token=query-secret")
		e.Traceparent = traceparent
		e.Retry.MaxAttempts = 2
		if _, err := w.Store.UpdateEndpoint(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		return e
	}
	good, limited := add("/good", true), add("/limited", false)

	// A producer that has a trace of its own hands it on.
	const caller = "1-5759e988-bd862e3fe1be46a994272793"
	body, err := json.Marshal(emit.Request{Event: "user.posted_comment", Data: json.RawMessage(`{"discussion_id":"d","comment_id":"c","comment_text":"payload-secret"}`)})
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.URLs["emit"], strings.NewReader(string(body)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Amzn-Trace-Id", "Root="+caller+";Parent=53995c3f42cd8ad8;Sampled=1")
	answer, err := http.DefaultClient.Do(r)
	if err != nil || answer.StatusCode != http.StatusAccepted {
		t.Fatalf("emit answered %v, %v", answer, err)
	}
	_ = answer.Body.Close()

	parts := map[string][]xraytest.Document{}
	for range 5 { // accepted, fanned out, one attempt here and two there
		d := daemon.Next()
		if d.TraceID != caller {
			t.Errorf("another trace: %s", d.Raw)
		}
		if strings.Contains(d.Raw, "secret") || strings.Contains(d.Raw, "http://") {
			t.Errorf("the trace tells what it must not: %s", d.Raw)
		}
		parts[d.Name] = append(parts[d.Name], d)
	}
	if len(parts["accept event"]) != 1 || len(parts["fan out"]) != 1 || len(parts["attempt"]) != 3 {
		t.Fatalf("parts = %+v", parts)
	}
	accepted, fanned := parts["accept event"][0], parts["fan out"][0]
	id := accepted.Annotations["event_id"]
	if accepted.ParentID == "53995c3f42cd8ad8" || accepted.Annotations["event_type"] != "user.posted_comment" {
		t.Errorf("accepted under the caller, past the function's own segment: %s", accepted.Raw)
	}
	if fanned.ParentID != accepted.ID || fanned.Annotations["event_id"] != id || fanned.Annotations["endpoints"] != 2.0 {
		t.Errorf("fanned out: %s", fanned.Raw)
	}
	numbers := map[any]bool{}
	for _, a := range parts["attempt"] {
		if a.ParentID != fanned.ID || a.Annotations["event_id"] != id || a.Annotations["protocol"] != "http" || a.Annotations["tenant"] != "default" {
			t.Errorf("attempt: %s", a.Raw)
		}
		switch a.Annotations["endpoint_id"] {
		case good.ID:
			if a.Annotations["outcome"] != "success" || a.Annotations["status"] != 200.0 || a.Annotations["attempt"] != 1.0 || a.Fault || a.Error {
				t.Errorf("attempt: %s", a.Raw)
			}
			good.Description = a.ID
		case limited.ID:
			numbers[a.Annotations["attempt"]] = true
			if a.Annotations["outcome"] != "throttled" || !a.Throttle || a.Fault {
				t.Errorf("attempt: %s", a.Raw)
			}
		}
	}
	if !numbers[1.0] || !numbers[2.0] {
		t.Errorf("attempts %v at the endpoint that is retried", numbers)
	}
	for range 3 {
		h := <-hooks
		var sent struct {
			TraceID string `json:"trace_id"`
		}
		if err := json.Unmarshal(h.body, &sent); err != nil || sent.TraceID != caller {
			t.Errorf("trace_id = %q, %v", sent.TraceID, err)
		}
		if h.traceparent == nil {
			numbers["without"] = true
		} else if want := "00-5759e988bd862e3fe1be46a994272793-" + good.Description + "-01"; len(h.traceparent) != 1 || h.traceparent[0] != want {
			t.Errorf("traceparent = %q, want %q", h.traceparent, want)
		} else {
			numbers["with"] = true
		}
	}
	if !numbers["with"] || !numbers["without"] {
		t.Error("both receivers got a traceparent, or neither")
	}
}

func TestEventsHaveATraceIDWithoutAnXRayDaemon(t *testing.T) {
	t.Parallel()
	w := newWorld(t, local.Options{Memory: true}, receiver.Behaviour{})
	w.endpoint(w.url)
	w.emit(request(t, "user.joined_community"))
	var sent struct {
		TraceID string `json:"trace_id"`
	}
	if err := json.Unmarshal(w.next().Body, &sent); err != nil || tracing.ID("Root="+sent.TraceID) == "" {
		t.Errorf("trace_id = %q, %v", sent.TraceID, err)
	}
}
