package metrics_test

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/ops/metrics"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/store/memory"
)

// line is a log line in Embedded Metric Format.
type line struct {
	AWS struct {
		Timestamp         int64
		CloudWatchMetrics []struct {
			Namespace  string
			Dimensions [][]string
			Metrics    []struct{ Name, Unit string }
		}
	} `json:"_aws"`
	values map[string]any
}

func read(t *testing.T, text string) line {
	t.Helper()
	var l line
	if strings.Count(text, "\n") != 1 || json.Unmarshal([]byte(text), &l) != nil || json.Unmarshal([]byte(text), &l.values) != nil {
		t.Fatalf("%q is not one line of JSON", text)
	}
	if len(l.AWS.CloudWatchMetrics) != 1 || len(l.AWS.CloudWatchMetrics[0].Metrics) > 100 {
		t.Fatalf("%s: want one directive with at most 100 metrics", text)
	}
	d := l.AWS.CloudWatchMetrics[0]
	if d.Namespace != metrics.Namespace || len(d.Dimensions) != 1 || !slices.Equal(d.Dimensions[0], []string{"Stack"}) || l.values["Stack"] != "mine" {
		t.Errorf("%s: want the stack as the only dimension", text)
	}
	for _, m := range d.Metrics {
		if _, ok := l.values[m.Name]; !ok || m.Unit == "" {
			t.Errorf("%s: %s has no value", text, m.Name)
		}
	}
	if len(l.values) != len(d.Metrics)+2 {
		t.Errorf("%s: has other fields than its metrics", text)
	}
	return l
}

