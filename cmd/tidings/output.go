package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/tidings-dev/tidings/pkg/breaker"
	"github.com/tidings-dev/tidings/pkg/endpoint"
)

// printJSON prints one document, for programs.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// table prints aligned columns under a heading.
func (a *app) table(heading string, rows func(row func(cells ...any))) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, heading)
	rows(func(cells ...any) { line(w, cells...) })
	return w.Flush()
}

// fields prints names and values, aligned; empty values are left out.
func (a *app) fields(list ...any) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	for i := 0; i+1 < len(list); i += 2 {
		if text := fmt.Sprint(list[i+1]); text != "" {
			line(w, list[i], text)
		}
	}
	return w.Flush()
}

func line(w io.Writer, cells ...any) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(w, "\t")
		}
		fmt.Fprint(w, c)
	}
	fmt.Fprintln(w)
}

// moment shows a time in the reader's zone, to the second; "" for none.
func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// endpointView is an endpoint as it is printed: without its secrets.
type endpointView struct {
	ID           string          `json:"id"`
	Tenant       string          `json:"tenant"`
	URL          string          `json:"url"`
	Description  string          `json:"description,omitempty"`
	EventTypes   []string        `json:"event_types"`
	Filter       json.RawMessage `json:"filter,omitempty"`
	RoleARN      string          `json:"role_arn,omitempty"`
	Credentials  string          `json:"credentials,omitempty"` // the secret's name
	Ordered      bool            `json:"ordered,omitempty"`
	Traceparent  bool            `json:"traceparent,omitempty"`
	Status       endpoint.Status `json:"status"`
	StatusReason string          `json:"status_reason,omitempty"`
	Timeout      float64         `json:"timeout_seconds"`
	MaxAttempts  int             `json:"max_attempts,omitempty"`
	MaxAge       string          `json:"max_age,omitempty"`
	MaxDelay     string          `json:"max_delay,omitempty"`
	RatePerMin   int             `json:"rate_per_minute,omitempty"`
	Burst        int             `json:"burst,omitempty"`
	Breaker      *breakerView    `json:"breaker,omitempty"` // what differs from the defaults
	Secrets      []secretView    `json:"secrets"`
	Secret       string          `json:"secret,omitempty"` // only when it was just made
	CreatedAt    time.Time       `json:"created_at"`
	UpdatedAt    time.Time       `json:"updated_at"`
}

type breakerView struct {
	Failures     int    `json:"failures,omitempty"`
	OpenFor      string `json:"open_for,omitempty"`
	MaxOpenFor   string `json:"max_open_for,omitempty"`
	DisableAfter string `json:"disable_after,omitempty"`
}

// span shows a duration, "" for none.
func span(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

type secretView struct {
	Public    string    `json:"public_key,omitempty"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
}

func viewEndpoint(e endpoint.Endpoint) endpointView {
	v := endpointView{
		ID: e.ID, Tenant: e.Tenant, URL: e.URL, Description: e.Description, EventTypes: e.EventTypes, Filter: e.Filter,
		RoleARN: e.RoleARN, Credentials: e.Credentials, Ordered: e.Ordered, Traceparent: e.Traceparent,
		Status: e.Status, StatusReason: e.StatusReason, Timeout: e.AttemptTimeout().Seconds(),
		MaxAttempts: e.Retry.MaxAttempts, CreatedAt: e.CreatedAt, UpdatedAt: e.UpdatedAt,
	}
	v.MaxAge, v.MaxDelay = span(e.Retry.MaxAge), span(e.Retry.MaxDelay)
	v.RatePerMin, v.Burst = e.Limit.PerMinute, e.Limit.Burst
	if b := e.Breaker; b != (breaker.Policy{}) {
		v.Breaker = &breakerView{Failures: b.Failures, OpenFor: span(b.OpenFor), MaxOpenFor: span(b.MaxOpenFor), DisableAfter: span(b.DisableAfter)}
	}
	for _, s := range e.Secrets {
		v.Secrets = append(v.Secrets, secretView{Public: s.Secret.Public(), ExpiresAt: s.ExpiresAt})
	}
	return v
}
