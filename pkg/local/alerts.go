package local

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/tidings-dev/tidings/pkg/ops/alert"
)

// alertSecretName is the name of the secret with the URLs for alerts.
const alertSecretName = StackName + "-alerts"

// alertSecret returns the template's AlertSecret: "" if there are no URLs.
func alertSecret(p alert.Secret) string {
	if p == (alert.Secret{}) {
		return ""
	}
	return alertSecretName
}

// secret stands in for Secrets Manager, with the alerts secret only.
func (s *System) secret(_ context.Context, name string) (string, error) {
	if name != alertSecretName {
		return "", fmt.Errorf("secret %s does not exist in the local runner", name)
	}
	text, err := json.Marshal(s.options.Alerts)
	return string(text), err
}

// logTopic stands in for the SNS topic: it logs what SNS would send by email.
type logTopic struct{ log *slog.Logger }

func (t logTopic) Publish(ctx context.Context, subject, text string) error {
	t.log.InfoContext(ctx, "email", "subject", subject, "text", text)
	return nil
}

// pace returns the clock that Options.TimeScale asks for, as a function of the real
// time; nil for real time. It starts at the time of the call.
func (s *System) pace() func(time.Time) time.Time {
	scale := time.Duration(s.options.TimeScale)
	if scale <= 1 {
		return nil
	}
	began := time.Now()
	return func(t time.Time) time.Time { return began.Add(t.Sub(began) * scale) }
}
