package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/testsend"
)

// Endpoint is an endpoint as it is shown: without its secrets.
type Endpoint struct {
	ID           string          `json:"id"`
	Tenant       string          `json:"tenant"`
	URL          string          `json:"url"`
	Protocol     string          `json:"protocol" doc:"As the log's protocol is: http for HTTPS, too"`
	Description  string          `json:"description,omitempty"`
	EventTypes   []string        `json:"event_types" nullable:"false"`
	Filter       json.RawMessage `json:"filter,omitempty" doc:"An EventBridge event pattern over the body"`
	RoleARN      string          `json:"role_arn,omitempty"`
	Credentials  string          `json:"credentials,omitempty" doc:"The name of the secret, never the secret"`
	Ordered      bool            `json:"ordered,omitempty"`
	Traceparent  bool            `json:"traceparent,omitempty" doc:"Whether attempts carry the W3C header"`
	Timeout      float64         `json:"timeout_seconds"`
	MaxAttempts  int             `json:"max_attempts,omitempty"`
	MaxAge       string          `json:"max_age,omitempty"`
	MaxDelay     string          `json:"max_delay,omitempty"`
	PerMinute    int             `json:"rate_per_minute,omitempty"`
	Burst        int             `json:"burst,omitempty"`
	Breaker      BreakerSettings `json:"breaker"`
	Status       endpoint.Status `json:"status" enum:"enabled,disabled"`
	StatusReason string          `json:"status_reason,omitempty"`
	PublicKey    string          `json:"public_key,omitempty" doc:"Of an endpoint that signs with Ed25519"`
	Replaced     []Replaced      `json:"replaced_secrets,omitempty" doc:"Secrets that are replaced and still sign, newest first"`
	Version      int             `json:"version"`
	CreatedAt    time.Time       `json:"created_at"`
	UpdatedAt    time.Time       `json:"updated_at"`
}

// Replaced is a secret that signs beside the one that replaced it.
type Replaced struct {
	PublicKey string    `json:"public_key,omitempty" doc:"Of an Ed25519 key"`
	ExpiresAt time.Time `json:"expires_at"`
}

// BreakerSettings are what of a circuit breaker is not the default.
type BreakerSettings struct {
	Failures     int    `json:"failures,omitempty" doc:"In a row until it opens"`
	OpenFor      string `json:"open_for,omitempty" doc:"A duration: until the first probe"`
	MaxOpenFor   string `json:"max_open_for,omitempty" doc:"A duration: the longest wait between probes"`
	DisableAfter string `json:"disable_after,omitempty" doc:"A duration: an endpoint that has only failed for so long is disabled"`
}

