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
	"github.com/tidings-dev/tidings/pkg/store/memory"
	"github.com/tidings-dev/tidings/test/alerttest"
)

// The template's defaults.
var thresholds = alert.Thresholds{
	FailurePercent: 50, SuccessPercent: 95, Volume: 20, Pending: 100, SilentMinutes: 5, SlowSeconds: 60, FailedPerDay: 50, RemindMinutes: 60, ResolveAfter: 5,
}

// well is the report of a deployment without trouble.
func well(now time.Time) health.Report {
	return health.Report{At: now, LastSweep: health.Sweep{At: &now, Done: true}}
}

func at[T any](v T) *T { return &v }

func TestRules(t *testing.T) {
	now := time.Date(2026, 1, 29, 12, 34, 56, 0, time.UTC)
	for name, c := range map[string]struct {
		change func(r *health.Report)
		rule   alert.Rule // "" for no finding
		says   string
	}{
		"all well": {func(*health.Report) {}, "", ""},
		"more than half failed": {func(r *health.Report) {
			r.LastHour = health.Window{Attempts: 20, Failed: 11, FailureRate: at(0.55)}
		}, alert.FailureRate, "55 % of the last hour's 20 attempts failed (more than 50 %)."},
		"half failed": {func(r *health.Report) {
			r.LastHour = health.Window{Attempts: 20, Failed: 10, FailureRate: at(0.5)}
		}, "", ""},
		"too few to say": {func(r *health.Report) {
			r.LastHour = health.Window{Attempts: 19, Failed: 19, FailureRate: at(1.0), Dead: 0, SuccessRate: at(0.0)}
		}, "", ""},
		"101 pending":          {func(r *health.Report) { r.Pending = health.Pending{Total: 101, Queued: 1, Waiting: 100} }, alert.PendingHigh, "101 deliveries are pending (more than 100): 1 on the queue"},
		"100 pending":          {func(r *health.Report) { r.Pending = health.Pending{Total: 100} }, "", ""},
		"more than it counted": {func(r *health.Report) { r.Pending = health.Pending{Total: 8000, AtLeast: true} }, alert.PendingHigh, "at least 8000"},
		"a circuit": {func(r *health.Report) {
			r.Circuits = health.CircuitsPart{Open: 1, List: []health.Circuit{{Tenant: "t", EndpointID: "ep_1", Failures: 5, Cause: "the receiver answered 503"}}}
		}, alert.CircuitOpen, "ep_1 is left alone after 5 failures in a row: the receiver answered 503."},
		"silent for more than 5 minutes": {func(r *health.Report) { r.LastSweep.At = at(now.Add(-5*time.Minute - time.Second)) }, alert.Silent, "has not swept for 5m"},
		"silent for 5 minutes":           {func(r *health.Report) { r.LastSweep.At = at(now.Add(-5 * time.Minute)) }, "", ""},
		"not swept yet":                  {func(r *health.Report) { r.LastSweep.At = nil }, "", ""},
		"nobody at the queue": {func(r *health.Report) {
			r.Queue = health.QueueReport{Visible: 1, AgeSeconds: 360}
		}, alert.Silent, "for 6m, and 1 delivery waits there"},
		"dead deliveries": {func(r *health.Report) { r.DeadLetters.LastHour = 1 }, alert.DeadLetters, "1 delivery was given up"},
		"dead yesterday":  {func(r *health.Report) { r.DeadLetters.LastDay = 1 }, "", ""},
		"dead items":      {func(r *health.Report) { r.DeadLetters.WorkQueue = 2 }, alert.DeadLetters, "2 messages are in the work queue's"},
		"dead batches":    {func(r *health.Report) { r.DeadLetters.StreamQueue = 1 }, alert.DeadLetters, "1 batch of events"},
		"p95 over a minute": {func(r *health.Report) {
			r.LastHour = health.Window{Delivered: 20, Latency: &health.Latency{P95: 61.5}}
		}, alert.Slow, "took 1m2s or longer"},
		"p95 of a minute": {func(r *health.Report) {
			r.LastHour = health.Window{Delivered: 20, Latency: &health.Latency{P95: 60}}
		}, "", ""},
		"success below 95 %": {func(r *health.Report) {
			r.LastHour = health.Window{Delivered: 94, Dead: 6, SuccessRate: at(0.94)}
		}, alert.SuccessRate, "94.0 % of the last hour's 100 settled deliveries"},
		"51 failed in a day": {func(r *health.Report) { r.LastDay.Failed = 51 }, alert.FailedToday, "51 attempts failed"},
		"50 failed in a day": {func(r *health.Report) { r.LastDay.Failed = 50 }, "", ""},
		"an endpoint disabled": {func(r *health.Report) {
			r.Disabled = []health.Disabled{{Tenant: "t", EndpointID: "ep_1", Reason: "410 Gone."}}
		}, alert.EndpointOff, "ep_1 was disabled: 410 Gone."},
	} {
		r := well(now)
		c.change(&r)
		found := alert.Find(r, thresholds)
		switch {
		case c.rule == "" && len(found) > 0:
			t.Errorf("%s: found %+v", name, found)
		case c.rule != "" && (len(found) != 1 || found[0].Rule != c.rule || !strings.Contains(found[0].Text, c.says)):
			t.Errorf("%s: found %+v, want %s to say %q", name, found, c.rule, c.says)
		}
	}
}

