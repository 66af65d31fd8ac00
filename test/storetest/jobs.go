package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
)

func newJob(t *testing.T, tenant string, at time.Time) jobs.Job {
	t.Helper()
	j, err := jobs.New(jobs.Job{
		ID: jobs.NewID(at), Tenant: tenant, Kind: jobs.Recover, EndpointID: endpoint.NewID(at), By: `ada <"&>`,
		Parameters: jobs.Parameters{From: start, To: at, Types: []string{"user.left_community"}, States: []delivery.State{delivery.Dead}, Status: "503"},
	}, at)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func storedJobs(t *testing.T, s Store) {
	ctx := t.Context()
	if _, err := s.GetJob(ctx, jobs.Key{Tenant: "t1", ID: jobs.NewID(start)}); !errors.Is(err, jobs.ErrNotFound) {
		t.Errorf("a job that does not exist: %v", err)
	}
	var all []jobs.Job
	for i := range 5 {
		j := must[jobs.Job](t)(s.PutJob(ctx, newJob(t, "t1", start.Add(time.Duration(i)*time.Minute))))
		if j.Version != 1 {
			t.Errorf("version %d, want 1", j.Version)
		}
		all = append(all, j)
	}
	other := must[jobs.Job](t)(s.PutJob(ctx, newJob(t, "t2", start)))
	if _, err := s.GetJob(ctx, jobs.Key{Tenant: "t2", ID: all[0].ID}); !errors.Is(err, jobs.ErrNotFound) {
		t.Errorf("the job of another tenant: %v", err)
	}

	// A job is written over the version that was read, and no other.
	j, _ := all[0].Take("worker 1", start)
	j = must[jobs.Job](t)(s.PutJob(ctx, j))
	same(t, must[jobs.Job](t)(s.GetJob(ctx, jobs.Key{Tenant: j.Tenant, ID: j.ID})), j)
	stale, _ := all[0].Cancel("ada", start)
	if _, err := s.PutJob(ctx, stale); !errors.Is(err, jobs.ErrConflict) {
		t.Errorf("a write over an older version: %v", err)
	}
	repeated := j
	repeated.Version--
	same(t, must[jobs.Job](t)(s.PutJob(ctx, repeated)), j)
	if _, err := s.PutJob(ctx, newJob(t, "t1", start)); err != nil {
		t.Errorf("another job of the same time: %v", err)
	}
	step := jobs.Step{Cursor: `{"a":1}`, Progress: 0.25, Counts: map[string]int{jobs.Sent: 3}}
	j, _ = j.Record("worker 1", step, true, start.Add(time.Second))
	j = must[jobs.Job](t)(s.PutJob(ctx, j))
	same(t, must[jobs.Job](t)(s.GetJob(ctx, jobs.Key{Tenant: j.Tenant, ID: j.ID})), j)

	// Of concurrent workers, one takes the job.
	var won atomic.Int32
	var workers sync.WaitGroup
	for i := range 16 {
		workers.Go(func() {
			taken, _ := all[1].Take(fmt.Sprint("worker ", i), start.Add(time.Minute))
			if _, err := s.PutJob(ctx, taken); err == nil {
				won.Add(1)
			} else if !errors.Is(err, jobs.ErrConflict) {
				t.Error(err)
			}
		})
	}
	workers.Wait()
	if won.Load() != 1 {
		t.Errorf("%d of 16 workers took one job, want 1", won.Load())
	}
	all[1] = must[jobs.Job](t)(s.GetJob(ctx, jobs.Key{Tenant: "t1", ID: all[1].ID}))

	// Newest first, by page, and only the tenant's own.
	var listed []string
	for q := (jobs.Query{Tenant: "t1", Limit: 2}); ; {
		page := must[jobs.Page](t)(s.ListJobs(ctx, q))
		if len(page.Jobs) > 2 {
			t.Fatalf("a page of %d jobs", len(page.Jobs))
		}
		for _, j := range page.Jobs {
			listed = append(listed, j.ID)
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			break
		}
	}
	if len(listed) != 6 || !slices.IsSortedFunc(listed, func(a, b string) int { return strings.Compare(b, a) }) {
		t.Errorf("listed %v, want 6 jobs, newest first", listed)
	}
	same(t, must[jobs.Page](t)(s.ListJobs(ctx, jobs.Query{Tenant: "t2"})), jobs.Page{Jobs: []jobs.Job{other}})
	same(t, must[jobs.Page](t)(s.ListJobs(ctx, jobs.Query{Tenant: "t3"})), jobs.Page{})
	if _, err := s.ListJobs(ctx, jobs.Query{Tenant: "t1", Cursor: "x"}); err == nil {
		t.Error("a malformed cursor is accepted")
	}

	// The sweep finds jobs by the time of their check, while they run.
	due := func(by time.Time, limit int) (ids []string) {
		for _, k := range must[[]jobs.Key](t)(s.DueJobs(ctx, by, limit)) {
			ids = append(ids, k.Tenant+" "+k.ID)
		}
		return ids
	}
	if got := due(start.Add(jobs.StuckAfter-time.Millisecond), 100); len(got) != 0 {
		t.Errorf("due early: %v", got)
	}
	if got := due(start.Add(jobs.StuckAfter), 100); len(got) != 2 {
		t.Errorf("due: %v, want those that have just started", got)
	}
	if got := due(start.Add(24*time.Hour), 100); len(got) != 7 {
		t.Errorf("running: %d, want 7", len(got))
	}
	if got := due(start.Add(24*time.Hour), 3); len(got) != 3 {
		t.Errorf("%d of at most 3", len(got))
	}
	done, _ := other.Cancel("ada", start.Add(time.Minute))
	must[jobs.Job](t)(s.PutJob(ctx, done))
	if got := due(start.Add(24*time.Hour), 100); slices.Contains(got, "t2 "+other.ID) || len(got) != 6 {
		t.Errorf("due, after one was cancelled: %v", got)
	}
	// Jobs are no deliveries.
	for shard := range delivery.DueShards {
		if page, _, err := s.Due(ctx, shard, start.Add(24*time.Hour), "", 10); err != nil || len(page) != 0 {
			t.Errorf("deliveries that are due: %v, %v", page, err)
		}
	}
}

func backlogCount(t *testing.T, s Store) {
	ctx := t.Context()
	e := endpoint.NewID(start)
	same(t, must[int](t)(s.CountBacklog(ctx, e, 10)), 0)
	for i := range 7 {
		park := delivery.Park{
			Key: delivery.Key{EndpointID: e, EventID: event.NewID(start)}, Tenant: "t1", EventType: "user.left_community",
			Accepted: start, InBacklog: i > 0, DueAt: start.Add(time.Hour), Now: start,
		}
		must[delivery.Delivery](t)(s.Park(ctx, park))
	}
	same(t, must[int](t)(s.CountBacklog(ctx, e, 10)), 6)
	same(t, must[int](t)(s.CountBacklog(ctx, e, 4)), 4)
}

// replaysOfJobs checks that a replay leaves what was settled after its job began.
func replaysOfJobs(t *testing.T, s Store) {
	ctx := t.Context()
	key := delivery.Key{EndpointID: endpoint.NewID(start), EventID: event.NewID(start)}
	settle := delivery.Settle{Key: key, Tenant: "t1", Accepted: start, State: delivery.Dead, Reason: "r", Now: start}
	if err := s.Settle(ctx, settle); err != nil {
		t.Fatal(err)
	}
	replay := func(ctx context.Context, began time.Time) error {
		_, err := s.Replay(ctx, delivery.Replay{Key: key, InBacklog: true, SettledBefore: began, Now: start.Add(time.Hour), DueAt: start.Add(2 * time.Hour)})
		return err
	}
	var refused *delivery.Refusal
	if err := replay(ctx, start); !errors.As(err, &refused) || refused.Cause != delivery.CauseSettled {
		t.Errorf("one that was settled as the job began: %v", err)
	}
	if err := replay(ctx, start.Add(time.Millisecond)); err != nil {
		t.Errorf("one that was settled before: %v", err)
	}
}
