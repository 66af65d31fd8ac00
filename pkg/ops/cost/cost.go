// Package cost has AWS's list prices, once, and what follows from them: what a
// million events, a month and an idle deployment cost, from what was measured to
// be used. It is arithmetic alone: no I/O, no clock. It promises that every number
// it multiplies has a name and a source, and that free tiers and discounts are
// left out, or said apart, so that a bill is below.
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

// What AWS gives every account each month and does not take back after a year.
const (
	FreeSQSRequests     = 1e6
	FreeLambdaRequests  = 1e6
	FreeLambdaGBSeconds = 400e3
	FreeSchedules       = 14e6
	FreeLogBytes        = 5e9
	FreeTraces          = 100e3
	FreeAlarms          = 10.0 // metrics of alarms
	FreeMetrics         = 10.0
	FreeDashboards      = 3.0
)

// What cannot be measured on one machine, and is reckoned with everywhere alike.
const (
	ReceiverSeconds = 0.2  // how long a receiver takes to answer
	MemoryGB        = 0.5  // of the functions
	TracedShare     = 0.05 // X-Ray's own default beyond the first a second

	// LineBytes is what CloudWatch Logs counts beside each line (PutLogEvents).
	LineBytes = 26
	// started and reported are what Lambda itself writes for each invocation, where
	// a function logs JSON, is traced, and has these lines written at all.
	started = `{"time":"2026-01-29T12:34:56.789Z","type":"platform.start","record":{"requestId":"8ae6e4d4-8cd5-4f6d-8f0a-2a3f0f3b6a31","functionArn":"arn:aws:lambda:us-east-1:123456789012:function:tidings-dispatch:live","version":"42",` +
		`"tracing":{"spanId":"53995c3f42cd8ad8","type":"X-Amzn-Trace-Id","value":"Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"}}}`
	reported = `{"time":"2026-01-29T12:34:57.012Z","type":"platform.report","record":{"requestId":"8ae6e4d4-8cd5-4f6d-8f0a-2a3f0f3b6a31","metrics":{"durationMs":223.456,"billedDurationMs":224,"memorySizeMB":512,"maxMemoryUsedMB":48},` +
		`"tracing":{"spanId":"53995c3f42cd8ad8","type":"X-Amzn-Trace-Id","value":"Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"},"status":"success"}}`
	// PlatformBytes are those two lines.
	PlatformBytes = float64(len(started) + len(reported) + 2*LineBytes)

	// HandshakeBytes is what a client sends to open a connection by TLS 1.3, its
	// hybrid key share (X25519MLKEM768) and the packets' headers included.
	HandshakeBytes = 2000
	// PacketBytes is what a request over an open connection takes besides its own
	// bytes: TLS's records, and TCP/IP's headers of its packets and acknowledgements.
	PacketBytes = 200
)

// Watched is what an invocation leaves behind for whoever looks, beside our lines.
type Watched struct {
	LogBytes float64 // Lambda's own lines about it
	Traced   float64 // the share of invocations that X-Ray records, beyond the first a second
}

// WatchedBy is what an invocation leaves behind by its function's SystemLogLevel
// and Tracing. What Lambda says of an invocation that went well is INFO; at WARN it
// speaks of what failed alone.
func WatchedBy(systemLogLevel, tracing string) (w Watched) {
	if systemLogLevel != "WARN" {
		w.LogBytes = PlatformBytes
	}
	if tracing == "Active" {
		w.Traced = TracedShare
	}
	return w
}

// Count is what AWS counts: for one event with all its deliveries, for a month's,
// for whatever else happens.
type Count struct {
	WriteUnits, ReadUnits float64
	SQSRequests           float64
	Runs                  float64 // invocations
	Seconds               float64 // of them, together
	LogBytes              float64 // taken in, Lambda's own lines and the lines' overhead included
	Traces                float64 // recorded
	SentBytes             float64 // to receivers on the internet
}

// Times is the count of as many.
func (c Count) Times(n float64) Count {
	return Count{c.WriteUnits * n, c.ReadUnits * n, c.SQSRequests * n, c.Runs * n, c.Seconds * n, c.LogBytes * n, c.Traces * n, c.SentBytes * n}
}

// Plus adds another's.
func (c Count) Plus(o Count) Count {
	return Count{
		c.WriteUnits + o.WriteUnits, c.ReadUnits + o.ReadUnits, c.SQSRequests + o.SQSRequests, c.Runs + o.Runs,
		c.Seconds + o.Seconds, c.LogBytes + o.LogBytes, c.Traces + o.Traces, c.SentBytes + o.SentBytes,
	}
}

// Line is one service's part of a bill.
type Line struct {
	Name    string
	Dollars float64
}

// Lines are what a count costs, service by service.
func (c Count) Lines(p Prices) []Line {
	return []Line{
		{"DynamoDB", (c.WriteUnits*p.WriteUnits + c.ReadUnits*p.ReadUnits) / 1e6},
		{"SQS", c.SQSRequests / 1e6 * p.SQSRequests},
		{"Lambda", (c.Runs*p.LambdaRequests + c.Seconds*MemoryGB*p.LambdaGBSeconds) / 1e6},
		{"logs", c.LogBytes / 1e9 * p.LogsGB},
		{"traces", c.Traces / 1e6 * p.Traces},
		{"transfer", c.SentBytes / 1e9 * p.TransferGB},
	}
}

