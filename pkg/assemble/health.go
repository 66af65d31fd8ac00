package assemble

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/pkg/aws/functionurl"
	"github.com/tidings-dev/tidings/pkg/aws/lambdaevent"
	"github.com/tidings-dev/tidings/pkg/ops/alert"
	"github.com/tidings-dev/tidings/pkg/ops/health"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
)

// Version is what the binary was built from; the Makefile sets it.
var Version string

// version falls back on what the compiler knows.
func version() string {
	if Version != "" {
		return Version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value[:min(len(s.Value), 12)]
			}
		}
	}
	return "unknown"
}

// HealthSettings is health's environment.
type HealthSettings struct {
	EndpointsTable string `env:"ENDPOINTS_TABLE,required,notEmpty"`
	ControlTable   string `env:"CONTROL_TABLE,required,notEmpty"`
	WorkQueueURL   string `env:"WORK_QUEUE_URL,required,notEmpty"`
	WorkDeadURL    string `env:"WORK_DEAD_LETTER_QUEUE_URL,required,notEmpty"`
	StreamDeadURL  string `env:"STREAM_DEAD_LETTER_QUEUE_URL,required,notEmpty"`
	StackName      string `env:"STACK_NAME,required,notEmpty"`
	AlarmTopicARN  string `env:"ALARM_TOPIC_ARN,required,notEmpty"`
	TokenSHA256    string `env:"HEALTH_TOKEN_SHA256"` // empty: nobody gets the report
	AlertSecret    string `env:"ALERT_SECRET"`        // name of the secret with alert.Private; empty: neither Slack nor heartbeat
	ConsoleURL     string `env:"CONSOLE_URL"`
	alert.Thresholds
}

// Health builds the health function: its URL, and the evaluation of the alerts.
func Health(b Backend, environment map[string]string) (Handle, error) {
	s, err := parse[HealthSettings](environment)
	if err != nil {
		return nil, err
	}
	credential, err := health.ParseCredential(s.TokenSHA256)
	if err != nil {
		return nil, fmt.Errorf("HEALTH_TOKEN_SHA256: %w", err)
	}
	now := func() time.Time { return b.pace(time.Now()) }
	store := b.Store(dynamo.Tables{Endpoints: s.EndpointsTable, Control: s.ControlTable})
	h := &health.Health{
		Statistics: &stats.Reader{Source: store, Now: now}, Circuits: store, Endpoints: store,
		Work: b.Depth(s.WorkQueueURL), DeadWork: b.Depth(s.WorkDeadURL), DeadStream: b.Depth(s.StreamDeadURL),
		Version: version(), Log: b.Log, Now: now,
	}
	serve := functionurl.Handler(h.Handler(credential))
	evaluators := &evaluators{secret: b.Secret, name: s.AlertSecret, email: alert.Email{Publisher: b.Topic(s.AlarmTopicARN)}, make: func(c []alert.Channel, beat *alert.Heartbeat) *alert.Evaluator {
		return &alert.Evaluator{
			Report: h.Report, Documents: store, Thresholds: s.Thresholds, Channels: c, Heartbeat: beat,
			Stack: s.StackName, Console: s.ConsoleURL, Log: b.Log, Now: now, Writer: func() string { return rand.Text()[:16] },
		}
	}}
	return func(ctx context.Context, payload json.RawMessage) (any, error) {
		kind, err := lambdaevent.Of(payload)
		if err != nil {
			return nil, err
		}
		switch kind {
		case lambdaevent.FunctionURL:
			return serve(ctx, payload)
		case lambdaevent.Direct:
			var c struct {
				Action string `json:"action"`
			}
			if err := json.Unmarshal(payload, &c); err != nil {
				return nil, fmt.Errorf("command: %w", err)
			}
			switch c.Action {
			case "evaluate":
				return evaluators.evaluate(ctx)
			case "report":
				return h.Report(ctx)
			}
			return nil, fmt.Errorf("action %q is unknown; the actions are evaluate and report", c.Action)
		}
		return nil, fmt.Errorf("health does not serve a %s", kind)
	}, nil
}

// secretTime is how long the channels' secret is used unread.
const secretTime = 5 * time.Minute

// evaluators makes an evaluator anew when the channels' secret may have changed.
type evaluators struct {
	secret func(ctx context.Context, name string) (string, error)
	name   string
	email  alert.Channel
	make   func([]alert.Channel, *alert.Heartbeat) *alert.Evaluator

	mu   sync.Mutex
	read time.Time
	text string
	now  *alert.Evaluator
}

// evaluate evaluates. Where the secret can't be read, email must do, and the error
// shows in the function's own.
func (e *evaluators) evaluate(ctx context.Context) (alert.Evaluated, error) {
	evaluator, unread := e.current(ctx)
	done, err := evaluator.Evaluate(ctx)
	if err == nil {
		err = unread
	}
	return done, err
}

func (e *evaluators) current(ctx context.Context) (*alert.Evaluator, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.now != nil && time.Since(e.read) < secretTime {
		return e.now, nil
	}
	text := `{}`
	if e.name != "" {
		var err error
		if text, err = e.secret(ctx, e.name); err != nil {
			return e.orEmail(), fmt.Errorf("the alerts' secret: %w", err)
		}
	}
	p, err := alert.ParsePrivate(text)
	if err != nil {
		return e.orEmail(), err
	}
	e.read = time.Now()
	if e.now != nil && text == e.text {
		return e.now, nil
	}
	channels, client := []alert.Channel{e.email}, alert.NewClient()
	if p.SlackWebhookURL != "" {
		channels = append(channels, alert.Slack{URL: p.SlackWebhookURL, Client: client})
	}
	var beat *alert.Heartbeat
	if p.HeartbeatURL != "" {
		beat = &alert.Heartbeat{URL: p.HeartbeatURL, Client: client}
	}
	e.text, e.now = text, e.make(channels, beat)
	return e.now, nil
}

// orEmail is what there was before, or email alone.
func (e *evaluators) orEmail() *alert.Evaluator {
	if e.now != nil {
		return e.now
	}
	return e.make([]alert.Channel{e.email}, nil)
}
