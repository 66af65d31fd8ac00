package console_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/journal"
)

// recorded puts events into a tenant's journal, the last one the newest.
func (w *world) recorded(tenant string, entries ...journal.Entry) {
	w.t.Helper()
	for i := range entries {
		if entries[i].ID == "" {
			entries[i].ID = event.NewID(w.now().Add(time.Duration(i) * time.Second))
		}
	}
	for _, item := range journal.Pack(tenant, entries) {
		if err := w.store.PutJournal(w.t.Context(), item); err != nil {
			w.t.Fatal(err)
		}
	}
}

func TestEventsAreFoundByWhatAnOperatorKnows(t *testing.T) {
	w := newWorld(t)
	comment := event.NewID(w.now())
	w.recorded("t1",
		journal.Entry{ID: comment, Type: "user.posted_comment", Subject: "cmt_7", Actor: "u_1042", Endpoints: 2},
		journal.Entry{Type: "user.joined_community", Subject: "c_1", Actor: "u_1042"},
		journal.Entry{Type: "user.joined_community", Subject: "c_1", Actor: "u_2"},
		journal.Entry{Type: "user.welcome_email_sent", Subject: "u_3"},
		journal.Entry{Type: "order.removed", Subject: "o_1"})
	w.recorded("t2", journal.Entry{Type: "user.joined_community", Subject: "c_1", Actor: "u_1042"})
	for name, c := range map[string]struct {
		filter console.EventFilter
		want   int
	}{
		"all":                            {console.EventFilter{}, 5},
		"a user":                         {console.EventFilter{Text: " u_1042 "}, 2},
		"an actor":                       {console.EventFilter{Actor: "u_2"}, 1},
		"a subject":                      {console.EventFilter{Subject: "c_1"}, 2},
		"an id":                          {console.EventFilter{Text: comment}, 1},
		"the short id of the console":    {console.EventFilter{Text: "…" + comment[18:]}, 1},
		"a type":                         {console.EventFilter{Types: []string{"user.posted_comment"}}, 1},
		"before all":                     {console.EventFilter{To: w.now().Add(-time.Hour)}, 0},
		"one at a time, with more pages": {console.EventFilter{Limit: 1}, 5},
		"a type under its old name":      {console.EventFilter{Types: []string{"user.joined_platform"}}, 1},
		"an old name":                    {console.EventFilter{Types: []string{"user.welcome_email_sent"}}, 1},
		"a removed type":                 {console.EventFilter{Types: []string{"order.removed"}}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			found := 0
			for {
				page, err := w.ops.ListEvents(t.Context(), console.Session{Tenant: "t1", Role: console.Viewer}, c.filter)
				if err != nil {
					t.Fatal(err)
				}
				found += len(page.Events)
				if c.filter.Cursor = page.Next; c.filter.Cursor == "" {
					break
				}
				if len(page.Events) == 0 {
					t.Error("an empty page, and there is more")
				}
			}
			if found != c.want {
				t.Errorf("%d events, want %d", found, c.want)
			}
		})
	}
}

func TestTheEventsPageListsAndSearches(t *testing.T) {
	w := newWorld(t)
	id := w.event("t1", "user.posted_comment", `{"comment_id":"cmt_7"}`)
	w.recorded("t1", journal.Entry{ID: id, Type: "user.posted_comment", Subject: "cmt_7", Actor: "u_1042", Endpoints: 2})
	b := w.login(console.Viewer, "t1")
	for path, want := range map[string]string{
		"/events":                            "cmt_7",
		"/events?q=u_1042&since=24h":         "cmt_7",
		"/events?q=%E2%80%A6" + id[18:]:      "cmt_7",
		"/events?q=cmt_8":                    "No matching events",
		"/events?type=user.joined_community": "No matching events",
	} {
		answer := b.get(path)
		if answer.Code != http.StatusOK || !strings.Contains(answer.Body.String(), want) {
			t.Errorf("%s: %d, want a page with %q", path, answer.Code, want)
		}
	}
	if answer := b.get("/events?q=" + id); answer.Code != http.StatusSeeOther || answer.Header().Get("Location") != "/events/"+id {
		t.Errorf("a whole id: %d to %q, want the event's page", answer.Code, answer.Header().Get("Location"))
	}
}
