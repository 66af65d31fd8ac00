// Package testsend sends one signed sample event to an endpoint and reports the exact
// request, the response, the duration of each phase, the verdict, and a hint for a
// failure. It promises that a test uses the same adapters, signing and address guard
// as a delivery, on a new connection, but bypasses the queue, the circuit breaker and
// the endpoint's rate limit; that it stores no event and no delivery; and that a
// report contains no secret.
package testsend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/delivery/retry"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/filter"
	"github.com/tidings-dev/tidings/pkg/ops/tracing"
	"github.com/tidings-dev/tidings/pkg/signature"
)

// HeaderTest is the header or message attribute that marks a test. Receivers can use
// it to ignore the sample data.
const HeaderTest = "tidings-test"

// sampleType is the default event type, if the endpoint subscribes to it.
const sampleType = "user.joined_community"

// reserve is the part of the invocation's time that is kept for the report.
const reserve = 2 * time.Second

// Request is a request for one test, either of an endpoint or of a URL.
type Request struct {
	Tenant     string `json:"tenant,omitempty"` // empty means "default"
	EndpointID string `json:"endpoint_id,omitempty"`

	URL string `json:"url,omitempty"`
	// The following fields are only allowed with URL; an endpoint has its own.
	RoleARN     string `json:"role_arn,omitempty"`
	Credentials string `json:"credentials,omitempty"` // name of the secret
	Ordered     bool   `json:"ordered,omitempty"`
	// Secret (whsec_… or whsk_…) signs the test. If empty, a new one is generated.
	Secret         string  `json:"secret,omitempty"`
	TimeoutSeconds float64 `json:"timeout_seconds,omitempty"`

	Event string          `json:"event,omitempty"` // event type; if empty, one that the endpoint subscribes to
	Data  json.RawMessage `json:"data,omitempty"`  // if empty, the catalog's sample

	// Caller identifies the caller, if known, for the rate limit per caller.
	Caller string `json:"-"`
}

// Verdict is whether the destination accepted the event.
type Verdict string

const (
	Delivered Verdict = "delivered"
	Failed    Verdict = "failed"
)

// Report is the result of a test.
type Report struct {
	Verdict Verdict        `json:"verdict"`
	Outcome delivery.Class `json:"outcome"`
	Status  int            `json:"status,omitempty"` // HTTP
	// Error is the error of the attempt, as in a delivery's history.
	Error       string      `json:"error,omitempty"`
	Hint        *Hint       `json:"hint,omitempty"`
	Consequence Consequence `json:"then"`
	// Notes are remarks, for example that the endpoint is disabled.
	Notes []string `json:"notes,omitempty"`

	At         time.Time `json:"at"`
	Tenant     string    `json:"tenant"`
	EndpointID string    `json:"endpoint_id,omitempty"`
	Protocol   string    `json:"protocol"`
	Event      string    `json:"event"`
	EventID    string    `json:"event_id"`
	Sample     bool      `json:"sample"` // the data is the catalog's sample

	Request  Sent      `json:"request"`
	Response *Response `json:"answer,omitempty"` // nil if there was none
	Timings  Timings   `json:"timings"`
}

// Sent is the exact HTTP request, or the message given to the broker's client.
type Sent struct {
	Method    string              `json:"method"`
	To        string              `json:"to"`
	Headers   []destination.Field `json:"headers"`
	Body      string              `json:"body"`
	Signature Signed              `json:"signature"`
}

// Signed shows the signed content and the signatures, so that a receiver can find out
// why its own signature differs.
type Signed struct {
	// Base is the signed content: id.timestamp.body.
	Base string   `json:"base"`
	By   []Signer `json:"by"`
}

// Signer is one secret and its signature.
type Signer struct {
	Secret string `json:"secret"` // masked
	// Fingerprint is the first 8 hexadecimal digits of the SHA-256 of the secret's
	// text, for comparing secrets.
	Fingerprint string `json:"fingerprint"`
	PublicKey   string `json:"public_key,omitempty"` // for an Ed25519 secret
	Signature   string `json:"signature"`
}

// Response is the HTTP response, or the broker's receipt as headers.
type Response struct {
	Proto     string              `json:"proto,omitempty"`
	Status    int                 `json:"status,omitempty"`
	Headers   []destination.Field `json:"headers"`
	Body      string              `json:"body,omitempty"`
	Truncated bool                `json:"cut,omitempty"` // the body was longer
}

