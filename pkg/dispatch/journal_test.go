package dispatch_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/journal"
)

// recorded returns a tenant's journal, newest event first.
func (w *world) recorded(tenant string) []journal.Entry {
	w.t.Helper()
	page, err := journal.Search(w.t.Context(), w.store, journal.Query{Tenant: tenant, Limit: 1000, Examine: 1000})
	if err != nil {
		w.t.Fatal(err)
	}
	return page.Entries
}

// failingJournal fails for events that the test names.
type failingJournal struct {
	dispatch.Journal
	fails map[string]bool
}

func (f failingJournal) PutJournal(ctx context.Context, i journal.Item) error {
	if slices.ContainsFunc(i.Entries, func(e journal.Entry) bool { return f.fails[e.ID] }) {
		return errors.New("throttled")
	}
	return f.Journal.PutJournal(ctx, i)
}

func TestFanOutRecordsEachEventOnceAlsoWhereNobodySubscribes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.endpoint(func(e *endpoint.Endpoint) { e.EventTypes = []string{"user.posted_comment"} })
		matched, first := w.event("user.posted_comment", comment)
		unmatched, second := w.event("user.left_community", `{"community_id":"c_9","user_id":"u_1"}`)
		if failed := w.FanOut(t.Context(), []event.Change{first, second}); failed != nil {
			t.Fatalf("failures: %v", failed)
		}
		w.FanOut(t.Context(), []event.Change{second}) // the stream delivers it again
		got := w.recorded(matched.Tenant)
		slices.SortFunc(got, func(a, b journal.Entry) int { return b.Endpoints - a.Endpoints })
		actor := func(a event.Accepted) string {
			e, _ := event.Decode(a.Body) // decoded above
			return e.ActorUserID
		}
		want := []journal.Entry{
			{ID: matched.ID, Type: "user.posted_comment", Subject: matched.Subject, Actor: actor(matched), Endpoints: 1},
			{ID: unmatched.ID, Type: "user.left_community", Subject: unmatched.Subject, Actor: actor(unmatched)},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("recorded (-want +got):\n%s", diff)
		}
	})
}

func TestAnEventThatIsNotRecordedIsFannedOutAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		journals := failingJournal{fails: map[string]bool{}}
		w := newWorld(t, func(c *dispatch.Config) {
			journals.Journal = c.Journal
			c.Journal = journals
		})
		w.endpoint()
		_, own := w.event("user.posted_comment", comment)
		own.Event.Tenant = "other" // a journal of its own
		lost, record := w.event("user.posted_comment", comment)
		journals.fails[lost.ID] = true
		if failed := w.FanOut(t.Context(), []event.Change{own, record}); !slices.Equal(failed, []string{record.SequenceNumber}) {
			t.Errorf("failures = %v, want the second record", failed)
		}
		journals.fails[lost.ID] = false
		if failed := w.FanOut(t.Context(), []event.Change{record}); failed != nil {
			t.Errorf("failures = %v the second time", failed)
		}
		if n := len(w.recorded("other")); n != 1 {
			t.Errorf("%d events of the other tenant are recorded, want 1", n)
		}
		if list := w.recorded(lost.Tenant); len(list) != 1 || list[0].ID != lost.ID {
			t.Errorf("recorded: %+v, want the event that failed before", list)
		}
	})
}
