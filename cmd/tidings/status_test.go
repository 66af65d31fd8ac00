package main

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
)

var update = flag.Bool("update", false, "update the golden files")

var targets = stats.Targets{SuccessPercent: 95, SlowSeconds: 60, FailedPerDay: 50}

func TestStatusOutput(t *testing.T) {
	date := time.Date(2026, 11, 29, 0, 0, 0, 0, time.UTC)
	busy := stats.Counts{Delivered: 1_000_000, Dead: 120_345, Captured: 99_999, CaptureFailed: 1}
	busy.Latency.Count(11 * time.Hour)
	s := deploymentStatus{
		Reasons: []string{"no sweep has run for 7m (expected every minute)"}, Metrics: targets.Now(stats.Summary{Day: busy, Hour: stats.Counts{Captured: 1}}, 3),
		FailedAttempts: 19, RetriedAttempts: 17,
		Days: targets.Days([]stats.Day{{Date: date, At: date, Counts: busy, OpenCircuits: 3}, {Date: date.Add(-24 * time.Hour), At: date}, {Date: date.Add(-48 * time.Hour)}}),
	}
	var out bytes.Buffer
	if err := (&app{out: &out}).printStatus(s); err != nil {
		t.Fatal(err)
	}
	want := `unhealthy
  no sweep has run for 7m (expected every minute)

METRIC                    24 HOURS  LAST HOUR  TARGET   STATUS
Delivery success rate     89.25 %   –          > 95 %   missed
Average latency (p95)     17h4m     –          < 1 min  missed
Failed deliveries (24 h)  120345               < 50     missed
Circuit breakers open     3                    0        missed
Events captured           99.99 %   100 %      100 %    missed

failed attempts in 24 hours: 19, of which 17 are retried

DAY (UTC)   SUCCESS    P95      FAILED    BREAKERS OPEN  CAPTURED
2026-11-29  89.25 % !  17h4m !  120345 !  3 !            99.99 % !
2026-11-28  –          –        0         0              –
2026-11-27  –          –        –         –              –
`
	if got := out.String(); got != want {
		t.Errorf("status prints\n%s\nwant\n%s", got, want)
	}
	for line := range strings.Lines(out.String()) {
		if utf8.RuneCountInString(line) > 81 {
			t.Errorf("wider than 80 columns: %s", line)
		}
	}
}

// Scripts read this format.
func TestStatusJSON(t *testing.T) {
	date := time.Date(2026, 11, 29, 0, 0, 0, 0, time.UTC)
	counts := stats.Counts{Delivered: 95, Dead: 5, Captured: 3}
	s := deploymentStatus{
		At: date.Add(time.Hour), Version: "v1.2.3", Healthy: true, Reasons: []string{}, FailedAttempts: 19, RetriedAttempts: 14,
		Metrics: targets.Now(stats.Summary{Day: counts}, 1), Days: targets.Days([]stats.Day{{Date: date, At: date, Counts: counts, OpenCircuits: 2}}),
	}
	var out bytes.Buffer
	if err := (&app{out: &out, json: true}).printStatus(s); err != nil {
		t.Fatal(err)
	}
	const path = "testdata/status.json"
	if *update {
		if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(path); err != nil || string(want) != out.String() {
		t.Errorf("%s (%v):\n%s\nwant\n%s", path, err, out.String(), want)
	}
}

func TestStatusOfTheLocalRunner(t *testing.T) {
	t.Parallel()
	for name, memory := range map[string]bool{"DynamoDB": false, "memory": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newTool(t, func(o *local.Options) { o.Memory = memory })
			var s deploymentStatus
			eventually(t, "the first sweep has run", func() bool {
				var out bytes.Buffer
				return run(t.Context(), []string{"--state-dir", x.dir, "status"}, strings.NewReader(""), &out, &out) == 0
			})
			x.json(&s, "status", "--days", "30")
			if !s.Healthy || len(s.Reasons) != 0 || len(s.Metrics) != 5 || len(s.Days) != 30 || s.Days[0].Date != time.Now().UTC().Format(time.DateOnly) {
				t.Errorf("status: %+v", s)
			}
			x.json(&s, "status", "--days", "0")
			if len(s.Days) != 0 {
				t.Errorf("%d days, want none", len(s.Days))
			}
			x.do(2, "", "status", "--days", "31")
			if out, _ := x.do(0, "", "status"); !strings.HasPrefix(out, "healthy\n") || strings.Count(out, "\n") != 19 {
				t.Errorf("status prints\n%s", out)
			}
		})
	}
}
