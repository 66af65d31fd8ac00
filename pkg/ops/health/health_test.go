package health_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/ops/health"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
	"github.com/tidings-dev/tidings/pkg/store/memory"
	"github.com/tidings-dev/tidings/test/dynamotest"
)

var update = flag.Bool("update", false, "update the golden files")

// queue is a queue with a depth set by the test.
type queue struct {
	depth work.Depth
	err   error
	reads atomic.Int32
}

func (q *queue) Depth(context.Context) (work.Depth, error) {
	q.reads.Add(1)
	return q.depth, q.err
}

// store is the data that reports are made from.
type store interface {
	stats.Source
	stats.Days
	health.Circuits
	health.Endpoints
	health.Captures
	KeepFailedChange(ctx context.Context, f platform.FailedChange) (isNew bool, err error)
	MarkStuckCapture(ctx context.Context, mark platform.StuckCapture) error
	AddStatistics(ctx context.Context, b stats.Batch) error
	NoteSweep(ctx context.Context, s stats.Sweep) error
	PutBreaker(ctx context.Context, b breaker.State, now time.Time) (breaker.State, error)
	AddEndpoint(ctx context.Context, e endpoint.Endpoint) error
	DisableEndpoint(ctx context.Context, tenant, id, reason string, now time.Time) error
}

type fixture struct {
	*health.Health
	work, slow, deadWork, deadStream, deadCapture *queue
}

func newFixture(s store) *fixture {
	w := &fixture{work: &queue{}, slow: &queue{}, deadWork: &queue{}, deadStream: &queue{}, deadCapture: &queue{}}
	reader := &stats.Reader{Source: s, Now: time.Now}
	w.Health = &health.Health{
		Statistics: reader, History: &stats.History{Reader: reader, Days: s, Now: time.Now}, Circuits: s, Endpoints: s, Captures: s,
		Work: w.work, Slow: w.slow, DeadWork: w.deadWork, DeadStream: w.deadStream, DeadCapture: w.deadCapture,
		Targets: stats.Targets{SuccessPercent: 95, SlowSeconds: 60, FailedPerDay: 50}, Version: "v1.2.3", Log: slog.New(slog.DiscardHandler), Now: time.Now,
	}
	return w
}

// writeDay stores the statistics of a busy day.
func writeDay(t *testing.T, s store) {
	t.Helper()
	ctx, now := t.Context(), time.Now()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	add := func(ago time.Duration, b stats.Batch) {
		t.Helper()
		b.ID, b.At, b.Worked = fmt.Sprint(ago), now.Add(-ago), true
		check(s.AddStatistics(ctx, b))
	}
	add(20*time.Hour, stats.Batch{Counts: stats.Counts{Accepted: 500, Queued: 1000, Attempts: 1010, Delivered: 990, Failed: 20, Retried: 10, Dead: 10}})
	var latencies []time.Duration
	for i := range 100 {
		latencies = append(latencies, time.Duration(i+1)*20*time.Millisecond)
	}
	add(30*time.Minute, stats.Batch{
		Counts:    stats.Counts{Accepted: 60, Queued: 120, Attempts: 125, Delivered: 100, Failed: 25, Retried: 20, Dead: 5, Skipped: 3},
		Latencies: latencies, LastEvent: now.Add(-31 * time.Minute), Disabled: []stats.Endpoint{{Tenant: "default", ID: "ep_gone"}, {Tenant: "default", ID: "ep_back"}},
	})
	check(s.NoteSweep(ctx, stats.Sweep{At: now.Add(-30 * time.Second), Done: true, Due: 7, Queued: 6, Overdue: 2, OldestDue: now.Add(-10 * time.Minute), Retrying: 40, More: true}))
	_, err := s.PutBreaker(ctx, breaker.State{
		Tenant: "default", EndpointID: "ep_down", Phase: breaker.Open, Failures: 7, FailingSince: now.Add(-time.Hour), Cause: "the receiver answered 503",
		Since: now.Add(-50 * time.Minute), OpenFor: 10 * time.Minute, Until: now.Add(4 * time.Minute), WakeAt: now.Add(4 * time.Minute),
	}, now)
	check(err)
	_, err = s.PutBreaker(ctx, breaker.State{
		Tenant: "default", EndpointID: "ep_draining", Phase: breaker.Draining, Since: now, WakeAt: now,
	}, now)
	check(err)
	for _, id := range []string{"ep_gone", "ep_back"} {
		check(s.AddEndpoint(ctx, endpoint.Endpoint{
			Tenant: "default", ID: id, URL: "https://x.example/secret-path", EventTypes: []string{"*"}, Status: endpoint.Enabled,
			Secrets: []endpoint.SigningSecret{{Secret: signature.NewSecret()}}, CreatedAt: now, UpdatedAt: now,
		}))
	}
	add(29*time.Minute, stats.Batch{Counts: stats.Counts{Captured: 97, CaptureFailed: 3}, UnknownKinds: map[string]int64{"User": 12, "(none)": 200, "session": 12}})
	for i := range 3 {
		_, err := s.KeepFailedChange(ctx, platform.FailedChange{ID: event.NewID(now), Reason: "user_id: is missing", FirstSeen: now, Attempts: i + 1})
		check(err)
	}
	check(s.MarkStuckCapture(ctx, platform.StuckCapture{Since: now.Add(-2 * time.Minute), FailedAt: now.Add(-10 * time.Second), ChangeAt: now.Add(-time.Hour), SequenceNumber: "100000000000000000001"}))
	check(s.DisableEndpoint(ctx, "default", "ep_gone", "the receiver answered 410 Gone", now))
}

