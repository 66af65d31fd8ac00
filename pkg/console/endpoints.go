package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/testsend"
)

// Endpoint is an endpoint without its secrets.
type Endpoint struct {
	ID       string `json:"id"`
	Tenant   string `json:"tenant"`
	Protocol string `json:"protocol" doc:"The protocol as in the log; http includes HTTPS"`
	Options
	Auth         *endpoint.Auth  `json:"auth,omitempty" doc:"Authentication besides the signature, with masked secrets"`
	EventTypes   []string        `json:"event_types" nullable:"false"`
	Timeout      float64         `json:"timeout_seconds"`
	Status       endpoint.Status `json:"status" enum:"enabled,paused,disabled"`
	StatusReason string          `json:"status_reason,omitempty"`
	SlowSince    time.Time       `json:"slow_since,omitzero" doc:"When the endpoint is read or listed: since when its deliveries use the slow lane, because its answers take more than a second; absent if they do not"`
	PublicKey    string          `json:"public_key,omitempty" doc:"Public key, if the endpoint signs with Ed25519"`
	Replaced     []Replaced      `json:"replaced_secrets,omitempty" doc:"Previous secrets that still sign, newest first"`
	Version      int             `json:"version"`
	CreatedAt    time.Time       `json:"created_at"`
	UpdatedAt    time.Time       `json:"updated_at"`
}

// Settings are the settings of an endpoint that users can change.
type Settings struct {
	Options
	Auth       AuthChange `json:"auth,omitzero" required:"false" doc:"HTTP: authentication besides the signature. If absent, it stays as it is; null removes it. A secret that is absent or masked stays as it is stored, unless the URL leads to another host"`
	EventTypes []string   `json:"event_types,omitempty" doc:"Exact types, user.* or *; all types if absent. An empty list is an error"`
	Timeout    float64    `json:"timeout_seconds,omitempty"`
	Ed25519    bool       `json:"ed25519,omitempty" doc:"Sign with an Ed25519 key; only used when the endpoint is added"`
	Version    int        `json:"version,omitempty" doc:"When changing an endpoint, the version that was read"`
}

// Options are the settings that have the same form in Endpoint and Settings. Empty
// ones have the default.
type Options struct {
	URL          string          `json:"url" doc:"The scheme selects the protocol"`
	Description  string          `json:"description,omitempty"`
	Filter       json.RawMessage `json:"filter,omitempty" doc:"An EventBridge event pattern that the body must match"`
	RoleARN      string          `json:"role_arn,omitempty"`
	Credentials  string          `json:"credentials,omitempty" doc:"Name of the secret, not its value"`
	Ordered      bool            `json:"ordered,omitempty"`
	Traceparent  bool            `json:"traceparent,omitempty" doc:"Send the W3C traceparent header (brokers: attribute)"`
	OldNames     bool            `json:"old_names,omitempty" doc:"Deliver renamed event types under their old names"`
	TypeVersions map[string]int  `json:"type_versions,omitempty" doc:"The version of each event type to deliver, by the type's name. A type that is not named has the version that was the newest when the endpoint was added"`
	ShapeSettings
	MaxAttempts int             `json:"max_attempts,omitempty"`
	MaxAge      string          `json:"max_age,omitempty" doc:"Maximum age of a delivery, such as 72h"`
	MaxDelay    string          `json:"max_delay,omitempty" doc:"Maximum backoff, such as 6h"`
	PerMinute   int             `json:"rate_per_minute,omitempty" doc:"Rate limit in attempts per minute; no limit if 0"`
	Burst       int             `json:"burst,omitempty" doc:"Burst size of the rate limit"`
	Breaker     BreakerSettings `json:"breaker,omitempty"`
}

