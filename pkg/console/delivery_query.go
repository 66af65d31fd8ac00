package console

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/event"
)

// Limits of one page.
const (
	defaultPage = 50
	maxPage     = 200
	// maxExamined is how many deliveries a page reads if only some of them match. The
	// table's key covers endpoint and time, and the index states, so other filters need a
	// search; DeliveryPage.Until says how far it got.
	maxExamined = 4000
	// patience is how many times more a page reads before it is returned empty.
	patience = 20
	// minChunk is the minimum number of deliveries that are read of an endpoint at once.
	minChunk = 5
)

// position is the last delivery that a page covered. Pages are ordered by event,
// newest first, then by endpoint.
type position struct{ eventID, endpointID string }

// maxEndpointID is greater than every endpoint id.
const maxEndpointID = "~"

// place is the position as the text of a cursor.
func (p position) place() string { return p.eventID + "/" + p.endpointID }

func parsePosition(place string) (position, error) {
	eventID, endpointID, found := strings.Cut(place, "/")
	if !found || !event.IsID(eventID) {
		return position{}, invalidCursor()
	}
	return position{eventID, endpointID}, nil
}

// passed reports whether a place in a list, newest first, is before the list's begin: the
// bound has moved since the page with the cursor was read, and nothing is left.
func passed(eventID string, from time.Time) bool {
	at, err := event.IDTime(eventID)
	return err == nil && at.Before(from.Truncate(time.Millisecond))
}

// byRecency is the order of deliveries in a page.
func byRecency(a, b delivery.Delivery) int {
	return cmp.Or(strings.Compare(b.EventID, a.EventID), strings.Compare(a.EndpointID, b.EndpointID))
}

// FoundDeliveries is a page of a search.
type FoundDeliveries struct {
	Deliveries []delivery.Delivery
	Next       string    // place of the next page; empty on the last page
	Until      time.Time // the page covers events back to this time; zero on the last page
}

// SearchDeliveries returns a page of the endpoints' deliveries, newest event first. The
// cursor is Next of the previous page. What it reads depends on the page's size and on the
// number of endpoints. If only some of the deliveries match, it reads up to maxExamined,
// and 20 times as many as long as none has matched.
func SearchDeliveries(ctx context.Context, from Deliveries, endpoints []string, f DeliveryFilter, now time.Time) (FoundDeliveries, error) {
	limit := min(cmp.Or(max(f.Limit, 0), defaultPage), maxPage)
	if f.State == delivery.Pending {
		if found, ok, err := searchPending(ctx, from, endpoints, f, limit, now); ok || err != nil {
			return found, err
		}
	}
	parts, err := partsOf(endpoints, f, limit)
	if err != nil {
		return FoundDeliveries{}, err
	}
	if err := readParts(ctx, from, parts); err != nil {
		return FoundDeliveries{}, err
	}
	for {
		found, horizon := mergeParts(parts)
		examined := 0
		for _, p := range parts {
			examined += p.examined
		}
		enough := len(found) >= limit || examined >= maxExamined && (len(found) > 0 || examined >= patience*maxExamined)
		if horizon != "" && !enough {
			if err := readParts(ctx, from, newestParts(parts)); err != nil {
				return FoundDeliveries{}, err
			}
			continue
		}
		page := FoundDeliveries{Deliveries: found}
		end := position{horizon, maxEndpointID}
		if len(found) > limit {
			page.Deliveries = found[:limit]
			end = position{found[limit-1].EventID, found[limit-1].EndpointID}
		}
		if end.eventID != "" {
			page.Next = end.place()
			page.Until, _ = event.IDTime(end.eventID) // zero if the id has no time
		}
		return page, nil
	}
}

const (
	// pendingWithin is more than how far in the future a retry can be due: the longest
	// backoff, 24 hours, and the backstop of its message.
	pendingWithin = 25 * time.Hour
	// maxDue is how many retries of all endpoints are read in each shard, to find those of
	// some.
	maxDue = 500
)

