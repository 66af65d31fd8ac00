package alert_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/ops/alert"
	"github.com/tidings-dev/tidings/pkg/ops/health"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/store/memory"
	"github.com/tidings-dev/tidings/test/alerttest"
	"github.com/tidings-dev/tidings/test/destinationtest"
)

// thresholds are the template's defaults.
var thresholds = alert.Thresholds{
	Targets:        stats.Targets{SuccessPercent: 95, SlowSeconds: 60, FailedPerDay: 50},
	FailurePercent: 50, Volume: 20, Pending: 100, SilentMinutes: 5, RemindMinutes: 60, ResolveAfter: 5,
}

// healthy returns the report of a deployment without any finding.
func healthy(now time.Time) health.Report {
	return health.Report{At: now, LastSweep: health.Sweep{At: &now, Done: true}}
}

func at[T any](v T) *T { return &v }

func TestRules(t *testing.T) {
	now := time.Date(2026, 1, 29, 12, 34, 56, 0, time.UTC)
	for name, c := range map[string]struct {
		change func(r *health.Report)
		rule   alert.Rule // "" for no finding
		text   string
	}{
		"no finding": {func(*health.Report) {}, "", ""},
		"more than 50 % failed": {func(r *health.Report) {
			r.LastHour = health.Window{Attempts: 20, Failed: 11, FailureRate: at(0.55)}
		}, alert.FailureRate, "55 % of the last hour's 20 attempts failed (threshold: 50 %)."},
		"50 % failed": {func(r *health.Report) {
			r.LastHour = health.Window{Attempts: 20, Failed: 10, FailureRate: at(0.5)}
		}, "", ""},
		"below the minimum volume": {func(r *health.Report) {
			r.LastHour = health.Window{Attempts: 19, Failed: 19, FailureRate: at(1.0), Dead: 0, SuccessRate: at(0.0)}
		}, "", ""},
		"101 pending":                         {func(r *health.Report) { r.Pending = health.Pending{Total: 101, Queued: 1, Waiting: 100} }, alert.PendingHigh, "101 deliveries are pending (threshold: 100): 1 on the work queue, 100 scheduled for a later attempt."},
		"100 pending":                         {func(r *health.Report) { r.Pending = health.Pending{Total: 100} }, "", ""},
		"more pending than the sweep counted": {func(r *health.Report) { r.Pending = health.Pending{Total: 8000, AtLeast: true} }, alert.PendingHigh, "At least 8000"},
		"an open circuit breaker": {func(r *health.Report) {
			r.Circuits = health.CircuitsPart{Open: 1, List: []health.Circuit{{Tenant: "t", EndpointID: "ep_1", OpenSince: now, Failures: 5, Cause: "the receiver answered 503"}}}
		}, alert.CircuitOpen, "ep_1: circuit breaker open since Jan 29 12:34 UTC, after 5 consecutive failures. Last error: the receiver answered 503."},
		"no sweep for more than 5 minutes": {func(r *health.Report) { r.LastSweep.At = at(now.Add(-5*time.Minute - time.Second)) }, alert.Silent, "No sweep has run for 5m (expected every minute)"},
		"no sweep for 5 minutes":           {func(r *health.Report) { r.LastSweep.At = at(now.Add(-5 * time.Minute)) }, "", ""},
		"no sweep yet":                     {func(r *health.Report) { r.LastSweep.At = nil }, "", ""},
		"no worker at the queue": {func(r *health.Report) {
			r.Queue = health.QueueReport{Visible: 1, AgeSeconds: 360}
		}, alert.Silent, "No message was taken from the work queue for 6m; it contains 1 message."},
		"dead deliveries":                       {func(r *health.Report) { r.DeadLetters.LastHour = 1 }, alert.DeadLetters, "1 delivery became a dead letter in the last hour (threshold: 0)."},
		"dead deliveries more than an hour ago": {func(r *health.Report) { r.DeadLetters.LastDay = 1 }, "", ""},
		"dead work items":                       {func(r *health.Report) { r.DeadLetters.WorkQueue = 2 }, alert.DeadLetters, "2 messages are in the work queue's dead-letter queue"},
		"dead batches of the stream":            {func(r *health.Report) { r.DeadLetters.StreamQueue = 1 }, alert.DeadLetters, "1 batch of events could not be fanned out for 24 hours."},
		"p95 over a minute": {func(r *health.Report) {
			r.LastHour = health.Window{Delivered: 20, Latency: &health.Latency{P95: 61.5}}
		}, alert.Slow, "5 % of the deliveries took 1m2s or longer"},
		"p95 of a minute": {func(r *health.Report) {
			r.LastHour = health.Window{Delivered: 20, Latency: &health.Latency{P95: 60}}
		}, alert.Slow, "5 % of the deliveries took 1m0s or longer from acceptance to delivery (threshold: 1m0s)."},
		"p95 below a minute": {func(r *health.Report) {
			r.LastHour = health.Window{Delivered: 20, Latency: &health.Latency{P95: 59.999}}
		}, "", ""},
		"success below 95 %": {func(r *health.Report) {
			r.LastHour = health.Window{Delivered: 94, Dead: 6, SuccessRate: at(0.94)}
		}, alert.SuccessRate, "94.0 % of the 100 deliveries that ended in the last hour succeeded (threshold: 95 %)."},
		"a success rate of 95 %": {func(r *health.Report) {
			r.LastHour = health.Window{Delivered: 95, Dead: 5, SuccessRate: at(0.95)}
		}, alert.SuccessRate, "95.0 % of the 100 deliveries"},
		"a success rate above 95 %": {func(r *health.Report) {
			r.LastHour = health.Window{Delivered: 951, Dead: 49, SuccessRate: at(0.951)}
		}, "", ""},
		"50 deliveries failed in a day": {func(r *health.Report) { r.LastDay.FailedDeliveries = 50 }, alert.FailedToday, "50 deliveries failed in the last 24 hours: no attempt will follow (threshold: 50)."},
		"49 deliveries failed in a day": {func(r *health.Report) { r.LastDay.FailedDeliveries = 49 }, "", ""},
		"1000 attempts failed in a day": {func(r *health.Report) { r.LastDay.Failed, r.LastDay.FailedAttempts = 1000, 1000 }, "", ""},
		"dead changes":                  {func(r *health.Report) { r.DeadLetters.CaptureQueue = 1 }, alert.DeadLetters, "1 change of the platform's table could not be captured for 24 hours."},
		"a change that could not become an event": {func(r *health.Report) {
			r.LastHour.CaptureFailed, r.Capture.FailedChanges = 1, 3
		}, alert.Capture, "1 change of the platform's table could not become events in the last hour (target: none); 3 in all are kept"},
		"more failed changes than are counted": {func(r *health.Report) {
			r.LastHour.CaptureFailed, r.Capture.FailedChanges, r.Capture.AtLeast = 2, 1000, true
		}, alert.Capture, "2 changes of the platform's table could not become events in the last hour (target: none); at least 1000 in all"},
		"a failed change that was captured again":    {func(r *health.Report) { r.LastHour.CaptureFailed = 1 }, "", ""},
		"a failed change from more than an hour ago": {func(r *health.Report) { r.LastDay.CaptureFailed, r.Capture.FailedChanges = 1, 1 }, "", ""},
		"capture stuck for more than 5 minutes": {func(r *health.Report) {
			r.Capture.Stuck = &health.StuckCapture{AgeSeconds: 301, ChangeAgeSeconds: 7200}
		}, alert.Capture, "Capture has failed at one change of the platform's table for 5m; later changes wait for it. The change is 2h0m old."},
		"capture stuck for 5 minutes": {func(r *health.Report) { r.Capture.Stuck = &health.StuckCapture{AgeSeconds: 300} }, "", ""},
		"a disabled endpoint": {func(r *health.Report) {
			r.Disabled = []health.Disabled{{Tenant: "t", EndpointID: "ep_1", Reason: "410 Gone."}}
		}, alert.EndpointOff, "ep_1 was disabled: 410 Gone."},
	} {
		r := healthy(now)
		c.change(&r)
		found := alert.Find(r, thresholds)
		switch {
		case c.rule == "" && len(found) > 0:
			t.Errorf("%s: found %+v", name, found)
		case c.rule != "" && (len(found) != 1 || found[0].Rule != c.rule || !strings.Contains(found[0].Text, c.text)):
			t.Errorf("%s: found %+v, want %s with %q", name, found, c.rule, c.text)
		}
	}
}