// ShapeSettings say what of an event is sent, and how it is written; empty ones have the
// default.
type ShapeSettings struct {
	Format      endpoint.Format `json:"format,omitempty" enum:"tidings,cloudevents,cloudevents-binary" doc:"How the event is written: as tidings (the default), or as a CloudEvent 1.0 in structured or in binary mode"`
	Thin        bool            `json:"thin,omitempty" doc:"Of the data, send only the fields id, *_id and *_ids"`
	Include     []string        `json:"include_fields,omitempty" doc:"The only fields to send besides id, event, timestamp and idempotency_key: paths in the event, such as data.customer.email"`
	Exclude     []string        `json:"exclude_fields,omitempty" doc:"Fields not to send: paths in the event, such as data.customer.email"`
	Method      string          `json:"method,omitempty" enum:"POST,PUT,PATCH" doc:"HTTP: the request's method, POST by default"`
	ContentType string          `json:"content_type,omitempty" doc:"Media type of the body; by default that of the format"`
}

// Body says how the body of requests differs from the event; "" if it does not.
func (s ShapeSettings) Body() string {
	var list []string
	if s.Format != "" && s.Format != endpoint.FormatTidings {
		list = append(list, string(s.Format))
	}
	if s.Thin {
		list = append(list, "ids only")
	}
	if len(s.Include) > 0 {
		list = append(list, "only "+strings.Join(s.Include, ", "))
	}
	if len(s.Exclude) > 0 {
		list = append(list, "without "+strings.Join(s.Exclude, ", "))
	}
	for _, text := range []string{s.Method, s.ContentType} {
		if text != "" {
			list = append(list, text)
		}
	}
	return strings.Join(list, "; ")
}

// Replaced is a previous secret that still signs.
type Replaced struct {
	PublicKey string    `json:"public_key,omitempty" doc:"Public key, if it is an Ed25519 key"`
	ExpiresAt time.Time `json:"expires_at"`
}

// BreakerSettings are the circuit breaker's settings; empty ones have the default.
type BreakerSettings struct {
	Failures     int    `json:"failures,omitempty" doc:"Consecutive failures that open the circuit breaker"`
	FailingFor   string `json:"failing_for,omitempty" doc:"Minimum duration from the first to the last of these failures"`
	OpenFor      string `json:"open_for,omitempty" doc:"Duration until the first probe"`
	MaxOpenFor   string `json:"max_open_for,omitempty" doc:"Maximum duration between probes"`
	DisableAfter string `json:"disable_after,omitempty" doc:"Disable the endpoint after it has only failed for this duration"`
}

// formatDuration formats a duration without zero units, and zero as "".
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

