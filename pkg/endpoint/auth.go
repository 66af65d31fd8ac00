package endpoint

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of an endpoint's authentication.
const (
	MaxAuthHeaders     = 20
	MaxScopes          = 50
	MaxAuthNameBytes   = 128  // of a header's name
	MaxAuthValueBytes  = 4096 // of a header's value, a password or a token
	MaxAuthBytes       = 8192 // of all names and values together: fan-out reads all endpoints of a tenant
	authorizationField = "authorization"
)

// Secret is a text that is stored and sent, and never shown: it redacts itself, and only
// Reveal returns it.
type Secret struct{ text string }

// NewSecret returns a secret with a text.
func NewSecret(text string) Secret { return Secret{text} }

// Reveal returns the text, to store it or to send it.
func (s Secret) Reveal() string { return s.text }

// IsZero reports whether there is no text.
func (s Secret) IsZero() bool { return s.text == "" }

// MaskedSecret stands for a secret where an endpoint is shown. Given back in a change, it
// keeps the stored one.
const MaskedSecret = "••••••••"

// UnmarshalText takes a text as it is.
func (s *Secret) UnmarshalText(text []byte) error {
	s.text = string(text)
	return nil
}

// String, GoString, MarshalText and LogValue all redact.
func (s Secret) String() string               { return MaskedSecret }
func (s Secret) GoString() string             { return MaskedSecret }
func (s Secret) MarshalText() ([]byte, error) { return []byte(MaskedSecret), nil }
func (s Secret) LogValue() slog.Value         { return slog.StringValue(MaskedSecret) }

// Auth is how deliveries authenticate to an HTTP receiver, besides the signature. It is
// never modified: a change of an endpoint replaces it. Its JSON has the mask in the place of
// each secret.
type Auth struct {
	// Headers are sent with each request. Their values are secrets, because most are.
	Headers []AuthHeader `json:"headers,omitempty" nullable:"false" doc:"Headers to send with each request; their values are not shown again"`
	// At most one of Basic, Bearer, OAuth2 and a header Authorization is set.
	Basic  *BasicAuth  `json:"basic,omitempty" doc:"User name and password (HTTP Basic)"`
	Bearer Secret      `json:"bearer,omitzero" required:"false" doc:"Bearer token"`
	APIKey *AuthHeader `json:"api_key,omitempty" doc:"API key, in a header of your choice"`
	OAuth2 *OAuth2     `json:"oauth2,omitempty" doc:"Bearer tokens from a token endpoint (OAuth 2.0 client credentials)"`
	// ClientCertificate is the name of the secret with a certificate and its key in PEM, in the
	// deployment's secret store, as Endpoint.Credentials is. It may be combined with the others.
	ClientCertificate string `json:"client_certificate,omitempty" doc:"Name of the secret with the client certificate and its key in PEM (mutual TLS)"`
}

// AuthHeader is a header with a secret value.
type AuthHeader struct {
	Name  string `json:"name"`
	Value Secret `json:"value,omitzero" required:"false"`
}

// BasicAuth is a user name and a password (RFC 7617).
type BasicAuth struct {
	User     string `json:"user"`
	Password Secret `json:"password,omitzero" required:"false"`
}

// OAuth2 gets bearer tokens by the client credentials grant (RFC 6749, section 4.4).
type OAuth2 struct {
	TokenURL     string   `json:"token_url"`
	ClientID     string   `json:"client_id"`
	ClientSecret Secret   `json:"client_secret,omitzero" required:"false"`
	Scopes       []string `json:"scopes,omitempty" nullable:"false"`
	Audience     string   `json:"audience,omitempty" doc:"The parameter audience, which some token endpoints require"`
	// SecretInBody sends client id and secret as parameters, for token endpoints that do not
	// take them by HTTP Basic, as the RFC requires.
	SecretInBody bool `json:"secret_in_body,omitempty" doc:"Send client id and secret as parameters, not by HTTP Basic"`
}

// IsZero reports whether nothing is set.
func (a *Auth) IsZero() bool {
	return a == nil || len(a.Headers) == 0 && a.Basic == nil && a.Bearer.IsZero() && a.APIKey == nil && a.OAuth2 == nil && a.ClientCertificate == ""
}

