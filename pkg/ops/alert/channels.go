package alert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/pkg/ops/health"
)

const (
	requestTimeout = 5 * time.Second
	maxRequests    = 3 // per message
	// maxRetryAfter caps the Retry-After of a channel.
	maxRetryAfter = 5 * time.Second
)

// Secret is the secret in Secrets Manager that holds the URLs of the channels:
// {"slack_webhook_url":"…","heartbeat_url":"…"}. An empty URL turns the channel off.
type Secret struct {
	SlackWebhookURL string `json:"slack_webhook_url"`
	HeartbeatURL    string `json:"heartbeat_url"`
}

// ParseSecret parses and validates the secret. Its errors do not contain the URLs.
func ParseSecret(text string) (s Secret, err error) {
	if json.Unmarshal([]byte(text), &s) != nil {
		return s, errors.New(`the alert secret must be JSON: {"slack_webhook_url":"…","heartbeat_url":"…"}`)
	}
	if err := s.Check(); err != nil {
		return s, fmt.Errorf("the alert secret: %w", err)
	}
	return s, nil
}

// Check validates the URLs. Its errors do not contain them.
func (s Secret) Check() error {
	for name, u := range map[string]string{"slack_webhook_url": s.SlackWebhookURL, "heartbeat_url": s.HeartbeatURL} {
		if parsed, err := url.Parse(u); u != "" && (err != nil || parsed.Host == "" || parsed.Scheme != "https" && parsed.Scheme != "http") {
			return fmt.Errorf("%s is not an http or https URL", name)
		}
	}
	return nil
}

