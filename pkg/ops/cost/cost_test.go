package cost_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/ops/cost"
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// docs/cost.md contains the computed table, and the date and region of the prices.
func TestPageContainsTheTable(t *testing.T) {
	page, table := read(t, "../../../docs/cost.md"), cost.Table(cost.Measured, cost.List)
	if !strings.Contains(page, table) {
		t.Errorf("docs/cost.md does not contain this table:\n%s", table)
	}
	if !strings.Contains(page, cost.List.Date) || !strings.Contains(page, cost.List.Region) {
		t.Errorf("docs/cost.md does not state the date and region of the prices: %s, %s", cost.List.Date, cost.List.Region)
	}
}

// The assumed units are not below those measured in docs/performance.md.
func TestUnitsAreMeasured(t *testing.T) {
	page := read(t, "../../../docs/performance.md")
	for what, want := range map[string]float64{
		"write units of one event, 1 endpoint": cost.Measured.EventWriteUnits + cost.Measured.DeliveryWriteUnits,
		"write units of one event, 3 endpoint": cost.Measured.EventWriteUnits + 3*cost.Measured.DeliveryWriteUnits,
		"read units of one event, 1 endpoint":  cost.Measured.EventReadUnits,
	} {
		m := regexp.MustCompile(regexp.QuoteMeta(what) + `\(s\) +([0-9.]+)`).FindStringSubmatch(page)
		if m == nil {
			t.Errorf("docs/performance.md has no figure %q", what)
			continue
		}
		var measured float64
		if _, err := fmt.Sscan(m[1], &measured); err != nil || measured > want {
			t.Errorf("%s: measured %s, assumed %v, %v", what, m[1], want, err)
		}
	}
}

// Computed by hand for a million deliveries per month.
func TestOneMillionDeliveries(t *testing.T) {
	got := map[string]float64{}
	for _, l := range cost.ForMonth(1e6, cost.Measured, cost.List).Lines {
		got[l.Name] = l.Dollars
	}
	// Write units: 3 M for events and deliveries, 0.3 M for retries, 2.05 M for
	// statistics (one per batch), 1 M for the journal, as events come alone. Read units:
	// 1 M. Plus the idle usage.
	want := 6.35*0.625 + 0.125 + (cost.Idle.WriteUnits*0.625+cost.Idle.ReadUnits*0.125)/1e6
	if math.Abs(got["DynamoDB"]-want) > 0.001 {
		t.Errorf("DynamoDB is %.3f, want %.3f", got["DynamoDB"], want)
	}
	if want := 1.8 * 0.45; math.Abs(got["storage"]-want) > 0.001 {
		t.Errorf("storage is %.3f, want %.3f", got["storage"], want)
	}
	// 3.05 M runs and the scheduled ones: 10 ms for emit, 30 ms for fan-out, and 50 ms
	// plus the receiver's 200 ms for a delivery.
	seconds := 0.01e6 + 0.03e6 + 1.05e6*0.25 + cost.ScheduledRuns*cost.IdleSeconds
	if want := (3.05+cost.ScheduledRuns/1e6)*0.20 + seconds/1e6*0.5*13.3334; math.Abs(got["Lambda"]-want) > 0.001 {
		t.Errorf("Lambda is %.3f, want %.3f", got["Lambda"], want)
	}
}

func TestCountArithmeticAndPrices(t *testing.T) {
	one := cost.Count{WriteUnits: 1, ReadUnits: 2, SQSRequests: 3, Runs: 4, Seconds: 5, LogBytes: 6, Traces: 7, SentBytes: 8}
	if got := one.Times(2).Plus(one); got != one.Times(3) {
		t.Errorf("2c + c = %+v, want 3c", got)
	}
	p := cost.Prices{WriteUnits: 1e6, ReadUnits: 1e5, SQSRequests: 1e6, LambdaRequests: 1e6, LambdaGBSeconds: 1e6, LogsGB: 1e9, Traces: 1e6, TransferGB: 1e9}
	want := map[string]float64{"DynamoDB": 1.2, "SQS": 3, "Lambda": 4 + 5*cost.MemoryGB, "logs": 6, "traces": 7, "transfer": 8}
	lines := one.Lines(p)
	for _, l := range lines {
		if math.Abs(l.Dollars-want[l.Name]) > 1e-9 {
			t.Errorf("%s is %v, want %v", l.Name, l.Dollars, want[l.Name])
		}
	}
	if len(lines) != len(want) || math.Abs(cost.Total(lines)-31.7) > 1e-9 {
		t.Errorf("%d lines, total %v", len(lines), cost.Total(lines))
	}
}