// fixture has evaluators on one store, which all see the same report.
type fixture struct {
	t       *testing.T
	store   *memory.Store
	channel *channel
	change  func(r *health.Report)
	log     strings.Builder
}

// channel records what was sent.
type channel struct {
	mu   sync.Mutex
	sent []string
	fail error
}

func (c *channel) Name() string { return "slack" }

func (c *channel) Send(_ context.Context, m alert.Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return c.fail
	}
	c.sent = append(c.sent, string(m.Kind)+" "+string(m.Rule))
	return nil
}

// take returns what was sent since the last call.
func (c *channel) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	sent := c.sent
	c.sent = nil
	return sent
}

var writers atomic.Int64

func (w *fixture) evaluator(documents alert.Documents) *alert.Evaluator {
	return &alert.Evaluator{
		Report: func(context.Context) (health.Report, error) {
			r := healthy(time.Now())
			if w.change != nil {
				w.change(&r)
			}
			return r, nil
		},
		Documents: documents, Thresholds: thresholds, Channels: []alert.Channel{w.channel}, Stack: "mine",
		Log: slog.New(slog.NewTextHandler(&w.log, nil)), Now: time.Now, Writer: func() string { return fmt.Sprint(writers.Add(1)) },
	}
}

// evaluate evaluates n times, a minute apart.
func (w *fixture) evaluate(e *alert.Evaluator, n int) {
	w.t.Helper()
	for range n {
		if _, err := e.Evaluate(w.t.Context()); err != nil {
			w.t.Error(err)
		}
		time.Sleep(time.Minute)
	}
}