// Total is what lines come to.
func Total(lines []Line) (dollars float64) {
	for _, l := range lines {
		dollars += l.Dollars
	}
	return dollars
}

// Use is what events and deliveries take.
type Use struct {
	EndpointsPerEvent float64

	EventWriteUnits    float64 // putting the event
	DeliveryWriteUnits float64 // claim and verdict
	EventReadUnits     float64 // of an event that comes alone, when nothing is cached
	RetryWriteUnits    float64 // what a second attempt takes besides
	RetriedShare       float64 // of deliveries, that need a second attempt

	EventBytes, DeliveryBytes float64 // as they are stored, for the retention's month
	WebhookBytes              float64 // of a webhook's request
	AttemptLogBytes           float64 // an attempt's line
	RunLogBytes               float64 // an invocation's own lines, but for Lambda's
	EmitSeconds               float64 // an invocation of emit
	FanOutSeconds             float64 // one that fans out
	DeliverSeconds            float64 // one that delivers, besides waiting for a receiver

	Watched Watched // by the template's defaults
}

// Measured is one event of a kilobyte to one endpoint that answers in 200 ms and
// fails one time in twenty. The counts are those of test/bench/units.json, which a
// test sees to; the times are what `make bench-cost` measures, rounded up.
var Measured = Use{
	EndpointsPerEvent: 1, EventWriteUnits: 1, DeliveryWriteUnits: 2, EventReadUnits: 1,
	RetryWriteUnits: 6, RetriedShare: 0.05, EventBytes: 1100, DeliveryBytes: 700, WebhookBytes: 1211,
	AttemptLogBytes: 510, RunLogBytes: 250, EmitSeconds: 0.01, FanOutSeconds: 0.03, DeliverSeconds: 0.05,
	Watched: WatchedBy("WARN", "PassThrough"),
}

const (
	month     = 30 * 24 * 3600.0 // seconds
	maxBatch  = 10.0             // messages of an invocation that delivers
	maxFanOut = 100.0            // events of one that fans out
	gathering = 0.2              // seconds within which what arrives shares a batch
)

// Polls are the requests of an idle queue's month: Lambda asks it by five, for
// twenty seconds each.
const Polls = 5 * month / 20

// Runs are the scheduled invocations of a month: sweep and alerts each minute,
// discussions each hour.
const Runs = 2*month/60 + month/3600

// IdleSeconds is how long a scheduled run takes that finds nothing to do: some
// round trips, most beside each other.
const IdleSeconds = 0.05

// Idle is what the month of a deployment takes that nobody uses: what its
// schedules' runs do, and Lambda's polling. A test holds it to test/bench/units.json.
var Idle = Count{
	WriteUnits: month / 60, ReadUnits: 19.5 * month / 60, SQSRequests: Polls + 3*month/60,
	Runs: Runs, Seconds: Runs * IdleSeconds, LogBytes: Runs * 310,
}

// Standing is charged by the month, whatever happens.
type Standing struct {
	Alarms, Metrics, Dashboards, Keys float64
	Schedules                         float64 // invocations by EventBridge Scheduler
}

// Stands is what the template makes, with every metric written.
var Stands = Standing{Alarms: 15, Metrics: 10, Dashboards: 1, Keys: 1, Schedules: Runs}

// Dollars are what it costs.
func (s Standing) Dollars(p Prices) float64 {
	return s.Schedules/1e6*p.Schedules + s.Alarms*p.Alarm + s.Metrics*p.Metric + s.Dashboards*p.Dashboard + s.Keys*p.Key
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
	together := max(1, deliveries/month*gathering)
	batch, fan := min(maxBatch, together), min(maxFanOut, together)
	// A batch is written and read as one request, its attempts run beside each
	// other, and it writes its statistics once.
	delivers, fanOuts := attempts/batch, events/fan
	runs := events + fanOuts + delivers // emit, fan out, deliver
	all := Count{
		WriteUnits:  events*u.EventWriteUnits + deliveries*u.DeliveryWriteUnits + deliveries*u.RetriedShare*u.RetryWriteUnits + fanOuts + delivers,
		ReadUnits:   events / fan * u.EventReadUnits,
		SQSRequests: 3 * delivers,
		Runs:        runs,
		Seconds:     events*u.EmitSeconds + fanOuts*u.FanOutSeconds + delivers*(u.DeliverSeconds+ReceiverSeconds),
		LogBytes:    attempts*u.AttemptLogBytes + runs*(u.RunLogBytes+u.Watched.LogBytes),
		SentBytes:   attempts*(u.WebhookBytes+PacketBytes) + delivers*HandshakeBytes,
	}.Plus(Idle)
	if u.Watched.Traced > 0 {
		all.Traces = min(all.Runs, month+all.Runs*u.Watched.Traced)
	}
	lines := all.Lines(p)
	stored := (events*u.EventBytes + deliveries*u.DeliveryBytes) / 1e9
	lines = append(lines, Line{"storage", stored * (p.StorageGB + p.BackupGB)}, Line{"standing", Stands.Dollars(p)})
	return Month{Deliveries: deliveries, Lines: lines, Total: Total(lines)}
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
