package endpoint_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/signature"
)

func TestValidateNamesTheField(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*endpoint.Endpoint)
		says   string // empty for valid
	}{
		"valid":                          {func(*endpoint.Endpoint) {}, ""},
		"exact types and wildcards":      {func(e *endpoint.Endpoint) { e.EventTypes = []string{"user.*", "discussion.extended"} }, ""},
		"no tenant":                      {func(e *endpoint.Endpoint) { e.Tenant = "" }, "tenant"},
		"a tenant with a blank":          {func(e *endpoint.Endpoint) { e.Tenant = "a b" }, "tenant: must be 1 to 64 letters"},
		"a tenant that is a path":        {func(e *endpoint.Endpoint) { e.Tenant = "../x" }, "tenant: must be 1 to 64 letters"},
		"a tenant of 65 characters":      {func(e *endpoint.Endpoint) { e.Tenant = strings.Repeat("t", 65) }, "tenant: must be 1 to 64 letters"},
		"a tenant of 64 characters":      {func(e *endpoint.Endpoint) { e.Tenant = strings.Repeat("t", 64) }, ""},
		"an empty type":                  {func(e *endpoint.Endpoint) { e.EventTypes = []string{"user.*", ""} }, `event_types: "" matches no event type`},
		"no url":                         {func(e *endpoint.Endpoint) { e.URL = "" }, "url"},
		"a long url":                     {func(e *endpoint.Endpoint) { e.URL = "https://" + strings.Repeat("x", 3000) }, "url"},
		"no types":                       {func(e *endpoint.Endpoint) { e.EventTypes = nil }, "event_types"},
		"an unknown type":                {func(e *endpoint.Endpoint) { e.EventTypes = []string{"user.exploded"} }, `"user.exploded" matches no event type`},
		"a wildcard without a match":     {func(e *endpoint.Endpoint) { e.EventTypes = []string{"admin.*"} }, `"admin.*"`},
		"a wildcard in the middle":       {func(e *endpoint.Endpoint) { e.EventTypes = []string{"user.*_comment"} }, "wildcard"},
		"a wildcard without a dot":       {func(e *endpoint.Endpoint) { e.EventTypes = []string{"us*"} }, "wildcard"},
		"a renamed type":                 {func(e *endpoint.Endpoint) { e.EventTypes = []string{"user.welcome_email_sent"} }, `"user.welcome_email_sent" was replaced by "user.joined_platform"`},
		"a renamed type, with old names": {func(e *endpoint.Endpoint) { e.EventTypes, e.OldNames = []string{"user.welcome_email_sent"}, true }, "event_types: "},
		"a filter for a renamed type":    {func(e *endpoint.Endpoint) { e.Filter = json.RawMessage(`{"event":["x","user.welcome_email_sent"]}`) }, `filter: event "user.welcome_email_sent" was replaced by "user.joined_platform"`},
		"a filter for a renamed type, in an operator": {func(e *endpoint.Endpoint) {
			e.Filter = json.RawMessage(`{"event":[{"anything-but":["user.welcome_email_sent"]}]}`)
		}, `"user.joined_platform"`},
		"a filter for a renamed type, in an alternative": {func(e *endpoint.Endpoint) {
			e.Filter = json.RawMessage(`{"$or":[{"tenant":["x"]},{"event":["user.welcome_email_sent"]}]}`)
		}, `"user.joined_platform"`},
		"a filter for a renamed type, with old names": {func(e *endpoint.Endpoint) {
			e.Filter, e.OldNames = json.RawMessage(`{"event":["user.welcome_email_sent"]}`), true
		}, ""},
		"a filter with the name in other data": {func(e *endpoint.Endpoint) {
			e.Filter = json.RawMessage(`{"data":{"comment_text":["user.welcome_email_sent"]}}`)
		}, ""},
		"an invalid filter":           {func(e *endpoint.Endpoint) { e.Filter = json.RawMessage(`{"data":"x"}`) }, "filter: data: must be a list"},
		"a filter that is too long":   {func(e *endpoint.Endpoint) { e.Filter = make([]byte, 5000) }, "filter is 5000 bytes"},
		"a timeout of half a second":  {func(e *endpoint.Endpoint) { e.Timeout = time.Second / 2 }, "timeout_seconds is 0.5"},
		"a timeout of a minute":       {func(e *endpoint.Endpoint) { e.Timeout = time.Minute }, "timeout_seconds is 60"},
		"a policy out of bounds":      {func(e *endpoint.Endpoint) { e.Retry.MaxAttempts = 9999 }, "retry.max_attempts"},
		"a version":                   {func(e *endpoint.Endpoint) { e.TypeVersions = map[string]int{"user.joined_platform": 1} }, ""},
		"a version of no type":        {func(e *endpoint.Endpoint) { e.TypeVersions = map[string]int{"user.exploded": 1} }, `type_versions: "user.exploded" is not an event type`},
		"a version that is none":      {func(e *endpoint.Endpoint) { e.TypeVersions = map[string]int{"user.joined_platform": 2} }, "type_versions: user.joined_platform has no version 2; it has 1"},
		"a version of a renamed type": {func(e *endpoint.Endpoint) { e.TypeVersions = map[string]int{"user.welcome_email_sent": 1} }, `was replaced by "user.joined_platform"`},
		"no secret":                   {func(e *endpoint.Endpoint) { e.Secrets = nil }, "secrets"},
	} {
		e := endpoint.Endpoint{Tenant: "t", URL: "https://example.com", EventTypes: []string{"*"}, Secrets: []endpoint.SigningSecret{{Secret: signature.NewSecret()}}}
		c.change(&e)
		err := e.Validate(catalog.Default())
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
	rotate := func(e endpoint.Endpoint, to signature.Secret, at time.Time, overlap time.Duration) endpoint.Endpoint {
		rotated, err := e.Rotate(to, at, overlap)
		if err != nil {
			t.Fatal(err)
		}
		return rotated
	}
	e = rotate(e, b, now, 24*time.Hour)
	for at, want := range map[time.Duration]string{0: "ba", 24*time.Hour - 1: "ba", 24 * time.Hour: "b"} {
		if got := signing(e, now.Add(at)); got != want {
			t.Errorf("%s after the rotation the secrets %q sign, want %q", at, got, want)
		}
	}
	// A second rotation does not extend the expiry of the first secret.
	e = rotate(e, c, now.Add(12*time.Hour), 24*time.Hour)
	for at, want := range map[time.Duration]string{13 * time.Hour: "cba", 25 * time.Hour: "cb", 36 * time.Hour: "c"} {
		if got := signing(e, now.Add(at)); got != want {
			t.Errorf("%s after the first rotation the secrets %q sign, want %q", at, got, want)
		}
	}
	if got := signing(rotate(e, a, now, 0), now); got != "a" {
		t.Errorf("after a rotation without overlap the secrets %q sign", got)
	}
}

