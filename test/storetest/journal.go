package storetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/journal"
)

func journalItems(t *testing.T, s Store) {
	ctx := t.Context()
	var want []journal.Entry
	put := func(tenant string, batch []journal.Entry) {
		for _, i := range journal.Pack(tenant, batch) {
			if err := s.PutJournal(ctx, i); err != nil {
				t.Fatal(err)
			}
		}
	}
	for n := range 60 {
		var batch []journal.Entry
		for m := range 20 {
			batch = append(batch, journal.Entry{
				ID: event.NewID(start.Add(time.Duration(n) * time.Minute)), Type: "user.left_community", Subject: fmt.Sprint("c_", m), Actor: `"u"`, Endpoints: m,
			})
		}
		want = append(want, batch...)
		put("t1", batch)
		put("t1", batch)      // again, after an error
		put("t1", batch[10:]) // a part of it again
	}
	put("t2", []journal.Entry{{ID: event.NewID(start), Type: "user.left_community"}})
	slices.SortFunc(want, func(a, b journal.Entry) int { return strings.Compare(b.ID, a.ID) })

	var got []journal.Entry
	for q := (journal.Query{Tenant: "t1", Limit: 100, Examine: 1000}); ; {
		page := must[journal.Page](t)(journal.Search(ctx, s, q))
		got = append(got, page.Entries...)
		if q.Cursor = page.Next; q.Cursor == "" {
			break
		}
	}
	same(t, got, want)

	q := journal.Query{Tenant: "t1", Limit: 100, Examine: 1000, Filter: journal.Filter{
		From: start.Add(10 * time.Minute), To: start.Add(12 * time.Minute), Subject: "c_7",
	}}
	page := must[journal.Page](t)(journal.Search(ctx, s, q))
	if len(page.Entries) != 3 || page.Next != "" {
		t.Errorf("three minutes hold %d events about c_7, next %q; want 3", len(page.Entries), page.Next)
	}
	if page.Examined > 60 {
		t.Errorf("%d events were read for three minutes of 20", page.Examined)
	}
	q.Tenant = "t3"
	same(t, must[journal.Page](t)(journal.Search(ctx, s, q)), journal.Page{})
}