func newFixture(t *testing.T) *fixture {
	return &fixture{t: t, store: memory.New(time.Now), channel: &channel{}}
}

func manyPending(r *health.Report) { r.Pending.Total = 1000 }

func (w *fixture) sent(want ...string) {
	w.t.Helper()
	if got := w.channel.take(); !slices.Equal(got, want) {
		w.t.Errorf("at %s sent %q, want %q", time.Now().Format("15:04"), got, want)
	}
}

func TestIncidentSendsOneMessageRemindersAndResolved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFixture(t)
		e := w.evaluator(w.store)
		w.evaluate(e, 10)
		w.sent()
		w.change = manyPending
		w.evaluate(e, 60)
		w.sent("fired pending")
		w.evaluate(e, 60)
		w.sent("still pending")
		w.evaluate(e, 60)
		w.sent("still pending")
		w.change = nil
		w.evaluate(e, 5)
		w.sent() // not resolved yet
		w.change = manyPending
		w.evaluate(e, 3)
		w.sent("still pending") // the same incident
		w.change = nil
		w.evaluate(e, 6)
		w.sent("resolved pending")
		w.evaluate(e, 120)
		w.sent()
		w.change = manyPending
		w.evaluate(e, 1)
		w.sent("fired pending")
		if text := w.log.String(); strings.Count(text, "alert.fired") != 2 || strings.Count(text, "alert.resolved") != 1 {
			t.Errorf("the log says\n%s", text)
		}
	})
}

func TestConcurrentEvaluatorsSendOneMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFixture(t)
		w.change = manyPending
		round := func() {
			var running sync.WaitGroup
			for range 16 {
				running.Go(func() {
					e := w.evaluator(w.store)
					e.Log = slog.New(slog.DiscardHandler)
					if _, err := e.Evaluate(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
			running.Wait()
			time.Sleep(time.Minute)
		}
		for range 30 {
			round()
		}
		w.sent("fired pending")
		w.change = nil
		for range 10 {
			round()
		}
		w.sent("resolved pending")
	})
}

func TestSimultaneousIncidentsOfARuleAreOneMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFixture(t)
		n := 40
		w.change = func(r *health.Report) {
			r.Pending.Total = 1000
			for i := range n {
				r.Circuits.List = append(r.Circuits.List, health.Circuit{Tenant: "t", EndpointID: fmt.Sprint("ep_", i), Failures: 5})
			}
		}
		e := w.evaluator(w.store)
		w.evaluate(e, 1)
		w.sent("fired circuit", "fired pending")
		n = 41
		w.evaluate(e, 1)
		w.sent("fired circuit") // the later one
		w.change = nil
		w.evaluate(e, 10)
		w.sent("resolved circuit", "resolved pending")
	})
}

func TestFailedChannelGetsItsMessagesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFixture(t)
		e := w.evaluator(w.store)
		other := &channel{}
		e.Channels = append(e.Channels, named{other, "email"})
		w.channel.fail = errors.New("status 503")
		w.change = manyPending
		w.evaluate(e, 10)
		if got := other.take(); !slices.Equal(got, []string{"fired pending"}) {
			t.Errorf("the other channel received %q", got)
		}
		w.change = nil
		w.evaluate(e, 10)
		w.sent()
		w.channel.fail = nil
		w.evaluate(e, 1)
		w.sent("fired pending", "resolved pending")
		if got := other.take(); !slices.Equal(got, []string{"resolved pending"}) {
			t.Errorf("the other channel received %q", got)
		}
		if !strings.Contains(w.log.String(), "alert.not_sent") {
			t.Error("the log does not mention the failed channel")
		}
		w.channel.fail = errors.New("down for good")
		w.change = manyPending
		w.evaluate(e, 30*60)
		w.channel.fail = nil
		w.evaluate(e, 1)
		if got := w.channel.take(); len(got) > 26 || len(got) == 0 || got[0] != "still pending" {
			t.Errorf("after 30 hours it received %q; want only messages of the last 24 hours", got)
		}
	})
}

type named struct {
	alert.Channel
	name string
}

func (n named) Name() string { return n.name }

// dyingStore fails every write once dead is set.
type dyingStore struct {
	alert.Documents
	dead *bool
}

func (m dyingStore) WriteDocument(ctx context.Context, name string, document []byte, was int, writer string) (bool, error) {
	if *m.dead {
		return false, errors.New("died")
	}
	return m.Documents.WriteDocument(ctx, name, document, was, writer)
}

func TestMessagesOfADeadEvaluatorAreSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFixture(t)
		w.change = manyPending
		dead := false
		dying := w.evaluator(dyingStore{w.store, &dead})
		w.channel.fail = errors.New("connection lost")
		// It dies after storing the message and before sending it.
		dying.Channels = []alert.Channel{killingChannel{w.channel, &dead}}
		if _, err := dying.Evaluate(t.Context()); err == nil {
			t.Fatal("the evaluator did not die")
		}
		w.channel.fail = nil
		e := w.evaluator(w.store)
		w.evaluate(e, 5)
		w.sent() // its claim has not expired
		w.evaluate(e, 1)
		w.sent("fired pending")
		w.evaluate(e, 20)
		w.sent()
	})
}

// killingChannel kills its evaluator while it sends.
type killingChannel struct {
	alert.Channel
	dead *bool
}

func (k killingChannel) Send(ctx context.Context, m alert.Message) error {
	*k.dead = true
	return k.Channel.Send(ctx, m)
}

func TestWithoutChannelsIncidentsAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFixture(t)
		e := w.evaluator(w.store)
		e.Channels = nil
		w.change = manyPending
		w.evaluate(e, 3)
		document, _, err := w.store.ReadDocument(t.Context(), "alerts")
		var s alert.State
		if err != nil || json.Unmarshal(document, &s) != nil || len(s.Incidents) != 1 || len(s.Outbox) != 0 || strings.Count(w.log.String(), "alert.fired") != 1 {
			t.Errorf("state %s, %v; log %s", document, err, w.log.String())
		}
	})
}

func TestFailedReportIsAnError(t *testing.T) {
	w := newFixture(t)
	e := w.evaluator(w.store)
	e.Report = func(context.Context) (health.Report, error) { return health.Report{}, errors.New("store unavailable") }
	if _, err := e.Evaluate(t.Context()); err == nil {
		t.Error("no error")
	}
}

func message(lines ...string) alert.Message {
	return alert.Message{
		Notice: alert.Notice{Kind: alert.Fired, Rule: alert.CircuitOpen, Lines: lines, At: time.Unix(1769690096, 0)},
		Stack:  "tidings-prod", Console: "https://console.example/",
	}
}

