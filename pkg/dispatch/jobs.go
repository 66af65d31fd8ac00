package dispatch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
)

const (
	// jobSlice is how long a work item advances its job. The other messages of its batch,
	// in the slow lane, are done meanwhile, but hold their place until it is over.
	jobSlice = 10 * time.Second
	// jobReserve is how long before the invocation's deadline a step must end: time to
	// record it.
	jobReserve = 5 * time.Second
	// jobTries is how often a change of a job is repeated after a write conflict.
	jobTries = 10
	// sweptJobs is how many jobs a sweep queues.
	sweptJobs = 1000
)

// Jobs stores jobs.
type Jobs interface {
	// GetJob returns jobs.ErrNotFound if there is none, and jobs.ErrUnreadable, with the
	// job's key and version, if it cannot be decoded. The read is consistent.
	GetJob(ctx context.Context, k jobs.Key) (jobs.Job, error)
	// PutJob stores a job that was read with j.Version, a new one with 0, and returns it with
	// its new version. It returns jobs.ErrConflict if there was another write in between.
	PutJob(ctx context.Context, j jobs.Job) (jobs.Job, error)
	// DueJobs returns up to limit running jobs whose CheckAt is not after by, earliest first.
	DueJobs(ctx context.Context, by time.Time, limit int) ([]jobs.Key, error)
}

// jobKind is what the jobs of one kind do.
type jobKind interface {
	// check reports why a job with these parameters cannot be started.
	check(ctx context.Context, j jobs.Job) error
	// step does a bounded part of the work, from j.Cursor on. It can be called again with
	// the same cursor, also after it has succeeded, and must then do no harm. In a dry run
	// it only counts. An error that is a *jobRefusal ends the job; after any other, the
	// step is repeated.
	step(ctx context.Context, j jobs.Job) (jobs.Step, error)
}

// jobRefusal is why a job cannot go on.
type jobRefusal struct{ error }

func refusef(format string, args ...any) error { return &jobRefusal{fmt.Errorf(format, args...)} }

// kinds returns the kinds of jobs.
func (d *Dispatcher) kinds() map[jobs.Kind]jobKind {
	return map[jobs.Kind]jobKind{jobs.Recover: recovery{d}, jobs.Backfill: recovery{d}, jobs.Replay: bulkReplay{d}, jobs.Erase: erasure{d}, jobs.Stream: streamRedrive{d}}
}

// StartJob stores a new job and queues its first step. A job with the same ID that exists
// already is returned as it is, so the command can be repeated.
func (d *Dispatcher) StartJob(ctx context.Context, c Command) (jobs.Job, error) {
	kind := d.kinds()[c.Kind]
	if kind == nil {
		return jobs.Job{}, fmt.Errorf("start_job: unknown kind %.64q; the kinds are %v", c.Kind, slices.Sorted(maps.Keys(d.kinds())))
	}
	now := d.Now()
	j := jobs.Job{
		ID: c.JobID, Tenant: c.tenant(), Kind: c.Kind, EndpointID: c.EndpointID, DryRun: c.DryRun, By: c.By,
		Parameters: jobs.Parameters{From: c.From, To: c.To, Types: c.Types, States: c.States, Status: c.Status, Subject: c.Subject, WithoutTenant: c.WithoutTenant},
	}
	if j.ID == "" {
		j.ID = jobs.NewID(now)
	}
	if j.Parameters.To.IsZero() {
		j.Parameters.To = now // so that the range does not grow while the job runs
	}
	j, err := jobs.New(j, now)
	if err == nil {
		err = kind.check(ctx, j)
	}
	if err != nil {
		return jobs.Job{}, fmt.Errorf("%s: %w", c.Kind, err)
	}
	running, err := d.Jobs.DueJobs(ctx, now.Add(jobs.Retention), sweptJobs)
	if err != nil {
		return jobs.Job{}, err
	}
	others := 0
	for _, k := range running {
		if k.Tenant == j.Tenant && k.ID != j.ID {
			others++
		}
	}
	if others >= jobs.MaxRunning {
		return jobs.Job{}, fmt.Errorf("%s: %d jobs of tenant %s are running: wait for one, or cancel one", c.Kind, others, j.Tenant)
	}
	stored, err := d.Jobs.PutJob(ctx, j)
	if errors.Is(err, jobs.ErrConflict) {
		return d.Jobs.GetJob(ctx, jobs.Key{Tenant: j.Tenant, ID: j.ID})
	}
	if err != nil {
		return jobs.Job{}, err
	}
	d.Log.InfoContext(ctx, "job.started", "job_id", j.ID, "kind", j.Kind, "tenant", j.Tenant, "endpoint_id", j.EndpointID, "dry_run", j.DryRun, "by", j.By)
	d.queueJob(ctx, stored)
	return stored, nil
}

