package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
)

const (
	// followEvery is how often a command that follows a job reads it.
	followEvery = time.Second
	// followRetries is how often one after the other it may fail to read it.
	followRetries = 5
	// shownEvery is how often it prints the progress.
	shownEvery = 5 * time.Second
)

func (a *app) jobCommand() *cobra.Command {
	c := &cobra.Command{Use: "job", Short: "List, show, follow and cancel jobs: recoveries, backfills, bulk replays, erasures, redrives of the stream"}
	c.AddCommand(a.jobList(), a.jobShow(), a.jobWait(), a.jobCancel())
	return c
}

func (a *app) jobList() *cobra.Command {
	var limit int
	c := &cobra.Command{
		Use: "list", Short: "List the newest jobs", Args: args(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			if limit < 1 || limit > 1000 {
				return usagef("--limit must be between 1 and 1000")
			}
			t, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			page, err := t.store.ListJobs(c.Context(), jobs.Query{Tenant: a.tenant, Limit: limit})
			if err != nil {
				return unreachable(err)
			}
			views := []console.Job{}
			for _, j := range page.Jobs {
				views = append(views, console.ViewJob(j, ratelimit.Limit{}))
			}
			if a.json {
				return a.printJSON(views)
			}
			if len(views) == 0 {
				fmt.Fprintln(a.out, "no jobs")
				return nil
			}
			return a.table("STARTED\tJOB\tKIND\tSTATE\tDONE\tRESULT\tENDPOINT OR PERSON\tBY\tREASON", func(row func(...any)) {
				for _, j := range views {
					row(formatTime(j.StartedAt), j.ID, kindOf(j), j.State, fmt.Sprint(j.Percent(), " %"), result(j), cmp.Or(j.EndpointID, j.Subject), j.By, j.Reason)
				}
			})
		},
	}
	c.Flags().IntVar(&limit, "limit", 20, "maximum number of jobs")
	return c
}

func kindOf(j console.Job) string {
	if j.DryRun {
		return string(j.Kind) + " (dry run)"
	}
	return string(j.Kind)
}

func (a *app) jobShow() *cobra.Command {
	return &cobra.Command{
		Use: "show JOB", Short: "Show a job with its progress", Args: args(1, "a job id"),
		RunE: func(c *cobra.Command, given []string) error {
			t, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			j, err := a.readJob(c.Context(), t, given[0])
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(j)
			}
			return a.fields("job", j.ID, "kind", kindOf(j), "endpoint", j.EndpointID, "person", j.Subject, "from", formatTime(j.From), "to", formatTime(j.To), "types", strings.Join(j.Types, ", "),
				"states", joinStates(j.States), "status", j.Status, "state", j.State, "reason", j.Reason, "done", fmt.Sprint(j.Percent(), " %"), "found", found(j),
				"sent", j.Sent, "erased", counted(j.Erased), "stopped", counted(j.Stopped), "removed", counted(j.Removed), "started", formatTime(j.StartedAt), "by", j.By, "updated", formatTime(j.UpdatedAt))
		},
	}
}

// counted is a count of an erasure, which is left out if it is 0.
func counted(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

func joinStates(list []delivery.State) string {
	var texts []string
	for _, s := range list {
		texts = append(texts, string(s))
	}
	return strings.Join(texts, ", ")
}

func (a *app) jobWait() *cobra.Command {
	return &cobra.Command{
		Use: "wait JOB", Short: "Follow a job until it has ended", Args: args(1, "a job id"),
		Long: `Follow a job until it has ended. Ctrl-C stops the command, not the job. The exit code
is 1 if the job failed or was cancelled.`,
		RunE: func(c *cobra.Command, given []string) error {
			t, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			read := a.reader(t, given[0])
			if _, err := read(c.Context()); err != nil {
				return err
			}
			j, err := a.follow(c.Context(), given[0], read)
			if err != nil {
				return err
			}
			return a.printJob(j)
		},
	}
}

func (a *app) jobCancel() *cobra.Command {
	return &cobra.Command{
		Use: "cancel JOB", Short: "Cancel a running job; what it has put into a backlog stays there", Args: args(1, "a job id"),
		RunE: func(c *cobra.Command, given []string) error {
			t, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			if !jobs.IsID(given[0]) {
				return noJob(given[0])
			}
			var j jobs.Job
			if err := t.invoke(c.Context(), "dispatch", dispatch.Command{Action: "cancel_job", JobID: given[0], By: by(), Tenant: a.tenant}, &j); err != nil {
				return err
			}
			if a.json {
				return a.printJSON(console.ViewJob(j, ratelimit.Limit{}))
			}
			did := fmt.Sprintf("sent %d deliveries on their way", j.Counts[jobs.Sent])
			switch {
			case j.Kind == jobs.Erase && j.DryRun:
				did = fmt.Sprintf("counted %d events", j.Counts[jobs.Erased])
			case j.Kind == jobs.Erase:
				did = fmt.Sprintf("erased %d events", j.Counts[jobs.Erased])
			}
			fmt.Fprintf(a.out, "%s is cancelled, %d %% done; it has %s\n", j.ID, int(j.Progress*100), did)
			return nil
		},
	}
}

var errNoJob = errors.New("`tidings job list` lists them")

func noJob(id string) error { return fmt.Errorf("no job %s; %w", id, errNoJob) }

// by is who runs the command, as a job shows it.
func by() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username + ", CLI"
	}
	return "CLI"
}

