package alert

import (
	"fmt"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/pkg/ops/health"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
)

// Rule is the name of a rule in the state, logs and messages.
type Rule string

const (
	FailureRate Rule = "failure_rate" // too many of the last hour's attempts failed
	PendingHigh Rule = "pending"      // too many deliveries are pending
	CircuitOpen Rule = "circuit"      // an endpoint's circuit breaker is open
	Silent      Rule = "silent"       // no sweep runs, or no worker takes messages from the work queue
	DeadLetters Rule = "dead_letters" // deliveries, work items or batches became dead letters
	Slow        Rule = "slow"         // deliveries take too long
	SuccessRate Rule = "success_rate" // too few of the last hour's deliveries succeeded
	FailedToday Rule = "failed_day"   // too many deliveries failed in the last 24 hours
	EndpointOff Rule = "disabled"     // an endpoint was disabled
	Capture     Rule = "capture"      // changes of the platform's table did not become events, or capture is stuck

	// Test is not a rule: it marks the message of a test.
	Test Rule = "test"
)

var titles = map[Rule]string{
	FailureRate: "High failure rate", PendingHigh: "Many pending deliveries", CircuitOpen: "Circuit breaker open", Silent: "Dispatcher not running",
	DeadLetters: "Dead letters", Slow: "Slow deliveries", SuccessRate: "Low success rate",
	FailedToday: "Many failed deliveries in 24 hours", EndpointOff: "Endpoint disabled", Capture: "Changes not captured", Test: "Test message",
}

// advice is what to do, by rule. $STACK stands for the stack's name.
var advice = map[Rule]string{
	FailureRate: "Find the failing endpoints: `tidings --stack $STACK circuit list` and `tidings --stack $STACK delivery list --since 1h`. Failed attempts are retried.",
	PendingHigh: "Find out whether a receiver is down or slow: `tidings --stack $STACK circuit list`, or an endpoint is paused: `tidings --stack $STACK endpoint list`. If the work queue itself is behind, raise MaximumConcurrency.",
	CircuitOpen: "Its deliveries stay pending and are sent when a probe succeeds. List circuit breakers: `tidings --stack $STACK circuit list`. " +
		"Once the receiver works again: `tidings --stack $STACK circuit close ENDPOINT`.",
	Silent: "Look for errors and throttles: `aws logs tail /aws/lambda/$STACK-dispatch --since 30m`. Check that the schedule is enabled: `aws scheduler get-schedule --name $STACK-sweep`.",
	DeadLetters: "List dead deliveries with their reason: `tidings --stack $STACK delivery list --dead`. After fixing the cause, resend them: " +
		"`tidings --stack $STACK delivery replay --endpoint ENDPOINT --yes`; the sweep empties the work queue's dead-letter queue itself once its cause is fixed; events that fan-out lost, too. `tidings --stack $STACK redrive --stream --since 48h --dry-run` counts those, and --yes fans them out.",
	Slow:        "Look for slow or failing endpoints: `tidings --stack $STACK circuit list`. If all endpoints are slow, raise MaximumConcurrency.",
	SuccessRate: "List dead deliveries with their reason: `tidings --stack $STACK delivery list --dead --since 1h`.",
	FailedToday: "List dead deliveries with their reason: `tidings --stack $STACK delivery list --dead --since 24h`. After fixing the cause, resend them: " +
		"`tidings --stack $STACK delivery replay --endpoint ENDPOINT --yes`.",
	Capture: "List the failed changes with their reason: `tidings --stack $STACK capture list`. After a mend: `tidings --stack $STACK capture redrive --all --dry-run`. " +
		"If capture is stuck, search the emit log for capture.failed: docs/operating.md, capture-behind.",
	EndpointOff: "Its pending deliveries are marked skipped. Once the receiver works again: `tidings --stack $STACK endpoint enable ENDPOINT`.",
	Test:        "Nothing is wrong. An operator asked for this message with `tidings --stack $STACK alert test`.",
}

// Thresholds are the limits at which rules fire: the stack's parameters.
type Thresholds struct {
	// Targets are the thresholds of SuccessRate and Slow, for the last hour, and of
	// FailedToday. These rules fire when the target is missed.
	stats.Targets
	FailurePercent int `env:"ALERT_FAILURE_PERCENT,required"` // of the last hour's attempts; fires above it
	// Volume is the minimum number of attempts or deliveries before a percentage rule,
	// or Slow, can fire.
	Volume        int `env:"ALERT_VOLUME,required"`
	Pending       int `env:"ALERT_PENDING,required"`         // deliveries; fires above it
	SilentMinutes int `env:"ALERT_SILENT_MINUTES,required"`  // without a sweep, or without a message taken from a queue that is not empty
	DeadLetters   int `env:"ALERT_DEAD_LETTERS,required"`    // in the last hour, or in a dead-letter queue; fires above it
	RemindMinutes int `env:"ALERT_REMIND_MINUTES,required"`  // minimum time between two messages about one incident
	ResolveAfter  int `env:"ALERT_RESOLVE_MINUTES,required"` // minutes without a finding until an incident is resolved
}

// Finding is something that a rule found wrong. One rule can find several subjects;
// rule and subject identify an incident.
type Finding struct {
	Rule    Rule
	Subject string // empty if the rule has only one
	Text    string // what happened, with the figures
}

