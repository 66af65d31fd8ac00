package local

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/tidings-dev/tidings/pkg/ops/alert"
)

// Token opens the health report of a runner. It protects nothing: the runner
// listens on this machine alone.
const Token = "local"

var localToken = sha256.Sum256([]byte(Token))

// slackParameter makes the template believe in a Slack where there is one, so that
// health is told of its secret. The URL itself is with the secret.
func slackParameter(p alert.Private) string {
	if p == (alert.Private{}) {
		return ""
	}
	return "https://on.this.machine/"
}

// secret is the runner's Secrets Manager: it has the alerts' alone.
func (s *System) secret(_ context.Context, name string) (string, error) {
	if name != StackName+"-alerts" {
		return "", fmt.Errorf("there is no secret %s on this machine", name)
	}
	text, err := json.Marshal(s.options.Alerts)
	return string(text), err
}

// mailbox is the runner's topic.
type mailbox struct{ log *slog.Logger }

func (m mailbox) Publish(ctx context.Context, subject, text string) error {
	m.log.InfoContext(ctx, "email", "subject", subject, "text", text)
	return nil
}

// pace is how time passes for those who watch; nil for as it does. It begins at
// what it is when the runner starts, and what it says is later and later.
func (s *System) pace() func(time.Time) time.Time {
	haste := time.Duration(s.options.Haste)
	if haste <= 1 {
		return nil
	}
	began := time.Now()
	return func(t time.Time) time.Time { return began.Add(t.Sub(began) * haste) }
}
