package console

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
)

// EventType is an event type of the catalog.
type EventType struct {
	Name          string          `json:"name"`
	Description   string          `json:"description"`
	CapturedFrom  string          `json:"captured_from"`
	Sample        json.RawMessage `json:"sample"`
	Schema        json.RawMessage `json:"schema"`
	Version       int             `json:"version" doc:"The newest version of the type, whose schema and sample this is"`
	RetentionDays int             `json:"retention_days" doc:"How many days its events are kept after they were accepted"`
	// Deprecated is absent unless the type is deprecated.
	Deprecated *catalog.Deprecation `json:"deprecated,omitempty"`
	Versions   []TypeVersion        `json:"versions" nullable:"false" doc:"All versions, the oldest first"`
	LeftOut    int                  `json:"definitions_left_out,omitempty" doc:"How many versions have no definition in this answer, because it would be too large: they are at /catalog/schemas, such as order.paid.json and order.paid.v2.json"`
}

// maxTypesBytes is how many bytes of types an answer has at most: one of a Lambda function
// has up to 6 MB, and a deployment has up to 16 MB of definitions.
const maxTypesBytes = 4 << 20

// EventTypes returns up to limit event types whose names follow after, in their order. For
// tenant, see typesOf.
func (o *Operations) EventTypes(ctx context.Context, who Session, tenant, after string, limit int) (EventTypes, error) {
	known, err := o.typesOf(ctx, who, tenant)
	if err != nil {
		return EventTypes{}, err
	}
	return o.viewTypes(known, after, limit), nil
}

// viewTypes describes up to limit types whose names follow after, and fewer if they are
// large, but at least one.
func (o *Operations) viewTypes(known *catalog.Catalog, after string, limit int) EventTypes {
	page := EventTypes{Types: []EventType{}, UndefinedAllowed: known.IsOpen()}
	size := 0
	for _, name := range known.Types() {
		if name <= after {
			continue
		}
		t, _ := known.Type(name)
		v := o.viewType(known, t)
		size += len(v.Schema) + len(v.Sample) + len(v.Description) + len(v.CapturedFrom) + 300 + len(v.Versions)*150
		if n := len(page.Types); n == limit || n > 0 && size > maxTypesBytes {
			page.Next = page.Types[n-1].Name
			break
		}
		page.Types = append(page.Types, v)
	}
	return page
}

// viewType describes a type by its newest version t.
func (o *Operations) viewType(known *catalog.Catalog, t catalog.Type) EventType {
	v := EventType{
		Name: t.Name, Version: t.Version, Description: t.Description, CapturedFrom: t.CapturedFrom, Schema: t.Schema, Deprecated: t.Deprecated,
		RetentionDays: o.retentionDays(t), Versions: typeVersions(known, t.Name),
	}
	if len(t.Samples) > 0 {
		v.Sample = t.Samples[0]
	}
	return v
}

// retentionDays returns how many days events of a type are kept.
func (o *Operations) retentionDays(t catalog.Type) int {
	return cmp.Or(t.RetentionDays, o.RetentionDays, event.DefaultRetentionDays)
}

// storedTypes returns the names under which events of types are stored, also of types that
// were renamed or removed. It refuses what is not the name of a type.
func (o *Operations) storedTypes(ctx context.Context, who Session, types []string) ([]string, error) {
	known, err := o.Endpoints.Catalog.Of(ctx, who.Tenant)
	if err != nil {
		return nil, err
	}
	names, _, err := known.Stored(types)
	if err != nil {
		return nil, errorf(Invalid, "%s", err)
	}
	return names, nil
}

// Event is an event and its deliveries.
type Event struct {
	ID           string          `json:"id"`
	Type         string          `json:"type"`
	Version      int             `json:"version,omitempty" doc:"The version of the type that the body is of, if it is not the first"`
	OldType      string          `json:"old_type,omitempty" doc:"The type's old name, if it was renamed: endpoints with old_names get the event under it"`
	TypeNote     string          `json:"type_note,omitempty" doc:"What became of the type, if there is none of this name any more"`
	Timestamp    time.Time       `json:"timestamp"`
	AcceptedAt   time.Time       `json:"accepted_at"`
	Actor        string          `json:"actor_user_id,omitempty"`
	ErasedAt     time.Time       `json:"erased_at,omitzero" doc:"When the event was erased; its body is then empty, and it is not sent any more"`
	Body         json.RawMessage `json:"body" doc:"The body exactly as receivers get it"`
	Destinations []Destination   `json:"destinations" nullable:"false"`
}

