package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/pkg/admin"
	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/event"
)

func (a *app) eventCommand() *cobra.Command {
	c := &cobra.Command{Use: "event", Short: "List, find and show events"}
	c.AddCommand(a.eventList(), a.eventFind(), a.eventShow())
	return c
}

// operations returns what the console reads of events, on the target's tables, and the
// session of the command's tenant.
func (a *app) operations(t *target) (*console.Operations, console.Session) {
	return &console.Operations{
		Endpoints: &admin.Endpoints{Store: t.store, Catalog: t.types()}, Deliveries: t.store, Events: t.store, Now: time.Now,
	}, console.Session{Tenant: a.tenant, Role: console.Viewer}
}

// eventFlags are the flags of a search.
type eventFlags struct {
	filter console.EventFilter
	times  rangeFlags
}

func (e *eventFlags) add(c *cobra.Command) {
	f := c.Flags()
	f.StringSliceVar(&e.filter.Types, "type", nil, "only events of these types, comma-separated")
	f.StringVar(&e.filter.Subject, "subject", "", "only events about this, for example the id of a comment")
	f.StringVar(&e.filter.Actor, "actor", "", "only events that this user caused")
	e.times.add(f)
	f.IntVar(&e.filter.Limit, "limit", 20, "maximum number of events")
}

// parse checks the flags.
func (e *eventFlags) parse() (err error) {
	if e.filter.Limit < 1 || e.filter.Limit > 10_000 {
		return usagef("--limit must be between 1 and 10000")
	}
	e.filter.From, e.filter.To, err = e.times.parse()
	return err
}

func (a *app) eventList() *cobra.Command {
	var flags eventFlags
	c := &cobra.Command{
		Use: "list", Short: "List the newest events", Args: args(0, "no arguments"),
		Long: `List the newest events, also those that no endpoint is subscribed to.

A new event appears within seconds. Events are kept for 30 days, unless the
parameter RetentionDays or their type says otherwise. The column TO is the
number of endpoints that matched; tidings explain says which ones, and why others did
not.`,
		Example: `  tidings event list --since 1h --type user.posted_comment
  tidings event list --subject cmt_57104`,
		RunE: func(c *cobra.Command, _ []string) error { return a.listEvents(c, &flags) },
	}
	flags.add(c)
	return c
}

func (a *app) eventFind() *cobra.Command {
	var flags eventFlags
	c := &cobra.Command{
		Use: "find TEXT", Short: "Find events by id, subject or actor", Args: args(1, "an event id or its last characters, a subject, or an actor"),
		Long: `Find events whose subject or actor is TEXT, or whose id ends with it (at least four
characters), the newest first.`,
		Example: `  tidings event find u_1042
  tidings event find H5TVDMP6 --since 24h`,
		RunE: func(c *cobra.Command, given []string) error {
			flags.filter.Text = given[0]
			return a.listEvents(c, &flags)
		},
	}
	flags.add(c)
	return c
}

func (a *app) listEvents(c *cobra.Command, flags *eventFlags) error {
	if err := flags.parse(); err != nil {
		return err
	}
	t, err := a.connect(c.Context())
	if err != nil {
		return err
	}
	f := flags.filter
	if f.Types, err = a.storedTypes(c.Context(), t, f.Types); err != nil {
		return err
	}
	found, more, err := search(a.err, f.Limit, func(limit int, cursor string) (resultPage[console.ListedEvent], error) {
		f.Limit, f.Cursor = limit, cursor
		page, err := console.SearchEvents(c.Context(), t.store, a.tenant, f)
		return resultPage[console.ListedEvent]{page.Events, page.Next, page.Until}, err
	})
	if err != nil {
		return unreachable(err)
	}
	if a.json {
		return a.printJSON(found)
	}
	if len(found) == 0 {
		fmt.Fprintln(a.out, "no events")
		return nil
	}
	if err := a.table("ACCEPTED\tEVENT\tTYPE\tTO\tSUBJECT\tACTOR", func(row func(...any)) {
		for _, e := range found {
			row(formatTime(e.AcceptedAt), shortID(e.ID), e.Type, e.Endpoints, e.Subject, e.Actor)
		}
	}); err != nil {
		return err
	}
	if more {
		fmt.Fprintln(a.err, "there are more: raise --limit")
	}
	return nil
}

// shortID is the end of an event's ID, which event show and event find accept.
func shortID(id string) string { return id[max(0, len(id)-8):] }

