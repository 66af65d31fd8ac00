package console_test

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/endpoint"
)

var discard = slog.New(slog.DiscardHandler)

// Pages of any size with any filter list each delivery once and in order.
func TestDeliveryPagesAreComplete(t *testing.T) {
	w := newWorld(t)
	var endpoints []endpoint.Endpoint
	for i := range 4 {
		endpoints = append(endpoints, w.endpoint("default", fmt.Sprintf("https://example.com/%d", i)))
	}
	type key struct{ event, endpoint string }
	type one struct {
		key
		state     delivery.State
		eventType string
	}
	var all []one
	types := []string{"user.posted_comment", "user.joined_platform"}
	for i := range 60 {
		w.pass(time.Second)
		eventType := types[i%2]
		id := w.event("default", eventType, comment)
		for j, e := range endpoints {
			// The last endpoint gets few, so that it ends before the others.
			if j == 3 && i%20 != 0 || (i+j)%7 == 0 {
				continue
			}
			state := delivery.Delivered
			if (i+j)%5 == 0 {
				state = delivery.Dead
			}
			w.deliver(e, id, eventType, state, "", "")
			all = append(all, one{key{id, e.ID}, state, eventType})
		}
	}
	slices.SortFunc(all, func(a, b one) int {
		if a.event != b.event {
			return strings.Compare(b.event, a.event)
		}
		return strings.Compare(a.endpoint, b.endpoint)
	})
	who := console.Session{Tenant: "default", Role: console.Viewer}
	for name, f := range map[string]console.DeliveryFilter{
		"all":              {},
		"one endpoint":     {EndpointID: endpoints[1].ID},
		"dead":             {State: delivery.Dead},
		"one type":         {EventType: types[1]},
		"dead of a type":   {EventType: types[0], State: delivery.Dead},
		"none":             {State: delivery.Skipped},
		"the last seconds": {From: w.now().Add(-20 * time.Second)},
	} {
		var want []key
		for _, o := range all {
			d := delivery.Delivery{State: o.state, EventType: o.eventType}
			at := ulidTime(t, o.event)
			if (f.EndpointID == "" || f.EndpointID == o.endpoint) && (delivery.Query{State: f.State, EventType: f.EventType}).Matches(d) && !at.Before(f.From) {
				want = append(want, o.key)
			}
		}
		for _, limit := range []int{1, 2, 3, 7, 50, 200} {
			var got []key
			f.Limit, f.Cursor = limit, ""
			for pages := 0; ; pages++ {
				page, err := w.ops.ListDeliveries(t.Context(), who, f)
				if err != nil {
					t.Fatal(err)
				}
				if len(page.Deliveries) > limit || pages > len(all)+2 {
					t.Fatalf("%s by %d: page %d has %d", name, limit, pages, len(page.Deliveries))
				}
				for _, d := range page.Deliveries {
					got = append(got, key{d.EventID, d.EndpointID})
				}
				if f.Cursor = page.Next; f.Cursor == "" {
					break
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s by %d: %d of %d, or not in order", name, limit, len(got), len(want))
			}
		}
	}
}

func ulidTime(t *testing.T, id string) time.Time {
	t.Helper()
	at, err := eventTime(id)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// A page reads a bounded number of deliveries.
func TestDeliveryPagesReadABoundedNumber(t *testing.T) {
	w := newWorld(t)
	e := w.endpoint("default", "https://example.com/")
	for range 10_000 {
		id := newID(w)
		w.deliver(e, id, "user.posted_comment", delivery.Delivered, "", "")
	}
	who := console.Session{Tenant: "default"}
	page, err := w.ops.ListDeliveries(t.Context(), who, console.DeliveryFilter{State: delivery.Dead})
	if err != nil || len(page.Deliveries) != 0 || page.Next == "" || page.Until.IsZero() {
		t.Fatalf("%d deliveries, next %q, until %s, %v; want an empty page with a next one", len(page.Deliveries), page.Next, page.Until, err)
	}
	pages := 1
	for cursor := page.Next; cursor != ""; pages++ {
		page, err = w.ops.ListDeliveries(t.Context(), who, console.DeliveryFilter{State: delivery.Dead, Cursor: cursor})
		if err != nil {
			t.Fatal(err)
		}
		cursor = page.Next
	}
	if pages != 3 {
		t.Errorf("10,000 deliveries take %d pages, want 3 of 4,000", pages)
	}
}
