// Package cost computes what Tidings costs on AWS, per million events, per month and
// idle, from list prices and measured usage. It is pure arithmetic: no I/O, no clock.
// It promises that every number has a name and a source, and that free tiers and
// discounts are left out or stated separately, so that the actual bill is lower.
package cost

import (
	"fmt"
	"strings"
)

// Prices are list prices in US dollars.
type Prices struct {
	Date, Region string

	WriteUnits      float64 // DynamoDB on demand, per million write request units
	ReadUnits       float64 // per million read request units
	StorageGB       float64 // DynamoDB, per GB and month
	BackupGB        float64 // point-in-time recovery, per GB and month
	SQSRequests     float64 // standard queue, per million requests of up to 64 KB
	LambdaRequests  float64 // per million
	LambdaGBSeconds float64 // per million GB-seconds, arm64
	Schedules       float64 // EventBridge Scheduler, per million invocations
	LogsGB          float64 // CloudWatch Logs, per GB ingested
	Traces          float64 // X-Ray, per million traces recorded
	TransferGB      float64 // to the internet, per GB
	Alarm           float64 // per metric of an alarm and month
	Metric          float64 // per custom metric and month
	Dashboard       float64 // per month
	Key             float64 // per KMS key and month
}

// List holds the prices of AWS's price pages for us-east-1, the first and most
// expensive tier of each. Check them before you rely on a table made from them.
var List = Prices{
	Date: "2025-11", Region: "us-east-1",
	WriteUnits: 0.625, ReadUnits: 0.125, StorageGB: 0.25, BackupGB: 0.20,
	SQSRequests: 0.40, LambdaRequests: 0.20, LambdaGBSeconds: 13.3334, Schedules: 1.00,
	LogsGB: 0.50, Traces: 5.00, TransferGB: 0.09, Alarm: 0.10, Metric: 0.30, Dashboard: 3.00, Key: 1.00,
}

// The part of AWS's free tier that does not expire, per account and month.
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

// Assumptions that cannot be measured on one machine.
const (
	ReceiverSeconds = 0.2  // response time of a receiver
	MemoryGB        = 0.5  // memory of the functions
	TracedShare     = 0.05 // X-Ray's default sampling, beyond the first request per second

	// LineBytes is the overhead that CloudWatch Logs bills per line (PutLogEvents).
	LineBytes = 26
	// started and reported are the lines that Lambda writes per invocation at
	// SystemLogLevel INFO, for a traced function that logs JSON.
	started = `{"time":"2026-01-29T12:34:56.789Z","type":"platform.start","record":{"requestId":"8ae6e4d4-8cd5-4f6d-8f0a-2a3f0f3b6a31","functionArn":"arn:aws:lambda:us-east-1:123456789012:function:tidings-dispatch:live","version":"42",` +
		`"tracing":{"spanId":"53995c3f42cd8ad8","type":"X-Amzn-Trace-Id","value":"Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"}}}`
	reported = `{"time":"2026-01-29T12:34:57.012Z","type":"platform.report","record":{"requestId":"8ae6e4d4-8cd5-4f6d-8f0a-2a3f0f3b6a31","metrics":{"durationMs":223.456,"billedDurationMs":224,"memorySizeMB":512,"maxMemoryUsedMB":48},` +
		`"tracing":{"spanId":"53995c3f42cd8ad8","type":"X-Amzn-Trace-Id","value":"Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"},"status":"success"}}`
	// PlatformBytes is the billed size of those two lines.
	PlatformBytes = float64(len(started) + len(reported) + 2*LineBytes)

	// HandshakeBytes is what a client sends to open a TLS 1.3 connection, including
	// the hybrid key share (X25519MLKEM768) and packet headers.
	HandshakeBytes = 2000
	// PacketBytes is the overhead of a request over an open connection: TLS records,
	// and the TCP/IP headers of its packets and acknowledgements.
	PacketBytes = 200
)

// Observability is what Lambda and X-Ray record per invocation, in addition to the
// functions' own log lines.
type Observability struct {
	LogBytes float64 // Lambda's own lines
	Traced   float64 // share of invocations that X-Ray records, beyond the first per second
}

// ObservabilityOf returns what is recorded with a SystemLogLevel and a Tracing mode.
// Lambda's lines about successful invocations are INFO.
func ObservabilityOf(systemLogLevel, tracing string) (w Observability) {
	if systemLogLevel != "WARN" {
		w.LogBytes = PlatformBytes
	}
	if tracing == "Active" {
		w.Traced = TracedShare
	}
	return w
}

// Count holds billed quantities, such as those of one event or of a month.
type Count struct {
	WriteUnits, ReadUnits float64
	SQSRequests           float64
	Runs                  float64 // invocations
	Seconds               float64 // total duration of the invocations
	LogBytes              float64 // ingested, including Lambda's own lines and overhead
	Traces                float64 // recorded
	SentBytes             float64 // to receivers on the internet
}

