//go:build rig

// Package drill_test breaks the local runner in eleven ways, each in a runner of its own. It
// prints which alerts came, how soon, and that each was resolved after its cause was
// removed. An HTTP server takes the place of Slack and checks every message against
// Block Kit's rules. The test fails if an alert is missing, invalid or not resolved.
//
// The sweep, statistics and alerts run on a clock that is 120 times faster, so that
// an hour's window takes half a minute. The functions are the deployed ones.
package drill_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/retry"
	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/receiver"
	"github.com/tidings-dev/tidings/pkg/ops/alert"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/test/alerttest"
	"github.com/tidings-dev/tidings/test/localrunner"
)

const (
	// haste is the factor of the faster clock: a minute takes half a second.
	haste = 120
	// patience is the limit for an alert and for its resolution. An alert is resolved
	// when its hour's window has passed, which takes thirty seconds on an idle machine.
	patience = 4 * time.Minute
)

// incident is one way to break the runner.
type incident struct {
	name string
	// cause breaks the runner; the times of alerts count from its start. cure repairs it.
	cause, cure func(ctx context.Context, s *stage) error
	// alerts must come and be resolved. Other alerts may come, and must be resolved, too.
	alerts []alert.Rule
	// check checks the final state.
	check func(ctx context.Context, s *stage) error
}

var (
	failing = receiver.Behaviour{FailRate: 1, FailStatus: 503}
	well    = receiver.Behaviour{}
)

func behave(b receiver.Behaviour) func(context.Context, *stage) error {
	return func(_ context.Context, s *stage) error { s.receiver.SetBehaviour(b); return nil }
}

// patient has a circuit that does not open, and a limit of attempts.
func patient(attempts int) func(*endpoint.Endpoint) {
	return func(e *endpoint.Endpoint) {
		e.Breaker = breaker.Policy{Failures: 100}
		e.Retry = retry.Policy{MaxAttempts: attempts, MaxDelay: time.Second}
	}
}

// breaking has a circuit that opens after three failures.
func breaking(e *endpoint.Endpoint) {
	e.Breaker = breaker.Policy{Failures: 3, FailingFor: time.Millisecond, OpenFor: 5 * time.Second, MaxOpenFor: 5 * time.Second}
}

func ill(b receiver.Behaviour, endpoints, events int, settings func(*endpoint.Endpoint)) func(context.Context, *stage) error {
	return func(ctx context.Context, s *stage) error {
		s.receiver.SetBehaviour(b)
		for range endpoints {
			if err := s.endpoint(ctx, settings); err != nil {
				return err
			}
		}
		return s.emit(ctx, events)
	}
}

