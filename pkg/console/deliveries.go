package console

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
)

// Delivery is a delivery as the console and the CLI show it.
type Delivery struct {
	EndpointID      string         `json:"endpoint_id"`
	EventID         string         `json:"event_id"`
	EventType       string         `json:"event_type,omitempty"`
	URL             string         `json:"url,omitempty" doc:"The endpoint's URL; absent if the endpoint was deleted"`
	State           delivery.State `json:"state" enum:"pending,in_flight,delivered,dead,skipped"`
	Attempts        int            `json:"attempts"`
	Reason          string         `json:"reason,omitempty"`
	Snippet         string         `json:"snippet,omitempty" doc:"Start of the last failed response"`
	NextAttemptAt   time.Time      `json:"next_attempt_at,omitzero"`
	WaitsForCircuit bool           `json:"waits_for_circuit,omitempty" doc:"The delivery waits in the endpoint's backlog, behind its open circuit breaker or its rate limit; reason says which"`
	AcceptedAt      time.Time      `json:"accepted_at"`
	UpdatedAt       time.Time      `json:"updated_at"`
	History         []Attempt      `json:"history" nullable:"false"`
}

// Settled reports whether no more attempts are made unless it is replayed.
func (d Delivery) Settled() bool { return d.State.Settled() }

// Attempt is one attempt.
type Attempt struct {
	Number    int            `json:"number"`
	At        time.Time      `json:"at,omitzero"`
	Outcome   delivery.Class `json:"outcome"`
	Status    int            `json:"status,omitempty"`
	DNS       int64          `json:"dns_ms"`
	Connect   int64          `json:"connect_ms"`
	TLS       int64          `json:"tls_ms"`
	FirstByte int64          `json:"first_byte_ms"`
	Total     int64          `json:"total_ms"`
}

// ViewDelivery converts a delivery for display; the CLI uses it too. urls maps
// endpoint ids to URLs.
func ViewDelivery(d delivery.Delivery, urls map[string]string) Delivery {
	v := Delivery{
		EndpointID: d.EndpointID, EventID: d.EventID, EventType: d.EventType, URL: urls[d.EndpointID], State: d.State,
		Attempts: d.Attempts, Reason: d.Reason, Snippet: d.Snippet, NextAttemptAt: d.NextAttemptAt,
		AcceptedAt: acceptedAt(d.EventID, d.CreatedAt), UpdatedAt: d.UpdatedAt, History: []Attempt{},
	}
	if v.WaitsForCircuit = d.InBacklog; v.WaitsForCircuit {
		v.NextAttemptAt = time.Time{} // the stored time is in the past
	}
	for _, a := range d.History {
		v.History = append(v.History, Attempt{
			Number: a.Number, At: a.At, Outcome: a.Class, Status: a.Status,
			DNS: a.Timings.DNS.Milliseconds(), Connect: a.Timings.Connect.Milliseconds(), TLS: a.Timings.TLS.Milliseconds(),
			FirstByte: a.Timings.FirstByte.Milliseconds(), Total: a.Timings.Total.Milliseconds(),
		})
	}
	return v
}

// acceptedAt returns the time in an event id, or fallback if the id has none.
func acceptedAt(eventID string, fallback time.Time) time.Time {
	if at, err := event.IDTime(eventID); err == nil {
		return at
	}
	return fallback
}

// DeliveryFilter selects deliveries.
type DeliveryFilter struct {
	EndpointID string
	EventType  string
	State      delivery.State
	Status     delivery.Statuses // of the latest attempt
	From, To   time.Time         // bounds of the event's acceptance, inclusive; zero is unbounded
	Limit      int
	Cursor     string
}

// DeliveryPage is a page of deliveries, newest event first.
type DeliveryPage struct {
	Deliveries []Delivery `json:"deliveries" nullable:"false"`
	Next       string     `json:"next,omitempty" doc:"Cursor of the next page; absent on the last page. A page can be short and still have a next page; it is empty only if none of many deliveries matched"`
	Until      time.Time  `json:"until,omitzero" doc:"The page covers events back to this time"`
}

// ListDeliveries returns a page of deliveries: of one endpoint, or of all of the
// tenant's current endpoints, merged.
func (o *Operations) ListDeliveries(ctx context.Context, who Session, f DeliveryFilter) (DeliveryPage, error) {
	urls, err := o.endpointURLs(ctx, who)
	if err != nil {
		return DeliveryPage{}, err
	}
	ids := slices.Sorted(maps.Keys(urls))
	if f.EndpointID != "" {
		if err := o.checkOwner(ctx, who, f.EndpointID, urls); err != nil {
			return DeliveryPage{}, err
		}
		ids = []string{f.EndpointID}
	}
	if f.State != "" && !slices.Contains(delivery.States, f.State) {
		return DeliveryPage{}, errorf(Invalid, "unknown state %q; the states are %v", f.State, delivery.States)
	}
	if err := delivery.CheckRange(f.From, f.To); err != nil {
		return DeliveryPage{}, errorf(Invalid, "%s", err)
	}
	of := list{tenant: who.Tenant, name: "deliveries", filter: []string{f.EndpointID, f.EventType, string(f.State), fmt.Sprint(f.Status)}}
	if f.Cursor, err = o.openCursor(ctx, of, f.Cursor); err != nil {
		return DeliveryPage{}, err
	}
	found, err := SearchDeliveries(ctx, o.Deliveries, ids, f, o.Now())
	if err != nil {
		return DeliveryPage{}, err
	}
	page := DeliveryPage{Deliveries: []Delivery{}, Until: found.Until}
	for _, d := range found.Deliveries {
		if d.Tenant != who.Tenant { // an endpoint belongs to one tenant, and so do its deliveries
			return DeliveryPage{}, fmt.Errorf("delivery %s of tenant %s was read for tenant %s", d.Key, d.Tenant, who.Tenant)
		}
		page.Deliveries = append(page.Deliveries, ViewDelivery(d, urls))
	}
	page.Next, err = o.sealCursor(ctx, of, found.Next)
	return page, err
}

