package systemtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/ops/health"
	"github.com/tidings-dev/tidings/pkg/systemtest/testrun"
)

// SmokeOptions limit a smoke test.
type SmokeOptions struct {
	// ReceiveTime is the maximum time from the acceptance of the event until its delivery is
	// recorded.
	ReceiveTime time.Duration
	// HealthTime is the maximum time until the deployment is healthy. A new deployment
	// is unhealthy until its first sweep, which takes up to a minute.
	HealthTime time.Duration
	// Step is called after each step; nil ignores them.
	Step func(Step)
}

// Step is a step of a smoke test.
type Step struct {
	Name         string  `json:"name"`
	OK           bool    `json:"ok"`
	Detail       string  `json:"detail,omitempty"`
	Error        string  `json:"error,omitempty"`
	Milliseconds float64 `json:"ms"`
}

// SmokeReport is the result of a smoke test.
type SmokeReport struct {
	OK      bool   `json:"ok"`
	Run     string `json:"run"`
	EventID string `json:"event_id,omitempty"`
	// LatencyMS is the time from the acceptance of the event to its arrival.
	LatencyMS float64 `json:"latency_ms,omitempty"`
	Version   string  `json:"version,omitempty"` // of the deployment
	Steps     []Step  `json:"steps"`
}

// Smoke emits one event, waits for it at the test receiver, and checks that its delivery
// is recorded and that the deployment is healthy. It stops at the first step that
// fails; the last step, which removes the endpoint and the run, always runs.
func (t Target) Smoke(ctx context.Context, o SmokeOptions) SmokeReport {
	r := t.newRun()
	report := SmokeReport{OK: true, Run: r.id}
	step := func(name string, do func() (detail string, err error)) {
		began := t.Now()
		detail, err := do()
		s := Step{Name: name, OK: err == nil, Detail: detail, Milliseconds: float64(t.Now().Sub(began).Microseconds()) / 1000}
		if err != nil {
			s.Error, report.OK = err.Error(), false
		}
		report.Steps = append(report.Steps, s)
		if o.Step != nil {
			o.Step(s)
		}
	}
	for _, s := range []struct {
		name string
		do   func() (string, error)
	}{
		{"open a run at the test receiver", func() (string, error) {
			return r.id, r.open(ctx, o.ReceiveTime+o.HealthTime+time.Hour)
		}},
		{"add an endpoint", func() (string, error) {
			err := r.subscribe(ctx)
			return r.endpoint.ID, err
		}},
		{"emit an event", func() (_ string, err error) {
			report.EventID, err = r.emit(ctx, 0)
			return report.EventID, err
		}},
		{"receive the webhook", func() (string, error) {
			latency, err := r.receive(ctx, o.ReceiveTime, report.EventID)
			if err != nil {
				return "", err
			}
			report.LatencyMS = float64(latency.Milliseconds())
			return fmt.Sprintf("verified, %s after acceptance", latency.Round(time.Millisecond)), nil
		}},
		{"check that the delivery is recorded", func() (string, error) {
			return r.recorded(ctx, o.ReceiveTime, report.EventID)
		}},
		{"check the deployment's health", func() (detail string, err error) {
			report.Version, err = r.healthy(ctx, o.HealthTime)
			return "version " + report.Version, err
		}},
	} {
		if report.OK {
			step(s.name, s.do)
		}
	}
	step("remove the endpoint and the run", func() (string, error) { return "", r.cleanUp(ctx) })
	return report
}

// until calls look every so often until it succeeds, for at most a time. It returns the
// last error that is not one of the end itself.
func until(ctx context.Context, within, every time.Duration, look func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var last error
	for {
		err := look(limited)
		if err == nil {
			return nil
		}
		if last == nil || limited.Err() == nil {
			last = err
		}
		if pause(limited, every) == nil {
			continue
		}
		if ctx.Err() != nil {
			return fmt.Errorf("interrupted: %w", last)
		}
		return fmt.Errorf("%w after %s", last, within)
	}
}

// receive waits for an event at the receiver and returns its latency.
func (r *run) receive(ctx context.Context, within time.Duration, eventID string) (latency time.Duration, err error) {
	err = until(ctx, within, pollTime, func(ctx context.Context) error {
		all, err := r.arrivals(ctx, "")
		if err != nil {
			return err
		}
		got, ok := testrun.Collect(all)[eventID]
		latency = testrun.Since(eventID, got.First)
		if !ok {
			return errors.New("the webhook has not arrived")
		}
		return nil
	})
	if err != nil {
		// Say what became of it, if anything did.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
		defer cancel()
		if d, failed := r.Deliveries.GetDelivery(ctx, r.key(eventID)); failed == nil {
			err = fmt.Errorf("%w; %s", err, describe(d))
		} else {
			err = fmt.Errorf("%w; no attempt is recorded", err)
		}
	}
	return latency, err
}

func (r *run) key(eventID string) delivery.Key {
	return delivery.Key{EndpointID: r.endpoint.ID, EventID: eventID}
}

func describe(d delivery.Delivery) string {
	text := fmt.Sprintf("the delivery is %s after %d attempts", d.State, d.Attempts)
	if d.Reason != "" {
		text += ": " + d.Reason
	}
	return text
}

// recorded waits until a delivery's record says that it is delivered.
func (r *run) recorded(ctx context.Context, within time.Duration, eventID string) (detail string, err error) {
	err = until(ctx, within, pollTime, func(ctx context.Context) error {
		d, err := r.Deliveries.GetDelivery(ctx, r.key(eventID))
		if err != nil {
			return err
		}
		if d.State != delivery.Delivered {
			return errors.New(describe(d))
		}
		detail = fmt.Sprintf("delivered at attempt %d", d.Attempts)
		return nil
	})
	return detail, err
}

// healthy waits until the deployment is healthy and returns its version.
func (r *run) healthy(ctx context.Context, within time.Duration) (version string, err error) {
	err = until(ctx, within, 8*pollTime, func(ctx context.Context) error {
		var report health.Report
		if err := r.Invoke(ctx, "health", map[string]string{"action": "report"}, &report); err != nil {
			return err
		}
		version = report.Version
		if !report.Healthy {
			return fmt.Errorf("unhealthy: %s", strings.Join(report.Reasons, "; "))
		}
		return nil
	})
	return version, err
}