var incidents = []incident{
	{name: "receiver down", cause: ill(failing, 1, 8, patient(3)), cure: behave(well), alerts: []alert.Rule{alert.FailureRate, alert.DeadLetters}},
	{name: "receiver slow", cause: ill(receiver.Behaviour{Slow: 1500 * time.Millisecond}, 1, 24, patient(3)), cure: behave(well), alerts: []alert.Rule{alert.Slow}},
	{name: "half and more of the requests fail", cause: ill(receiver.Behaviour{FailRate: 0.75}, 1, 16, patient(2)), cure: behave(well), alerts: []alert.Rule{alert.FailureRate}},
	{
		name:   "dispatcher stopped",
		cause:  func(_ context.Context, s *stage) error { s.system.Pause("sweep"); return nil },
		cure:   func(_ context.Context, s *stage) error { s.system.Resume("sweep"); return nil },
		alerts: []alert.Rule{alert.Silent},
	},
	{
		name: "queue stuck, with a backlog",
		cause: func(ctx context.Context, s *stage) error {
			s.system.Pause("work")
			return ill(well, 1, 110, patient(3))(ctx, s)
		},
		cure:   func(_ context.Context, s *stage) error { s.system.Resume("work"); return nil },
		alerts: []alert.Rule{alert.Silent, alert.PendingHigh},
		check:  func(ctx context.Context, s *stage) error { return s.receiver.Wait(ctx, 110, patience) },
	},
	{name: "dead letters", cause: ill(failing, 1, 3, patient(1)), cure: behave(well), alerts: []alert.Rule{alert.DeadLetters}},
	{
		name:   "one circuit",
		cause:  ill(failing, 1, 4, breaking),
		cure:   behave(well),
		alerts: []alert.Rule{alert.CircuitOpen},
		check:  func(ctx context.Context, s *stage) error { return s.receiver.Wait(ctx, 4, patience) },
	},
	{name: "mass failure: ten endpoints", cause: ill(failing, 10, 4, breaking), cure: behave(well), alerts: []alert.Rule{alert.CircuitOpen, alert.FailureRate}},
	{
		name: "recovery: what waited behind a circuit arrives",
		cause: func(ctx context.Context, s *stage) error {
			if err := ill(failing, 1, 4, breaking)(ctx, s); err != nil {
				return err
			}
			if err := s.wait(ctx, alert.Fired, alert.CircuitOpen); err != nil {
				return err
			}
			return s.emit(ctx, 110)
		},
		cure:   behave(well),
		alerts: []alert.Rule{alert.CircuitOpen, alert.PendingHigh},
		check:  func(ctx context.Context, s *stage) error { return s.receiver.Wait(ctx, 114, patience) },
	},
	{
		name: "a platform change that cannot become an event",
		cause: func(ctx context.Context, s *stage) error {
			bad := platform.Comment{Common: platform.Common{Tenant: "no/tenant"}, ID: "m_1", DiscussionID: "d_1", UserID: "u_1", Text: "hello"}
			return s.system.Store.PutRecord(ctx, bad)
		},
		cure:   func(context.Context, *stage) error { return nil }, // an hour passes
		alerts: []alert.Rule{alert.Capture},
		check: func(ctx context.Context, s *stage) error {
			kept, err := s.system.Store.ListFailedChanges(ctx, time.Time{}, 0, "")
			if err == nil && len(kept.Changes) != 1 {
				err = fmt.Errorf("%d failed changes are kept, want 1", len(kept.Changes))
			}
			return err
		},
	},
	{
		name: "Slack down meanwhile",
		cause: func(ctx context.Context, s *stage) error {
			s.slack.Down(true)
			if err := ill(failing, 1, 3, patient(1))(ctx, s); err != nil {
				return err
			}
			for s.slack.Asked() < 6 { // two evaluations, three requests each
				select {
				case <-s.slack.News():
				case <-time.After(time.Second):
				case <-ctx.Done():
					return errors.New("while Slack was down it was not asked again")
				}
			}
			s.slack.Down(false)
			return nil
		},
		cure:   behave(well),
		alerts: []alert.Rule{alert.DeadLetters},
	},
}

// stage is a runner, with a receiver and a Slack.
type stage struct {
	system   *local.System
	slack    *alerttest.Slack
	receiver *localrunner.Recorder
	secret   signature.Secret
	emitted  int
}

func (s *stage) endpoint(ctx context.Context, settings func(*endpoint.Endpoint)) error {
	_, err := localrunner.AddEndpoint(ctx, s.system.Store, s.receiver.URL, s.secret, settings)
	return err
}

func (s *stage) emit(ctx context.Context, n int) error {
	var list []emit.Request
	for range n {
		list = append(list, localrunner.Comment(s.emitted))
		s.emitted++
	}
	_, err := localrunner.Post(ctx, s.system.URLs["emit"], map[string]any{"events": list})
	if err != nil {
		return fmt.Errorf("emit %d events: %w", n, err)
	}
	return nil
}

// heard is what Slack received for a rule.
type heard struct{ fired, resolved time.Time }

var rules = []alert.Rule{
	alert.FailureRate, alert.PendingHigh, alert.CircuitOpen, alert.Silent, alert.DeadLetters, alert.Slow, alert.SuccessRate, alert.FailedToday, alert.EndpointOff, alert.Capture,
}

// heard returns what Slack received since the incident began.
func (s *stage) heard() map[alert.Rule]heard {
	all := map[alert.Rule]heard{}
	posts, _ := s.slack.Posts()
	for _, p := range posts {
		for _, rule := range rules {
			if !strings.Contains(p.Header, (alert.Notice{Rule: rule}).Title()) {
				continue
			}
			h := all[rule]
			switch {
			case strings.HasSuffix(p.Header, "resolved"):
				h.resolved = p.At
			case h.fired.IsZero():
				h.fired = p.At
				fallthrough
			default:
				h.resolved = time.Time{} // it fired again
			}
			all[rule] = h
		}
	}
	return all
}

// wait waits until Slack has received an alert of each rule.
func (s *stage) wait(ctx context.Context, kind alert.Kind, wanted ...alert.Rule) error {
	for {
		news := s.slack.News()
		missing := ""
		for rule, h := range s.heard() {
			if kind == alert.Resolved && h.resolved.IsZero() {
				missing = string(rule)
			}
		}
		for _, rule := range wanted {
			if h := s.heard()[rule]; h.fired.IsZero() || kind == alert.Resolved && h.resolved.IsZero() {
				missing = string(rule)
			}
		}
		if missing == "" {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return fmt.Errorf("the alert %s was not %s in time", missing, kind)
		}
	}
}

