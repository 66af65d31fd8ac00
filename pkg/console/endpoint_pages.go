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

// Health returns idle, healthy, degraded, failing or disabled.
func (s endpointSummary) Health() string {
	if s.Status != "enabled" {
		return "disabled"
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

func (c *Console) listEndpoints(w http.ResponseWriter, r *http.Request) error {
	list, err := c.endpointSummaries(r.Context(), sessionOf(r.Context()))
	if err != nil {
		return err
	}
	c.render(w, r, http.StatusOK, "endpoints", page{Title: "Endpoints", Nav: "endpoints", Data: list})
	return nil
}

func (c *Console) showEndpoint(w http.ResponseWriter, r *http.Request) error {
	who := sessionOf(r.Context())
	e, err := c.Operations.GetEndpoint(r.Context(), who, r.PathValue("id"))
	if err != nil {
		return err
	}
	return c.endpointPage(w, r, WithSecret{Endpoint: e})
}

func (c *Console) endpointPage(w http.ResponseWriter, r *http.Request, e WithSecret) error {
	recent, err := c.Operations.ListDeliveries(r.Context(), sessionOf(r.Context()), DeliveryFilter{EndpointID: e.ID, Limit: 20})
	if err != nil {
		return err
	}
	circuit, err := c.Operations.GetCircuit(r.Context(), sessionOf(r.Context()), e.ID)
	if err != nil {
		return err
	}
	c.render(w, r, http.StatusOK, "endpoint", page{Title: e.URL, Nav: "endpoints", Path: "/endpoints/" + url.PathEscape(e.ID), Data: struct {
		WithSecret
		Circuit Circuit
		Recent  []Delivery
	}{e, circuit, recent.Deliveries}})
	return nil
}

func (c *Console) enableEndpoint(w http.ResponseWriter, r *http.Request) error {
	e, err := c.Operations.EnableEndpoint(r.Context(), sessionOf(r.Context()), r.PathValue("id"))
	if err == nil {
		redirect(w, r, "/endpoints/"+e.ID+"?did=enabled")
	}
	return err
}

func (c *Console) disableEndpoint(w http.ResponseWriter, r *http.Request) error {
	e, err := c.Operations.DisableEndpoint(r.Context(), sessionOf(r.Context()), r.PathValue("id"))
	if err == nil {
		redirect(w, r, "/endpoints/"+e.ID+"?did=disabled")
	}
	return err
}

// rotateSecret renders the page instead of redirecting, because the secret is shown
// only once.
func (c *Console) rotateSecret(w http.ResponseWriter, r *http.Request) error {
	e, err := c.Operations.RotateSecret(r.Context(), sessionOf(r.Context()), r.PathValue("id"))
	if err != nil {
		return err
	}
	return c.endpointPage(w, r, e)
}

func (c *Console) removeEndpoint(w http.ResponseWriter, r *http.Request) error {
	err := c.Operations.RemoveEndpoint(r.Context(), sessionOf(r.Context()), r.PathValue("id"))
	if err == nil {
		redirect(w, r, "/endpoints?did=removed")
	}
	return err
}

func (c *Console) testEndpoint(w http.ResponseWriter, r *http.Request) error {
	report, err := c.Operations.TestEndpoint(r.Context(), sessionOf(r.Context()), r.PathValue("id"), r.PostFormValue("event"))
	if err != nil {
		return err
	}
	c.render(w, r, http.StatusOK, "test", page{Title: "Test", Nav: "endpoints", Data: report})
	return nil
}