// A rotation never ends a secret before its overlap: it is refused.
func TestARotationThatWouldEndASecretEarlyIsRefused(t *testing.T) {
	now := time.Date(2026, 1, 29, 12, 0, 0, 0, time.UTC)
	e := endpoint.Endpoint{Secrets: []endpoint.SigningSecret{{Secret: signature.NewSecret()}}}
	var err error
	for n := range 3 {
		if e, err = e.Rotate(signature.NewSecret(), now.Add(time.Duration(n)*time.Hour), 24*time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	again := now.Add(3 * time.Hour)
	var refused *endpoint.RotationError
	same, err := e.Rotate(signature.NewSecret(), again, 24*time.Hour)
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), "4 secrets that sign, which is the limit: the next one expires at 2026-01-30T12:00:00Z") || len(same.Secrets) != 4 {
		t.Errorf("the fourth rotation: %v, %d secrets", err, len(same.Secrets))
	}
	if rotated, err := e.Rotate(signature.NewSecret(), again, 0); err != nil || len(rotated.Secrets) != 1 {
		t.Errorf("without an overlap: %v, %d secrets", err, len(rotated.Secrets))
	}
	if rotated, err := e.Rotate(signature.NewSecret(), now.Add(24*time.Hour), time.Hour); err != nil || len(rotated.Secrets) != 4 {
		t.Errorf("after the first one expired: %v, %d secrets", err, len(rotated.Secrets))
	}
}

func TestTheOverlapIsZeroToSevenDays(t *testing.T) {
	for overlap, ok := range map[time.Duration]bool{
		-time.Hour: false, -1: false, 0: true, time.Second: true, 7 * 24 * time.Hour: true, 7*24*time.Hour + 1: false, 8784 * time.Hour: false,
	} {
		e := endpoint.Endpoint{Secrets: []endpoint.SigningSecret{{Secret: signature.NewSecret()}}}
		if _, err := e.Rotate(signature.NewSecret(), time.Now(), overlap); (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "it must be 0s to 168h0m0s (7 days)") {
			t.Errorf("%s: %v", overlap, err)
		}
	}
}
