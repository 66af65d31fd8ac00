package journal_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/journal"
)

var start = time.Date(2026, 11, 30, 8, 0, 0, 0, time.UTC)

// shelf is a Source that returns few items at a time.
type shelf struct {
	items map[string]journal.Item
	page  int
}

func (s *shelf) put(items ...journal.Item) {
	for _, i := range items {
		s.items[fmt.Sprintf("%d/%s/%s", i.Shard(), i.Tenant, i.Key())] = i
	}
}

func (s *shelf) QueryJournal(_ context.Context, r journal.Range) (found []journal.Item, more bool, err error) {
	for _, i := range s.items {
		if i.Tenant == r.Tenant && i.Shard() == r.Shard && i.Key() >= r.First && i.Key() < r.Before {
			found = append(found, i)
		}
	}
	slices.SortFunc(found, func(a, b journal.Item) int { return strings.Compare(b.Key(), a.Key()) })
	if len(found) > s.page {
		return found[:s.page], true, nil
	}
	return found, false, nil
}

func entry(at time.Time, kind, subject, actor string) journal.Entry {
	return journal.Entry{ID: event.NewID(at), Type: kind, Subject: subject, Actor: actor, Endpoints: 1}
}

func ids(list []journal.Entry) []string {
	var found []string
	for _, e := range list {
		found = append(found, e.ID)
	}
	return found
}

func TestEachEventIsFoundOnceNewestFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &shelf{items: map[string]journal.Item{}, page: rapid.IntRange(1, 3).Draw(t, "items per read")}
		random := rand.New(rand.NewPCG(1, uint64(rapid.Uint32().Draw(t, "seed"))))
		var all []journal.Entry
		for n := range rapid.IntRange(0, 12).Draw(t, "batches") {
			var batch []journal.Entry
			for range rapid.IntRange(1, 8).Draw(t, "events") {
				at := start.Add(time.Duration(random.IntN(90_000)) * time.Millisecond)
				batch = append(batch, entry(at, "a", fmt.Sprint("s", n%2), ""))
			}
			all = append(all, batch...)
			s.put(journal.Pack("t", batch)...)
			// The stream delivers a part of the batch again.
			s.put(journal.Pack("t", batch[random.IntN(len(batch)):])...)
			s.put(journal.Pack("other", []journal.Entry{entry(start, "a", "s0", "")})...)
		}
		q := journal.Query{
			Tenant: "t", Limit: rapid.IntRange(1, 5).Draw(t, "limit"), Examine: rapid.IntRange(1, 20).Draw(t, "examine"),
			Filter: journal.Filter{
				From: start.Add(time.Duration(random.IntN(60_000)) * time.Millisecond), Subject: rapid.SampledFrom([]string{"", "s1"}).Draw(t, "subject"),
			},
		}
		q.To = q.From.Add(time.Duration(random.IntN(60_000)) * time.Millisecond)
		var want []string
		for _, e := range all {
			at, _ := event.IDTime(e.ID)
			if !at.Before(q.From) && !at.After(q.To) && (q.Subject == "" || q.Subject == e.Subject) {
				want = append(want, e.ID)
			}
		}
		slices.Sort(want)
		slices.Reverse(want)
		var got []string
		for pages := 1; ; pages++ {
			if pages > 1000 { // of about 200 events
				t.Fatalf("the search goes round: page %d begins at %q", pages, q.Cursor)
			}
			page, err := journal.Search(t.Context(), s, q)
			if err != nil {
				t.Fatal(err)
			}
			if len(page.Entries) > q.Limit {
				t.Fatalf("a page of %d, want at most %d", len(page.Entries), q.Limit)
			}
			got = append(got, ids(page.Entries)...)
			if q.Cursor = page.Next; q.Cursor == "" {
				break
			}
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

func TestAPageIsEmptyOnlyAfterALongSearch(t *testing.T) {
	s := &shelf{items: map[string]journal.Item{}, page: 100}
	var batch []journal.Entry
	for i := range 300 {
		batch = append(batch, entry(start.Add(time.Duration(i)*time.Second), "a", "s", ""))
	}
	batch[0].Subject = "the oldest"
	s.put(journal.Pack("t", batch)...)
	q := journal.Query{Tenant: "t", Limit: 10, Examine: 10, Filter: journal.Filter{Subject: "the oldest"}}
	page, err := journal.Search(t.Context(), s, q)
	if err != nil || len(page.Entries) != 0 || page.Next == "" || page.Examined != 200 {
		t.Fatalf("page = %+v, error %v; want none after 200 events", page, err)
	}
	if want := start.Add(100 * time.Second); !page.Until.Equal(want) {
		t.Errorf("until = %s, want %s", page.Until, want)
	}
	q.Cursor = page.Next
	if page, err = journal.Search(t.Context(), s, q); err != nil || len(page.Entries) != 1 || page.Next != "" {
		t.Errorf("the next page = %+v, error %v; want the event, and no more", page, err)
	}
}

func TestFilters(t *testing.T) {
	e := journal.Entry{ID: "01KB8Y2T7Q3V5W8XABCDEF0123", Type: "user.left", Subject: "c_7", Actor: "u_1042"}
	for name, c := range map[string]struct {
		filter journal.Filter
		want   bool
	}{
		"nothing selects all":             {journal.Filter{}, true},
		"a type":                          {journal.Filter{Types: []string{"a", "user.left"}}, true},
		"another type":                    {journal.Filter{Types: []string{"a"}}, false},
		"the whole ID":                    {journal.Filter{ID: e.ID}, true},
		"its last characters":             {journal.Filter{ID: "ef0123"}, true},
		"its first characters":            {journal.Filter{ID: "01KB8Y"}, false},
		"a longer ID":                     {journal.Filter{ID: "0" + e.ID}, false},
		"a subject":                       {journal.Filter{Subject: "c_7"}, true},
		"a part of a subject":             {journal.Filter{Subject: "c_"}, false},
		"an actor":                        {journal.Filter{Actor: "u_1042"}, true},
		"an actor as the subject":         {journal.Filter{Subject: "u_1042"}, false},
		"text of the actor":               {journal.Filter{Text: "u_1042"}, true},
		"text of the subject":             {journal.Filter{Text: "c_7"}, true},
		"text of the ID":                  {journal.Filter{Text: "0123"}, true},
		"too short a text of the ID":      {journal.Filter{Text: "23"}, false},
		"two filters, one does not match": {journal.Filter{Subject: "c_7", Actor: "u_1"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.filter.Matches(e); got != c.want {
				t.Errorf("matches = %v, want %v", got, c.want)
			}
		})
	}
}

func TestItemsAreDecodedAsEncoded(t *testing.T) {
	long := strings.Repeat("ü", 200)
	for _, item := range journal.Pack("t", []journal.Entry{
		entry(start, "user.left", `quotes " and \`, "u_1"), entry(start.Add(time.Minute), "user.left", long, ""), entry(start.Add(time.Minute), "user.left", "", "<&>"),
	}) {
		text, err := item.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := journal.Decode("t", text)
		if diff := cmp.Diff(item, got); err != nil || diff != "" {
			t.Errorf("error %v (-want +got):\n%s", err, diff)
		}
	}
	for _, text := range []string{``, `[]`, `{}`, `[["x","a","","",1]]`, `[["01KB8Y2T7Q3V5W8XABCDEF0123"]]`, `[[1,"a","","",1]]`} {
		if item, err := journal.Decode("t", text); err == nil {
			t.Errorf("%q is decoded as %+v", text, item)
		}
	}
}

func TestAnItemIsLimitedInTimeAndSize(t *testing.T) {
	var batch []journal.Entry
	for i := range 1000 {
		batch = append(batch, entry(start.Add(time.Duration(i)*time.Millisecond), "user.posted_comment", strings.Repeat("s", 256), "u"))
	}
	batch = append(batch, entry(start.Add(time.Hour), "user.posted_comment", "", ""))
	items, found := journal.Pack("t", batch), 0
	for _, i := range items {
		text, err := i.Encode()
		if err != nil || len(text) > 40_000 {
			t.Errorf("an item of %d bytes, error %v", len(text), err)
		}
		found += len(i.Entries)
	}
	if found != 1001 || len(items) < 10 || len(items[len(items)-1].Entries) != 1 {
		t.Errorf("%d events in %d items, the last with %d", found, len(items), len(items[len(items)-1].Entries))
	}
}

func TestOddQueriesAreRefused(t *testing.T) {
	s := &shelf{items: map[string]journal.Item{}, page: 1}
	for _, cursor := range []string{"x", "!", "AAAA"} {
		if _, err := journal.Search(t.Context(), s, journal.Query{Tenant: "t", Limit: 1, Examine: 1, Cursor: cursor}); err == nil {
			t.Errorf("the cursor %q is accepted", cursor)
		}
	}
}
