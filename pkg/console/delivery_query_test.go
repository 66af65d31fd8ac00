package console_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
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

// counting counts what a store reads.
type counting struct {
	console.Deliveries
	examined atomic.Int64
}

func (c *counting) QueryDeliveries(ctx context.Context, q delivery.Query) (delivery.Page, error) {
	page, err := c.Deliveries.QueryDeliveries(ctx, q)
	c.examined.Add(int64(page.Examined))
	return page, err
}

// An event type has no index. A page reads a bounded number of deliveries, and is empty only
// if none of many matched.
func TestAPageIsEmptyOnlyIfNoneOfManyDeliveriesMatched(t *testing.T) {
	w := newWorld(t)
	e := w.endpoint("default", "https://example.com/")
	rare := newID(w)
	w.deliver(e, rare, "discussion.extended", delivery.Delivered, "", "")
	w.pass(time.Second)
	const many = 90_000
	for range many {
		w.deliver(e, newID(w), "user.posted_comment", delivery.Delivered, "", "")
	}
	read := &counting{Deliveries: w.ops.Deliveries}
	w.ops.Deliveries = read
	who := console.Session{Tenant: "default"}
	f := console.DeliveryFilter{EventType: "discussion.extended"}
	page, err := w.ops.ListDeliveries(t.Context(), who, f)
	if err != nil || len(page.Deliveries) != 0 || page.Next == "" || page.Until.IsZero() {
		t.Fatalf("%d deliveries, next %q, until %s, %v; want an empty page with a next one", len(page.Deliveries), page.Next, page.Until, err)
	}
	if n := read.examined.Load(); n != 80_000 {
		t.Errorf("%d deliveries were read, want 80,000", n)
	}
	f.Cursor = page.Next
	page, err = w.ops.ListDeliveries(t.Context(), who, f)
	if err != nil || len(page.Deliveries) != 1 || page.Deliveries[0].EventID != rare || page.Next != "" {
		t.Fatalf("%+v, %v; want the oldest delivery on the second page, and no third one", page, err)
	}
}

// Dead letters are found at once, whatever is newer, also among the deliveries of many
// endpoints; what is read depends on the page.
func TestDeadLettersAreFoundAtOnce(t *testing.T) {
	w := newWorld(t)
	var want []string
	for i := range 30 {
		e := w.endpoint("default", fmt.Sprintf("https://example.com/%d", i))
		for range 10 {
			w.pass(time.Second)
			want = append(want, newID(w))
			w.deliver(e, want[len(want)-1], "user.posted_comment", delivery.Dead, "", "")
		}
		for range 1_000 {
			w.deliver(e, newID(w), "user.posted_comment", delivery.Delivered, "", "")
		}
	}
	slices.Reverse(want)
	want = want[:59]
	read := &counting{Deliveries: w.ops.Deliveries}
	w.ops.Deliveries = read
	page, err := w.ops.ListDeliveries(t.Context(), console.Session{Tenant: "default"}, console.DeliveryFilter{State: delivery.Dead, Limit: len(want)})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range page.Deliveries {
		got = append(got, d.EventID)
	}
	if !slices.Equal(got, want) || page.Next == "" {
		t.Errorf("%d dead letters, next %q; want the newest %d of 300, and a next page", len(got), page.Next, len(want))
	}
	if n := read.examined.Load(); n > 350 {
		t.Errorf("%d deliveries were read for a page of %d", n, len(want))
	}
}

