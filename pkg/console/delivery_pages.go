package console

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
)

// deliveriesPage is a page of deliveries and its filter.
type deliveriesPage struct {
	DeliveryPage
	Endpoints []Endpoint
	Types     []string
	States    []delivery.State

	Endpoint, Type, State, Status, Since, From, To, Cursor string
}

// NextURL is the URL of the next page.
func (d deliveriesPage) NextURL() string {
	return "/deliveries" + query(append(d.filter(), "cursor", d.Next)...)
}

// FirstURL is the URL of the first page with the same filter.
func (d deliveriesPage) FirstURL() string {
	return "/deliveries" + query(d.filter()...)
}

// filter returns the names and values of the URL's parameters.
func (d deliveriesPage) filter() []string {
	return []string{"endpoint", d.Endpoint, "type", d.Type, "state", d.State, "status", d.Status, "since", d.Since, "from", d.From, "to", d.To}
}

// parseTime parses a time of a form in UTC, or an RFC 3339 time. "" is no bound.
func parseTime(name, text string) (time.Time, error) {
	for _, layout := range []string{"2006-01-02T15:04", "2006-01-02T15:04:05", time.RFC3339} {
		if at, err := time.Parse(layout, text); err == nil {
			return at, nil
		}
	}
	if text == "" {
		return time.Time{}, nil
	}
	return time.Time{}, errorf(Invalid, "%s is not a time such as 2026-01-29T12:00 (UTC)", name)
}

// timeSpans are the page's time filters.
var timeSpans = map[string]time.Duration{"15m": 15 * time.Minute, "1h": time.Hour, "24h": 24 * time.Hour, "7d": 7 * 24 * time.Hour}

func (c *Console) listDeliveries(r *http.Request, who Session) (page, error) {
	q := r.URL.Query()
	d := deliveriesPage{
		Endpoint: q.Get("endpoint"), Type: q.Get("type"), State: q.Get("state"), Status: q.Get("status"),
		From: q.Get("from"), To: q.Get("to"), Since: q.Get("since"), Cursor: q.Get("cursor"), States: delivery.States,
	}
	filter, err := c.deliveryFilter(q)
	if err != nil {
		return page{}, err
	}
	filter.Cursor = d.Cursor
	known, err := c.Operations.Endpoints.Catalog.Of(r.Context(), who.Tenant)
	if err != nil {
		return page{}, err
	}
	d.Types = known.Types()
	if d.Endpoints, err = c.Operations.ListEndpoints(r.Context(), who); err != nil {
		return page{}, err
	}
	d.DeliveryPage, err = c.Operations.ListDeliveries(r.Context(), who, filter)
	return page{Template: "deliveries", Title: "Deliveries", Nav: "deliveries", Data: d}, err
}

// deliveryFilter reads the filter of the page's form.
func (c *Console) deliveryFilter(v url.Values) (f DeliveryFilter, err error) {
	f = DeliveryFilter{EndpointID: v.Get("endpoint"), EventType: v.Get("type"), State: delivery.State(v.Get("state"))}
	if f.Status, err = delivery.ParseStatuses(v.Get("status")); err != nil {
		return f, errorf(Invalid, "status: %s", err)
	}
	if f.From, err = parseTime("from", v.Get("from")); err != nil {
		return f, err
	}
	if f.To, err = parseTime("to", v.Get("to")); err != nil {
		return f, err
	}
	if span, ok := timeSpans[v.Get("since")]; ok && f.From.IsZero() {
		f.From = c.Operations.Now().Add(-span)
	}
	return f, nil
}

// replayMatching starts a dry run of a replay of everything that the list's filter selects,
// from whose page the replay itself is started.
func (c *Console) replayMatching(r *http.Request, who Session) (page, error) {
	f, err := c.deliveryFilter(r.PostForm)
	if err != nil {
		return page{}, err
	}
	if f.EndpointID == "" {
		return page{}, errorf(Invalid, "choose an endpoint: each has a job of its own")
	}
	n := NewJob{Kind: jobs.Replay, EndpointID: f.EndpointID, From: f.From, To: f.To, Status: r.PostForm.Get("status"), States: dispatch.ReplayStates, DryRun: true}
	if f.EventType != "" {
		n.Types = []string{f.EventType}
	}
	if f.State != "" {
		n.States = []delivery.State{f.State}
	}
	j, err := c.Operations.StartJob(r.Context(), who, n)
	return page{Redirect: jobPath(j)}, err
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
