package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
)

func (a *app) captureCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "capture", Short: "Change the rules of capture; show what could not be captured, capture it again, verify",
		Long: `Change the rules of capture (apply, rules, test, remove-rules), which say what change
of a table becomes which event. Show what could not be captured (list, show, remove),
capture it again (redrive), verify that nothing is missing (verify, kinds).

A change that should become an event and cannot is kept for 30 days
(RetentionDays) with its reason and its images, which contain the platform's data. The commands are for the whole
deployment: they ignore --tenant.`,
	}
	c.AddCommand(a.captureApply(), a.captureRules(), a.captureTest(), a.captureRemoveRules(), a.captureList(), a.captureShow(), a.captureRedrive(), a.captureRemove(), a.captureVerify(), a.captureKinds())
	return c
}

func (a *app) captureList() *cobra.Command {
	var since time.Duration
	var limit int
	c := &cobra.Command{
		Use: "list", Short: "List the newest failed changes", Args: args(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			if limit < 1 || limit > 10_000 {
				return usagef("--limit must be between 1 and 10000")
			}
			if since < 0 {
				return usagef("--since must be positive, such as 24h")
			}
			t, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			page, err := t.store.ListFailedChanges(c.Context(), sinceTime(since), limit, "")
			if err != nil {
				return unreachable(err)
			}
			views := []console.FailedChange{}
			for _, f := range page.Changes {
				views = append(views, console.ViewFailedChange(f))
			}
			if a.json {
				return a.printJSON(views)
			}
			if len(views) == 0 {
				fmt.Fprintln(a.out, "no failed changes")
				return nil
			}
			for i, v := range views {
				if i > 0 {
					fmt.Fprintln(a.out)
				}
				fmt.Fprintf(a.out, "%s  %s  %s %s\n  %s\n", v.ID, formatTime(v.At), cell(v.Kind), cell(string(v.Operation)), cell(v.Reason))
			}
			if page.Next != "" {
				fmt.Fprintf(a.err, "there are more: raise --limit\n")
			}
			return nil
		},
	}
	f := c.Flags()
	f.DurationVar(&since, "since", 0, "only changes made within this time, such as 24h (default: all)")
	f.IntVar(&limit, "limit", 20, "maximum number of changes")
	return c
}

// sinceTime returns the time that long ago; the zero time for 0.
func sinceTime(since time.Duration) time.Time {
	if since == 0 {
		return time.Time{}
	}
	return time.Now().Add(-since)
}

func (a *app) captureShow() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show a failed change with its images", Args: args(1, "the id of a failed change"),
		RunE: func(c *cobra.Command, given []string) error {
			t, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			f, err := t.store.GetFailedChange(c.Context(), given[0])
			if err != nil {
				return unreachable(err)
			}
			v := console.ViewFailedChange(f)
			if a.json {
				return a.printJSON(v)
			}
			kept := fmt.Sprintf("yes, %d bytes", v.RecordBytes)
			if !v.Kept {
				kept = fmt.Sprintf("no, it has %d bytes: it cannot be captured again", v.RecordBytes)
			}
			if err := a.fields("id", v.ID, "reason", v.Reason, "kind", v.Kind, "operation", v.Operation, "event type", v.EventType, "tenant", v.Tenant,
				"key", string(v.Key), "changed", formatTime(v.At), "first seen", formatTime(v.FirstSeen), "last tried", formatTime(v.LastTried),
				"attempts", v.Attempts, "sequence number", v.SequenceNumber, "kept", kept); err != nil {
				return err
			}
			if v.Record == nil {
				return nil
			}
			fmt.Fprintln(a.out)
			return a.printJSON(v.Record)
		},
	}
}

func (a *app) captureRedrive() *cobra.Command {
	var all, dryRun, yes bool
	var since time.Duration
	c := &cobra.Command{
		Use: "redrive [ID…]", Short: "Capture failed changes again after a mend",
		Long: `Capture failed changes again after a mend.

The deployed rules run on the kept records. The events get the IDs that they would
have got at first, so repeating this stores nothing twice. A change that is captured
is removed from the list; otherwise it keeps the new reason. Exits with 1 if a change
fails again.`,
		Example: `  tidings capture redrive 01KG4VZS4N…
  tidings capture redrive --all --since 24h --dry-run
  tidings capture redrive --all --since 24h --yes`,
		RunE: func(c *cobra.Command, given []string) error {
			switch {
			case (len(given) > 0) == all:
				return usagef("tidings capture redrive takes ids, or --all")
			case since != 0 && !all || since < 0:
				return usagef("--since needs --all, and is positive, such as 24h")
			}
			t, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			ids := given
			if all {
				if ids, err = failedChangeIDs(c.Context(), t, sinceTime(since)); err != nil {
					return unreachable(err)
				}
			}
			if dryRun {
				return a.printRedrivePlan(ids)
			}
			if all && len(ids) > 1 && !yes {
				return fmt.Errorf("%d failed changes would be captured again, and their events delivered: add --yes to do it, or --dry-run to list them", len(ids))
			}
			return a.redriveChanges(c.Context(), t, ids)
		},
	}
	f := c.Flags()
	f.BoolVar(&all, "all", false, "capture all failed changes again")
	f.DurationVar(&since, "since", 0, "with --all: only changes made within this time, such as 24h")
	f.BoolVar(&dryRun, "dry-run", false, "list the ids and change nothing")
	f.BoolVar(&yes, "yes", false, "with --all: do not ask")
	return c
}

