package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
)

func (a *app) deliveryCommand() *cobra.Command {
	c := &cobra.Command{Use: "delivery", Short: "List, show and replay deliveries"}
	c.AddCommand(a.deliveryList(), a.deliveryShow(), a.deliveryReplay())
	return c
}

func (a *app) deliveryList() *cobra.Command {
	var f console.DeliveryFilter
	var times rangeFlags
	var state, status string
	var dead bool
	c := &cobra.Command{
		Use: "list", Short: "List the newest deliveries", Args: args(0, "no arguments"),
		Long: `List deliveries, the newest event first. Dead, skipped and pending ones are found at once
among any number of others. Every other state, --type and --status need a search; limit it
with --since, or with --from and --to.`,
		Example: `  tidings delivery list --dead
  tidings delivery list --status 500..599 --from 2026-01-29T00:00:00Z --to 2026-01-30T00:00:00Z`,
		RunE: func(c *cobra.Command, _ []string) error {
			f.State = delivery.State(state)
			if dead {
				f.State = delivery.Dead
			}
			if f.State != "" && !slices.Contains(delivery.States, f.State) {
				return usagef("--state %s is not one of %v", state, delivery.States)
			}
			if f.Limit < 1 || f.Limit > 10_000 {
				return usagef("--limit must be between 1 and 10000")
			}
			var err error
			if f.From, f.To, err = times.parse(); err != nil {
				return err
			}
			if f.Status, err = delivery.ParseStatuses(status); err != nil {
				return usagef("--status: %w", err)
			}
			t, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			found, more, err := a.findDeliveries(c.Context(), t, f)
			if err != nil {
				return unreachable(err)
			}
			if err := a.printDeliveries(found); err != nil {
				return err
			}
			if more && !a.json {
				fmt.Fprintln(a.err, "there are more: raise --limit")
			}
			return nil
		},
	}
	flags := c.Flags()
	flags.StringVar(&f.EndpointID, "endpoint", "", "only deliveries to this endpoint")
	flags.StringVar(&state, "state", "", "only deliveries in this state: pending, in_flight, delivered, dead or skipped")
	flags.BoolVar(&dead, "dead", false, "only dead letters")
	flags.StringVar(&f.EventType, "type", "", "only deliveries of events of this type")
	flags.StringVar(&status, "status", "", "only deliveries whose latest attempt got this response status, or one of a range such as 500..599")
	times.add(flags)
	flags.IntVar(&f.Limit, "limit", 20, "maximum number of deliveries")
	return c
}

// findDeliveries returns the filter's deliveries, up to its limit, and whether there are
// more.
func (a *app) findDeliveries(ctx context.Context, t *target, f console.DeliveryFilter) (found []delivery.Delivery, more bool, err error) {
	endpoints := []string{f.EndpointID}
	if f.EndpointID == "" {
		list, err := t.store.ListEndpoints(ctx, a.tenant)
		if err != nil {
			return nil, false, err
		}
		endpoints = endpoints[:0]
		for _, e := range list {
			endpoints = append(endpoints, e.ID)
		}
	}
	return search(a.err, f.Limit, func(limit int, cursor string) (resultPage[delivery.Delivery], error) {
		f.Limit, f.Cursor = limit, cursor
		page, err := console.SearchDeliveries(ctx, t.store, endpoints, f, time.Now())
		return resultPage[delivery.Delivery]{page.Deliveries, page.Next, page.Until}, err
	})
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

// nextAttempt is when the next attempt is due, for a table; "backlog" while the delivery
// waits in its endpoint's backlog.
func nextAttempt(d delivery.Delivery) string {
	if d.InBacklog {
		return "backlog"
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
		return "when its turn in the endpoint's backlog comes; see `tidings circuit list`"
	}
	return formatTime(d.NextAttemptAt)
}

func ms(n int64) string { return fmt.Sprintf("%d ms", n) }

func (a *app) deliveryReplay() *cobra.Command {
	flags := jobFlags{command: dispatch.Command{Kind: jobs.Replay}}
	var all, dead bool
	c := &cobra.Command{
		Use: "replay [ENDPOINT EVENT]", Short: "Replay one delivery, or all that match, of one or all endpoints",
		Long: `Replay one delivery, or all settled deliveries that match the flags: dead letters, unless
--states says otherwise.

Several are replayed by a job for each endpoint. The command first counts them, and says
how long sending takes and what it costs; with --yes, it then sends them.`,
		Example: `  tidings delivery replay ep_01J… 01J…
  tidings delivery replay --endpoint ep_01J… --from 2026-01-29T00:00:00Z --dry-run
  tidings delivery replay --endpoint ep_01J… --since 24h --status 503 --yes
  tidings delivery replay --all --yes`,
		RunE: func(c *cobra.Command, given []string) error {
			bulk := flags.command.EndpointID != "" || all
			switch {
			case dead && len(flags.states) > 0:
				return usagef("--dead and --states cannot be combined")
			case len(given) == 2 && !bulk:
			case len(given) == 0 && (flags.command.EndpointID != "") != all:
			default:
				return usagef("tidings delivery replay takes ENDPOINT EVENT, or --endpoint ENDPOINT or --all")
			}
			if _, err := delivery.ParseStatuses(flags.command.Status); err != nil {
				return usagef("--status: %w", err)
			}
			if err := flags.parse(a.tenant); err != nil {
				return err
			}
			t, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			if !bulk {
				return a.replayOne(c.Context(), t, given[0], given[1])
			}
			endpoints := []string{flags.command.EndpointID}
			if all {
				if endpoints, err = a.enabledEndpoints(c.Context(), t); err != nil {
					return err
				}
			}
			var counted error
			for _, id := range endpoints {
				one := flags
				one.command.EndpointID = id
				if all && !a.json {
					fmt.Fprintln(a.out, id)
				}
				err := a.runJob(c, t, &one)
				if errors.Is(err, errOnlyCounted) {
					counted, err = err, nil
				}
				if err != nil {
					return err
				}
			}
			return counted
		},
	}
	f := c.Flags()
	f.StringVar(&flags.command.EndpointID, "endpoint", "", "replay deliveries to this endpoint")
	f.BoolVar(&all, "all", false, "replay deliveries to all endpoints that are not disabled")
	f.BoolVar(&dead, "dead", false, "only dead letters, which is the default")
	f.StringVar(&flags.command.Status, "status", "", "only those whose latest attempt got this response status, such as 503, or one of a range, such as 500..599")
	flags.add(f, dispatch.ReplayStates...)
	return c
}

func (a *app) replayOne(ctx context.Context, t *target, endpointID, eventID string) error {
	var done dispatch.Replayed
	command := dispatch.Command{Action: "replay", Tenant: a.tenant, EndpointID: endpointID, EventID: eventID}
	if err := t.invoke(ctx, "dispatch", command, &done); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(done)
	}
	fmt.Fprintln(a.out, done.Replayed, "replayed")
	return nil
}

// enabledEndpoints returns the IDs of the endpoints that are not disabled. It reports the
// disabled ones on standard error.
func (a *app) enabledEndpoints(ctx context.Context, t *target) (ids []string, err error) {
	list, err := t.store.ListEndpoints(ctx, a.tenant)
	if err != nil {
		return nil, unreachable(err)
	}
	for _, e := range list {
		if e.Status == endpoint.Disabled {
			fmt.Fprintf(a.err, "%s is disabled: its deliveries are not replayed\n", e.ID)
			continue
		}
		ids = append(ids, e.ID)
	}
	return ids, nil
}