// CancelJob ends a job. A step that is under way is still completed.
func (d *Dispatcher) CancelJob(ctx context.Context, c Command) (jobs.Job, error) {
	j, changed, err := d.updateJob(ctx, jobs.Key{Tenant: c.tenant(), ID: c.JobID}, func(j jobs.Job) (jobs.Job, bool) { return j.Cancel(c.By, d.Now()) })
	switch {
	case errors.Is(err, jobs.ErrNotFound):
		return j, fmt.Errorf("cancel_job: tenant %s has no job %.64q", c.tenant(), c.JobID)
	case err != nil:
		return j, fmt.Errorf("cancel_job: %w", err)
	case !changed:
		return j, fmt.Errorf("cancel_job: job %s has ended already: it is %s", j.ID, j.State)
	}
	d.logEnd(ctx, j)
	return j, nil
}

// updateJob applies a change to a job and stores it, if apply says that it changed anything.
// After a write conflict it reads the job and applies the change again.
func (d *Dispatcher) updateJob(ctx context.Context, k jobs.Key, apply func(jobs.Job) (jobs.Job, bool)) (j jobs.Job, changed bool, err error) {
	for range jobTries {
		if j, err = d.Jobs.GetJob(ctx, k); err != nil {
			return j, false, err
		}
		next, ok := apply(j)
		if !ok {
			return j, false, nil
		}
		next, err = d.Jobs.PutJob(ctx, next)
		if err == nil {
			return next, true, nil
		}
		if !errors.Is(err, jobs.ErrConflict) {
			return j, false, err
		}
	}
	return j, false, err
}

// advanceJob makes steps of a job for jobSlice, if no other worker does.
func (d *Dispatcher) advanceJob(ctx context.Context, item work.Item) error {
	key, lease := jobs.Key{Tenant: item.Tenant, ID: item.JobID}, d.ClaimID()
	j, changed, err := d.updateJob(ctx, key, func(j jobs.Job) (jobs.Job, bool) { return j.Take(lease, d.Now()) })
	switch {
	case errors.Is(err, jobs.ErrNotFound):
		return nil // it has expired
	case errors.Is(err, jobs.ErrUnreadable):
		d.failUnreadable(ctx, j, err)
		return nil
	case err != nil:
		return fmt.Errorf("job %s: %w", item.JobID, err)
	case changed && j.State == jobs.Failed:
		d.logEnd(ctx, j)
		return nil
	case j.State == jobs.Running && j.Lease == "" && j.NextAt.Equal(item.WakeAt):
		d.queueJob(ctx, j) // the item is early: by another worker's clock, or because no item can be delayed for longer
		return nil
	case j.Lease != lease:
		return nil // another worker has it, it waits for another item, or it has ended
	}
	for end := d.Now().Add(jobSlice); ; {
		step, err := d.stepJob(ctx, j)
		if err != nil {
			return d.failStep(ctx, j, lease, err)
		}
		release := step.Wait > 0 || !d.Now().Before(end) || d.nearDeadline(ctx)
		var mine bool
		j, mine, err = d.updateJob(ctx, key, func(j jobs.Job) (jobs.Job, bool) { return j.Record(lease, step, release, d.Now()) })
		switch {
		case err != nil:
			return fmt.Errorf("job %s: record a step: %w", j.ID, err)
		case !mine:
			d.Log.WarnContext(ctx, "job.lease_lost", "job_id", key.ID, "tenant", key.Tenant)
			return nil
		case j.State == jobs.Done:
			d.logEnd(ctx, j)
			return nil
		case j.State != jobs.Running:
			return nil
		case release:
			d.queueJob(ctx, j)
			return nil
		}
	}
}

// nearDeadline reports whether the invocation has no time for another step.
func (d *Dispatcher) nearDeadline(ctx context.Context) bool {
	deadline, limited := ctx.Deadline()
	return limited && deadline.Sub(d.Now()) < jobSlice+jobReserve
}