// world is a number of evaluators on one store, which all see the same report.
type world struct {
	t       *testing.T
	store   *memory.Store
	channel *channel
	trouble func(r *health.Report)
	log     strings.Builder
}

// channel keeps what was sent.
type channel struct {
	mu   sync.Mutex
	sent []string
	fail error
	hook func()
}

func (c *channel) Name() string { return "slack" }

func (c *channel) Send(_ context.Context, m alert.Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return c.fail
	}
	c.sent = append(c.sent, string(m.Kind)+" "+string(m.Rule))
	if c.hook != nil {
		c.hook()
	}
	return nil
}

// take returns what was sent since the last time.
func (c *channel) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	sent := c.sent
	c.sent = nil
	return sent
}

var writers atomic.Int64

func (w *world) evaluator(documents alert.Documents) *alert.Evaluator {
	return &alert.Evaluator{
		Report: func(context.Context) (health.Report, error) {
			r := well(time.Now())
			if w.trouble != nil {
				w.trouble(&r)
			}
			return r, nil
		},
		Documents: documents, Thresholds: thresholds, Channels: []alert.Channel{w.channel}, Stack: "mine",
		Log: slog.New(slog.NewTextHandler(&w.log, nil)), Now: time.Now, Writer: func() string { return fmt.Sprint(writers.Add(1)) },
	}
}

// minutes evaluates every minute.
func (w *world) minutes(e *alert.Evaluator, n int) {
	w.t.Helper()
	for range n {
		if _, err := e.Evaluate(w.t.Context()); err != nil {
			w.t.Error(err)
		}
		time.Sleep(time.Minute)
	}
}

func newWorld(t *testing.T) *world {
	return &world{t: t, store: memory.New(time.Now), channel: &channel{}}
}

func manyPending(r *health.Report) { r.Pending.Total = 1000 }

func (w *world) sent(want ...string) {
	w.t.Helper()
	if got := w.channel.take(); !slices.Equal(got, want) {
		w.t.Errorf("at %s sent %q, want %q", time.Now().Format("15:04"), got, want)
	}
}

func TestAnIncidentIsOneMessageRemindersAndAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.evaluator(w.store)
		w.minutes(e, 10)
		w.sent()
		w.trouble = manyPending
		w.minutes(e, 60)
		w.sent("fired pending")
		w.minutes(e, 60)
		w.sent("still pending")
		w.minutes(e, 60)
		w.sent("still pending")
		w.trouble = nil
		w.minutes(e, 5)
		w.sent() // it may come again
		w.trouble = manyPending
		w.minutes(e, 3)
		w.sent("still pending") // and is the same incident then
		w.trouble = nil
		w.minutes(e, 6)
		w.sent("resolved pending")
		w.minutes(e, 120)
		w.sent()
		w.trouble = manyPending
		w.minutes(e, 1)
		w.sent("fired pending")
		if text := w.log.String(); strings.Count(text, "alert.fired") != 2 || strings.Count(text, "alert.resolved") != 1 {
			t.Errorf("the log says\n%s", text)
		}
	})
}

func TestManyEvaluatorsSendOneMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.trouble = manyPending
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
		w.trouble = nil
		for range 10 {
			round()
		}
		w.sent("resolved pending")
	})
}

func TestWhatBeginsTogetherIsOneMessageARule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		n := 40
		w.trouble = func(r *health.Report) {
			r.Pending.Total = 1000
			for i := range n {
				r.Circuits.List = append(r.Circuits.List, health.Circuit{Tenant: "t", EndpointID: fmt.Sprint("ep_", i), Failures: 5})
			}
		}
		e := w.evaluator(w.store)
		w.minutes(e, 1)
		w.sent("fired circuit", "fired pending")
		n = 41
		w.minutes(e, 1)
		w.sent("fired circuit") // the one that came later
		w.trouble = nil
		w.minutes(e, 10)
		w.sent("resolved circuit", "resolved pending")
	})
}

func TestAChannelThatIsAwayGetsItsMessagesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.evaluator(w.store)
		other := &channel{}
		e.Channels = append(e.Channels, named{other, "email"})
		w.channel.fail = errors.New("it answered 503")
		w.trouble = manyPending
		w.minutes(e, 10)
		if got := other.take(); !slices.Equal(got, []string{"fired pending"}) {
			t.Errorf("the other channel got %q", got)
		}
		w.trouble = nil
		w.minutes(e, 10)
		w.sent()
		w.channel.fail = nil
		w.minutes(e, 1)
		w.sent("fired pending", "resolved pending")
		if got := other.take(); !slices.Equal(got, []string{"resolved pending"}) {
			t.Errorf("the other channel got %q", got)
		}
		if !strings.Contains(w.log.String(), "alert.not_sent") {
			t.Error("the log does not say that Slack was away")
		}
		w.channel.fail = errors.New("for ever")
		w.trouble = manyPending
		w.minutes(e, 30*60)
		w.channel.fail = nil
		w.minutes(e, 1)
		if got := w.channel.take(); len(got) > 26 || len(got) == 0 || got[0] != "still pending" {
			t.Errorf("after a day and six hours it gets %q; what is older than a day is of no use", got)
		}
	})
}

type named struct {
	alert.Channel
	name string
}

func (n named) Name() string { return n.name }

// mortal is a store whose user dies after a message was sent.
type mortal struct {
	alert.Documents
	dead *bool
}

func (m mortal) WriteAlerts(ctx context.Context, document []byte, was int, writer string) (bool, error) {
	if *m.dead {
		return false, errors.New("died")
	}
	return m.Documents.WriteAlerts(ctx, document, was, writer)
}

func TestWhatADeadEvaluatorLeftIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.trouble = manyPending
		dead := false
		dying := w.evaluator(mortal{w.store, &dead})
		w.channel.fail = errors.New("the connection is lost, and with it the evaluator")
		// It dies after it has decided, before it has sent.
		dying.Channels = []alert.Channel{killing{w.channel, &dead}}
		if _, err := dying.Evaluate(t.Context()); err == nil {
			t.Fatal("it lives")
		}
		w.channel.fail = nil
		e := w.evaluator(w.store)
		w.minutes(e, 5)
		w.sent() // the dead one might live
		w.minutes(e, 1)
		w.sent("fired pending")
		w.minutes(e, 20)
		w.sent()
	})
}

type killing struct {
	alert.Channel
	dead *bool
}

func (k killing) Send(ctx context.Context, m alert.Message) error {
	*k.dead = true
	return k.Channel.Send(ctx, m)
}

func TestWithoutChannelsTheLogAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.evaluator(w.store)
		e.Channels = nil
		w.trouble = manyPending
		w.minutes(e, 3)
		document, _, err := w.store.ReadAlerts(t.Context())
		var s alert.State
		if err != nil || json.Unmarshal(document, &s) != nil || len(s.Incidents) != 1 || len(s.Outbox) != 0 || strings.Count(w.log.String(), "alert.fired") != 1 {
			t.Errorf("state %s, %v; log %s", document, err, w.log.String())
		}
	})
}

