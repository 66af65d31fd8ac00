package console_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/journal"
)

// accepted stores an event with an old type and records it in the journal.
func (w *world) accepted(at time.Time, eventType, oldType, data string) string {
	w.t.Helper()
	e := event.Event{ID: event.NewID(at), Type: eventType, Timestamp: at, Data: json.RawMessage(data)}
	body, err := e.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.store.PutEvent(w.t.Context(), event.Accepted{ID: e.ID, Tenant: "t1", Body: body, OldType: oldType}); err != nil {
		w.t.Fatal(err)
	}
	w.recorded("t1", journal.Entry{ID: e.ID, Type: eventType})
	return e.ID
}

func TestABackfillIsCountedAndNothingIsAdded(t *testing.T) {
	w := newWorld(t)
	for i, status := range []string{"success", "failed", "success"} {
		w.accepted(w.now().Add(-time.Duration(i+1)*24*time.Hour), "user.registered_event", "", `{"status":"`+status+`"}`)
	}
	w.accepted(w.now().Add(-time.Hour), "user.joined_platform", "user.welcome_email_sent", `{}`)
	w.recorded("t1", journal.Entry{ID: event.NewID(w.now().Add(-time.Hour)), Type: "user.registered_event"}) // the event has expired
	w.recorded("t2", journal.Entry{ID: event.NewID(w.now().Add(-time.Hour)), Type: "user.registered_event"})
	b := w.login(console.Admin, "t1")
	for name, c := range map[string]struct {
		settings         string
		events, examined int
		seconds          float64
	}{
		"all":                                   {`"backfill":"30d"`, 5, 5, 0.5},
		"of two days and a bit":                 {`"backfill":"49h"`, 4, 4, 0.4},
		"a type":                                {`"backfill":"30d","event_types":["user.registered_event"]`, 4, 5, 0.4},
		"a filter":                              {`"backfill":"30d","filter":{"data":{"status":["success"]}}`, 2, 5, 0.2},
		"a filter of an old name":               {`"backfill":"30d","old_names":true,"filter":{"event":["user.welcome_email_sent"]}`, 1, 5, 0.1},
		"a rate limit, half of which is for it": {`"backfill":"30d","rate_per_minute":60`, 5, 5, 10},
	} {
		var got console.Backfill
		answer := b.api("POST", "/api/backfill-estimates", `{"url":"https://example.com/hook",`+c.settings+`}`)
		if err := json.Unmarshal(answer.Body.Bytes(), &got); answer.Code != http.StatusOK || err != nil {
			t.Fatalf("%s: %d %s", name, answer.Code, answer.Body)
		}
		if got.Events != c.events || got.Examined != c.examined || got.Seconds != c.seconds || !got.Until.IsZero() || (got.Dollars > 0) != (c.events > 0) {
			t.Errorf("%s: %+v, want %d of %d in %g s", name, got, c.events, c.examined, c.seconds)
		}
	}
	page := b.post("/endpoints/new", url.Values{"url": {"https://example.com/hook"}, "event_types": {"*"}, "backfill": {"30d"}, "count": {"yes"}})
	if text := page.Body.String(); page.Code != http.StatusOK || !strings.Contains(text, "Nothing was added. 5 of 5 events match; sending them takes about") || !strings.Contains(text, `value="https://example.com/hook"`) {
		t.Errorf("the form: %d %s", page.Code, text)
	}
	if page := b.post("/endpoints/new", url.Values{"url": {"https://example.com/hook"}, "event_types": {"*"}, "count": {"yes"}}); page.Code != http.StatusUnprocessableEntity || !strings.Contains(page.Body.String(), "name how far back") {
		t.Errorf("the form without a time: %d %s", page.Code, page.Body)
	}
	if list := b.api("GET", "/api/endpoints", "").Body.String(); strings.Contains(list, "example.com") {
		t.Errorf("an endpoint was added: %s", list)
	}
	if a := w.login(console.Viewer, "t1").api("POST", "/api/backfill-estimates", `{"url":"https://example.com/hook","backfill":"30d"}`); a.Code != http.StatusForbidden {
		t.Errorf("a viewer may count: %d", a.Code)
	}
}

