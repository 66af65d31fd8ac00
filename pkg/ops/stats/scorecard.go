package stats

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Targets are the targets of a deployment. They are the thresholds of the alert rules
// success_rate, slow and failed_day, so a metric that misses its target and its alert
// never disagree about a value. The targets without a threshold are fixed: no circuit
// breaker is open, and every change is captured.
type Targets struct {
	SuccessPercent int `env:"ALERT_SUCCESS_PERCENT,required"` // more than this percentage of the deliveries succeed
	SlowSeconds    int `env:"ALERT_SLOW_SECONDS,required"`    // the p95 latency is shorter
	FailedPerDay   int `env:"ALERT_FAILED_PER_DAY,required"`  // fewer deliveries fail in 24 hours
}

// SuccessMet reports whether more than the target percentage of the deliveries that
// ended were delivered. All delivered meets every target, 100 % too, and so does none
// that ended.
func (t Targets) SuccessMet(delivered, failed int64) bool {
	rate, ok := percent(delivered, delivered+failed)
	return !ok || failed == 0 || rate > float64(t.SuccessPercent)
}

// LatencyMet reports whether a p95 latency in seconds is below the target.
func (t Targets) LatencyMet(p95 float64) bool { return p95 < float64(t.SlowSeconds) }

// FailedMet reports whether fewer deliveries failed in 24 hours than the target.
func (t Targets) FailedMet(failed int64) bool { return failed < int64(t.FailedPerDay) }

// Status says whether a metric meets its target.
type Status string

const (
	OK     Status = "ok"
	Missed Status = "missed"
	NoData Status = "no_data" // nothing happened that the metric measures
)

func statusOf(met bool) Status {
	if met {
		return OK
	}
	return Missed
}

// Unit is the unit of a metric's values.
type Unit string

const (
	Percent  Unit = "percent"
	Seconds  Unit = "seconds"
	Number   Unit = "deliveries"
	Breakers Unit = "circuit_breakers"
)

// Names of the metrics, in the order of Metrics.
const (
	DeliverySuccess  = "delivery_success_rate"
	LatencyP95       = "latency_p95"
	FailedDeliveries = "failed_deliveries"
	CircuitsOpen     = "circuit_breakers_open"
	EventsCaptured   = "events_captured"
)

// Reading is the value of a metric in a period.
type Reading struct {
	Current *float64 `json:"current"` // in the metric's unit; null if there is no data
	Status  Status   `json:"status" enum:"ok,missed,no_data"`
}

// Metric is one of the five metrics of a deployment with its target. Percentages are
// rounded down to two digits, so that 100 means all.
type Metric struct {
	Name  string `json:"metric" enum:"delivery_success_rate,latency_p95,failed_deliveries,circuit_breakers_open,events_captured"`
	Title string `json:"title"`
	Unit  Unit   `json:"unit" enum:"percent,seconds,deliveries,circuit_breakers"`
	Reading
	// Comparison and Target are what Current has to be, such as > 95.
	Comparison string  `json:"comparison" enum:">,<,="`
	Target     float64 `json:"target"`
	// LastHour is the value of the last hour; nil if the metric has none, or describes
	// a past day.
	LastHour *Reading `json:"last_hour,omitempty"`
}

// Metrics returns the five metrics of a period of up to 24 hours. open is the number
// of circuit breakers that are open, or the most that were.
func (t Targets) Metrics(c Counts, open int) []Metric {
	list := t.undefined()
	list[0].Reading, list[1].Reading, list[4].Reading = t.success(c), t.latency(c), captured(c)
	list[2].Reading = reading(float64(c.Dead), t.FailedMet(c.Dead))
	list[3].Reading = reading(float64(open), open == 0)
	return list
}

// Now returns the metrics of the last 24 hours, with those of the last hour.
func (t Targets) Now(s Summary, open int) []Metric {
	list := t.Metrics(s.Day, open)
	for i, hour := range map[int]Reading{0: t.success(s.Hour), 1: t.latency(s.Hour), 4: captured(s.Hour)} {
		list[i].LastHour = &hour
	}
	return list
}

// undefined returns the metrics of a period that nothing is known about.
func (t Targets) undefined() []Metric {
	none := Reading{Status: NoData}
	success := Metric{Name: DeliverySuccess, Title: "Delivery success rate", Unit: Percent, Reading: none, Comparison: ">", Target: float64(t.SuccessPercent)}
	if t.SuccessPercent >= 100 {
		success.Comparison = "="
	}
	return []Metric{
		success,
		{Name: LatencyP95, Title: "Average latency (p95)", Unit: Seconds, Reading: none, Comparison: "<", Target: float64(t.SlowSeconds)},
		{Name: FailedDeliveries, Title: "Failed deliveries (24 h)", Unit: Number, Reading: none, Comparison: "<", Target: float64(t.FailedPerDay)},
		{Name: CircuitsOpen, Title: "Circuit breakers open", Unit: Breakers, Reading: none, Comparison: "="},
		{Name: EventsCaptured, Title: "Events captured", Unit: Percent, Reading: none, Comparison: "=", Target: 100},
	}
}

func (t Targets) success(c Counts) Reading {
	rate, ok := percent(c.Delivered, c.Delivered+c.Dead)
	if !ok {
		return Reading{Status: NoData}
	}
	return reading(rate, t.SuccessMet(c.Delivered, c.Dead))
}

func (t Targets) latency(c Counts) Reading {
	p95, ok := c.Latency.Quantile(0.95)
	if !ok {
		return Reading{Status: NoData}
	}
	seconds := p95.Round(time.Millisecond).Seconds()
	return reading(seconds, t.LatencyMet(seconds))
}

func captured(c Counts) Reading {
	rate, ok := percent(c.Captured, c.Captured+c.CaptureFailed)
	if !ok {
		return Reading{Status: NoData}
	}
	return reading(rate, c.CaptureFailed == 0)
}

func reading(value float64, met bool) Reading { return Reading{Current: &value, Status: statusOf(met)} }

// percent returns a share in percent, rounded down to two digits; false if whole is 0.
func percent(part, whole int64) (float64, bool) {
	if whole <= 0 {
		return 0, false
	}
	return float64(part*1e4/whole) / 1e2, true
}

// TargetText returns the target for people, such as "> 95 %" or "< 1 min".
func (m Metric) TargetText() string {
	value := m.Unit.Format(m.Target)
	if m.Unit == Seconds && m.Target == 60 {
		value = "1 min"
	}
	if m.Comparison == "=" {
		return value
	}
	return m.Comparison + " " + value
}

// Format formats a value for people.
func (u Unit) Format(v float64) string {
	switch u {
	case Percent:
		return strconv.FormatFloat(v, 'f', -1, 64) + " %"
	case Seconds:
		switch {
		case v < 1:
			return fmt.Sprintf("%.0f ms", v*1e3)
		case v < 60:
			return strconv.FormatFloat(math.Floor(v*10+1e-6)/10, 'f', -1, 64) + " s"
		}
		d := time.Duration(v) * time.Second
		if d >= time.Hour {
			return strings.TrimSuffix(d.Truncate(time.Minute).String(), "0s")
		}
		return d.String()
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

// Text returns the value in a metric's unit for people; "–" if there is none.
func (r Reading) Text(u Unit) string {
	if r.Current == nil {
		return "–"
	}
	return u.Format(*r.Current)
}

// Text returns the status for people.
func (s Status) Text() string {
	if s == NoData {
		return "no data"
	}
	return string(s)
}