// failedChangeIDs returns the IDs of all failed changes since a time, oldest first, which
// is the order in which they have to be captured.
func failedChangeIDs(ctx context.Context, t *target, from time.Time) (ids []string, err error) {
	for cursor := ""; ; {
		page, err := t.store.ListFailedChanges(ctx, from, 1000, cursor)
		if err != nil {
			return nil, err
		}
		for _, f := range page.Changes {
			ids = append(ids, f.ID)
		}
		if cursor = page.Next; cursor == "" {
			slices.Reverse(ids)
			return ids, nil
		}
	}
}

func (a *app) printRedrivePlan(ids []string) error {
	if a.json {
		return a.printJSON(map[string]any{"dry_run": true, "ids": append([]string{}, ids...)})
	}
	for _, id := range ids {
		fmt.Fprintln(a.out, id)
	}
	fmt.Fprintln(a.out, len(ids), "would be captured again")
	return nil
}

func (a *app) redriveChanges(ctx context.Context, t *target, ids []string) error {
	results := []emit.Recaptured{}
	captured := 0
	for len(ids) > 0 {
		n := min(len(ids), emit.MaxRecaptures)
		var answer struct {
			Results []emit.Recaptured `json:"results"`
		}
		if err := t.invoke(ctx, "emit", map[string]any{"action": "recapture", "ids": ids[:n]}, &answer); err != nil {
			return err
		}
		for _, r := range answer.Results {
			results = append(results, r)
			if r.Captured {
				captured++
			}
		}
		if ids = ids[n:]; len(ids) > 0 {
			fmt.Fprintf(a.err, "%d of %d captured so far …\n", captured, len(results))
		}
	}
	if a.json {
		if err := a.printJSON(map[string]any{"captured": captured, "failed": len(results) - captured, "results": results}); err != nil {
			return err
		}
	} else {
		for _, r := range results {
			if !r.Captured {
				fmt.Fprintf(a.out, "%s  %s\n", r.ID, r.Error)
			}
		}
		fmt.Fprintf(a.out, "%d captured, %d failed again\n", captured, len(results)-captured)
	}
	if captured < len(results) {
		return errReported
	}
	return nil
}

func (a *app) captureKinds() *cobra.Command {
	return &cobra.Command{
		Use: "kinds", Short: "Count the changes of the last 24 hours whose kind Tidings does not know", Args: args(0, "no arguments"),
		Long: `Count the changes of the last 24 hours whose kind Tidings does not know.

They become no events. A kind that you expect events from is misspelt: kinds are
case-sensitive (User is not user).`,
		RunE: func(c *cobra.Command, _ []string) error {
			t, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			summary, err := (&stats.Reader{Source: t.store, Now: time.Now}).Summary(c.Context())
			if err != nil {
				return unreachable(err)
			}
			kinds := summary.Kinds()
			if a.json {
				return a.printJSON(kinds)
			}
			if len(kinds) == 0 {
				fmt.Fprintln(a.out, "no changes of unknown kinds")
				return nil
			}
			return a.table("CHANGES\tKIND", func(row func(...any)) {
				for _, k := range kinds {
					row(k.Changes, k.Kind)
				}
			})
		},
	}
}

func (a *app) captureRemove() *cobra.Command {
	return &cobra.Command{
		Use: "remove ID…", Short: "Remove failed changes that need no event any more",
		Long: `Remove failed changes that need no event any more: the item was corrected, or its
event was published with "tidings emit". They cannot be captured again afterwards.`,
		Args: func(c *cobra.Command, given []string) error {
			if len(given) == 0 {
				return usagef("%s takes the ids of failed changes", c.CommandPath())
			}
			return nil
		},
		RunE: func(c *cobra.Command, given []string) error {
			t, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			for _, id := range given { // all of them, before the first is removed
				if _, err := t.store.GetFailedChange(c.Context(), id); err != nil {
					return fmt.Errorf("%s: %w", id, unreachable(err))
				}
			}
			for _, id := range given {
				if err := t.store.RemoveFailedChange(c.Context(), id); err != nil {
					return unreachable(err)
				}
			}
			if a.json {
				return a.printJSON(map[string]int{"removed": len(given)})
			}
			fmt.Fprintln(a.out, len(given), "removed")
			return nil
		},
	}
}
