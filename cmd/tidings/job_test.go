package main

import (
	"bytes"
	"testing"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
)

// The output that docs/operating.md shows.
func TestTheOutputOfAJob(t *testing.T) {
	for want, j := range map[string]jobs.Job{
		"41820 events examined: 41790 missing, 20 delivered, 9 dead, 1 skipped\n" +
			"41800 would be put into the endpoint's backlog; sending takes about 2m31s and costs about $0.24\n": {
			Kind: jobs.Recover, DryRun: true,
			Counts: map[string]int{jobs.Examined: 41820, jobs.Sent: 41800, "found missing": 41790, "found delivered": 20, "found dead": 9, "found skipped": 1},
		},
		"3 events examined: nothing that the endpoint subscribes to\n" +
			"0 were put into the endpoint's backlog; sending takes about 0s and costs about $0.00\n": {
			Kind: jobs.Backfill, Counts: map[string]int{jobs.Examined: 3},
		},
		"found 5 dead\n5 were put into the endpoint's backlog; sending takes about 1s and costs about $0.00\n": {
			Kind: jobs.Replay, Counts: map[string]int{jobs.Sent: 5, "found dead": 5},
		},
	} {
		var out bytes.Buffer
		if err := (&app{out: &out}).printJob(console.ViewJob(j, ratelimit.Limit{})); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Errorf("printed\n%swant\n%s", out.String(), want)
		}
	}
}
