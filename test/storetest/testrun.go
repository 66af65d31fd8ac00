package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/systemtest/testrun"
)

func testRuns(t *testing.T, s Store) {
	ctx := t.Context()
	run := testrun.Run{ID: event.NewID(start), Secret: signature.NewSecret(), ExpiresAt: start.Add(time.Hour).Truncate(time.Second)}
	if _, err := s.GetTestRun(ctx, run.ID); !errors.Is(err, testrun.ErrNotFound) {
		t.Errorf("a run that was never put: %v", err)
	}
	if err := s.PutTestRun(ctx, run); err != nil {
		t.Fatal(err)
	}
	got := must[testrun.Run](t)(s.GetTestRun(ctx, run.ID))
	if got.Secret.Reveal() != run.Secret.Reveal() || got.ID != run.ID || !got.ExpiresAt.Equal(run.ExpiresAt) {
		t.Errorf("got %+v, want %+v", got, run)
	}

	same(t, must[testrun.Page](t)(s.ListArrivals(ctx, run.ID, "", 10)), testrun.Page{})
	var want []testrun.Arrival
	for i := range 4 {
		a := testrun.Arrival{EventID: event.NewID(start.Add(time.Duration(i) * time.Second)), At: start}
		for n := range 2 {
			a.Request = fmt.Sprint("request ", n)
			want = append(want, a)
		}
	}
	for range 2 { // a write that is repeated
		for _, a := range want {
			if err := s.PutArrival(ctx, run, a); err != nil {
				t.Fatal(err)
			}
		}
	}
	other := run
	other.ID = event.NewID(start)
	if err := s.PutArrival(ctx, other, want[0]); err != nil {
		t.Fatal(err)
	}
	for _, limit := range []int{1, 3, 100} {
		var all []testrun.Arrival
		for cursor, pages := "", 0; ; pages++ {
			page := must[testrun.Page](t)(s.ListArrivals(ctx, run.ID, cursor, limit))
			if len(page.Arrivals) > limit || pages > 10 {
				t.Fatalf("page %d has %d arrivals, want at most %d", pages, len(page.Arrivals), limit)
			}
			all = append(all, page.Arrivals...)
			if cursor = page.Next; cursor == "" {
				break
			}
		}
		same(t, all, want)
	}

	for range 2 {
		if err := s.DeleteTestRun(ctx, run.ID); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.GetTestRun(ctx, run.ID); !errors.Is(err, testrun.ErrNotFound) {
		t.Errorf("a run that was deleted: %v", err)
	}
}
