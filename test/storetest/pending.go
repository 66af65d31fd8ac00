package storetest

import (
	"slices"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
)

// pending lists the pending deliveries of two endpoints: some wait in a backlog, others for
// their retry. Others are in flight or settled, or belong to a third endpoint.
func pending(t *testing.T, s Store) {
	ctx := t.Context()
	ids := []string{endpoint.NewID(start), endpoint.NewID(start), endpoint.NewID(start)}
	slices.Sort(ids)
	var want []delivery.Key // oldest first
	var both string         // an event that is pending for two endpoints
	for i := range 24 {
		at := start.Add(time.Duration(i) * time.Minute)
		key := delivery.Key{EndpointID: ids[i%3], EventID: event.NewID(at)}
		c := newClaim()
		c.Key, c.Now = key, at
		switch i / 3 % 4 {
		case 0: // in the backlog
			must[delivery.Delivery](t)(s.Park(ctx, delivery.Park{Key: key, Tenant: "t1", EventType: "user.posted_comment", InBacklog: true, DueAt: start.Add(72 * time.Hour), Now: at}))
		case 1: // a retry
			d := conclusion(delivery.Pending).Apply(must[delivery.Delivery](t)(s.Claim(ctx, c)))
			d.DueAt = at.Add(time.Hour)
			if err := s.Complete(ctx, d); err != nil {
				t.Fatal(err)
			}
		case 2: // in flight
			must[delivery.Delivery](t)(s.Claim(ctx, c))
			continue
		case 3:
			if err := s.Complete(ctx, conclusion(delivery.Delivered).Apply(must[delivery.Delivery](t)(s.Claim(ctx, c)))); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if key.EndpointID == ids[2] {
			continue
		}
		want = append(want, key)
		if both == "" && i/3%4 == 0 && i > 3 && key.EndpointID == ids[0] {
			both = key.EventID
			other := delivery.Key{EndpointID: ids[1], EventID: both}
			// Its age limit is near, so it is in both indexes.
			must[delivery.Delivery](t)(s.Park(ctx, delivery.Park{Key: other, Tenant: "t1", EventType: "user.posted_comment", InBacklog: true, DueAt: start.Add(time.Hour), Now: at}))
			want = append(want, other)
		}
	}
	slices.SortStableFunc(want, func(a, b delivery.Key) int { // newest first; the order of endpoints stays
		switch {
		case a.EventID > b.EventID:
			return -1
		case a.EventID < b.EventID:
			return 1
		}
		return 0
	})
	if len(want) != 9 || both == "" {
		t.Fatalf("the test has %d pending deliveries, %q of one event", len(want), both)
	}
	q := delivery.PendingQuery{Endpoints: ids[:2], DueBy: start.Add(25 * time.Hour), MaxDue: 100}
	list := func(q delivery.PendingQuery) (keys []delivery.Key) {
		t.Helper()
		for {
			page := must[delivery.PendingPage](t)(s.ListPending(ctx, q))
			if len(page.Deliveries) > q.Limit || page.Partial {
				t.Fatalf("a page of %d, partial %t; the limit is %d", len(page.Deliveries), page.Partial, q.Limit)
			}
			for _, d := range page.Deliveries {
				same(t, d, must[delivery.Delivery](t)(s.GetDelivery(ctx, d.Key)))
				keys = append(keys, d.Key)
			}
			if q.After = page.Last; q.After.EventID == "" {
				return keys
			}
			if len(page.Deliveries) == 0 {
				t.Fatal("an empty page, and there is more")
			}
		}
	}
	for _, q.Limit = range []int{1, 2, 4, 9, 100} {
		same(t, list(q), want)
	}
	// The last key of a page is its place, also between two deliveries of one event.
	q.Limit = 100
	for i, k := range want {
		from := q
		from.After = k
		same(t, list(from), append([]delivery.Key(nil), want[i+1:]...))
	}
	q.From, q.To = start.Add(3*time.Minute), start.Add(12*time.Minute)
	var within []delivery.Key
	for _, k := range want {
		if at, err := event.IDTime(k.EventID); err == nil && !at.Before(q.From) && !at.After(q.To) {
			within = append(within, k)
		}
	}
	if len(within) == 0 || len(within) == len(want) {
		t.Fatalf("%d are within the range", len(within))
	}
	same(t, list(q), within)
	q.From, q.To = time.Time{}, time.Time{}
	one := q
	one.Endpoints = []string{endpoint.NewID(start)}
	if got := list(one); len(got) != 0 {
		t.Errorf("of an endpoint without deliveries: %v", got)
	}

	// A claim ends the wait.
	c := newClaim()
	c.Key, c.Attempts, c.Now = want[len(want)-1], 0, start.Add(time.Hour)
	must[delivery.Delivery](t)(s.Claim(ctx, c))
	same(t, list(q), want[:len(want)-1])

	// Too many retries of whomever: the caller must look elsewhere.
	for range delivery.DueShards + 1 { // some shard has two of them
		c := newClaim()
		c.EndpointID = ids[2]
		d := conclusion(delivery.Pending).Apply(must[delivery.Delivery](t)(s.Claim(ctx, c)))
		if err := s.Complete(ctx, d); err != nil {
			t.Fatal(err)
		}
	}
	same(t, list(q), want[:len(want)-1])
	q.MaxDue = 1
	if page := must[delivery.PendingPage](t)(s.ListPending(ctx, q)); !page.Partial {
		t.Errorf("%d deliveries, though not all retries may be read", len(page.Deliveries))
	}
}
