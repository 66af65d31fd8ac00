package endpoint_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/signature"
)

// valid returns an endpoint without mistakes.
func valid() endpoint.Endpoint {
	return endpoint.Endpoint{Tenant: "default", URL: "https://example.com", EventTypes: []string{"*"}, Secrets: []endpoint.SigningSecret{{Secret: signature.NewSecret()}}}
}

func withHeader(name, value string) *endpoint.Auth {
	return &endpoint.Auth{Headers: []endpoint.AuthHeader{{Name: name, Value: endpoint.NewSecret(value)}}}
}

// oauth returns valid OAuth2 after a change.
func oauth(change func(*endpoint.OAuth2)) *endpoint.Auth {
	o := endpoint.OAuth2{TokenURL: "https://login.example.com/token", ClientID: "c", ClientSecret: endpoint.NewSecret("four"), Scopes: []string{"a:b"}}
	change(&o)
	return &endpoint.Auth{OAuth2: &o}
}

func TestAuthValidation(t *testing.T) {
	secret := endpoint.NewSecret
	basic := func(user, password string) *endpoint.Auth {
		return &endpoint.Auth{Basic: &endpoint.BasicAuth{User: user, Password: secret(password)}}
	}
	var many, large endpoint.Auth
	for i := range endpoint.MaxAuthHeaders + 1 {
		many.Headers = append(many.Headers, endpoint.AuthHeader{Name: fmt.Sprint("x-", i), Value: secret("v")})
	}
	for i := range 3 {
		large.Headers = append(large.Headers, endpoint.AuthHeader{Name: fmt.Sprint("x-", i), Value: secret(strings.Repeat("v", 3000))})
	}
	type row struct {
		auth *endpoint.Auth
		want string // "" if it is valid
	}
	rows := map[string]row{
		"a header":                       {withHeader("X-Team", "crm 1"), ""},
		"a cookie":                       {withHeader("Cookie", "s=1; t=2"), ""},
		"an authorization of its own":    {withHeader("authorization", "GenieKey abc"), ""},
		"the longest value":              {withHeader("X-Team", strings.Repeat("v", 4096)), ""},
		"a longer value":                 {withHeader("X-Team", strings.Repeat("v", 4097)), "auth.headers: the value of X-Team is 4097 bytes"},
		"no value":                       {withHeader("X-Team", ""), "auth.headers: the value of X-Team is missing"},
		"only the mask":                  {withHeader("X-Team", endpoint.MaskedSecret), "none is stored"},
		"a line break":                   {withHeader("X-Team", "a\r\nX-Evil: 1"), "control character"},
		"a tab":                          {withHeader("X-Team", "a\tb"), "control character"},
		"a leading blank":                {withHeader("X-Team", " a"), "white space"},
		"a trailing blank":               {withHeader("X-Team", "a "), "white space"},
		"not ASCII":                      {withHeader("X-Team", "ü"), "not ASCII"},
		"no name":                        {withHeader("", "a"), "no name"},
		"a blank in the name":            {withHeader("X Team", "a"), "letters, digits"},
		"a pseudo-header":                {withHeader(":path", "a"), "letters, digits"},
		"a long name":                    {withHeader(strings.Repeat("x", 129), "a"), "the limit is 128"},
		"too many":                       {&many, "auth.headers: there are 21; the limit is 20"},
		"too large together":             {&large, "the limit is 8192"},
		"a name twice":                   {&endpoint.Auth{Headers: []endpoint.AuthHeader{{Name: "x-a", Value: secret("1")}, {Name: "X-A", Value: secret("2")}}}, "set twice"},
		"a header and the API key":       {&endpoint.Auth{Headers: withHeader("x-a", "1").Headers, APIKey: &endpoint.AuthHeader{Name: "X-A", Value: secret("2")}}, "auth.api_key: the header X-A is set twice"},
		"an API key":                     {&endpoint.Auth{APIKey: &endpoint.AuthHeader{Name: "X-Api-Key", Value: secret("k")}}, ""},
		"an API key in a refused header": {&endpoint.Auth{APIKey: &endpoint.AuthHeader{Name: "X-Amzn-Key", Value: secret("k")}}, "auth.api_key: the header X-Amzn-Key cannot be set"},
		"Basic":                          {basic("user", "pässword: 1"), ""},
		"Basic without a user":           {basic("", "p"), "auth.basic: the user name"},
		"Basic with a colon":             {basic("a:b", "p"), "auth.basic: the user name"},
		"Basic without a password":       {basic("a", ""), "auth.basic: the password is missing"},
		"a bearer token":                 {&endpoint.Auth{Bearer: secret("abc.def")}, ""},
		"a bearer token with its scheme": {&endpoint.Auth{Bearer: secret("Bearer abc")}, "without the word Bearer"},
		"a client certificate":           {&endpoint.Auth{ClientCertificate: "tidings/default/crm"}, ""},
		"another tenant's certificate":   {&endpoint.Auth{ClientCertificate: "tidings/acme/crm"}, "auth.client_certificate: it is not the name of a secret of this tenant"},
		"a certificate by its ARN":       {&endpoint.Auth{ClientCertificate: "arn:aws:secretsmanager:eu-central-1:1:secret:x"}, "auth.client_certificate"},
		"OAuth2":                         {oauth(func(*endpoint.OAuth2) {}), ""},
		"OAuth2 without a URL":           {oauth(func(o *endpoint.OAuth2) { o.TokenURL = "" }), "auth.oauth2: the token URL is 0 bytes"},
		"OAuth2 without a client":        {oauth(func(o *endpoint.OAuth2) { o.ClientID = "" }), "auth.oauth2: the client id"},
		"OAuth2 without a secret":        {oauth(func(o *endpoint.OAuth2) { o.ClientSecret = endpoint.Secret{} }), "auth.oauth2: the client secret is missing"},
		"a scope with a blank":           {oauth(func(o *endpoint.OAuth2) { o.Scopes = []string{"a b"} }), "auth.oauth2: the scope"},
		"an empty scope":                 {oauth(func(o *endpoint.OAuth2) { o.Scopes = []string{""} }), "auth.oauth2: the scope"},
		"too many scopes":                {oauth(func(o *endpoint.OAuth2) { o.Scopes = slices.Repeat([]string{"s"}, 51) }), "auth.oauth2: there are 51 scopes"},
		"an audience with a line break":  {oauth(func(o *endpoint.OAuth2) { o.Audience = "a\n" }), "auth.oauth2: the audience"},
		"OAuth2 and bearer":              {&endpoint.Auth{OAuth2: oauth(func(*endpoint.OAuth2) {}).OAuth2, Bearer: secret("t")}, "auth: bearer and oauth2 each set"},
		"Basic and bearer":               {&endpoint.Auth{Basic: basic("a", "p").Basic, Bearer: secret("t")}, "auth: basic and bearer each set"},
		"bearer and an authorization":    {&endpoint.Auth{Headers: withHeader("AUTHORIZATION", "x").Headers, Bearer: secret("t")}, "a header Authorization and bearer each set"},
	}
	for _, name := range []string{
		"Content-Type", "content-length", "Content-Encoding", "Transfer-Encoding", "TE", "Trailer", "Upgrade", "Host", "Connection", "Keep-Alive", "Proxy-Authorization",
		"User-Agent", "Expect", "Date", "Via", "Forwarded", "X-Forwarded-For", "Webhook-Id", "webhook-signature", "Idempotency-Key", "X-Idempotency-Key", "tidings-test",
		"X-Amz-Date", "x-amzn-trace-id", "X-Goog-Authenticated-User", "x-google-anything", "traceparent", "tracestate", "Accept-Encoding", "X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override",
	} {
		rows[name] = row{withHeader(name, "v"), "cannot be set"}
	}
	for name, c := range rows {
		t.Run(name, func(t *testing.T) {
			e := valid()
			e.Auth = c.auth
			err := e.Validate(catalog.Default())
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestSecretsOfAuthRedactThemselves(t *testing.T) {
	a := endpoint.Auth{
		Headers: withHeader("X-Team", "marker-1").Headers, Basic: &endpoint.BasicAuth{User: "u", Password: endpoint.NewSecret("marker-2")},
		Bearer: endpoint.NewSecret("marker-3"), APIKey: &endpoint.AuthHeader{Name: "X-Key", Value: endpoint.NewSecret("marker-4")},
		OAuth2: oauth(func(o *endpoint.OAuth2) { o.ClientSecret = endpoint.NewSecret("marker-6") }).OAuth2,
	}
	text, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("auth", "auth", a, "one", a.Bearer)
	broken := a
	broken.Headers = withHeader("X-Team", "marker-5\n").Headers
	e := valid()
	e.Auth = &broken
	for _, shown := range []string{string(text), log.String(), fmt.Sprintf("%v %+v %#v", a, a, a.Bearer), strings.Join(a.Ways(), " "), fmt.Sprint(e.Validate(catalog.Default()))} {
		if shown == "" || strings.Contains(shown, "marker") {
			t.Errorf("shown: %s", shown)
		}
	}
	if n := len(a.Secrets()); n != 5 {
		t.Errorf("%d secrets", n)
	}
}

func TestAMaskedSecretKeepsWhatIsStoredForTheSamePlace(t *testing.T) {
	mask := endpoint.MaskedSecret
	stored := &endpoint.Auth{
		Headers: withHeader("X-Team", "one").Headers, Basic: &endpoint.BasicAuth{User: "u", Password: endpoint.NewSecret("two")},
		APIKey: &endpoint.AuthHeader{Name: "X-Key", Value: endpoint.NewSecret("three")}, OAuth2: oauth(func(*endpoint.OAuth2) {}).OAuth2,
	}
	for name, c := range map[string]struct {
		given *endpoint.Auth
		want  []string
		kept  bool
	}{
		"the mask":            {withHeader("x-team", mask), []string{"one"}, true},
		"nothing":             {withHeader("X-Team", ""), []string{"one"}, true},
		"another value":       {withHeader("X-Team", "new"), []string{"new"}, false},
		"of another header":   {withHeader("X-Other", mask), []string{mask}, false},
		"of the API key":      {withHeader("X-Key", mask), []string{mask}, false},
		"the same user":       {&endpoint.Auth{Basic: &endpoint.BasicAuth{User: "u", Password: endpoint.NewSecret(mask)}}, []string{"two"}, true},
		"another user":        {&endpoint.Auth{Basic: &endpoint.BasicAuth{User: "v", Password: endpoint.NewSecret(mask)}}, []string{mask}, false},
		"a token that is not": {&endpoint.Auth{Bearer: endpoint.NewSecret(mask)}, []string{mask}, false},
		"the same client":     {oauth(func(o *endpoint.OAuth2) { o.ClientSecret = endpoint.NewSecret(mask) }), []string{"four"}, true},
		"other scopes":        {oauth(func(o *endpoint.OAuth2) { o.ClientSecret, o.Scopes = endpoint.Secret{}, nil }), []string{"four"}, true},
		"another token URL": {oauth(func(o *endpoint.OAuth2) {
			o.ClientSecret, o.TokenURL = endpoint.NewSecret(mask), "https://evil.example.com/"
		}), []string{mask}, false},
		"no token":              {&endpoint.Auth{}, nil, false},
		"nothing at all":        {nil, nil, false},
		"the same API key":      {&endpoint.Auth{APIKey: &endpoint.AuthHeader{Name: "x-key"}}, []string{"three"}, true},
		"one kept, one changed": {&endpoint.Auth{Headers: withHeader("X-Team", "new").Headers, APIKey: &endpoint.AuthHeader{Name: "x-key"}}, []string{"new", "three"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			before, _ := json.Marshal(c.given)
			got, kept := c.given.Keep(stored)
			var secrets []string
			for _, s := range got.Secrets() {
				secrets = append(secrets, s.Reveal())
			}
			if fmt.Sprint(secrets) != fmt.Sprint(c.want) || kept != c.kept {
				t.Errorf("%q %t, want %q %t", secrets, kept, c.want, c.kept)
			}
			if after, _ := json.Marshal(c.given); string(after) != string(before) {
				t.Errorf("what was given has become %s", after)
			}
		})
	}
}