func TestAReportThatCannotBeMade(t *testing.T) {
	w := newWorld(t)
	e := w.evaluator(w.store)
	e.Report = func(context.Context) (health.Report, error) { return health.Report{}, errors.New("away") }
	if _, err := e.Evaluate(t.Context()); err == nil {
		t.Error("no error: nobody would notice")
	}
}

func message(lines ...string) alert.Message {
	return alert.Message{
		Notice: alert.Notice{Kind: alert.Fired, Rule: alert.CircuitOpen, Lines: lines, At: time.Unix(1769690096, 0)},
		Stack:  "tidings-prod", Console: "https://console.example/",
	}
}

func TestSlackTakesEveryMessage(t *testing.T) {
	slack := &alerttest.Slack{Path: "/services/T0/B0/secret"}
	server := httptest.NewServer(slack)
	defer server.Close()
	s := alert.Slack{URL: server.URL + slack.Path, Client: alert.NewClient()}
	hostile := `<!channel> & <https://evil.example|click> *bold* ` + "`x`"
	n := 0
	for _, kind := range []alert.Kind{alert.Fired, alert.Still, alert.Resolved} {
		for _, rule := range []alert.Rule{alert.FailureRate, alert.PendingHigh, alert.CircuitOpen, alert.Silent, alert.DeadLetters, alert.Slow, alert.SuccessRate, alert.FailedToday, alert.EndpointOff} {
			for _, lines := range [][]string{{"One."}, {hostile}, slices.Repeat([]string{strings.Repeat("ü&", 400)}, 10)} {
				m := message(lines...)
				m.Kind, m.Rule = kind, rule
				if m.Title() == "" {
					t.Errorf("%s has no title", rule)
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
		t.Errorf("took %d of %d, refused %q", len(posts), n, refused)
	}
	if p := posts[0]; p.Header != "🔴 Most attempts fail" || p.Text != "• One." || p.Link != "https://console.example/" {
		t.Errorf("the first is %+v", p)
	}
	if strings.Contains(posts[1].Text, "<!channel>") {
		t.Error("an endpoint's name can wake the whole channel")
	}
}

// The stand-in must be able to refuse.
func TestTheSlackOfTheTestsIsStrict(t *testing.T) {
	for name, body := range map[string]string{
		"no JSON":          `{`,
		"no text":          `{"blocks":[{"type":"header","text":{"type":"plain_text","text":"x"}}]}`,
		"no blocks":        `{"text":"x","blocks":[]}`,
		"an unknown type":  `{"text":"x","blocks":[{"type":"banner","text":{"type":"plain_text","text":"x"}}]}`,
		"a long header":    `{"text":"x","blocks":[{"type":"header","text":{"type":"plain_text","text":"` + strings.Repeat("x", 151) + `"}}]}`,
		"markdown above":   `{"text":"x","blocks":[{"type":"header","text":{"type":"mrkdwn","text":"x"}}]}`,
		"an empty text":    `{"text":"x","blocks":[{"type":"section","text":{"type":"mrkdwn","text":""}}]}`,
		"not escaped":      `{"text":"x","blocks":[{"type":"section","text":{"type":"mrkdwn","text":"a < b"}}]}`,
		"a field misspelt": `{"text":"x","blocks":[{"type":"section","txt":{"type":"mrkdwn","text":"x"}}]}`,
		"a button nowhere": `{"text":"x","blocks":[{"type":"actions","elements":[{"type":"button","text":{"type":"plain_text","text":"x"},"url":"x"}]}]}`,
	} {
		if p, err := alerttest.Parse([]byte(body)); err == nil {
			t.Errorf("%s is taken: %+v", name, p)
		}
	}
}

func TestAWebhookThatFails(t *testing.T) {
	t.Parallel() // it waits between its requests
	var asked atomic.Int32
	statuses := make(chan int, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(<-statuses)
	}))
	defer server.Close()
	for name, c := range map[string]struct {
		answers []int
		ok      bool
	}{
		"after two failures":    {[]int{500, 429, 200}, true},
		"never":                 {[]int{503, 503, 503}, false},
		"revoked":               {[]int{404}, false},
		"a redirect":            {[]int{302}, false},
		"at once":               {[]int{200}, true},
		"after one, then wrong": {[]int{502, 400}, false},
	} {
		asked.Store(0)
		for _, s := range c.answers {
			statuses <- s
		}
		err := alert.Slack{URL: server.URL + "/services/secret", Client: alert.NewClient()}.Send(t.Context(), message("x"))
		if (err == nil) != c.ok || int(asked.Load()) != len(c.answers) {
			t.Errorf("%s: %v after %d requests", name, err, asked.Load())
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error holds the URL: %v", name, err)
		}
	}
	server.Close()
	for _, u := range []string{server.URL + "/services/secret", "http://192.0.2.1:bad/secret", "%secret"} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		err := alert.Slack{URL: u, Client: alert.NewClient()}.Send(ctx, message("x"))
		cancel()
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", u, err)
		}
	}
}

