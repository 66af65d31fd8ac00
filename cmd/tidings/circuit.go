package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/dispatch"
)

func (a *app) circuitCommand() *cobra.Command {
	c := &cobra.Command{Use: "circuit", Short: "Which endpoints are left alone because they keep failing: list, close"}
	c.AddCommand(a.circuitList(), a.circuitClose())
	return c
}

func (a *app) circuitList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "The tenant's circuits that are not closed", Args: args(0, "no arguments"),
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
				fmt.Fprintln(a.out, "all circuits are closed")
				return nil
			}
			return a.table("ENDPOINT\tSTATE\tSINCE\tFAILURES\tNEXT PROBE\tCAUSE", func(row func(...any)) {
				for _, v := range views {
					row(v.EndpointID, v.State, moment(v.Since), v.Failures, until(v.NextProbe), v.Cause)
				}
			})
		},
	}
}

func (a *app) circuitClose() *cobra.Command {
	return &cobra.Command{
		Use: "close ENDPOINT", Short: "Close a circuit by hand: what waits is sent", Args: args(1, "an endpoint's id"),
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
				fmt.Fprintln(a.out, "closed; what waited is being sent")
			} else {
				fmt.Fprintln(a.out, "it was not open")
			}
			return nil
		},
	}
}

func (a *app) redriveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "redrive", Short: "Put the work queue's dead letters back to work",
		Long: `Put the work queue's dead letters back to work.

A work item ends in the dead-letter queue when it crashed its workers, or failed
for want of a service, ten times. The log says why (deliver.failed); mend that
first. Items that nobody can read stay where they are.`,
		Args: args(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
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
				fmt.Fprintf(a.err, "%d so far …\n", total.Redriven)
			}
			if a.json {
				return a.printJSON(total)
			}
			fmt.Fprintln(a.out, total.Redriven, "put back to work")
			if total.Unreadable > 0 {
				fmt.Fprintln(a.out, total.Unreadable, "cannot be read and stay in the dead-letter queue")
			}
			return nil
		},
	}
}