func TestACountThatIsTooLongSaysHowFarItGot(t *testing.T) {
	w := newWorld(t)
	var entries []journal.Entry
	for i := range 2500 {
		entries = append(entries, journal.Entry{ID: event.NewID(w.now().Add(-time.Duration(i+1) * time.Second)), Type: "user.joined_platform"})
	}
	w.recorded("t1", entries...)
	ep := endpoint.Endpoint{Tenant: "t1", EventTypes: []string{"*"}}
	from := w.now().Add(-24 * time.Hour)
	for more, want := range map[bool]int{false: 2000, true: 2500} {
		got, err := console.CountBackfill(t.Context(), w.store, w.store, ep, from, w.now(), func(console.Backfill) bool { return more })
		if err != nil || got.Examined != want || got.Events != want || got.Until.IsZero() != more {
			t.Errorf("%+v %v, want %d", got, err, want)
		}
		if text := got.Text(); strings.Contains(text, "there are more") == more {
			t.Error(text)
		}
	}
}

func TestWhyAnEventWasNotSentNamesTheRemedy(t *testing.T) {
	w := newWorld(t)
	b := w.login(console.Viewer, "t1")
	const sends = "`tidings recover --endpoint ep_1` sends it"
	long := w.now().Add(-2 * time.Hour)
	for name, c := range map[string]struct {
		endpoint endpoint.Endpoint
		at       time.Time
		want     string
	}{
		"another type":              {endpoint.Endpoint{EventTypes: []string{"user.posted_comment"}}, long, "not subscribed to user.joined_platform"},
		"the old name":              {endpoint.Endpoint{EventTypes: []string{"user.welcome_email_sent"}}, long, "subscribed to user.welcome_email_sent, which is called user.joined_platform now, and not to that"},
		"the filter":                {endpoint.Endpoint{Filter: json.RawMessage(`{"event":["user.posted_comment"]}`)}, long, "the filter does not match: event"},
		"a filter of the old name":  {endpoint.Endpoint{Filter: json.RawMessage(`{"event":["user.welcome_email_sent"]}`)}, long, "the filter does not match: event"},
		"the same, with old names":  {endpoint.Endpoint{OldNames: true, Filter: json.RawMessage(`{"event":["user.welcome_email_sent"]}`)}, long, "missed: the endpoint was disabled or had other settings, or the message was lost; " + sends},
		"added later":               {endpoint.Endpoint{CreatedAt: w.now()}, long, "the endpoint was added later, at "},
		"disabled":                  {endpoint.Endpoint{Status: endpoint.Disabled, StatusReason: "410"}, long, "the endpoint is disabled (410); once it is enabled, " + sends},
		"disabled without a reason": {endpoint.Endpoint{Status: endpoint.Disabled}, long, "the endpoint is disabled; once it is enabled, " + sends},
		"missed":                    {endpoint.Endpoint{}, long, "missed: the endpoint was disabled or had other settings, or the message was lost; " + sends},
		"on its way":                {endpoint.Endpoint{}, w.now(), "pending: no attempt yet"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			e := c.endpoint
			e.ID, e.Tenant, e.URL = "ep_1", "t1", "https://example.com/hook"
			if e.EventTypes == nil {
				e.EventTypes = []string{"*"}
			}
			if e.Status == "" {
				e.Status = endpoint.Enabled
			}
			if err := w.store.AddEndpoint(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			id := w.accepted(c.at, "user.joined_platform", "user.welcome_email_sent", `{}`)
			got, err := w.ops.GetEvent(t.Context(), console.Session{Tenant: "t1", Role: console.Viewer}, id)
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Destinations) != 1 || !strings.HasPrefix(got.Destinations[0].Note, c.want) || got.OldType != "user.welcome_email_sent" || got.TypeNote != "" {
				t.Errorf("%+v, want the note %q", got, c.want)
			}
		})
	}
	removed := w.accepted(long, "order.removed", "", `{}`)
	if text := b.get("/events/" + removed).Body.String(); !strings.Contains(text, "the type was removed") {
		t.Errorf("an event of a removed type: %s", text)
	}
}
