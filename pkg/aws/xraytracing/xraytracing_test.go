package xraytracing_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/tidings-dev/tidings/pkg/aws/xraytracing"
	"github.com/tidings-dev/tidings/pkg/ops/tracing"
	"github.com/tidings-dev/tidings/test/xraytest"
)

const (
	root   = "1-5759e988-bd862e3fe1be46a994272793"
	parent = "53995c3f42cd8ad8"
	header = "Root=" + root + ";Parent=" + parent + ";Sampled=1;Lineage=1:abc:0"
)

func tracer(t *testing.T, daemon string, percent int) *xraytracing.Tracer {
	t.Helper()
	tr, err := xraytracing.New(daemon, percent)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestPartsAreNested(t *testing.T) {
	daemon := xraytest.New(t)
	tr := tracer(t, daemon.Address, 100)
	under, end := tr.Begin("fan out", header)
	under2, end2 := tr.Begin("attempt", under)
	end2(tracing.Fault, map[string]any{"endpoint_id": "ep_1", "attempt": 3, "outcome": "timeout", "probe": true})
	end(tracing.OK, nil)

	child, outer := daemon.Next(), daemon.Next()
	if outer.Name != "fan out" || outer.TraceID != root || outer.ParentID != parent || outer.Fault || outer.Error {
		t.Errorf("outer = %+v", outer)
	}
	if child.Name != "attempt" || child.TraceID != root || child.ParentID != outer.ID || !child.Fault || child.Error || child.Namespace != "remote" {
		t.Errorf("child = %+v", child)
	}
	if fmt.Sprint(child.Annotations) != "map[attempt:3 endpoint_id:ep_1 outcome:timeout probe:true]" {
		t.Errorf("annotations = %v", child.Annotations)
	}
	for _, c := range []struct {
		under string
		of    xraytest.Document
	}{{under, outer}, {under2, child}} {
		if want := "Root=" + root + ";Parent=" + c.of.ID + ";Sampled=1"; c.under != want {
			t.Errorf("header = %q, want %q", c.under, want)
		}
	}
}

func TestMarks(t *testing.T) {
	daemon := xraytest.New(t)
	tr := tracer(t, daemon.Address, 100)
	for mark, want := range map[string]string{tracing.OK: "false false false", tracing.Error: "true false false", tracing.Fault: "false true false", tracing.Throttle: "true false true"} {
		_, end := tr.Begin("x", header)
		end(mark, nil)
		if d := daemon.Next(); fmt.Sprint(d.Error, d.Fault, d.Throttle) != want {
			t.Errorf("mark %q: %s", mark, d.Raw)
		}
	}
}

// The header is returned unchanged and nothing is sent.
func TestUnrecordedTraces(t *testing.T) {
	daemon := xraytest.New(t)
	for name, c := range map[string]struct {
		header  string
		percent int
	}{
		"not sampled": {"Root=" + root + ";Parent=" + parent + ";Sampled=0", 100},
		"not decided": {"Root=" + root + ";Parent=" + parent, 100},
		"no parent":   {"Root=" + root + ";Sampled=1", 100},
		"no header":   {"", 100},
		"malformed":   {"Root=x;Parent=y;Sampled=1", 100},
		"0 percent":   {header, 0},
	} {
		under, end := tracer(t, daemon.Address, c.percent).Begin("x", c.header)
		end(tracing.Fault, map[string]any{"a": 1})
		if under != c.header {
			t.Errorf("%s: header = %q", name, under)
		}
	}
	// The next recorded part is the first document that arrives.
	_, end := tracer(t, daemon.Address, 100).Begin("last", header)
	end(tracing.OK, nil)
	if d := daemon.Next(); d.Name != "last" {
		t.Errorf("sent: %s", d.Raw)
	}
}

func TestOpenRecordsNothingWithoutDaemonOrIfDisabled(t *testing.T) {
	for name, c := range map[string]struct {
		daemon, disabled string
		percent          int
	}{
		"no daemon": {"", "", 100}, "0 percent": {"127.0.0.1:1", "", 0}, "disabled": {"127.0.0.1:1", "TRUE", 100},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("AWS_XRAY_SDK_DISABLED", c.disabled)
			tr, err := xraytracing.Open(c.daemon, c.percent)
			if err != nil {
				t.Fatal(err)
			}
			under, end := tr.Begin("x", header)
			end(tracing.Fault, map[string]any{"a": 1})
			if under != header {
				t.Errorf("header = %q", under)
			}
		})
	}
}

func TestSamplingIsPerTrace(t *testing.T) {
	daemon := xraytest.New(t)
	one, two := tracer(t, daemon.Address, 25), tracer(t, daemon.Address, 25) // two functions
	taken := 0
	for i := range 1000 {
		h := fmt.Sprintf("Root=1-5759e988-bd862e3fe1be46a9%08x;Parent=%s;Sampled=1", uint32(i)*2654435761, parent)
		under, end := one.Begin("a", h)
		end("", nil)
		under2, end2 := two.Begin("b", h)
		end2("", nil)
		if (under == h) != (under2 == h) {
			t.Fatalf("%s is recorded by one function and not by the other", h)
		}
		if under != h {
			taken++
			daemon.Next()
			daemon.Next()
		}
	}
	if taken < 200 || taken > 300 {
		t.Errorf("%d of 1000 recorded at 25 %%", taken)
	}
}

func TestLargeDocumentsAreTruncated(t *testing.T) {
	daemon := xraytest.New(t)
	_, end := tracer(t, daemon.Address, 100).Begin(strings.Repeat("n", 300), header)
	end(tracing.OK, map[string]any{"endpoint_id": strings.Repeat("x", 64), "event_id": strings.Repeat("y", 64), "attempt": 1 << 40})
	if d := daemon.Next(); len(d.Raw) > 1500 || len(d.Name) != 200 {
		t.Errorf("%d bytes: %s", len(d.Raw), d.Raw)
	}
}

func TestMissingDaemonIsIgnored(t *testing.T) {
	tr := tracer(t, "127.0.0.1:1", 100)
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			under, end := tr.Begin("x", header)
			end(tracing.OK, map[string]any{"a": 1})
			if tracing.ID(under) != root {
				t.Errorf("header = %q", under)
			}
		})
	}
	all.Wait()
}

func TestInvalidSettings(t *testing.T) {
	for _, percent := range []int{-1, 101} {
		if _, err := xraytracing.New("127.0.0.1:2000", percent); err == nil {
			t.Errorf("%d percent is accepted", percent)
		}
	}
	if _, err := xraytracing.New("nowhere", 100); err == nil {
		t.Error("a daemon address without a port is accepted")
	}
}