// ready waits until the runner has swept.
func (s *stage) ready(ctx context.Context) error {
	for {
		_, sweep, err := s.system.Store.ReadStatistics(ctx, nil)
		if err != nil || !sweep.At.IsZero() {
			return err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return errors.New("the runner does not sweep")
		}
	}
}

// result is the result of an incident.
type result struct {
	heard       map[alert.Rule]heard
	began, over time.Time // of the cause
	messages    int
	err         error
}

func run(ctx context.Context, in incident, seed uint64) (r result) {
	slack := &alerttest.Slack{Path: "/services/T0/B0/drill"}
	server := httptest.NewServer(slack)
	defer server.Close()
	fail := func(err error) result { r.err = err; return r }
	system, err := local.Open(ctx, local.Options{
		Template: "template.yaml", Memory: true, TimeScale: haste, Log: slog.New(slog.DiscardHandler),
		Alerts: alert.Secret{SlackWebhookURL: server.URL + slack.Path},
	})
	if err != nil {
		return fail(err)
	}
	defer system.Close()
	running, stop := context.WithCancel(ctx)
	var runner sync.WaitGroup
	runner.Go(func() {
		if err := system.Run(running); err != nil {
			r.err = errors.Join(r.err, err)
		}
	})
	defer runner.Wait()
	defer stop()
	s := &stage{system: system, slack: slack, secret: signature.NewSecret()}
	if s.receiver, err = localrunner.Receive(seed, well, s.secret); err != nil {
		return fail(err)
	}
	if err := s.ready(ctx); err != nil {
		return fail(err)
	}
	r.began = time.Now()
	causing, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := in.cause(causing, s); err != nil {
		return fail(err)
	}
	if err := s.wait(causing, alert.Fired, in.alerts...); err != nil {
		r.heard = s.heard()
		return fail(err)
	}
	r.over = time.Now()
	curing, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := in.cure(curing, s); err != nil {
		return fail(err)
	}
	if in.check != nil {
		if err := in.check(curing, s); err != nil {
			return fail(err)
		}
	}
	err = s.wait(curing, alert.Resolved, in.alerts...)
	r.heard = s.heard()
	posts, refused := slack.Posts()
	r.messages = len(posts)
	if len(refused) > 0 {
		err = errors.Join(err, fmt.Errorf("Slack would refuse: %q", refused))
	}
	r.err = err
	return r
}

func TestDrill(t *testing.T) {
	t.Chdir("../..")
	ctx := t.Context()
	results := make([]result, len(incidents))
	var all sync.WaitGroup
	// Running all incidents at once would overload the machine.
	slots := make(chan struct{}, 5)
	for i, in := range incidents {
		all.Go(func() {
			slots <- struct{}{}
			results[i] = run(ctx, in, uint64(i+1))
			<-slots
			fmt.Fprintf(os.Stderr, "  %s: done\n", in.name)
		})
	}
	all.Wait()

	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "INCIDENT\tALERT\tCAME AFTER\tDEPLOYED\tRESOLVED AFTER THE CURE\tDEPLOYED\tMESSAGES")
	for i, in := range incidents {
		r := results[i]
		name, messages := in.name, fmt.Sprint(r.messages)
		for _, rule := range rules {
			h, came := r.heard[rule]
			if !came {
				continue
			}
			resolved, of := "NOT RESOLVED", ""
			if !h.resolved.IsZero() {
				resolved, of = took(r.over, h.resolved)
			}
			after, deployed := took(r.began, h.fired)
			mark := ""
			if !slices.Contains(in.alerts, rule) {
				mark = " (too)"
			}
			fmt.Fprintf(table, "%s\t%s%s\t%s\t%s\t%s\t%s\t%s\n", name, rule, mark, after, deployed, resolved, of, messages)
			name, messages = "", ""
		}
		if r.err != nil {
			t.Errorf("%s: %v", in.name, r.err)
			fmt.Fprintf(table, "%s\tFAILED: %v\t\t\t\t\t\n", in.name, r.err)
		}
	}
	_ = table.Flush()
	fmt.Printf("\nTime passes %d times faster here. DEPLOYED is the time in a deployment.\n", haste)
}

// took renders a duration, here and in a deployment.
func took(from, to time.Time) (here, deployed string) {
	d := max(to.Sub(from), 0)
	return fmt.Sprintf("%.1fs", d.Seconds()), (d * haste).Round(time.Minute).String()
}
