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
	c := &cobra.Command{Use: "delivery", Short: "List, show and replay deliveries"}
	c.AddCommand(a.deliveryList(), a.deliveryShow(), a.deliveryReplay())
	return c
}

func (a *app) deliveryList() *cobra.Command {
	var q delivery.Query
	var state string
	var dead bool
	var since time.Duration
	c := &cobra.Command{
		Use: "list", Short: "List the newest deliveries", Args: args(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			q.State = delivery.State(state)
			if dead {
				q.State = delivery.Dead
			}
			if q.State != "" && !slices.Contains(delivery.States, q.State) {
				return usagef("--state %s is not one of %v", state, delivery.States)
			}
			if q.Limit < 1 || q.Limit > 10_000 {
				return usagef("--limit must be between 1 and 10000")
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
			// Event ids sort by time, so this is newest first over all endpoints.
			slices.SortStableFunc(found, func(x, y delivery.Delivery) int { return strings.Compare(y.EventID, x.EventID) })
			return a.printDeliveries(found[:min(len(found), q.Limit)])
		},
	}
	f := c.Flags()
	f.StringVar(&q.EndpointID, "endpoint", "", "only deliveries to this endpoint")
	f.StringVar(&state, "state", "", "only deliveries in this state: pending, in_flight, delivered, dead or skipped")
	f.BoolVar(&dead, "dead", false, "only dead letters")
	f.DurationVar(&since, "since", 0, "only events accepted within this time, such as 1h")
	f.IntVar(&q.Limit, "limit", 20, "maximum number of deliveries")
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
			row(formatTime(d.UpdatedAt), d.State, d.Attempts, nextAttempt(d), d.EventType, d.EventID, d.EndpointID, d.Reason)
		}
	})
}

// nextAttempt is when the next attempt is due, for a table; "circuit" while the
// circuit breaker is open.
func nextAttempt(d delivery.Delivery) string {
	if d.InBacklog {
		return "circuit"
	}
	return timeUntil(d.NextAttemptAt)
}

// timeUntil formats the time left, such as "in 5s"; "" for the zero time.
func timeUntil(at time.Time) string {
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
		Use: "show ENDPOINT EVENT", Short: "Show a delivery with its latest attempts", Args: args(2, "an endpoint id and an event id"),
		RunE: func(c *cobra.Command, given []string) error {
			t, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			d, err := t.store.GetDelivery(c.Context(), delivery.Key{EndpointID: given[0], EventID: given[1]})
			if errors.Is(err, delivery.ErrNotFound) {
				return fmt.Errorf("no delivery of event %s to endpoint %s found: check both ids; a new delivery appears with its first attempt", given[1], given[0])
			}
			if err != nil {
				return unreachable(err)
			}
			v := console.ViewDelivery(d, nil)
			if a.json {
				return a.printJSON(v)
			}
			if err := a.fields("event", v.EventID, "type", v.EventType, "endpoint", v.EndpointID, "state", v.State, "attempts", v.Attempts,
				"next", nextAttemptLong(d), "reason", v.Reason, "response", v.Snippet); err != nil {
				return err
			}
			fmt.Fprintln(a.out)
			return a.table("#\tAT\tOUTCOME\tSTATUS\tDNS\tCONNECT\tTLS\tFIRST BYTE\tTOTAL", func(row func(...any)) {
				for _, t := range v.History {
					row(t.Number, formatTime(t.At), t.Outcome, t.Status, ms(t.DNS), ms(t.Connect), ms(t.TLS), ms(t.FirstByte), ms(t.Total))
				}
			})
		},
	}
}

// nextAttemptLong is nextAttempt as an absolute time, for a single delivery.
func nextAttemptLong(d delivery.Delivery) string {
	if d.InBacklog {
		return "when the circuit breaker closes or uses it as a probe; see `tidings circuit list`"
	}
	return formatTime(d.NextAttemptAt)
}

func ms(n int64) string { return fmt.Sprintf("%d ms", n) }

func (a *app) deliveryReplay() *cobra.Command {
	var endpointID, from, to string
	var dead, all bool
	c := &cobra.Command{
		Use: "replay [ENDPOINT EVENT]", Short: "Replay one delivery, or the dead letters of one or all endpoints",
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
				return usagef("tidings delivery replay takes ENDPOINT EVENT, or --dead with --endpoint ENDPOINT or --all")
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
					return usagef("%s must be an RFC 3339 time such as 2026-01-29T12:00:00Z", bound.flag)
				}
				*bound.into = at
			}
			t, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			commands := []dispatch.Command{command}
			if all {
				if commands, err = a.forEnabledEndpoints(c.Context(), t, command); err != nil {
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
					fmt.Fprintf(a.err, "%d replayed so far …\n", total)
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
	f.StringVar(&endpointID, "endpoint", "", "replay the dead letters of this endpoint")
	f.BoolVar(&dead, "dead", false, "replay dead letters; needs --endpoint or --all")
	f.BoolVar(&all, "all", false, "replay the dead letters of all enabled endpoints")
	f.StringVar(&from, "from", "", "only events accepted at or after this time")
	f.StringVar(&to, "to", "", "only events accepted at or before this time")
	return c
}

// forEnabledEndpoints returns the command once per enabled endpoint. It reports the
// disabled ones on standard error.
func (a *app) forEnabledEndpoints(ctx context.Context, t *target, command dispatch.Command) ([]dispatch.Command, error) {
	list, err := t.store.ListEndpoints(ctx, a.tenant)
	if err != nil {
		return nil, unreachable(err)
	}
	var commands []dispatch.Command
	for _, e := range list {
		if e.Status != endpoint.Enabled {
			fmt.Fprintf(a.err, "%s is disabled: its dead letters are not replayed\n", e.ID)
			continue
		}
		command.EndpointID = e.ID
		commands = append(commands, command)
	}
	return commands, nil
}