// Times returns the count multiplied by n.
func (c Count) Times(n float64) Count {
	return Count{c.WriteUnits * n, c.ReadUnits * n, c.SQSRequests * n, c.Runs * n, c.Seconds * n, c.LogBytes * n, c.Traces * n, c.SentBytes * n}
}

// Plus returns the sum of c and o.
func (c Count) Plus(o Count) Count {
	return Count{
		c.WriteUnits + o.WriteUnits, c.ReadUnits + o.ReadUnits, c.SQSRequests + o.SQSRequests, c.Runs + o.Runs,
		c.Seconds + o.Seconds, c.LogBytes + o.LogBytes, c.Traces + o.Traces, c.SentBytes + o.SentBytes,
	}
}

// Line is one item of a bill.
type Line struct {
	Name    string
	Dollars float64
}

// Lines returns the cost of a count, per service.
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

// Total returns the sum of the lines.
func Total(lines []Line) (dollars float64) {
	for _, l := range lines {
		dollars += l.Dollars
	}
	return dollars
}

// Usage is what events and deliveries consume.
type Usage struct {
	EndpointsPerEvent float64

	EventWriteUnits    float64 // putting the event
	DeliveryWriteUnits float64 // claim and verdict
	EventReadUnits     float64 // of a single event when nothing is cached
	JournalWriteUnits  float64 // of the journal, in full batches; a batch takes at least one
	RetryWriteUnits    float64 // additional units of a second attempt
	RetriedShare       float64 // share of deliveries that need a second attempt

	EventBytes, DeliveryBytes float64 // stored size, for the 30 days of retention
	WebhookBytes              float64 // size of a webhook request
	AttemptLogBytes           float64 // log line per attempt
	RunLogBytes               float64 // other own log lines per invocation
	EmitSeconds               float64 // per invocation of emit
	FanOutSeconds             float64 // per invocation that fans out
	DeliverSeconds            float64 // per invocation that delivers, without the receiver's time

	Observability Observability // with the template's defaults
}

// Measured is the usage of one event of 1 KB for one endpoint that responds in 200 ms
// and fails 5 % of the attempts. The counts are those of test/bench/units.json (a test
// checks that); the times are measured by `make bench-cost` and rounded up.
var Measured = Usage{
	EndpointsPerEvent: 1, EventWriteUnits: 1, DeliveryWriteUnits: 2, JournalWriteUnits: 0.07, EventReadUnits: 1,
	RetryWriteUnits: 6, RetriedShare: 0.05, EventBytes: 1100, DeliveryBytes: 700, WebhookBytes: 1211,
	AttemptLogBytes: 510, RunLogBytes: 250, EmitSeconds: 0.01, FanOutSeconds: 0.03, DeliverSeconds: 0.05,
	Observability: ObservabilityOf("WARN", "PassThrough"),
}

const (
	month     = 30 * 24 * 3600.0 // seconds
	maxBatch  = 10.0             // messages per invocation that delivers
	maxFanOut = 100.0            // events per invocation that fans out
	gathering = 0.2              // seconds within which messages share a batch
)

// IdlePolls is the number of SQS requests per month for an idle queue: Lambda runs
// five pollers with 20 s of long polling.
const IdlePolls = 5 * month / 20

// SampledReads is the number of requests per month with which the alerts read the depths of
// four queues every five minutes (health.SampleTime). They read the work queue's every minute.
const SampledReads = 4 * month / 300

// ScheduledRuns is the number of scheduled invocations per month: sweep and alerts
// every minute, close-discussions every four minutes.
const (
	ScheduledRuns   = 2*month/60 + closeRuns
	closeRuns       = month / 240
	closeRunReads   = 2   // read units of a run that finds no expired discussion
	closeRunLog     = 222 // bytes
	scheduledRunLog = 310 // bytes of a sweep or an evaluation of the alerts, on average
)

// IdleSeconds is the duration of a scheduled run with nothing to do.
const IdleSeconds = 0.05

// What the jobs that read all events consume in DynamoDB, besides a write for each step:
// TestWhatTheJobsThatReadAllEventsCost counts it with events of 0.5 KB, twenty a second.
var (
	// StreamCompared is for an event that redrive --stream looks for in the journal.
	StreamCompared = Count{ReadUnits: 1}
	// EraseExamined is for an event that an erasure reads.
	EraseExamined = Count{ReadUnits: 0.3}
	// Erased is what an event that is erased adds, with one endpoint.
	Erased = Count{WriteUnits: 9, ReadUnits: 6}
)