// The assumed usage is not below what test/bench counted, and not much above it.
func TestMeasuredUsageMatchesTheBenchmark(t *testing.T) {
	var units map[string]struct {
		Writes   float64 `json:"write_units"`
		Reads    float64 `json:"read_units"`
		Sent     float64 `json:"sent_bytes"`
		Log      float64 `json:"log_bytes"`
		Attempts float64 `json:"attempt_log_bytes"`
	}
	if err := json.Unmarshal([]byte(read(t, "../../../test/bench/units.json")), &units); err != nil {
		t.Fatal(err)
	}
	first, again, three := units["first try, 1 endpoint, 0.85 KB, one at a time"], units["one retry, 1 endpoint, 0.50 KB, one at a time"], units["first try, 3 endpoints, 0.50 KB, one at a time"]
	m := cost.Measured
	for _, c := range []struct {
		what             string
		assumed, counted float64
		tolerance        float64 // relative to counted
	}{
		{"write units", m.EventWriteUnits + m.DeliveryWriteUnits, first.Writes, 0},
		{"write units of a further endpoint", m.DeliveryWriteUnits, (three.Writes - first.Writes) / 2, 0},
		{"read units", m.EventReadUnits, first.Reads, 0},
		{"write units of a retry", m.RetryWriteUnits, again.Writes - first.Writes, 0},
		{"bytes sent", m.WebhookBytes, first.Sent, 0.02},
		{"log bytes of an attempt", m.AttemptLogBytes, first.Attempts, 0.5},
		{"log bytes of an event", m.AttemptLogBytes + 3*m.RunLogBytes, first.Log, 0.5},
	} {
		if c.counted == 0 || c.assumed < c.counted || c.assumed > c.counted*(1+c.tolerance) {
			t.Errorf("%s: assumed %v, counted %v", c.what, c.assumed, c.counted)
		}
	}
}

func TestCostPerDeliveryFallsWithVolume(t *testing.T) {
	var before cost.Month
	for i, v := range cost.Volumes {
		m := cost.ForMonth(v, cost.Measured, cost.List)
		if i > 0 && (m.Total <= before.Total || m.PerMillion() >= before.PerMillion()) {
			t.Errorf("%.0f deliveries cost %.2f, %.2f per million; %.0f cost %.2f, %.2f", v, m.Total, m.PerMillion(), before.Deliveries, before.Total, before.PerMillion())
		}
		before = m
	}
}

// Computed by hand for a thousand deliveries at 50 per second: batches of ten.
func TestALoadTest(t *testing.T) {
	u := cost.Measured
	u.RetriedShare = 0
	got := map[string]float64{}
	for _, l := range cost.ForLoad(1000, 50, u, cost.List) {
		got[l.Name] = l.Dollars
	}
	for name, want := range map[string]float64{
		// 1000 events, 2000 for deliveries, 100 + 100 for statistics, 100 for the journal, 1000 of
		// the receiver; 100 + 1000 reads.
		"DynamoDB": (4300*0.625 + 1100*0.125) / 1e6,
		"SQS":      300 * 0.40 / 1e6,
		// 1000 emit, 100 fan out, 100 deliver, 1000 receive.
		"Lambda": (2200*0.20 + (2000*0.01+100*0.03+100*0.25)*0.5*13.3334) / 1e6,
	} {
		if math.Abs(got[name]-want) > 1e-9 {
			t.Errorf("%s: $%.8f, want $%.8f", name, got[name], want)
		}
	}
}
