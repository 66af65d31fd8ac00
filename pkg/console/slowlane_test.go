package console_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
)

// An endpoint in the slow lane is shown as such, with since when, until it has left it.
func TestTheSlowLaneIsShownWithSinceWhen(t *testing.T) {
	w := newWorld(t)
	e, quick := w.endpoint("t1", "https://slow.example.com/"), w.endpoint("t1", "https://quick.example.com/")
	since := w.now()
	s, err := w.store.GetBreaker(t.Context(), "t1", e.ID, true)
	if err != nil {
		t.Fatal(err)
	}
	s, _ = s.MarkSlow(since)
	if _, err := w.store.PutBreaker(t.Context(), s, since); err != nil {
		t.Fatal(err)
	}
	b := w.login(console.Viewer, "t1")
	who := console.Session{Tenant: "t1", Role: console.Viewer}
	for _, slow := range []bool{true, false} {
		list, err := w.ops.ListEndpoints(t.Context(), who)
		if err != nil || len(list) != 2 {
			t.Fatalf("%+v, %v", list, err)
		}
		for _, v := range list {
			if got, want := !v.SlowSince.IsZero(), slow && v.ID == e.ID; got != want || want && !v.SlowSince.Equal(since) {
				t.Errorf("%s is slow since %s; slow is %t", v.URL, v.SlowSince, want)
			}
		}
		circuit, err := w.ops.GetCircuit(t.Context(), who, e.ID)
		if err != nil || circuit.SlowSince.IsZero() == slow {
			t.Errorf("the circuit: %+v, %v", circuit, err)
		}
		for path, want := range map[string]bool{"/endpoints": slow, "/endpoints/" + e.ID: slow, "/endpoints/" + quick.ID: false} {
			if a := b.get(path); a.Code != http.StatusOK || strings.Contains(strings.ToLower(a.Body.String()), "slow lane") != want {
				t.Errorf("%s: %d, and the slow lane is shown: %t", path, a.Code, !want)
			}
		}
		if text := b.api("GET", "/api/endpoints/"+e.ID, "").Body.String(); strings.Contains(text, "slow_since") != slow {
			t.Errorf("the API: %s", text)
		}
		w.pass(breaker.SlowLaneFor + time.Second)
	}
}
