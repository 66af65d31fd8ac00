package storetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/event"
)

// eventScans checks that the segments together have each event of a time range once, from
// wherever reading goes on.
func eventScans(t *testing.T, s Store) {
	ctx := t.Context()
	want := map[string]event.Accepted{}
	from, to := start, start.Add(time.Hour)
	for n := range 300 {
		at := start.Add(time.Duration(n-20) * 14 * time.Second) // some before the range, some after it
		a := event.Accepted{ID: event.NewID(at), Tenant: fmt.Sprint("t", n%3), Body: fmt.Appendf(nil, `{"n":%d}`, n), Subject: "s"}
		if err := s.PutEvent(ctx, a); err != nil {
			t.Fatal(err)
		}
		if !at.Before(from) && !at.After(to) {
			a.ExpiresAt = at.Add(event.Retention(0))
			want[a.ID] = a
		}
	}
	const segments = 4
	for name, stop := range map[string]int{"whole pages": 1000, "parts of pages": 7} {
		got := map[string]event.Accepted{}
		for segment := range segments {
			for q := (event.RangeScan{Segment: segment, Segments: segments, From: from, To: to}); ; {
				page := must[event.RangePage](t)(s.ScanRange(ctx, q))
				if len(page.Events) > stop {
					page.Events = page.Events[:stop]
					page.Next = page.Events[stop-1].Event.ID
				}
				for _, c := range page.Events {
					if _, twice := got[c.Event.ID]; twice || !c.Inserted || c.Err != nil {
						t.Errorf("%s: event %s: twice %v, %+v", name, c.Event.ID, twice, c)
					}
					got[c.Event.ID] = c.Event
				}
				if q.After = page.Next; q.After == "" {
					break
				}
			}
		}
		same(t, got, want)
	}
}