// Find evaluates the rules against a report.
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
		// Normal in a deployment's first minute. If the sweep never runs, the CloudWatch
		// alarm on missing data and the uptime service report it.
	case r.At.Sub(*swept.At) > silent:
		find(true, Silent, "sweep", "No sweep has run for %s (expected every minute). Retries scheduled more than 15 minutes ahead are not sent.", ago(r.At.Sub(*swept.At)))
	}
	age := time.Duration(r.Queue.AgeSeconds) * time.Second
	find(age > silent, Silent, "queue", "No message was taken from the work queue for %s; it contains %s.", ago(age), plural(r.Queue.Visible, "message", "messages"))

	hour, day := r.LastHour, r.LastDay
	if rate := hour.FailureRate; rate != nil && hour.Attempts >= int64(t.Volume) {
		find(*rate*100 > float64(t.FailurePercent), FailureRate, "", "%.0f %% of the last hour's %d attempts failed (threshold: %d %%).", *rate*100, hour.Attempts, t.FailurePercent)
	}
	if rate := hour.SuccessRate; rate != nil && hour.Delivered+hour.Dead >= int64(t.Volume) {
		find(!t.SuccessMet(hour.Delivered, hour.Dead), SuccessRate, "", "%.1f %% of the %d deliveries that ended in the last hour succeeded (threshold: %d %%).", *rate*100, hour.Delivered+hour.Dead, t.SuccessPercent)
	}
	if l := hour.Latency; l != nil && hour.Delivered >= int64(t.Volume) {
		find(!t.LatencyMet(l.P95), Slow, "", "In the last hour, 5 %% of the deliveries took %s or longer from acceptance to delivery (threshold: %s).",
			ago(time.Duration(l.P95*float64(time.Second))), ago(time.Duration(t.SlowSeconds)*time.Second))
	}
	more := ""
	if r.Pending.AtLeast {
		more = "At least "
	}
	find(r.Pending.Total > t.Pending, PendingHigh, "", "%s%d deliveries are pending (threshold: %d): %d on the work queue, %d scheduled for a later attempt.",
		more, r.Pending.Total, t.Pending, r.Pending.Queued, r.Pending.Waiting)
	find(!t.FailedMet(day.FailedDeliveries), FailedToday, "", "%s in the last 24 hours: no attempt will follow (threshold: %d).",
		plural(int(day.FailedDeliveries), "delivery failed", "deliveries failed"), t.FailedPerDay)

	dead := r.DeadLetters
	find(dead.LastHour > int64(t.DeadLetters), DeadLetters, "deliveries", "%s in the last hour (threshold: %d).",
		plural(int(dead.LastHour), "delivery became a dead letter", "deliveries became dead letters"), t.DeadLetters)
	find(dead.WorkQueue > t.DeadLetters, DeadLetters, "work queue", "%s in the work queue's dead-letter queue: received ten times and never completed.",
		plural(dead.WorkQueue, "message is", "messages are"))
	find(dead.StreamQueue > t.DeadLetters, DeadLetters, "stream", "%s of events could not be fanned out for 24 hours.",
		plural(dead.StreamQueue, "batch", "batches"))

	find(dead.CaptureQueue > t.DeadLetters, DeadLetters, "capture", "%s of the platform's table could not be captured for 24 hours.",
		plural(dead.CaptureQueue, "change", "changes"))

	// A change that was captured again is no longer a finding.
	if failed := hour.CaptureFailed; failed > 0 {
		kept := fmt.Sprint(r.Capture.FailedChanges)
		if r.Capture.AtLeast {
			kept = "at least " + kept
		}
		find(r.Capture.FailedChanges > 0, Capture, "changes", "%s of the platform's table could not become events in the last hour (target: none); %s in all are kept and can be captured again.",
			plural(int(failed), "change", "changes"), kept)
	}
	if stuck := r.Capture.Stuck; stuck != nil {
		age := time.Duration(stuck.AgeSeconds) * time.Second
		find(age > silent, Capture, "stuck", "Capture has failed at one change of the platform's table for %s; later changes wait for it. The change is %s old.",
			ago(age), ago(time.Duration(stuck.ChangeAgeSeconds)*time.Second))
	}

	for _, c := range r.Circuits.List {
		find(true, CircuitOpen, c.Tenant+"/"+c.EndpointID, "%s: circuit breaker open since %s, after %s. Last error: %s",
			c.EndpointID, c.OpenSince.UTC().Format("Jan 2 15:04 MST"), plural(c.Failures, "failure", "consecutive failures"), sentence(c.Cause))
	}
	for _, e := range r.Disabled {
		find(true, EndpointOff, e.Tenant+"/"+e.EndpointID, "%s was disabled: %s", e.EndpointID, sentence(e.Reason))
	}
	return list
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func sentence(text string) string {
	if text == "" {
		text = "no reason was recorded"
	}
	return strings.TrimSuffix(text, ".") + "."
}

// ago formats a duration for people: 45s, 7m, 3h5m.
func ago(d time.Duration) string {
	if d < 2*time.Minute {
		return d.Round(time.Second).String()
	}
	return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
}