// Timings are the durations of the phases in milliseconds, 0 for a phase that did not
// happen, and the phase in which the attempt ended.
type Timings struct {
	DNS       float64           `json:"dns_ms"`
	Connect   float64           `json:"connect_ms"`
	TLS       float64           `json:"tls_ms"`
	FirstByte float64           `json:"first_byte_ms"` // from the request's last byte to the response's first
	Total     float64           `json:"total_ms"`
	Ended     destination.Phase `json:"ended_in"`
}

// Consequence is what would happen to a delivery after such a first attempt.
type Consequence string

const (
	ConsequenceDelivered  Consequence = "delivered"
	ConsequenceRetried    Consequence = "retried"
	ConsequenceDeadLetter Consequence = "dead_letter"
	// ConsequenceRetriedBriefly: retried until the failure has lasted for
	// retry.Persistence, then a dead letter.
	ConsequenceRetriedBriefly Consequence = "retried_briefly"
	ConsequenceDisabled       Consequence = "endpoint_disabled"
)

// Code is the reason why a test was not made.
type Code string

const (
	Invalid     Code = "invalid"
	NotFound    Code = "endpoint_not_found"
	TooMany     Code = "too_many_tests"
	Unavailable Code = "unavailable"
)

// Refusal is the error of a test that was not made. Nothing was sent.
type Refusal struct {
	Code    Code   `json:"code"`
	Field   string `json:"field,omitempty"`
	Message string `json:"message"`
	// RetryAfter is the time until the next test is allowed, if known.
	RetryAfter time.Duration `json:"-"`
}

func (r *Refusal) Error() string { return r.Message }

// Endpoints reads endpoints, uncached.
type Endpoints interface {
	// GetEndpoint returns endpoint.ErrNotFound if there is no such endpoint.
	GetEndpoint(ctx context.Context, tenant, id string) (endpoint.Endpoint, error)
}

// Limits stores rate limits. The stores implement it.
type Limits interface {
	// ReserveSlots applies ratelimit.Reserve to the value stored under the key and
	// returns the new value. A negative cost releases slots.
	ReserveSlots(ctx context.Context, key string, cost time.Duration, now time.Time) (time.Time, error)
}

// Rate limits of tests.
var (
	perDestination = ratelimit.Limit{PerMinute: 20, Burst: 6}
	perCaller      = ratelimit.Limit{PerMinute: 60, Burst: 20}
	perTenant      = ratelimit.Limit{PerMinute: 30, Burst: 12}
)

// Sender makes attempts. *destination.Router implements it.
type Sender interface {
	Check(t destination.Target) error
	Deliver(ctx context.Context, t destination.Target, m destination.Message) delivery.Outcome
	Close() error
}

// Catalog is the source of the event types.
type Catalog interface {
	// Of returns the types of a tenant: those of the deployment and its own.
	Of(ctx context.Context, tenant string) (*catalog.Catalog, error)
}

// Tester makes tests. All fields are required.
type Tester struct {
	Catalog Catalog
	// Validate checks data against the schema of a version of a tenant's event type.
	Validate  func(ctx context.Context, tenant, eventType string, version int, data json.RawMessage) error
	Endpoints Endpoints
	Limits    Limits
	// Open returns a new sender for each test, because a reused connection would
	// hide problems with DNS, certificates and firewalls.
	Open func() (Sender, error)
	Log  *slog.Logger
	Now  func() time.Time
}

// Run makes one test. It returns a *Refusal if nothing was sent. A failed attempt is
// not an error: the report describes it.
func (t *Tester) Run(ctx context.Context, r Request) (Report, error) {
	if r.Tenant == "" {
		r.Tenant = event.DefaultTenant
	}
	sender, err := t.Open()
	if err != nil {
		return Report{}, t.unavailable(ctx, err)
	}
	defer sender.Close()
	known, err := t.Catalog.Of(ctx, r.Tenant)
	if err != nil {
		return Report{}, t.unavailable(ctx, err)
	}
	ep, notes, err := t.resolveEndpoint(ctx, known, sender, r)
	if err != nil {
		return Report{}, err
	}
	now := t.Now().Truncate(time.Millisecond)
	e, sample, err := t.sample(ctx, known, r, ep, now)
	if err != nil {
		return Report{}, err
	}
	body, err := e.Encode()
	if err != nil {
		return Report{}, invalid("data", "%s", err)
	}
	accepted := event.Accepted{Body: body, Subject: known.Subject(e.Type, e.Data), OldType: known.OldName(e.Type)}
	if r.EndpointID != "" {
		notes = append(notes, subscription(ep, accepted, e.Type)...)
	}

	if err := t.admit(ctx, r, ep, now); err != nil {
		return Report{}, err
	}
	message, err := destination.Compose(ep, e, accepted, tracing.FromContext(ctx), now)
	if err != nil {
		return Report{}, invalid("data", "%s", err)
	}
	message.Headers[HeaderTest] = "true"
	timeout := ep.AttemptTimeout()
	if deadline, ok := ctx.Deadline(); ok {
		if left := deadline.Sub(now) - reserve; left < timeout {
			timeout = max(left, time.Second)
			notes = append(notes, fmt.Sprintf("the test's timeout was reduced to %s, because the function's own timeout is near", timeout.Round(time.Second)))
		}
	}
	attempt, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	attempt, x := destination.Observe(attempt)
	outcome := sender.Deliver(attempt, destination.TargetOf(ep), message)

	report := describe(ep, message, outcome, x)
	report.At, report.EndpointID, report.Event, report.EventID, report.Sample, report.Notes = now, r.EndpointID, e.Type, e.ID, sample, notes
	report.Request.Signature = signed(ep, e.ID, message.Body, now)
	report.Consequence = consequence(outcome, ep.Retry, now)
	if outcome.Class != delivery.Success {
		h := hint(failedAttempt{
			protocol: report.Protocol, url: ep.URL, timeout: timeout, now: now,
			throwaway: r.EndpointID == "" && r.Secret == "", outcome: outcome, exchange: x,
		})
		report.Hint = &h
	}
	t.log(ctx, report)
	return report, nil
}

