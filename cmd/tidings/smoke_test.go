package main

import (
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/systemtest"
)

func TestSmokePassesOnTheLocalRunner(t *testing.T) {
	t.Parallel()
	x := newTool(t, func(o *local.Options) { o.TimeScale = 60 }) // a sweep each second
	out, _ := x.do(0, "", "smoke")
	if !strings.Contains(out, "passed in") || strings.Count(out, "✓") != 7 {
		t.Errorf("it prints\n%s", out)
	}
	var report systemtest.SmokeReport
	x.json(&report, "smoke")
	if !report.OK || report.EventID == "" || len(report.Steps) != 7 {
		t.Errorf("it reports %+v", report)
	}
	// The run's endpoint is gone.
	if out, _ := x.do(0, "", "endpoint", "list", "--tenant", "test-"+report.Run); !strings.Contains(out, "no endpoints") {
		t.Errorf("left behind:\n%s", out)
	}
}

func TestSmokeFailsWhereNothingArrives(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for what does not come")
	}
	t.Parallel()
	x := newTool(t, func(o *local.Options) { o.TimeScale = 60 })
	out, errOut := x.do(1, "", "smoke", "--receiver-url", "http://127.0.0.1:1", "--receive-time", "2s")
	if !strings.Contains(out, "✗") || !strings.Contains(out, "has not arrived") || !strings.Contains(out, "connection refused") ||
		!strings.Contains(out, "remove the endpoint") || strings.Contains(out, "health") || errOut != "" {
		t.Errorf("it prints\n%s%s", out, errOut)
	}
}