// ViewEndpoint converts an endpoint for display; the CLI uses it too.
func ViewEndpoint(e endpoint.Endpoint, now time.Time) Endpoint {
	r, b := e.Retry, e.Breaker
	v := Endpoint{
		ID: e.ID, Tenant: e.Tenant, Protocol: destination.TargetOf(e).Protocol(),
		Options: Options{
			URL: e.URL, Description: e.Description, Filter: e.Filter, RoleARN: e.RoleARN, Credentials: e.Credentials,
			Ordered: e.Ordered, Traceparent: e.Traceparent, OldNames: e.OldNames, TypeVersions: e.TypeVersions, ShapeSettings: ShapeSettings(e.Shape), PerMinute: e.Limit.PerMinute, Burst: e.Limit.Burst,
			MaxAttempts: r.MaxAttempts, MaxAge: formatDuration(r.MaxAge), MaxDelay: formatDuration(r.MaxDelay),
			Breaker: BreakerSettings{b.Failures, formatDuration(b.FailingFor), formatDuration(b.OpenFor), formatDuration(b.MaxOpenFor), formatDuration(b.DisableAfter)},
		},
		Auth: e.Auth, EventTypes: append([]string{}, e.EventTypes...), Timeout: e.AttemptTimeout().Seconds(),
		Status: e.Status, StatusReason: e.StatusReason, Version: e.Version, CreatedAt: e.CreatedAt, UpdatedAt: e.UpdatedAt,
	}
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

// WithSecret is an endpoint with its new signing secret, which is shown only once.
type WithSecret struct {
	Endpoint
	Secret string `json:"secret,omitempty" doc:"The signing secret, shown only once; absent if the endpoint signs with Ed25519"`
	// Backfill is the job that sends a new endpoint the past.
	Backfill *Job `json:"backfill,omitempty" doc:"The job that sends past events, if they were asked for"`
	// BackfillError is why there is none, although the endpoint was added.
	BackfillError string `json:"backfill_error,omitempty" doc:"Why past events are not sent, although they were asked for; the endpoint was added"`
}

// NewEndpoint are the settings of an endpoint to add.
type NewEndpoint struct {
	Settings
	Backfill string `json:"backfill,omitempty" required:"false" maxLength:"16" doc:"Send the events of the past too, by a job: days such as 14d, or a duration such as 36h"`
}

// ShowSecret converts an endpoint with its newest secret; the CLI uses it too.
func ShowSecret(e endpoint.Endpoint, now time.Time) WithSecret {
	v := WithSecret{Endpoint: ViewEndpoint(e, now)}
	if v.PublicKey == "" && len(e.Secrets) > 0 {
		v.Secret = e.Secrets[0].Secret.Reveal()
	}
	return v
}

// apply sets the endpoint's fields. It returns an error for invalid durations, and for
// stored secrets that would be sent elsewhere.
func (s Settings) apply(e *endpoint.Endpoint) error {
	var errs []error
	before := *e
	duration := func(field, text string) time.Duration {
		if text == "" {
			return 0
		}
		d, err := time.ParseDuration(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %q is not a duration; write 90s, 30m or 72h", field, text))
		}
		return d
	}
	e.URL, e.Description = strings.TrimSpace(s.URL), s.Description
	e.EventTypes = slices.Clone(s.EventTypes)
	if s.EventTypes == nil {
		e.EventTypes = []string{"*"}
	}
	e.Filter = s.Filter
	if text := strings.TrimSpace(string(s.Filter)); text == "" || text == "null" {
		e.Filter = nil
	}
	e.RoleARN, e.Credentials, e.Ordered, e.Traceparent = s.RoleARN, s.Credentials, s.Ordered, s.Traceparent
	e.OldNames, e.TypeVersions = s.OldNames, s.TypeVersions
	e.Shape = endpoint.Shape(s.ShapeSettings)
	if err := s.Auth.apply(e, before); err != nil {
		errs = append(errs, err)
	}
	e.Timeout = time.Duration(s.Timeout * float64(time.Second))
	e.Retry.MaxAttempts = s.MaxAttempts
	e.Retry.MaxAge, e.Retry.MaxDelay = duration("max_age", s.MaxAge), duration("max_delay", s.MaxDelay)
	e.Limit = ratelimit.Limit{PerMinute: s.PerMinute, Burst: s.Burst}
	e.Breaker = breaker.Policy{
		Failures: s.Breaker.Failures, FailingFor: duration("breaker.failing_for", s.Breaker.FailingFor), OpenFor: duration("breaker.open_for", s.Breaker.OpenFor),
		MaxOpenFor: duration("breaker.max_open_for", s.Breaker.MaxOpenFor), DisableAfter: duration("breaker.disable_after", s.Breaker.DisableAfter),
	}
	return errors.Join(errs...)
}

// settingFields are the field names that a validation message may begin with.
var settingFields = []string{
	"url", "description", "event_types", "filter", "role_arn", "credentials",
	"auth.headers", "auth.basic", "auth.bearer", "auth.api_key", "auth.oauth2", "auth.client_certificate", "auth", "ordered", "traceparent", "old_names", "type_versions",
	"format", "thin", "include_fields", "exclude_fields", "method", "content_type", "timeout_seconds",
	"max_attempts", "max_age", "max_delay", "rate_per_minute", "burst",
	"breaker.failures", "breaker.failing_for", "breaker.open_for", "breaker.max_open_for", "breaker.disable_after",
}

// invalidSettings assigns the lines of a validation error to fields.
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
	return ViewEndpoints(ctx, o.Breakers, list, o.Now())
}