// topic keeps what was published.
type topic struct{ subject, text string }

func (p *topic) Publish(_ context.Context, subject, text string) error {
	p.subject, p.text = subject, text
	return nil
}

func TestEmail(t *testing.T) {
	p := &topic{}
	m := message("ep_1 is left alone.", "ep_2 is left alone.")
	m.Kind = alert.Resolved
	if err := (alert.Email{Publisher: p}).Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if p.subject != "[tidings-prod] Circuit open, resolved" || !strings.Contains(p.text, "- ep_2 is left alone.\n") || !strings.Contains(p.text, "https://console.example/") {
		t.Errorf("%q\n%s", p.subject, p.text)
	}
	m.Stack = strings.Repeat("x", 200)
	if err := (alert.Email{Publisher: p}).Send(t.Context(), m); err != nil || len(p.subject) > 100 {
		t.Errorf("a subject of %d bytes, %v", len(p.subject), err)
	}
}

func TestTheSecretIsHeldToItsForm(t *testing.T) {
	p, err := alert.ParsePrivate(`{"slack_webhook_url":"https://hooks.slack.com/services/x","heartbeat_url":""}`)
	if err != nil || p.SlackWebhookURL == "" || p.HeartbeatURL != "" {
		t.Errorf("%+v, %v", p, err)
	}
	for _, text := range []string{"", "hunter2", `{"slack_webhook_url":"hunter2"}`, `{"heartbeat_url":"ftp://hunter2.example"}`} {
		if _, err := alert.ParsePrivate(text); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestEachGoodSweepIsOneHeartbeat(t *testing.T) {
	var beats atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && r.URL.Path == "/ping/id" {
			beats.Add(1)
		}
	}))
	defer server.Close()
	w := newWorld(t)
	now := time.Now()
	e := w.evaluator(w.store)
	e.Now = func() time.Time { return now }
	e.Heartbeat = &alert.Heartbeat{URL: server.URL + "/ping/id", Client: alert.NewClient()}
	sweep := health.Sweep{At: at(now), Done: true}
	e.Report = func(context.Context) (health.Report, error) { return health.Report{At: now, LastSweep: sweep}, nil }
	beat := func(why string, want int32) {
		t.Helper()
		if _, err := e.Evaluate(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := beats.Swap(0); got != want {
			t.Errorf("%s: %d beats, want %d", why, got, want)
		}
	}
	beat("a good sweep", 1)
	beat("the same sweep", 0)
	now = now.Add(time.Minute)
	sweep.At = at(now)
	sweep.Done = false
	beat("a sweep that was cut", 0)
	sweep.Done = true
	beat("a good sweep", 1)
	sweep.At = at(now.Add(time.Second))
	now = now.Add(10 * time.Minute)
	beat("an old sweep", 0)
	sweep.At = nil
	beat("no sweep", 0)
	sweep.At = at(now)
	server.Close()
	if _, err := e.Evaluate(t.Context()); err != nil {
		t.Errorf("a service that is away hurts: %v", err)
	}
	if text := w.log.String(); !strings.Contains(text, "heartbeat.not_sent") || strings.Contains(text, "/ping/id") {
		t.Errorf("the log says %s", text)
	}
}
