package alert

import (
	"fmt"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/pkg/ops/health"
)

// Rule names a rule, in state, logs and messages.
type Rule string

const (
	FailureRate Rule = "failure_rate" // too many attempts of the last hour failed
	PendingHigh Rule = "pending"      // too much is not settled yet
	CircuitOpen Rule = "circuit"      // an endpoint is left alone for a while
	Silent      Rule = "silent"       // the dispatcher leaves no sign
	DeadLetters Rule = "dead_letters" // something was given up
	Slow        Rule = "slow"         // deliveries take too long
	SuccessRate Rule = "success_rate" // too few of the last hour's deliveries succeeded
	FailedToday Rule = "failed_day"   // too many attempts of the last 24 hours failed
	EndpointOff Rule = "disabled"     // an endpoint was taken out of service
)

// titles head the messages.
var titles = map[Rule]string{
	FailureRate: "Most attempts fail", PendingHigh: "Deliveries pile up", CircuitOpen: "Circuit open", Silent: "Dispatcher silent",
	DeadLetters: "Dead letters", Slow: "Deliveries are slow", SuccessRate: "Too few deliveries succeed",
	FailedToday: "Many failures in 24 hours", EndpointOff: "Endpoint disabled",
}

// Thresholds are where rules begin to complain: the stack's parameters.
type Thresholds struct {
	FailurePercent int `env:"ALERT_FAILURE_PERCENT,required"` // of the last hour's attempts; above it
	SuccessPercent int `env:"ALERT_SUCCESS_PERCENT,required"` // of the last hour's settled deliveries; below it
	// Volume is how many attempts, or deliveries, a share must be of to say anything.
	Volume        int `env:"ALERT_VOLUME,required"`
	Pending       int `env:"ALERT_PENDING,required"`         // deliveries; above it
	SilentMinutes int `env:"ALERT_SILENT_MINUTES,required"`  // without a sweep, or with a queue that nobody works on; above it
	SlowSeconds   int `env:"ALERT_SLOW_SECONDS,required"`    // p95 of the last hour; above it
	FailedPerDay  int `env:"ALERT_FAILED_PER_DAY,required"`  // failed attempts in 24 hours; above it
	DeadLetters   int `env:"ALERT_DEAD_LETTERS,required"`    // within the last hour, or in the dead-letter queues; above it
	RemindMinutes int `env:"ALERT_REMIND_MINUTES,required"`  // between two messages about one incident
	ResolveAfter  int `env:"ALERT_RESOLVE_MINUTES,required"` // without a finding, until an incident is over
}

// Finding is something wrong now. One rule may find several subjects; the pair is
// what makes an incident.
type Finding struct {
	Rule    Rule
	Subject string // "" where the rule has but one
	Text    string // one sentence, with the figures
}

// Find holds a report against the rules.
func Find(r health.Report, t Thresholds) []Finding {
	var list []Finding
	find := func(wrong bool, rule Rule, subject, format string, args ...any) {
		if wrong {
			list = append(list, Finding{Rule: rule, Subject: subject, Text: fmt.Sprintf(format, args...)})
		}
	}
	silent := time.Duration(t.SilentMinutes) * time.Minute
	switch swept := r.LastSweep; {
	case swept.At == nil:
		// A deployment's first minute; if the sweep never runs, CloudWatch's alarm
		// on missing data says so, and so does the uptime service.
	case r.At.Sub(*swept.At) > silent:
		find(true, Silent, "sweep", "The dispatcher has not swept for %s: retries that wait longer than 15 minutes, and lost ones, stand still.", ago(r.At.Sub(*swept.At)))
	}
	age := time.Duration(r.Queue.AgeSeconds) * time.Second
	find(age > silent, Silent, "queue", "Nobody has taken anything from the work queue for %s, and %s there.", ago(age), are(r.Queue.Visible, "delivery waits", "deliveries wait"))

	hour, day := r.LastHour, r.LastDay
	if rate := hour.FailureRate; rate != nil && hour.Attempts >= int64(t.Volume) {
		find(*rate*100 > float64(t.FailurePercent), FailureRate, "", "%.0f %% of the last hour's %d attempts failed (more than %d %%).", *rate*100, hour.Attempts, t.FailurePercent)
	}
	if rate := hour.SuccessRate; rate != nil && hour.Delivered+hour.Dead >= int64(t.Volume) {
		find(*rate*100 < float64(t.SuccessPercent), SuccessRate, "", "%.1f %% of the last hour's %d settled deliveries were delivered (less than %d %%).", *rate*100, hour.Delivered+hour.Dead, t.SuccessPercent)
	}
	if l := hour.Latency; l != nil && hour.Delivered >= int64(t.Volume) {
		find(l.P95 > float64(t.SlowSeconds), Slow, "", "One in twenty of the last hour's deliveries took %s or longer, from acceptance to delivery (more than %s).",
			ago(time.Duration(l.P95*float64(time.Second))), ago(time.Duration(t.SlowSeconds)*time.Second))
	}
	more := ""
	if r.Pending.AtLeast {
		more = "at least "
	}
	find(r.Pending.Total > t.Pending, PendingHigh, "", "%s%d deliveries are pending (more than %d): %d on the queue, %d that wait for their next attempt.",
		more, r.Pending.Total, t.Pending, r.Pending.Queued, r.Pending.Waiting)
	find(day.Failed > int64(t.FailedPerDay), FailedToday, "", "%d attempts failed in the last 24 hours (more than %d).", day.Failed, t.FailedPerDay)

	dead := r.DeadLetters
	find(dead.LastHour > int64(t.DeadLetters), DeadLetters, "deliveries", "%s given up in the last hour. `tidings delivery list --dead` shows them, with the reason.",
		are(int(dead.LastHour), "delivery was", "deliveries were"))
	find(dead.WorkQueue > t.DeadLetters, DeadLetters, "work queue", "%s in the work queue's dead-letter queue: workers crashed on each ten times. `tidings redrive` sends them again.",
		are(dead.WorkQueue, "message is", "messages are"))
	find(dead.StreamQueue > t.DeadLetters, DeadLetters, "stream", "%s of events could not be fanned out for a day. `tidings redrive` sends them again.",
		are(dead.StreamQueue, "batch", "batches"))

	for _, c := range r.Circuits.List {
		find(true, CircuitOpen, c.Tenant+"/"+c.EndpointID, "%s is left alone after %s: %s", c.EndpointID, are(c.Failures, "failure", "failures in a row"), sentence(c.Cause))
	}
	for _, e := range r.Disabled {
		find(true, EndpointOff, e.Tenant+"/"+e.EndpointID, "%s was disabled: %s", e.EndpointID, sentence(e.Reason))
	}
	return list
}

func are(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func sentence(text string) string {
	if text == "" {
		text = "it does not say why"
	}
	return strings.TrimSuffix(text, ".") + "."
}

// ago says a duration for people: 45s, 7m, 3h5m.
func ago(d time.Duration) string {
	if d < 2*time.Minute {
		return d.Round(time.Second).String()
	}
	return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
}
