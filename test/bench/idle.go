package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"go.yaml.in/yaml/v3"

	"github.com/tidings-dev/tidings/pkg/aws/sqsqueue"
	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
	"github.com/tidings-dev/tidings/pkg/ops/alert"
	"github.com/tidings-dev/tidings/pkg/ops/cost"
	"github.com/tidings-dev/tidings/pkg/ops/health"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
)

// idleName names the line of a schedule in units.json.
func idleName(s samtemplate.Schedule) string {
	return fmt.Sprintf("idle: %s, every %s", strings.TrimPrefix(s.Name, "tidings-local-"), strings.TrimSuffix(strings.TrimSuffix(s.Every.String(), "0s"), "0m"))
}

// countIdle counts what each schedule of the template takes while nothing happens,
// once what it keeps from its first run is there.
func countIdle(ctx context.Context, db *dynamodb.Client, stack *samtemplate.Stack, into map[string]Units) error {
	ctx = invocation(ctx)
	p := &pipeline{meter: &meter{Client: db}, log: &ledger{}, sqs: newCountedSQS(time.Now)}
	backend := p.backend()
	for _, f := range stack.Functions {
		if len(f.Schedules) == 0 {
			continue
		}
		handle, err := backend.Build(f.Folder, f.Environment)
		if err != nil {
			return err
		}
		for _, s := range f.Schedules {
			for range 3 {
				p.takeIdle()
				if _, err := handle.Invoke(ctx, s.Input); err != nil {
					return fmt.Errorf("%s: %w", s.Name, err)
				}
			}
			into[idleName(s)] = p.takeIdle()
			if err := p.log.trouble(""); err != nil {
				return fmt.Errorf("%s: %w", s.Name, err)
			}
		}
	}
	return nil
}

func (p *pipeline) takeIdle() Units {
	u := p.meter.take()
	// Nothing is an event's here.
	u.Writes, u.Statistics = u.Writes+u.Statistics, 0
	lines, size, _ := p.log.take()
	u.LogLines, u.LogBytes, u.SQS = float64(lines), float64(size), float64(p.sqs.take())
	return u
}

// backend is what the functions stand on, counted.
func (p *pipeline) backend() local.Backend {
	// How many buckets of statistics are open depends on the minute: all the runs are
	// in the middle of one.
	began := time.Now()
	start := began.Truncate(stats.BucketTime).Add(3 * time.Minute)
	if start.Before(began) {
		start = start.Add(stats.BucketTime)
	}
	return local.Backend{
		Store:       func(t dynamo.Tables) local.Store { return dynamo.New(p.meter, t) },
		Queue:       func(url string) dispatch.Queue { return sqsqueue.New(p.sqs, url) },
		DeadLetters: func(string) dispatch.DeadLetters { return nil }, // nobody redrives
		Depth:       func(string) health.Queue { return p.sqs },
		Topic:       func(string) alert.Publisher { return nobody{} },
		Invoke:      func(string) console.Invoke { return nil }, // nobody changes anything
		Log:         p.log.logger(), Metrics: p.log, CacheTime: dispatch.CacheTime,
		Pace: func(t time.Time) time.Time { return start.Add(t.Sub(began)) },
	}
}

// nobody is told.
type nobody struct{}

// Publish fails: on a deployment that is well there is nothing to tell.
func (nobody) Publish(_ context.Context, subject, _ string) error {
	return fmt.Errorf("an idle deployment says %q", subject)
}

// written is how many metrics of its own an idle deployment writes by default: those of
// the sweep that alarms look at.
const written = 2

// standingOf reads from the template what costs whether or not anything happens:
// its resources by their types, as far as they are made by default.
func standingOf(path string) (s cost.Fixed, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return s, err
	}
	var parsed struct {
		Resources map[string]struct {
			Type       string    `yaml:"Type"`
			Condition  string    `yaml:"Condition"`
			Properties yaml.Node `yaml:"Properties"`
		} `yaml:"Resources"`
	}
	if err := yaml.Unmarshal(text, &parsed); err != nil {
		return s, fmt.Errorf("%s: %w", path, err)
	}
	s.Metrics = written
	for name, r := range parsed.Resources {
		if r.Condition != "" { // no condition holds by default
			continue
		}
		switch r.Type {
		case "AWS::CloudWatch::Alarm":
			s.Alarms += metricsOf(&r.Properties)
		case "AWS::CloudWatch::Dashboard":
			s.Dashboards++
		case "AWS::KMS::Key":
			s.Keys++
		case "AWS::SecretsManager::Secret", "AWS::Synthetics::Canary", "AWS::EC2::NatGateway", "AWS::EC2::VPCEndpoint", "AWS::Lambda::EventSourceMapping", "AWS::Events::Rule":
			return s, fmt.Errorf("%s: the idle table does not know what %s (%s) costs", path, name, r.Type)
		}
	}
	return s, nil
}

// metricsOf counts the metrics of an alarm: its own, or those of its formula.
func metricsOf(properties *yaml.Node) (n float64) {
	for i := 0; i+1 < len(properties.Content); i += 2 {
		if properties.Content[i].Value != "Metrics" {
			continue
		}
		for _, m := range properties.Content[i+1].Content {
			for k := 0; k+1 < len(m.Content); k += 2 {
				if m.Content[k].Value == "MetricStat" {
					n++
				}
			}
		}
	}
	return max(n, 1)
}