// span is a duration that is set, in words.
func formatDuration(d time.Duration) string {
	if d == 0 {
		return ""
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func (o *Operations) view(e endpoint.Endpoint) Endpoint { return ViewEndpoint(e, o.Now()) }

// ViewEndpoint shows an endpoint, as the tool does, too.
func ViewEndpoint(e endpoint.Endpoint, now time.Time) Endpoint {
	v := Endpoint{
		ID: e.ID, Tenant: e.Tenant, URL: e.URL, Protocol: destination.TargetOf(e).Protocol(), Description: e.Description,
		EventTypes: append([]string{}, e.EventTypes...), Filter: e.Filter, RoleARN: e.RoleARN, Credentials: e.Credentials,
		Ordered: e.Ordered, Traceparent: e.Traceparent, Timeout: e.AttemptTimeout().Seconds(), MaxAttempts: e.Retry.MaxAttempts,
		Status: e.Status, StatusReason: e.StatusReason, Version: e.Version, CreatedAt: e.CreatedAt, UpdatedAt: e.UpdatedAt,
	}
	v.MaxAge, v.MaxDelay = formatDuration(e.Retry.MaxAge), formatDuration(e.Retry.MaxDelay)
	v.PerMinute, v.Burst = e.Limit.PerMinute, e.Limit.Burst
	b := e.Breaker
	v.Breaker = BreakerSettings{Failures: b.Failures, OpenFor: formatDuration(b.OpenFor), MaxOpenFor: formatDuration(b.MaxOpenFor), DisableAfter: formatDuration(b.DisableAfter)}
	for i, s := range e.Secrets {
		switch {
		case i == 0:
			v.PublicKey = s.Secret.Public()
		case now.Before(s.ExpiresAt):
			v.Replaced = append(v.Replaced, Replaced{PublicKey: s.Secret.Public(), ExpiresAt: s.ExpiresAt})
		}
	}
	return v
}

// WithSecret is an endpoint with the secret that it has just got: the one time
// that it is shown.
type WithSecret struct {
	Endpoint
	Secret string `json:"secret,omitempty" doc:"The signing secret, shown this once; absent where the endpoint signs with Ed25519"`
}

// ShowSecret shows an endpoint with its newest secret, as the tool does, too.
func ShowSecret(e endpoint.Endpoint, now time.Time) WithSecret {
	v := WithSecret{Endpoint: ViewEndpoint(e, now)}
	if v.PublicKey == "" && len(e.Secrets) > 0 {
		v.Secret = e.Secrets[0].Secret.Reveal()
	}
	return v
}

// Settings are what of an endpoint can be set.
type Settings struct {
	URL         string          `json:"url" doc:"Its scheme chooses the protocol"`
	Description string          `json:"description,omitempty"`
	EventTypes  []string        `json:"event_types,omitempty" doc:"Exact types, user.* or *; every type where it is empty"`
	Filter      json.RawMessage `json:"filter,omitempty" doc:"An EventBridge event pattern over the body"`
	RoleARN     string          `json:"role_arn,omitempty"`
	Credentials string          `json:"credentials,omitempty" doc:"The name of the secret, never the secret"`
	Ordered     bool            `json:"ordered,omitempty"`
	Traceparent bool            `json:"traceparent,omitempty" doc:"Send the W3C header, an attribute on brokers"`
	Timeout     float64         `json:"timeout_seconds,omitempty"`
	MaxAttempts int             `json:"max_attempts,omitempty"`
	MaxAge      string          `json:"max_age,omitempty" doc:"A duration such as 72h; the default where it is empty"`
	MaxDelay    string          `json:"max_delay,omitempty" doc:"A duration such as 6h; the default where it is empty"`
	PerMinute   int             `json:"rate_per_minute,omitempty" doc:"At most so many attempts a minute; no limit where it is 0"`
	Burst       int             `json:"burst,omitempty"`
	Breaker     BreakerSettings `json:"breaker,omitempty"`
	Ed25519     bool            `json:"ed25519,omitempty" doc:"Sign with an Ed25519 key; counts when the endpoint is added"`
	Version     int             `json:"version,omitempty" doc:"Of the endpoint that was read, when it is changed"`
}

// apply sets an endpoint's fields; it fails on what is no duration.
func (s Settings) apply(e *endpoint.Endpoint) error {
	var errs []error
	duration := func(field, text string) time.Duration {
		if text == "" {
			return 0
		}
		d, err := time.ParseDuration(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %q is no duration: write it as 90s, 30m or 72h", field, text))
		}
		return d
	}
	e.URL, e.Description = strings.TrimSpace(s.URL), s.Description
	e.EventTypes = slices.Clone(s.EventTypes)
	if len(e.EventTypes) == 0 {
		e.EventTypes = []string{"*"}
	}
	e.Filter = s.Filter
	if text := strings.TrimSpace(string(s.Filter)); text == "" || text == "null" {
		e.Filter = nil
	}
	e.RoleARN, e.Credentials, e.Ordered, e.Traceparent = s.RoleARN, s.Credentials, s.Ordered, s.Traceparent
	e.Timeout = time.Duration(s.Timeout * float64(time.Second))
	e.Retry.MaxAttempts = s.MaxAttempts
	e.Retry.MaxAge, e.Retry.MaxDelay = duration("max_age", s.MaxAge), duration("max_delay", s.MaxDelay)
	e.Limit = ratelimit.Limit{PerMinute: s.PerMinute, Burst: s.Burst}
	e.Breaker = breaker.Policy{
		Failures: s.Breaker.Failures, OpenFor: duration("breaker.open_for", s.Breaker.OpenFor),
		MaxOpenFor: duration("breaker.max_open_for", s.Breaker.MaxOpenFor), DisableAfter: duration("breaker.disable_after", s.Breaker.DisableAfter),
	}
	return errors.Join(errs...)
}

// fields are the names that a refusal of an endpoint may begin with.
var settingFields = []string{
	"url", "description", "event_types", "filter", "role_arn", "credentials", "ordered", "traceparent", "timeout_seconds",
	"max_attempts", "max_age", "max_delay", "rate_per_minute", "burst",
	"breaker.failures", "breaker.open_for", "breaker.max_open_for", "breaker.disable_after",
}

// invalid sorts an endpoint's refusal by field.
func invalidSettings(err error) *Error {
	out := &Error{Kind: Invalid, Message: err.Error()}
	for _, line := range strings.Split(err.Error(), "\n") {
		text := strings.TrimPrefix(line, "retry.")
		for _, field := range settingFields {
			if rest, ok := strings.CutPrefix(text, field); ok && (rest == "" || rest[0] == ' ' || rest[0] == ':') {
				out.Fields = append(out.Fields, FieldError{Field: field, Message: strings.TrimLeft(rest, ": ")})
				break
			}
		}
	}
	return out
}

// ListEndpoints returns the tenant's endpoints in the order they were added.
func (o *Operations) ListEndpoints(ctx context.Context, who Session) ([]Endpoint, error) {
	list, err := o.Endpoints.Store.ListEndpoints(ctx, who.Tenant)
	if err != nil {
		return nil, err
	}
	views := make([]Endpoint, 0, len(list))
	for _, e := range list {
		views = append(views, o.view(e))
	}
	return views, nil
}

// GetEndpoint returns one endpoint.
func (o *Operations) GetEndpoint(ctx context.Context, who Session, id string) (Endpoint, error) {
	e, err := o.loadEndpoint(ctx, who, id)
	return o.view(e), err
}

func (o *Operations) loadEndpoint(ctx context.Context, who Session, id string) (endpoint.Endpoint, error) {
	e, err := o.Endpoints.Store.GetEndpoint(ctx, who.Tenant, id)
	return e, endpointError(id, err)
}

func endpointError(id string, err error) error {
	switch {
	case errors.Is(err, endpoint.ErrNotFound):
		return errorf(NotFound, "there is no endpoint %s", id)
	case errors.Is(err, endpoint.ErrConflict):
		return errorf(Conflict, "somebody else has changed this endpoint in the meantime: load it again and repeat the change")
	}
	return err
}

// CheckSettings says what is wrong with an endpoint's settings, and stores nothing.
func (o *Operations) CheckSettings(_ context.Context, who Session, s Settings) []FieldError {
	e := endpoint.Endpoint{Tenant: who.Tenant, Secrets: []endpoint.SigningSecret{{Secret: signature.NewSecret()}}}
	if err := errors.Join(s.apply(&e), o.Endpoints.Validate(e)); err != nil {
		return invalidSettings(err).Fields
	}
	return nil
}

// AddEndpoint adds an endpoint; the answer holds its secret.
func (o *Operations) AddEndpoint(ctx context.Context, who Session, s Settings) (WithSecret, error) {
	var added endpoint.Endpoint
	err := o.change(ctx, who, "endpoint.add", "", s.URL, func() (string, error) {
		e := endpoint.Endpoint{Tenant: who.Tenant}
		if s.Ed25519 {
			e.Secrets = []endpoint.SigningSecret{{Secret: signature.NewEd25519()}}
		}
		if err := errors.Join(s.apply(&e), o.Endpoints.Validate(e)); err != nil {
			return "", invalidSettings(err)
		}
		var err error
		added, err = o.Endpoints.Add(ctx, e)
		return added.ID, err
	})
	if err != nil {
		return WithSecret{}, err
	}
	return ShowSecret(added, o.Now()), nil
}

// ChangeEndpoint replaces an endpoint's settings, unless somebody changed it
// after it was read.
func (o *Operations) ChangeEndpoint(ctx context.Context, who Session, id string, s Settings) (Endpoint, error) {
	var changed endpoint.Endpoint
	err := o.change(ctx, who, "endpoint.change", id, s.URL, func() (string, error) {
		e, err := o.loadEndpoint(ctx, who, id)
		if err != nil {
			return "", err
		}
		if s.Version != e.Version {
			return "", endpointError(id, endpoint.ErrConflict)
		}
		if err := errors.Join(s.apply(&e), o.Endpoints.Validate(e)); err != nil {
			return "", invalidSettings(err)
		}
		changed, err = o.Endpoints.Replace(ctx, e)
		return "", endpointError(id, err)
	})
	return o.view(changed), err
}

// EnableEndpoint puts an endpoint into service.
func (o *Operations) EnableEndpoint(ctx context.Context, who Session, id string) (Endpoint, error) {
	var e endpoint.Endpoint
	err := o.change(ctx, who, "endpoint.enable", id, "", func() (_ string, err error) {
		e, err = o.Endpoints.Enable(ctx, who.Tenant, id)
		return "", endpointError(id, err)
	})
	return o.view(e), err
}

// DisableEndpoint takes an endpoint out of service: what waits for it ends as
// skipped.
func (o *Operations) DisableEndpoint(ctx context.Context, who Session, id string) (Endpoint, error) {
	var e endpoint.Endpoint
	err := o.change(ctx, who, "endpoint.disable", id, "", func() (_ string, err error) {
		e, err = o.Endpoints.Disable(ctx, who.Tenant, id, "by "+who.Name+" on the console")
		return "", endpointError(id, err)
	})
	return o.view(e), err
}

// RotateSecret gives an endpoint a fresh secret; the answer holds it.
func (o *Operations) RotateSecret(ctx context.Context, who Session, id string) (WithSecret, error) {
	var e endpoint.Endpoint
	err := o.change(ctx, who, "endpoint.rotate_secret", id, "", func() (_ string, err error) {
		e, err = o.Endpoints.RotateSecret(ctx, who.Tenant, id, endpoint.RotationOverlap)
		return "", endpointError(id, err)
	})
	if err != nil {
		return WithSecret{}, err
	}
	return ShowSecret(e, o.Now()), nil
}

// RemoveEndpoint forgets an endpoint.
func (o *Operations) RemoveEndpoint(ctx context.Context, who Session, id string) error {
	return o.change(ctx, who, "endpoint.remove", id, "", func() (string, error) {
		return "", endpointError(id, o.Endpoints.Remove(ctx, who.Tenant, id))
	})
}

// TestEndpoint sends an endpoint one signed sample now and reports everything that
// happened.
func (o *Operations) TestEndpoint(ctx context.Context, who Session, id, eventType string) (testsend.Report, error) {
	var report testsend.Report
	err := o.change(ctx, who, "endpoint.test", id, eventType, func() (string, error) {
		if _, err := o.loadEndpoint(ctx, who, id); err != nil {
			return "", err
		}
		if err := o.TestWebhook(ctx, testsend.Request{Tenant: who.Tenant, EndpointID: id, Event: eventType}, &report); err != nil {
			return "", errorf(Conflict, "%s", err)
		}
		return "", nil
	})
	return report, err
}