// Ways names what is set, such as basic, with what is no secret, for people.
func (a *Auth) Ways() (list []string) {
	if a == nil {
		return nil
	}
	if a.Basic != nil {
		list = append(list, "basic as "+a.Basic.User)
	}
	if !a.Bearer.IsZero() {
		list = append(list, "bearer token")
	}
	if a.OAuth2 != nil {
		list = append(list, "OAuth2 as "+a.OAuth2.ClientID+" at "+a.OAuth2.TokenURL)
	}
	if a.APIKey != nil {
		list = append(list, "API key in "+a.APIKey.Name)
	}
	for _, h := range a.Headers {
		list = append(list, "header "+h.Name)
	}
	if a.ClientCertificate != "" {
		list = append(list, "client certificate "+a.ClientCertificate)
	}
	return list
}

// Secrets returns all secrets that are set.
func (a *Auth) Secrets() (list []Secret) {
	if a == nil {
		return nil
	}
	for _, h := range a.Headers {
		list = append(list, h.Value)
	}
	if a.Basic != nil {
		list = append(list, a.Basic.Password)
	}
	list = append(list, a.Bearer)
	if a.APIKey != nil {
		list = append(list, a.APIKey.Value)
	}
	if a.OAuth2 != nil {
		list = append(list, a.OAuth2.ClientSecret)
	}
	return slices.DeleteFunc(list, Secret.IsZero)
}

// place is where in an Auth a secret is, with what it belongs to: a stored secret is kept for
// the same header, user, or client of a token endpoint only.
type place struct{ field, of string }

// fill returns a copy in which each secret that is masked or missing is what stored returns
// for its place. It says whether there was one.
func (a *Auth) fill(stored func(place) Secret) (filled *Auth, some bool) {
	if a == nil {
		return nil, false
	}
	one := func(s Secret, field, of string) Secret {
		if !s.IsZero() && s.text != MaskedSecret {
			return s
		}
		if old := stored(place{field, of}); !old.IsZero() {
			some = true
			return old
		}
		return s
	}
	header := func(h AuthHeader, field string) AuthHeader {
		return AuthHeader{h.Name, one(h.Value, field, strings.ToLower(h.Name))}
	}
	filled = &Auth{ClientCertificate: a.ClientCertificate}
	for _, h := range a.Headers {
		filled.Headers = append(filled.Headers, header(h, "headers"))
	}
	if a.Basic != nil {
		filled.Basic = &BasicAuth{a.Basic.User, one(a.Basic.Password, "basic", a.Basic.User)}
	}
	if !a.Bearer.IsZero() {
		filled.Bearer = one(a.Bearer, "bearer", "")
	}
	if a.APIKey != nil {
		key := header(*a.APIKey, "api_key")
		filled.APIKey = &key
	}
	if a.OAuth2 != nil {
		client := *a.OAuth2
		client.ClientSecret = one(client.ClientSecret, "oauth2", client.TokenURL+" "+client.ClientID)
		filled.OAuth2 = &client
	}
	return filled, some
}

// Keep returns a copy that has the stored secrets where its own are masked or missing, and
// whether there is one.
func (a *Auth) Keep(stored *Auth) (*Auth, bool) {
	secrets := map[place]Secret{}
	if stored != nil {
		for _, h := range stored.Headers {
			secrets[place{"headers", strings.ToLower(h.Name)}] = h.Value
		}
		if stored.Basic != nil {
			secrets[place{"basic", stored.Basic.User}] = stored.Basic.Password
		}
		secrets[place{field: "bearer"}] = stored.Bearer
		if stored.APIKey != nil {
			secrets[place{"api_key", strings.ToLower(stored.APIKey.Name)}] = stored.APIKey.Value
		}
		if o := stored.OAuth2; o != nil {
			secrets[place{"oauth2", o.TokenURL + " " + o.ClientID}] = o.ClientSecret
		}
	}
	return a.fill(func(p place) Secret { return secrets[p] })
}

