package memory_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/store/memory"
)

var start = time.Date(2026, 1, 29, 12, 0, 0, 0, time.UTC)

// clocked returns a store and the clock that it reads.
func clocked() (*memory.Store, *time.Time) {
	now := start
	return memory.New(func() time.Time { return now }), &now
}

// What has an end is held until then, and free from then on.
func TestAKeyIsFreeWhenItExpires(t *testing.T) {
	for late, free := range map[time.Duration]bool{-time.Millisecond: false, 0: true} {
		s, now := clocked()
		expires := start.Add(time.Hour)
		hold := func(eventID, value string) (string, string, string) {
			t.Helper()
			r, err := s.ReserveKey(t.Context(), "t", "key", event.Reservation{EventID: eventID}, expires.Add(time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			v, err := s.PutValueIfAbsent(t.Context(), "value", value, expires.Add(time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			n, err := s.PutValueIfAbsent(t.Context(), "counter", value, expires.Add(time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			return r.EventID, v, n
		}
		if _, err := s.ReserveKey(t.Context(), "t", "key", event.Reservation{EventID: "first"}, expires); err != nil {
			t.Fatal(err)
		}
		if _, err := s.PutValueIfAbsent(t.Context(), "value", "first", expires); err != nil {
			t.Fatal(err)
		}
		if n, err := s.IncrementCounter(t.Context(), "counter", expires); err != nil || n != 1 {
			t.Fatal(n, err)
		}
		*now = expires.Add(late)
		if v, err := s.GetValue(t.Context(), "value"); err != nil || (v == "") != free {
			t.Errorf("%s after its end: %q, %v", late, v, err)
		}
		key, value, counter := hold("second", "second")
		if (key == "second") != free || (value == "second") != free || (counter == "second") != free {
			t.Errorf("%s after their end: key %q, value %q, counter %q", late, key, value, counter)
		}
	}
}

// A query by an indexed state examines the deliveries in that state, and no others.
func TestAQueryByStateExaminesThoseInTheState(t *testing.T) {
	s, now := clocked()
	key := delivery.Key{EndpointID: endpoint.NewID(start), EventID: event.NewID(start)}
	examined := func() int {
		t.Helper()
		page, err := s.QueryDeliveries(t.Context(), delivery.Query{EndpointID: key.EndpointID, State: delivery.Dead})
		if err != nil || len(page.Deliveries) != page.Examined {
			t.Fatal(page, err)
		}
		return page.Examined
	}
	if err := s.Settle(t.Context(), delivery.Settle{Key: key, Tenant: "t", Accepted: start, State: delivery.Dead, Now: start}); err != nil {
		t.Fatal(err)
	}
	if n := examined(); n != 1 {
		t.Errorf("%d after it died", n)
	}
	*now = start.Add(time.Minute)
	if _, err := s.Replay(t.Context(), delivery.Replay{Key: key, Now: *now, DueAt: *now}); err != nil {
		t.Fatal(err)
	}
	if n := examined(); n != 0 {
		t.Errorf("%d after its replay", n)
	}
}

func TestAQueryIncludesTheFirstIDOfItsRange(t *testing.T) {
	s, _ := clocked()
	first, _ := event.IDRange(start, start)
	key := delivery.Key{EndpointID: endpoint.NewID(start), EventID: first}
	if err := s.Settle(t.Context(), delivery.Settle{Key: key, Tenant: "t", Accepted: start, State: delivery.Dead, Now: start}); err != nil {
		t.Fatal(err)
	}
	if page, err := s.QueryDeliveries(t.Context(), delivery.Query{EndpointID: key.EndpointID, From: start}); err != nil || len(page.Deliveries) != 1 {
		t.Errorf("%+v, %v", page, err)
	}
}

// What the caller does with what it has stored or read changes nothing in the store.
func TestTheStoreSharesNoMemory(t *testing.T) {
	s, _ := clocked()
	e := endpoint.Endpoint{
		Tenant: "t", ID: endpoint.NewID(start), URL: "https://example.com", EventTypes: []string{"a.b"}, Filter: json.RawMessage(`{"data":{"a":["b"]}}`),
		Secrets: []endpoint.SigningSecret{{Secret: signature.NewSecret()}}, Status: endpoint.Enabled,
	}
	secret := e.Secrets[0].Secret
	if err := s.AddEndpoint(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	spoil := func(e endpoint.Endpoint) {
		e.EventTypes[0], e.Filter[0], e.Secrets[0].Secret = "spoilt", 'x', signature.NewSecret()
	}
	spoil(e)
	for range 2 {
		got, err := s.GetEndpoint(t.Context(), "t", e.ID)
		if err != nil || got.EventTypes[0] != "a.b" || got.Filter[0] != '{' || !reflect.DeepEqual(got.Secrets[0].Secret, secret) {
			t.Fatalf("%+v, %v", got, err)
		}
		spoil(got)
	}
	a := event.Accepted{ID: event.NewID(start), Tenant: "t", Body: []byte(`{"a":1}`)}
	body := bytes.Clone(a.Body)
	if err := s.PutEvent(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	a.Body[0] = 'x'
	if got, err := s.GetEvent(t.Context(), a.ID); err != nil || !bytes.Equal(got.Body, body) {
		t.Errorf("%s, %v", got.Body, err)
	}
}

func TestEndpointsAreListedInTheOrderOfTheirCreation(t *testing.T) {
	s, _ := clocked()
	var ids []string
	for i := range 20 {
		id := endpoint.NewID(start.Add(time.Duration(i) * time.Second))
		if err := s.AddEndpoint(t.Context(), endpoint.Endpoint{Tenant: "t", ID: id, URL: fmt.Sprint("https://example.com/", i)}); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	list, err := s.ListEndpoints(t.Context(), "t")
	if err != nil || !slices.IsSortedFunc(list, func(a, b endpoint.Endpoint) int { return strings.Compare(a.ID, b.ID) }) || len(list) != 20 || list[19].ID != ids[19] {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestAnEventWithoutATimeIsNotStored(t *testing.T) {
	s, _ := clocked()
	if err := s.PutEvent(t.Context(), event.Accepted{ID: "7", Tenant: "t", Body: []byte("{}")}); err == nil {
		t.Error("no error")
	}
}
