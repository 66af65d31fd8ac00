// Package metrics writes CloudWatch metrics as lines of the log (Embedded Metric
// Format): no call, no client, nothing to wait for. It promises one line a batch,
// and the stack as the only dimension: a dimension for each endpoint would make
// each a metric that is paid for, and endpoints are told apart in the statistics,
// the log and the health report.
package metrics

import (
	"context"
	"encoding/json"
	"io"
	"time"

	"github.com/tidings-dev/tidings/pkg/stats"
)

// Namespace is where the metrics are in CloudWatch.
const Namespace = "Tidings"

// The metrics' names, which alarms and the dashboard refer to.
const (
	Accepted       = "AcceptedEvents"
	Delivered      = "DeliveredDeliveries"
	FailedAttempts = "FailedAttempts"
	Dead           = "DeadDeliveries"
	Skipped        = "SkippedDeliveries"
	Latency        = "DeliverySeconds" // from acceptance to delivery
	Sweeps         = "Sweeps"          // that went through everything
	Overdue        = "OverdueDeliveries"
	OldestOverdue  = "OldestOverdueSeconds"
	Waiting        = "WaitingDeliveries"
)

// units are CloudWatch's.
var units = map[string]string{Latency: "Seconds", OldestOverdue: "Seconds"}

// Statistics is where the counts go on to; dispatch's port of that name.
type Statistics interface {
	AddStatistics(ctx context.Context, b stats.Batch) error
	NoteSweep(ctx context.Context, s stats.Sweep) error
}

// Writer writes a line for each batch and each sweep, and hands them on.
type Writer struct {
	Next  Statistics
	Out   io.Writer
	Stack string
}

// AddStatistics writes what is not zero. A metric that is missing counts as zero
// where it is summed up, and costs nothing.
func (w Writer) AddStatistics(ctx context.Context, b stats.Batch) error {
	values := map[string]any{}
	for name, n := range map[string]int64{Accepted: b.Accepted, Delivered: b.Delivered, FailedAttempts: b.Failed, Dead: b.Dead, Skipped: b.Skipped} {
		if n > 0 {
			values[name] = n
		}
	}
	if len(b.Latencies) > 0 {
		seconds := make([]float64, len(b.Latencies))
		for i, l := range b.Latencies {
			seconds[i] = l.Seconds()
		}
		values[Latency] = seconds
	}
	w.line(b.At, values)
	return w.Next.AddStatistics(ctx, b)
}

// NoteSweep writes what the sweep saw, zeros too: that there is nothing overdue is
// what ends an alarm.
func (w Writer) NoteSweep(ctx context.Context, s stats.Sweep) error {
	oldest := 0.0
	if !s.OldestDue.IsZero() {
		oldest = s.At.Sub(s.OldestDue).Seconds()
	}
	values := map[string]any{Sweeps: 0, Overdue: s.Overdue, OldestOverdue: oldest, Waiting: s.Retrying}
	if s.Done {
		values[Sweeps] = 1
	}
	w.line(s.At, values)
	return w.Next.NoteSweep(ctx, s)
}

// metric and directive are of CloudWatch Logs' "Specification: Embedded metric
// format".
type metric struct {
	Name string
	Unit string
}

type directive struct {
	Namespace  string
	Dimensions [][]string
	Metrics    []metric
}

func (w Writer) line(at time.Time, values map[string]any) {
	if len(values) == 0 {
		return
	}
	d := directive{Namespace: Namespace, Dimensions: [][]string{{"Stack"}}}
	for _, name := range []string{Accepted, Delivered, FailedAttempts, Dead, Skipped, Latency, Sweeps, Overdue, OldestOverdue, Waiting} {
		if _, ok := values[name]; !ok {
			continue
		}
		unit := units[name]
		if unit == "" {
			unit = "Count"
		}
		d.Metrics = append(d.Metrics, metric{name, unit})
	}
	values["Stack"] = w.Stack
	values["_aws"] = map[string]any{"Timestamp": at.UnixMilli(), "CloudWatchMetrics": []directive{d}}
	text, err := json.Marshal(values)
	if err != nil {
		return // numbers and names always marshal, but for a duration that is none
	}
	_, _ = w.Out.Write(append(text, '\n')) // a log that is full hurts nothing else
}
