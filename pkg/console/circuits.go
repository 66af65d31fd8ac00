package console

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/dispatch"
)

// Circuit is an endpoint's circuit breaker.
type Circuit struct {
	EndpointID   string    `json:"endpoint_id"`
	URL          string    `json:"url,omitempty" doc:"The endpoint's URL; absent if the endpoint was deleted"`
	State        string    `json:"state" enum:"open,half-open,draining,closed"`
	Since        time.Time `json:"since,omitzero"`
	FailingSince time.Time `json:"failing_since,omitzero"`
	Failures     int       `json:"failures" doc:"Consecutive failures"`
	NextProbe    time.Time `json:"next_probe_at,omitzero"`
	Cause        string    `json:"cause,omitempty" doc:"The latest failure"`
	SlowSince    time.Time `json:"slow_since,omitzero" doc:"Since when the endpoint's deliveries use the slow lane; absent if they do not"`
}

// ViewCircuit converts a circuit breaker for display; the CLI uses it too. urls maps
// endpoint ids to URLs.
func ViewCircuit(s breaker.State, urls map[string]string, now time.Time) Circuit {
	return Circuit{
		EndpointID: s.EndpointID, URL: urls[s.EndpointID], State: s.Label(now), Since: s.Since, FailingSince: s.FailingSince,
		Failures: s.Failures, NextProbe: s.Until, Cause: s.Cause, SlowSince: s.InSlowLane(now),
	}
}

// ListCircuits returns the tenant's circuit breakers that are open, half-open or
// still draining their backlog.
func (o *Operations) ListCircuits(ctx context.Context, who Session) ([]Circuit, error) {
	all, err := o.Breakers.ListCircuits(ctx, time.Time{})
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(s breaker.State) bool { return s.Tenant != who.Tenant })
	views := []Circuit{}
	if len(all) == 0 {
		return views, nil
	}
	urls, err := o.endpointURLs(ctx, who)
	for _, s := range all {
		views = append(views, ViewCircuit(s, urls, o.Now()))
	}
	return views, err
}

// GetCircuit returns an endpoint's circuit breaker in any state.
func (o *Operations) GetCircuit(ctx context.Context, who Session, endpointID string) (Circuit, error) {
	e, err := o.loadEndpoint(ctx, who, endpointID)
	if err != nil {
		return Circuit{}, err
	}
	s, err := o.Breakers.GetBreaker(ctx, who.Tenant, endpointID, false)
	if errors.Is(err, breaker.ErrUnreadable) {
		err = nil // a clean one: dispatch logs it and replaces it
	}
	return ViewCircuit(s, map[string]string{endpointID: e.URL}, o.Now()), err
}

// CloseCircuit closes a circuit breaker; its backlog is sent.
func (o *Operations) CloseCircuit(ctx context.Context, who Session, endpointID string) (dispatch.Closed, error) {
	return changeEndpoint(ctx, o, who, "circuit.close", endpointID, "", func() (done dispatch.Closed, err error) {
		if _, err := o.loadEndpoint(ctx, who, endpointID); err != nil {
			return done, err
		}
		if err := o.Dispatch(ctx, dispatch.Command{Action: "close_circuit", Tenant: who.Tenant, EndpointID: endpointID}, &done); err != nil {
			return done, err
		}
		if !done.WasOpen {
			return done, errorf(Conflict, "the circuit breaker of endpoint %s is already closed", endpointID)
		}
		return done, nil
	})
}

func (c *Console) listCircuits(r *http.Request, who Session) (page, error) {
	list, err := c.Operations.ListCircuits(r.Context(), who)
	return page{Template: "circuits", Title: "Circuit breakers", Nav: "circuits", Data: list}, err
}
