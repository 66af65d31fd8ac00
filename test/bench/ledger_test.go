package main

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/ops/cost"
)

// A line has what Lambda adds to it, and counts as much whatever the clock says.
func TestTheLedgerCountsLines(t *testing.T) {
	for _, took := range []int64{3, 12345} {
		l := &ledger{}
		log := l.logger()
		log.DebugContext(t.Context(), "nobody reads this")
		log.InfoContext(invocation(t.Context()), "sweep.done", "due", 1, "ms", took)
		log.InfoContext(t.Context(), "delivery.attempted")
		if _, err := io.WriteString(l, `{"_aws":{}}`+"\n"); err != nil {
			t.Fatal(err)
		}
		if len(l.metrics) != 1 {
			t.Errorf("%d lines of metrics", len(l.metrics))
		}
		lines, size, attempts := l.take()
		first := `{"timestamp":"2026-01-29T12:34:56.123456789Z","level":"INFO","message":"sweep.done","due":1,"ms":50,"requestId":"8ae6e4d4-8cd5-4f6d-8f0a-2a3f0f3b6a31"}`
		second := `{"timestamp":"2026-01-29T12:34:56.123456789Z","level":"INFO","message":"delivery.attempted"}`
		if want := len(first) + len(second) + len(`{"_aws":{}}`) + 3*cost.LineBytes; lines != 3 || size != want || attempts != len(second)+cost.LineBytes {
			t.Errorf("%d lines of %d bytes, %d of attempts; want 3 of %d", lines, size, attempts, want)
		}
		if lines, size, _ := l.take(); lines != 0 || size != 0 {
			t.Errorf("it does not begin anew: %d lines, %d bytes", lines, size)
		}
	}
}

// What comes over the wire is counted whole: as many bytes as a plain request has,
// to a host of one name.
func TestTheWireCountsRequests(t *testing.T) {
	w, err := openWire()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	m := destination.Message{Body: []byte(`{"id":"1"}`), Headers: map[string]string{"webhook-id": "1"}}
	for range 2 {
		if err := w.send(t.Context(), destination.Target{Tenant: "t", ID: "e"}, m); err != nil {
			t.Fatal(err)
		}
	}
	one := "POST /webhooks HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: Tidings/1 (Standard Webhooks)\r\nContent-Length: 10\r\nContent-Type: application/json\r\nwebhook-id: 1\r\n\r\n" + `{"id":"1"}`
	if got := w.take(); got != int64(2*len(one)) {
		t.Errorf("two requests are %d bytes, want %d", got, 2*len(one))
	}
	if got := w.take(); got != 0 {
		t.Errorf("it does not begin anew: %d", got)
	}
	// An attempt whose deadline is of another clock is made all the same; one that
	// reaches nobody is told.
	past, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Hour))
	defer cancel()
	if err := w.send(past, destination.Target{Tenant: "t", ID: "e"}, m); err != nil {
		t.Error(err)
	}
	if err := w.server.Close(); err != nil && err != http.ErrServerClosed {
		t.Fatal(err)
	}
	if err := w.send(t.Context(), destination.Target{Tenant: "t", ID: "e"}, m); err == nil {
		t.Error("nobody was reached, and nothing is said")
	}
}

// A line that says that something went wrong voids the count.
func TestTroubleVoidsTheCount(t *testing.T) {
	l := &ledger{}
	log := l.logger()
	log.Info("delivery.attempted", "outcome", "success")
	if err := l.trouble(""); err != nil {
		t.Error(err)
	}
	log.Warn("statistics.not_stored", "error", "context deadline exceeded")
	if err := l.trouble(""); err == nil || !strings.Contains(err.Error(), "statistics.not_stored") {
		t.Errorf("a warning: %v", err)
	}
	if err := l.trouble(""); err != nil {
		t.Errorf("once said, it is over: %v", err)
	}
}