const token = "a token of the operator's"

func credential(t *testing.T) health.Credential {
	t.Helper()
	sum := sha256.Sum256([]byte(token))
	c, err := health.ParseCredential(hex.EncodeToString(sum[:]))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func get(t *testing.T, h http.Handler, path string, header ...string) (int, string) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	body, _ := io.ReadAll(w.Result().Body)
	return w.Code, string(body)
}

// docs/monitoring.md describes this format; users' dashboards depend on it.
func TestReportFormat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(48*time.Hour + 12*time.Minute + 34*time.Second) // not at the edge of a bucket
		s := memory.New(time.Now)
		writeDay(t, s)
		w := newFixture(s)
		w.work.depth = work.Depth{Visible: 9, Delayed: 30, InFlight: 4}
		w.deadWork.depth = work.Depth{Visible: 1}
		w.deadStream.depth = work.Depth{Visible: 1, InFlight: 1}
		w.deadCapture.depth = work.Depth{Visible: 2}
		if _, err := w.Evaluated(t.Context()); err != nil { // records today and yesterday
			t.Fatal(err)
		}
		h := w.Handler(credential(t))
		for name, c := range map[string]struct {
			path   string
			status int
		}{"report": {"/report", 200}, "days": {"/report/days", 200}, "healthy": {"/", 200}} {
			status, body := get(t, h, c.path, "Authorization", "Bearer "+token)
			golden(t, name, body)
			if status != c.status {
				t.Errorf("%s: status %d, want %d", c.path, status, c.status)
			}
		}
		time.Sleep(time.Hour)
		status, body := get(t, h, "/")
		golden(t, "unhealthy", body)
		if status != http.StatusServiceUnavailable {
			t.Errorf("an hour without a sweep: status %d, want 503", status)
		}

		// A new deployment.
		h = newFixture(memory.New(time.Now)).Handler(credential(t))
		_, body = get(t, h, "/report", "Authorization", "Bearer "+token)
		golden(t, "report-at-first", body)
	})
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := "testdata/" + name + ".json"
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || string(want) != got {
		t.Errorf("%s (%v):\n%s\nwant\n%s", path, err, got, want)
	}
}

