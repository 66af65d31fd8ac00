// Package tracing is the vocabulary of traces: the header in which AWS hands one
// on (`Root=1-…;Parent=…;Sampled=1`, or the root alone where nothing is recorded), its W3C form for receivers, and the tracer
// that records nothing. It does no I/O. It promises that whatever a header
// holds, what comes out is well-formed or empty.
package tracing

import (
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"strings"
)

// Header is what of a trace travels from one part to the next.
type Header struct {
	Root    string // the trace's id, 1-xxxxxxxx-xxxxxxxxxxxxxxxxxxxxxxxx
	Parent  string // the id of the segment that caused what comes; may be empty
	Sampled bool   // the trace is recorded
}

// isRoot tells whether a text is the id of a trace, 1-xxxxxxxx-xxxxxxxxxxxxxxxxxxxxxxxx.
func isRoot(text string) bool {
	return len(text) == 35 && text[:2] == "1-" && isHex(text[2:10]) && text[10] == '-' && isHex(text[11:])
}

// isParent tells whether a text is the id of a segment.
func isParent(text string) bool { return len(text) == 16 && isHex(text) }

func isHex(text string) bool {
	for i := range len(text) {
		if c := text[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// Parse reads a header. It reports false for one that names no trace.
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

// String is the header's form on AWS.
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

// ID returns the trace's id in a header, or "".
func ID(text string) string {
	h, _ := Parse(text)
	return h.Root
}

// HeaderTraceparent is the W3C header's name.
const HeaderTraceparent = "traceparent"

// Traceparent returns the W3C form of a header (Trace Context, section 3.2), or ""
// for one that has none: W3C knows no id that is all zeros. It knows no trace
// without a parent either, and Lambda's header has none where the function only
// passes traces through; then the parent's id is made of the call's own name.
func Traceparent(text, call string) string {
	h, ok := Parse(text)
	if !ok {
		return ""
	}
	if strings.Trim(h.Parent, "0") == "" {
		name := fnv.New64a()
		_, _ = io.WriteString(name, h.Root+" "+call) // a hash takes everything
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

// key is under what aws-lambda-go puts an invocation's header into its context
// (lambda/invoke_loop.go).
var key any = "x-amzn-trace-id"

// FromContext returns the header of the invocation, or "".
func FromContext(ctx context.Context) string {
	header, _ := ctx.Value(key).(string)
	return header
}

// WithHeader returns the context of an invocation under a header, as the Lambda
// runtime makes it.
func WithHeader(ctx context.Context, header string) context.Context {
	return context.WithValue(ctx, key, header)
}

// What the end of a part of a trace may be marked with, as X-Ray tells failures apart.
const (
	Fine     = ""
	Error    = "error"    // the other side says that the request was wrong
	Fault    = "fault"    // it failed
	Throttle = "throttle" // it asks for less
)

// None records nothing: headers go on as they came.
type None struct{}

// Begin returns the header as it is.
func (None) Begin(_, header string) (under string, end func(mark string, annotations map[string]any)) {
	return header, func(string, map[string]any) {}
}

// Records tells whether a tracer records anything: what for it is made is spared
// otherwise.
func Records(tracer any) bool {
	_, none := tracer.(None)
	return tracer != nil && !none
}