// ViewEndpoints converts endpoints for display, with the lane that their deliveries use; the
// CLI uses it too. It reads the circuit breaker of each, for half a read unit.
func ViewEndpoints(ctx context.Context, from SlowLane, list []endpoint.Endpoint, now time.Time) ([]Endpoint, error) {
	views := make([]Endpoint, len(list))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i, e := range list {
		group.Go(func() error {
			s, err := from.GetBreaker(ctx, e.Tenant, e.ID, false)
			if err != nil && !errors.Is(err, breaker.ErrUnreadable) {
				return err
			}
			views[i] = ViewEndpoint(e, now)
			views[i].SlowSince = s.InSlowLane(now)
			return nil
		})
	}
	return views, group.Wait()
}

// endpointURLs returns the URLs of the tenant's endpoints by id.
func (o *Operations) endpointURLs(ctx context.Context, who Session) (map[string]string, error) {
	list, err := o.Endpoints.Store.ListEndpoints(ctx, who.Tenant)
	urls := map[string]string{}
	for _, e := range list {
		urls[e.ID] = e.URL
	}
	return urls, err
}

// GetEndpoint returns an endpoint of the tenant.
func (o *Operations) GetEndpoint(ctx context.Context, who Session, id string) (Endpoint, error) {
	e, err := o.loadEndpoint(ctx, who, id)
	if err != nil {
		return Endpoint{}, err
	}
	views, err := ViewEndpoints(ctx, o.Breakers, []endpoint.Endpoint{e}, o.Now())
	if err != nil {
		return Endpoint{}, err
	}
	return views[0], nil
}

func (o *Operations) loadEndpoint(ctx context.Context, who Session, id string) (endpoint.Endpoint, error) {
	if !endpoint.IsID(id) {
		return endpoint.Endpoint{}, explain(id, endpoint.ErrNotFound)
	}
	e, err := o.Endpoints.Store.GetEndpoint(ctx, who.Tenant, id)
	return e, explain(id, err)
}

// CheckSettings validates an endpoint's settings without storing them.
func (o *Operations) CheckSettings(ctx context.Context, who Session, s Settings) []FieldError {
	e := endpoint.Endpoint{Tenant: who.Tenant, Secrets: []endpoint.SigningSecret{{Secret: signature.NewSecret()}}}
	s.Auth.Auth = s.Auth.Auth.Assume()
	if err := errors.Join(s.apply(&e), o.Endpoints.Validate(ctx, e)); err != nil {
		return invalidSettings(err).Fields
	}
	return nil
}

// AddEndpoint adds an endpoint. The result holds its secret.
func (o *Operations) AddEndpoint(ctx context.Context, who Session, s NewEndpoint) (WithSecret, error) {
	span, err := jobs.ParseSpan(s.Backfill)
	if err != nil {
		return WithSecret{}, &Error{Kind: Invalid, Message: "invalid backfill: " + err.Error(), Fields: []FieldError{{"backfill", err.Error()}}}
	}
	var id string
	added, err := change(ctx, o, who, "endpoint.add", &id, s.URL, func() (endpoint.Endpoint, error) {
		e := endpoint.Endpoint{Tenant: who.Tenant}
		if s.Ed25519 {
			e.Secrets = []endpoint.SigningSecret{{Secret: signature.NewEd25519()}}
		}
		if err := errors.Join(s.apply(&e), o.Endpoints.Validate(ctx, e)); err != nil {
			return e, invalidSettings(err)
		}
		added, err := o.Endpoints.Add(ctx, e)
		id = added.ID
		return added, err
	})
	v := ShowSecret(added, o.Now())
	if err != nil || span == 0 {
		return v, err
	}
	// An error must not hide the secret, which is shown only now.
	j, err := o.StartJob(ctx, who, NewJob{Kind: jobs.Backfill, EndpointID: added.ID, From: o.Now().Add(-span)})
	if err != nil {
		v.BackfillError = o.shown(ctx, err)
	} else {
		v.Backfill = &j
	}
	return v, nil
}