// readJob reads a job, with the estimates for its endpoint.
func (a *app) readJob(ctx context.Context, t *target, id string) (console.Job, error) {
	if !jobs.IsID(id) {
		return console.Job{}, noJob(id)
	}
	j, err := t.store.GetJob(ctx, jobs.Key{Tenant: a.tenant, ID: id})
	if errors.Is(err, jobs.ErrNotFound) {
		return console.Job{}, noJob(id)
	}
	if err != nil {
		return console.Job{}, unreachable(err)
	}
	var limit ratelimit.Limit
	if j.EndpointID != "" {
		e, err := t.store.GetEndpoint(ctx, a.tenant, j.EndpointID)
		if err != nil && !errors.Is(err, endpoint.ErrNotFound) {
			return console.Job{}, unreachable(err)
		}
		limit = e.Limit
	}
	return console.ViewJob(j, limit), nil
}

// reader returns a function that reads a job.
func (a *app) reader(t *target, id string) func(context.Context) (console.Job, error) {
	return func(ctx context.Context) (console.Job, error) { return a.readJob(ctx, t, id) }
}

// startAndFollow starts a job and follows it to its end.
func (a *app) startAndFollow(ctx context.Context, t *target, command dispatch.Command) (console.Job, error) {
	command.JobID = jobs.NewID(time.Now())
	if err := a.startJob(ctx, t, command); err != nil {
		return console.Job{}, err
	}
	return a.follow(ctx, command.JobID, a.reader(t, command.JobID))
}

// startJob starts a job with the ID in the command.
func (a *app) startJob(ctx context.Context, t *target, command dispatch.Command) error {
	command.Action, command.By = "start_job", by()
	return t.invoke(ctx, "dispatch", command, &jobs.Job{})
}

// follow waits until a job has ended, and prints its progress. If the command is
// interrupted, the job goes on.
func (a *app) follow(ctx context.Context, id string, read func(context.Context) (console.Job, error)) (console.Job, error) {
	var shown time.Time
	failures := 0
	for {
		j, err := read(ctx)
		if ctx.Err() != nil {
			return j, fmt.Errorf("the job goes on: `tidings job wait %s` follows it, `tidings job cancel %s` ends it", id, id)
		}
		if err != nil {
			if failures++; failures > followRetries || errors.Is(err, errNoJob) {
				return j, err
			}
			fmt.Fprintf(a.err, "%s cannot be read, and is read again: %s\n", id, err)
			pause(ctx, time.Duration(failures)*followEvery)
			continue
		}
		failures = 0
		switch j.State {
		case jobs.Running:
		case jobs.Done:
			return j, nil
		default:
			return j, fmt.Errorf("job %s is %s, %d %% done, %s: %q", j.ID, j.State, j.Percent(), result(j), j.Reason)
		}
		if now := time.Now(); now.Sub(shown) >= shownEvery {
			if !shown.IsZero() {
				fmt.Fprintf(a.err, "%s: %d %% done, %s …\n", j.ID, j.Percent(), result(j))
			}
			shown = now
		}
		pause(ctx, followEvery)
	}
}

// result says how many deliveries a job has sent, or how many events it has erased, so far.
func result(j console.Job) string {
	n, done := j.Sent, "sent"
	if j.Erasure() {
		n, done = j.Erased, "erased"
	}
	if j.DryRun {
		done = "counted"
	}
	return fmt.Sprintf("%d %s", n, done)
}

// pause waits, unless ctx ends before.
func pause(ctx context.Context, wait time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(wait):
	}
}

// found says what a job found, missing first, such as "3 missing, 2 dead".
func found(j console.Job) string {
	var parts []string
	for _, state := range append([]delivery.State{dispatch.Missing, dispatch.Erased}, delivery.States...) {
		if n := j.Found[string(state)]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, strings.ReplaceAll(string(state), "_", " ")))
		}
	}
	return strings.Join(parts, ", ")
}

// printStream prints what a job of the stream that has ended did, or in a dry run would do.
func (a *app) printStream(j console.Job) error {
	fmt.Fprintf(a.out, "%d events examined: %d were never fanned out\n", j.Examined, j.Found[string(dispatch.Missing)])
	if n := j.Found["unreadable"]; n > 0 {
		fmt.Fprintf(a.out, "%d cannot be decoded, so they have no deliveries\n", n)
	}
	if n := j.Found["failed"]; n > 0 {
		fmt.Fprintf(a.out, "%d could not be fanned out: job.event_failed in the log names them\n", n)
	}
	verb := "were queued"
	if j.DryRun {
		verb = "would be queued"
	}
	fmt.Fprintf(a.out, "%d deliveries %s; that takes about %s and costs about $%.2f\n", j.Sent, verb, j.Takes(), j.Dollars)
	return nil
}

// printJob prints what a job that has ended did, or in a dry run would do.
func (a *app) printJob(j console.Job) error {
	if j.Erasure() {
		return a.printErasure(j)
	}
	if a.json {
		return a.printJSON(j)
	}
	if j.Kind == jobs.Stream {
		return a.printStream(j)
	}
	what := found(j)
	switch {
	case what == "":
		what = "nothing that the endpoint subscribes to"
		if j.Kind == jobs.Replay {
			what = "nothing that matches"
		}
	case j.Kind == jobs.Replay:
		what = "found " + what
	}
	if j.Kind != jobs.Replay {
		what = fmt.Sprintf("%d events examined: %s", j.Examined, what)
	}
	verb := "were put into the endpoint's backlog"
	if j.DryRun {
		verb = "would be put into the endpoint's backlog"
	}
	fmt.Fprintf(a.out, "%s\n%d %s; sending takes about %s and costs about $%.2f\n", what, j.Sent, verb, j.Takes(), j.Dollars)
	return nil
}