// searchPending is SearchDeliveries for pending deliveries. It reports false if so many
// retries are due in the deployment that reading the endpoints' deliveries is better.
func searchPending(ctx context.Context, from Deliveries, endpoints []string, f DeliveryFilter, limit int, now time.Time) (found FoundDeliveries, ok bool, err error) {
	q := delivery.PendingQuery{Endpoints: endpoints, From: f.From, To: f.To, Limit: limit, DueBy: now.Add(pendingWithin), MaxDue: maxDue}
	wanted := delivery.Query{State: f.State, EventType: f.EventType, Status: f.Status}
	if wanted.EventType != "" || f.Status != (delivery.Statuses{}) {
		q.Limit = max(limit, maxExamined/4/max(len(endpoints), 1)) // many may not match
	}
	if f.Cursor != "" {
		at, err := parsePosition(f.Cursor)
		if err != nil || passed(at.eventID, f.From) {
			return found, err == nil, err
		}
		q.After = delivery.Key{EventID: at.eventID, EndpointID: at.endpointID}
	}
	for examined := 0; ; examined += len(endpoints) * q.Limit {
		page, err := from.ListPending(ctx, q)
		if err != nil || page.Partial {
			return FoundDeliveries{}, false, err
		}
		q.After = page.Last
		for _, d := range page.Deliveries {
			if len(found.Deliveries) == limit { // the rest of the page is for the next one
				q.After = found.Deliveries[limit-1].Key
				break
			}
			if wanted.Matches(d) {
				found.Deliveries = append(found.Deliveries, d)
			}
		}
		if q.After.EventID == "" {
			return found, true, nil
		}
		if len(found.Deliveries) == limit || examined >= maxExamined && (len(found.Deliveries) > 0 || examined >= patience*maxExamined) {
			found.Next = position{q.After.EventID, q.After.EndpointID}.place()
			found.Until, _ = event.IDTime(q.After.EventID)
			return found, true, nil
		}
	}
}

// part is what a search has read of one endpoint.
type part struct {
	query    delivery.Query // of what is left
	found    []delivery.Delivery
	covered  string // the event to which it was read, if there is more; else empty
	examined int
}

// partsOf returns a part for each endpoint, of which nothing is read yet; none if the
// cursor is at the end of the range.
func partsOf(endpoints []string, f DeliveryFilter, limit int) ([]*part, error) {
	var start position
	if f.Cursor != "" {
		var err error
		if start, err = parsePosition(f.Cursor); err != nil || passed(start.eventID, f.From) {
			return nil, err
		}
	}
	var parts []*part
	for _, id := range endpoints {
		q := delivery.Query{EndpointID: id, From: f.From, To: f.To, State: f.State, EventType: f.EventType, Status: f.Status}
		// Endpoints share the page. Those that have the newest events are read again.
		q.Limit = min(limit, 2*limit/len(endpoints)+minChunk)
		q.Examine = max(maxExamined/len(endpoints), q.Limit)
		if f.Cursor != "" {
			last := start.eventID
			if id > start.endpointID { // the last event's delivery to this endpoint comes next
				var err error
				if last, err = event.IDAfter(last); err != nil {
					return nil, fmt.Errorf("cursor: %w", err)
				}
			}
			q.Cursor = q.CursorAfter(last)
		}
		if _, _, err := q.Bounds(); err != nil { // the cursor is of a query with another range
			return nil, invalidCursor()
		}
		parts = append(parts, &part{query: q})
	}
	return parts, nil
}

// readParts reads more of each of the parts.
func readParts(ctx context.Context, from Deliveries, parts []*part) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for _, p := range parts {
		group.Go(func() error {
			page, err := from.QueryDeliveries(ctx, p.query)
			if err != nil {
				return err
			}
			p.found = append(p.found, page.Deliveries...)
			p.examined += page.Examined
			p.covered, p.query.Cursor = "", page.Next
			if page.Next != "" {
				p.covered, err = delivery.CursorEvent(page.Next)
			}
			return err
		})
	}
	return group.Wait()
}

// mergeParts returns what was found back to the horizon, in order. Past it, a part that has
// more could have deliveries that were not read. It is empty if everything was read.
func mergeParts(parts []*part) (found []delivery.Delivery, horizon string) {
	for _, p := range parts {
		horizon = max(horizon, p.covered)
	}
	for _, p := range parts {
		for _, d := range p.found {
			if d.EventID >= horizon {
				found = append(found, d)
			}
		}
	}
	slices.SortFunc(found, byRecency)
	return found, horizon
}

// newestParts returns the parts that hold the others up: those that have more, and were
// read the least far back.
func newestParts(parts []*part) []*part {
	var left []*part
	for _, p := range parts {
		if p.covered != "" {
			left = append(left, p)
		}
	}
	slices.SortFunc(left, func(a, b *part) int { return strings.Compare(b.covered, a.covered) })
	return left[:min(len(left), parallel)]
}
