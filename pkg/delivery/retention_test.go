package delivery_test

import (
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/retry"
)

// TTL deletes nothing that is pending, whatever the retention is: the record outlives the
// longest age limit.
func TestADeliveryIsKeptWhileItIsPendingAndThenForItsRetention(t *testing.T) {
	const day = 24 * time.Hour
	longest := 14 * day
	if (retry.Policy{MaxAge: longest + 1}).Validate() == nil {
		t.Fatal("the longest age limit is longer than this test knows")
	}
	for _, c := range []struct {
		state delivery.State
		days  int
		want  time.Duration
	}{
		{delivery.Delivered, 2, 2 * day}, {delivery.Dead, 7, 7 * day}, {delivery.Skipped, 0, 30 * day}, {delivery.Delivered, 365, 365 * day},
		{delivery.Pending, 2, 21 * day}, {delivery.InFlight, 7, 21 * day}, {delivery.Pending, 0, 30 * day}, {delivery.InFlight, 365, 365 * day},
	} {
		if got := delivery.Expiry(c.state, now, c.days).Sub(now); got != c.want || !c.state.Settled() && got < longest+7*day {
			t.Errorf("%s with a retention of %d days is kept for %s, want %s", c.state, c.days, got, c.want)
		}
	}
	// Each transition, of a record that has a retention, and of one that gets it.
	for _, current := range []*delivery.Delivery{nil, {Key: claim().Key, State: delivery.Pending}, {Key: claim().Key, State: delivery.Pending, RetentionDays: 2}} {
		for name, apply := range map[string]func(*delivery.Delivery) (delivery.Delivery, *delivery.Refusal){
			"claim":  delivery.Claim{Key: claim().Key, RetentionDays: 2, Now: now}.Apply,
			"park":   delivery.Park{Key: claim().Key, RetentionDays: 2, Now: now}.Apply,
			"settle": delivery.Settle{Key: claim().Key, RetentionDays: 2, State: delivery.Dead, Now: now}.Apply,
		} {
			d, refused := apply(current)
			if refused != nil || d.RetentionDays != 2 || !d.ExpiresAt.Equal(delivery.Expiry(d.State, now, 2)) {
				t.Errorf("%s of %+v: %d days, until %s (%v)", name, current, d.RetentionDays, d.ExpiresAt, refused)
			}
		}
	}
	held := delivery.Delivery{Key: claim().Key, State: delivery.InFlight, RetentionDays: 2}
	for _, state := range []delivery.State{delivery.Pending, delivery.Delivered} {
		d := delivery.Conclusion{State: state, Now: now}.Apply(held)
		if d.RetentionDays != 2 || !d.ExpiresAt.Equal(delivery.Expiry(state, now, 2)) {
			t.Errorf("concluded as %s: %d days, until %s", state, d.RetentionDays, d.ExpiresAt)
		}
	}
	held.State = delivery.Dead
	if d, refused := (delivery.Replay{Key: held.Key, Now: now}).Apply(held); refused != nil || !d.ExpiresAt.Equal(now.Add(21*day)) {
		t.Errorf("replayed: until %s (%v)", d.ExpiresAt, refused)
	}
}