// Assume returns a copy for a check that knows no stored secrets: each that is masked or
// missing is a valid one.
func (a *Auth) Assume() *Auth {
	assumed, _ := a.fill(func(place) Secret { return Secret{"x"} })
	return assumed
}

// ownedNames are headers that are not an endpoint's to set, and ownedPrefixes their families:
// those of HTTP's framing and connections, of proxies, of the signature and of traces, and
// those by which AWS and Google tell each other who calls.
var (
	ownedNames = []string{
		"host", "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "http2-settings", "expect",
		"user-agent", "accept-encoding", "date", "via", "forwarded", "x-real-ip", "true-client-ip", "x-http-method-override", "x-http-method", "x-method-override", "max-forwards",
		"traceparent", "tracestate", "baggage", "x-cloud-trace-context",
	}
	ownedPrefixes = []string{
		"content-", "proxy-", "x-forwarded-", "webhook-", "tidings-", "ce-",
		// net/http would repeat a POST that has such a header.
		"idempotency-", "x-idempotency-",
		"x-amz", "x-goog", "x-appengine-", "x-envoy-",
	}
)

// checkHeaderName returns an error for a name that no endpoint may set.
func checkHeaderName(name string) error {
	lower := strings.ToLower(name)
	switch {
	case name == "":
		return errors.New("a header has no name")
	case len(name) > MaxAuthNameBytes:
		return fmt.Errorf("the name %.40q… is %d bytes; the limit is %d", name, len(name), MaxAuthNameBytes)
	case strings.ContainsFunc(name, func(r rune) bool { return !isTokenRune(r) }):
		return fmt.Errorf("the name %q must have letters, digits and !#$%%&'*+-.^_`|~ only", name)
	case slices.Contains(ownedNames, lower) || slices.ContainsFunc(ownedPrefixes, func(p string) bool { return strings.HasPrefix(lower, p) }):
		return fmt.Errorf("the header %s cannot be set: it belongs to HTTP, to proxies, to the webhook's signature and trace, or to AWS or Google", name)
	}
	return nil
}

// isTokenRune reports whether a character is one of a token's (RFC 9110, section 5.6.2).
func isTokenRune(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}

// checkSecret returns an error for a text that cannot be sent. It does not contain it. A
// text in a header is ASCII.
func checkSecret(what string, s Secret, inHeader bool) error {
	text := s.Reveal()
	switch {
	case text == "":
		return fmt.Errorf("%s is missing", what)
	case text == MaskedSecret:
		return fmt.Errorf("%s is only the mask of a secret, and none is stored: give the secret", what)
	case len(text) > MaxAuthValueBytes:
		return fmt.Errorf("%s is %d bytes; the limit is %d", what, len(text), MaxAuthValueBytes)
	case !utf8.ValidString(text), strings.ContainsFunc(text, unicode.IsControl):
		return fmt.Errorf("%s has a control character, such as a line break, or is not UTF-8", what)
	case strings.TrimSpace(text) != text:
		return fmt.Errorf("%s begins or ends with white space", what)
	case inHeader && strings.ContainsFunc(text, func(r rune) bool { return r > unicode.MaxASCII }):
		return fmt.Errorf("%s has a character that is not ASCII, which HTTP headers cannot carry reliably", what)
	}
	return nil
}

