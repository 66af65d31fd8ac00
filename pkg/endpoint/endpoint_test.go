package endpoint_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/signature"
)

var known = []string{"discussion.extended", "user.joined_community", "user.posted_comment"}

func TestValidateNamesTheField(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*endpoint.Endpoint)
		says   string // empty for valid
	}{
		"valid":                      {func(*endpoint.Endpoint) {}, ""},
		"exact types and wildcards":  {func(e *endpoint.Endpoint) { e.EventTypes = []string{"user.*", "discussion.extended"} }, ""},
		"no tenant":                  {func(e *endpoint.Endpoint) { e.Tenant = "" }, "tenant"},
		"no url":                     {func(e *endpoint.Endpoint) { e.URL = "" }, "url"},
		"a long url":                 {func(e *endpoint.Endpoint) { e.URL = "https://" + strings.Repeat("x", 3000) }, "url"},
		"no types":                   {func(e *endpoint.Endpoint) { e.EventTypes = nil }, "event_types"},
		"an unknown type":            {func(e *endpoint.Endpoint) { e.EventTypes = []string{"user.exploded"} }, `"user.exploded" matches no event type`},
		"a wildcard without a match": {func(e *endpoint.Endpoint) { e.EventTypes = []string{"admin.*"} }, `"admin.*"`},
		"a wildcard in the middle":   {func(e *endpoint.Endpoint) { e.EventTypes = []string{"user.*_comment"} }, "wildcard"},
		"a wildcard without a dot":   {func(e *endpoint.Endpoint) { e.EventTypes = []string{"us*"} }, "wildcard"},
		"an invalid filter":          {func(e *endpoint.Endpoint) { e.Filter = json.RawMessage(`{"data":"x"}`) }, "filter: data: must be a list"},
		"a filter that is too long":  {func(e *endpoint.Endpoint) { e.Filter = make([]byte, 5000) }, "filter is 5000 bytes"},
		"a timeout of half a second": {func(e *endpoint.Endpoint) { e.Timeout = time.Second / 2 }, "timeout_seconds is 0.5"},
		"a timeout of a minute":      {func(e *endpoint.Endpoint) { e.Timeout = time.Minute }, "timeout_seconds is 60"},
		"a policy out of bounds":     {func(e *endpoint.Endpoint) { e.Retry.MaxAttempts = 99 }, "retry.max_attempts"},
		"no secret":                  {func(e *endpoint.Endpoint) { e.Secrets = nil }, "secrets"},
	} {
		e := endpoint.Endpoint{Tenant: "t", URL: "https://example.com", EventTypes: []string{"*"}, Secrets: []endpoint.SigningSecret{{Secret: signature.NewSecret()}}}
		c.change(&e)
		err := e.Validate(known)
		if (err != nil) != (c.says != "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want it to say %q", name, err, c.says)
		}
	}
}

func TestRotate(t *testing.T) {
	now := time.Date(2026, 1, 29, 12, 0, 0, 0, time.UTC)
	a, b, c := signature.NewSecret(), signature.NewSecret(), signature.NewSecret()
	signing := func(e endpoint.Endpoint, at time.Time) string {
		var names []string
		for _, s := range e.SigningSecrets(at) {
			for name, known := range map[string]signature.Secret{"a": a, "b": b, "c": c} {
				if s.Reveal() == known.Reveal() {
					names = append(names, name)
				}
			}
		}
		return strings.Join(names, "")
	}
	e := endpoint.Endpoint{Secrets: []endpoint.SigningSecret{{Secret: a}}}
	e = e.Rotate(b, now, 24*time.Hour)
	for at, want := range map[time.Duration]string{0: "ba", 24*time.Hour - 1: "ba", 24 * time.Hour: "b"} {
		if got := signing(e, now.Add(at)); got != want {
			t.Errorf("%s after the rotation the secrets %q sign, want %q", at, got, want)
		}
	}
	// A second rotation does not extend the expiry of the first secret.
	e = e.Rotate(c, now.Add(12*time.Hour), 24*time.Hour)
	for at, want := range map[time.Duration]string{13 * time.Hour: "cba", 25 * time.Hour: "cb", 36 * time.Hour: "c"} {
		if got := signing(e, now.Add(at)); got != want {
			t.Errorf("%s after the first rotation the secrets %q sign, want %q", at, got, want)
		}
	}
	if got := signing(e.Rotate(a, now, 0), now); got != "a" {
		t.Errorf("after a rotation without overlap the secrets %q sign", got)
	}
	for range 10 {
		e = e.Rotate(signature.NewSecret(), now, time.Hour)
	}
	if len(e.Secrets) > endpoint.MaxSecrets {
		t.Errorf("%d secrets are kept", len(e.Secrets))
	}
}
