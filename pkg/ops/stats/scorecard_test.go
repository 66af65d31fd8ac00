package stats_test

import (
	"slices"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/ops/stats"
)

// targets are the template's defaults, and the plan's.
var targets = stats.Targets{SuccessPercent: 95, SlowSeconds: 60, FailedPerDay: 50}

// took returns counts of n deliveries, each of which took d.
func took(n int64, d time.Duration) stats.Counts {
	c := stats.Counts{Delivered: n}
	for range n {
		c.Latency.Count(d)
	}
	return c
}

func TestMetricsAtTheirTargets(t *testing.T) {
	for name, c := range map[string]struct {
		counts stats.Counts
		open   int
		metric string
		value  string
		status stats.Status
	}{
		"success above 95 %":          {stats.Counts{Delivered: 9501, Dead: 499}, 0, stats.DeliverySuccess, "95.01 %", stats.OK},
		"success of 95.0 %":           {stats.Counts{Delivered: 950, Dead: 50}, 0, stats.DeliverySuccess, "95 %", stats.Missed},
		"success is rounded down":     {stats.Counts{Delivered: 95_009, Dead: 4_991}, 0, stats.DeliverySuccess, "95 %", stats.Missed},
		"success without an end":      {stats.Counts{Attempts: 5, Failed: 5, Retried: 5}, 0, stats.DeliverySuccess, "–", stats.NoData},
		"p95 below a minute":          {took(20, 30*time.Second), 0, stats.LatencyP95, "28.9 s", stats.OK},
		"p95 of 60.0 s":               {took(95, time.Minute).Add(took(5, time.Hour)), 0, stats.LatencyP95, "1m0s", stats.Missed},
		"p95 above a minute":          {took(20, 3*time.Minute), 0, stats.LatencyP95, "3m51s", stats.Missed},
		"p95 without a delivery":      {stats.Counts{Dead: 1}, 0, stats.LatencyP95, "–", stats.NoData},
		"49 failed deliveries":        {stats.Counts{Dead: 49}, 0, stats.FailedDeliveries, "49", stats.OK},
		"50 failed deliveries":        {stats.Counts{Dead: 50}, 0, stats.FailedDeliveries, "50", stats.Missed},
		"failed attempts do not fail": {stats.Counts{Attempts: 700, Failed: 600, Retried: 600}, 0, stats.FailedDeliveries, "0", stats.OK},
		"no circuit breaker open":     {stats.Counts{}, 0, stats.CircuitsOpen, "0", stats.OK},
		"one circuit breaker open":    {stats.Counts{}, 1, stats.CircuitsOpen, "1", stats.Missed},
		"all captured":                {stats.Counts{Captured: 3}, 0, stats.EventsCaptured, "100 %", stats.OK},
		"one of a million not":        {stats.Counts{Captured: 999_999, CaptureFailed: 1}, 0, stats.EventsCaptured, "99.99 %", stats.Missed},
		"nothing to capture":          {stats.Counts{Accepted: 9}, 0, stats.EventsCaptured, "–", stats.NoData},
	} {
		list := targets.Metrics(c.counts, c.open)
		i := slices.IndexFunc(list, func(m stats.Metric) bool { return m.Name == c.metric })
		if got := list[i]; got.Text(got.Unit) != c.value || got.Status != c.status {
			t.Errorf("%s: %s is %q, %s; want %q, %s", name, c.metric, got.Text(got.Unit), got.Status, c.value, c.status)
		}
	}
}

func TestMetricsOfNowHaveTheLastHourWhereItSaysSomething(t *testing.T) {
	list := targets.Now(stats.Summary{Hour: stats.Counts{Delivered: 1, Dead: 1}, Day: took(100, time.Second)}, 2)
	var names, texts, hours []string
	for _, m := range list {
		names, texts = append(names, m.Name), append(texts, m.TargetText())
		if m.LastHour != nil {
			hours = append(hours, m.Name+" "+m.LastHour.Text(m.Unit)+" "+m.LastHour.Status.Text())
		}
	}
	if want := []string{stats.DeliverySuccess, stats.LatencyP95, stats.FailedDeliveries, stats.CircuitsOpen, stats.EventsCaptured}; !slices.Equal(names, want) {
		t.Errorf("the metrics are %q, want %q", names, want)
	}
	if want := []string{"> 95 %", "< 1 min", "< 50", "0", "100 %"}; !slices.Equal(texts, want) {
		t.Errorf("the targets are %q, want %q", texts, want)
	}
	if want := []string{"delivery_success_rate 50 % missed", "latency_p95 – no data", "events_captured – no data"}; !slices.Equal(hours, want) {
		t.Errorf("the last hour is %q, want %q", hours, want)
	}
}

func TestATargetOfHundredPercentCanBeMet(t *testing.T) {
	all := stats.Targets{SuccessPercent: 100}
	if !all.SuccessMet(10, 0) || all.SuccessMet(99_999, 1) || !all.SuccessMet(0, 0) {
		t.Error("100 % is met by all deliveries and by none that ended, and missed by 99.999 %")
	}
	if got := all.Metrics(stats.Counts{Delivered: 1}, 0)[0].TargetText(); got != "100 %" {
		t.Errorf("its target reads %q", got)
	}
}
