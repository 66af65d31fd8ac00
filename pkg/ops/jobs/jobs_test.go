package jobs_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tidings-dev/tidings/pkg/ops/jobs"
)

var start = time.Date(2026, 11, 30, 8, 0, 0, 0, time.UTC)

func running(t interface{ Fatal(...any) }) jobs.Job {
	j, err := jobs.New(jobs.Job{ID: jobs.NewID(start), Tenant: "t", Kind: jobs.Recover, Parameters: jobs.Parameters{From: start.Add(-time.Hour), To: start}}, start)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func take(t *testing.T, j jobs.Job, worker string, now time.Time) jobs.Job {
	t.Helper()
	j, changed := j.Take(worker, now)
	if !changed || j.Lease != worker {
		t.Fatalf("%s does not get the job: %+v", worker, j)
	}
	return j
}

func TestOneWorkerHoldsAJob(t *testing.T) {
	j := take(t, running(t), "a", start)
	if _, changed := j.Take("b", start.Add(jobs.LeaseTime-1)); changed {
		t.Error("a second worker gets the job during the lease")
	}
	taken := take(t, j, "b", start.Add(jobs.LeaseTime))
	if _, ok := taken.Record("a", jobs.Step{Cursor: "old"}, true, start); ok {
		t.Error("a worker that has lost the lease records a step")
	}
	if _, ok := taken.Fail("a", "late", false, start); ok {
		t.Error("a worker that has lost the lease records a failure")
	}
}

func TestAStepMovesTheJobOn(t *testing.T) {
	now := start
	j := take(t, running(t), "a", now)
	j, ok := j.Record("a", jobs.Step{Cursor: "1", Progress: 0.5, Counts: map[string]int{jobs.Sent: 2}}, false, now)
	if !ok || j.Cursor != "1" || j.Lease != "a" || j.Failures != 0 || j.Progress != 0.5 {
		t.Fatalf("after a step: %+v", j)
	}
	j, _ = j.Record("a", jobs.Step{Cursor: "2", Counts: map[string]int{jobs.Sent: 3, jobs.Examined: 1}, Wait: 5 * time.Second}, true, now)
	if j.Counts[jobs.Sent] != 5 || j.Counts[jobs.Examined] != 1 || j.Lease != "" || !j.CheckAt().Equal(now.Add(5*time.Second+jobs.StuckAfter)) {
		t.Errorf("after the second: %+v", j)
	}
	if _, changed := j.Take("b", now.Add(5*time.Second-1)); changed {
		t.Error("the next step begins before its time")
	}
	j = take(t, j, "b", now.Add(5*time.Second))
	j, _ = j.Record("b", jobs.Step{Done: true}, false, now)
	if j.State != jobs.Done || j.Progress != 1 || !j.CheckAt().IsZero() {
		t.Errorf("at the end: %+v", j)
	}
	if _, changed := j.Take("c", now.Add(time.Hour)); changed {
		t.Error("a job that is done goes on")
	}
}

func TestACancelledJobTakesNoFurtherStep(t *testing.T) {
	j := take(t, running(t), "a", start)
	cancelled, ok := j.Cancel("ada", start)
	if !ok || cancelled.State != jobs.Cancelled || cancelled.Reason != "cancelled by ada" || !cancelled.CheckAt().IsZero() {
		t.Fatalf("%+v", cancelled)
	}
	// The step that was under way is recorded.
	after, ok := cancelled.Record("a", jobs.Step{Cursor: "1", Counts: map[string]int{jobs.Sent: 2}, Done: true}, false, start)
	if !ok || after.State != jobs.Cancelled || after.Counts[jobs.Sent] != 2 || after.Lease != "" {
		t.Errorf("its last step: %+v", after)
	}
	failed, _ := cancelled.Fail("a", "no", false, start)
	if failed.State != jobs.Cancelled || failed.Lease != "" {
		t.Errorf("its last step failed: %+v", failed)
	}
	for name, j := range map[string]jobs.Job{"cancelled": cancelled, "its step recorded": after, "its step failed": failed} {
		if _, changed := j.Take("b", start.Add(time.Hour)); changed {
			t.Errorf("%s: it goes on", name)
		}
		if _, ok := j.Cancel("bob", start); ok {
			t.Errorf("%s: it is cancelled again", name)
		}
	}
}

func TestAFailedStepIsRepeatedWithBackoff(t *testing.T) {
	now, j := start, running(t)
	var waits []time.Duration
	for j.State == jobs.Running {
		j = take(t, j, "a", now)
		j, _ = j.Fail("a", "throttled", false, now)
		if j.State == jobs.Running {
			waits = append(waits, j.NextAt.Sub(now))
			now = j.NextAt
		}
	}
	if len(waits) != jobs.MaxFailures-1 || waits[0] != 2*time.Second || waits[1] != 4*time.Second || waits[len(waits)-1] != 5*time.Minute {
		t.Errorf("waits %v", waits)
	}
	if j.State != jobs.Failed || j.Reason != "throttled" || now.Sub(start) < time.Hour {
		t.Errorf("after %s: %+v", now.Sub(start), j)
	}
	// A success in between begins anew; a final failure does not wait.
	j = take(t, running(t), "a", start)
	j, _ = j.Fail("a", "throttled", false, start)
	j = take(t, j, "a", j.NextAt)
	if j, _ = j.Record("a", jobs.Step{}, true, start); j.Failures != 0 || j.Reason != "" {
		t.Errorf("after a success: %+v", j)
	}
	j = take(t, j, "a", start)
	if j, _ = j.Fail("a", "the endpoint was deleted", true, start); j.State != jobs.Failed {
		t.Errorf("after a final failure: %+v", j)
	}
}

func TestAJobWhoseWorkersDieFailsInTheEnd(t *testing.T) {
	now, j, deaths := start, running(t), 0
	for ; j.State == jobs.Running && deaths < 100; deaths++ {
		j, _ = j.Take("a", now)
		now = now.Add(jobs.LeaseTime)
	}
	if j.State != jobs.Failed || deaths != jobs.MaxFailures+1 || !strings.Contains(j.Reason, "died") {
		t.Errorf("after %d deaths: %+v", deaths, j)
	}
}

func TestWhatANewJobMustHave(t *testing.T) {
	for name, j := range map[string]jobs.Job{
		"an ID":             {ID: "job_x"},
		"a range":           {ID: jobs.NewID(start), Parameters: jobs.Parameters{From: start, To: start.Add(-1)}},
		"few types":         {ID: jobs.NewID(start), Parameters: jobs.Parameters{Types: make([]string, jobs.MaxTypes+1)}},
		"an ID of its form": {ID: "ep_" + strings.TrimPrefix(jobs.NewID(start), "job_")},
	} {
		if _, err := jobs.New(j, start); err == nil {
			t.Errorf("without %s: no error", name)
		}
	}
	j, err := jobs.New(jobs.Job{ID: jobs.NewID(start), By: strings.Repeat("ü", 1000)}, start)
	if err != nil || len(j.By) > 400 {
		t.Errorf("a long name: %d bytes, %v", len(j.By), err)
	}
}

func TestHowFarAJobGoesBack(t *testing.T) {
	for text, want := range map[string]time.Duration{"": 0, "14d": 14 * 24 * time.Hour, "366d": jobs.MaxSpan, "36h": 36 * time.Hour, "90m": 90 * time.Minute} {
		if got, err := jobs.ParseSpan(text); err != nil || got != want {
			t.Errorf("%q is %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"0d", "-1d", "367d", "99999999999999999999d", "d", "1.5d", "-1h", "0s", "8785h", "week", "14"} {
		if got, err := jobs.ParseSpan(text); err == nil {
			t.Errorf("%q is %s, want an error", text, got)
		}
	}
}

// However workers take, record, fail, lose and cancel: only the holder of the latest lease
// moves the cursor, and nothing moves it after the end, but the step that was under way.
func TestOnlyTheHolderMovesAJob(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now, j := start, running(t)
		holder, cursor, ended := "", "", false
		for range rapid.IntRange(1, 60).Draw(t, "actions") {
			worker := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "worker")
			before := j
			switch rapid.SampledFrom([]string{"take", "record", "record", "fail", "cancel", "wait"}).Draw(t, "action") {
			case "take":
				lease := worker + now.String()
				next, changed := j.Take(lease, now)
				if changed && next.Lease == lease {
					if ended || before.Lease != "" && now.Before(before.LeaseUntil) || now.Before(before.NextAt) {
						t.Fatalf("a job is taken that must not be: %+v at %s", before, now)
					}
					holder = lease
				}
				j = next
			case "record":
				lease := holder
				if rapid.Bool().Draw(t, "stale") {
					lease = "stale"
				}
				step := jobs.Step{Cursor: cursor + "+", Done: rapid.IntRange(0, 9).Draw(t, "done") == 0, Wait: time.Duration(rapid.IntRange(0, 2).Draw(t, "wait")) * time.Second}
				next, ok := j.Record(lease, step, rapid.Bool().Draw(t, "release"), now)
				if ok && (lease == "stale" || lease == "" || lease != before.Lease) {
					t.Fatalf("a worker without the lease records a step: %+v", before)
				}
				if ok {
					cursor = step.Cursor
				}
				j = next
			case "fail":
				j, _ = j.Fail(holder, "no", false, now)
			case "cancel":
				j, _ = j.Cancel("ada", now)
			case "wait":
				now = now.Add(time.Duration(rapid.IntRange(1, 200).Draw(t, "seconds")) * time.Second)
			}
			if j.Cursor != cursor || ended && j.State != before.State {
				t.Fatalf("cursor %q, want %q; ended %v: %+v", j.Cursor, cursor, ended, j)
			}
			ended = ended || j.State != jobs.Running
			if ended != j.CheckAt().IsZero() {
				t.Fatalf("the sweep looks after a job at %s: %+v", j.CheckAt(), j)
			}
		}
	})
}

func TestErrorsAreDistinct(t *testing.T) {
	if errors.Is(jobs.ErrNotFound, jobs.ErrConflict) {
		t.Error("a conflict is taken for a missing job")
	}
	j := jobs.Job{Counts: map[string]int{jobs.Found("dead"): 1, jobs.Sent: 1, jobs.Examined: 1}}
	if got := j.CountNames(); !slices.Equal(got, []string{jobs.Examined, jobs.Sent, "found dead"}) {
		t.Errorf("counts in the order %v", got)
	}
}