// Idle is the monthly usage of an idle deployment: its scheduled runs and Lambda's
// polling. A test compares it with test/bench/units.json.
var Idle = Count{
	WriteUnits: month / 60, ReadUnits: 21*month/60 + closeRuns*closeRunReads, SQSRequests: 2*IdlePolls + month/60 + SampledReads,
	Runs: ScheduledRuns, Seconds: ScheduledRuns * IdleSeconds, LogBytes: (ScheduledRuns-closeRuns)*scheduledRunLog + closeRuns*closeRunLog,
}

// Fixed holds what is charged per month, whatever the traffic.
type Fixed struct {
	Alarms, Metrics, Dashboards, Keys float64
	Schedules                         float64 // invocations by EventBridge Scheduler
}

// TemplateFixed is what the template creates by default, with values for every metric
// that alarms look at.
var TemplateFixed = Fixed{Alarms: 17, Metrics: 3, Schedules: ScheduledRuns}

// AllMetrics is the number of metrics with Metrics=all.
const AllMetrics = 12.0

// Dollars returns the cost per month.
func (s Fixed) Dollars(p Prices) float64 {
	return s.Schedules/1e6*p.Schedules + s.Alarms*p.Alarm + s.Metrics*p.Metric + s.Dashboards*p.Dashboard + s.Keys*p.Key
}

// Month is the cost of a month.
type Month struct {
	Deliveries float64
	Lines      []Line
	Total      float64
}

// PerMillion returns the cost per million deliveries.
func (m Month) PerMillion() float64 { return m.Total / m.Deliveries * 1e6 }

// ForMonth returns the cost of a month with a number of deliveries.
func ForMonth(deliveries float64, u Usage, p Prices) Month {
	events := deliveries / u.EndpointsPerEvent
	all := u.count(deliveries, deliveries/month).Plus(Idle)
	if u.Observability.Traced > 0 {
		all.Traces = min(all.Runs, month+all.Runs*u.Observability.Traced)
	}
	lines := all.Lines(p)
	stored := (events*u.EventBytes + deliveries*u.DeliveryBytes) / 1e9
	lines = append(lines, Line{"storage", stored * (p.StorageGB + p.BackupGB)}, Line{"fixed", TemplateFixed.Dollars(p)})
	return Month{Deliveries: deliveries, Lines: lines, Total: Total(lines)}
}

// count returns what deliveries consume that come at a rate per second.
func (u Usage) count(deliveries, perSecond float64) Count {
	events := deliveries / u.EndpointsPerEvent
	attempts := deliveries * (1 + u.RetriedShare)
	together := max(1, perSecond*gathering)
	batch, fan := min(maxBatch, together), min(maxFanOut, together)
	// A batch is one SQS request, runs its attempts concurrently, and stores its
	// statistics once. A batch of events writes to the journal.
	delivers, fanOuts := attempts/batch, events/fan
	runs := events + fanOuts + delivers // emit, fan out, deliver
	return Count{
		WriteUnits:  events*u.EventWriteUnits + deliveries*u.DeliveryWriteUnits + deliveries*u.RetriedShare*u.RetryWriteUnits + fanOuts*max(1, fan*u.JournalWriteUnits) + fanOuts + delivers,
		ReadUnits:   events / fan * u.EventReadUnits,
		SQSRequests: 3 * delivers,
		Runs:        runs,
		Seconds:     events*u.EmitSeconds + fanOuts*u.FanOutSeconds + delivers*(u.DeliverSeconds+ReceiverSeconds),
		LogBytes:    attempts*u.AttemptLogBytes + runs*(u.RunLogBytes+u.Observability.LogBytes),
		SentBytes:   attempts*(u.WebhookBytes+PacketBytes) + delivers*HandshakeBytes,
	}
}

// ForLoad returns the cost of deliveries that come at a rate per second, without
// storage and what is charged per month, plus what a test receiver consumes: an
// invocation, a read and a write for each.
func ForLoad(deliveries, perSecond float64, u Usage, p Prices) []Line {
	receiver := Count{WriteUnits: 1, ReadUnits: 1, Runs: 1, Seconds: u.EmitSeconds, LogBytes: u.Observability.LogBytes}
	return u.count(deliveries, perSecond).Plus(receiver.Times(deliveries)).Lines(p)
}

// Volumes are the deliveries per month in the table of docs/cost.md.
var Volumes = []float64{1e4, 1e5, 1e6, 1e7, 1e8, 1e9}

// Table returns the Markdown table of docs/cost.md.
func Table(u Usage, p Prices) string {
	var b strings.Builder
	for i, v := range Volumes {
		m := ForMonth(v, u, p)
		if i == 0 {
			b.WriteString("| deliveries per month |")
			for _, l := range m.Lines {
				fmt.Fprintf(&b, " %s |", l.Name)
			}
			b.WriteString(" total | per million |\n|--:|" + strings.Repeat("--:|", len(m.Lines)+2) + "\n")
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

// count formats a number with thousands separators.
func count(v float64) string {
	text := fmt.Sprintf("%.0f", v)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
