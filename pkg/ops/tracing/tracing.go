// Package tracing parses and formats trace headers: X-Amzn-Trace-Id
// (`Root=1-…;Parent=…;Sampled=1`; only the root if nothing is recorded) and the W3C
// header traceparent for receivers. It also has the tracer that records nothing. It
// does no I/O. It promises that its results are well-formed or empty, whatever a
// header contains.
package tracing

import (
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"strings"
)

// Header is the trace context that is passed on.
type Header struct {
	Root    string // trace ID, 1-xxxxxxxx-xxxxxxxxxxxxxxxxxxxxxxxx
	Parent  string // ID of the parent segment; may be empty
	Sampled bool   // the trace is recorded
}

func isRoot(text string) bool {
	return len(text) == 35 && text[:2] == "1-" && isHex(text[2:10]) && text[10] == '-' && isHex(text[11:])
}

func isParent(text string) bool { return len(text) == 16 && isHex(text) }

func isHex(text string) bool {
	for i := range len(text) {
		if c := text[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// Parse parses an X-Amzn-Trace-Id header. It returns false if the header has no valid
// trace ID.
func Parse(text string) (Header, bool) {
	var h Header
	for part := range strings.SplitSeq(text, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch name {
		case "Root":
			h.Root = value
		case "Parent":
			h.Parent = value
		case "Sampled":
			h.Sampled = value == "1"
		}
	}
	if !isRoot(h.Root) {
		return Header{}, false
	}
	if !isParent(h.Parent) {
		h.Parent = ""
	}
	return h, true
}

// String returns the header in the format of X-Amzn-Trace-Id.
func (h Header) String() string {
	s := "Root=" + h.Root
	if h.Parent != "" {
		s += ";Parent=" + h.Parent
	}
	if h.Sampled {
		return s + ";Sampled=1"
	}
	return s + ";Sampled=0"
}

// ID returns the trace ID of a header, or "".
func ID(text string) string {
	h, _ := Parse(text)
	return h.Root
}

// HeaderTraceparent is the name of the W3C header.
const HeaderTraceparent = "traceparent"

// Traceparent returns the W3C form of a header (Trace Context, section 3.2), or "" if
// it has none, because W3C does not allow IDs that are all zeros. W3C requires a
// parent, which Lambda's header does not have if the function passes traces through;
// the parent ID is then a hash of the trace ID and the name of the call.
func Traceparent(text, call string) string {
	h, ok := Parse(text)
	if !ok {
		return ""
	}
	if strings.Trim(h.Parent, "0") == "" {
		name := fnv.New64a()
		_, _ = io.WriteString(name, h.Root+" "+call)
		h.Parent = fmt.Sprintf("%016x", name.Sum64()|1)
	}
	id := strings.ReplaceAll(strings.TrimPrefix(h.Root, "1-"), "-", "")
	if strings.Trim(id, "0") == "" {
		return ""
	}
	flags := "00"
	if h.Sampled {
		flags = "01"
	}
	return "00-" + id + "-" + h.Parent + "-" + flags
}

// key is the context key that aws-lambda-go uses for the header of an invocation
// (lambda/invoke_loop.go).
var key any = "x-amzn-trace-id"

// FromContext returns the trace header of the invocation, or "".
func FromContext(ctx context.Context) string {
	header, _ := ctx.Value(key).(string)
	return header
}

// WithHeader returns a context with a trace header, like the context that the Lambda
// runtime creates.
func WithHeader(ctx context.Context, header string) context.Context {
	return context.WithValue(ctx, key, header)
}

// Results of a subsegment, in X-Ray's terms.
const (
	OK       = ""
	Error    = "error"    // the other side rejected the request (4xx)
	Fault    = "fault"    // any other failure
	Throttle = "throttle" // the other side throttled the request
)

// None is the tracer that records nothing and passes headers on unchanged.
type None struct{}

// Begin returns the header unchanged.
func (None) Begin(_, header string) (under string, end func(mark string, annotations map[string]any)) {
	return header, func(string, map[string]any) {}
}

// IsRecording reports whether a tracer records anything, so that callers can skip
// building annotations.
func IsRecording(tracer any) bool {
	_, none := tracer.(None)
	return tracer != nil && !none
}