func TestNumberOfReadsDoesNotDependOnTraffic(t *testing.T) {
	client, stack := dynamotest.New(t)
	var mu sync.Mutex
	reads := 0
	s := dynamo.New(client, local.Tables(stack.Name), dynamo.WithMeter(func(write bool, _ types.ConsumedCapacity) {
		mu.Lock()
		defer mu.Unlock()
		if !write {
			reads++
		}
	}))
	writeDay(t, s)
	for i := range 300 { // many more batches
		b := stats.Batch{ID: fmt.Sprint("more ", i), At: time.Now().Add(-time.Duration(i) * 4 * time.Minute), Worked: true, Counts: stats.Counts{Attempts: 10, Delivered: 10}}
		if err := s.AddStatistics(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	count := func(do func(w *fixture)) int {
		w := newFixture(s)
		mu.Lock()
		reads = 0
		mu.Unlock()
		do(w)
		mu.Lock()
		defer mu.Unlock()
		return reads + int(w.work.reads.Load()+w.deadWork.reads.Load()+w.deadStream.reads.Load()+w.deadCapture.reads.Load())
	}
	if n := count(func(w *fixture) { w.Status(t.Context()) }); n > 3 {
		t.Errorf("the status costs %d reads, want at most 3", n)
	}
	if n := count(func(w *fixture) {
		if _, err := w.Report(t.Context()); err != nil {
			t.Error(err)
		}
	}); n > 12 {
		t.Errorf("the report costs %d reads, want at most 12", n)
	} else {
		t.Logf("the report costs %d reads", n)
	}
	if n := count(func(w *fixture) {
		if _, err := w.DaysReport(t.Context(), health.MaxDays); err != nil {
			t.Error(err)
		}
	}); n >= 10 {
		t.Errorf("the report of the days costs %d reads, want fewer than 10", n)
	}
	if n := count(func(w *fixture) {
		h := w.Handler(credential(t))
		for range 20 {
			get(t, h, "/")
		}
	}); n > 3 {
		t.Errorf("20 requests at once cost %d reads, want at most 3", n)
	}
}

func TestAnswersAreCachedForFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFixture(memory.New(time.Now))
		h := w.Handler(health.Credential{})
		for range 10 {
			get(t, h, "/")
			time.Sleep(time.Second)
		}
		if n := w.work.reads.Load(); n != 2 {
			t.Errorf("10 requests in 10 seconds cost %d reads, want 2", n)
		}
	})
}

func TestUnhealthyReasons(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(30 * time.Second)
		s := memory.New(time.Now)
		w := newFixture(s)
		reason := func(want string) {
			t.Helper()
			got := w.Status(t.Context())
			if got.Healthy != (want == "") || want != "" && !strings.Contains(strings.Join(got.Reasons, "\n"), want) {
				t.Errorf("%s: %+v, want %q", time.Now().Format(time.TimeOnly), got, want)
			}
		}
		sweep := func() {
			if err := s.NoteSweep(t.Context(), stats.Sweep{At: time.Now(), Done: true}); err != nil {
				t.Fatal(err)
			}
		}
		batch := func(b stats.Batch) {
			b.ID, b.At = time.Now().String(), time.Now()
			if err := s.AddStatistics(t.Context(), b); err != nil {
				t.Fatal(err)
			}
		}
		reason("no sweep has run yet")
		sweep()
		reason("")
		time.Sleep(health.SilentAfter)
		reason("")
		time.Sleep(time.Second)
		reason("no sweep has run for 5m (expected every minute)")
		sweep()
		reason("")

		// A message is queued after hours without traffic.
		batch(stats.Batch{Worked: true})
		time.Sleep(3 * time.Hour)
		sweep()
		batch(stats.Batch{Counts: stats.Counts{Queued: 3}})
		w.work.depth.Visible = 3
		reason("")
		time.Sleep(health.SilentAfter + time.Minute)
		sweep()
		reason("no message was taken from the work queue for 7m, and it is not empty")
		batch(stats.Batch{Worked: true})
		reason("") // workers take messages from the backlog
		w.work.err = errors.New("sqs: secret detail")
		reason("cannot be read")
		if got := w.Status(t.Context()); strings.Contains(fmt.Sprint(got.Reasons), "secret") {
			t.Errorf("the public status contains the error: %v", got.Reasons)
		}
	})
}

