package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
)

// A job runs for hours: a few failed reads do not end the command that follows it.
func TestFollowingAJobSurvivesFailedReads(t *testing.T) {
	down := errors.New("no route to host")
	for name, c := range map[string]struct {
		fails []int // reads that fail, one after the other, before each that succeeds
		last  error // of the last read
		want  error
	}{
		"some reads fail":            {[]int{0, followRetries, 0, followRetries}, nil, nil},
		"no read succeeds":           {[]int{0, followRetries + 1}, nil, down},
		"the job is gone":            {[]int{1}, noJob("job_x"), errNoJob},
		"the first read fails, once": {[]int{1}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reads, left := 0, c.fails[0]
				read := func(context.Context) (console.Job, error) {
					if left > 0 {
						left--
						return console.Job{}, down
					}
					if reads++; reads == len(c.fails) {
						return console.Job{ID: "job_x", State: jobs.Done}, c.last
					}
					left = c.fails[reads]
					return console.Job{ID: "job_x", State: jobs.Running}, nil
				}
				var errOut bytes.Buffer
				j, err := (&app{err: &errOut}).follow(t.Context(), "job_x", read)
				if !errors.Is(err, c.want) || c.want == nil && j.State != jobs.Done {
					t.Errorf("%+v, %v; want %v", j, err, c.want)
				}
				if !strings.Contains(errOut.String(), "no route to host") {
					t.Errorf("a failed read is not reported: %q", errOut.String())
				}
			})
		})
	}
}

// A job's error says what it has done.
func TestAJobThatEndsEarlySaysWhatItHasDone(t *testing.T) {
	for want, j := range map[string]console.Job{
		"3 sent":    {Kind: jobs.Recover, Sent: 3},
		"4 counted": {Kind: jobs.Replay, Sent: 4, DryRun: true},
		"2 erased":  {Kind: jobs.Erase, Erased: 2},
		"5 counted": {Kind: jobs.Erase, Erased: 5, DryRun: true},
	} {
		j.State = jobs.Cancelled
		read := func(context.Context) (console.Job, error) { return j, nil }
		if _, err := (&app{err: io.Discard}).follow(t.Context(), "job_x", read); err == nil || !strings.Contains(err.Error(), " done, "+want+": ") {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
