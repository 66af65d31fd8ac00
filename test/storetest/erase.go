package storetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/event"
)

// scanned returns the IDs of a tenant's events, sorted.
func scanned(t *testing.T, s Store, tenant string) (ids []string) {
	t.Helper()
	const segments = 5
	for n := range segments {
		for cursor := ""; ; {
			page := must[event.ScanPage](t)(s.ScanEvents(t.Context(), event.Scan{Tenant: tenant, Segment: n, Segments: segments, Cursor: cursor}))
			for _, a := range page.Events {
				ids = append(ids, a.ID)
			}
			if cursor = page.Next; cursor == "" {
				break
			}
		}
	}
	slices.Sort(ids)
	return ids
}

func erasedEvents(t *testing.T, s Store) {
	ctx := t.Context()
	want := map[string][]string{"t1": nil, "t2": nil}
	var all []event.Accepted
	for i := range 40 {
		e := event.Event{
			ID: event.NewID(start.Add(time.Duration(i) * time.Millisecond)), Type: "user.posted_comment", Timestamp: start, ActorUserID: "u_1042",
			Data: fmt.Appendf(nil, `{"text":"PERSON%s"}`, strings.Repeat("x", 90<<10)), RequestID: "PERSON", IdempotencyKey: "PERSON", // several pages
		}
		body := must[[]byte](t)(e.Encode())
		a := event.Accepted{ID: e.ID, Tenant: fmt.Sprint("t", i%2+1), Body: body, Trace: "Root=1-2-3", Subject: "PERSON", OldType: "old.type", Versions: []byte(`[{"version":2},{"version":1,"data":{"by":"PERSON"}}]`)}
		if err := s.PutEvent(ctx, a); err != nil {
			t.Fatal(err)
		}
		want[a.Tenant] = append(want[a.Tenant], a.ID)
		all = append(all, a)
	}
	for tenant, ids := range want {
		if got := scanned(t, s, tenant); !slices.Equal(got, ids) {
			t.Errorf("%s: %d events, want %d", tenant, len(got), len(ids))
		}
	}
	erasure := event.Erasure{ID: all[0].ID, By: "job_1", Now: start.Add(time.Hour)}
	for range 2 { // the second time, it changes nothing
		if err := s.EraseEvent(ctx, all[0], erasure); err != nil {
			t.Fatal(err)
		}
		got := must[event.Accepted](t)(s.GetEvent(ctx, all[0].ID))
		same(t, string(got.Body), fmt.Sprintf(`{"id":%q,"event":"user.posted_comment","timestamp":"2026-01-29T12:34:56.789Z","data":{},"idempotency_key":%[1]q}`, got.ID))
		got.Body = nil
		same(t, got, event.Accepted{ID: all[0].ID, Tenant: "t1", Trace: "Root=1-2-3", OldType: "old.type", ErasedAt: start.Add(time.Hour), ErasedBy: "job_1", ExpiresAt: start.Add(event.Retention(0))})
		erasure.By, erasure.Now = "job_2", start.Add(2*time.Hour)
	}
	same(t, scanned(t, s, "t1"), want["t1"])
	same(t, string(must[event.Accepted](t)(s.GetEvent(ctx, all[2].ID)).Body), string(all[2].Body))

	// An event that has expired does not come back, and one that is erased stays what it is.
	gone := all[0]
	gone.ID = event.NewID(start)
	if err := s.EraseEvent(ctx, gone, event.Erasure{ID: gone.ID, By: "job_1", Now: start}); err != nil {
		t.Error(err)
	}
	if _, err := s.GetEvent(ctx, gone.ID); err == nil {
		t.Error("an erasure created an event")
	}
	if err := s.PutEvent(ctx, all[0]); err == nil {
		t.Error("an erased event was stored again")
	}
}
