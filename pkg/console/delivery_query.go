package console

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/event"
)

// Limits of a page of deliveries.
const (
	defaultPage = 50
	maxPage     = 200
	// examine is how many deliveries a page may look at in all where a state or a
	// type is asked for. The key of the table orders them by endpoint and time;
	// everything else is looked for, and a page tells how far it has got.
	maxExamined = 4000
)

// position is where a page ended, in the order newest event first and, of one
// event, by endpoint: the last that the page before has dealt with.
type position struct{ eventID, endpointID string }

// maxEndpointID is greater than every endpoint's id.
const maxEndpointID = "~"

func (p position) cursor() string {
	return base64.RawURLEncoding.EncodeToString([]byte(p.eventID + "/" + p.endpointID))
}

func parsePosition(cursor string) (position, error) {
	text, err := base64.RawURLEncoding.DecodeString(cursor)
	eventID, endpointID, found := strings.Cut(string(text), "/")
	if _, bad := event.IDTime(eventID); err != nil || !found || bad != nil {
		return position{}, errorf(Invalid, "the cursor is not one that a page ended with: begin at the first page")
	}
	return position{eventID, endpointID}, nil
}

// checkCursor refuses a cursor of a single list.
func checkCursor(cursor string) error {
	if cursor == "" {
		return nil
	}
	if _, err := delivery.CursorEvent(cursor); err != nil {
		return errorf(Invalid, "the cursor is not one that a page ended with: begin at the first page")
	}
	return nil
}

// before orders deliveries as pages do.
func byRecency(a, b delivery.Delivery) int {
	return cmp.Or(strings.Compare(b.EventID, a.EventID), strings.Compare(a.EndpointID, b.EndpointID))
}

type mergedPage struct {
	deliveries []delivery.Delivery
	next       string
	until      time.Time
}

// browse returns a page of the endpoints' deliveries, merged by one Query an
// endpoint: what it reads depends on the page, not on how many there are.
func queryMerged(ctx context.Context, from Deliveries, endpoints []string, f DeliveryFilter) (mergedPage, error) {
	limit := f.Limit
	if limit <= 0 {
		limit = defaultPage
	}
	limit = min(limit, maxPage)
	var start position
	if f.Cursor != "" {
		var err error
		if start, err = parsePosition(f.Cursor); err != nil {
			return mergedPage{}, err
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
				if id > start.endpointID { // of the last event, this endpoint is still to come
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
		return mergedPage{}, err
	}
	// Down to the horizon every endpoint has been looked at; below it, one that
	// has more might have something in between.
	horizon := ""
	for _, page := range pages {
		if page.Next == "" {
			continue
		}
		last, err := delivery.CursorEvent(page.Next)
		if err != nil {
			return mergedPage{}, err
		}
		horizon = max(horizon, last)
	}
	var out mergedPage
	for _, page := range pages {
		for _, d := range page.Deliveries {
			if d.EventID >= horizon {
				out.deliveries = append(out.deliveries, d)
			}
		}
	}
	slices.SortFunc(out.deliveries, byRecency)
	end := position{horizon, maxEndpointID}
	if len(out.deliveries) > limit {
		out.deliveries = out.deliveries[:limit]
		last := out.deliveries[limit-1]
		end = position{last.EventID, last.EndpointID}
	}
	if end.eventID != "" {
		out.next = end.cursor()
		out.until, _ = event.IDTime(end.eventID) // the zero time says nothing
	}
	return out, nil
}
