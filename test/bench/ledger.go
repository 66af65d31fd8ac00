package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-lambda-go/lambdacontext"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/builtin"
	"github.com/tidings-dev/tidings/pkg/ops/cost"
	"github.com/tidings-dev/tidings/pkg/ops/tracing"
)

// ledger is a function's log: it counts what is written and keeps nothing but the
// lines of metrics and those that say that something went wrong.
type ledger struct {
	mu       sync.Mutex
	lines    int
	bytes    int
	attempts int // bytes attempt log bytes, with what CloudWatch counts beside them
	metrics  [][]byte
	troubles []string
}

// Write takes one line.
func (l *ledger) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	size := len(bytes.TrimSuffix(line, []byte("\n"))) + cost.LineBytes
	l.lines++
	l.bytes += size
	switch {
	case bytes.Contains(line, []byte(`"message":"delivery.attempted"`)):
		l.attempts += size
	case bytes.Contains(line, []byte(`"level":"WARN"`)), bytes.Contains(line, []byte(`"level":"ERROR"`)):
		l.troubles = append(l.troubles, string(bytes.TrimSpace(line)))
	case bytes.Contains(line, []byte(`"_aws":`)):
		l.metrics = append(l.metrics, bytes.Clone(line))
	}
	return len(line), nil
}

// take returns what was counted, and begins anew.
func (l *ledger) take() (lines, size, attempts int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines, size, attempts = l.lines, l.bytes, l.attempts
	l.lines, l.bytes, l.attempts, l.metrics = 0, 0, 0, nil
	return lines, size, attempts
}

// trouble is what went wrong since the last time but for what was to, by its message;
// nil for nothing. What a slow machine makes fail (a statistics write that is not
// waited for) makes a count void, not different.
func (l *ledger) trouble(wanted string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, line := range l.troubles {
		if wanted != "" && strings.Contains(line, `"message":"`+wanted+`"`) {
			continue
		}
		errs = append(errs, fmt.Errorf("the count is void, this machine was too slow or something is wrong: %.500s", line))
	}
	l.troubles = nil
	return errors.Join(errs...)
}

// logger writes to the ledger as functions write on Lambda: lambdacontext.NewLogger
// is for standard output alone. Its lines' time is always as long, so that what
// they come to is the same every time, and so is how long a sweep says it took.
func (l *ledger) logger() *slog.Logger {
	replace := func(groups []string, a slog.Attr) slog.Attr {
		if a.Key == "ms" {
			a.Value = slog.IntValue(12)
		}
		return lambdacontext.ReplaceAttr(groups, a)
	}
	return slog.New(asLambda{slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelInfo, ReplaceAttr: replace})})
}

// asLambda adds what Lambda's handler adds.
type asLambda struct{ slog.Handler }

// What differs from run to run has as many digits each time.
var (
	lineTime = time.Date(2026, 1, 29, 12, 34, 56, 123456789, time.UTC)
	lineTook = slog.Int64("ms", 50)
)

// Handle hands on a record.
func (h asLambda) Handle(ctx context.Context, given slog.Record) error {
	r := slog.NewRecord(lineTime, given.Level, given.Message, 0)
	given.Attrs(func(a slog.Attr) bool {
		if a.Key == lineTook.Key {
			a = lineTook
		}
		r.AddAttrs(a)
		return true
	})
	if lc, ok := lambdacontext.FromContext(ctx); ok {
		r.AddAttrs(slog.String("requestId", lc.AwsRequestID))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs and WithGroup stay with what is added.
func (h asLambda) WithAttrs(attrs []slog.Attr) slog.Handler {
	return asLambda{h.Handler.WithAttrs(attrs)}
}
func (h asLambda) WithGroup(name string) slog.Handler { return asLambda{h.Handler.WithGroup(name)} }

// invocation is a context as Lambda makes it: with a request, and traced.
func invocation(ctx context.Context) context.Context {
	ctx = lambdacontext.NewContext(ctx, &lambdacontext.LambdaContext{AwsRequestID: "8ae6e4d4-8cd5-4f6d-8f0a-2a3f0f3b6a31"})
	return tracing.WithHeader(ctx, "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=0")
}

// host is the receiver's that requests would have; the wire's own is longer or
// shorter from time to time.
const host = "receiver.example.com"

// wire is a receiver that counts what comes over its connections, byte by byte, and
// the real adapter that sends to it.
type wire struct {
	registry *destination.Router
	server   *http.Server
	address  string // host:port
	url      string
	came     atomic.Int64
	requests atomic.Int64
}

func openWire() (*wire, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := &wire{address: l.Addr().String(), url: "http://" + l.Addr().String() + "/webhooks"}
	if w.registry, err = builtin.Open(builtin.Loopback, builtin.Clouds{}); err != nil {
		return nil, err
	}
	w.server = &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(answer http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // what is cut off shows in the sender's outcome
		w.requests.Add(1)
		answer.WriteHeader(http.StatusNoContent)
	})}
	go func() { _ = w.server.Serve(countedListener{l, &w.came}) }() // until Close
	return w, nil
}

// Close ends the receiver.
func (w *wire) Close() {
	_ = w.registry.Close()
	_ = w.server.Close()
}

// send sends a message for real. The attempt's deadline is of the pipeline's clock.
func (w *wire) send(ctx context.Context, t destination.Target, m destination.Message) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	t.URL = w.url
	if o := w.registry.Deliver(ctx, t, m); o.Class != delivery.Success {
		return fmt.Errorf("the receiver was not reached: %s", o.Error)
	}
	return nil
}

// take returns how many bytes the requests since the last time had.
func (w *wire) take() int64 {
	return w.came.Swap(0) + w.requests.Swap(0)*int64(len(host)-len(w.address))
}

type countedListener struct {
	net.Listener
	came *atomic.Int64
}

// Accept returns a connection that counts.
func (l countedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return countedConn{c, l.came}, err
}

type countedConn struct {
	net.Conn
	came *atomic.Int64
}

// Read counts what came.
func (c countedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.came.Add(int64(n))
	return n, err
}
