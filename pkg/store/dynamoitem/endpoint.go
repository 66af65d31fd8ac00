package dynamoitem

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/delivery/retry"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/signature"
)

// EndpointKey is the key of an endpoint's item.
func EndpointKey(tenant, id string) Item {
	return Item{Tenant: S(tenant), EndpointID: S(id)}
}

// EndpointsVersion is the id, beside those of a tenant's endpoints and before them in order,
// of the item that holds the version of the list.
const EndpointsVersion = "#version"

// IsEndpointsVersion reports whether an item of the table is that of EndpointsVersion.
func IsEndpointsVersion(item Item) bool { return TextOf(item, EndpointID) == EndpointsVersion }

// DecodeEndpointsVersion reads the version of a list of endpoints. Without an item, it is 0.
func DecodeEndpointsVersion(item Item) (int64, error) {
	r := reader{item: item}
	return r.n(Version), r.err
}

// storedSecret is the stored form of a signing secret.
type storedSecret struct {
	Secret    string `json:"secret"`
	ExpiresAt int64  `json:"expires_at,omitempty"` // epoch ms
}

// storedAuth is the stored form of an endpoint's authentication.
type storedAuth struct {
	Headers []storedHeader `json:"headers,omitempty"`
	Basic   *storedBasic   `json:"basic,omitempty"`
	Bearer  string         `json:"bearer,omitempty"`
	APIKey  *storedHeader  `json:"api_key,omitempty"`
	OAuth2  *storedOAuth2  `json:"oauth2,omitempty"`
	// ClientCertificate is a name.
	ClientCertificate string `json:"client_certificate,omitempty"`
}

type storedHeader struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type storedBasic struct {
	User     string `json:"user"`
	Password string `json:"password"`
}

type storedOAuth2 struct {
	TokenURL     string   `json:"token_url"`
	ClientID     string   `json:"client_id"`
	ClientSecret string   `json:"client_secret"`
	Scopes       []string `json:"scopes,omitempty"`
	Audience     string   `json:"audience,omitempty"`
	SecretInBody bool     `json:"secret_in_body,omitempty"`
}

// storedShape is the stored form of an endpoint's shape.
type storedShape struct {
	Format      endpoint.Format `json:"format,omitempty"`
	Thin        bool            `json:"thin,omitempty"`
	Include     []string        `json:"include,omitempty"`
	Exclude     []string        `json:"exclude,omitempty"`
	Method      string          `json:"method,omitempty"`
	ContentType string          `json:"content_type,omitempty"`
}

func encodeAuth(a *endpoint.Auth) string {
	stored := storedAuth{Bearer: a.Bearer.Reveal(), ClientCertificate: a.ClientCertificate}
	for _, h := range a.Headers {
		stored.Headers = append(stored.Headers, storedHeader{h.Name, h.Value.Reveal()})
	}
	if a.Basic != nil {
		stored.Basic = &storedBasic{a.Basic.User, a.Basic.Password.Reveal()}
	}
	if a.APIKey != nil {
		stored.APIKey = &storedHeader{a.APIKey.Name, a.APIKey.Value.Reveal()}
	}
	if o := a.OAuth2; o != nil {
		stored.OAuth2 = &storedOAuth2{o.TokenURL, o.ClientID, o.ClientSecret.Reveal(), o.Scopes, o.Audience, o.SecretInBody}
	}
	text, err := json.Marshal(stored)
	if err != nil {
		panic(err) // strings
	}
	return string(text)
}