func TestSlackAcceptsEveryMessage(t *testing.T) {
	slack := &alerttest.Slack{Path: "/services/T0/B0/secret"}
	server := httptest.NewServer(slack)
	defer server.Close()
	s := alert.Slack{URL: server.URL + slack.Path, Client: alert.NewClient()}
	hostile := `<!channel> & <https://evil.example|click> *bold* ` + "`x`"
	n := 0
	for _, kind := range []alert.Kind{alert.Fired, alert.Reminder, alert.Resolved} {
		for _, rule := range []alert.Rule{alert.FailureRate, alert.PendingHigh, alert.CircuitOpen, alert.Silent, alert.DeadLetters, alert.Slow, alert.SuccessRate, alert.FailedToday, alert.EndpointOff} {
			for _, lines := range [][]string{{"One."}, {hostile}, slices.Repeat([]string{strings.Repeat("ü&", 400)}, 10)} {
				m := message(lines...)
				m.Kind, m.Rule = kind, rule
				if m.Title() == "" || (m.Advice() == "") != (kind == alert.Resolved) || strings.Contains(m.Advice(), "$") {
					t.Errorf("%s %s: title %q, advice %q", kind, rule, m.Title(), m.Advice())
				}
				if err := s.Send(t.Context(), m); err != nil {
					t.Errorf("%s %s: %v", kind, rule, err)
				}
				n++
			}
		}
	}
	posts, refused := slack.Posts()
	if len(posts) != n || len(refused) > 0 {
		t.Errorf("accepted %d of %d, rejected %q", len(posts), n, refused)
	}
	if p := posts[0]; p.Header != "🔴 High failure rate" || !strings.HasPrefix(p.Text, "• One.\n\nFind the failing endpoints: `tidings --stack tidings-prod circuit list`") || p.Link != "https://console.example/" {
		t.Errorf("the first is %+v", p)
	}
	if strings.Contains(posts[1].Text, "<!channel>") {
		t.Error("text of an endpoint can notify the whole channel")
	}
}

func TestSlackStandInRejectsInvalidMessages(t *testing.T) {
	for name, body := range map[string]string{
		"not JSON":             `{`,
		"no text":              `{"blocks":[{"type":"header","text":{"type":"plain_text","text":"x"}}]}`,
		"no blocks":            `{"text":"x","blocks":[]}`,
		"an unknown type":      `{"text":"x","blocks":[{"type":"banner","text":{"type":"plain_text","text":"x"}}]}`,
		"a long header":        `{"text":"x","blocks":[{"type":"header","text":{"type":"plain_text","text":"` + strings.Repeat("x", 151) + `"}}]}`,
		"header in mrkdwn":     `{"text":"x","blocks":[{"type":"header","text":{"type":"mrkdwn","text":"x"}}]}`,
		"an empty text":        `{"text":"x","blocks":[{"type":"section","text":{"type":"mrkdwn","text":""}}]}`,
		"not escaped":          `{"text":"x","blocks":[{"type":"section","text":{"type":"mrkdwn","text":"a < b"}}]}`,
		"a misspelt field":     `{"text":"x","blocks":[{"type":"section","txt":{"type":"mrkdwn","text":"x"}}]}`,
		"a button without URL": `{"text":"x","blocks":[{"type":"actions","elements":[{"type":"button","text":{"type":"plain_text","text":"x"},"url":"x"}]}]}`,
	} {
		if p, err := alerttest.Parse([]byte(body)); err == nil {
			t.Errorf("%s is accepted: %+v", name, p)
		}
	}
}

// roundTripper answers requests without a network, so that tests run in virtual time.
type roundTripper func(*http.Request) (*http.Response, error)

func (r roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return r(request) }

func clientOf(r roundTripper) *http.Client {
	c := alert.NewClient()
	c.Transport = r
	return c
}

func respond(status int) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: http.NoBody}
}

func TestSlackRetriesTemporaryFailures(t *testing.T) {
	for name, c := range map[string]struct {
		statuses []int // 0 is a transport error
		ok       bool
	}{
		"success":                             {[]int{200}, true},
		"success after two failures":          {[]int{500, 429, 200}, true},
		"success after an unreachable host":   {[]int{0, 200}, true},
		"three failures":                      {[]int{503, 503, 503}, false},
		"three times unreachable":             {[]int{0, 0, 0}, false},
		"webhook revoked":                     {[]int{404}, false},
		"redirect":                            {[]int{302}, false},
		"permanent after a temporary failure": {[]int{502, 400}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				requests := 0
				client := clientOf(func(*http.Request) (*http.Response, error) {
					requests++
					if status := c.statuses[requests-1]; status != 0 {
						return respond(status), nil
					}
					return nil, errors.New("connection refused")
				})
				err := alert.Slack{URL: "https://hooks.slack.com/services/secret", Client: client}.Send(t.Context(), message("x"))
				if (err == nil) != c.ok || requests != len(c.statuses) {
					t.Errorf("%v after %d requests", err, requests)
				}
				if err != nil && strings.Contains(err.Error(), "secret") {
					t.Errorf("the error contains the URL: %v", err)
				}
			})
		})
	}
	for _, u := range []string{"http://192.0.2.1:bad/secret", "%secret"} {
		err := alert.Slack{URL: u, Client: alert.NewClient()}.Send(t.Context(), message("x"))
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", u, err)
		}
	}
}

