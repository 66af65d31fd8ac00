package testrun_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/systemtest/testrun"
)

var start = time.Date(2026, 1, 29, 12, 34, 56, 0, time.UTC)

func TestEvaluateCountsWhatArrivedOfWhatWasAccepted(t *testing.T) {
	var accepted []string
	for range 100 {
		accepted = append(accepted, event.NewID(start))
	}
	var arrivals []testrun.Arrival
	// All but the last arrive, after 1, 2, 3, … ms.
	for i, id := range accepted[:99] {
		arrivals = append(arrivals, testrun.Arrival{EventID: id, Request: "a", At: start.Add(time.Duration(i+1) * time.Millisecond)})
	}
	arrivals = append(arrivals,
		arrivals[0], // on two pages
		testrun.Arrival{EventID: accepted[1], Request: "b", At: start.Add(time.Hour)},
		testrun.Arrival{EventID: event.NewID(start), Request: "a", At: start},
	)
	got := testrun.Evaluate(append(accepted, accepted[0]), testrun.Collect(arrivals))
	want := testrun.Figures{
		Accepted: 100, Received: 99, Missing: 1, Duplicated: 1, Unexpected: 1,
		Latency: testrun.Latency{P50: 50, P95: 95, P99: 99, Max: 99},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := testrun.Evaluate(nil, nil); got != (testrun.Figures{}) {
		t.Errorf("of nothing: %+v", got)
	}
}

func TestALatencyIsNotNegative(t *testing.T) {
	if got := testrun.Since(event.NewID(start), start.Add(-time.Second)); got != 0 {
		t.Errorf("clocks that differ give %s, want 0", got)
	}
	if got := testrun.Since("no ULID", start); got != 0 {
		t.Errorf("an unknown id gives %s, want 0", got)
	}
}

func TestOnlyULIDsAreIDs(t *testing.T) {
	for id, want := range map[string]bool{event.NewID(start): true, "": false, "favicon.ico": false, "../../etc/passwd/000000000": false} {
		if got := testrun.ValidID(id); got != want {
			t.Errorf("ValidID(%q) = %t, want %t", id, got, want)
		}
	}
}
