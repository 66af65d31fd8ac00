// Package endpoint defines an endpoint, which receives a tenant's webhooks, with its
// subscription, secrets, limits and status. It does no I/O and reads no clock. It
// promises that a validation error names the field and the accepted values.
package endpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/delivery/retry"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/filter"
	"github.com/tidings-dev/tidings/pkg/signature"
)

// Status says whether events are delivered to an endpoint.
type Status string

const (
	Enabled Status = "enabled"
	// Paused keeps the events of the endpoint in its backlog, up to its age limit.
	Paused Status = "paused"
	// Disabled skips them.
	Disabled Status = "disabled"
)

// Limits of an endpoint's fields.
const (
	DefaultTimeout      = 10 * time.Second
	MaxTimeout          = 30 * time.Second
	MaxEventTypes       = 50
	MaxFilterBytes      = 4096
	MaxURLBytes         = 2048
	MaxDescriptionBytes = 256
	MaxSecrets          = 4
	MaxRoleARNBytes     = 640 // IAM: a path of up to 512 characters, a name of up to 64
	MaxCredentialsBytes = 512 // the limit of Secrets Manager on a secret's name
	// RotationOverlap is the default time for which a replaced secret still signs.
	RotationOverlap = 24 * time.Hour
	// MaxRotationOverlap is the maximum of it.
	MaxRotationOverlap = 7 * 24 * time.Hour
)

// Endpoint is one receiver of a tenant.
type Endpoint struct {
	Tenant      string
	ID          string // ep_ and a ULID; unique across tenants
	URL         string // the scheme selects the adapter
	Description string

	// EventTypes are the subscriptions: exact types, `user.*`, or `*`.
	EventTypes []string
	// Filter is an EventBridge event pattern over the body; empty matches all.
	Filter json.RawMessage

	Secrets []SigningSecret // newest first

	// RoleARN is the AWS role to assume for deliveries, with the tenant as the external
	// id. Empty means the role of the dispatch function. For SQS and MSK.
	RoleARN string
	// Credentials is the name of the secret with the destination's credentials, in the
	// deployment's secret store. Empty means none. For Kafka.
	Credentials string
	// Auth is how deliveries authenticate besides the signature; nil means not at all. For
	// HTTP.
	Auth *Auth
	// Shape says what of an event is sent, and how it is written.
	Shape Shape
	// Ordered enables ordered delivery per subject. For Pub/Sub.
	Ordered bool
	// Traceparent sends the W3C traceparent header, so that the receiver can continue
	// the trace.
	Traceparent bool
	// OldNames delivers events of a renamed type under its old name, for a receiver that
	// does not know the new one yet. The filter matches both names.
	OldNames bool
	// TypeVersions pins event types to versions, by the type's name. A type that is not in it has
	// the version that was the newest when the endpoint was created.
	TypeVersions map[string]int

	Timeout time.Duration // per attempt; 0 means DefaultTimeout
	Retry   retry.Policy
	Breaker breaker.Policy
	Limit   ratelimit.Limit

	Status       Status
	StatusReason string // why it is disabled or paused

	// Version increases with every stored change. It detects concurrent changes.
	Version   int
	CreatedAt time.Time
	UpdatedAt time.Time
}

// SigningSecret is a secret that signs until ExpiresAt, or without end if that is zero.
type SigningSecret struct {
	Secret    signature.Secret
	ExpiresAt time.Time
}

// Errors of stores.
var (
	ErrNotFound = errors.New("endpoint not found")
	ErrConflict = errors.New("the endpoint was changed in the meantime: read it again and repeat the change")
)

var (
	roleARN = regexp.MustCompile(`^arn:aws(-[a-z]+)*:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]+$`)
	// A secret's name is the stack's name, the tenant, and a name.
	secretName = regexp.MustCompile(`^[A-Za-z0-9-]+/([A-Za-z0-9._-]+)/[A-Za-z0-9/_+=.@-]+$`)
)

// ownSecret reports whether a name is that of a secret of the tenant: <stack>/<tenant>/…, so
// that no tenant can use another tenant's secret. The function's role allows those of its
// stack only.
func ownSecret(name, tenant string) bool {
	m := secretName.FindStringSubmatch(name)
	return m != nil && m[1] == tenant && len(name) <= MaxCredentialsBytes
}

const idPrefix = "ep_"

// NewID returns a new endpoint id.
func NewID(now time.Time) string {
	return idPrefix + ulid.MustNew(ulid.Timestamp(now), ulid.DefaultEntropy()).String()
}

