package event_test

import (
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/event"
)

// An event that has versions 3, 2 and 1 of its type, of which 2 and 3 were added later.
func TestAnEndpointGetsOneVersionOfAnEvent(t *testing.T) {
	second, third := time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	e := event.Event{ID: "01KG4VZS4NCPSXFR1K7QEWBC9B", Type: "order.paid", Version: 3, Timestamp: second, Data: []byte(`{"v":3,"n":1e2}`), IdempotencyKey: "k"}
	body, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	stored, err := event.EncodeVersions([]event.Version{
		{Number: 3, Since: third}, {Number: 2, Since: second, Data: []byte(`{"v":2,"n":1e2}`)}, {Number: 1, Data: []byte(`{"v":1,"n":"<&>"}`)},
	})
	if err != nil {
		t.Fatal(err)
	}
	const (
		v1 = `{"id":"01KG4VZS4NCPSXFR1K7QEWBC9B","event":"order.paid","timestamp":"2026-02-01T00:00:00.000Z","data":{"v":1,"n":"<&>"},"idempotency_key":"k"}`
		v2 = `{"id":"01KG4VZS4NCPSXFR1K7QEWBC9B","event":"order.paid","version":2,"timestamp":"2026-02-01T00:00:00.000Z","data":{"v":2,"n":1e2},"idempotency_key":"k"}`
		v3 = `{"id":"01KG4VZS4NCPSXFR1K7QEWBC9B","event":"order.paid","version":3,"timestamp":"2026-02-01T00:00:00.000Z","data":{"v":3,"n":1e2},"idempotency_key":"k"}`
	)
	for name, c := range map[string]struct {
		pinned  int
		created time.Time
		want    string
	}{
		"created before version 2":       {0, second.Add(-time.Millisecond), v1},
		"created with version 2":         {0, second, v2},
		"created before version 3":       {0, third.Add(-time.Millisecond), v2},
		"created after version 3":        {0, third.Add(time.Hour), v3},
		"created at no known time":       {0, time.Time{}, v1},
		"pinned to 1, created later":     {1, third, v1},
		"pinned to 2, created before":    {2, time.Time{}, v2},
		"pinned to 3":                    {3, time.Time{}, v3},
		"pinned to one that comes later": {4, time.Time{}, v3},
	} {
		got, err := event.Accepted{ID: e.ID, Body: body, Versions: stored}.InVersion(c.pinned, c.created)
		if err != nil || string(got.Body) != c.want || got.Versions != nil {
			t.Errorf("%s: %v\n%s, want\n%s", name, err, got.Body, c.want)
		}
	}
	// Without version 1, which was removed, its endpoints get the oldest.
	without, err := event.EncodeVersions([]event.Version{{Number: 3, Since: third}, {Number: 2, Since: second, Data: []byte(`{"v":2,"n":1e2}`)}})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := (event.Accepted{ID: e.ID, Body: body, Versions: without}).InVersion(1, third); err != nil || string(got.Body) != v2 {
		t.Errorf("%v: %s", err, got.Body)
	}
	if got, err := (event.Accepted{Body: body}).InVersion(1, time.Time{}); err != nil || string(got.Body) != string(body) {
		t.Errorf("an event of one version: %v: %s", err, got.Body)
	}
	if got, err := (event.Accepted{Body: body, Versions: []byte(`{`)}).InVersion(1, time.Time{}); err == nil {
		t.Errorf("versions that cannot be read: %s", got.Body)
	}
}

func TestABodyTellsItsVersionFromTheSecondOn(t *testing.T) {
	for version, want := range map[int]int{0: 0, 1: 0, 2: 2, 100: 100} {
		e := event.Event{ID: "01KG4VZS4NCPSXFR1K7QEWBC9B", Type: "order.paid", Version: version, Data: []byte(`{}`)}
		body, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := event.Decode(body); err != nil || back.Version != want || strings.Contains(string(body), "version") != (want > 0) {
			t.Errorf("version %d: %d, %v, %s", version, back.Version, err, body)
		}
	}
}