// NewClient returns the HTTP client for channels. It does not follow redirects.
func NewClient() *http.Client {
	return &http.Client{
		Timeout:       requestTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// request sends a request and retries temporary failures. Its errors do not contain
// the URL, which is the secret.
func request(ctx context.Context, client *http.Client, method, target string, body []byte) error {
	// A heartbeat service and a channel that both hang must leave time for the others.
	ctx, cancel := context.WithTimeout(ctx, maxRequests*requestTimeout)
	defer cancel()
	wait := 500 * time.Millisecond
	for n := 1; ; n++ {
		retryAfter, retry, err := requestOnce(ctx, client, method, target, body)
		if err == nil || !retry || n == maxRequests {
			return err
		}
		select {
		case <-time.After(min(max(wait, retryAfter), maxRetryAfter)):
		case <-ctx.Done():
			return err
		}
		wait *= 2
	}
}

func requestOnce(ctx context.Context, client *http.Client, method, target string, body []byte) (retryAfter time.Duration, retry bool, err error) {
	r, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return 0, false, errors.New("its URL is not valid")
	}
	if len(body) > 0 {
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set("User-Agent", "tidings")
	response, err := client.Do(r)
	var withURL *url.Error
	if errors.As(err, &withURL) {
		err = withURL.Err
	}
	if err != nil {
		return 0, true, err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusSwitchingProtocols {
		// Its body is the connection, which the client's timeout does not end.
		return 0, false, errors.New("it responded with status 101: it must not switch to another protocol")
	}
	if response.StatusCode >= 200 && response.StatusCode < 300 {
		return 0, false, nil // whatever the body is, and however slowly it comes
	}
	text, _ := io.ReadAll(io.LimitReader(response.Body, 128))
	if n, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil {
		retryAfter = time.Duration(n) * time.Second
	}
	retry = response.StatusCode == http.StatusTooManyRequests || response.StatusCode >= 500
	return retryAfter, retry, fmt.Errorf("it responded with status %d: %s", response.StatusCode, strings.TrimSpace(strings.ToValidUTF8(string(text), "")))
}

// Slack posts messages to a Slack incoming webhook.
type Slack struct {
	URL    string
	Client *http.Client
}

// Name returns "slack".
func (s Slack) Name() string { return "slack" }

// Send posts the message as Block Kit blocks.
func (s Slack) Send(ctx context.Context, m Message) error {
	body, err := json.Marshal(SlackPayload(m))
	if err != nil {
		return err
	}
	return request(ctx, s.Client, http.MethodPost, s.URL, body)
}

// How titles show a notice's kind.
var (
	marks    = map[Kind]string{Fired: "🔴", Reminder: "🟠", Resolved: "🟢"}
	suffixes = map[Kind]string{Fired: "", Reminder: ": still open", Resolved: ": resolved"}
)

// maxSlackText is Slack's limit for the text of a section, in characters (Slack API,
// "Block Kit reference").
const maxSlackText = 3000

type object = map[string]any

// SlackPayload returns the message as Block Kit blocks, with the text that
// notifications show.
func SlackPayload(m Message) any {
	head := marks[m.Kind] + " " + m.Title() + suffixes[m.Kind]
	var lines []string
	for _, line := range m.Lines {
		lines = append(lines, "• "+escape(line))
	}
	advice := m.Advice()
	if advice != "" {
		advice = "\n\n" + escape(advice)
	}
	text, limit := strings.Join(lines, "\n"), maxSlackText-len(advice)
	if runes := []rune(text); len(runes) > limit {
		text = string(runes[:limit-1])
		if i := strings.LastIndexByte(text, '&'); i >= 0 && !strings.Contains(text[i:], ";") {
			text = text[:i] // half an entity
		}
		text += "…"
	}
	text += advice
	blocks := []any{
		object{"type": "header", "text": object{"type": "plain_text", "text": head, "emoji": true}},
		object{"type": "section", "text": object{"type": "mrkdwn", "text": text}},
		object{"type": "context", "elements": []any{
			object{"type": "mrkdwn", "text": fmt.Sprintf("*%s* · %s · <!date^%d^{date_short_pretty} {time}|%s>", escape(m.Stack), m.Rule, m.At.Unix(), m.At.UTC().Format(time.RFC3339))},
		}},
	}
	if m.Console != "" {
		blocks = append(blocks, object{"type": "actions", "elements": []any{
			object{"type": "button", "text": object{"type": "plain_text", "text": "Open the console"}, "url": m.Console, "action_id": "console"},
		}})
	}
	return object{"text": head + " (" + escape(m.Stack) + ")", "blocks": blocks}
}

// escape escapes text for mrkdwn (Slack API, "Formatting text for app surfaces").
func escape(text string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(text)
}

// Publisher publishes to an SNS topic.
type Publisher interface {
	Publish(ctx context.Context, subject, text string) error
}

// Email publishes to a topic that sends email to its subscribers.
type Email struct{ Publisher Publisher }

// Name returns "email".
func (e Email) Name() string { return "email" }

// maxSubject is the limit for the subject of an SNS message, in ASCII characters.
const maxSubject = 100

// Send publishes the message as plain text.
func (e Email) Send(ctx context.Context, m Message) error {
	subject := fmt.Sprintf("[%s] %s%s", m.Stack, m.Title(), suffixes[m.Kind])
	if len(subject) > maxSubject {
		subject = subject[:maxSubject]
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s%s\n\n", m.Title(), suffixes[m.Kind])
	for _, line := range m.Lines {
		fmt.Fprintf(&text, "- %s\n", line)
	}
	if advice := m.Advice(); advice != "" {
		fmt.Fprintf(&text, "\n%s\n", advice)
	}
	fmt.Fprintf(&text, "\n%s, rule %s, %s\n", m.Stack, m.Rule, m.At.UTC().Format(time.RFC1123))
	if m.Console != "" {
		fmt.Fprintf(&text, "Console: %s\n", m.Console)
	}
	ctx, cancel := context.WithTimeout(ctx, maxRequests*requestTimeout)
	defer cancel()
	return e.Publisher.Publish(ctx, subject, text.String())
}

// Heartbeat calls a URL after each complete sweep, so that an external service can
// alert when the calls stop: a deployment that is down cannot send alerts itself.
type Heartbeat struct {
	URL    string
	Client *http.Client

	mu   sync.Mutex
	last time.Time // of the last reported sweep
}

// maxSweepAge is the maximum age of a sweep that is reported.
const maxSweepAge = 2 * time.Minute

// beat reports the last sweep if it is complete, recent and not yet reported. A nil
// Heartbeat does nothing.
func (h *Heartbeat) beat(ctx context.Context, r health.Report, log *slog.Logger) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	sweep := r.LastSweep
	if sweep.At == nil || !sweep.Done || !sweep.At.After(h.last) || r.At.Sub(*sweep.At) > maxSweepAge {
		return
	}
	if err := request(ctx, h.Client, http.MethodGet, h.URL, nil); err != nil {
		log.WarnContext(ctx, "heartbeat.not_sent", "error", err.Error())
		return
	}
	h.last = *sweep.At
}