// IsID reports whether a text has the form of an endpoint's id. Other partitions of the
// Deliveries table have names without that form, so nothing but deliveries is read by an
// id that has it.
func IsID(text string) bool {
	id, ok := strings.CutPrefix(text, idPrefix)
	if !ok {
		return false
	}
	_, err := ulid.ParseStrict(id)
	return err == nil
}

// AttemptTimeout is Timeout or its default.
func (e Endpoint) AttemptTimeout() time.Duration {
	if e.Timeout == 0 {
		return DefaultTimeout
	}
	return e.Timeout
}

// SigningSecrets returns the secrets that sign at the given instant, newest first.
func (e Endpoint) SigningSecrets(now time.Time) []signature.Secret {
	var out []signature.Secret
	for _, s := range e.Secrets {
		if s.ExpiresAt.IsZero() || now.Before(s.ExpiresAt) {
			out = append(out, s.Secret)
		}
	}
	return out
}

// RotationError says why a secret cannot be rotated.
type RotationError struct{ text string }

func (e *RotationError) Error() string { return e.text }

// Rotate makes fresh the newest secret. The other secrets expire after the overlap at
// the latest, or at once if it is 0. Expired secrets are removed. Rotate returns a
// *RotationError if the overlap is not 0 to MaxRotationOverlap, or if more than MaxSecrets
// would sign.
func (e Endpoint) Rotate(fresh signature.Secret, now time.Time, overlap time.Duration) (Endpoint, error) {
	if overlap < 0 || overlap > MaxRotationOverlap {
		return e, &RotationError{fmt.Sprintf("overlap is %s; it must be 0s to %s (7 days)", overlap, MaxRotationOverlap)}
	}
	secrets := []SigningSecret{{Secret: fresh}}
	until := now.Add(overlap)
	for _, s := range e.Secrets {
		if !s.ExpiresAt.IsZero() && !now.Before(s.ExpiresAt) {
			continue
		}
		if s.ExpiresAt.IsZero() || until.Before(s.ExpiresAt) {
			s.ExpiresAt = until
		}
		if overlap > 0 {
			secrets = append(secrets, s)
		}
	}
	if len(secrets) > MaxSecrets {
		next := slices.MinFunc(secrets[1:], func(a, b SigningSecret) int { return a.ExpiresAt.Compare(b.ExpiresAt) }).ExpiresAt
		return e, &RotationError{fmt.Sprintf("the endpoint has %d secrets that sign, which is the limit: the next one expires at %s; wait until then, or rotate with an overlap of 0, which ends all others now",
			MaxSecrets, next.UTC().Format(time.RFC3339))}
	}
	e.Secrets = secrets
	return e, nil
}

// TypeVersion returns which of a type's versions the endpoint gets: like event.Accepted's
// InVersion. versions are those of catalog.Catalog's Versions, at least one.
func (e Endpoint) TypeVersion(versions []catalog.Type) catalog.Type {
	for _, t := range slices.Backward(versions) {
		pinned := e.TypeVersions[t.Name]
		if pinned != 0 && t.Version <= pinned || pinned == 0 && !t.AddedAt.After(e.CreatedAt) {
			return t
		}
	}
	return versions[0]
}

// Subscribes reports whether the endpoint subscribes to the event type. It does not
// apply the filter.
func (e Endpoint) Subscribes(eventType string) bool {
	return slices.ContainsFunc(e.EventTypes, func(want string) bool { return TypeMatches(want, eventType) })
}

// TypeMatches reports whether a subscription (`user.joined_community`,
// `user.*`, `*`) covers an event type.
func TypeMatches(subscription, eventType string) bool {
	if subscription == "*" {
		return true
	}
	if prefix, ok := strings.CutSuffix(subscription, "*"); ok {
		return strings.HasPrefix(eventType, prefix)
	}
	return subscription == eventType
}

