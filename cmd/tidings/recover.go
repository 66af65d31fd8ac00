package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
)

// jobFlags are the flags of commands that start a job.
type jobFlags struct {
	command     dispatch.Command
	times       rangeFlags
	states      []string
	dryRun, yes bool
}

// add adds the flags. states are the default.
func (j *jobFlags) add(f *pflag.FlagSet, states ...delivery.State) {
	f.StringSliceVar(&j.command.Types, "types", nil, "only events of these types, comma-separated")
	f.StringSliceVar(&j.states, "states", nil, fmt.Sprintf("states to send again, comma-separated: %s", joinStates(states)))
	j.addRange(f)
}

// addRange adds the flags of every command that starts a job.
func (j *jobFlags) addRange(f *pflag.FlagSet) {
	j.times.add(f)
	f.BoolVar(&j.dryRun, "dry-run", false, "count, and send nothing")
	f.BoolVar(&j.yes, "yes", false, "do not ask")
}

// parse checks the flags.
func (j *jobFlags) parse(tenant string) error {
	var err error
	if j.command.From, j.command.To, err = j.times.parse(); err != nil {
		return err
	}
	if j.command.To.IsZero() {
		j.command.To = time.Now() // so that the events of the dry run are those that are sent
	}
	if err := delivery.CheckRange(j.command.From, j.command.To); err != nil {
		return usagef("--from and --to: %w", err)
	}
	for _, s := range j.states {
		j.command.States = append(j.command.States, delivery.State(s))
	}
	j.command.Tenant = tenant
	return nil
}

// errOnlyCounted is the error of a command that would have sent something.
var errOnlyCounted = errors.New("nothing was sent: add --yes to send them")

// runJob counts by a dry run, and then starts the job and follows it.
func (a *app) runJob(c *cobra.Command, t *target, j *jobFlags) error {
	var err error
	if j.command.Types, err = a.storedTypes(c.Context(), t, j.command.Types); err != nil {
		return err
	}
	dry := j.command
	dry.DryRun = true
	planned, err := a.startAndFollow(c.Context(), t, dry)
	if err != nil {
		return err
	}
	if j.dryRun || planned.Sent == 0 && planned.Found[string(dispatch.Missing)] == 0 {
		return a.printJob(planned)
	}
	if !j.yes {
		if err := a.printJob(planned); err != nil {
			return err
		}
		return errOnlyCounted
	}
	done, err := a.startAndFollow(c.Context(), t, j.command)
	if err != nil {
		return err
	}
	return a.printJob(done)
}

func (a *app) recoverCommand() *cobra.Command {
	flags := jobFlags{command: dispatch.Command{Kind: jobs.Recover}}
	c := &cobra.Command{
		Use: "recover", Short: "Send again what an endpoint missed", Args: args(0, "no arguments"),
		Long: `Send an endpoint the events of a time range that it missed.

Missing are the events that the endpoint subscribes to today and that have no
delivery: it was disabled or did not exist when they were fanned out, or their
messages were lost. --states selects skipped, dead and delivered ones too; those that
are delivered are sent a second time.

The command first counts them, and says how long sending takes and what it costs. It
then starts a job and follows it. The job fills the endpoint's backlog as fast as the
endpoint takes it, beside new events, the oldest first. Ctrl-C stops the command, not
the job: tidings job wait and tidings job cancel continue from there. What was sent
already is not sent again by a second recovery.`,
		Example: `  tidings recover --endpoint ep_01J… --since 72h --dry-run
  tidings recover --endpoint ep_01J… --from 2026-01-24T18:00:00Z --to 2026-01-26T07:00:00Z \
    --states missing,skipped,dead --yes`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := flags.parse(a.tenant); err != nil {
				return err
			}
			if flags.command.EndpointID == "" || flags.command.From.IsZero() {
				return usagef("tidings recover needs --endpoint, and --since or --from")
			}
			t, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			return a.runJob(c, t, &flags)
		},
	}
	f := c.Flags()
	f.StringVar(&flags.command.EndpointID, "endpoint", "", "the endpoint's id")
	flags.add(f, dispatch.RecoverStates...)
	return c
}
