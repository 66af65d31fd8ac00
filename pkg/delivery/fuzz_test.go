package delivery_test

import (
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/event"
)

// FuzzCursor: the bounds of a valid cursor are in the query's range. The cursor of a
// page continues with the id before its last one. Errors are short.
func FuzzCursor(f *testing.F) {
	q := delivery.Query{From: time.UnixMilli(1_769_000_000_000), To: time.UnixMilli(1_770_000_000_000)}
	low, high := event.IDRange(q.From, q.To)
	for _, seed := range []string{"", "x", "!", q.CursorAfter(low), q.CursorAfter(high), q.CursorAfter("01KDJ0000000000000000000AA"), q.CursorAfter("00000000000000000000000000"), q.CursorAfter("7ZZZZZZZZZZZZZZZZZZZZZZZZZ"), q.CursorAfter("8zzzzzzzzzzzzzzzzzzzzzzzzz")} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, cursor string) {
		q := q
		q.Cursor = cursor
		first, last, err := q.Bounds()
		if err != nil {
			if len(err.Error()) > 1024 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		if first != low || last > high || last < first {
			t.Errorf("cursor %q: bounds %s to %s; the query has %s to %s", cursor, first, last, low, high)
		}
		if cursor == "" {
			return
		}
		q.Cursor = q.CursorAfter(last)
		_, before, err := q.Bounds()
		if last == low {
			if err == nil {
				t.Errorf("a page continues before the first id, with %s", before)
			}
		} else if err != nil || before >= last {
			t.Errorf("the page after %s ends at %s (%v)", last, before, err)
		}
	})
}