// keyedLimit is a rate limit and what it is counted by.
type keyedLimit struct {
	limit ratelimit.Limit
	key   string
}

// limits returns the rate limits of a test. They are counted by what a caller cannot
// choose: its identity, and the host that is tested whatever the port and the tenant. A
// direct invocation has no identity, so all of them share one limit; the limit of each
// tenant comes before, so that one tenant in the console does not use up the shared one
// alone.
func limits(r Request, ep endpoint.Endpoint) (list []keyedLimit) {
	if r.Caller != "" {
		list = append(list, keyedLimit{perCaller, "test by " + r.Caller})
	} else {
		list = append(list, keyedLimit{perTenant, "test by tenant " + r.Tenant}, keyedLimit{perCaller, "test by invocation"})
	}
	if r.EndpointID != "" {
		return append(list, keyedLimit{perDestination, "test of " + ep.ID})
	}
	for _, host := range hosts(ep.URL) {
		list = append(list, keyedLimit{perDestination, "test of host " + host})
	}
	return list
}

// hosts returns the distinct hosts of a URL, which has several for Kafka.
func hosts(raw string) (list []string) {
	u, err := url.Parse(raw)
	if err != nil {
		return []string{"unknown"}
	}
	for one := range strings.SplitSeq(u.Host, ",") {
		host := strings.ToLower(strings.TrimSuffix((&url.URL{Host: one}).Hostname(), "."))
		if !slices.Contains(list, host) {
			list = append(list, host)
		}
	}
	return list
}

// admit enforces the rate limits, so that tests cannot be used to flood a third party or
// to search its ports. A refused request uses no slot: early retries do not extend the
// wait.
func (t *Tester) admit(ctx context.Context, r Request, ep endpoint.Endpoint, now time.Time) error {
	for _, one := range limits(r, ep) {
		after, err := t.Limits.ReserveSlots(ctx, one.key, one.limit.Cost(1), now)
		if err != nil {
			return t.unavailable(ctx, err)
		}
		wait := one.limit.Slots(after, 1, now)[0].Sub(now)
		if wait <= 0 {
			continue
		}
		if _, err := t.Limits.ReserveSlots(ctx, one.key, -one.limit.Cost(1), now); err != nil {
			return t.unavailable(ctx, err)
		}
		return &Refusal{Code: TooMany, RetryAfter: wait, Message: fmt.Sprintf("too many tests: try again in %s", max(wait.Round(time.Second), time.Second))}
	}
	return nil
}

func (t *Tester) unavailable(ctx context.Context, err error) error {
	t.Log.ErrorContext(ctx, "webhook.not_tested", "error", err.Error())
	return &Refusal{Code: Unavailable, Message: "the test could not be made: try again later"}
}

func invalid(field, format string, args ...any) error {
	return &Refusal{Code: Invalid, Field: field, Message: field + ": " + fmt.Sprintf(format, args...)}
}