// topic records what was published.
type topic struct{ subject, text string }

func (p *topic) Publish(_ context.Context, subject, text string) error {
	p.subject, p.text = subject, text
	return nil
}

func TestEmail(t *testing.T) {
	p := &topic{}
	m := message("ep_1: circuit breaker open.", "ep_2: circuit breaker open.")
	m.Kind = alert.Reminder
	if err := (alert.Email{Publisher: p}).Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if p.subject != "[tidings-prod] Circuit breaker open: still open" || !strings.Contains(p.text, "- ep_2: circuit breaker open.\n") ||
		!strings.Contains(p.text, "\nIts deliveries stay pending") || !strings.Contains(p.text, "https://console.example/") {
		t.Errorf("%q\n%s", p.subject, p.text)
	}
	m.Stack = strings.Repeat("x", 200)
	if err := (alert.Email{Publisher: p}).Send(t.Context(), m); err != nil || len(p.subject) > 100 {
		t.Errorf("a subject of %d bytes, %v", len(p.subject), err)
	}
}

func TestParseSecret(t *testing.T) {
	p, err := alert.ParseSecret(`{"slack_webhook_url":"https://hooks.slack.com/services/x","heartbeat_url":""}`)
	if err != nil || p.SlackWebhookURL == "" || p.HeartbeatURL != "" {
		t.Errorf("%+v, %v", p, err)
	}
	for _, text := range []string{"", "hunter2", `{"slack_webhook_url":"hunter2"}`, `{"heartbeat_url":"ftp://hunter2.example"}`} {
		if _, err := alert.ParseSecret(text); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestHeartbeatPerCompleteSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		beats, down := 0, false
		w := newFixture(t)
		e := w.evaluator(w.store)
		e.Heartbeat = &alert.Heartbeat{URL: "https://hc.example/ping/id", Client: clientOf(func(r *http.Request) (*http.Response, error) {
			if down {
				return nil, errors.New("connection refused")
			}
			if r.Method == http.MethodGet && r.URL.Path == "/ping/id" {
				beats++
			}
			return respond(http.StatusOK), nil
		})}
		sweep := health.Sweep{At: at(time.Now()), Done: true}
		e.Report = func(context.Context) (health.Report, error) {
			return health.Report{At: time.Now(), LastSweep: sweep}, nil
		}
		beat := func(name string, want int) {
			t.Helper()
			if _, err := e.Evaluate(t.Context()); err != nil {
				t.Fatal(err)
			}
			if beats != want {
				t.Errorf("%s: %d heartbeats, want %d", name, beats, want)
			}
			beats = 0
		}
		beat("a complete sweep", 1)
		beat("the same sweep", 0)
		time.Sleep(time.Minute)
		sweep = health.Sweep{At: at(time.Now())}
		beat("an incomplete sweep", 0)
		sweep.Done = true
		beat("the next complete sweep", 1)
		sweep.At = at(time.Now().Add(time.Second))
		time.Sleep(10 * time.Minute)
		beat("an old sweep", 0)
		sweep.At = nil
		beat("no sweep", 0)
		sweep.At = at(time.Now())
		down = true
		beat("the service is down", 0)
		if text := w.log.String(); !strings.Contains(text, "heartbeat.not_sent") || strings.Contains(text, "/ping/id") {
			t.Errorf("log: %s", text)
		}
	})
}

func TestAChannelThatNeverEndsItsResponseIsBounded(t *testing.T) {
	for name, serve := range destinationtest.EndlessResponses("x") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(serve)
			defer server.Close()
			client := alert.NewClient()
			client.Timeout = 2 * time.Second
			e := &alert.Evaluator{Channels: []alert.Channel{alert.Slack{URL: server.URL, Client: client}}, Heartbeat: &alert.Heartbeat{URL: server.URL, Client: client}, Now: time.Now, Writer: func() string { return "w" }}
			began := time.Now()
			tested := e.Test(t.Context())
			if took := time.Since(began); took > 30*time.Second || len(tested) != 2 {
				t.Errorf("%+v after %s", tested, took)
			}
			for _, channel := range tested {
				if name == "switches protocols" && !strings.Contains(channel.Error, "101") {
					t.Errorf("%+v, want an error that says 101", channel)
				}
			}
		})
	}
}
