// Package alerttest is a stand-in for Slack, for tests and `make drill`: an incoming
// webhook that checks every message against Block Kit's rules, so that Slack accepts
// what it accepts, and that can be switched off.
package alerttest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// Post is an accepted message.
type Post struct {
	At     time.Time
	Header string
	Text   string // text of the section
	Link   string // URL of the button; empty without one
}

// Slack is an incoming webhook.
type Slack struct {
	// Path is the webhook's path, its secret. Other paths get a 404 response.
	Path string

	mu      sync.Mutex
	posts   []Post
	refused []string // why messages were rejected
	down    bool
	asked   int // number of requests while it was down
	news    chan struct{}
}

// Down sets whether it responds to every request with 503.
func (s *Slack) Down(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// Posts returns the accepted messages, and the reasons of rejected ones.
func (s *Slack) Posts() (posts []Post, refused []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.posts), slices.Clone(s.refused)
}

// Asked returns the number of requests while it was down.
func (s *Slack) Asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// News returns a channel that is closed at the next request.
func (s *Slack) News() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.news == nil {
		s.news = make(chan struct{})
	}
	return s.news
}

func (s *Slack) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() {
		if s.news != nil {
			close(s.news)
			s.news = nil
		}
	}()
	refuse := func(status int, text string) {
		http.Error(w, text, status)
	}
	switch {
	case s.down:
		s.asked++
		refuse(http.StatusServiceUnavailable, "service_unavailable")
	case r.URL.Path != s.Path:
		refuse(http.StatusNotFound, "no_service")
	case r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json":
		s.refused = append(s.refused, r.Method+" "+r.Header.Get("Content-Type"))
		refuse(http.StatusBadRequest, "invalid_payload")
	default:
		post, err := Parse(body)
		if err != nil {
			s.refused = append(s.refused, err.Error())
			refuse(http.StatusBadRequest, "invalid_blocks")
			return
		}
		post.At = time.Now()
		s.posts = append(s.posts, post)
		_, _ = io.WriteString(w, "ok")
	}
}

// text is Block Kit's text object.
type text struct {
	Type  string `json:"type"`
	Text  string `json:"text"`
	Emoji *bool  `json:"emoji"`
}

func (t *text) check(kind string, most int) error {
	switch {
	case t == nil:
		return errors.New("a text is missing")
	case t.Type != kind:
		return fmt.Errorf("a text has the type %q, want %s", t.Type, kind)
	case t.Text == "" || utf8.RuneCountInString(t.Text) > most:
		return fmt.Errorf("a text has %d characters, want 1 to %d", utf8.RuneCountInString(t.Text), most)
	case t.Emoji != nil && kind != "plain_text":
		return errors.New("emoji is for plain_text")
	}
	if kind == "mrkdwn" {
		return escaped(t.Text)
	}
	return nil
}

// What Slack allows between < and > (links, mentions, dates), and after &.
var (
	angles   = regexp.MustCompile(`<(https?://[^<>|]+|!date\^\d+\^[^<>|]+|![a-z]+|[@#][A-Z0-9]+)(\|[^<>|]+)?>`)
	entities = regexp.MustCompile(`&(amp|lt|gt);`)
)

func escaped(s string) error {
	s = angles.ReplaceAllString(s, "")
	s = entities.ReplaceAllString(s, "")
	if strings.ContainsAny(s, "<>&") {
		return fmt.Errorf("%q is not escaped", s)
	}
	return nil
}

type element struct {
	Type     string `json:"type"`
	Text     *text  `json:"text"`
	URL      string `json:"url"`
	ActionID string `json:"action_id"`
}

type block struct {
	Type     string            `json:"type"`
	Text     *text             `json:"text"`
	Elements []json.RawMessage `json:"elements"`
}

// Parse checks the body of an incoming webhook against Slack's rules (Slack API, "Block
// Kit reference"), as far as alerts use them, and returns its content.
func Parse(body []byte) (p Post, err error) {
	var m struct {
		Text   string            `json:"text"`
		Blocks []json.RawMessage `json:"blocks"`
	}
	if err := strict(body, &m); err != nil {
		return p, err
	}
	if m.Text == "" {
		return p, errors.New("text is missing: notifications would be empty")
	}
	if err := escaped(m.Text); err != nil {
		return p, err
	}
	if len(m.Blocks) == 0 || len(m.Blocks) > 50 {
		return p, fmt.Errorf("%d blocks, want 1 to 50", len(m.Blocks))
	}
	for i, raw := range m.Blocks {
		var b block
		if err := strict(raw, &b); err != nil {
			return p, fmt.Errorf("block %d: %w", i, err)
		}
		if err := p.take(b); err != nil {
			return p, fmt.Errorf("block %d, %s: %w", i, b.Type, err)
		}
	}
	return p, nil
}

func (p *Post) take(b block) error {
	switch b.Type {
	case "header":
		if err := b.Text.check("plain_text", 150); err != nil {
			return err
		}
		p.Header = b.Text.Text
	case "section":
		if err := b.Text.check("mrkdwn", 3000); err != nil {
			return err
		}
		p.Text = b.Text.Text
	case "context":
		if len(b.Elements) == 0 || len(b.Elements) > 10 {
			return fmt.Errorf("%d elements, want 1 to 10", len(b.Elements))
		}
		for _, raw := range b.Elements {
			var t text
			if err := strict(raw, &t); err != nil {
				return err
			}
			if err := t.check("mrkdwn", 3000); err != nil {
				return err
			}
		}
	case "actions":
		if len(b.Elements) == 0 || len(b.Elements) > 25 {
			return fmt.Errorf("%d elements, want 1 to 25", len(b.Elements))
		}
		for _, raw := range b.Elements {
			var e element
			if err := strict(raw, &e); err != nil {
				return err
			}
			if e.Type != "button" {
				return fmt.Errorf("element has the type %q, want button", e.Type)
			}
			if err := e.Text.check("plain_text", 75); err != nil {
				return err
			}
			u, err := url.Parse(e.URL)
			if err != nil || u.Host == "" || len(e.URL) > 3000 {
				return fmt.Errorf("the button's URL %q is not valid", e.URL)
			}
			p.Link = e.URL
		}
	default:
		return errors.New("unsupported block type")
	}
	if b.Type != "context" && b.Type != "actions" && b.Elements != nil {
		return errors.New("elements are not allowed")
	}
	return nil
}

func strict(body []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	return d.Decode(v)
}
