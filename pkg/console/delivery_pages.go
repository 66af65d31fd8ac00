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

func (c *Console) listDeliveries(r *http.Request, who Session) (page, error) {
	q := r.URL.Query()
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
		return page{}, err
	}
	d.DeliveryPage, err = c.Operations.ListDeliveries(r.Context(), who, filter)
	return page{Template: "deliveries", Title: "Deliveries", Nav: "deliveries", Data: d}, err
}

func (c *Console) showDelivery(r *http.Request, who Session) (page, error) {
	d, err := c.Operations.GetDelivery(r.Context(), who, r.PathValue("endpoint"), r.PathValue("event"))
	if err != nil {
		return page{}, err
	}
	data := struct {
		Delivery
		Request *SignedRequest
		Missing string // why there is no request
	}{Delivery: d}
	request, err := c.Operations.SignRequest(r.Context(), who, d.EndpointID, d.EventID)
	if refused := (*Error)(nil); errors.As(err, &refused) {
		data.Missing, err = refused.Message, nil
	} else {
		data.Request = &request
	}
	return page{Template: "delivery", Title: "Delivery", Nav: "deliveries", Data: data}, err
}

// replay handles the list's checkboxes and the button of a single delivery.
func (c *Console) replay(r *http.Request, who Session) (page, error) {
	var keys []delivery.Key
	for _, text := range r.PostForm["delivery"] {
		endpointID, eventID, _ := strings.Cut(text, "/")
		keys = append(keys, delivery.Key{EndpointID: endpointID, EventID: eventID})
	}
	results, err := c.Operations.Replay(r.Context(), who, keys)
	if err != nil {
		return page{}, err
	}
	if len(results) == 1 {
		if !results[0].Replayed {
			return page{}, errorf(Conflict, "%s", results[0].Message)
		}
		return page{Redirect: "/deliveries/" + url.PathEscape(keys[0].EndpointID) + "/" + url.PathEscape(keys[0].EventID) + "?replayed=1"}, nil
	}
	replayed := 0
	for _, one := range results {
		if one.Replayed {
			replayed++
		}
	}
	return page{Redirect: fmt.Sprintf("/deliveries?replayed=%d&refused=%d", replayed, len(results)-replayed)}, nil
}
