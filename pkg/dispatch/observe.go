package dispatch

import (
	"context"
	"log/slog"
	"time"

	"github.com/aws/aws-lambda-go/lambdacontext"

	"github.com/tidings-dev/tidings/pkg/adapter"
	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/tracing"
)

// logAttempt writes the one wide line of an attempt: everything that is asked
// about it later, in one place. It holds no payload, no URL (paths may be secret)
// and nothing of the answer's body. docs/logs.md has the fields.
func (d *Dispatcher) logAttempt(ctx context.Context, j *job, next delivery.Delivery, a delivery.Attempt, o delivery.Outcome, stored error) {
	level := slog.LevelInfo
	if next.State != delivery.Delivered {
		level = slog.LevelWarn
	}
	ms := func(name string, d time.Duration) slog.Attr { return slog.Int64(name, d.Milliseconds()) }
	var room [24]slog.Attr
	attrs := append(room[:0],
		slog.String("event_id", next.EventID), slog.String("event_type", next.EventType),
		slog.String("endpoint_id", j.endpoint.ID), slog.String("tenant", j.endpoint.Tenant),
		slog.String("protocol", adapter.TargetOf(*j.endpoint).Protocol()),
		slog.Int("attempt", a.Number), slog.String("outcome", string(a.Class)), slog.Int("status", a.Status),
		slog.String("state", string(next.State)),
		ms("total_ms", o.Timings.Total), ms("dns_ms", o.Timings.DNS), ms("connect_ms", o.Timings.Connect), ms("tls_ms", o.Timings.TLS),
		ms("first_byte_ms", o.Timings.FirstByte), ms("age_ms", a.At.Sub(j.at)), slog.Int("bytes", len(j.accepted.Body)),
	)
	if !j.sent.IsZero() {
		attrs = append(attrs, ms("queue_ms", max(a.At.Sub(j.sent), 0)))
	}
	if id := tracing.ID(j.accepted.Trace); id != "" {
		attrs = append(attrs, slog.String("trace_id", id))
	}
	if lc, ok := lambdacontext.FromContext(ctx); ok {
		attrs = append(attrs, slog.String("request_id", lc.AwsRequestID))
	}
	if j.probe {
		attrs = append(attrs, slog.Bool("probe", true))
	}
	if o.Error != "" {
		attrs = append(attrs, slog.String("error", o.Error), slog.Bool("permanent", o.Permanent))
	}
	if o.RetryAfter > 0 {
		attrs = append(attrs, ms("retry_after_ms", o.RetryAfter))
	}
	if !next.NextAttemptAt.IsZero() {
		attrs = append(attrs, slog.Time("next_attempt_at", next.NextAttemptAt))
	}
	if stored != nil {
		attrs = append(attrs, slog.String("not_stored", stored.Error()))
	}
	d.Log.LogAttrs(ctx, level, "delivery.attempted", attrs...)
}

// annotations are what an attempt's part of a trace is found by.
func annotations(j *job, attempt int, o delivery.Outcome) map[string]any {
	return map[string]any{
		"endpoint_id": j.endpoint.ID, "tenant": j.endpoint.Tenant, "protocol": adapter.TargetOf(*j.endpoint).Protocol(),
		"event_id": j.accepted.ID, "event_type": j.event.Type, "attempt": attempt, "outcome": string(o.Class), "status": o.Status,
	}
}

// markOfOutcome tells failures apart as traces do.
func markOfOutcome(o delivery.Outcome) string {
	switch {
	case o.Class == delivery.Success:
		return tracing.Fine
	case o.Class == delivery.Throttled:
		return tracing.Throttle
	case o.Status >= 300 && o.Status <= 499:
		return tracing.Error
	}
	return tracing.Fault
}

func markOf(err error) string {
	if err != nil {
		return tracing.Fault
	}
	return tracing.Fine
}