// eventID returns the ID of an event that is given by its ID or its last characters.
func (a *app) eventID(ctx context.Context, t *target, given string) (string, error) {
	if _, err := event.IDTime(given); err == nil {
		return given, nil
	}
	if len(given) < 4 {
		return "", usagef("%q is not an event id, nor its last characters (at least 4)", given)
	}
	var found []console.ListedEvent
	for f := (console.EventFilter{ID: given, Limit: 2}); ; {
		page, err := console.SearchEvents(ctx, t.store, a.tenant, f)
		if err != nil {
			return "", unreachable(err)
		}
		found = append(found, page.Events...)
		if f.Cursor = page.Next; f.Cursor == "" || len(found) > 1 {
			break
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("no event of tenant %s ends with %s; events are kept for 30 days, unless RetentionDays or their type says otherwise", a.tenant, given)
	case 1:
		return found[0].ID, nil
	}
	return "", fmt.Errorf("several events end with %s, %s and %s among them: give more characters", given, found[0].ID, found[1].ID)
}

// event reads an event and where it went.
func (a *app) event(ctx context.Context, given string) (console.Event, error) {
	t, err := a.connect(ctx)
	if err != nil {
		return console.Event{}, err
	}
	id, err := a.eventID(ctx, t, given)
	if err != nil {
		return console.Event{}, err
	}
	o, who := a.operations(t)
	e, err := o.GetEvent(ctx, who, id)
	return e, unreachable(err)
}

func (a *app) eventShow() *cobra.Command {
	return &cobra.Command{
		Use: "show EVENT", Short: "Show an event, its body and its deliveries", Args: args(1, "an event id or its last characters"),
		RunE: func(c *cobra.Command, given []string) error {
			e, err := a.event(c.Context(), given[0])
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(e)
			}
			if err := a.fields("id", e.ID, "type", e.Type, "old type", e.OldType, "note", e.TypeNote, "accepted", formatTime(e.AcceptedAt), "timestamp", formatTime(e.Timestamp), "actor", e.Actor, "erased", formatTime(e.ErasedAt)); err != nil {
				return err
			}
			fmt.Fprintln(a.out)
			if err := a.printDestinations(e.Destinations); err != nil {
				return err
			}
			fmt.Fprintln(a.out)
			return a.printJSON(e.Body)
		},
	}
}

func (a *app) explainCommand() *cobra.Command {
	return &cobra.Command{
		Use: "explain EVENT [ENDPOINT]", Short: "Explain why an event did or did not go to each endpoint",
		Long: `Explain where an event went: for each endpoint of the tenant, the state of its
delivery, or why there is none (event type, filter and the value that it did not
match, disabled, added later) and what sends it. EVENT is an event's id or its last
characters. Events of types that were renamed or removed are explained, too.`,
		Example: `  tidings explain 01J…
  tidings explain H5TVDMP6 ep_01J…`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, given []string) error {
			e, err := a.event(c.Context(), given[0])
			if err != nil {
				return err
			}
			list := e.Destinations
			if len(given) == 2 {
				list = nil
				for _, d := range e.Destinations {
					if d.EndpointID == given[1] {
						list = append(list, d)
					}
				}
				if list == nil {
					return fmt.Errorf("tenant %s has no endpoint %s", a.tenant, given[1])
				}
			}
			if a.json {
				return a.printJSON(list)
			}
			if e.TypeNote != "" {
				fmt.Fprintf(a.out, "%s: %s\n\n", e.Type, e.TypeNote)
			}
			return a.printDestinations(list)
		},
	}
}

func (a *app) printDestinations(list []console.Destination) error {
	if len(list) == 0 {
		fmt.Fprintln(a.out, "no endpoints")
		return nil
	}
	for _, d := range list {
		state := string(d.State)
		if state == "" {
			state = "not sent"
		}
		fmt.Fprintf(a.out, "%s  %s\n  %s", d.EndpointID, d.URL, state)
		if d.Attempts > 0 {
			fmt.Fprintf(a.out, ", attempts %d", d.Attempts)
		}
		if d.Note != "" {
			fmt.Fprintf(a.out, ": %s", d.Note)
		}
		if !d.NextAttemptAt.IsZero() {
			fmt.Fprintf(a.out, "; next attempt %s", timeUntil(d.NextAttemptAt))
		}
		fmt.Fprintln(a.out)
	}
	return nil
}