// resolveEndpoint returns the stored endpoint, or a temporary one for the URL.
func (t *Tester) resolveEndpoint(ctx context.Context, known *catalog.Catalog, sender Sender, r Request) (ep endpoint.Endpoint, notes []string, err error) {
	switch {
	case (r.EndpointID == "") == (r.URL == ""):
		return ep, nil, invalid("endpoint_id", "set either endpoint_id or url, not both")
	case r.EndpointID != "" && (r.RoleARN != "" || r.Credentials != "" || r.Ordered || r.Secret != "" || r.TimeoutSeconds != 0):
		return ep, nil, invalid("endpoint_id", "role_arn, credentials, ordered, secret and timeout_seconds are only allowed with url; an endpoint has its own")
	case r.EndpointID != "":
		ep, err = t.Endpoints.GetEndpoint(ctx, r.Tenant, r.EndpointID)
		if errors.Is(err, endpoint.ErrNotFound) {
			return ep, nil, &Refusal{Code: NotFound, Field: "endpoint_id", Message: fmt.Sprintf("endpoint_id: tenant %s has no endpoint %s", r.Tenant, r.EndpointID)}
		}
		if err != nil {
			return ep, nil, t.unavailable(ctx, err)
		}
		if ep.Status != endpoint.Enabled {
			notes = append(notes, fmt.Sprintf("the endpoint is %s (%s): no events are sent to it", ep.Status, ep.StatusReason))
		}
		return ep, notes, nil
	}
	ep = endpoint.Endpoint{
		Tenant: r.Tenant, ID: "test", URL: r.URL, RoleARN: r.RoleARN, Credentials: r.Credentials, Ordered: r.Ordered,
		EventTypes: []string{"*"}, Status: endpoint.Enabled, Timeout: time.Duration(r.TimeoutSeconds * float64(time.Second)),
	}
	secret := signature.NewSecret()
	if r.Secret != "" {
		if secret, err = signature.ParseSecret(r.Secret); err != nil {
			return ep, nil, invalid("secret", "%s", strings.TrimPrefix(err.Error(), "secret: "))
		}
	} else {
		notes = append(notes, "the test was signed with a generated secret: a receiver that verifies signatures will reject it")
	}
	ep.Secrets = []endpoint.SigningSecret{{Secret: secret}}
	if err := ep.Validate(known); err != nil {
		return ep, nil, &Refusal{Code: Invalid, Message: err.Error()}
	}
	if err := sender.Check(destination.TargetOf(ep)); err != nil {
		return ep, nil, &Refusal{Code: Invalid, Field: "url", Message: err.Error()}
	}
	return ep, notes, nil
}

// sample returns the test's event, and whether its data is the catalog's sample.
func (t *Tester) sample(ctx context.Context, known *catalog.Catalog, r Request, ep endpoint.Endpoint, now time.Time) (event.Event, bool, error) {
	name := r.Event
	if name == "" {
		if name = defaultType(known, ep); name == "" {
			return event.Event{}, true, &Refusal{Code: Invalid, Field: "event", Message: "the deployment has no event types: add one first"}
		}
	}
	kind, exists := known.Type(name)
	if exists && r.EndpointID != "" {
		kind = ep.TypeVersion(known.Versions(name))
	}
	data, sample := r.Data, len(r.Data) == 0
	if sample && exists {
		data = kind.Samples[0]
	}
	if err := t.Validate(ctx, r.Tenant, name, kind.Version, data); err != nil {
		field := "data"
		if !exists {
			field = "event"
		}
		return event.Event{}, sample, &Refusal{Code: Invalid, Field: field, Message: err.Error()}
	}
	id := event.NewID(now)
	return event.Event{ID: id, Type: name, Version: kind.Version, Timestamp: now, ActorUserID: "test", Data: data, RequestID: "test", IdempotencyKey: id}, sample, nil
}

// defaultType returns the type of a test that names none: sampleType or, if the endpoint
// does not subscribe to it, the first that it does; empty if there are no types.
func defaultType(known *catalog.Catalog, ep endpoint.Endpoint) string {
	types := known.Types()
	if _, ok := known.Type(sampleType); ok && ep.Subscribes(sampleType) {
		return sampleType
	}
	if len(types) == 0 {
		return ""
	}
	return types[max(slices.IndexFunc(types, ep.Subscribes), 0)]
}

// subscription returns a note if the endpoint would not get a real event like this.
func subscription(ep endpoint.Endpoint, accepted event.Accepted, eventType string) []string {
	if !ep.Subscribes(eventType) {
		return []string{fmt.Sprintf("the endpoint does not subscribe to %s (it subscribes to %s): only tests send it", eventType, strings.Join(ep.EventTypes, ", "))}
	}
	if len(ep.Filter) == 0 {
		return nil
	}
	compiled, err := filter.Compile(ep.Filter)
	if err != nil {
		return nil // dispatch ignores an invalid filter
	}
	_, sent := destination.Named(ep, accepted, eventType)
	for _, form := range [][]byte{accepted.Body, sent} {
		if doc, err := filter.Parse(form); err != nil || compiled.Matches(doc) {
			return nil
		}
	}
	return []string{"the endpoint's filter does not match this event: only tests send it"}
}

