// Package xraytracing records traces with AWS X-Ray: each part is a subsegment
// document, sent by UDP to the daemon that Lambda runs beside a function. It
// promises that a part is recorded under the header that it was begun with, in
// whatever invocation it happens, that a trace is recorded as a whole or not at
// all, and that nothing it does can fail or hold up what is traced. It wraps no
// client: receivers' URLs and answers stay out of traces.
package xraytracing

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"

	"github.com/aws/aws-xray-sdk-go/v2/strategy/ctxmissing"
	"github.com/aws/aws-xray-sdk-go/v2/xray"
	"github.com/aws/aws-xray-sdk-go/v2/xraylog"

	"github.com/tidings-dev/tidings/pkg/ops/tracing"
)

// Tracer sends to one daemon. It is safe for concurrent use.
type Tracer struct {
	config  *xray.Config
	percent int
}

// quiet keeps the SDK from printing: its lines are no JSON.
var quiet = sync.OnceFunc(func() { xray.SetLogger(xraylog.NullLogger) })

// New returns a tracer that sends to the daemon at host:port (AWS_XRAY_DAEMON_ADDRESS)
// so many percent of the traces that whoever began them had sampled.
func New(daemon string, percent int) (*Tracer, error) {
	if percent < 0 || percent > 100 {
		return nil, fmt.Errorf("trace sampling is %d; it must be 0 to 100 percent", percent)
	}
	quiet()
	address, err := net.ResolveUDPAddr("udp", daemon)
	if err != nil {
		return nil, fmt.Errorf("X-Ray daemon %q: %w", daemon, err)
	}
	emitter, err := xray.NewDefaultEmitter(address)
	if err != nil {
		return nil, fmt.Errorf("X-Ray daemon %q: %w", daemon, err)
	}
	return &Tracer{config: &xray.Config{Emitter: emitter, ContextMissingStrategy: ctxmissing.NewDefaultIgnoreErrorStrategy()}, percent: percent}, nil
}

// Open returns New(daemon, percent), or a tracer that records nothing if daemon is
// empty or percent is 0.
func Open(daemon string, percent int) (interface {
	Begin(name, header string) (under string, end func(mark string, annotations map[string]any))
}, error) {
	if daemon == "" || percent == 0 {
		return tracing.None{}, nil
	}
	return New(daemon, percent)
}

// Begin begins a part of the trace that the header names. under is the header for
// what the part causes; end is to be called once, with the mark of a failure (""
// for none) and what the part is to be found by. Of a trace that is not recorded,
// the header goes on as it came.
func (t *Tracer) Begin(name, header string) (under string, end func(mark string, annotations map[string]any)) {
	h, ok := tracing.Parse(header)
	if !ok || !h.Sampled || h.Parent == "" || !t.takes(h.Root) || xray.SdkDisabled() {
		return tracing.None{}.Begin(name, header)
	}
	// A context of its own: the part belongs to the header's trace, not to that of
	// the invocation in which it happens.
	ctx := context.WithValue(context.Background(), xray.RecorderContextKey{}, t.config)
	_, part := xray.BeginSubsegment(tracing.WithHeader(ctx, h.String()), name)
	if part == nil {
		return tracing.None{}.Begin(name, header)
	}
	h.Parent = part.ID
	return h.String(), func(mark string, annotations map[string]any) {
		for key, value := range annotations {
			_ = part.AddAnnotation(key, value) // fails for types that X-Ray does not know; there are none
		}
		part.Lock()
		// What others do for us: so the map of services shows it beside the function.
		part.Namespace = "remote"
		part.Error, part.Fault, part.Throttle = mark == tracing.Error || mark == tracing.Throttle, mark == tracing.Fault, mark == tracing.Throttle
		part.Unlock()
		part.Close(nil)
	}
}

// takes decides by the trace's id alone, so that every part decides the same.
func (t *Tracer) takes(root string) bool {
	if t.percent == 100 {
		return true
	}
	// The id's last characters are random.
	n, err := strconv.ParseUint(root[len(root)-8:], 16, 32)
	return err == nil && n%100 < uint64(t.percent)
}
