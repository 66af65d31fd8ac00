package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
)

// reportOutcome updates the endpoint's circuit after an attempt, and disables an
// endpoint that has failed for too long. Failures to store the circuit are only
// logged, because the verdict on the delivery is stored already.
func (d *Dispatcher) reportOutcome(ctx context.Context, ep *endpoint.Endpoint, claimID string, outcome delivery.Outcome) error {
	now := d.Now()
	var failed breaker.FailureResult
	closed := false
	s, changed, err := d.circuits.update(ctx, ep.Tenant, ep.ID, false, func(s breaker.State) (breaker.State, bool) {
		changed := false
		switch {
		case outcome.Class == delivery.Success:
			wasOpen := s.Phase == breaker.Open
			s, changed = s.RecordSuccess(claimID, now)
			closed = wasOpen && s.Phase != breaker.Open
		case breaker.ConcernsEndpoint(outcome.Class):
			s, failed = s.RecordFailure(ep.Breaker, claimID, outcome.Error, now)
			changed = failed.Changed
		default:
			s, changed = s.ReleaseProbe(claimID, now)
		}
		if breaker.ConcernsEndpoint(outcome.Class) && (outcome.Class != delivery.Success || outcome.Timings.Total >= breaker.SlowAfter) {
			next, slower := s.AnsweredBadly(now)
			return next, changed || slower
		}
		return s, changed
	})
	switch {
	case err != nil:
		d.Log.ErrorContext(ctx, "circuit.not_stored", "endpoint_id", ep.ID, "error", err.Error())
		return nil
	case !changed:
		return nil
	case failed.Disable:
		if err := d.disable(ctx, ep, fmt.Sprintf("it has only failed since %s: %s", s.FailingSince.Format(time.RFC3339), outcome.Error), now); err != nil {
			return err
		}
		d.sendWake(ctx, s, 0)
	case failed.Opened:
		d.Log.WarnContext(ctx, "circuit.opened", "endpoint_id", ep.ID, "tenant", ep.Tenant, "failures", s.Failures, "until", s.Until, "cause", s.Cause)
		d.sendWake(ctx, s, s.OpenFor)
	case closed:
		d.Log.InfoContext(ctx, "circuit.closed", "endpoint_id", ep.ID, "tenant", ep.Tenant)
		d.sendWake(ctx, s, 0)
	}
	return nil
}

// releaseProbe releases a probe whose attempt was not made.
func (d *Dispatcher) releaseProbe(ctx context.Context, ep *endpoint.Endpoint, claimID string) {
	s, changed, err := d.circuits.update(ctx, ep.Tenant, ep.ID, false, func(s breaker.State) (breaker.State, bool) {
		return s.ReleaseProbe(claimID, d.Now())
	})
	switch {
	case err != nil: // not fatal: the probe expires with the lease
		d.Log.WarnContext(ctx, "circuit.probe_not_returned", "endpoint_id", ep.ID, "error", err.Error())
	case changed:
		d.sendWake(ctx, s, 0)
	}
}

// Closed is the result of CloseCircuit.
type Closed struct {
	WasOpen bool `json:"was_open"`
}

// CloseCircuit closes an endpoint's circuit by hand: it resets the failures and starts
// to drain the backlog.
func (d *Dispatcher) CloseCircuit(ctx context.Context, c Command) (Closed, error) {
	if c.EndpointID == "" {
		return Closed{}, errors.New("close_circuit: endpoint_id is required")
	}
	if c.Tenant == "" {
		c.Tenant = event.DefaultTenant
	}
	// Otherwise the circuit of another tenant's endpoint would be closed, because circuits
	// are stored by endpoint.
	switch _, err := d.endpoints.fresh(ctx, c.Tenant, c.EndpointID); {
	case errors.Is(err, endpoint.ErrNotFound):
		return Closed{}, fmt.Errorf("close_circuit: tenant %.64q has no endpoint %.64q", c.Tenant, c.EndpointID)
	case err != nil:
		return Closed{}, fmt.Errorf("close_circuit: %w", err)
	}
	var done Closed
	s, changed, err := d.circuits.update(ctx, c.Tenant, c.EndpointID, true, func(s breaker.State) (breaker.State, bool) {
		done.WasOpen = s.Phase == breaker.Open
		return s.Close(d.Now()), s.Phase != breaker.Draining && !s.Clean()
	})
	if err != nil {
		return done, fmt.Errorf("close_circuit: %w", err)
	}
	if changed {
		d.Log.InfoContext(ctx, "circuit.closed_by_hand", "endpoint_id", c.EndpointID, "tenant", c.Tenant)
		d.sendWake(ctx, s, 0)
	}
	return done, nil
}
