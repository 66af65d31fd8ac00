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

	"github.com/tidings-dev/tidings/pkg/admin"
	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/filter"
	"github.com/tidings-dev/tidings/pkg/ops/audit"
	"github.com/tidings-dev/tidings/pkg/signature"
)

// Operations are all that the console can do. The pages and the API call nothing
// else, so both have the same rules: what a role may do is decided here, every
// change is written to the audit log here, and nobody sees another tenant's.
type Operations struct {
	Endpoints   *admin.Endpoints
	Deliveries  Deliveries
	Events      Events
	Catalog     *catalog.Catalog
	Breakers    Breakers
	Discussions Discussions
	Statistics  Statistics
	Audit       Audit
	Dispatch    Invoke
	TestWebhook Invoke
	// Receiver is nil in a deployment.
	Receiver Receiver
	Now      func() time.Time
}

// Kind is what kind of trouble an Error is; it decides the HTTP status.
type Kind int

const (
	Invalid Kind = iota
	NotFound
	Conflict
	Forbidden
)

// Error is an operation's refusal, in words for whoever asked.
type Error struct {
	Kind    Kind
	Message string
	Fields  []FieldError // for Invalid, where fields are to blame
}

func (e *Error) Error() string { return e.Message }

// FieldError is what is wrong with one field.
type FieldError struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

func refuse(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...)}
}

func forbidden() *Error {
	return refuse(Forbidden, "you are logged in as a viewer: to change something, log in with --role admin")
}

// parallel is how many reads one operation makes at the same time.
const parallel = 16

// change does what only an admin may, and records it: before, so that nothing is
// changed unrecorded, and after, with what became of it. do returns the id of
// what was changed, where it has just got one.
func (o *Operations) change(ctx context.Context, who Session, action, subject, detail string, do func() (string, error)) error {
	if who.Role != Admin {
		return forbidden()
	}
	entry := audit.Entry{
		ID: audit.NewID(o.Now()), Tenant: who.Tenant, Who: who.Name, Role: string(who.Role),
		Action: action, Subject: subject, Outcome: audit.Begun, Detail: audit.Clip(detail),
	}
	if err := o.Audit.PutAudit(ctx, entry); err != nil {
		return fmt.Errorf("nothing was changed: %w", err)
	}
	fresh, err := do()
	entry.Outcome = audit.Done
	if fresh != "" {
		entry.Subject = fresh
	}
	if err != nil {
		entry.Outcome = audit.Failed
		entry.Detail = audit.Clip(strings.TrimPrefix(detail+": "+err.Error(), ": "))
	}
	// Even a client that has gone leaves its record.
	if failed := o.Audit.PutAudit(context.WithoutCancel(ctx), entry); failed != nil && err == nil {
		return fmt.Errorf("it was done, but the audit log only says that it was begun: %w", failed)
	}
	return err
}

