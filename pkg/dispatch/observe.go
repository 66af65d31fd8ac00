package dispatch

import (
	"context"
	"log/slog"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/ops/tracing"
)

// logAttempt logs an attempt as one line with all its fields (docs/logs.md). The line
// contains no payload, no URL (paths can be secret) and nothing of the response's body.
// Fields with their usual value are omitted, because CloudWatch charges by the byte.
func (d *Dispatcher) logAttempt(ctx context.Context, j *job, next delivery.Delivery, a delivery.Attempt, o delivery.Outcome, stored error) {
	level := slog.LevelInfo
	if next.State != delivery.Delivered {
		level = slog.LevelWarn
	}
	ms := func(name string, d time.Duration) slog.Attr { return slog.Int64(name, d.Milliseconds()) }
	protocol := destination.TargetOf(*j.endpoint).Protocol()
	var room [24]slog.Attr
	attrs := append(room[:0],
		slog.String("event_id", next.EventID), slog.String("event_type", next.EventType),
		slog.String("endpoint_id", j.endpoint.ID),
		slog.Int("attempt", a.Number), slog.String("outcome", string(a.Class)),
		ms("total_ms", o.Timings.Total), ms("age_ms", a.At.Sub(j.at)), slog.Int("bytes", len(j.accepted.Body)),
	)
	if next.State != delivery.Delivered {
		attrs = append(attrs, slog.String("state", string(next.State)))
	}
	if j.endpoint.Tenant != event.DefaultTenant {
		attrs = append(attrs, slog.String("tenant", j.endpoint.Tenant))
	}
	if protocol != "http" {
		attrs = append(attrs, slog.String("protocol", protocol))
	}
	if a.Status != 0 {
		attrs = append(attrs, slog.Int("status", a.Status))
	}
	for _, phase := range []struct {
		name string
		took time.Duration
	}{{"dns_ms", o.Timings.DNS}, {"connect_ms", o.Timings.Connect}, {"tls_ms", o.Timings.TLS}, {"first_byte_ms", o.Timings.FirstByte}} {
		if phase.took >= time.Millisecond {
			attrs = append(attrs, ms(phase.name, phase.took))
		}
	}
	if !j.sent.IsZero() {
		attrs = append(attrs, ms("queue_ms", max(a.At.Sub(j.sent), 0)))
	}
	if id := tracing.ID(j.accepted.Trace); id != "" {
		attrs = append(attrs, slog.String("trace_id", id))
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

// annotations returns the annotations by which an attempt is found in X-Ray.
func annotations(j *job, attempt int, o delivery.Outcome) map[string]any {
	return map[string]any{
		"endpoint_id": j.endpoint.ID, "tenant": j.endpoint.Tenant, "protocol": destination.TargetOf(*j.endpoint).Protocol(),
		"event_id": j.accepted.ID, "event_type": j.event.Type, "attempt": attempt, "outcome": string(o.Class), "status": o.Status,
	}
}

// markOfOutcome maps an outcome to X-Ray's kinds of failure.
func markOfOutcome(o delivery.Outcome) string {
	switch {
	case o.Class == delivery.Success:
		return tracing.OK
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
	return tracing.OK
}
