// Package metrics writes CloudWatch metrics as lines of the log (Embedded Metric
// Format): no call, no client, nothing to wait for. It promises one line a batch,
// and the stack as the only dimension: a dimension for each endpoint would make
// each a metric that is paid for, and endpoints are told apart in the statistics,
// the log and the health report.
package metrics

import (
	"context"
	"io"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tidings-dev/tidings/pkg/ops/stats"
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
	// Level is the least level that passes to CloudWatch. Lambda takes a line without
	// one for INFO, so where less does not pass, metrics say that they are of it
	// (Lambda's developer guide, "Log-level filtering"); "" is INFO.
	Level string
}

// AddStatistics writes what is not zero. A metric that is missing counts as zero
// where it is summed up, and costs nothing.
func (w Writer) AddStatistics(ctx context.Context, b stats.Batch) error {
	values := make([]value, 0, 6)
	for _, v := range [...]value{count(Accepted, b.Accepted), count(Delivered, b.Delivered), count(FailedAttempts, b.Failed), count(Dead, b.Dead), count(Skipped, b.Skipped)} {
		if v.number > 0 {
			values = append(values, v)
		}
	}
	if len(b.Latencies) > 0 {
		values = append(values, value{name: Latency, unit: seconds, list: b.Latencies})
	}
	w.line(b.At, values)
	return w.Next.AddStatistics(ctx, b)
}

// NoteSweep writes what the sweep saw, zeros too: that there is nothing overdue is
// what ends an alarm.
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
		count(Sweeps, done), count(Overdue, int64(s.Overdue)), {name: OldestOverdue, unit: seconds, number: oldest.Seconds()}, count(Waiting, int64(s.Retrying)),
	})
	return w.Next.NoteSweep(ctx, s)
}

// value is a metric's, or several of it.
type value struct {
	name, unit string
	number     float64
	list       []time.Duration
}

// The units, which are CloudWatch's.
const (
	counted = "Count"
	seconds = "Seconds"
)

func count(name string, n int64) value { return value{name: name, unit: counted, number: float64(n)} }

// line writes what CloudWatch Logs' "Specification: Embedded metric format" asks
// for. It is written by appending: this is done for each batch.
func (w Writer) line(at time.Time, values []value) {
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
		// Without an instant, Lambda overlooks the level.
		to = append(at.UTC().AppendFormat(append(to, `,"timestamp":"`...), time.RFC3339Nano), '"')
	}
	to = append(to, `,"Stack":`...)
	to, _ = jsontext.AppendQuote(to, w.Stack) // the error says that it has U+FFFD for what is not UTF-8
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
	_, _ = w.Out.Write(append(to, "}\n"...)) // a log that is full hurts nothing else
}

func number(to []byte, n float64) []byte { return strconv.AppendFloat(to, n, 'f', -1, 64) }
