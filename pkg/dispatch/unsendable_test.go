package dispatch_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/guard"
	"github.com/tidings-dev/tidings/pkg/destination/httpadapter"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
)

// Events that were stored before emit refused control characters are dead letters at once.
// They count neither against the endpoint nor as failed attempts.
func TestAnUnsendableEventCountsAgainstNobody(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	g := guard.New(guard.Options{AllowHTTP: true, AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	sender := destination.NewRouter(10, httpadapter.Kind(httpadapter.Options{Guard: g}))
	w := newWorld(t, func(c *dispatch.Config) { c.Sender = sender })
	ep := w.endpoint(func(e *endpoint.Endpoint) { e.URL = server.URL })
	for range 20 {
		id := event.NewID(time.Now())
		body, err := event.Event{
			ID: id, Type: "user.posted_comment", Timestamp: time.Now(), Data: json.RawMessage(comment), IdempotencyKey: "a\nb",
		}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		item := work.Item{Tenant: ep.Tenant, EndpointID: ep.ID, EventID: id, EventType: "user.posted_comment", Body: body}
		if failed := w.deliver(item); len(failed) != 0 {
			t.Fatalf("failed: %v", failed)
		}
		if d := w.delivery(item); d.State != delivery.Dead || d.Attempts != 1 || d.History[0].Class != delivery.Invalid {
			t.Fatalf("%+v", d)
		}
	}
	circuit, err := w.store.GetBreaker(t.Context(), ep.Tenant, ep.ID, true)
	if err != nil || !circuit.Clean() {
		t.Errorf("circuit %+v, %v", circuit, err)
	}
	summary, err := (&stats.Reader{Source: w.store, Now: time.Now}).Summary(t.Context())
	if err != nil || summary.Hour.Failed != 0 || summary.Hour.Attempts != 0 || summary.Hour.Dead != 20 {
		t.Errorf("counted %+v, %v", summary.Hour, err)
	}
	if item := w.fannedOut(); len(w.deliver(item)) != 0 || w.delivery(item).State != delivery.Delivered {
		t.Error("the endpoint gets no other event")
	}
}
