package dispatch_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/retry"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
)

// A paused endpoint gets nothing and loses nothing: its events wait in its backlog, which is
// sent within two minutes after it is resumed.
func TestAPausedEndpointKeepsItsBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint()
		before := w.fannedOut()
		w.setStatus(e, endpoint.Paused)
		items := append(w.accept(30), before)
		w.requeue(items...)
		w.drive(2*time.Hour, w.Dispatcher)
		if n := w.receiver.count(); n != 0 {
			t.Fatalf("a paused endpoint got %d requests", n)
		}
		for _, item := range items {
			if d := w.delivery(item); d.State != delivery.Pending || !d.InBacklog || d.Attempts != 0 {
				t.Fatalf("a delivery to a paused endpoint is %s (%s), %d attempts", d.State, d.Reason, d.Attempts)
			}
		}
		w.setStatus(e, endpoint.Enabled)
		w.drive(2*time.Minute, w.Dispatcher)
		for _, item := range items {
			if d := w.delivery(item); d.State != delivery.Delivered || d.Attempts != 1 {
				t.Errorf("two minutes after the endpoint was resumed, a delivery is %s (%s) after %d attempts", d.State, d.Reason, d.Attempts)
			}
		}
	})
}

// A pause does not extend the age limit.
func TestDeliveriesToAPausedEndpointExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint(func(e *endpoint.Endpoint) { e.Retry = retry.Policy{MaxAge: time.Hour} })
		w.setStatus(e, endpoint.Paused)
		item := w.fannedOut()
		w.requeue(item)
		w.drive(70*time.Minute, w.Dispatcher)
		if d := w.delivery(item); d.State != delivery.Dead || d.Reason != "older than the age limit of 1h0m0s" {
			t.Errorf("a delivery that is older than its age limit is %s (%s)", d.State, d.Reason)
		}
	})
}

// An operator may replay deliveries of a paused endpoint; they wait, too.
func TestAReplayToAPausedEndpointWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint()
		item := w.fannedOut()
		w.deliver(item)
		w.setStatus(e, endpoint.Paused)
		if _, err := w.Replay(t.Context(), dispatch.Command{Tenant: e.Tenant, EndpointID: e.ID, EventID: item.EventID}); err != nil {
			t.Fatal(err)
		}
		w.drive(10*time.Minute, w.Dispatcher)
		if d := w.delivery(item); d.State != delivery.Pending || !d.InBacklog || w.receiver.count() != 1 {
			t.Errorf("a replay to a paused endpoint is %s (%s), and the receiver got %d requests, want 1", d.State, d.Reason, w.receiver.count())
		}
	})
}