// checkOwner returns a NotFound error unless an endpoint belongs, or belonged before it was
// deleted, to the session's tenant. urls are the tenant's endpoints. An id is unique
// across tenants, so the latest delivery to a deleted endpoint tells whose it was. The
// same is read for another tenant's endpoint as for one that never was.
func (o *Operations) checkOwner(ctx context.Context, who Session, id string, urls map[string]string) error {
	if _, ok := urls[id]; ok {
		return nil
	}
	if endpoint.IsID(id) {
		latest, err := o.Deliveries.QueryDeliveries(ctx, delivery.Query{EndpointID: id, Limit: 1})
		if err != nil {
			return err
		}
		if len(latest.Deliveries) == 1 && latest.Deliveries[0].Tenant == who.Tenant {
			return nil
		}
	}
	return explain(id, endpoint.ErrNotFound)
}

// loadDelivery returns a delivery of the session's tenant.
func (o *Operations) loadDelivery(ctx context.Context, who Session, endpointID, eventID string) (d delivery.Delivery, err error) {
	err = delivery.ErrNotFound
	if endpoint.IsID(endpointID) && event.IsID(eventID) {
		d, err = o.Deliveries.GetDelivery(ctx, delivery.Key{EndpointID: endpointID, EventID: eventID})
	}
	if errors.Is(err, delivery.ErrNotFound) || err == nil && d.Tenant != who.Tenant {
		return delivery.Delivery{}, errorf(NotFound, "no delivery of event %s to endpoint %s found", eventID, endpointID)
	}
	return d, err
}

// GetDelivery returns a delivery with its attempts.
func (o *Operations) GetDelivery(ctx context.Context, who Session, endpointID, eventID string) (Delivery, error) {
	d, err := o.loadDelivery(ctx, who, endpointID, eventID)
	if err != nil {
		return Delivery{}, err
	}
	urls := map[string]string{}
	if e, err := o.Endpoints.Store.GetEndpoint(ctx, who.Tenant, endpointID); err == nil {
		urls[endpointID] = e.URL
	} else if !errors.Is(err, endpoint.ErrNotFound) {
		return Delivery{}, err
	}
	return ViewDelivery(d, urls), nil
}

// Replayed is the result of replaying one delivery.
type Replayed struct {
	EndpointID string `json:"endpoint_id"`
	EventID    string `json:"event_id"`
	Replayed   bool   `json:"replayed"`
	Message    string `json:"message,omitempty" doc:"Why it was not replayed"`
}

// MaxReplays is the maximum number of deliveries in one replay request.
const MaxReplays = 100

// Replay sends settled deliveries again. Each has its own result.
func (o *Operations) Replay(ctx context.Context, who Session, keys []delivery.Key) ([]Replayed, error) {
	if len(keys) == 0 || len(keys) > MaxReplays {
		return nil, errorf(Invalid, "%d deliveries are selected; select 1 to %d", len(keys), MaxReplays)
	}
	if !who.Role.changes() {
		return nil, forbidden()
	}
	for i, k := range keys {
		if k.EndpointID == "" || k.EventID == "" {
			return nil, errorf(Invalid, "delivery %d of %d has no endpoint id or no event id", i+1, len(keys))
		}
	}
	results := make([]Replayed, len(keys))
	var group errgroup.Group
	group.SetLimit(parallel)
	for i, k := range keys {
		group.Go(func() error {
			results[i] = Replayed{EndpointID: k.EndpointID, EventID: k.EventID}
			subject := k.String()
			_, err := change(ctx, o, who, "delivery.replay", &subject, "", func() (done dispatch.Replayed, err error) {
				if err := o.checkReplay(ctx, who, k); err != nil {
					return done, err
				}
				return done, o.Dispatch(ctx, dispatch.Command{Action: "replay", Tenant: who.Tenant, EndpointID: k.EndpointID, EventID: k.EventID}, &done)
			})
			results[i].Replayed = err == nil
			if err != nil {
				results[i].Message = o.shown(ctx, err)
			}
			return nil
		})
	}
	return results, group.Wait()
}

// checkReplay returns why a delivery cannot be replayed. Dispatch checks it again, with
// an error that is not for users.
func (o *Operations) checkReplay(ctx context.Context, who Session, k delivery.Key) error {
	d, err := o.loadDelivery(ctx, who, k.EndpointID, k.EventID)
	if err != nil {
		return err
	}
	e, err := o.loadEndpoint(ctx, who, k.EndpointID)
	switch {
	case err != nil:
		return err
	case e.Status == endpoint.Disabled:
		return errorf(Conflict, "endpoint %s is disabled (%s): enable it first", e.ID, e.StatusReason)
	case !d.State.Settled():
		return errorf(Conflict, "the delivery is already %s: nothing to replay", d.State)
	}
	return nil
}