func describe(ep endpoint.Endpoint, m destination.Message, o delivery.Outcome, x *destination.Exchange) Report {
	took := func(d time.Duration) float64 {
		return float64(d.Round(10*time.Microsecond)) / float64(time.Millisecond)
	}
	r := Report{
		Verdict: Failed, Outcome: o.Class, Status: o.Status, Error: o.Error, Tenant: ep.Tenant, Protocol: destination.TargetOf(ep).Protocol(),
		Request: Sent{Method: x.Method, To: x.To, Headers: x.RequestHeaders, Body: string(m.Body)},
		Timings: Timings{
			DNS: took(o.Timings.DNS), Connect: took(o.Timings.Connect), TLS: took(o.Timings.TLS),
			FirstByte: took(o.Timings.FirstByte), Total: took(o.Timings.Total), Ended: x.Ended,
		},
	}
	if x.To == "" { // the router rejected the target
		r.Request.To, r.Request.Headers = ep.URL, destination.Fields(m.Headers)
	}
	if o.Class == delivery.Success {
		r.Verdict = Delivered
	}
	// An interrupted phase has reported no duration.
	for phase, at := range map[destination.Phase]*float64{
		destination.PhaseDNS: &r.Timings.DNS, destination.PhaseConnect: &r.Timings.Connect, destination.PhaseTLS: &r.Timings.TLS, destination.PhaseResponse: &r.Timings.FirstByte,
	} {
		if x.Ended == phase && *at == 0 {
			*at = took(x.EndedAfter)
		}
	}
	if o.Status != 0 || len(x.ResponseHeaders) > 0 {
		r.Response = &Response{Proto: x.Proto, Status: o.Status, Headers: x.ResponseHeaders, Body: printable(x.Body, x.Truncated), Truncated: x.Truncated}
	}
	return r
}

// printable removes control characters and invalid UTF-8.
func printable(b []byte, truncated bool) string {
	if truncated { // possibly within a character
		for i := 0; i < utf8.UTFMax-1 && len(b) > 0 && !utf8.Valid(b); i++ {
			b = b[:len(b)-1]
		}
	}
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r >= ' ' && r != 0x7f && (r < 0x80 || r > 0x9f) {
			return r
		}
		return -1
	}, strings.ToValidUTF8(string(b), "\uFFFD"))
}

func signed(ep endpoint.Endpoint, id string, body []byte, now time.Time) Signed {
	s := Signed{Base: string(signature.SignedContent(id, now, body))}
	for _, secret := range ep.SigningSecrets(now) {
		s.By = append(s.By, Signer{
			Secret: secret.Masked(), Fingerprint: secret.Fingerprint(), PublicKey: secret.Public(),
			Signature: signature.Sign([]signature.Secret{secret}, id, now, body),
		})
	}
	return s
}

func consequence(o delivery.Outcome, p retry.Policy, now time.Time) Consequence {
	d := retry.Decide(retry.Attempt{Number: 1, Since: now, Outcome: o}, p, now, 0)
	switch {
	case d.DisableEndpoint:
		return ConsequenceDisabled
	case d.State == delivery.Dead:
		return ConsequenceDeadLetter
	case d.State == delivery.Delivered:
		return ConsequenceDelivered
	case o.Permanent:
		return ConsequenceRetriedBriefly
	}
	return ConsequenceRetried
}

// log writes one line per test, without payload, URL and response.
func (t *Tester) log(ctx context.Context, r Report) {
	attrs := []slog.Attr{
		slog.String("tenant", r.Tenant), slog.String("endpoint_id", r.EndpointID), slog.String("protocol", r.Protocol),
		slog.String("event_type", r.Event), slog.String("event_id", r.EventID), slog.String("verdict", string(r.Verdict)),
		slog.String("outcome", string(r.Outcome)), slog.Int("status", r.Status), slog.Float64("total_ms", r.Timings.Total),
	}
	if r.Hint != nil {
		attrs = append(attrs, slog.String("hint", string(r.Hint.Code)))
	}
	t.Log.LogAttrs(ctx, slog.LevelInfo, "webhook.tested", attrs...)
}

// hostAndPort returns the host and port of a URL.
func hostAndPort(raw string) (host, port string) {
	u, err := url.Parse(raw)
	if err != nil {
		return "the receiver", ""
	}
	port = u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[u.Scheme]
	}
	return u.Hostname(), port
}
