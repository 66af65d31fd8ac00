package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
)

func (a *app) circuitCommand() *cobra.Command {
	c := &cobra.Command{Use: "circuit", Short: "List and close circuit breakers"}
	c.AddCommand(a.circuitList(), a.circuitClose())
	return c
}

func (a *app) circuitList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List circuit breakers that are open or half-open", Args: args(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			t, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			list, err := t.store.ListCircuits(c.Context(), time.Time{})
			if err != nil {
				return unreachable(err)
			}
			views := []console.Circuit{}
			for _, s := range list {
				if s.Tenant == a.tenant {
					views = append(views, console.ViewCircuit(s, nil, time.Now()))
				}
			}
			if a.json {
				return a.printJSON(views)
			}
			if len(views) == 0 {
				fmt.Fprintln(a.out, "all circuit breakers are closed")
				return nil
			}
			return a.table("ENDPOINT\tSTATE\tSINCE\tFAILURES\tNEXT PROBE\tCAUSE", func(row func(...any)) {
				for _, v := range views {
					state := v.State
					if !v.SlowSince.IsZero() {
						state += ", slow"
					}
					row(v.EndpointID, state, formatTime(v.Since), v.Failures, timeUntil(v.NextProbe), v.Cause)
				}
			})
		},
	}
}

func (a *app) circuitClose() *cobra.Command {
	return &cobra.Command{
		Use: "close ENDPOINT", Short: "Close an endpoint's circuit breaker and send its pending deliveries", Args: args(1, "an endpoint id"),
		RunE: func(c *cobra.Command, given []string) error {
			t, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			var done dispatch.Closed
			if err := t.invoke(c.Context(), "dispatch", dispatch.Command{Action: "close_circuit", Tenant: a.tenant, EndpointID: given[0]}, &done); err != nil {
				return err
			}
			if a.json {
				return a.printJSON(done)
			}
			if done.WasOpen {
				fmt.Fprintln(a.out, "closed; pending deliveries are being sent")
			} else {
				fmt.Fprintln(a.out, "already closed")
			}
			return nil
		},
	}
}

func (a *app) redriveCommand() *cobra.Command {
	flags := jobFlags{command: dispatch.Command{Kind: jobs.Stream}}
	var stream bool
	c := &cobra.Command{
		Use: "redrive", Short: "Move messages from the dead-letter queue back to the work queue, or fan out what the stream lost",
		Long: `Move messages from the dead-letter queue back to the work queue.

A message moves to the dead-letter queue after ten failed receives: the worker
crashed, or a service that it needs was unavailable. The log has the cause
(deliver.failed); fix it first. Within ten minutes after a sweep succeeds again, the
sweep does the same. Messages that cannot be decoded stay in the dead-letter queue.

With --stream, it looks for events that were accepted and never fanned out: those in
the Events table that are not in the journal, of all tenants. It counts them first, and
with --yes it starts a job that fans them out, and follows it. Events of the latest five
minutes are left to the stream. The sweep starts the same job itself when the stream's
dead-letter queue has messages, and removes them when the job is done. Reading the
Events table costs a read unit for each 8 KB, whatever the range.`,
		Example: `  tidings redrive
  tidings redrive --stream --since 48h --dry-run
  tidings redrive --stream --from 2026-01-24T18:00:00Z --to 2026-01-26T07:00:00Z --yes`,
		Args: args(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			if stream {
				return a.redriveStream(c, &flags)
			}
			for _, name := range []string{"since", "from", "to", "dry-run", "yes"} {
				if c.Flags().Changed(name) {
					return usagef("--%s is for tidings redrive --stream", name)
				}
			}
			t, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			var total dispatch.Redriven
			for {
				var done dispatch.Redriven
				if err := t.invoke(c.Context(), "dispatch", dispatch.Command{Action: "redrive"}, &done); err != nil {
					return err
				}
				total.Redriven += done.Redriven
				total.Unreadable += done.Unreadable
				if total.Done = done.Done; done.Done {
					break
				}
				fmt.Fprintf(a.err, "%d redriven so far …\n", total.Redriven)
			}
			if a.json {
				return a.printJSON(total)
			}
			fmt.Fprintln(a.out, total.Redriven, "redriven")
			if total.Unreadable > 0 {
				fmt.Fprintln(a.out, total.Unreadable, "cannot be decoded and stay in the dead-letter queue")
			}
			return nil
		},
	}
	c.Flags().BoolVar(&stream, "stream", false, "fan out the events of a time range that were never fanned out")
	flags.addRange(c.Flags())
	return c
}

func (a *app) redriveStream(c *cobra.Command, flags *jobFlags) error {
	if err := flags.parse(a.tenant); err != nil {
		return err
	}
	if flags.command.From.IsZero() {
		return usagef("tidings redrive --stream needs --since or --from")
	}
	if a.tenant != event.DefaultTenant {
		return usagef("tidings redrive --stream concerns all tenants: run it without --tenant")
	}
	t, err := a.connect(c.Context())
	if err != nil {
		return err
	}
	return a.runJob(c, t, flags)
}
