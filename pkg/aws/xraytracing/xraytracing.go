// Package xraytracing records traces with AWS X-Ray: each part of a trace is a
// subsegment document, sent by UDP to the daemon that Lambda runs beside a function.
// It promises that a part belongs to the trace of the header that it began with, that
// a trace is recorded as a whole or not at all, and that recording neither fails nor
// delays what is traced. It wraps no client: receivers' URLs and answers stay out of
// traces. It sends the documents itself, because AWS's SDK links gRPC and a second
// HTTP library into each function.
package xraytracing

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/tidings-dev/tidings/pkg/ops/tracing"
)

// Tracer sends to one daemon. It is safe for concurrent use.
type Tracer struct {
	daemon  net.Conn
	percent int
}

// New returns a tracer that sends to the daemon at host:port (AWS_XRAY_DAEMON_ADDRESS).
// It records that percentage of the sampled traces.
func New(daemon string, percent int) (*Tracer, error) {
	if percent < 0 || percent > 100 {
		return nil, fmt.Errorf("trace sampling is %d; it must be 0 to 100 percent", percent)
	}
	conn, err := net.Dial("udp", daemon)
	if err != nil {
		return nil, fmt.Errorf("X-Ray daemon %q: %w", daemon, err)
	}
	return &Tracer{daemon: conn, percent: percent}, nil
}

// Open returns New(daemon, percent), or a tracer that records nothing if daemon is
// empty, percent is 0 or AWS_XRAY_SDK_DISABLED is true.
func Open(daemon string, percent int) (interface {
	Begin(name, header string) (under string, end func(mark string, annotations map[string]any))
}, error) {
	disabled, _ := strconv.ParseBool(os.Getenv("AWS_XRAY_SDK_DISABLED"))
	if disabled || daemon == "" || percent == 0 {
		return tracing.None{}, nil
	}
	return New(daemon, percent)
}

// protocol precedes each document (AWS X-Ray Developer Guide, "Sending segment
// documents to the X-Ray daemon").
const protocol = `{"format": "json", "version": 1}` + "\n"

// maxName is the longest name of a subsegment that X-Ray accepts, in characters.
const maxName = 200

// subsegment is a document of X-Ray (AWS X-Ray Developer Guide, "Segment documents").
type subsegment struct {
	Type        string         `json:"type"`
	TraceID     string         `json:"trace_id"`
	ParentID    string         `json:"parent_id"`
	ID          string         `json:"id"`
	Name        string         `json:"name"`
	Namespace   string         `json:"namespace"`
	StartTime   float64        `json:"start_time"` // seconds since 1970
	EndTime     float64        `json:"end_time"`
	Error       bool           `json:"error,omitempty"`
	Fault       bool           `json:"fault,omitempty"`
	Throttle    bool           `json:"throttle,omitempty"`
	Annotations map[string]any `json:"annotations,omitempty"`
}

// Begin begins a part of the trace that the header names. It returns the header for
// what the part causes; call end once, with the mark of a failure ("" for none) and
// the part's annotations. If the trace is not recorded, the header is returned
// unchanged.
func (t *Tracer) Begin(name, header string) (under string, end func(mark string, annotations map[string]any)) {
	h, ok := tracing.Parse(header)
	if !ok || !h.Sampled || h.Parent == "" || !t.takes(h.Root) {
		return tracing.None{}.Begin(name, header)
	}
	if runes := []rune(name); len(runes) > maxName {
		name = string(runes[:maxName])
	}
	// The namespace "remote" makes the service map show the part beside the function.
	part := subsegment{
		Type: "subsegment", TraceID: h.Root, ParentID: h.Parent, ID: fmt.Sprintf("%016x", rand.Uint64()),
		Name: name, Namespace: "remote", StartTime: seconds(time.Now()),
	}
	h.Parent = part.ID
	return h.String(), func(mark string, annotations map[string]any) {
		part.EndTime, part.Annotations = seconds(time.Now()), annotations
		part.Error, part.Fault, part.Throttle = mark == tracing.Error || mark == tracing.Throttle, mark == tracing.Fault, mark == tracing.Throttle
		if text, err := json.Marshal(part); err == nil {
			_, _ = t.daemon.Write(append([]byte(protocol), text...)) // a lost part of a trace is no failure
		}
	}
}

func seconds(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }

// takes decides by the trace's id alone, so that all functions decide the same.
func (t *Tracer) takes(root string) bool {
	if t.percent == 100 {
		return true
	}
	// The id's last characters are random.
	n, err := strconv.ParseUint(root[len(root)-8:], 16, 32)
	return err == nil && n%100 < uint64(t.percent)
}