// stepJob makes a step. It ends before the invocation does.
func (d *Dispatcher) stepJob(ctx context.Context, j jobs.Job) (step jobs.Step, err error) {
	kind := d.kinds()[j.Kind]
	if kind == nil {
		return step, refusef("this version does not know jobs of kind %q", j.Kind)
	}
	if deadline, limited := ctx.Deadline(); limited {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, deadline.Sub(d.Now())-jobReserve)
		defer cancel()
	}
	err = recoverToError(func() (err error) {
		step, err = kind.step(ctx, j)
		return err
	})
	return step, err
}

// failStep records that a step failed.
func (d *Dispatcher) failStep(ctx context.Context, j jobs.Job, lease string, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), verdictTime)
	defer cancel()
	final := errors.As(cause, new(*jobRefusal))
	reason, _, _ := strings.Cut(cause.Error(), "\n") // a panic's stack is for the log
	if !final {
		d.Log.WarnContext(ctx, "job.step_failed", "job_id", j.ID, "kind", j.Kind, "tenant", j.Tenant, "failures", j.Failures, "error", cause.Error())
	}
	j, mine, err := d.updateJob(ctx, jobs.Key{Tenant: j.Tenant, ID: j.ID}, func(j jobs.Job) (jobs.Job, bool) { return j.Fail(lease, reason, final, d.Now()) })
	switch {
	case err != nil:
		return fmt.Errorf("job %s: %w", j.ID, err)
	case mine && j.State == jobs.Running:
		d.queueJob(ctx, j)
	case mine && j.State == jobs.Failed:
		d.logEnd(ctx, j)
	}
	return nil
}

// failUnreadable ends a job whose stored form cannot be decoded. Otherwise the sweep would
// queue it for ever.
func (d *Dispatcher) failUnreadable(ctx context.Context, j jobs.Job, cause error) {
	d.Log.ErrorContext(ctx, "job.unreadable", "job_id", j.ID, "tenant", j.Tenant, "error", cause.Error())
	if _, err := d.Jobs.PutJob(ctx, j.Unreadable(cause, d.Now())); err != nil {
		d.Log.WarnContext(ctx, "job.not_ended", "job_id", j.ID, "tenant", j.Tenant, "error", err.Error())
	}
}

func (d *Dispatcher) logEnd(ctx context.Context, j jobs.Job) {
	attributes := []any{"job_id", j.ID, "kind", j.Kind, "tenant", j.Tenant, "endpoint_id", j.EndpointID, "dry_run", j.DryRun, "counts", j.Counts}
	switch j.State {
	case jobs.Done:
		d.Log.InfoContext(ctx, "job.done", attributes...)
	case jobs.Failed:
		d.Log.ErrorContext(ctx, "job.failed", append(attributes, "error", j.Reason)...)
	default:
		d.Log.InfoContext(ctx, "job.cancelled", attributes...)
	}
}

// queueJob queues the next step of a job. If the queue loses the item, the sweep queues
// another. Steps take seconds, so they are made in the slow lane, where they keep no worker
// from attempts at endpoints that answer quickly.
func (d *Dispatcher) queueJob(ctx context.Context, j jobs.Job) {
	delay := min(max(j.NextAt.Sub(d.Now()), 0), work.MaxDelay)
	if errs := d.Queue.Send(ctx, []work.Item{{Tenant: j.Tenant, JobID: j.ID, WakeAt: j.NextAt, Slow: true, Delay: delay}}); errs != nil {
		d.Log.WarnContext(ctx, "job.not_queued", "job_id", j.ID, "tenant", j.Tenant, "error", errs[0].Error())
	}
}

// sweepJobs queues the jobs whose work item is lost, or whose worker has died. An item for a
// job that another worker holds changes nothing.
func (d *Dispatcher) sweepJobs(ctx context.Context, began time.Time) error {
	due, err := d.Jobs.DueJobs(ctx, began, sweptJobs)
	if err != nil || len(due) == 0 {
		return err
	}
	items := make([]work.Item, len(due))
	for i, k := range due {
		items[i] = work.Item{Tenant: k.Tenant, JobID: k.ID, Slow: true}
	}
	for i, err := range d.Queue.Send(ctx, items) {
		if err != nil {
			d.Log.WarnContext(ctx, "job.not_queued", "job_id", items[i].JobID, "tenant", items[i].Tenant, "error", err.Error())
		}
	}
	return nil
}