// ChangeEndpoint replaces an endpoint's settings. It returns a Conflict if the
// endpoint has changed since it was read.
func (o *Operations) ChangeEndpoint(ctx context.Context, who Session, id string, s Settings) (Endpoint, error) {
	changed, err := changeEndpoint(ctx, o, who, "endpoint.change", id, s.URL, func() (endpoint.Endpoint, error) {
		e, err := o.loadEndpoint(ctx, who, id)
		if err != nil {
			return e, err
		}
		if s.Version != e.Version {
			return e, endpoint.ErrConflict
		}
		before := e
		if err := errors.Join(s.apply(&e), o.Endpoints.ValidateChange(ctx, before, e)); err != nil {
			return e, invalidSettings(err)
		}
		return o.Endpoints.Replace(ctx, before, e)
	})
	return o.view(changed), err
}

// EnableEndpoint enables an endpoint.
func (o *Operations) EnableEndpoint(ctx context.Context, who Session, id string) (Endpoint, error) {
	return o.switchEndpoint(ctx, who, "endpoint.enable", id, func(string) (endpoint.Endpoint, error) {
		return o.Endpoints.Enable(ctx, who.Tenant, id)
	})
}

// DisableEndpoint disables an endpoint; its pending deliveries are marked skipped.
func (o *Operations) DisableEndpoint(ctx context.Context, who Session, id string) (Endpoint, error) {
	return o.switchEndpoint(ctx, who, "endpoint.disable", id, func(reason string) (endpoint.Endpoint, error) {
		return o.Endpoints.Disable(ctx, who.Tenant, id, reason)
	})
}

// PauseEndpoint pauses an endpoint; its events wait in its backlog, up to its age limit.
func (o *Operations) PauseEndpoint(ctx context.Context, who Session, id string) (Endpoint, error) {
	return o.switchEndpoint(ctx, who, "endpoint.pause", id, func(reason string) (endpoint.Endpoint, error) {
		return o.Endpoints.Pause(ctx, who.Tenant, id, reason)
	})
}

// ResumeEndpoint resumes a paused endpoint; its backlog is sent within two minutes.
func (o *Operations) ResumeEndpoint(ctx context.Context, who Session, id string) (Endpoint, error) {
	return o.switchEndpoint(ctx, who, "endpoint.resume", id, func(string) (endpoint.Endpoint, error) {
		return o.Endpoints.Resume(ctx, who.Tenant, id)
	})
}

// switchEndpoint changes an endpoint's status. to gets the reason that is shown with it.
func (o *Operations) switchEndpoint(ctx context.Context, who Session, action, id string, to func(reason string) (endpoint.Endpoint, error)) (Endpoint, error) {
	e, err := changeEndpoint(ctx, o, who, action, id, "", func() (endpoint.Endpoint, error) {
		return to("by " + who.Name + " in the console")
	})
	return o.view(e), err
}

// RotateSecret adds a new signing secret. The result holds it.
func (o *Operations) RotateSecret(ctx context.Context, who Session, id string) (WithSecret, error) {
	e, err := changeEndpoint(ctx, o, who, "endpoint.rotate_secret", id, "", func() (endpoint.Endpoint, error) {
		return o.Endpoints.RotateSecret(ctx, who.Tenant, id, endpoint.RotationOverlap)
	})
	return ShowSecret(e, o.Now()), err
}

// RemoveEndpoint deletes an endpoint; its pending deliveries are marked skipped.
func (o *Operations) RemoveEndpoint(ctx context.Context, who Session, id string) (Removed, error) {
	return changeEndpoint(ctx, o, who, "endpoint.remove", id, "", func() (Removed, error) {
		return Removed{id}, o.Endpoints.Remove(ctx, who.Tenant, id)
	})
}

// TestEndpoint sends a signed sample event to an endpoint and returns a report.
func (o *Operations) TestEndpoint(ctx context.Context, who Session, id, eventType string) (testsend.Report, error) {
	return changeEndpoint(ctx, o, who, "endpoint.test", id, eventType, func() (report testsend.Report, err error) {
		if _, err := o.loadEndpoint(ctx, who, id); err != nil {
			return report, err
		}
		if err := o.TestWebhook(ctx, testsend.Request{Tenant: who.Tenant, EndpointID: id, Event: eventType}, &report); err != nil {
			return report, errorf(Conflict, "%s", err)
		}
		return report, nil
	})
}
