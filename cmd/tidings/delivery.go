package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
)

func (a *app) deliveryCommand() *cobra.Command {
	c := &cobra.Command{Use: "delivery", Short: "What became of events: list, show, replay"}
	c.AddCommand(a.deliveryList(), a.deliveryShow(), a.deliveryReplay())
	return c
}

func (a *app) deliveryList() *cobra.Command {
	var q delivery.Query
	var state string
	var dead bool
	var since time.Duration
	c := &cobra.Command{
		Use: "list", Short: "The newest deliveries", Args: args(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			q.State = delivery.State(state)
			if dead {
				q.State = delivery.Dead
			}
			if q.State != "" && !slices.Contains(delivery.States, q.State) {
				return usage("--state %s is none of %v", state, delivery.States)
			}
			if q.Limit < 1 || q.Limit > 10_000 {
				return usage("--limit must be 1 to 10000")
			}
			if since > 0 {
				q.From = time.Now().Add(-since)
			}
			t, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			endpoints := []string{q.EndpointID}
			if q.EndpointID == "" {
				list, err := t.store.ListEndpoints(c.Context(), a.tenant)
				if err != nil {
					return unreachable(err)
				}
				endpoints = endpoints[:0]
				for _, e := range list {
					endpoints = append(endpoints, e.ID)
				}
			}
			var found []delivery.Delivery
			for _, id := range endpoints {
				one := q
				one.EndpointID = id
				page, err := t.store.QueryDeliveries(c.Context(), one)
				if err != nil {
					return unreachable(err)
				}
				found = append(found, page.Deliveries...)
			}
			// Event ids sort by time: newest first over all endpoints.
			slices.SortStableFunc(found, func(x, y delivery.Delivery) int { return strings.Compare(y.EventID, x.EventID) })
			return a.printDeliveries(found[:min(len(found), q.Limit)])
		},
	}
	f := c.Flags()
	f.StringVar(&q.EndpointID, "endpoint", "", "only this endpoint's")
	f.StringVar(&state, "state", "", "only those pending, in_flight, delivered, dead or skipped")
	f.BoolVar(&dead, "dead", false, "only dead letters")
	f.DurationVar(&since, "since", 0, "only of events accepted in this time, such as 1h")
	f.IntVar(&q.Limit, "limit", 20, "at most so many")
	return c
}

func (a *app) printDeliveries(list []delivery.Delivery) error {
	if a.json {
		views := []console.Delivery{}
		for _, d := range list {
			views = append(views, console.ViewDelivery(d, nil))
		}
		return a.printJSON(views)
	}
	if len(list) == 0 {
		fmt.Fprintln(a.out, "no deliveries")
		return nil
	}
	return a.table("UPDATED\tSTATE\tATTEMPTS\tNEXT\tTYPE\tEVENT\tENDPOINT\tREASON", func(row func(...any)) {
		for _, d := range list {
			row(moment(d.UpdatedAt), d.State, d.Attempts, next(d), d.EventType, d.EventID, d.EndpointID, d.Reason)
		}
	})
}

// next says when the next attempt is, or what it waits for.
func next(d delivery.Delivery) string {
	if d.Waits {
		return "circuit"
	}
	return until(d.NextAttemptAt)
}

// until shows how far away the next attempt is: what an operator wants to know
// of a delivery that waits.
func until(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	if wait := time.Until(at).Round(time.Second); wait > 0 {
		return "in " + wait.String()
	}
	return "now"
}

func (a *app) deliveryShow() *cobra.Command {
	return &cobra.Command{
		Use: "show ENDPOINT EVENT", Short: "One delivery with its latest attempts", Args: args(2, "an endpoint's id and an event's id"),
		RunE: func(c *cobra.Command, given []string) error {
			t, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			d, err := t.store.GetDelivery(c.Context(), delivery.Key{EndpointID: given[0], EventID: given[1]})
			if errors.Is(err, delivery.ErrNotFound) {
				return fmt.Errorf("no attempt at delivering event %s to endpoint %s has begun", given[1], given[0])
			}
			if err != nil {
				return unreachable(err)
			}
			v := console.ViewDelivery(d, nil)
			if a.json {
				return a.printJSON(v)
			}
			if err := a.fields("event", v.EventID, "type", v.EventType, "endpoint", v.EndpointID, "state", v.State, "attempts", v.Attempts,
				"next", showNext(d), "reason", v.Reason, "answer", v.Snippet); err != nil {
				return err
			}
			fmt.Fprintln(a.out)
			return a.table("#\tAT\tOUTCOME\tSTATUS\tDNS\tCONNECT\tTLS\tFIRST BYTE\tTOTAL", func(row func(...any)) {
				for _, t := range v.History {
					row(t.Number, moment(t.At), t.Outcome, t.Status, ms(t.DNS), ms(t.Connect), ms(t.TLS), ms(t.FirstByte), ms(t.Total))
				}
			})
		},
	}
}