// ---- endpoints ---------------------------------------------------------------------------------

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
func span(d time.Duration) string {
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
	v.MaxAge, v.MaxDelay = span(e.Retry.MaxAge), span(e.Retry.MaxDelay)
	v.PerMinute, v.Burst = e.Limit.PerMinute, e.Limit.Burst
	b := e.Breaker
	v.Breaker = BreakerSettings{Failures: b.Failures, OpenFor: span(b.OpenFor), MaxOpenFor: span(b.MaxOpenFor), DisableAfter: span(b.DisableAfter)}
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
var fields = []string{
	"url", "description", "event_types", "filter", "role_arn", "credentials", "ordered", "traceparent", "timeout_seconds",
	"max_attempts", "max_age", "max_delay", "rate_per_minute", "burst",
	"breaker.failures", "breaker.open_for", "breaker.max_open_for", "breaker.disable_after",
}

// invalid sorts an endpoint's refusal by field.
func invalid(err error) *Error {
	out := &Error{Kind: Invalid, Message: err.Error()}
	for _, line := range strings.Split(err.Error(), "\n") {
		text := strings.TrimPrefix(line, "retry.")
		for _, field := range fields {
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
	e, err := o.stored(ctx, who, id)
	return o.view(e), err
}

func (o *Operations) stored(ctx context.Context, who Session, id string) (endpoint.Endpoint, error) {
	e, err := o.Endpoints.Store.GetEndpoint(ctx, who.Tenant, id)
	return e, endpointError(id, err)
}

func endpointError(id string, err error) error {
	switch {
	case errors.Is(err, endpoint.ErrNotFound):
		return refuse(NotFound, "there is no endpoint %s", id)
	case errors.Is(err, endpoint.ErrConflict):
		return refuse(Conflict, "somebody else has changed this endpoint in the meantime: load it again and repeat the change")
	}
	return err
}

// CheckSettings says what is wrong with an endpoint's settings, and stores nothing.
func (o *Operations) CheckSettings(_ context.Context, who Session, s Settings) []FieldError {
	e := endpoint.Endpoint{Tenant: who.Tenant, Secrets: []endpoint.SigningSecret{{Secret: signature.NewSecret()}}}
	if err := errors.Join(s.apply(&e), o.Endpoints.Validate(e)); err != nil {
		return invalid(err).Fields
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
			return "", invalid(err)
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
		e, err := o.stored(ctx, who, id)
		if err != nil {
			return "", err
		}
		if s.Version != e.Version {
			return "", endpointError(id, endpoint.ErrConflict)
		}
		if err := errors.Join(s.apply(&e), o.Endpoints.Validate(e)); err != nil {
			return "", invalid(err)
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

// ---- deliveries --------------------------------------------------------------------------------

// Delivery is a delivery as it is shown, by the console and by the tool.
type Delivery struct {
	EndpointID    string         `json:"endpoint_id"`
	EventID       string         `json:"event_id"`
	EventType     string         `json:"event_type,omitempty"`
	URL           string         `json:"url,omitempty" doc:"The endpoint's; absent where it is gone"`
	State         delivery.State `json:"state" enum:"pending,in_flight,delivered,dead,skipped"`
	Attempts      int            `json:"attempts"`
	Reason        string         `json:"reason,omitempty"`
	Snippet       string         `json:"snippet,omitempty" doc:"The beginning of the last failed answer"`
	NextAttemptAt time.Time      `json:"next_attempt_at,omitzero"`
	Waits         bool           `json:"waits_for_circuit,omitempty" doc:"The next attempt is when the endpoint's circuit closes, or probes with it"`
	AcceptedAt    time.Time      `json:"accepted_at"`
	UpdatedAt     time.Time      `json:"updated_at"`
	History       []Attempt      `json:"history" nullable:"false"`
}

// Settled reports whether nothing more happens by itself.
func (d Delivery) Settled() bool { return d.State.Settled() }

// Attempt is one try.
type Attempt struct {
	Number    int            `json:"number"`
	At        time.Time      `json:"at,omitzero"`
	Outcome   delivery.Class `json:"outcome"`
	Status    int            `json:"status,omitempty"`
	DNS       int64          `json:"dns_ms"`
	Connect   int64          `json:"connect_ms"`
	TLS       int64          `json:"tls_ms"`
	FirstByte int64          `json:"first_byte_ms"`
	Total     int64          `json:"total_ms"`
}

// ViewDelivery shows a delivery, as the tool does, too; urls are endpoints' by their
// ids, as far as they are known.
func ViewDelivery(d delivery.Delivery, urls map[string]string) Delivery {
	v := Delivery{
		EndpointID: d.EndpointID, EventID: d.EventID, EventType: d.EventType, URL: urls[d.EndpointID], State: d.State,
		Attempts: d.Attempts, Reason: d.Reason, Snippet: d.Snippet, NextAttemptAt: d.NextAttemptAt,
		UpdatedAt: d.UpdatedAt, History: []Attempt{},
	}
	if v.Waits = d.Waits; v.Waits {
		v.NextAttemptAt = time.Time{} // what stands there is past
	}
	v.AcceptedAt = d.CreatedAt
	if at, err := event.IDTime(d.EventID); err == nil {
		v.AcceptedAt = at
	}
	for _, a := range d.History {
		v.History = append(v.History, Attempt{
			Number: a.Number, At: a.At, Outcome: a.Class, Status: a.Status,
			DNS: a.Timings.DNS.Milliseconds(), Connect: a.Timings.Connect.Milliseconds(), TLS: a.Timings.TLS.Milliseconds(),
			FirstByte: a.Timings.FirstByte.Milliseconds(), Total: a.Timings.Total.Milliseconds(),
		})
	}
	return v
}

// DeliveryFilter says which deliveries are wanted.
type DeliveryFilter struct {
	EndpointID string
	EventType  string
	State      delivery.State
	From, To   time.Time // of the event's acceptance, both included; zero is unbounded
	Limit      int
	Cursor     string
}

// DeliveryPage is a part of the deliveries, newest event first.
type DeliveryPage struct {
	Deliveries []Delivery `json:"deliveries" nullable:"false"`
	Next       string     `json:"next,omitempty" doc:"The cursor of the next page; absent on the last. A page may be short, even empty, and still have a next one"`
	// Until is how far back the page has looked.
	Until time.Time `json:"until,omitzero" doc:"How far back this page has looked"`
}

// ListDeliveries returns a page of deliveries: of one endpoint, or of all that the
// tenant has now, merged.
func (o *Operations) ListDeliveries(ctx context.Context, who Session, f DeliveryFilter) (DeliveryPage, error) {
	list, err := o.Endpoints.Store.ListEndpoints(ctx, who.Tenant)
	if err != nil {
		return DeliveryPage{}, err
	}
	urls := map[string]string{}
	var of []string
	for _, e := range list {
		urls[e.ID] = e.URL
		of = append(of, e.ID)
	}
	if f.EndpointID != "" {
		of = []string{f.EndpointID}
	}
	if f.State != "" && !slices.Contains(delivery.States, f.State) {
		return DeliveryPage{}, refuse(Invalid, "state is %q; the states are %v", f.State, delivery.States)
	}
	found, err := browse(ctx, o.Deliveries, of, f)
	if err != nil {
		return DeliveryPage{}, err
	}
	page := DeliveryPage{Deliveries: []Delivery{}, Next: found.next, Until: found.until}
	for _, d := range found.deliveries {
		if d.Tenant == who.Tenant {
			page.Deliveries = append(page.Deliveries, ViewDelivery(d, urls))
		}
	}
	return page, nil
}

// GetDelivery returns one delivery with its attempts.
func (o *Operations) GetDelivery(ctx context.Context, who Session, endpointID, eventID string) (Delivery, error) {
	d, err := o.Deliveries.GetDelivery(ctx, delivery.Key{EndpointID: endpointID, EventID: eventID})
	if errors.Is(err, delivery.ErrNotFound) || err == nil && d.Tenant != who.Tenant {
		return Delivery{}, refuse(NotFound, "there is no delivery of event %s to endpoint %s", eventID, endpointID)
	}
	if err != nil {
		return Delivery{}, err
	}
	urls := map[string]string{}
	if e, err := o.Endpoints.Store.GetEndpoint(ctx, who.Tenant, endpointID); err == nil {
		urls[endpointID] = e.URL
	} else if !errors.Is(err, endpoint.ErrNotFound) {
		return Delivery{}, err
	}
	return ViewDelivery(d, urls), nil
}

// Replayed is what became of one wish to replay.
type Replayed struct {
	EndpointID string `json:"endpoint_id"`
	EventID    string `json:"event_id"`
	Replayed   bool   `json:"replayed"`
	Message    string `json:"message,omitempty" doc:"Why it was not"`
}

// MaxReplays is how many deliveries can be replayed at once.
const MaxReplays = 100

// Replay sends settled deliveries again. Each is answered for itself.
func (o *Operations) Replay(ctx context.Context, who Session, keys []delivery.Key) ([]Replayed, error) {
	if len(keys) == 0 || len(keys) > MaxReplays {
		return nil, refuse(Invalid, "%d deliveries are chosen; choose 1 to %d", len(keys), MaxReplays)
	}
	if who.Role != Admin {
		return nil, forbidden()
	}
	results := make([]Replayed, len(keys))
	var group errgroup.Group
	group.SetLimit(parallel)
	for i, k := range keys {
		group.Go(func() error {
			results[i] = Replayed{EndpointID: k.EndpointID, EventID: k.EventID}
			err := o.change(ctx, who, "delivery.replay", k.String(), "", func() (string, error) {
				if _, err := o.GetDelivery(ctx, who, k.EndpointID, k.EventID); err != nil {
					return "", err
				}
				var done dispatch.Replayed
				return "", o.Dispatch(ctx, dispatch.Command{Action: "replay", Tenant: who.Tenant, EndpointID: k.EndpointID, EventID: k.EventID}, &done)
			})
			results[i].Replayed = err == nil
			if err != nil {
				results[i].Message = strings.TrimPrefix(err.Error(), "replay: ")
			}
			return nil
		})
	}
	return results, group.Wait()
}

// ---- events ------------------------------------------------------------------------------------

// EventType is one type of the catalog.
type EventType struct {
	Name         string          `json:"name"`
	Description  string          `json:"description"`
	CapturedFrom string          `json:"captured_from"`
	Sample       json.RawMessage `json:"sample"`
	Schema       json.RawMessage `json:"schema"`
}

// EventTypes returns the catalog.
func (o *Operations) EventTypes() []EventType {
	var list []EventType
	for _, name := range o.Catalog.Types() {
		t, _ := o.Catalog.Type(name)
		v := EventType{Name: t.Name, Description: t.Description, CapturedFrom: t.CapturedFrom, Schema: t.Schema}
		if len(t.Samples) > 0 {
			v.Sample = t.Samples[0]
		}
		list = append(list, v)
	}
	return list
}

// Event is one event, and where it went.
type Event struct {
	ID           string          `json:"id"`
	Type         string          `json:"type"`
	Timestamp    time.Time       `json:"timestamp"`
	AcceptedAt   time.Time       `json:"accepted_at"`
	Actor        string          `json:"actor_user_id,omitempty"`
	Body         json.RawMessage `json:"body" doc:"What receivers get, byte for byte"`
	Destinations []Destination   `json:"destinations" nullable:"false"`
}

// Destination is an endpoint, and what became of the event there.
type Destination struct {
	EndpointID string         `json:"endpoint_id"`
	URL        string         `json:"url"`
	State      delivery.State `json:"state,omitempty" doc:"Absent where there is no delivery"`
	Attempts   int            `json:"attempts"`
	Note       string         `json:"note,omitempty" doc:"Why there is no delivery, or why it failed"`
}

// GetEvent returns one event, and where it went.
func (o *Operations) GetEvent(ctx context.Context, who Session, id string) (Event, error) {
	a, e, err := o.event(ctx, who, id)
	if err != nil {
		return Event{}, err
	}
	v := Event{ID: e.ID, Type: e.Type, Timestamp: e.Timestamp, Actor: e.ActorUserID, Body: a.Body, Destinations: []Destination{}}
	v.AcceptedAt, err = event.IDTime(e.ID)
	if err != nil {
		v.AcceptedAt = e.Timestamp
	}
	list, err := o.Endpoints.Store.ListEndpoints(ctx, who.Tenant)
	if err != nil {
		return Event{}, err
	}
	v.Destinations = make([]Destination, len(list))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i, ep := range list {
		group.Go(func() error {
			to := Destination{EndpointID: ep.ID, URL: ep.URL}
			d, err := o.Deliveries.GetDelivery(ctx, delivery.Key{EndpointID: ep.ID, EventID: id})
			switch {
			case errors.Is(err, delivery.ErrNotFound):
				to.Note = whyNot(ep, e.Type, a.Body, v.AcceptedAt)
			case err != nil:
				return err
			default:
				to.State, to.Attempts, to.Note = d.State, d.Attempts, d.Reason
			}
			v.Destinations[i] = to
			return nil
		})
	}
	return v, group.Wait()
}

func (o *Operations) event(ctx context.Context, who Session, id string) (event.Accepted, event.Event, error) {
	a, err := o.Events.GetEvent(ctx, id)
	if errors.Is(err, event.ErrNotFound) || err == nil && a.Tenant != who.Tenant {
		return a, event.Event{}, refuse(NotFound, "there is no event %s; events are kept for 30 days", id)
	}
	if err != nil {
		return a, event.Event{}, err
	}
	e, err := event.Decode(a.Body)
	return a, e, err
}

// whyNot says why an endpoint has no delivery of an event.
func whyNot(ep endpoint.Endpoint, eventType string, body []byte, accepted time.Time) string {
	switch {
	case ep.CreatedAt.After(accepted):
		return "the endpoint was added later"
	case !ep.Subscribes(eventType):
		return "not subscribed to this type"
	case ep.Status == endpoint.Disabled:
		return "the endpoint is disabled"
	}
	if len(ep.Filter) > 0 {
		compiled, err := filter.Compile(ep.Filter)
		doc, unread := filter.Parse(body)
		if err == nil && unread == nil && !compiled.Matches(doc) {
			return "its filter does not match"
		}
	}
	return "waits for its first attempt"
}

// ---- audit -------------------------------------------------------------------------------------

// AuditPage is a part of the audit log, newest first.
type AuditPage struct {
	Entries []AuditEntry `json:"entries" nullable:"false"`
	Next    string       `json:"next,omitempty"`
}

// AuditEntry is one change.
type AuditEntry struct {
	ID      string        `json:"id"`
	At      time.Time     `json:"at"`
	Who     string        `json:"who"`
	Role    string        `json:"role"`
	Action  string        `json:"action"`
	Subject string        `json:"subject,omitempty"`
	Outcome audit.Outcome `json:"outcome" enum:"begun,done,failed"`
	Detail  string        `json:"detail,omitempty"`
}

// ListAudit returns a page of the tenant's audit log.
func (o *Operations) ListAudit(ctx context.Context, who Session, limit int, cursor string) (AuditPage, error) {
	if err := checkCursor(cursor); err != nil {
		return AuditPage{}, err
	}
	found, err := o.Audit.ListAudit(ctx, who.Tenant, limit, cursor)
	if err != nil {
		return AuditPage{}, err
	}
	page := AuditPage{Entries: []AuditEntry{}, Next: found.Next}
	for _, e := range found.Entries {
		page.Entries = append(page.Entries, AuditEntry{
			ID: e.ID, At: e.At(), Who: e.Who, Role: e.Role, Action: e.Action, Subject: e.Subject, Outcome: e.Outcome, Detail: e.Detail,
		})
	}
	return page, nil
}

// ---- the demonstration's receiver --------------------------------------------------------------

// Behave changes the behaviour of the demonstration's receiver.
func (o *Operations) Behave(ctx context.Context, who Session, b Behaviour) error {
	if o.Receiver == nil {
		return refuse(NotFound, "there is no receiver here to change")
	}
	if b.FailStatus == 0 {
		b.FailStatus = 500
	}
	if b.FailPercent < 0 || b.FailPercent > 100 || b.SlowSeconds < 0 || b.SlowSeconds > 60 || b.FailStatus < 400 || b.FailStatus > 599 {
		return refuse(Invalid, "the receiver can fail 0 to 100 %% of requests with a status of 400 to 599, and wait up to 60 seconds")
	}
	detail := fmt.Sprintf("fails %d %% with %d, waits %d s", b.FailPercent, b.FailStatus, b.SlowSeconds)
	return o.change(ctx, who, "receiver.behave", "receiver", detail, func() (string, error) {
		o.Receiver.Behave(b)
		return "", nil
	})
}
