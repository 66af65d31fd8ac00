package main

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/console"
)

// patience is how long a test waits for what comes in seconds, however busy the machine
// is.
const patience = 2 * time.Minute

// eventually polls until the condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timeout after %s: %s", patience, what)
		}
	}
}

func TestCircuitListAndClose(t *testing.T) {
	t.Parallel()
	x := newTool(t)
	var broken atomic.Bool
	broken.Store(true)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if broken.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(receiver.Close)
	out, _ := x.do(0, "", "endpoint", "add", receiver.URL, "--breaker-failures", "2", "--breaker-failing-for", "1ms")
	id := regexp.MustCompile(`ep_\w+`).FindString(out)
	if out, _ := x.do(0, "", "circuit", "list"); !strings.Contains(out, "all circuit breakers are closed") {
		t.Errorf("list without an open circuit: %s", out)
	}
	for range 3 {
		x.do(0, "", "emit", "user.posted_comment", "--data", `{"discussion_id":"d","comment_id":"c","comment_text":"hi"}`)
	}
	var circuits []console.Circuit
	eventually(t, "the circuit opens", func() bool {
		x.json(&circuits, "circuit", "list")
		return len(circuits) == 1
	})
	if c := circuits[0]; c.EndpointID != id || c.State != "open" || c.Failures < 2 || !strings.Contains(c.Cause, "503") || c.NextProbe.IsZero() {
		t.Errorf("circuit = %+v", c)
	}
	if out, _ := x.do(0, "", "circuit", "list"); !strings.Contains(out, id) || !strings.Contains(out, "open") {
		t.Errorf("list: %s", out)
	}
	var pending []console.Delivery
	eventually(t, "all deliveries are pending for the circuit", func() bool {
		pending = nil
		x.json(&pending, "delivery", "list", "--state", "pending")
		return len(pending) == 3 && !slices.ContainsFunc(pending, func(d console.Delivery) bool { return !d.WaitsForCircuit || !d.NextAttemptAt.IsZero() })
	})
	if out, _ := x.do(0, "", "delivery", "list"); strings.Count(out, "  backlog  ") != 3 {
		t.Errorf("the list does not show the backlog:\n%s", out)
	}
	if out, _ := x.do(0, "", "delivery", "show", id, pending[0].EventID); !strings.Contains(out, "endpoint's backlog") {
		t.Errorf("show does not explain the pending state:\n%s", out)
	}
	broken.Store(false)
	if out, _ := x.do(0, "", "circuit", "close", id); !strings.Contains(out, "closed") {
		t.Errorf("close: %s", out)
	}
	eventually(t, "the pending deliveries are delivered", func() bool {
		var list []console.Delivery
		x.json(&list, "delivery", "list", "--state", "delivered")
		return len(list) == 3
	})
	if out, _ := x.do(0, "", "circuit", "close", id); !strings.Contains(out, "already closed") {
		t.Errorf("close again: %s", out)
	}
	x.do(exitUsage, "", "circuit", "close")
}

func TestEndpointSetEnforcesBounds(t *testing.T) {
	t.Parallel()
	x := newTool(t)
	out, _ := x.do(0, "", "endpoint", "add", "https://crm.example.com/hooks", "--rate-per-minute", "600", "--burst", "20", "--breaker-failures", "3")
	id := regexp.MustCompile(`ep_\w+`).FindString(out)
	var v console.WithSecret
	x.json(&v, "endpoint", "show", id)
	if v.PerMinute != 600 || v.Burst != 20 || v.Breaker.Failures != 3 {
		t.Errorf("added as %+v", v)
	}
	out, _ = x.do(0, "", "endpoint", "set", id, "--rate-per-minute", "60", "--burst", "5", "--breaker-open-for", "10s", "--max-attempts", "4", "--disable-after", "24h")
	for _, says := range []string{"60 per minute, burst 5", "opens after 3 failures", "open for 10s", "disables the endpoint after 24h0m0s", "max attempts"} {
		if !strings.Contains(out, says) {
			t.Errorf("set prints no %q:\n%s", says, out)
		}
	}
	for _, wrong := range [][]string{
		{"--rate-per-minute", "60001"}, {"--burst", "10001"}, {"--rate-per-minute", "0"}, {"--breaker-failures", "101"}, {"--breaker-open-for", "1ms"},
		{"--breaker-max-open-for", "25h"}, {"--disable-after", "1m"}, {"--max-attempts", "1001"}, {"--max-age", "1s"}, {"--max-delay", "48h"}, {"--timeout", "31s"},
	} {
		if _, errOut := x.do(exitFailed, "", append([]string{"endpoint", "set", id}, wrong...)...); !strings.Contains(errOut, "must be") && !strings.Contains(errOut, "without rate_per_minute") {
			t.Errorf("%v: %s", wrong, errOut)
		}
	}
	var after console.WithSecret
	x.json(&after, "endpoint", "show", id)
	if after.PerMinute != 60 || after.MaxAttempts != 4 || after.Breaker.Failures != 3 {
		t.Errorf("endpoint after refused changes: %+v", after)
	}
	x.do(exitUsage, "", "endpoint", "set", id)
	x.do(exitFailed, "", "endpoint", "set", "ep_none", "--burst", "1")
}

func TestRedrivePrintsTheCount(t *testing.T) {
	t.Parallel()
	x := newTool(t)
	if out, _ := x.do(0, "", "redrive"); !strings.Contains(out, "0 redriven") {
		t.Errorf("redrive: %s", out)
	}
}
