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
	// requestTime is how long one request of a channel may take.
	requestTime = 5 * time.Second
	// requests is how often a channel tries one message.
	requests = 3
	// longestWait bounds how long a channel waits because it was asked to.
	longestWait = 5 * time.Second
)

// Private is what channels need and nobody may read: one JSON document in Secrets
// Manager, {"slack_webhook_url":"…","heartbeat_url":"…"}. An empty URL turns the
// channel off.
type Private struct {
	SlackWebhookURL string `json:"slack_webhook_url"`
	HeartbeatURL    string `json:"heartbeat_url"`
}

// ParsePrivate reads the document. Its errors say nothing of what is in it.
func ParsePrivate(text string) (p Private, err error) {
	if json.Unmarshal([]byte(text), &p) != nil {
		return p, errors.New(`the alerts' secret is not {"slack_webhook_url":"…","heartbeat_url":"…"}`)
	}
	for name, u := range map[string]string{"slack_webhook_url": p.SlackWebhookURL, "heartbeat_url": p.HeartbeatURL} {
		if parsed, err := url.Parse(u); u != "" && (err != nil || parsed.Host == "" || parsed.Scheme != "https" && parsed.Scheme != "http") {
			return p, fmt.Errorf("the alerts' secret: %s is no URL", name)
		}
	}
	return p, nil
}

// NewClient returns the HTTP client that channels use. It follows no redirect.
func NewClient() *http.Client {
	return &http.Client{
		Timeout:       requestTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// request makes a request until it is answered with success, a few times at most.
// Its errors don't hold the URL, which is the secret.
func request(ctx context.Context, client *http.Client, method, target string, body []byte) error {
	wait := 500 * time.Millisecond
	for try := 1; ; try++ {
		asked, retry, err := once(ctx, client, method, target, body)
		if err == nil || !retry || try == requests {
			return err
		}
		select {
		case <-time.After(min(max(wait, asked), longestWait)):
		case <-ctx.Done():
			return err
		}
		wait *= 2
	}
}

func once(ctx context.Context, client *http.Client, method, target string, body []byte) (asked time.Duration, retry bool, err error) {
	r, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return 0, false, errors.New("its URL cannot be used")
	}
	if len(body) > 0 {
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set("User-Agent", "tidings")
	answer, err := client.Do(r)
	var of *url.Error
	if errors.As(err, &of) {
		err = of.Err // without the URL
	}
	if err != nil {
		return 0, true, err
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(answer.Body, 128))
	if answer.StatusCode >= 200 && answer.StatusCode < 300 {
		return 0, false, nil
	}
	if n, err := strconv.Atoi(answer.Header.Get("Retry-After")); err == nil {
		asked = time.Duration(n) * time.Second
	}
	retry = answer.StatusCode == http.StatusTooManyRequests || answer.StatusCode >= 500
	return asked, retry, fmt.Errorf("it answered %d: %s", answer.StatusCode, strings.TrimSpace(strings.ToValidUTF8(string(text), "")))
}

// Slack posts to an incoming webhook.
type Slack struct {
	URL    string
	Client *http.Client
}

// Name is "slack".
func (s Slack) Name() string { return "slack" }

// Send posts the message as blocks.
func (s Slack) Send(ctx context.Context, m Message) error {
	body, err := json.Marshal(SlackPayload(m))
	if err != nil {
		return err
	}
	return request(ctx, s.Client, http.MethodPost, s.URL, body)
}

// marks and words say a notice's kind.
var (
	marks = map[Kind]string{Fired: "🔴", Still: "🟠", Resolved: "🟢"}
	words = map[Kind]string{Fired: "", Still: ", still", Resolved: ", resolved"}
)

// maxSlackText is how much a section's text may hold (Slack, "Block Kit": 3,000
// characters).
const maxSlackText = 3000

type object = map[string]any

// SlackPayload is the message in Slack's format: Block Kit, with the text that
// notifications show.
func SlackPayload(m Message) any {
	head := marks[m.Kind] + " " + m.Title() + words[m.Kind]
	var lines []string
	for _, line := range m.Lines {
		lines = append(lines, "• "+escape(line))
	}
	text := strings.Join(lines, "\n")
	if runes := []rune(text); len(runes) > maxSlackText {
		text = string(runes[:maxSlackText-1]) + "…"
	}
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

// escape is what Slack wants of text that is not markup.
func escape(text string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(text)
}

// Publisher publishes to a topic; SNS is one.
type Publisher interface {
	Publish(ctx context.Context, subject, text string) error
}

// Email goes through a topic to whoever has subscribed to it.
type Email struct{ Publisher Publisher }

// Name is "email".
func (e Email) Name() string { return "email" }

// maxSubject is SNS's limit, in ASCII.
const maxSubject = 100

// Send publishes the message as text.
func (e Email) Send(ctx context.Context, m Message) error {
	subject := fmt.Sprintf("[%s] %s%s", m.Stack, m.Title(), words[m.Kind])
	if len(subject) > maxSubject {
		subject = subject[:maxSubject]
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s%s\n\n", m.Title(), words[m.Kind])
	for _, line := range m.Lines {
		fmt.Fprintf(&text, "- %s\n", line)
	}
	fmt.Fprintf(&text, "\n%s, rule %s, %s\n", m.Stack, m.Rule, m.At.UTC().Format(time.RFC1123))
	if m.Console != "" {
		fmt.Fprintf(&text, "Console: %s\n", m.Console)
	}
	ctx, cancel := context.WithTimeout(ctx, requests*requestTime)
	defer cancel()
	return e.Publisher.Publish(ctx, subject, text.String())
}

// Heartbeat calls a URL after each good sweep, so that a service outside notices
// when none comes: a deployment that is wholly dead sends no alert.
type Heartbeat struct {
	URL    string
	Client *http.Client

	mu   sync.Mutex
	last time.Time // the sweep that was reported last
}

// fresh is how old a sweep may be that is reported.
const fresh = 2 * time.Minute

// beat reports the last sweep, if it was good and is not reported yet. A nil
// Heartbeat does nothing.
func (h *Heartbeat) beat(ctx context.Context, r health.Report, log *slog.Logger) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	sweep := r.LastSweep
	if sweep.At == nil || !sweep.Done || !sweep.At.After(h.last) || r.At.Sub(*sweep.At) > fresh {
		return
	}
	if err := request(ctx, h.Client, http.MethodGet, h.URL, nil); err != nil {
		log.WarnContext(ctx, "heartbeat.not_sent", "error", err.Error())
		return
	}
	h.last = *sweep.At
}