// validate returns what is wrong, each error with the name of its field.
func (a *Auth) validate(tenant string) (errs []error) {
	add := func(field string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("auth.%s: %w", field, err))
		}
	}
	names := map[string]bool{}
	header := func(field string, h AuthHeader) {
		if err := checkHeaderName(h.Name); err != nil {
			add(field, err)
			return
		}
		name := strings.ToLower(h.Name)
		if names[name] {
			add(field, fmt.Errorf("the header %s is set twice", h.Name))
		}
		names[name] = true
		add(field, checkSecret("the value of "+h.Name, h.Value, true))
	}
	if len(a.Headers) > MaxAuthHeaders {
		add("headers", fmt.Errorf("there are %d; the limit is %d", len(a.Headers), MaxAuthHeaders))
	}
	for _, h := range a.Headers {
		header("headers", h)
	}
	if a.APIKey != nil {
		header("api_key", *a.APIKey)
	}
	if b := a.Basic; b != nil {
		switch {
		case b.User == "" || strings.Contains(b.User, ":") || strings.ContainsFunc(b.User, unicode.IsControl) || !utf8.ValidString(b.User):
			add("basic", errors.New("the user name must not be empty, and have no colon and no control character"))
		case len(b.User) > MaxAuthValueBytes:
			add("basic", fmt.Errorf("the user name is %d bytes; the limit is %d", len(b.User), MaxAuthValueBytes))
		}
		add("basic", checkSecret("the password", b.Password, false))
	}
	if !a.Bearer.IsZero() {
		add("bearer", checkSecret("the token", a.Bearer, true))
		if strings.Contains(a.Bearer.Reveal(), " ") {
			add("bearer", errors.New("the token has a blank: give it without the word Bearer"))
		}
	}
	if a.OAuth2 != nil {
		for _, err := range a.OAuth2.validate() {
			add("oauth2", err)
		}
	}
	if a.ClientCertificate != "" && !ownSecret(a.ClientCertificate, tenant) {
		add("client_certificate", fmt.Errorf("it is not the name of a secret of this tenant: it must begin with the stack's name and /%s/, followed by letters, digits and -/_+=.@", tenant))
	}
	var ways []string
	for way, set := range map[string]bool{
		"basic": a.Basic != nil, "bearer": !a.Bearer.IsZero(), "oauth2": a.OAuth2 != nil, "a header Authorization": names[authorizationField],
	} {
		if set {
			ways = append(ways, way)
		}
	}
	if len(ways) > 1 {
		slices.Sort(ways)
		errs = append(errs, fmt.Errorf("auth: %s each set the header Authorization: use one of them", strings.Join(ways, " and ")))
	}
	if n := a.bytes(); n > MaxAuthBytes {
		errs = append(errs, fmt.Errorf("auth: names and values are %d bytes together; the limit is %d", n, MaxAuthBytes))
	}
	return errs
}

// validate checks all but where the token URL leads, which the adapter does.
func (o *OAuth2) validate() (errs []error) {
	if o.TokenURL == "" || len(o.TokenURL) > MaxURLBytes {
		errs = append(errs, fmt.Errorf("the token URL is %d bytes; it must be 1 to %d", len(o.TokenURL), MaxURLBytes))
	}
	isPrintable := func(r rune) bool { return ' ' <= r && r <= '~' } // RFC 6749, appendix A
	if o.ClientID == "" || len(o.ClientID) > MaxAuthValueBytes || strings.ContainsFunc(o.ClientID, func(r rune) bool { return !isPrintable(r) }) {
		errs = append(errs, fmt.Errorf("the client id must have 1 to %d characters, all printable ASCII", MaxAuthValueBytes))
	}
	if err := checkSecret("the client secret", o.ClientSecret, true); err != nil {
		errs = append(errs, err)
	}
	if len(o.Scopes) > MaxScopes {
		errs = append(errs, fmt.Errorf("there are %d scopes; the limit is %d", len(o.Scopes), MaxScopes))
	}
	for _, scope := range o.Scopes {
		if scope == "" || strings.ContainsFunc(scope, func(r rune) bool { return !isPrintable(r) || strings.ContainsRune(` "\`, r) }) {
			errs = append(errs, fmt.Errorf("the scope %.60q must have printable ASCII without blanks, quotes and backslashes", scope))
		}
	}
	if strings.ContainsFunc(o.Audience, unicode.IsControl) || !utf8.ValidString(o.Audience) {
		errs = append(errs, errors.New("the audience has a control character, or is not UTF-8"))
	}
	return errs
}

// bytes is the size of what is stored.
func (a *Auth) bytes() (n int) {
	for _, h := range a.Headers {
		n += len(h.Name)
	}
	if a.APIKey != nil {
		n += len(a.APIKey.Name)
	}
	if a.Basic != nil {
		n += len(a.Basic.User)
	}
	if o := a.OAuth2; o != nil {
		n += len(o.TokenURL) + len(o.ClientID) + len(o.Audience) + len(strings.Join(o.Scopes, " "))
	}
	for _, s := range a.Secrets() {
		n += len(s.Reveal())
	}
	return n
}
