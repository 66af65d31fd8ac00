package console

import (
	"context"
	"net/http"
	"net/url"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/pkg/delivery"
)

// endpointSummary is an endpoint with its latest deliveries.
type endpointSummary struct {
	Endpoint
	Recent []Delivery // newest first
}

// recentDeliveries is the number of latest deliveries that an endpoint's health is
// computed from.
const recentDeliveries = 24

func (c *Console) endpointSummaries(ctx context.Context, who Session) ([]endpointSummary, error) {
	list, err := c.Operations.ListEndpoints(ctx, who)
	if err != nil {
		return nil, err
	}
	out := make([]endpointSummary, len(list))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i, e := range list {
		group.Go(func() error {
			recent, err := c.Operations.Deliveries.QueryDeliveries(ctx, delivery.Query{EndpointID: e.ID, Limit: recentDeliveries})
			if err != nil {
				return err
			}
			out[i] = endpointSummary{Endpoint: e}
			for _, d := range recent.Deliveries {
				out[i].Recent = append(out[i].Recent, ViewDelivery(d, nil))
			}
			return nil
		})
	}
	return out, group.Wait()
}

// Health returns idle, healthy, degraded, failing, paused or disabled.
func (s endpointSummary) Health() string {
	if s.Status != "enabled" {
		return string(s.Status)
	}
	var good, bad int
	for _, d := range s.Recent {
		switch {
		case d.State == delivery.Delivered && d.Attempts == 1:
			good++
		case d.State == delivery.Dead || d.State == delivery.Pending && len(d.History) > 0:
			bad++
		}
	}
	switch {
	case len(s.Recent) == 0:
		return "idle"
	case bad == 0:
		return "healthy"
	case bad > good:
		return "failing"
	}
	return "degraded"
}

func (c *Console) listEndpoints(r *http.Request, who Session) (page, error) {
	list, err := c.endpointSummaries(r.Context(), who)
	return page{Template: "endpoints", Title: "Endpoints", Nav: "endpoints", Data: list}, err
}

func (c *Console) showEndpoint(r *http.Request, who Session) (page, error) {
	e, err := c.Operations.GetEndpoint(r.Context(), who, r.PathValue("id"))
	return c.endpointPage(r, who, WithSecret{Endpoint: e}, err)
}

// rotateSecret renders the page instead of redirecting, because the secret is shown
// only once.
func (c *Console) rotateSecret(r *http.Request, who Session) (page, error) {
	e, err := c.Operations.RotateSecret(r.Context(), who, r.PathValue("id"))
	return c.endpointPage(r, who, e, err)
}

func (c *Console) endpointPage(r *http.Request, who Session, e WithSecret, err error) (page, error) {
	if err != nil {
		return page{}, err
	}
	recent, err := c.Operations.ListDeliveries(r.Context(), who, DeliveryFilter{EndpointID: e.ID, Limit: 20})
	if err != nil {
		return page{}, err
	}
	circuit, err := c.Operations.GetCircuit(r.Context(), who, e.ID)
	return page{Template: "endpoint", Title: e.URL, Nav: "endpoints", Path: "/endpoints/" + url.PathEscape(e.ID), Data: struct {
		WithSecret
		Circuit Circuit
		Recent  []Delivery
	}{e, circuit, recent.Deliveries}}, err
}

func (c *Console) testEndpoint(r *http.Request, who Session) (page, error) {
	report, err := c.Operations.TestEndpoint(r.Context(), who, r.PathValue("id"), r.PostFormValue("event"))
	return page{Template: "test", Title: "Test", Nav: "endpoints", Data: report}, err
}