// decodeAuth reads what encodeAuth wrote. Its error contains no secret.
func decodeAuth(text string) (*endpoint.Auth, error) {
	var stored storedAuth
	if json.Unmarshal([]byte(text), &stored) != nil {
		return nil, errors.New("auth: malformed JSON")
	}
	a := &endpoint.Auth{Bearer: endpoint.NewSecret(stored.Bearer), ClientCertificate: stored.ClientCertificate}
	for _, h := range stored.Headers {
		a.Headers = append(a.Headers, endpoint.AuthHeader{Name: h.Name, Value: endpoint.NewSecret(h.Value)})
	}
	if b := stored.Basic; b != nil {
		a.Basic = &endpoint.BasicAuth{User: b.User, Password: endpoint.NewSecret(b.Password)}
	}
	if h := stored.APIKey; h != nil {
		a.APIKey = &endpoint.AuthHeader{Name: h.Name, Value: endpoint.NewSecret(h.Value)}
	}
	if o := stored.OAuth2; o != nil {
		a.OAuth2 = &endpoint.OAuth2{
			TokenURL: o.TokenURL, ClientID: o.ClientID, ClientSecret: endpoint.NewSecret(o.ClientSecret), Scopes: o.Scopes, Audience: o.Audience, SecretInBody: o.SecretInBody,
		}
	}
	return a, nil
}

// EncodeEndpoint returns the item of an endpoint. The item contains the secrets in plain
// text. The table is encrypted with a KMS key of its own (SecretsKey in template.yaml).
func EncodeEndpoint(e endpoint.Endpoint) Item {
	item := EndpointKey(e.Tenant, e.ID)
	item["url"] = S(e.URL)
	put(item, "description", e.Description)
	put(item, "role_arn", e.RoleARN)
	put(item, "credentials", e.Credentials)
	if e.Auth != nil {
		item["auth"] = S(encodeAuth(e.Auth))
	}
	if !e.Shape.IsZero() {
		text, err := json.Marshal(storedShape(e.Shape))
		if err != nil {
			panic(err) // strings
		}
		item["shape"] = S(string(text))
	}
	if e.Ordered {
		item["ordered"] = N(1)
	}
	if e.Traceparent {
		item["traceparent"] = N(1)
	}
	if e.OldNames {
		item["old_names"] = N(1)
	}
	subscribed, err := json.Marshal(e.EventTypes)
	if err != nil {
		panic(err) // a list of strings
	}
	item["event_types"] = S(string(subscribed))
	if len(e.TypeVersions) > 0 {
		pinned, err := json.Marshal(e.TypeVersions)
		if err != nil {
			panic(err) // numbers by name
		}
		item["type_versions"] = S(string(pinned))
	}
	put(item, "filter", string(e.Filter))
	secrets := make([]storedSecret, len(e.Secrets))
	for i, s := range e.Secrets {
		secrets[i].Secret = s.Secret.Reveal()
		if !s.ExpiresAt.IsZero() {
			secrets[i].ExpiresAt = s.ExpiresAt.UnixMilli()
		}
	}
	text, err := json.Marshal(secrets)
	if err != nil {
		panic(err) // strings and numbers
	}
	item["secrets"] = S(string(text))
	for name, n := range map[string]int64{
		"timeout_ms": e.Timeout.Milliseconds(), "max_attempts": int64(e.Retry.MaxAttempts),
		"max_age_ms": e.Retry.MaxAge.Milliseconds(), "max_delay_ms": e.Retry.MaxDelay.Milliseconds(),
		"breaker_failures": int64(e.Breaker.Failures), "breaker_failing_ms": e.Breaker.FailingFor.Milliseconds(), "breaker_open_ms": e.Breaker.OpenFor.Milliseconds(),
		"breaker_max_open_ms": e.Breaker.MaxOpenFor.Milliseconds(), "disable_after_ms": e.Breaker.DisableAfter.Milliseconds(),
		"rate_per_minute": int64(e.Limit.PerMinute), "burst": int64(e.Limit.Burst),
	} {
		if n != 0 {
			item[name] = N(n)
		}
	}
	item[Status] = S(string(e.Status))
	put(item, StatusWhy, e.StatusReason)
	item[Version] = N(int64(e.Version))
	putTime(item, CreatedAt, e.CreatedAt)
	putTime(item, UpdatedAt, e.UpdatedAt)
	return item
}