// Validate checks every field except the form of the URL, which the adapters check.
func (e Endpoint) Validate(known *catalog.Catalog) error {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if err := event.CheckTenant(e.Tenant); err != nil {
		add("tenant: %w", err)
	}
	if e.URL == "" || len(e.URL) > MaxURLBytes {
		add("url is %d bytes; it must be 1 to %d", len(e.URL), MaxURLBytes)
	}
	if len(e.Description) > MaxDescriptionBytes {
		add("description is %d bytes; the limit is %d", len(e.Description), MaxDescriptionBytes)
	}
	if len(e.EventTypes) == 0 || len(e.EventTypes) > MaxEventTypes {
		add("event_types has %d entries; it must have 1 to %d (use * for every type)", len(e.EventTypes), MaxEventTypes)
	}
	for _, t := range e.EventTypes {
		if strings.Contains(strings.TrimSuffix(t, "*"), "*") || (strings.HasSuffix(t, "*") && t != "*" && !strings.HasSuffix(t, ".*")) {
			add("event_types: %q: use a wildcard alone (*) or after a dot (user.*)", t)
		} else if name, ok := known.Renamed(t); ok {
			add("event_types: %q was replaced by %q: use the new name, and old_names if the receiver needs the old one for now", t, name)
		} else if t != "*" && !slices.ContainsFunc(known.Types(), func(k string) bool { return TypeMatches(t, k) }) && !known.Allows(strings.Replace(t, "*", "x", 1)) {
			add("event_types: %q matches no event type; %s", t, known.Summary())
		}
	}
	if len(e.TypeVersions) > MaxEventTypes {
		add("type_versions has %d entries; the limit is %d", len(e.TypeVersions), MaxEventTypes)
	}
	for _, name := range slices.Sorted(maps.Keys(e.TypeVersions)) {
		switch list := known.Versions(name); {
		case len(list) == 0:
			add("type_versions: %s", known.Unknown(name))
		case !slices.ContainsFunc(list, func(t catalog.Type) bool { return t.Version == e.TypeVersions[name] }):
			add("type_versions: %s has no version %d; it has %s", name, e.TypeVersions[name], numbers(list))
		}
	}
	if len(e.Filter) > MaxFilterBytes {
		add("filter is %d bytes; the limit is %d", len(e.Filter), MaxFilterBytes)
	} else if len(e.Filter) > 0 {
		if _, err := filter.Compile(e.Filter); err != nil {
			add("filter: %w", err)
		} else if old, name, ok := renamedIn(known, e.Filter); ok && !e.OldNames {
			add("filter: event %q was replaced by %q: use the new name, or old_names if the receiver needs the old one for now", old, name)
		}
	}
	if e.RoleARN != "" && (len(e.RoleARN) > MaxRoleARNBytes || !roleARN.MatchString(e.RoleARN)) {
		add("role_arn %q must have the form arn:aws:iam::123456789012:role/name", e.RoleARN)
	}
	if e.Credentials != "" && !ownSecret(e.Credentials, e.Tenant) {
		add("credentials is not the name of a secret of this tenant: it must begin with the stack's name and /%s/, followed by letters, digits and -/_+=.@", e.Tenant)
	}
	if e.Auth != nil {
		errs = append(errs, e.Auth.validate(e.Tenant)...)
	}
	errs = append(errs, e.Shape.validate()...)
	if e.Timeout != 0 && (e.Timeout < time.Second || e.Timeout > MaxTimeout) {
		add("timeout_seconds is %g; it must be 1 to %g", e.Timeout.Seconds(), MaxTimeout.Seconds())
	}
	for _, rule := range []interface{ Validate() error }{e.Retry, e.Breaker, e.Limit} {
		if err := rule.Validate(); err != nil {
			errs = append(errs, err)
		}
	}
	if len(e.Secrets) == 0 || len(e.Secrets) > MaxSecrets {
		add("secrets has %d entries; it must have 1 to %d", len(e.Secrets), MaxSecrets)
	}
	return errors.Join(errs...)
}

// numbers lists the numbers of versions.
func numbers(versions []catalog.Type) string {
	var list []string
	for _, t := range versions {
		list = append(list, strconv.Itoa(t.Version))
	}
	return strings.Join(list, ", ")
}

// renamedIn returns the first old name of an event type that a filter asks for in its
// field event, and the new name.
func renamedIn(known *catalog.Catalog, pattern json.RawMessage) (old, name string, found bool) {
	var fields map[string]any
	if json.Unmarshal(pattern, &fields) != nil {
		return "", "", false
	}
	var walk func(v any, inEvent bool)
	walk = func(v any, inEvent bool) {
		switch v := v.(type) {
		case string:
			if replacement, ok := known.Renamed(v); ok && inEvent && !found {
				old, name, found = v, replacement, true
			}
		case []any:
			for _, item := range v {
				walk(item, inEvent)
			}
		case map[string]any: // an alternative of $or, or an operator
			for key, item := range v {
				walk(item, inEvent || key == "event")
			}
		}
	}
	walk(fields["event"], true)
	walk(fields["$or"], false)
	return old, name, found
}

// List is all endpoints of a tenant, in the order of creation, as they were at one time.
type List struct {
	Endpoints []Endpoint
	// Version grows with each change that can make an endpoint match more events: when one
	// is added or updated, before the change is confirmed. It does not grow when one is
	// disabled by a worker or deleted.
	Version int64
}