// watchedOf is what an invocation leaves behind of the function that leaves most.
func watchedOf(stack *samtemplate.Stack) (most cost.Observability) {
	for _, f := range stack.Functions {
		w := cost.ObservabilityOf(f.SystemLogLevel, f.Tracing)
		most.LogBytes, most.Traced = max(most.LogBytes, w.LogBytes), max(most.Traced, w.Traced)
	}
	return most
}

// idleCost is what a deployment costs that nobody uses: its schedules' runs, the
// queue's pollers, and what stands in the template.
func idleCost(r *Report, stack *samtemplate.Stack, units map[string]Units) error {
	stands, err := standingOf(templateFile)
	if err != nil {
		return err
	}
	month, err := idleMonth(stack, units)
	if err != nil {
		return err
	}
	stands.Schedules = month.Runs
	p := cost.List
	t := r.table("idle", "Dollars a month of an idle deployment, list prices of "+p.Date+", "+p.Region, "what", "a month", "$ at list price", "$ beyond the permanent free tier")
	var list, beyond float64
	// much costs price for each per; free of it are everybody's.
	add := func(what string, much, free, price, per float64) {
		full, rest := much/per*price, max(0, much-free)/per*price
		t.add(what, of(math.Round(much)), of(full), of(rest))
		list, beyond = list+full, beyond+rest
	}
	add("DynamoDB write units: the sweep's note", month.WriteUnits, 0, p.WriteUnits, 1e6)
	add("DynamoDB read units: the sweep's and the alerts' look at indexes, circuits and statistics", month.ReadUnits, 0, p.ReadUnits, 1e6)
	add("SQS requests: Lambda's polling of two queues by five, 20 s each, and the alerts' look at five queues", month.SQSRequests, cost.FreeSQSRequests, p.SQSRequests, 1e6)
	add("Lambda requests: sweep and alerts each minute, discussions each hour", month.Runs, cost.FreeLambdaRequests, p.LambdaRequests, 1e6)
	add("Lambda GB-seconds of them", month.Seconds*cost.MemoryGB, cost.FreeLambdaGBSeconds, p.LambdaGBSeconds, 1e6)
	add("EventBridge schedules that call them", stands.Schedules, cost.FreeSchedules, p.Schedules, 1e6)
	add("bytes of logs", month.LogBytes, cost.FreeLogBytes, p.LogsGB, 1e9)
	add("X-Ray traces: each of them is its second's first", month.Traces, cost.FreeTraces, p.Traces, 1e6)
	add("metrics that alarms look at", stands.Alarms, cost.FreeAlarms, p.Alarm, 1)
	add("metrics of its own that are written while idle", stands.Metrics, cost.FreeMetrics, p.Metric, 1)
	add("dashboard", stands.Dashboards, cost.FreeDashboards, p.Dashboard, 1)
	t.add("all of it", Cell{Text: "–"}, of(list), of(beyond))
	t.add("with a key of its own (SecretsKeyArn=create)", Cell{Text: "–"}, of(list+p.Key), of(beyond+p.Key))
	more := max(0, cost.AllMetrics-cost.FreeMetrics) * p.Metric
	t.add("with all metrics, in use, and the dashboard (Dashboard=true)", Cell{Text: "–"}, of(list+p.Dashboard+(cost.AllMetrics-written)*p.Metric), of(beyond+more))
	t.Notes = []string{"The template with its default parameters, counted by running its schedules on empty tables. " +
		"The permanent free tier is per account: a million SQS requests, a million Lambda requests and 400,000 GB-seconds, 14 million schedules, 5 GB of logs, 100,000 traces, ten alarm metrics, ten metrics, three dashboards. Other stacks in the account share it. " +
		"DynamoDB's on-demand units and KMS keys have no free tier. KMS requests ($0.03 for 10,000 beyond 20,000 a month) are not included, because DynamoDB caches a table's key and the number of requests cannot be counted here."}
	r.under(1, beyond, "$ a month", "idle, beyond the permanent free tier")
	return nil
}

// idleMonth is what the schedules of a month take, and Lambda's polling.
func idleMonth(stack *samtemplate.Stack, units map[string]Units) (month cost.Count, err error) {
	const length = 30 * 24 * time.Hour
	month.SQSRequests = cost.SampledReads
	for _, f := range stack.Functions {
		watched := cost.ObservabilityOf(f.SystemLogLevel, f.Tracing)
		traces := 0.0
		if watched.Traced > 0 {
			traces = 1 // each is its second's first
		}
		for range f.Queues {
			month.SQSRequests += cost.IdlePolls
		}
		for _, s := range f.Schedules {
			u, ok := units[idleName(s)]
			if !ok {
				return month, fmt.Errorf("%s has no %q: the template's schedule is new to it", unitsFile, idleName(s))
			}
			month = month.Plus(cost.Count{
				WriteUnits: u.Writes, ReadUnits: u.Reads, SQSRequests: u.SQS, Runs: 1, Seconds: cost.IdleSeconds, LogBytes: u.LogBytes + watched.LogBytes, Traces: traces,
			}.Times(float64(length / s.Every)))
		}
	}
	return month, nil
}
