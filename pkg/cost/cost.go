// Package cost estimates what a deployment costs a month, from AWS's list prices
// and from what a delivery was measured to use. It is arithmetic alone: no I/O,
// no clock. It promises that every number it multiplies has a name and a source,
// and that free tiers and discounts are left out, so that a bill is below.
package cost

import (
	"fmt"
	"strings"
)

// Prices are list prices in US dollars.
type Prices struct {
	Date, Region string

	WriteUnits      float64 // DynamoDB on demand, a million write request units
	ReadUnits       float64 // a million read request units
	StorageGB       float64 // DynamoDB, a GB and month
	BackupGB        float64 // point-in-time recovery, a GB and month
	SQSRequests     float64 // standard queue, a million requests of up to 64 KB
	LambdaRequests  float64 // a million
	LambdaGBSeconds float64 // a million GB-seconds, arm64
	Schedules       float64 // EventBridge Scheduler, a million invocations
	LogsGB          float64 // CloudWatch Logs, a GB taken in
	Traces          float64 // X-Ray, a million traces recorded
	TransferGB      float64 // out to the internet, a GB
	Alarm           float64 // a metric of an alarm and month
	Metric          float64 // a metric of one's own and month
	Dashboard       float64 // a month
	Key             float64 // a KMS key and month
}

// List is what AWS's price pages said for us-east-1, the first and dearest step
// of each. Read them again before you decide by a table made from it.
var List = Prices{
	Date: "2025-11", Region: "us-east-1",
	WriteUnits: 0.625, ReadUnits: 0.125, StorageGB: 0.25, BackupGB: 0.20,
	SQSRequests: 0.40, LambdaRequests: 0.20, LambdaGBSeconds: 13.3334, Schedules: 1.00,
	LogsGB: 0.50, Traces: 5.00, TransferGB: 0.09, Alarm: 0.10, Metric: 0.30, Dashboard: 3.00, Key: 1.00,
}

// Use is what events and deliveries take. Units are those that `make figures`
// measures and the README prints; a test holds the two together.
type Use struct {
	EndpointsPerEvent float64

	EventWriteUnits    float64 // putting the event
	DeliveryWriteUnits float64 // claim and verdict
	EventReadUnits     float64 // of an event with one endpoint
	RetryWriteUnits    float64 // claim and verdict again, and two writes of the due index
	RetriedShare       float64 // of deliveries, that need a second attempt

	EventBytes, DeliveryBytes float64 // as they are stored, for the retention's month
	RequestBytes              float64 // of a webhook, headers and TLS with it
	LogBytes                  float64 // an attempt's line and its share of the others
	ReceiverSeconds           float64 // how long a receiver takes to answer
	MemoryGB                  float64 // of the functions
	TracedShare               float64 // X-Ray's own default beyond the first a second
}

// Measured is one event of up to a kilobyte to one endpoint that answers in
// 200 ms and fails one time in twenty.
var Measured = Use{
	EndpointsPerEvent: 1, EventWriteUnits: 1, DeliveryWriteUnits: 2, EventReadUnits: 1,
	RetryWriteUnits: 4, RetriedShare: 0.05, EventBytes: 1100, DeliveryBytes: 700, RequestBytes: 2000,
	LogBytes: 1200, ReceiverSeconds: 0.2, MemoryGB: 0.5, TracedShare: 0.05,
}

// What goes on whether anything is delivered or not.
const (
	month          = 30 * 24 * 3600.0 // seconds
	minutes        = month / 60
	sweepReadUnits = 16.0            // a minute: 16 shards of the due index, and the circuits'
	idlePolls      = 5 * month / 20  // Lambda polls a queue by five, 20 seconds each
	schedules      = 2*minutes + 720 // sweep and alerts each minute, discussions each hour
	alarmMetrics   = 20.0
	metrics        = 10.0
	maxBatch       = 10.0
	gathering      = 0.2  // seconds within which what arrives shares a batch
	runSeconds     = 0.05 // of a run, beside waiting for a receiver
)

// Line is one service's part of a month's bill.
type Line struct {
	Name    string
	Dollars float64
}

// Month is what a month costs.
type Month struct {
	Deliveries float64
	Lines      []Line
	Total      float64
}

// PerMillion is what a million deliveries cost, all told.
func (m Month) PerMillion() float64 { return m.Total / m.Deliveries * 1e6 }

// Of returns what a month with that many deliveries costs.
func Of(deliveries float64, u Use, p Prices) Month {
	events := deliveries / u.EndpointsPerEvent
	attempts := deliveries * (1 + u.RetriedShare)
	batch := min(maxBatch, max(1, deliveries/month*gathering))
	// A batch is written and read as one request, its attempts run beside each
	// other, and it writes its statistics once.
	runs := attempts/batch + events/batch + events // deliver, fan out, emit
	seconds := attempts/batch*u.ReceiverSeconds + runs*runSeconds + schedules*runSeconds

	writes := events*u.EventWriteUnits + deliveries*u.DeliveryWriteUnits + deliveries*u.RetriedShare*u.RetryWriteUnits + runs
	reads := events*u.EventReadUnits + minutes*sweepReadUnits
	stored := (events*u.EventBytes + deliveries*u.DeliveryBytes) / 1e9
	traces := min(runs, month+runs*u.TracedShare)

	m := Month{Deliveries: deliveries, Lines: []Line{
		{"DynamoDB", writes/1e6*p.WriteUnits + reads/1e6*p.ReadUnits},
		{"storage", stored * (p.StorageGB + p.BackupGB)},
		{"SQS", (3*attempts/batch + idlePolls) / 1e6 * p.SQSRequests},
		{"Lambda", (runs+schedules)/1e6*p.LambdaRequests + seconds*u.MemoryGB/1e6*p.LambdaGBSeconds},
		{"logs, traces", attempts*u.LogBytes/1e9*p.LogsGB + traces/1e6*p.Traces},
		{"transfer", attempts * u.RequestBytes / 1e9 * p.TransferGB},
		{"standing", schedules/1e6*p.Schedules + alarmMetrics*p.Alarm + metrics*p.Metric + p.Dashboard + p.Key},
	}}
	for _, l := range m.Lines {
		m.Total += l.Dollars
	}
	return m
}

// Volumes are the months of the table in docs/cost.md.
var Volumes = []float64{1e4, 1e5, 1e6, 1e7, 1e8, 1e9}

// Table returns the table of docs/cost.md, in Markdown.
func Table(u Use, p Prices) string {
	var b strings.Builder
	for i, v := range Volumes {
		m := Of(v, u, p)
		if i == 0 {
			b.WriteString("| deliveries a month |")
			for _, l := range m.Lines {
				fmt.Fprintf(&b, " %s |", l.Name)
			}
			b.WriteString(" total | a million |\n|--:|" + strings.Repeat("--:|", len(m.Lines)+2) + "\n")
		}
		fmt.Fprintf(&b, "| %s |", count(v))
		for _, l := range m.Lines {
			fmt.Fprintf(&b, " %s |", dollars(l.Dollars))
		}
		fmt.Fprintf(&b, " %s | %s |\n", dollars(m.Total), dollars(m.PerMillion()))
	}
	return b.String()
}

func dollars(v float64) string {
	if v < 100 {
		return fmt.Sprintf("$%.2f", v)
	}
	return "$" + count(v)
}

// count writes a number with its thousands apart.
func count(v float64) string {
	text := fmt.Sprintf("%.0f", v)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