func TestBatchIsOneLineAndIsPassedOn(t *testing.T) {
	var out bytes.Buffer
	store := memory.New(time.Now)
	w := metrics.Writer{Next: store, Out: &out, Stack: "mine", All: true}
	at := time.UnixMilli(1769690096789)
	b := stats.Batch{ID: "1", At: at, Worked: true, Counts: stats.Counts{Attempts: 3, Delivered: 2, Failed: 1, Dead: 1, Captured: 5, CaptureFailed: 4},
		Latencies: []time.Duration{1500 * time.Millisecond, 2 * time.Second}, Disabled: []stats.Endpoint{{Tenant: "t", ID: "ep_secret"}}}
	if err := w.AddStatistics(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	l := read(t, out.String())
	if l.AWS.Timestamp != 1769690096789 || l.values[metrics.Delivered] != 2.0 || l.values[metrics.Dead] != 1.0 || l.values[metrics.Accepted] != nil ||
		l.values[metrics.Captured] != 5.0 || l.values[metrics.CaptureFailed] != 4.0 ||
		!slices.Equal(l.values[metrics.Latency].([]any), []any{1.5, 2.0}) {
		t.Errorf("%s", out.String())
	}
	if strings.Contains(out.String(), "ep_") {
		t.Error("the line names an endpoint")
	}
	all, _, err := store.ReadStatistics(t.Context(), stats.Buckets(at, at))
	if err != nil || len(all[stats.Bucket(at)].Minutes) != 1 {
		t.Errorf("the batch was not passed on: %+v, %v", all, err)
	}

	out.Reset()
	if err := w.AddStatistics(t.Context(), stats.Batch{ID: "2", At: at, Worked: true}); err != nil || out.Len() > 0 {
		t.Errorf("an empty batch writes %q, %v", out.String(), err)
	}
}

// CloudWatch charges for each metric, so that by default only those are written that the
// template's alarms look at.
func TestByDefaultOnlyTheMetricsOfAlarmsAreWritten(t *testing.T) {
	text, err := os.ReadFile("../../../template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, m := range regexp.MustCompile(`(?m)Namespace: Tidings\n\s+MetricName: (\w+)`).FindAllStringSubmatch(string(text), -1) {
		want = append(want, m[1])
	}
	slices.Sort(want)
	var out bytes.Buffer
	w := metrics.Writer{Next: memory.New(time.Now), Out: &out, Stack: "mine"}
	at := time.Now()
	counts := stats.Counts{Accepted: 1, Attempts: 3, Delivered: 2, Failed: 1, Dead: 1, Skipped: 1, Captured: 5, CaptureFailed: 4}
	if err := w.AddStatistics(t.Context(), stats.Batch{ID: "1", At: at, Worked: true, Counts: counts, Latencies: []time.Duration{time.Second}}); err != nil {
		t.Fatal(err)
	}
	if err := w.NoteSweep(t.Context(), stats.Sweep{At: at, Done: true, Overdue: 1, OldestDue: at, Retrying: 1}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for text := range strings.Lines(out.String()) {
		for _, m := range read(t, text).AWS.CloudWatchMetrics[0].Metrics {
			got = append(got, m.Name)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("written are %v, the alarms look at %v", got, want)
	}
}

func TestSweepIsOneLine(t *testing.T) {
	var out bytes.Buffer
	w := metrics.Writer{Next: memory.New(time.Now), Out: &out, Stack: "mine", All: true}
	at := time.Now()
	for _, s := range []stats.Sweep{{At: at, Done: true}, {At: at, Overdue: 2, OldestDue: at.Add(-time.Minute), Retrying: 7}} {
		out.Reset()
		if err := w.NoteSweep(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		l := read(t, out.String())
		if done := l.values[metrics.Sweeps] == 1.0; done != s.Done || l.values[metrics.Overdue] != float64(s.Overdue) || l.values[metrics.Waiting] != float64(s.Retrying) {
			t.Errorf("%+v is written as %s", s, out.String())
		}
		if age := l.values[metrics.OldestOverdue]; age != 0.0 && age != 60.0 {
			t.Errorf("the oldest is %v s overdue", age)
		}
	}
}

// Lambda drops lines below its minimum level, and treats lines without a level, or
// without a timestamp, as INFO. Without metrics, the missed-sweep alarm would fire.
func TestMetricsPassAtEveryLogLevel(t *testing.T) {
	for level, want := range map[string]string{"": "", "DEBUG": "", "INFO": "", "WARN": "WARN", "ERROR": "ERROR"} {
		var out bytes.Buffer
		w := metrics.Writer{Next: memory.New(time.Now), Out: &out, Stack: "mine", All: true, Level: level}
		at := time.UnixMilli(1769690096789)
		if err := w.NoteSweep(t.Context(), stats.Sweep{At: at, Done: true}); err != nil {
			t.Fatal(err)
		}
		var line struct {
			Level     string    `json:"level"`
			Timestamp time.Time `json:"timestamp"`
			Sweeps    int
		}
		if err := json.Unmarshal(out.Bytes(), &line); err != nil || line.Level != want || line.Timestamp.Equal(at) != (want != "") || line.Sweeps != 1 {
			t.Errorf("at %q: %s (%v)", level, out.String(), err)
		}
	}
}

// An alarm on a metric that is never written does not fire.
func TestTemplateUsesTheMetricsThatAreWritten(t *testing.T) {
	text, err := os.ReadFile("../../../template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	written := []string{metrics.Accepted, metrics.Delivered, metrics.FailedAttempts, metrics.Dead, metrics.Skipped, metrics.Latency,
		metrics.Sweeps, metrics.Overdue, metrics.OldestOverdue, metrics.Waiting, metrics.Captured, metrics.CaptureFailed}
	found := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)Namespace: Tidings\n\s+MetricName: (\w+)|\["Tidings", "(\w+)"`).FindAllStringSubmatch(string(text), -1) {
		name := m[1] + m[2]
		found[name] = true
		if !slices.Contains(written, name) {
			t.Errorf("the template uses %s, which is never written", name)
		}
	}
	for _, name := range written {
		if !found[name] {
			t.Errorf("%s is written but the template does not use it", name)
		}
	}
}
