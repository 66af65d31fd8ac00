package dispatch_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
)

// jobTable is a table of jobs in which operations fail, by name, and writes conflict.
type jobTable struct {
	dispatch.Jobs
	fails     map[string]error
	puts      int
	conflicts int // how many of the next writes conflict
	failPut   int // the number of a write that fails; 0 is none
}

func (j *jobTable) in(c *dispatch.Config) { j.Jobs, c.Jobs = c.Jobs, j }

func (j *jobTable) GetJob(ctx context.Context, k jobs.Key) (jobs.Job, error) {
	if err := j.fails["get"]; err != nil {
		return jobs.Job{}, err
	}
	return j.Jobs.GetJob(ctx, k)
}

func (j *jobTable) PutJob(ctx context.Context, one jobs.Job) (jobs.Job, error) {
	j.puts++
	switch {
	case j.fails["put"] != nil:
		return one, j.fails["put"]
	case j.puts == j.failPut:
		return one, errStore
	case j.conflicts > 0:
		j.conflicts--
		return one, jobs.ErrConflict
	}
	return j.Jobs.PutJob(ctx, one)
}

func (j *jobTable) DueJobs(ctx context.Context, by time.Time, limit int) ([]jobs.Key, error) {
	if err := j.fails["due"]; err != nil {
		return nil, err
	}
	return j.Jobs.DueJobs(ctx, by, limit)
}

// step runs a function in each step of a job, and fails the step if that returns an error.
type step struct {
	dispatch.Waiting
	do func(ctx context.Context) error
	n  int
}

func (s *step) in(c *dispatch.Config) { s.Waiting, c.Waiting = c.Waiting, s }

func (s *step) CountBacklog(ctx context.Context, endpointID string, limit int) (int, error) {
	s.n++
	if s.do != nil {
		if err := s.do(ctx); err != nil {
			return 0, err
		}
	}
	return s.Waiting.CountBacklog(ctx, endpointID, limit)
}

// longJob starts a job of some twenty steps, for which there are no events, and returns the
// item of its first step.
func (w *world) longJob(e endpoint.Endpoint) (jobs.Job, work.Item) {
	w.t.Helper()
	j := w.start(dispatch.Command{Kind: jobs.Recover, EndpointID: e.ID, From: time.Now().Add(-20 * time.Hour)})
	w.queue.take()
	return j, work.Item{Tenant: j.Tenant, JobID: j.ID}
}

// A work item makes steps for ten seconds, unless the invocation ends earlier, and queues the
// next item if anything is left.
func TestAnItemOfAJobMakesStepsForTenSeconds(t *testing.T) {
	for name, c := range map[string]struct {
		takes    time.Duration // a step
		deadline time.Duration // of the invocation; 0 is none
		steps    int           // 0 is all
	}{
		"quick steps":                            {0, 0, 0},
		"the second step ends after ten seconds": {5 * time.Second, 0, 2},
		"a little earlier":                       {5*time.Second - 1, 0, 3},
		"just time for another step":             {0, 15 * time.Second, 0},
		"no time for another step":               {0, 15*time.Second - 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &step{do: func(context.Context) error { time.Sleep(c.takes); return nil }}
				w := newWorld(t, s.in)
				j, item := w.longJob(w.endpoint())
				ctx := t.Context()
				if c.deadline > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, c.deadline)
					defer cancel()
				}
				if failed := w.Deliver(ctx, []work.Message{{ID: "m", Body: item.Encode()}}); failed != nil {
					t.Fatal(failed)
				}
				j, sent := w.job(j), w.queue.take()
				switch {
				case c.steps == 0 && (j.State != jobs.Done || len(sent) != 0 || s.n < 10):
					t.Errorf("%s after %d steps, queued %+v; want it done", j.State, s.n, sent)
				case c.steps > 0 && (s.n != c.steps || j.State != jobs.Running || j.Lease != "" || len(sent) != 1 || sent[0].JobID != j.ID):
					t.Errorf("%s after %d steps, lease %q, queued %+v; want %d steps and the next item", j.State, s.n, j.Lease, sent, c.steps)
				}
			})
		})
	}
}

// A step ends five seconds before its invocation, so that it can be recorded.
func TestAStepOfAJobEndsBeforeItsInvocation(t *testing.T) {
	for name, deadline := range map[string]time.Duration{"of a minute": time.Minute, "without an end": 0} {
		synctest.Test(t, func(t *testing.T) {
			var until time.Time
			s := &step{do: func(ctx context.Context) error {
				until, _ = ctx.Deadline()
				return ctx.Err()
			}}
			w := newWorld(t, s.in)
			_, item := w.longJob(w.endpoint())
			ctx, want := t.Context(), time.Time{}
			if deadline > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, deadline)
				defer cancel()
				want = time.Now().Add(deadline - 5*time.Second)
			}
			w.Deliver(ctx, []work.Message{{Body: item.Encode()}})
			if !until.Equal(want) {
				t.Errorf("an invocation %s: its steps end at %s, want %s", name, until, want)
			}
		})
	}
}