// showNext is next for a page of its own: when, to the second.
func showNext(d delivery.Delivery) string {
	if d.Waits {
		return "when the endpoint's circuit closes, or probes with it; `tidings circuit list` shows it"
	}
	return moment(d.NextAttemptAt)
}

func ms(n int64) string { return fmt.Sprintf("%d ms", n) }

func (a *app) deliveryReplay() *cobra.Command {
	var endpointID, from, to string
	var dead, all bool
	c := &cobra.Command{
		Use: "replay [ENDPOINT EVENT]", Short: "Send one delivery again, or dead letters: an endpoint's, or all",
		Example: `  tidings delivery replay ep_01J… 01J…
  tidings delivery replay --dead --endpoint ep_01J… --from 2026-01-29T00:00:00Z
  tidings delivery replay --dead --all`,
		RunE: func(c *cobra.Command, given []string) error {
			command := dispatch.Command{Action: "replay", Tenant: a.tenant}
			switch {
			case len(given) == 2 && !dead:
				command.EndpointID, command.EventID = given[0], given[1]
			case len(given) == 0 && dead && (endpointID != "") != all:
				command.Action, command.EndpointID = "replay_dead", endpointID
			default:
				return usage("tidings delivery replay takes ENDPOINT EVENT, or --dead with --endpoint ENDPOINT or --all")
			}
			for _, bound := range []struct {
				flag, text string
				into       *time.Time
			}{{"--from", from, &command.From}, {"--to", to, &command.To}} {
				if bound.text == "" {
					continue
				}
				at, err := time.Parse(time.RFC3339, bound.text)
				if err != nil {
					return usage("%s must be a time such as 2026-01-29T12:00:00Z", bound.flag)
				}
				*bound.into = at
			}
			t, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			commands := []dispatch.Command{command}
			if all {
				if commands, err = a.ofEveryEndpoint(c.Context(), t, command); err != nil {
					return err
				}
			}
			total := 0
			for _, command := range commands {
				for {
					var done dispatch.Replayed
					if err := t.invoke(c.Context(), "dispatch", command, &done); err != nil {
						return err
					}
					total += done.Replayed
					if done.Next == "" {
						break
					}
					fmt.Fprintf(a.err, "%d so far …\n", total)
					command.Cursor = done.Next
				}
			}
			if a.json {
				return a.printJSON(map[string]int{"replayed": total})
			}
			fmt.Fprintln(a.out, total, "replayed")
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&endpointID, "endpoint", "", "whose dead letters")
	f.BoolVar(&dead, "dead", false, "dead letters, of --endpoint or of --all endpoints")
	f.BoolVar(&all, "all", false, "those of all endpoints that are enabled")
	f.StringVar(&from, "from", "", "only of events accepted at or after this time")
	f.StringVar(&to, "to", "", "only of events accepted at or before this time")
	return c
}

// ofEveryEndpoint is the command for each endpoint that can be sent to; those that
// are disabled are named, and left.
func (a *app) ofEveryEndpoint(ctx context.Context, t *target, command dispatch.Command) ([]dispatch.Command, error) {
	list, err := t.store.ListEndpoints(ctx, a.tenant)
	if err != nil {
		return nil, unreachable(err)
	}
	var commands []dispatch.Command
	for _, e := range list {
		if e.Status != endpoint.Enabled {
			fmt.Fprintf(a.err, "%s is disabled: its dead letters stay\n", e.ID)
			continue
		}
		command.EndpointID = e.ID
		commands = append(commands, command)
	}
	return commands, nil
}
