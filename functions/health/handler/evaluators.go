package handler

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/pkg/ops/alert"
)

// secretTime is how long the channels' secret is cached.
const secretTime = 5 * time.Minute

// evaluators keeps the evaluator of the alerts, and builds a new one when the secret
// that configures its channels has changed.
type evaluators struct {
	secret func(ctx context.Context, name string) (string, error)
	name   string
	email  alert.Channel
	build  func([]alert.Channel, *alert.Heartbeat) *alert.Evaluator

	mu     sync.Mutex
	read   time.Time // when the secret was last read
	text   string    // the secret
	latest *alert.Evaluator
}

// evaluate evaluates the alerts. If the secret cannot be read, it uses the channels
// that it knew before, or else email alone, and returns the error as well.
func (e *evaluators) evaluate(ctx context.Context) (alert.Result, error) {
	evaluator, unread := e.current(ctx)
	done, err := evaluator.Evaluate(ctx)
	if err == nil {
		err = unread
	}
	return done, err
}

// test sends a test message to every channel.
func (e *evaluators) test(ctx context.Context) ([]alert.Tested, error) {
	e.mu.Lock()
	e.read = time.Time{} // a URL that was changed just now is what the operator wants to test
	e.mu.Unlock()
	evaluator, err := e.current(ctx)
	if err != nil {
		return nil, err
	}
	return evaluator.Test(ctx), nil
}

func (e *evaluators) current(ctx context.Context) (*alert.Evaluator, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.latest != nil && time.Since(e.read) < secretTime {
		return e.latest, nil
	}
	text := `{}`
	if e.name != "" {
		var err error
		if text, err = e.secret(ctx, e.name); err != nil {
			return e.latestOrEmail(), fmt.Errorf("read the secret of the alert channels: %w", err)
		}
	}
	p, err := alert.ParseSecret(text)
	if err != nil {
		return e.latestOrEmail(), err
	}
	e.read = time.Now()
	if e.latest != nil && text == e.text {
		return e.latest, nil
	}
	channels, client := []alert.Channel{e.email}, alert.NewClient()
	if p.SlackWebhookURL != "" {
		channels = append(channels, alert.Slack{URL: p.SlackWebhookURL, Client: client})
	}
	var heartbeat *alert.Heartbeat
	if p.HeartbeatURL != "" {
		heartbeat = &alert.Heartbeat{URL: p.HeartbeatURL, Client: client}
	}
	e.text, e.latest = text, e.build(channels, heartbeat)
	return e.latest, nil
}

func (e *evaluators) latestOrEmail() *alert.Evaluator {
	if e.latest != nil {
		return e.latest
	}
	return e.build([]alert.Channel{e.email}, nil)
}