// A step that fails is queued again, with a delay, by the worker that still has the job.
func TestAFailedStepIsQueuedAgain(t *testing.T) {
	for name, c := range map[string]struct {
		lost   bool // another worker has the job when the step fails
		queued int
	}{"": {false, 1}, "by another worker": {true, 0}} {
		synctest.Test(t, func(t *testing.T) {
			s := &step{}
			w := newWorld(t, s.in)
			j, item := w.longJob(w.endpoint())
			s.do = func(context.Context) error {
				if held := w.job(j); c.lost {
					held.Lease = "another worker"
					if _, err := w.store.PutJob(t.Context(), held); err != nil {
						t.Error(err)
					}
				}
				return errStore
			}
			if failed := w.deliver(item); failed != nil {
				t.Errorf("%s: not acknowledged: %v", name, failed)
			}
			sent := w.queue.take()
			if len(sent) != c.queued {
				t.Fatalf("%s: queued %+v, want %d", name, sent, c.queued)
			}
			if c.queued > 0 && (sent[0].JobID != j.ID || sent[0].Delay != 2*time.Second) {
				t.Errorf("%s: queued %+v, want the job after two seconds", name, sent[0])
			}
		})
	}
}

// What cannot be written about a job leaves its message on the queue.
func TestAJobThatCannotBeWrittenIsNotAcknowledged(t *testing.T) {
	for name, c := range map[string]struct {
		put  int // which write fails
		fail bool
	}{"the lease": {1, false}, "a step": {2, false}, "a failed step": {2, true}} {
		synctest.Test(t, func(t *testing.T) {
			table, s := &jobTable{}, &step{}
			w := newWorld(t, table.in, s.in)
			_, item := w.longJob(w.endpoint())
			table.puts, table.failPut = 0, c.put
			if c.fail {
				s.do = func(context.Context) error { return errStore }
			}
			if failed := w.deliver(item); len(failed) != 1 {
				t.Errorf("%s: not acknowledged: %v, want the message", name, failed)
			}
		})
	}
}

// A change of a job is repeated after a conflict, ten times, and after no other error.
func TestAChangeOfAJobIsRepeatedAfterAConflict(t *testing.T) {
	for name, c := range map[string]struct {
		fails     map[string]error
		conflicts int
		puts      int
		ok        bool
	}{
		"no conflict":          {nil, 0, 1, true},
		"nine conflicts":       {nil, 9, 10, true},
		"ten":                  {nil, 10, 10, false},
		"the write fails":      {map[string]error{"put": errStore}, 0, 1, false},
		"it cannot be read":    {map[string]error{"get": errStore}, 0, 0, false},
		"it has been deleted":  {map[string]error{"get": jobs.ErrNotFound}, 0, 0, false},
		"conflict, then error": {map[string]error{"put": jobs.ErrConflict}, 0, 10, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			table := &jobTable{}
			w := newWorld(t, table.in)
			j, _ := w.longJob(w.endpoint())
			table.fails, table.conflicts, table.puts = c.fails, c.conflicts, 0
			_, err := w.Run(t.Context(), dispatch.Command{Action: "cancel_job", JobID: j.ID, By: "ada"})
			if (err == nil) != c.ok || errors.Is(err, jobs.ErrConflict) != (c.puts == 10 && !c.ok) || table.puts != c.puts || (w.job(j).State == jobs.Cancelled) != c.ok {
				t.Errorf("%s: %v after %d writes, the job is %s", name, err, table.puts, w.job(j).State)
			}
		})
	}
}

// A job is started only if the table says that it is stored, and how many others run.
func TestAJobThatCannotBeStoredIsNotStarted(t *testing.T) {
	for _, operation := range []string{"due", "put"} {
		synctest.Test(t, func(t *testing.T) {
			table := &jobTable{fails: map[string]error{operation: errStore}}
			w := newWorld(t, table.in)
			e := w.endpoint()
			_, err := w.Run(t.Context(), dispatch.Command{Action: "start_job", Kind: jobs.Recover, EndpointID: e.ID, From: time.Now().Add(-time.Hour)})
			if sent := w.queue.take(); err == nil || len(sent) != 0 {
				t.Errorf("%s fails: error %v, queued %+v", operation, err, sent)
			}
		})
	}
}

// A hundred jobs of a tenant may run. Those of another tenant do not count, nor does the job
// itself if its command is repeated.
func TestAHundredJobsOfATenantMayRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.endpoint()
		command := func() dispatch.Command {
			return dispatch.Command{Action: "start_job", JobID: jobs.NewID(time.Now()), Kind: jobs.Recover, EndpointID: e.ID, From: time.Now().Add(-time.Hour)}
		}
		var last dispatch.Command
		for range jobs.MaxRunning {
			foreign, err := jobs.New(jobs.Job{ID: jobs.NewID(time.Now()), Tenant: "other", Kind: jobs.Recover}, time.Now())
			if err == nil {
				_, err = w.store.PutJob(t.Context(), foreign)
			}
			last = command()
			if err == nil {
				_, err = w.Run(t.Context(), last)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.Run(t.Context(), last); err != nil {
			t.Errorf("the same again: %v", err)
		}
		if _, err := w.Run(t.Context(), command()); err == nil {
			t.Error("one more is started")
		}
	})
}

func TestASweepReportsThatItCannotListJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &jobTable{fails: map[string]error{"due": errStore}}
		w := newWorld(t, table.in)
		if swept, err := w.Sweep(t.Context()); err == nil || swept.Done {
			t.Errorf("%+v, %v", swept, err)
		}
	})
}
