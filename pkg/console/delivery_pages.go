package console

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
)

// deliveriesPage is a page of deliveries and its filter.
type deliveriesPage struct {
	DeliveryPage
	Endpoints []Endpoint
	Types     []string
	States    []delivery.State

	Endpoint, Type, State, Since, Cursor string
}

// NextURL is the URL of the next page.
func (d deliveriesPage) NextURL() string {
	return "/deliveries" + query("endpoint", d.Endpoint, "type", d.Type, "state", d.State, "since", d.Since, "cursor", d.Next)
}

// FirstURL is the URL of the first page with the same filter.
func (d deliveriesPage) FirstURL() string {
	return "/deliveries" + query("endpoint", d.Endpoint, "type", d.Type, "state", d.State, "since", d.Since)
}

// timeSpans are the page's time filters.
var timeSpans = map[string]time.Duration{"15m": 15 * time.Minute, "1h": time.Hour, "24h": 24 * time.Hour, "7d": 7 * 24 * time.Hour}

func (c *Console) listDeliveries(w http.ResponseWriter, r *http.Request) error {
	who, q := sessionOf(r.Context()), r.URL.Query()
	d := deliveriesPage{
		Endpoint: q.Get("endpoint"), Type: q.Get("type"), State: q.Get("state"), Since: q.Get("since"), Cursor: q.Get("cursor"),
		Types: c.Operations.Catalog.Types(), States: delivery.States,
	}
	filter := DeliveryFilter{EndpointID: d.Endpoint, EventType: d.Type, State: delivery.State(d.State), Cursor: d.Cursor}
	if span, ok := timeSpans[d.Since]; ok {
		filter.From = c.Operations.Now().Add(-span)
	}
	var err error
	if d.Endpoints, err = c.Operations.ListEndpoints(r.Context(), who); err != nil {
		return err
	}
	if d.DeliveryPage, err = c.Operations.ListDeliveries(r.Context(), who, filter); err != nil {
		return err
	}
	c.render(w, r, http.StatusOK, "deliveries", page{Title: "Deliveries", Nav: "deliveries", Data: d})
	return nil
}

func (c *Console) showDelivery(w http.ResponseWriter, r *http.Request) error {
	who := sessionOf(r.Context())
	d, err := c.Operations.GetDelivery(r.Context(), who, r.PathValue("endpoint"), r.PathValue("event"))
	if err != nil {
		return err
	}
	data := struct {
		Delivery
		Request *SignedRequest
		Missing string // why there is no request
	}{Delivery: d}
	request, err := c.Operations.SignRequest(r.Context(), who, d.EndpointID, d.EventID)
	var refused *Error
	switch {
	case err == nil:
		data.Request = &request
	case errors.As(err, &refused):
		data.Missing = refused.Message
	default:
		return err
	}
	c.render(w, r, http.StatusOK, "delivery", page{Title: "Delivery", Nav: "deliveries", Data: data})
	return nil
}

// replay handles the list's checkboxes and the button of a single delivery.
func (c *Console) replay(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return errorf(Invalid, "the form could not be parsed")
	}
	var keys []delivery.Key
	for _, text := range r.PostForm["delivery"] {
		endpointID, eventID, _ := strings.Cut(text, "/")
		keys = append(keys, delivery.Key{EndpointID: endpointID, EventID: eventID})
	}
	results, err := c.Operations.Replay(r.Context(), sessionOf(r.Context()), keys)
	if err != nil {
		return err
	}
	if len(results) == 1 {
		if !results[0].Replayed {
			return errorf(Conflict, "%s", results[0].Message)
		}
		redirect(w, r, "/deliveries/"+url.PathEscape(keys[0].EndpointID)+"/"+url.PathEscape(keys[0].EventID)+"?replayed=1")
		return nil
	}
	replayed := 0
	for _, one := range results {
		if one.Replayed {
			replayed++
		}
	}
	redirect(w, r, fmt.Sprintf("/deliveries?replayed=%d&refused=%d", replayed, len(results)-replayed))
	return nil
}
