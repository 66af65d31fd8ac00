package console

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/journal"
)

// examinedEvents is how many events a page of a search reads, once one matches; until
// then, 20 times as many. 1,000 events are about 12 read units.
const examinedEvents = 20_000

// ListedEvent is an event in a list.
type ListedEvent struct {
	ID         string    `json:"id"`
	Type       string    `json:"type"`
	Subject    string    `json:"subject,omitempty" doc:"What the event is about, for example the id of a comment; at most 256 bytes"`
	Actor      string    `json:"actor_user_id,omitempty" doc:"At most 256 bytes"`
	AcceptedAt time.Time `json:"accepted_at"`
	Endpoints  int       `json:"endpoints" doc:"How many endpoints matched when the event was fanned out"`
}

// EventFilter selects events. Empty fields select all.
type EventFilter struct {
	Types    []string
	ID       string // an event's ID, or its last characters
	Subject  string
	Actor    string
	Text     string // any of ID, subject and actor
	From, To time.Time
	Limit    int
	Cursor   string
}

// EventPage is a page of events, newest first.
type EventPage struct {
	Events   []ListedEvent `json:"events" nullable:"false"`
	Next     string        `json:"next,omitempty" doc:"Cursor of the next page; absent on the last page. A page with a next page is empty only if no event matched among many"`
	Until    time.Time     `json:"until,omitzero" doc:"The page covers events back to this time; absent on the last page"`
	Examined int           `json:"examined" doc:"How many events were read"`
}

// ListEvents returns a page of the tenant's events that were fanned out. A new event
// appears within seconds.
func (o *Operations) ListEvents(ctx context.Context, who Session, f EventFilter) (EventPage, error) {
	if err := delivery.CheckRange(f.From, f.To); err != nil {
		return EventPage{}, errorf(Invalid, "%s", err)
	}
	var err error
	if f.Types, err = o.storedTypes(ctx, who, f.Types); err != nil {
		return EventPage{}, err
	}
	of := list{tenant: who.Tenant, name: "events", filter: append([]string{f.ID, f.Subject, f.Actor, f.Text}, f.Types...)}
	if f.Cursor, err = o.openCursor(ctx, of, f.Cursor); err != nil {
		return EventPage{}, err
	}
	page, err := SearchEvents(ctx, o.Journal, who.Tenant, f)
	if err != nil {
		return EventPage{}, err
	}
	page.Next, err = o.sealCursor(ctx, of, page.Next)
	return page, err
}

// SearchEvents is ListEvents for the CLI, which reads the tables itself: its cursors are
// the journal's own.
func SearchEvents(ctx context.Context, from journal.Source, tenant string, f EventFilter) (EventPage, error) {
	page := EventPage{Events: []ListedEvent{}}
	trimmed := func(text string) string { return strings.TrimPrefix(strings.TrimSpace(text), "…") } // lists show short IDs with it
	found, err := journal.Search(ctx, from, journal.Query{
		Tenant: tenant, Limit: min(cmp.Or(max(f.Limit, 0), defaultPage), maxPage), Cursor: f.Cursor, Examine: examinedEvents,
		Filter: journal.Filter{
			Types: f.Types, ID: trimmed(f.ID), Subject: strings.TrimSpace(f.Subject), Actor: strings.TrimSpace(f.Actor), Text: trimmed(f.Text),
			From: f.From, To: f.To,
		},
	})
	if err != nil {
		return page, err
	}
	page.Next, page.Until, page.Examined = found.Next, found.Until, found.Examined
	for _, e := range found.Entries {
		at, _ := event.IDTime(e.ID) // checked when the journal was decoded
		page.Events = append(page.Events, ListedEvent{ID: e.ID, Type: e.Type, Subject: e.Subject, Actor: e.Actor, AcceptedAt: at, Endpoints: e.Endpoints})
	}
	return page, nil
}

// eventsPage is a page of events and its filter.
type eventsPage struct {
	EventPage
	Names                     []string    // of all types
	Catalog                   []EventType // as many as a page lists
	More                      bool
	Text, Type, Since, Cursor string
}

// NextURL is the URL of the next page.
func (e eventsPage) NextURL() string {
	return "/events" + query("q", e.Text, "type", e.Type, "since", e.Since, "cursor", e.Next)
}

// FirstURL is the URL of the first page with the same filter.
func (e eventsPage) FirstURL() string {
	return "/events" + query("q", e.Text, "type", e.Type, "since", e.Since)
}

func (c *Console) listEvents(r *http.Request, who Session) (page, error) {
	q := r.URL.Query()
	known, err := c.Operations.Endpoints.Catalog.Of(r.Context(), who.Tenant)
	if err != nil {
		return page{}, err
	}
	listed := c.Operations.viewTypes(known, "", maxListedTypes)
	e := eventsPage{
		Text: strings.TrimSpace(q.Get("q")), Type: q.Get("type"), Since: q.Get("since"), Cursor: q.Get("cursor"),
		Names: known.Types(), Catalog: listed.Types, More: listed.Next != "",
	}
	// A whole ID needs no search, and finds an event that is not fanned out yet.
	if _, err := event.IDTime(e.Text); err == nil {
		return page{Redirect: "/events/" + url.PathEscape(e.Text)}, nil
	}
	f := EventFilter{Text: e.Text, Cursor: e.Cursor}
	if e.Type != "" {
		f.Types = []string{e.Type}
	}
	if span, ok := timeSpans[e.Since]; ok {
		f.From = c.Operations.Now().Add(-span)
	}

	e.EventPage, err = c.Operations.ListEvents(r.Context(), who, f)
	return page{Template: "events", Title: "Events", Nav: "events", Data: e}, err
}
