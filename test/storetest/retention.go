package storetest

import (
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/journal"
)

// retention checks that what has a retention of its own keeps it, and is deleted by it.
func retention(t *testing.T, s Store) {
	ctx := t.Context()
	for _, days := range []int{0, 2, 7, 365} {
		a := event.Accepted{ID: event.NewID(start), Tenant: "t1", Body: []byte(`{}`), RetentionDays: days}
		if err := s.PutEvent(ctx, a); err != nil {
			t.Fatal(err)
		}
		a.ExpiresAt = start.Add(event.Retention(days))
		same(t, must[event.Accepted](t)(s.GetEvent(ctx, a.ID)), a)

		// A delivery can prolong its event's life, and cannot shorten it.
		for _, c := range []struct{ until, want time.Time }{
			{a.ExpiresAt.Add(-time.Hour), a.ExpiresAt},
			{a.ExpiresAt, a.ExpiresAt},
			{a.ExpiresAt.Add(48 * time.Hour), a.ExpiresAt.Add(48 * time.Hour)},
			{a.ExpiresAt.Add(time.Hour), a.ExpiresAt.Add(48 * time.Hour)},
		} {
			if err := s.KeepEvent(ctx, a.ID, c.until); err != nil {
				t.Fatal(err)
			}
			kept := a
			kept.ExpiresAt = c.want
			same(t, must[event.Accepted](t)(s.GetEvent(ctx, a.ID)), kept)
		}

		key := func() delivery.Key { return delivery.Key{EndpointID: endpoint.NewID(start), EventID: a.ID} }
		c := delivery.Claim{Key: key(), Tenant: "t1", EventType: "x.y", Accepted: start, RetentionDays: days, ID: "w", Now: start, Lease: lease}
		want, _ := c.Apply(nil)
		same(t, must[delivery.Delivery](t)(s.Claim(ctx, c)), want)
		want = delivery.Conclusion{State: delivery.Delivered, Attempt: delivery.Attempt{Number: 1, At: start, Class: delivery.Success}, Now: start}.Apply(want)
		if err := s.Complete(ctx, want); err != nil {
			t.Fatal(err)
		}
		same(t, must[delivery.Delivery](t)(s.GetDelivery(ctx, c.Key)), want)
		r := delivery.Replay{Key: c.Key, Now: start.Add(time.Hour), DueAt: start.Add(2 * time.Hour)}
		want, _ = r.Apply(want)
		same(t, must[delivery.Delivery](t)(s.Replay(ctx, r)), want)

		p := delivery.Park{Key: key(), Tenant: "t1", EventType: "x.y", Accepted: start, RetentionDays: days, InBacklog: true, DueAt: start.Add(time.Hour), Reason: "r", Now: start}
		want, _ = p.Apply(nil)
		same(t, must[delivery.Delivery](t)(s.Park(ctx, p)), want)
		settle := delivery.Settle{Key: p.Key, Tenant: "t1", EventType: "x.y", Accepted: start, RetentionDays: days, State: delivery.Dead, Reason: "old", Now: start.Add(time.Minute)}
		want, _ = settle.Apply(&want)
		if err := s.Settle(ctx, settle); err != nil {
			t.Fatal(err)
		}
		same(t, must[delivery.Delivery](t)(s.GetDelivery(ctx, p.Key)), want)

		e := delivery.Erase{Key: key(), Tenant: "t1", EventType: "x.y", Accepted: start, RetentionDays: days, Create: true, Now: start}
		want, _ = e.Apply(nil)
		if _, _, err := s.EraseDelivery(ctx, e); err != nil {
			t.Fatal(err)
		}
		same(t, must[delivery.Delivery](t)(s.GetDelivery(ctx, e.Key)), want)

		i := journal.Item{Tenant: "t1", Entries: []journal.Entry{{ID: a.ID, Type: "x.y", Subject: "s"}}, RetentionDays: days}
		if err := s.PutJournal(ctx, i); err != nil {
			t.Fatal(err)
		}
		same(t, must[[]journal.Item](t)(journal.Holding(ctx, s, "t1", a.ID)), []journal.Item{i})

		f := failedChange(days)
		f.RetentionDays = days
		if _, err := s.KeepFailedChange(ctx, f); err != nil {
			t.Fatal(err)
		}
		got, err := s.GetFailedChange(ctx, f.ID)
		if err != nil || got.RetentionDays != days {
			t.Errorf("a failed change with %d days is read with %d: %v", days, got.RetentionDays, err)
		}
	}
	gone := event.NewID(start)
	if err := s.KeepEvent(ctx, gone, start.Add(time.Hour)); err != nil {
		t.Error(err)
	}
	if _, err := s.GetEvent(ctx, gone); err == nil {
		t.Error("an event that had expired was created by keeping it")
	}
}
