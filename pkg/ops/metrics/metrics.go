// Package metrics writes CloudWatch metrics as log lines in Embedded Metric Format,
// without a client or a network call. It promises one line per batch, with the stack
// as the only dimension, because each endpoint as a dimension would be a billed
// metric. Statistics, logs and the health report tell endpoints apart.
package metrics

import (
	"context"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tidings-dev/tidings/pkg/ops/stats"
)

// Namespace is the namespace of the metrics in CloudWatch.
const Namespace = "Tidings"

// Names of the metrics, used by the template's alarms and dashboard.
const (
	Accepted       = "AcceptedEvents"
	Delivered      = "DeliveredDeliveries"
	FailedAttempts = "FailedAttempts"
	Dead           = "DeadDeliveries"
	Skipped        = "SkippedDeliveries"
	Latency        = "DeliverySeconds" // from acceptance to delivery
	Sweeps         = "Sweeps"          // complete sweeps
	Overdue        = "OverdueDeliveries"
	OldestOverdue  = "OldestOverdueSeconds"
	Waiting        = "WaitingDeliveries" // scheduled for a later attempt
	Captured       = "CapturedEvents"    // changes of the platform's table that became an event
	CaptureFailed  = "CaptureFailures"   // changes that should have and could not
)

// forAlarms are the metrics that the template's alarms look at.
var forAlarms = []string{Sweeps, OldestOverdue, CaptureFailed}

// Statistics stores statistics, as the interface of that name in dispatch.
type Statistics interface {
	AddStatistics(ctx context.Context, b stats.Batch) error
	NoteSweep(ctx context.Context, s stats.Sweep) error
}

// Writer writes a line per batch and per sweep, and passes both on to Next.
type Writer struct {
	Next  Statistics
	Out   io.Writer
	Stack string
	// All writes every metric. Otherwise only those are written that alarms look at,
	// because CloudWatch charges for each metric.
	All bool
	// Level is the minimum level of lines that Lambda passes to CloudWatch; empty is
	// INFO. Lambda treats a line without a level as INFO, so above INFO the lines state
	// this level (Lambda developer guide, "Log-level filtering").
	Level string
}

// AddStatistics writes the counts that are not zero. A missing value does not change
// a sum and costs nothing.
func (w Writer) AddStatistics(ctx context.Context, b stats.Batch) error {
	values := make([]value, 0, 8)
	for _, v := range [...]value{
		count(Accepted, b.Accepted), count(Delivered, b.Delivered), count(FailedAttempts, b.Failed), count(Dead, b.Dead), count(Skipped, b.Skipped),
		count(Captured, b.Captured), count(CaptureFailed, b.CaptureFailed),
	} {
		if v.number > 0 {
			values = append(values, v)
		}
	}
	if len(b.Latencies) > 0 {
		values = append(values, value{name: Latency, unit: unitSeconds, list: b.Latencies})
	}
	w.line(b.At, values)
	return w.Next.AddStatistics(ctx, b)
}

// NoteSweep writes the result of a sweep, including zeros, which end an alarm.
func (w Writer) NoteSweep(ctx context.Context, s stats.Sweep) error {
	var oldest time.Duration
	if !s.OldestDue.IsZero() {
		oldest = s.At.Sub(s.OldestDue)
	}
	var done int64
	if s.Done {
		done = 1
	}
	w.line(s.At, []value{
		count(Sweeps, done), count(Overdue, int64(s.Overdue)), {name: OldestOverdue, unit: unitSeconds, number: oldest.Seconds()}, count(Waiting, int64(s.Retrying)),
	})
	return w.Next.NoteSweep(ctx, s)
}

// value is one value of a metric, or a list of values.
type value struct {
	name, unit string
	number     float64
	list       []time.Duration
}

// Units of CloudWatch.
const (
	unitCount   = "Count"
	unitSeconds = "Seconds"
)

func count(name string, n int64) value { return value{name: name, unit: unitCount, number: float64(n)} }

// line writes a line as in CloudWatch Logs' "Specification: Embedded metric format".
// It appends to a buffer, because it runs for every batch.
func (w Writer) line(at time.Time, values []value) {
	if !w.All {
		values = slices.DeleteFunc(values, func(v value) bool { return !slices.Contains(forAlarms, v.name) })
	}
	if len(values) == 0 {
		return
	}
	to := append(make([]byte, 0, 768), `{"_aws":{"Timestamp":`...)
	to = strconv.AppendInt(to, at.UnixMilli(), 10)
	to = append(to, `,"CloudWatchMetrics":[{"Namespace":"`+Namespace+`","Dimensions":[["Stack"]],"Metrics":[`...)
	for i, v := range values {
		if i > 0 {
			to = append(to, ',')
		}
		to = append(append(to, `{"Name":"`...), v.name...)
		to = append(append(append(to, `","Unit":"`...), v.unit...), `"}`...)
	}
	to = append(to, `]}]}`...)
	if w.Level != "" && w.Level != "INFO" && w.Level != "DEBUG" {
		to, _ = jsontext.AppendQuote(append(to, `,"level":`...), w.Level)
		// Lambda ignores the level of a line without a timestamp.
		to = append(at.UTC().AppendFormat(append(to, `,"timestamp":"`...), time.RFC3339Nano), '"')
	}
	to = append(to, `,"Stack":`...)
	to, _ = jsontext.AppendQuote(to, w.Stack) // invalid UTF-8 becomes U+FFFD
	for _, v := range values {
		to = append(append(append(to, `,"`...), v.name...), `":`...)
		if v.list == nil {
			to = number(to, v.number)
			continue
		}
		to = append(to, '[')
		for i, d := range v.list {
			if i > 0 {
				to = append(to, ',')
			}
			to = number(to, d.Seconds())
		}
		to = append(to, ']')
	}
	_, _ = w.Out.Write(append(to, "}\n"...)) // metrics must not fail a batch
}

func number(to []byte, n float64) []byte { return strconv.AppendFloat(to, n, 'f', -1, 64) }
