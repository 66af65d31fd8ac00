// Package handler builds the health function from its settings and a backend: AWS's
// services in main, local ones in the local runner. Settings has a field for each
// environment variable that the function reads.
package handler

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/tidings-dev/tidings/pkg/aws/functionurl"
	"github.com/tidings-dev/tidings/pkg/aws/lambdaevent"
	"github.com/tidings-dev/tidings/pkg/aws/lambdamain"
	"github.com/tidings-dev/tidings/pkg/ops/alert"
	"github.com/tidings-dev/tidings/pkg/ops/health"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
)

// Settings are the function's environment variables.
type Settings struct {
	EndpointsTable            string `env:"ENDPOINTS_TABLE,required,notEmpty"`
	DeliveriesTable           string `env:"DELIVERIES_TABLE,required,notEmpty"` // of the failed changes
	ControlTable              string `env:"CONTROL_TABLE,required,notEmpty"`
	WorkQueueURL              string `env:"WORK_QUEUE_URL,required,notEmpty"`
	SlowQueueURL              string `env:"SLOW_QUEUE_URL,required,notEmpty"`
	WorkDeadLetterQueueURL    string `env:"WORK_DEAD_LETTER_QUEUE_URL,required,notEmpty"`
	StreamDeadLetterQueueURL  string `env:"STREAM_DEAD_LETTER_QUEUE_URL,required,notEmpty"`
	CaptureDeadLetterQueueURL string `env:"CAPTURE_DEAD_LETTER_QUEUE_URL,required,notEmpty"`
	StackName                 string `env:"STACK_NAME,required,notEmpty"`
	AlarmTopicARN             string `env:"ALARM_TOPIC_ARN,required,notEmpty"`
	TokenSHA256               string `env:"HEALTH_TOKEN_SHA256"` // empty: the report is refused to everybody
	AlertSecret               string `env:"ALERT_SECRET"`        // name of the secret with alert.Secret; empty: no Slack, no heartbeat
	ConsoleURL                string `env:"CONSOLE_URL"`
	alert.Thresholds
}

// Tables returns the names of the tables that the function uses.
func (s Settings) Tables() dynamo.Tables {
	return dynamo.Tables{Endpoints: s.EndpointsTable, Deliveries: s.DeliveriesTable, Control: s.ControlTable}
}

// Store is what the function stores.
type Store interface {
	health.Circuits
	health.Endpoints
	health.Captures
	alert.Documents
	stats.Source
	stats.Days
}

// Backend is what the function runs on. All fields are required.
type Backend struct {
	Store Store
	// Work and Slow are the work queue and the slow queue; DeadWork, DeadStream and
	// DeadCapture are the dead-letter queues.
	Work, Slow, DeadWork, DeadStream, DeadCapture health.Queue
	// Topic sends the alerts by email.
	Topic alert.Publisher
	// Secret reads a secret by its name.
	Secret  func(ctx context.Context, name string) (string, error)
	Version string
	Log     *slog.Logger
	Now     func() time.Time
}

// New returns the function's handler.
func New(s Settings, b Backend) (lambdamain.Handler, error) {
	credential, err := health.ParseCredential(s.TokenSHA256)
	if err != nil {
		return nil, fmt.Errorf("HEALTH_TOKEN_SHA256: %w", err)
	}
	reader := &stats.Reader{Source: b.Store, Now: b.Now}
	h := &health.Health{
		Statistics: reader, History: &stats.History{Reader: reader, Days: b.Store, Now: b.Now}, Circuits: b.Store, Endpoints: b.Store, Captures: b.Store,
		Work: b.Work, Slow: b.Slow, DeadWork: b.DeadWork, DeadStream: b.DeadStream, DeadCapture: b.DeadCapture, Targets: s.Targets, Version: b.Version, Log: b.Log, Now: b.Now,
	}
	sampled := h.Sampled()
	serve := functionurl.Handler(h.Handler(credential))
	alerts := &evaluators{
		secret: b.Secret, name: s.AlertSecret, email: alert.Email{Publisher: b.Topic},
		build: func(channels []alert.Channel, heartbeat *alert.Heartbeat) *alert.Evaluator {
			return &alert.Evaluator{
				Report: sampled.Evaluated, Documents: b.Store, Thresholds: s.Thresholds, Channels: channels, Heartbeat: heartbeat,
				Stack: s.StackName, Console: s.ConsoleURL, Log: b.Log, Now: b.Now, Writer: func() string { return rand.Text()[:16] },
			}
		},
	}
	return func(ctx context.Context, payload json.RawMessage) (any, error) {
		kind, err := lambdaevent.Of(payload)
		if err != nil {
			return nil, err
		}
		switch kind {
		case lambdaevent.FunctionURL:
			return serve(ctx, payload)
		case lambdaevent.Direct:
			var command struct {
				Action string `json:"action"`
				Days   int    `json:"days"` // for the action days
			}
			if err := json.Unmarshal(payload, &command); err != nil {
				return nil, fmt.Errorf("command: %w", err)
			}
			switch command.Action {
			case "evaluate":
				return alerts.evaluate(ctx)
			case "test_alerts":
				return alerts.test(ctx)
			case "report":
				return h.Report(ctx)
			case "days":
				return h.DaysReport(ctx, command.Days)
			}
			return nil, fmt.Errorf("action %q is unknown; the actions are evaluate, test_alerts, report and days", command.Action)
		}
		return nil, fmt.Errorf("health does not serve a %s", kind)
	}, nil
}