// Pending deliveries are found at once, whatever is newer, with other filters and page by
// page; the deliveries of the endpoints are not searched.
func TestPendingDeliveriesAreFoundAtOnce(t *testing.T) {
	w := newWorld(t)
	var all, extended []string
	for i := range 6 {
		e := w.endpoint("default", fmt.Sprintf("https://example.com/%d", i))
		for n := range 10 {
			w.pass(time.Second)
			id, eventType := newID(w), "user.posted_comment"
			if n%5 == 0 {
				eventType = "discussion.extended"
				extended = append(extended, id)
			}
			all = append(all, id)
			w.deliver(e, id, eventType, delivery.Pending, "", "")
		}
		for range 1_000 {
			w.deliver(e, newID(w), "discussion.extended", delivery.Delivered, "", "")
		}
	}
	stranger := w.endpoint("other", "https://example.com/")
	w.deliver(stranger, newID(w), "user.posted_comment", delivery.Pending, "", "")
	slices.Reverse(all)
	slices.Reverse(extended)
	read := &counting{Deliveries: w.ops.Deliveries}
	w.ops.Deliveries = read
	list := func(f console.DeliveryFilter) (got []string, pages int) {
		t.Helper()
		f.State = delivery.Pending
		for {
			page, err := w.ops.ListDeliveries(t.Context(), console.Session{Tenant: "default"}, f)
			if err != nil {
				t.Fatal(err)
			}
			pages++
			for _, d := range page.Deliveries {
				got = append(got, d.EventID)
			}
			if f.Cursor = page.Next; f.Cursor == "" {
				return got, pages
			}
			if page.Until.IsZero() || len(page.Deliveries) == 0 {
				t.Fatalf("until %s, %d deliveries, and a next page", page.Until, len(page.Deliveries))
			}
		}
	}
	for limit, pages := range map[int]int{7: 9, 30: 2, 60: 1, 200: 1} {
		if got, n := list(console.DeliveryFilter{Limit: limit}); !slices.Equal(got, all) || n != pages {
			t.Errorf("limit %d: %d pending deliveries on %d pages; want %d on %d", limit, len(got), n, len(all), pages)
		}
	}
	for _, limit := range []int{1, 5, 200} {
		if got, _ := list(console.DeliveryFilter{EventType: "discussion.extended", Limit: limit}); !slices.Equal(got, extended) {
			t.Errorf("of a type, limit %d: %q, want %q", limit, got, extended)
		}
	}
	if n := read.examined.Load(); n != 0 {
		t.Errorf("%d deliveries were searched", n)
	}
	// So many retries of others that reading them costs more than a search.
	for range 501 * delivery.DueShards * 2 {
		w.deliver(stranger, newID(w), "user.posted_comment", delivery.Pending, "", "")
	}
	if got, _ := list(console.DeliveryFilter{Limit: 200}); !slices.Equal(got, all) || read.examined.Load() == 0 {
		t.Errorf("among many retries of others: %d pending deliveries, want %d; %d were searched", len(got), len(all), read.examined.Load())
	}
}

// The time of a delivery and its response status are filters too, in the API and on the page.
func TestDeliveriesAreFilteredByStatusAndTime(t *testing.T) {
	w := newWorld(t)
	e := w.endpoint("default", "https://example.com/")
	var ids []string
	for range 3 {
		w.pass(time.Hour)
		id := w.event("default", "user.posted_comment", comment)
		w.deliver(e, id, "user.posted_comment", delivery.Dead, "", "")
		ids = append(ids, id)
	}
	b := w.login(console.Viewer, "default")
	second := ulidTime(t, ids[1]).UTC()
	for query, want := range map[string][]string{
		"status=500..599": {ids[2], ids[1], ids[0]},
		"status=500":      {ids[2], ids[1], ids[0]},
		"status=400..499": nil,
		"status=500&from=" + second.Add(-time.Minute).Format(time.RFC3339) + "&to=" + second.Add(time.Minute).Format(time.RFC3339): {ids[1]},
	} {
		var page console.DeliveryPage
		if err := json.Unmarshal(b.get("/api/deliveries?"+query).Body.Bytes(), &page); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, d := range page.Deliveries {
			got = append(got, d.EventID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
		shown := b.get("/deliveries?" + query).Body.String()
		for _, id := range ids {
			if strings.Contains(shown, id) != slices.Contains(want, id) {
				t.Errorf("the page for %s: event %s is shown: %v", query, id, strings.Contains(shown, id))
			}
		}
	}
	for _, path := range []string{"/api/deliveries?status=99", "/deliveries?status=5xx", "/deliveries?from=yesterday"} {
		if answer := b.get(path); answer.Code != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d, want 422", path, answer.Code)
		}
	}
	if shown := b.get("/deliveries?from=" + second.Format("2006-01-02T15:04") + "&status=500..599&state=dead").Body.String(); !strings.Contains(shown, "value=\"500..599\"") {
		t.Error("the form does not show its filter")
	}
}
