package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/pkg/platform"
)

// failedChangesReader is what the console, the CLI and health read.
type failedChangesReader interface {
	ListFailedChanges(ctx context.Context, from time.Time, limit int, cursor string) (platform.FailedChangePage, error)
	CountFailedChanges(ctx context.Context) (n int, more bool, err error)
	ReadStuckCapture(ctx context.Context) (platform.StuckCapture, error)
}

func failedChange(i int) platform.FailedChange {
	c := platform.Change{ID: fmt.Sprint(i), Stream: "arn:stream", SequenceNumber: fmt.Sprintf("%021d", i), At: start.Add(time.Duration(i) * time.Second)}
	return platform.FailedChange{
		ID: c.FailedChangeID(), Tenant: "t1", Key: `{"pk":{"S":"USER#1"}}`, Kind: "user", Operation: platform.Modify, EventType: "user.joined_platform",
		Reason: "user_id: is missing", Stream: c.Stream, SequenceNumber: c.SequenceNumber, At: c.At,
		FirstSeen: start.Add(time.Hour), LastTried: start.Add(time.Hour), Attempts: 1, Record: []byte(`{"eventID":"1"}`), RecordBytes: 15,
	}
}

func failedChanges(t *testing.T, s Store) {
	ctx := t.Context()
	f := failedChange(0)
	if _, err := s.GetFailedChange(ctx, f.ID); !errors.Is(err, platform.ErrNoFailedChange) {
		t.Errorf("error = %v, want ErrNoFailedChange", err)
	}
	same(t, must[bool](t)(s.KeepFailedChange(ctx, f)), true)
	again := f
	again.FirstSeen, again.LastTried = f.FirstSeen.Add(time.Minute), f.LastTried.Add(time.Minute)
	same(t, must[bool](t)(s.KeepFailedChange(ctx, again)), false)
	if diff := cmp.Diff(f, must[platform.FailedChange](t)(s.GetFailedChange(ctx, f.ID))); diff != "" {
		t.Error(diff)
	}
	// Only the first of two attempts at the same time is stored.
	for range 2 {
		if err := s.FailAgain(ctx, f, "still missing", start.Add(2*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	f.Attempts, f.Reason, f.LastTried = 2, "still missing", start.Add(2*time.Hour)
	if diff := cmp.Diff(f, must[platform.FailedChange](t)(s.GetFailedChange(ctx, f.ID))); diff != "" {
		t.Error(diff)
	}
	// A change that is removed meanwhile does not come back.
	missing := failedChange(99)
	if err := s.FailAgain(ctx, missing, "no", start); err != nil {
		t.Fatal(err)
	}
	if _, err := s.GetFailedChange(ctx, missing.ID); !errors.Is(err, platform.ErrNoFailedChange) {
		t.Errorf("error = %v, want ErrNoFailedChange", err)
	}

	want := []platform.FailedChange{f}
	for i := 1; i < 7; i++ {
		next := failedChange(i)
		must[bool](t)(s.KeepFailedChange(ctx, next))
		want = append([]platform.FailedChange{next}, want...)
	}
	for i := range want {
		want[i].Record = nil
	}
	for _, limit := range []int{0, 1, 3, 7} {
		var got []platform.FailedChange
		for cursor := ""; ; {
			page := must[platform.FailedChangePage](t)(s.ListFailedChanges(ctx, time.Time{}, limit, cursor))
			got = append(got, page.Changes...)
			if cursor = page.Next; cursor == "" {
				break
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("limit %d: %s", limit, diff)
		}
	}
	same(t, len(must[platform.FailedChangePage](t)(s.ListFailedChanges(ctx, start.Add(4*time.Second), 0, "")).Changes), 3)
	if _, err := s.ListFailedChanges(ctx, time.Time{}, 1, "no cursor"); err == nil {
		t.Error("a malformed cursor is accepted")
	}
	n, more, err := s.CountFailedChanges(ctx)
	if n != 7 || more || err != nil {
		t.Errorf("counted %d, more %v, %v", n, more, err)
	}
	for range 2 {
		if err := s.RemoveFailedChange(ctx, f.ID); err != nil {
			t.Fatal(err)
		}
	}
	if n, _, err := s.CountFailedChanges(ctx); n != 6 || err != nil {
		t.Errorf("counted %d after a removal, %v", n, err)
	}
	// The largest that is kept.
	large := failedChange(60)
	large.Record = []byte(`{"eventID":"` + strings.Repeat("x", platform.MaxKeptRecord-14) + `"}`)
	large.RecordBytes = len(large.Record)
	if !large.Kept() {
		t.Fatalf("a record of %d bytes is not kept", large.RecordBytes)
	}
	must[bool](t)(s.KeepFailedChange(ctx, large))
	if diff := cmp.Diff(large, must[platform.FailedChange](t)(s.GetFailedChange(ctx, large.ID))); diff != "" {
		t.Error("the largest record is not read as it was kept")
	}
	// One without a tenant, a kind and a record.
	bare := platform.FailedChange{ID: failedChange(50).ID, Reason: "r", FirstSeen: start, LastTried: start, Attempts: 1, RecordBytes: platform.MaxKeptRecord + 1}
	must[bool](t)(s.KeepFailedChange(ctx, bare))
	if diff := cmp.Diff(bare, must[platform.FailedChange](t)(s.GetFailedChange(ctx, bare.ID))); diff != "" {
		t.Error(diff)
	}
}

func stuckCapture(t *testing.T, s Store) {
	ctx := t.Context()
	none := platform.StuckCapture{}
	same(t, must[platform.StuckCapture](t)(s.ReadStuckCapture(ctx)), none)
	mark := func(at time.Time, number string) {
		t.Helper()
		if err := s.MarkStuckCapture(ctx, platform.StuckCapture{Since: at, FailedAt: at, ChangeAt: start, SequenceNumber: number}); err != nil {
			t.Fatal(err)
		}
	}
	mark(start, "1")
	later := start.Add(platform.StuckFresh - time.Second)
	mark(later, "2")
	same(t, must[platform.StuckCapture](t)(s.ReadStuckCapture(ctx)), platform.StuckCapture{Since: start, FailedAt: later, ChangeAt: start, SequenceNumber: "2"})
	// After a pause, it is a new failure.
	again := later.Add(platform.StuckFresh)
	mark(again, "3")
	held := platform.StuckCapture{Since: again, FailedAt: again, ChangeAt: start, SequenceNumber: "3"}
	for _, c := range []struct {
		number string
		want   platform.StuckCapture
	}{{"1", held}, {"3", none}, {"3", none}} {
		if err := s.ClearStuckCapture(ctx, c.number); err != nil {
			t.Fatal(err)
		}
		same(t, must[platform.StuckCapture](t)(s.ReadStuckCapture(ctx)), c.want)
	}
}