// Capture that fails for more than five minutes makes the deployment unhealthy, so that it
// is known within ten.
func TestStuckCaptureIsUnhealthyWithinTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New(time.Now)
		w := newFixture(s)
		began := time.Now()
		changed := began.Add(-time.Minute)
		var found time.Duration
		for time.Since(began) < 20*time.Minute {
			if err := s.NoteSweep(t.Context(), stats.Sweep{At: time.Now(), Done: true}); err != nil {
				t.Fatal(err)
			}
			// The stream tries again at least every minute.
			mark := platform.StuckCapture{Since: time.Now(), FailedAt: time.Now(), ChangeAt: changed, SequenceNumber: "7"}
			if err := s.MarkStuckCapture(t.Context(), mark); err != nil {
				t.Fatal(err)
			}
			if status := w.Status(t.Context()); !status.Healthy && found == 0 {
				found = time.Since(began)
				if !strings.Contains(status.Reasons[0], "capture has failed at one change") {
					t.Errorf("reasons: %q", status.Reasons)
				}
			}
			r, err := w.Report(t.Context())
			if err != nil || r.Capture.Stuck == nil || r.Capture.Stuck.AgeSeconds != int64(time.Since(began).Seconds()) || r.Capture.Stuck.ChangeAgeSeconds != r.Capture.Stuck.AgeSeconds+60 {
				t.Fatalf("after %s: %+v, %v", time.Since(began), r.Capture.Stuck, err)
			}
			time.Sleep(time.Minute)
		}
		if found == 0 || found > 10*time.Minute {
			t.Errorf("known after %s, want at most 10 minutes", found)
		}
		if err := s.ClearStuckCapture(t.Context(), "7"); err != nil {
			t.Fatal(err)
		}
		if status := w.Status(t.Context()); !status.Healthy {
			t.Errorf("unhealthy after capture went on: %q", status.Reasons)
		}
		// A mark that a process left behind ends by itself.
		if err := s.MarkStuckCapture(t.Context(), platform.StuckCapture{Since: began, FailedAt: time.Now(), SequenceNumber: "8"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(platform.StuckFresh)
		if r, err := w.Report(t.Context()); err != nil || r.Capture.Stuck != nil {
			t.Errorf("an old mark: %+v, %v", r.Capture.Stuck, err)
		}
	})
}

func TestReportNeedsTheToken(t *testing.T) {
	h := newFixture(memory.New(time.Now)).Handler(credential(t))
	for header, want := range map[string]int{
		"": 401, "Bearer": 401, "Bearer ": 401, "Bearer wrong": 401, "Basic " + token: 401, token: 401,
		"Bearer " + token: 200, "bearer " + token: 200,
	} {
		if status, body := get(t, h, "/report", "Authorization", header); status != want {
			t.Errorf("%q: status %d, want %d: %s", header, status, want, body)
		}
	}
	closed := newFixture(memory.New(time.Now)).Handler(health.Credential{})
	for _, header := range []string{"Bearer ", "Bearer " + token, "Bearer " + strings.Repeat("\x00", 32)} {
		if status, _ := get(t, closed, "/report", "Authorization", header); status != 403 {
			t.Errorf("without a credential, %q: status %d, want 403", header, status)
		}
	}
	for path, want := range map[string]int{"/else": 404, "/report/": 404, "/report/days": 401} {
		if status, _ := get(t, h, path); status != want {
			t.Errorf("%s: status %d", path, status)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", nil))
	if w.Code != 405 || !json.Valid(w.Body.Bytes()) {
		t.Errorf("POST: status %d, %s", w.Code, w.Body)
	}
	for _, text := range []string{"x", "00", strings.Repeat("0", 63), token} {
		if _, err := health.ParseCredential(text); err == nil || strings.Contains(err.Error(), token) {
			t.Errorf("%q as a hash: %v", text, err)
		}
	}
}

func TestFailedReportIsUnavailable(t *testing.T) {
	w := newFixture(memory.New(time.Now))
	for _, n := range []int{-1, health.MaxDays + 1} {
		if _, err := w.DaysReport(t.Context(), n); err == nil {
			t.Errorf("a report of %d days was made", n)
		}
	}
	w.deadStream.err = errors.New("secret detail")
	status, body := get(t, w.Handler(credential(t)), "/report", "Authorization", "Bearer "+token)
	if status != 503 || strings.Contains(body, "secret") {
		t.Errorf("status %d: %s", status, body)
	}
}
