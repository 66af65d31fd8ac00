package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/journal"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// measureSearch asks what it takes to find one thing among a million, on the local DynamoDB.
func measureSearch(ctx context.Context, r *Report, o options) error {
	n := 1_000_000
	if o.short {
		n = 50_000
	}
	t := r.table("search", "Search: what it takes to find something", "what", "found", "requests", "DynamoDB read units", "s on the local DynamoDB")
	t.Notes = []string{"One endpoint's deliveries, of which one in a thousand is dead, and one day's events, in full batches of a hundred. The time is that of the local DynamoDB and " +
		"of this machine; DynamoDB reads a megabyte in about 20 ms."}
	server, _, err := database(ctx)
	if err != nil {
		return err
	}
	defer server.Stop()
	db, tables := server.Client(), local.Tables(local.StackName)
	m := &meter{Client: db}
	store := dynamo.New(m, tables)
	endpoints, now := growingList(1, time.Now()), time.Now().Truncate(time.Millisecond)
	fmt.Fprintf(os.Stderr, "  storing %s deliveries and events …\n", thousands(n))
	err = fill(ctx, db, tables.Deliveries, n, func(i int) dynamoitem.Item { return dynamoitem.EncodeDelivery(anyDelivery(endpoints[0].ID, i, n, now)) })
	if err != nil {
		return err
	}
	if err := fillJournal(ctx, store, n, now); err != nil {
		return err
	}
	count := func(what string, search func() (int, error)) (Units, float64, error) {
		m.take()
		began := time.Now()
		found, err := search()
		took := time.Since(began).Seconds()
		u := m.take()
		t.add(what, of(float64(found)), of(u.Requests), of(u.Reads), of(took))
		fmt.Fprintf(os.Stderr, "  %s: %d found, %g read units, %.2f s\n", what, found, u.Reads, took)
		return u, took, err
	}
	deliveries := func(f console.DeliveryFilter) func() (int, error) {
		return func() (int, error) {
			page, err := console.SearchDeliveries(ctx, store, []string{endpoints[0].ID}, f, time.Now())
			return len(page.Deliveries), err
		}
	}
	dead, _, err := count(fmt.Sprintf("a page of 50 dead letters among %s deliveries", thousands(n)), deliveries(console.DeliveryFilter{State: delivery.Dead}))
	if err != nil {
		return err
	}
	if _, _, err := count("a page of 50 deliveries", deliveries(console.DeliveryFilter{})); err != nil {
		return err
	}
	if _, _, err := count("a page of 50 answered 500..599, a search", deliveries(console.DeliveryFilter{Status: delivery.Statuses{Min: 500, Max: 599}})); err != nil {
		return err
	}
	searched, took, err := count(fmt.Sprintf("the oldest event of %s of a day, by its user", thousands(n)), func() (int, error) {
		found := 0
		for f := (console.EventFilter{Actor: "u_wanted", From: now.Add(-24 * time.Hour)}); ; {
			page, err := console.SearchEvents(ctx, store, event.DefaultTenant, f)
			if err != nil {
				return found, err
			}
			found += len(page.Events)
			if f.Cursor = page.Next; f.Cursor == "" {
				return found, nil
			}
		}
	})
	if err != nil {
		return err
	}
	r.atMost(10, dead.Reads, "", fmt.Sprintf("a page of 50 dead letters among %s deliveries: read units", thousands(n)))
	r.atMost(13_000*float64(n)/1_000_000, searched.Reads, "", fmt.Sprintf("search through %s events of a day: read units", thousands(n)))
	r.under(60, took, "s", fmt.Sprintf("search through %s events of a day, on the local DynamoDB", thousands(n)))
	return nil
}

// anyDelivery is the i-th of n deliveries of a day.
func anyDelivery(endpointID string, i, n int, now time.Time) delivery.Delivery {
	at := now.Add(-24 * time.Hour * time.Duration(n-i) / time.Duration(n+1))
	attempt := delivery.Attempt{Number: 1, At: at, Class: delivery.Success, Status: 204}
	d := delivery.Delivery{
		Key: delivery.Key{EndpointID: endpointID, EventID: event.NewID(at)}, Tenant: event.DefaultTenant, EventType: "user.posted_comment",
		State: delivery.Delivered, Attempts: 1, Since: at, CreatedAt: at, UpdatedAt: at, ExpiresAt: at.Add(event.Retention(0)),
	}
	if i%1000 == 0 {
		attempt.Class, attempt.Status = delivery.Answered, 503
		d.State, d.Reason, d.Snippet = delivery.Dead, "the receiver answered 503; the event is 72 h old", "Service Unavailable: the upstream did not answer in time"
	}
	d.History = []delivery.Attempt{attempt}
	return d
}

// fillJournal records n events of a day, in batches of a hundred. The oldest is the one that
// is wanted.
func fillJournal(ctx context.Context, store *dynamo.Store, n int, now time.Time) error {
	const batch = 100
	for first := 0; first < n; first += batch {
		var entries []journal.Entry
		for i := first; i < first+batch; i++ {
			at := now.Add(-24 * time.Hour * time.Duration(n-i) / time.Duration(n+1))
			e := journal.Entry{ID: event.NewID(at), Type: "user.posted_comment", Subject: fmt.Sprintf("cmt_%07d", i), Actor: fmt.Sprintf("u_%05d", i%50_000), Endpoints: 1}
			if i == 0 {
				e.Actor = "u_wanted"
			}
			entries = append(entries, e)
		}
		for _, item := range journal.Pack(event.DefaultTenant, entries) {
			if err := store.PutJournal(ctx, item); err != nil {
				return err
			}
		}
	}
	return nil
}
