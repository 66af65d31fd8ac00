package console

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/event"
)

// Limits of one page.
const (
	defaultPage = 50
	maxPage     = 200
	// maxExamined is the maximum number of deliveries that a page filtered by state or
	// type reads. The table's key covers endpoint and time only, so other filters
	// need a search; DeliveryPage.Until says how far it got.
	maxExamined = 4000
)

// position is the last delivery that a page covered. Pages are ordered by event,
// newest first, then by endpoint.
type position struct{ eventID, endpointID string }

// maxEndpointID is greater than every endpoint id.
const maxEndpointID = "~"

func (p position) cursor() string {
	return base64.RawURLEncoding.EncodeToString([]byte(p.eventID + "/" + p.endpointID))
}

func parsePosition(cursor string) (position, error) {
	text, err := base64.RawURLEncoding.DecodeString(cursor)
	eventID, endpointID, found := strings.Cut(string(text), "/")
	if _, bad := event.IDTime(eventID); err != nil || !found || bad != nil {
		return position{}, errorf(Invalid, "invalid cursor; start at the first page")
	}
	return position{eventID, endpointID}, nil
}

// checkCursor validates the cursor of a single store query.
func checkCursor(cursor string) error {
	if cursor == "" {
		return nil
	}
	if _, err := delivery.CursorEvent(cursor); err != nil {
		return errorf(Invalid, "invalid cursor; start at the first page")
	}
	return nil
}

// byRecency is the order of deliveries in a page.
func byRecency(a, b delivery.Delivery) int {
	return cmp.Or(strings.Compare(b.EventID, a.EventID), strings.Compare(a.EndpointID, b.EndpointID))
}

// queryMerged returns a page of the endpoints' deliveries, merged from one Query per
// endpoint, and its last position, which is zero on the last page. What it reads depends on the page size, not on the number of deliveries.
func queryMerged(ctx context.Context, from Deliveries, endpoints []string, f DeliveryFilter) (found []delivery.Delivery, end position, err error) {
	limit := min(cmp.Or(max(f.Limit, 0), defaultPage), maxPage)
	var start position
	if f.Cursor != "" {
		if start, err = parsePosition(f.Cursor); err != nil {
			return nil, end, err
		}
	}
	pages := make([]delivery.Page, len(endpoints))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i, id := range endpoints {
		group.Go(func() error {
			q := delivery.Query{
				EndpointID: id, From: f.From, To: f.To, State: f.State, EventType: f.EventType,
				Limit: limit, Examine: max(maxExamined/len(endpoints), limit),
			}
			if f.Cursor != "" {
				last := start.eventID
				if id > start.endpointID { // the last event's delivery to this endpoint comes next
					var err error
					if last, err = event.IDAfter(last); err != nil {
						return fmt.Errorf("cursor: %w", err)
					}
				}
				q.Cursor = q.CursorAfter(last)
			}
			var err error
			pages[i], err = from.QueryDeliveries(ctx, q)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, end, err
	}
	// Every endpoint was read back to the horizon. Past it, an endpoint with more pages
	// could have deliveries that are missing here.
	horizon := ""
	for _, page := range pages {
		if page.Next == "" {
			continue
		}
		last, err := delivery.CursorEvent(page.Next)
		if err != nil {
			return nil, end, err
		}
		horizon = max(horizon, last)
	}
	for _, page := range pages {
		for _, d := range page.Deliveries {
			if d.EventID >= horizon {
				found = append(found, d)
			}
		}
	}
	slices.SortFunc(found, byRecency)
	end = position{horizon, maxEndpointID}
	if len(found) > limit {
		found = found[:limit]
		end = position{found[limit-1].EventID, found[limit-1].EndpointID}
	}
	return found, end, nil
}