// Destination is an endpoint and the state of the event's delivery to it.
type Destination struct {
	EndpointID    string         `json:"endpoint_id"`
	URL           string         `json:"url"`
	State         delivery.State `json:"state,omitempty" doc:"Absent if there is no delivery"`
	Attempts      int            `json:"attempts"`
	Version       int            `json:"version,omitempty" doc:"The version of the event's type that the endpoint gets, if the event has several"`
	NextAttemptAt time.Time      `json:"next_attempt_at,omitzero"`
	Note          string         `json:"note,omitempty" doc:"Why there is no delivery, or why it failed"`
}

// GetEvent returns an event and its deliveries.
func (o *Operations) GetEvent(ctx context.Context, who Session, id string) (Event, error) {
	a, e, err := o.loadEvent(ctx, who, id)
	if err != nil {
		return Event{}, err
	}
	known, err := o.Endpoints.Catalog.Of(ctx, who.Tenant)
	if err != nil {
		return Event{}, err
	}
	v := Event{ID: e.ID, Type: e.Type, Version: e.Version, OldType: a.OldType, TypeNote: known.Gone(e.Type), Timestamp: e.Timestamp, Actor: e.ActorUserID, Body: a.Body, ErasedAt: a.ErasedAt, AcceptedAt: acceptedAt(e.ID, e.Timestamp)}
	list, err := o.Endpoints.Store.ListEndpoints(ctx, who.Tenant)
	if err != nil {
		return Event{}, err
	}
	v.Destinations = make([]Destination, len(list))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i, ep := range list {
		group.Go(func() error {
			to := Destination{EndpointID: ep.ID, URL: ep.URL, Version: versionFor(ep, a, e.Type)}
			d, err := o.Deliveries.GetDelivery(ctx, delivery.Key{EndpointID: ep.ID, EventID: id})
			switch {
			case errors.Is(err, delivery.ErrNotFound) && !a.ErasedAt.IsZero():
				to.Note = erasedAt(a)
			case errors.Is(err, delivery.ErrNotFound):
				to.Note = reasonNotSent(ep, a, e.Type, v.AcceptedAt, o.Now())
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
		return a, event.Event{}, errorf(NotFound, "event %s not found; events are kept for %d days, or as long as their type says", id, o.retentionDays(catalog.Type{}))
	}
	if err != nil {
		return a, event.Event{}, err
	}
	e, err := event.Decode(a.Body)
	return a, e, err
}

// versionFor returns the version of an event's type that an endpoint gets; 0 if the event has
// one.
func versionFor(ep endpoint.Endpoint, a event.Accepted, eventType string) int {
	if len(a.Versions) == 0 {
		return 0
	}
	in, err := destination.InVersion(ep, a, eventType)
	if err != nil {
		return 0
	}
	sent, err := event.Decode(in.Body)
	if err != nil {
		return 0
	}
	return max(sent.Version, 1)
}

// erasedAt says that an event was erased, and when.
func erasedAt(a event.Accepted) string {
	return "the event was erased at " + a.ErasedAt.UTC().Format(time.RFC3339)
}

// missedAfter is how long after its acceptance an event without a delivery is missed, not
// on its way.
const missedAfter = time.Hour

// reasonNotSent returns why an endpoint has no delivery of an event, and what sends it.
func reasonNotSent(ep endpoint.Endpoint, accepted event.Accepted, eventType string, at, now time.Time) string {
	sends := fmt.Sprintf("`tidings recover --endpoint %s` sends it", ep.ID)
	sub, broken := subscriptionOf(ep)
	switch {
	case !ep.Subscribes(eventType) && accepted.OldType != "" && ep.Subscribes(accepted.OldType):
		return fmt.Sprintf("subscribed to %s, which is called %s now, and not to that", accepted.OldType, eventType)
	case !ep.Subscribes(eventType):
		return "not subscribed to " + eventType
	case broken != nil:
		return fmt.Sprintf("the filter is invalid: %s", broken)
	}
	if why := sub.mismatch(accepted, eventType); why != "" {
		return "the filter does not match: " + why
	}
	switch {
	case ep.CreatedAt.After(at):
		return fmt.Sprintf("the endpoint was added later, at %s; %s", ep.CreatedAt.UTC().Format(time.RFC3339), sends)
	case ep.Status == endpoint.Disabled && ep.StatusReason == "":
		return "the endpoint is disabled; once it is enabled, " + sends
	case ep.Status == endpoint.Disabled:
		return fmt.Sprintf("the endpoint is disabled (%s); once it is enabled, %s", ep.StatusReason, sends)
	case now.Sub(at) > missedAfter:
		return "missed: the endpoint was disabled or had other settings, or the message was lost; " + sends
	}
	return "pending: no attempt yet"
}

func (c *Console) showEvent(r *http.Request, who Session) (page, error) {
	e, err := c.Operations.GetEvent(r.Context(), who, r.PathValue("event"))
	return page{Template: "event", Title: e.Type, Nav: "events", Data: e}, err
}
