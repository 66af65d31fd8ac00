// Package xraytracing records traces with AWS X-Ray: each part of a trace is a
// subsegment document, sent by UDP to the daemon that Lambda runs next to a function.
// It promises that a part belongs to the trace of the header that it began with, that
// a trace is recorded as a whole or not at all, and that recording neither fails nor
// delays what is traced. It wraps no client: receivers' URLs and answers stay out of
// traces.
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

// quiet stops the SDK's log, because its lines are not JSON.
var quiet = sync.OnceFunc(func() { xray.SetLogger(xraylog.NullLogger) })

// New returns a tracer that sends to the daemon at host:port (AWS_XRAY_DAEMON_ADDRESS).
// It records that percentage of the sampled traces.
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

// Begin begins a part of the trace that the header names. It returns the header for
// what the part causes; call end once, with the mark of a failure ("" for none) and
// the part's annotations. If the trace is not recorded, the header is returned
// unchanged.
func (t *Tracer) Begin(name, header string) (under string, end func(mark string, annotations map[string]any)) {
	h, ok := tracing.Parse(header)
	if !ok || !h.Sampled || h.Parent == "" || !t.takes(h.Root) || xray.SdkDisabled() {
		return tracing.None{}.Begin(name, header)
	}
	// A new context, because the part belongs to the header's trace and not to the
	// trace of the current invocation.
	ctx := context.WithValue(context.Background(), xray.RecorderContextKey{}, t.config)
	_, part := xray.BeginSubsegment(tracing.WithHeader(ctx, h.String()), name)
	if part == nil {
		return tracing.None{}.Begin(name, header)
	}
	h.Parent = part.ID
	return h.String(), func(mark string, annotations map[string]any) {
		for key, value := range annotations {
			_ = part.AddAnnotation(key, value) // fails only for types that X-Ray does not support
		}
		part.Lock()
		// The namespace "remote" makes the service map show the part next to the function.
		part.Namespace = "remote"
		part.Error, part.Fault, part.Throttle = mark == tracing.Error || mark == tracing.Throttle, mark == tracing.Fault, mark == tracing.Throttle
		part.Unlock()
		part.Close(nil)
	}
}

// takes decides by the trace id alone, so that all functions decide alike.
func (t *Tracer) takes(root string) bool {
	if t.percent == 100 {
		return true
	}
	// The id's last characters are random.
	n, err := strconv.ParseUint(root[len(root)-8:], 16, 32)
	return err == nil && n%100 < uint64(t.percent)
}
