package dispatch_test

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
)

// versioned stores an event of version 2 with the given data, and of version 1 with the other.
func (w *world) versioned(second, first string) (event.Accepted, event.Change) {
	w.t.Helper()
	a := event.Accepted{ID: event.NewID(time.Now()), Tenant: event.DefaultTenant}
	var err error
	if a.Body, err = (event.Event{ID: a.ID, Type: "order.paid", Version: 2, Timestamp: time.Now(), Data: []byte(second)}).Encode(); err != nil {
		w.t.Fatal(err)
	}
	if a.Versions, err = event.EncodeVersions([]event.Version{{Number: 2, Since: time.Now().Add(-time.Minute)}, {Number: 1, Data: []byte(first)}}); err != nil {
		w.t.Fatal(err)
	}
	if err := w.store.PutEvent(w.t.Context(), a); err != nil {
		w.t.Fatal(err)
	}
	w.events++
	return a, event.Change{Inserted: true, SequenceNumber: "1", Event: a}
}

func pinned(version int, filter string) func(*endpoint.Endpoint) {
	return func(e *endpoint.Endpoint) {
		e.TypeVersions, e.Filter = map[string]int{"order.paid": version}, json.RawMessage(filter)
	}
}

// An event must not be sent in a version that the receiver does not know.
func TestAnEventThatCannotBeSentInItsVersionIsDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.endpoint(pinned(1, ``))
		_, record := w.versioned(`{"state":"settled"}`, `{"note":"`+strings.Repeat("x", event.MaxBodyBytes)+`"}`)
		w.FanOut(t.Context(), []event.Change{record})
		items := w.queue.take()
		if len(items) != 1 {
			t.Fatalf("queued %+v", items)
		}
		if failed := w.deliver(items...); len(failed) != 0 {
			t.Errorf("failed %v", failed)
		}
		if d := w.delivery(items[0]); d.State != delivery.Dead || !strings.Contains(d.Reason, "cannot be sent in the endpoint's version of its type: event is 262") {
			t.Errorf("%+v", d)
		}
		if w.receiver.count() != 0 {
			t.Errorf("sent %s", w.receiver.got[0].Body)
		}
	})
}

// A filter is evaluated on the version that the endpoint gets, which can nest deeper than
// the other one.
func TestFanOutPassesOverAVersionThatAFilterCannotRead(t *testing.T) {
	deep := `{"a":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`
	for name, c := range map[string]struct {
		second, first string
		pin           int
		skipped       bool
	}{
		"its own": {`{"a":"b"}`, deep, 1, true}, "the other": {deep, `{"a":"b"}`, 1, false},
		"its own, the newest": {deep, `{"a":"b"}`, 2, true}, "the other, an old one": {`{"a":"b"}`, deep, 2, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			e := w.endpoint(pinned(c.pin, `{"data":{"a":["b"]}}`))
			a, record := w.versioned(c.second, c.first)
			w.FanOut(t.Context(), []event.Change{record})
			queued := len(w.queue.take())
			d, err := w.store.GetDelivery(t.Context(), delivery.Key{EndpointID: e.ID, EventID: a.ID})
			if (queued == 0) != c.skipped || (err == nil) != c.skipped || c.skipped && (d.State != delivery.Skipped || !strings.Contains(d.Reason, "filter")) {
				t.Errorf("%s: queued %d, delivery %+v, %v", name, queued, d, err)
			}
		})
	}
}

// Each version has marks of its own, and a person can be in an old version only.
func TestAnErasureLooksInAllVersionsOfAnEvent(t *testing.T) {
	definition := func(keywords, properties string) catalog.Type {
		parsed, err := catalog.Parse([]byte(`{"title":"order.paid",` + keywords + `"description":"d","type":"object","properties":` + properties + `,"examples":[{}]}`))
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	first := definition(``, `{"buyer":{"type":"string","x-personal":true},"campaign":{"type":"string"}}`)
	second := definition(`"x-version":2,"x-downgrade":{},`, `{"customer":{"type":"string","x-personal":true},"campaign":{"type":"string"}}`)
	for name, c := range map[string]struct {
		types         []catalog.Type
		second, first string
		want          bool
	}{
		"in the newest":                      {[]catalog.Type{first, second}, `{"customer":"u_1042"}`, `{}`, true},
		"in the old one only":                {[]catalog.Type{first, second}, `{"customer":"u"}`, `{"buyer":"u_1042"}`, true},
		"in a field that is not personal":    {[]catalog.Type{first, second}, `{"campaign":"u_1042"}`, `{"campaign":"u_1042"}`, false},
		"in a version that was removed":      {[]catalog.Type{second}, `{"customer":"u"}`, `{"campaign":"u_1042"}`, true},
		"in the newest, which was removed":   {[]catalog.Type{first}, `{"campaign":"u_1042"}`, `{}`, true},
		"another field of the other version": {[]catalog.Type{first, second}, `{"buyer":"u_1042"}`, `{"customer":"u_1042"}`, false},
		"another person":                     {[]catalog.Type{first, second}, `{"customer":"u_1"}`, `{"buyer":"u_1"}`, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			known, err := catalog.New(c.types)
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld(t, func(config *dispatch.Config) { config.Types = known })
			a, record := w.versioned(c.second, c.first)
			w.fanOut(record)
			time.Sleep(time.Hour)
			w.erase(false)
			held, err := w.store.GetEvent(t.Context(), a.ID)
			if err != nil || held.ErasedAt.IsZero() == c.want || c.want && held.Versions != nil {
				t.Errorf("%s: erased %v, want %v, versions %s, %v", name, !held.ErasedAt.IsZero(), c.want, held.Versions, err)
			}
		})
	}
}
