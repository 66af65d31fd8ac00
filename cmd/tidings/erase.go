package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/ops/audit"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
)

// errNothingErased is the error of a command that would have erased something.
var errNothingErased = errors.New("nothing was erased: add --yes to erase it")

func (a *app) eraseCommand() *cobra.Command {
	var subject string
	var dryRun, yes bool
	c := &cobra.Command{
		Use: "erase", Short: "Erase what is stored about a person", Args: args(0, "no arguments"),
		Long: `Erase what is stored about a person: the bodies of all events whose subject or actor
is --subject, or that have it in a field that their type marks as personal (x-personal;
in any field if the type marks none), their answers from receivers, and failed changes
of the platform's table. Deliveries that are pending end as skipped. The records of
deliveries stay.

The command first counts. With --yes it then starts a job and follows it. Ctrl-C stops
the command, not the job. It is written to the audit log. It cannot be undone, and it
does not reach receivers, backups and logs: see docs/security.md.`,
		Example: `  tidings erase --subject u_1042 --dry-run
  tidings erase --subject ada@example.com --yes`,
		RunE: func(c *cobra.Command, _ []string) error {
			if subject == "" {
				return usagef("tidings erase needs --subject")
			}
			t, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			command := dispatch.Command{Kind: jobs.Erase, Tenant: a.tenant, Subject: subject, DryRun: true, WithoutTenant: true}
			counted, err := a.startAndFollow(c.Context(), t, command)
			if err != nil {
				return err
			}
			if dryRun || !yes {
				if err := a.printErasure(counted); err != nil || dryRun || counted.Erased+counted.Removed == 0 {
					return err
				}
				return errNothingErased
			}
			command.DryRun = false
			done, err := a.eraseAndRecord(c.Context(), t, command)
			if err != nil {
				return err
			}
			return a.printErasure(done)
		},
	}
	f := c.Flags()
	f.StringVar(&subject, "subject", "", "the person's id, as events have it")
	f.BoolVar(&dryRun, "dry-run", false, "count, and erase nothing")
	f.BoolVar(&yes, "yes", false, "erase without asking")
	return c
}

// eraseAndRecord runs an erasure, and records in the audit log that it was started, as the
// console does.
func (a *app) eraseAndRecord(ctx context.Context, t *target, command dispatch.Command) (done console.Job, err error) {
	now := time.Now()
	command.JobID = jobs.NewID(now)
	entry := audit.Entry{
		ID: audit.NewID(now), Tenant: a.tenant, Who: by(), Role: "CLI", Action: "person.erase", Subject: command.Subject, Outcome: audit.Begun, Detail: "job " + command.JobID,
	}
	if err := t.store.PutAudit(ctx, entry); err != nil {
		return done, fmt.Errorf("write the audit log (nothing was erased): %w", unreachable(err))
	}
	// An interrupt must leave no doubt about whether it was started.
	err = a.startJob(context.WithoutCancel(ctx), t, command)
	entry.Outcome = audit.Done
	if err != nil {
		entry.Outcome, entry.Detail = audit.Failed, audit.Clip(entry.Detail+": "+err.Error())
	}
	failed := t.store.PutAudit(context.WithoutCancel(ctx), entry)
	if err == nil {
		done, err = a.follow(ctx, command.JobID, a.reader(t, command.JobID))
	}
	if failed != nil && err == nil {
		return done, fmt.Errorf("the erasure is done, but its outcome is missing in the audit log: %w", failed)
	}
	return done, err
}

// printErasure prints what an erasure did, or in a dry run would do.
func (a *app) printErasure(j console.Job) error {
	if a.json {
		return a.printJSON(j)
	}
	verbs := [3]string{"erased", "stopped", "removed"}
	if j.DryRun {
		verbs = [3]string{"would be erased", "would be stopped", "would be removed"}
	}
	fmt.Fprintf(a.out, "%d events examined\n%d events %s\n%d pending deliveries %s\n%d failed changes %s\n",
		j.Examined, j.Erased, verbs[0], j.Stopped, verbs[1], j.Removed, verbs[2])
	return nil
}
