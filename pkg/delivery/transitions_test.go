package delivery_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/event"
)

// full is a delivery in which every field is set, as far as one can be.
func full(state delivery.State) delivery.Delivery {
	return delivery.Delivery{
		Key: claim().Key, Tenant: "t", EventType: "x", State: state, Attempts: 3, Uncounted: 1, Since: now.Add(-time.Hour),
		ClaimID: "other", LeaseUntil: now.Add(-time.Second), NextAttemptAt: now.Add(-time.Second), DueAt: now.Add(-2 * time.Second),
		Reason: "it failed", Snippet: "<html>", History: []delivery.Attempt{{Number: 2, Class: delivery.Timeout}},
		CreatedAt: now.Add(-2 * time.Hour), UpdatedAt: now.Add(-time.Minute), ExpiresAt: now.Add(time.Hour),
	}
}

// A transition that leaves a field as it was, or changes one that is not its own, shows up
// much later, if ever: so each is compared whole.
func TestATransitionChangesExactlyItsFields(t *testing.T) {
	expires := now.Add(event.Retention(0))
	attempt := delivery.Attempt{Number: 3, Class: delivery.Answered, Status: 503}
	for name, c := range map[string]struct {
		got  func() (delivery.Delivery, any)
		want func(*delivery.Delivery)
		from delivery.State
	}{
		"a claim": {func() (delivery.Delivery, any) {
			c := claim()
			c.Attempts = 3
			return claimed(c.Apply(ptr(full(delivery.Pending))))
		}, func(d *delivery.Delivery) {
			d.State, d.Attempts, d.ClaimID, d.LeaseUntil, d.UpdatedAt, d.ExpiresAt = delivery.InFlight, 4, "me", now.Add(lease), now, expires
		}, delivery.Pending},
		"a failure": {func() (delivery.Delivery, any) {
			return delivery.Conclusion{State: delivery.Pending, NextAt: now.Add(time.Minute), DueAt: now.Add(time.Hour), Reason: "503", Snippet: "no", Attempt: attempt, Now: now}.Apply(full(delivery.InFlight)), nil
		}, func(d *delivery.Delivery) {
			d.State, d.NextAttemptAt, d.DueAt, d.LeaseUntil = delivery.Pending, now.Add(time.Minute), now.Add(time.Hour), time.Time{}
			d.Reason, d.Snippet, d.UpdatedAt, d.ExpiresAt = "503", "no", now, expires
			d.History = append(d.History, attempt)
		}, delivery.InFlight},
		"a success": {func() (delivery.Delivery, any) {
			return delivery.Conclusion{State: delivery.Delivered, NextAt: now, DueAt: now, Attempt: attempt, Now: now}.Apply(full(delivery.InFlight)), nil
		}, func(d *delivery.Delivery) {
			d.State, d.NextAttemptAt, d.DueAt, d.LeaseUntil, d.Reason, d.Snippet = delivery.Delivered, time.Time{}, time.Time{}, time.Time{}, "", ""
			d.UpdatedAt, d.ExpiresAt = now, expires
			d.History = append(d.History, attempt)
		}, delivery.InFlight},
		"an attempt that was called off": {func() (delivery.Delivery, any) {
			return delivery.Conclusion{State: delivery.Pending, NextAt: now, DueAt: now, Attempt: attempt, NotSent: true, Now: now}.Apply(full(delivery.InFlight)), nil
		}, func(d *delivery.Delivery) {
			d.State, d.NextAttemptAt, d.DueAt, d.LeaseUntil, d.Reason, d.Snippet, d.Uncounted = delivery.Pending, now, now, time.Time{}, "", "", 2
			d.UpdatedAt, d.ExpiresAt = now, expires
			d.History = append(d.History, attempt)
		}, delivery.InFlight},
		"an end by age": {func() (delivery.Delivery, any) {
			return claimed(delivery.Settle{Key: claim().Key, State: delivery.Dead, Reason: "too old", Now: now}.Apply(ptr(full(delivery.Pending))))
		}, func(d *delivery.Delivery) {
			d.State, d.Reason, d.LeaseUntil, d.NextAttemptAt, d.DueAt, d.UpdatedAt, d.ExpiresAt = delivery.Dead, "too old", time.Time{}, time.Time{}, time.Time{}, now, expires
		}, delivery.Pending},
		"a replay": {func() (delivery.Delivery, any) {
			return claimed(delivery.Replay{Key: claim().Key, Now: now, DueAt: now.Add(time.Minute)}.Apply(full(delivery.Dead)))
		}, func(d *delivery.Delivery) {
			d.State, d.Uncounted, d.Since, d.NextAttemptAt, d.DueAt, d.Reason, d.UpdatedAt, d.ExpiresAt =
				delivery.Pending, 3, now, now, now.Add(time.Minute), "replayed by an operator", now, expires
		}, delivery.Dead},
		"an erasure of a pending delivery": {func() (delivery.Delivery, any) {
			return erased(delivery.Erase{Key: claim().Key, Now: now}.Apply(ptr(full(delivery.Pending))))
		}, func(d *delivery.Delivery) {
			d.State, d.LeaseUntil, d.NextAttemptAt, d.DueAt = delivery.Skipped, time.Time{}, time.Time{}, time.Time{}
			d.Reason, d.Snippet, d.ErasedAt, d.UpdatedAt = "erased", "", now, now
		}, delivery.Pending},
		"an erasure of a dead letter": {func() (delivery.Delivery, any) {
			return erased(delivery.Erase{Key: claim().Key, Now: now}.Apply(ptr(full(delivery.Dead))))
		}, func(d *delivery.Delivery) {
			d.LeaseUntil, d.NextAttemptAt, d.DueAt = time.Time{}, time.Time{}, time.Time{}
			d.Reason, d.Snippet, d.ErasedAt, d.UpdatedAt = "erased", "", now, now
		}, delivery.Dead},
		"an erasure during an attempt": {func() (delivery.Delivery, any) {
			return erased(delivery.Erase{Key: claim().Key, Now: now.Add(-time.Minute)}.Apply(ptr(full(delivery.InFlight))))
		}, func(d *delivery.Delivery) { d.ErasedAt = now.Add(-time.Minute) }, delivery.InFlight},
	} {
		t.Run(name, func(t *testing.T) {
			want := full(c.from)
			c.want(&want)
			got, refused := c.got()
			if refused != nil {
				t.Fatal(refused)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func ptr[T any](v T) *T { return &v }

// erased is an erasure that found a record.
func erased(d delivery.Delivery, ok bool) (delivery.Delivery, any) {
	if !ok {
		return d, "no record"
	}
	return d, nil
}

// Nothing begins an attempt of an erased delivery, and nothing is made of none.
func TestAnErasedDeliveryIsNeverSentAgain(t *testing.T) {
	for _, state := range delivery.States {
		d, _ := delivery.Erase{Key: claim().Key, Now: now}.Apply(ptr(full(state)))
		c := claim()
		c.Attempts = d.Attempts
		if got, refused := c.Apply(&d); refused == nil {
			t.Errorf("%s: claimed: %+v", state, got)
		}
		if got, refused := (delivery.Replay{Key: d.Key, Now: now}).Apply(d); refused == nil || refused.Cause != delivery.CauseErased {
			t.Errorf("%s: replayed: %+v, %v", state, got, refused)
		}
	}
	if _, ok := (delivery.Erase{Key: claim().Key, Now: now}).Apply(nil); ok {
		t.Error("a record was made")
	}
	if d, ok := (delivery.Erase{Key: claim().Key, Create: true, Now: now}).Apply(nil); !ok || d.State != delivery.Skipped || d.Reason != delivery.Erased || d.ExpiresAt.IsZero() {
		t.Errorf("%+v", d)
	}
}

// claimed returns a refusal as nil if there is none.
func claimed(d delivery.Delivery, r *delivery.Refusal) (delivery.Delivery, any) {
	if r != nil {
		return d, r
	}
	return d, nil
}

// A history has the latest attempts, and those without a verdict as lost.
func TestAHistoryKeepsTheLatestAttempts(t *testing.T) {
	d := full(delivery.InFlight)
	d.History, d.Uncounted, d.Attempts = nil, 0, 0
	for n := 1; n <= delivery.MaxHistory+2; n++ {
		d.Attempts = n
		d = delivery.Conclusion{State: delivery.Pending, Attempt: delivery.Attempt{Number: n, Class: delivery.Timeout}, Now: now}.Apply(d)
		if want := min(n, delivery.MaxHistory); len(d.History) != want || d.History[len(d.History)-1].Number != n || d.History[0].Number != n-want+1 {
			t.Errorf("after attempt %d: %+v", n, d.History)
		}
	}
	d.History, d.Uncounted = d.History[:1], 5 // the attempts up to 5 were before a replay
	d = delivery.Conclusion{State: delivery.Pending, Attempt: delivery.Attempt{Number: 8, Class: delivery.Timeout}, Now: now}.Apply(d)
	var numbers []int
	for _, a := range d.History[1:] {
		numbers = append(numbers, a.Number)
	}
	if diff := cmp.Diff([]int{6, 7, 8}, numbers); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestACursorOfAnotherKindIsRefused(t *testing.T) {
	good := delivery.Query{EndpointID: "ep"}
	good.Cursor = good.CursorAfter("01JZZZZZZZZZZZZZZZZZZZZZZZ")
	if _, _, err := good.Bounds(); err != nil {
		t.Errorf("its own cursor: %v", err)
	}
	for _, cursor := range []string{"x", "AAAA", "no cursor", "MDFKWlpa"} {
		if _, _, err := (delivery.Query{EndpointID: "ep", Cursor: cursor}).Bounds(); err == nil {
			t.Errorf("the cursor %q is accepted", cursor)
		}
	}
}
