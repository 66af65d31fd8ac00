package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/filter"
)

// EventType is an event type of the catalog.
type EventType struct {
	Name         string          `json:"name"`
	Description  string          `json:"description"`
	CapturedFrom string          `json:"captured_from"`
	Sample       json.RawMessage `json:"sample"`
	Schema       json.RawMessage `json:"schema"`
}

// EventTypes returns the event types of the deployment.
func (o *Operations) EventTypes(ctx context.Context) ([]EventType, error) {
	known, err := o.Endpoints.Catalog.Current(ctx)
	if err != nil {
		return nil, err
	}
	list := []EventType{}
	for _, name := range known.Types() {
		t, _ := known.Type(name)
		v := EventType{Name: t.Name, Description: t.Description, CapturedFrom: t.CapturedFrom, Schema: t.Schema}
		if len(t.Samples) > 0 {
			v.Sample = t.Samples[0]
		}
		list = append(list, v)
	}
	return list, nil
}

// checkTypes refuses names that are not those of event types.
func (o *Operations) checkTypes(ctx context.Context, names []string) error {
	known, err := o.Endpoints.Catalog.Current(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, ok := known.Type(name); !ok {
			return errorf(Invalid, "%s", known.Unknown(name))
		}
	}
	return nil
}

// Event is an event and its deliveries.
type Event struct {
	ID           string          `json:"id"`
	Type         string          `json:"type"`
	Timestamp    time.Time       `json:"timestamp"`
	AcceptedAt   time.Time       `json:"accepted_at"`
	Actor        string          `json:"actor_user_id,omitempty"`
	Body         json.RawMessage `json:"body" doc:"The body exactly as receivers get it"`
	Destinations []Destination   `json:"destinations" nullable:"false"`
}

// Destination is an endpoint and the state of the event's delivery to it.
type Destination struct {
	EndpointID    string         `json:"endpoint_id"`
	URL           string         `json:"url"`
	State         delivery.State `json:"state,omitempty" doc:"Absent if there is no delivery"`
	Attempts      int            `json:"attempts"`
	NextAttemptAt time.Time      `json:"next_attempt_at,omitzero"`
	Note          string         `json:"note,omitempty" doc:"Why there is no delivery, or why it failed"`
}

// GetEvent returns an event and its deliveries.
func (o *Operations) GetEvent(ctx context.Context, who Session, id string) (Event, error) {
	a, e, err := o.loadEvent(ctx, who, id)
	if err != nil {
		return Event{}, err
	}
	v := Event{ID: e.ID, Type: e.Type, Timestamp: e.Timestamp, Actor: e.ActorUserID, Body: a.Body, AcceptedAt: acceptedAt(e.ID, e.Timestamp)}
	list, err := o.Endpoints.Store.ListEndpoints(ctx, who.Tenant)
	if err != nil {
		return Event{}, err
	}
	v.Destinations = make([]Destination, len(list))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i, ep := range list {
		group.Go(func() error {
			to := Destination{EndpointID: ep.ID, URL: ep.URL}
			d, err := o.Deliveries.GetDelivery(ctx, delivery.Key{EndpointID: ep.ID, EventID: id})
			switch {
			case errors.Is(err, delivery.ErrNotFound):
				to.Note = reasonNotSent(ep, e.Type, a.Body, v.AcceptedAt)
			case err != nil:
				return err
			default:
				to.State, to.Attempts, to.Note = d.State, d.Attempts, d.Reason
				if !d.InBacklog {
					to.NextAttemptAt = d.NextAttemptAt
				}
			}
			v.Destinations[i] = to
			return nil
		})
	}
	return v, group.Wait()
}

func (o *Operations) loadEvent(ctx context.Context, who Session, id string) (event.Accepted, event.Event, error) {
	a, err := event.Accepted{}, event.ErrNotFound
	if event.IsID(id) {
		a, err = o.Events.GetEvent(ctx, id)
	}
	if errors.Is(err, event.ErrNotFound) || err == nil && a.Tenant != who.Tenant {
		return a, event.Event{}, errorf(NotFound, "event %s not found; events are kept for 30 days", id)
	}
	if err != nil {
		return a, event.Event{}, err
	}
	e, err := event.Decode(a.Body)
	return a, e, err
}

// reasonNotSent returns why an endpoint has no delivery of an event.
func reasonNotSent(ep endpoint.Endpoint, eventType string, body []byte, accepted time.Time) string {
	switch {
	case ep.CreatedAt.After(accepted):
		return "the endpoint was added later, at " + ep.CreatedAt.UTC().Format(time.RFC3339)
	case !ep.Subscribes(eventType):
		return "not subscribed to " + eventType
	case ep.Status == endpoint.Disabled:
		if ep.StatusReason == "" {
			return "the endpoint is disabled"
		}
		return fmt.Sprintf("the endpoint is disabled (%s)", ep.StatusReason)
	}
	if len(ep.Filter) > 0 {
		compiled, err := filter.Compile(ep.Filter)
		doc, unread := filter.Parse(body)
		if err == nil && unread == nil && !compiled.Matches(doc) {
			return "the filter does not match: " + compiled.Mismatch(doc)
		}
	}
	return "pending: no attempt yet"
}

func (c *Console) showEvent(r *http.Request, who Session) (page, error) {
	e, err := c.Operations.GetEvent(r.Context(), who, r.PathValue("event"))
	return page{Template: "event", Title: e.Type, Nav: "events", Data: e}, err
}