// DecodeEndpoint reads what EncodeEndpoint wrote. Its errors contain no secret.
func DecodeEndpoint(item Item) (endpoint.Endpoint, error) {
	r := reader{item: item}
	r.must(Tenant, EndpointID, "url", "event_types", "secrets", Status)
	ms := func(name string) time.Duration { return time.Duration(r.n(name)) * time.Millisecond }
	e := endpoint.Endpoint{
		Tenant: r.s(Tenant), ID: r.s(EndpointID), URL: r.s("url"), Description: r.s("description"),
		RoleARN: r.s("role_arn"), Credentials: r.s("credentials"), Ordered: r.n("ordered") != 0, Traceparent: r.n("traceparent") != 0,
		OldNames: r.n("old_names") != 0,
		Timeout:  ms("timeout_ms"),
		Retry:    retry.Policy{MaxAttempts: int(r.n("max_attempts")), MaxAge: ms("max_age_ms"), MaxDelay: ms("max_delay_ms")},
		Breaker: breaker.Policy{
			Failures: int(r.n("breaker_failures")), FailingFor: ms("breaker_failing_ms"), OpenFor: ms("breaker_open_ms"),
			MaxOpenFor: ms("breaker_max_open_ms"), DisableAfter: ms("disable_after_ms"),
		},
		Limit:  ratelimit.Limit{PerMinute: int(r.n("rate_per_minute")), Burst: int(r.n("burst"))},
		Status: endpoint.Status(r.s(Status)), StatusReason: r.s(StatusWhy), Version: int(r.n(Version)),
		CreatedAt: r.millis(CreatedAt), UpdatedAt: r.millis(UpdatedAt),
	}
	if text := r.s("filter"); text != "" {
		e.Filter = json.RawMessage(text)
	}
	if r.err != nil {
		return e, r.err
	}
	if err := json.Unmarshal([]byte(r.s("event_types")), &e.EventTypes); err != nil {
		return e, fmt.Errorf("endpoint %s: event_types: %w", e.ID, err)
	}
	if text := r.s("type_versions"); text != "" {
		if err := json.Unmarshal([]byte(text), &e.TypeVersions); err != nil {
			return e, fmt.Errorf("endpoint %s: type_versions: %w", e.ID, err)
		}
	}
	if text := r.s("auth"); text != "" {
		var err error
		if e.Auth, err = decodeAuth(text); err != nil {
			return e, fmt.Errorf("endpoint %s: %w", e.ID, err)
		}
	}
	if text := r.s("shape"); text != "" {
		var stored storedShape
		if err := json.Unmarshal([]byte(text), &stored); err != nil {
			return e, fmt.Errorf("endpoint %s: shape: %w", e.ID, err)
		}
		e.Shape = endpoint.Shape(stored)
	}
	var secrets []storedSecret
	if err := json.Unmarshal([]byte(r.s("secrets")), &secrets); err != nil {
		return e, fmt.Errorf("endpoint %s: secrets: malformed JSON", e.ID)
	}
	for _, s := range secrets {
		secret, err := signature.DecodeSecret(s.Secret)
		if err != nil {
			return e, fmt.Errorf("endpoint %s: %w", e.ID, err)
		}
		one := endpoint.SigningSecret{Secret: secret}
		if s.ExpiresAt != 0 {
			one.ExpiresAt = time.UnixMilli(s.ExpiresAt).UTC()
		}
		e.Secrets = append(e.Secrets, one)
	}
	return e, nil
}

// DecodeStatus reads the status of an endpoint's item, and the reason if it is
// disabled.
func DecodeStatus(item Item) (e stats.Endpoint, status endpoint.Status, reason string, err error) {
	in := reader{item: item}
	in.must(Tenant, EndpointID, Status)
	return stats.Endpoint{Tenant: in.s(Tenant), ID: in.s(EndpointID)}, endpoint.Status(in.s(Status)), in.s(StatusWhy), in.err
}
