package main

import (
	"maps"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/local/receiver"
)

// Every event that `tidings play` reports arrives at a receiver through the whole
// local system.
func TestPlayedEventsArrive(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 3 s")
	}
	t.Parallel()
	x := newTool(t)
	r := receiver.New(1, receiver.Behaviour{})
	arrived := make(chan receiver.Webhook, 10_000)
	r.OnWebhook = func(w receiver.Webhook) { arrived <- w }
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	var added console.WithSecret
	x.json(&added, "endpoint", "add", server.URL+"/")
	r.Secrets = func() []string { return []string{added.Secret} }

	var report struct {
		Events  map[string]int
		Refused int
		Run     string
		Seed    uint64
	}
	x.json(&report, "play", "--members", "12", "--hours", "24", "--speed", "36000x", "--seed", "7")
	want := 0
	for _, n := range report.Events {
		want += n
	}
	// At this speed an hour is 0.1 s: on a busy machine an extension may be too late.
	if len(report.Events) != len(catalog.Default().Types()) && (report.Refused == 0 || report.Events["discussion.extended"] > 0) || report.Seed != 7 || report.Run == "" {
		t.Errorf("played %+v", report)
	}
	got, ids := map[string]int{}, map[string]bool{}
	timeout := time.After(patience)
	for len(ids) < want {
		select {
		case w := <-arrived:
			if !w.Verified {
				t.Errorf("arrived: %+v", w)
			}
			if !ids[w.ID] {
				got[w.Type]++
			}
			ids[w.ID] = true
		case <-timeout:
			t.Fatalf("arrived after a minute: %v, want %v", got, report.Events)
		}
	}
	if !maps.Equal(got, report.Events) {
		t.Errorf("arrived: %v, want %v", got, report.Events)
	}

	out, _ := x.do(0, "", "play", "--members", "5", "--hours", "2", "--speed", "36000")
	for _, says := range []string{"5 members, 2 hours at 36000x", "seed ", "01:00   50 %", "user.joined_platform", "total"} {
		if !strings.Contains(out, says) {
			t.Errorf("output without %q:\n%s", says, out)
		}
	}
	for _, args := range [][]string{{"--speed", "fast"}, {"--speed", "-1x"}, {"--members", "1"}, {"--hours", "0"}} {
		if _, errOut := x.do(2, "", slices.Concat([]string{"play"}, args)...); !strings.Contains(errOut, strings.TrimPrefix(args[0], "--")) {
			t.Errorf("%v: %s", args, errOut)
		}
	}
}
