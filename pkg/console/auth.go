package console

import (
	"encoding/json"
	"errors"
	"net/url"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tidings-dev/tidings/pkg/endpoint"
)

// AuthChange is a change of an endpoint's authentication: none, another one, or its removal.
type AuthChange struct {
	Given bool
	Auth  *endpoint.Auth // nil removes it
}

// UnmarshalJSON reads an object or null.
func (c *AuthChange) UnmarshalJSON(text []byte) error {
	c.Given, c.Auth = true, nil
	return json.Unmarshal(text, &c.Auth)
}

// Schema is that of an Auth or null.
func (AuthChange) Schema(r huma.Registry) *huma.Schema {
	s := *r.Schema(reflect.TypeFor[endpoint.Auth](), false, "Auth")
	s.Nullable = true
	return &s
}

// errMovedSecrets refuses to send secrets that nobody can read to where an editor says.
var errMovedSecrets = errors.New("auth: the URL leads to another host, port or scheme: give the secrets again, or remove auth (null)")

// apply sets an endpoint's authentication. Masked secrets keep what is stored, as long as
// they are sent to the same host: an editor of an endpoint cannot read them.
func (c AuthChange) apply(e *endpoint.Endpoint, before endpoint.Endpoint) error {
	kept := len(before.Auth.Secrets()) > 0 // a client certificate's key is not sent
	if c.Given {
		e.Auth, kept = c.Auth.Keep(before.Auth)
	}
	switch {
	case e.Auth.IsZero():
		e.Auth = nil
	case reflect.DeepEqual(e.Auth, before.Auth):
		e.Auth = before.Auth // the destination does not change
	}
	if kept && e.Auth != nil && origin(before.URL) != origin(e.URL) {
		return errMovedSecrets
	}
	return nil
}

// origin returns the scheme, host and port of a URL.
func origin(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return raw
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Scheme + "://" + strings.ToLower(u.Hostname()) + ":" + port
}

// The form's fields of secrets. Where one is stored, the field has the mask.
const (
	formHeaders  = "auth.headers"
	formUser     = "auth.basic"
	formPassword = "auth.basic_password"
	formBearer   = "auth.bearer"
	formKeyName  = "auth.api_key"
	formKey      = "auth.api_key_value"
	formTokenURL = "auth.oauth2"
	formClient   = "auth.oauth2_client_id"
	formSecret   = "auth.oauth2_client_secret"
	formScopes   = "auth.oauth2_scopes"
	formAudience = "auth.oauth2_audience"
	formInBody   = "auth.oauth2_secret_in_body"
	formCert     = "auth.client_certificate"
)

// parseAuth reads the authentication from a submitted form.
func parseAuth(v url.Values) AuthChange {
	if !v.Has(formHeaders) {
		return AuthChange{} // the form of an earlier release, or of another protocol
	}
	text := func(field string) string { return strings.TrimSpace(v.Get(field)) }
	secret := func(field string) endpoint.Secret { return endpoint.NewSecret(text(field)) }
	a := &endpoint.Auth{Bearer: secret(formBearer), ClientCertificate: text(formCert)}
	for line := range strings.Lines(v.Get(formHeaders)) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		a.Headers = append(a.Headers, endpoint.AuthHeader{Name: strings.TrimSpace(name), Value: endpoint.NewSecret(strings.TrimSpace(value))})
	}
	if text(formUser) != "" || text(formPassword) != "" {
		a.Basic = &endpoint.BasicAuth{User: text(formUser), Password: secret(formPassword)}
	}
	if text(formKeyName) != "" || text(formKey) != "" {
		a.APIKey = &endpoint.AuthHeader{Name: text(formKeyName), Value: secret(formKey)}
	}
	client := &endpoint.OAuth2{
		TokenURL: text(formTokenURL), ClientID: text(formClient), ClientSecret: secret(formSecret), Scopes: strings.Fields(v.Get(formScopes)),
		Audience: text(formAudience), SecretInBody: v.Get(formInBody) != "",
	}
	if len(client.Scopes) == 0 {
		client.Scopes = nil
	}
	if client.TokenURL != "" || client.ClientID != "" || !client.ClientSecret.IsZero() {
		a.OAuth2 = client
	}
	return AuthChange{Given: true, Auth: a}
}

// authValues returns an endpoint's authentication as form values, with masked secrets.
func authValues(a *endpoint.Auth) url.Values {
	v := url.Values{}
	if a == nil {
		return v
	}
	var lines []string
	for _, h := range a.Headers {
		lines = append(lines, h.Name+": "+endpoint.MaskedSecret)
	}
	v.Set(formHeaders, strings.Join(lines, "\n"))
	v.Set(formCert, a.ClientCertificate)
	if a.Basic != nil {
		v.Set(formUser, a.Basic.User)
		v.Set(formPassword, endpoint.MaskedSecret)
	}
	if !a.Bearer.IsZero() {
		v.Set(formBearer, endpoint.MaskedSecret)
	}
	if a.APIKey != nil {
		v.Set(formKeyName, a.APIKey.Name)
		v.Set(formKey, endpoint.MaskedSecret)
	}
	if o := a.OAuth2; o != nil {
		v.Set(formTokenURL, o.TokenURL)
		v.Set(formClient, o.ClientID)
		v.Set(formSecret, endpoint.MaskedSecret)
		v.Set(formScopes, strings.Join(o.Scopes, " "))
		v.Set(formAudience, o.Audience)
		if o.SecretInBody {
			v.Set(formInBody, "yes")
		}
	}
	return v
}

// withoutSecrets returns submitted values without the secrets that were typed, to show the
// form again, and for each a message that it is needed again. Where one is stored, the mask
// takes its place, so that saving again does not remove it. stored are the values of what is
// stored.
func withoutSecrets(v, stored url.Values) (url.Values, []FieldError) {
	shown, again := url.Values{}, []FieldError{}
	for name, list := range v {
		shown[name] = list
	}
	forget := func(field, shownAt string) {
		if text := v.Get(field); text != "" && text != endpoint.MaskedSecret {
			shown.Set(field, stored.Get(field)) // the mask, or nothing
			again = append(again, FieldError{shownAt, "Not saved, and secrets are not shown again: enter it once more."})
		}
	}
	forget(formPassword, formUser)
	forget(formBearer, formBearer)
	forget(formKey, formKeyName)
	forget(formSecret, formTokenURL)
	known := map[string]bool{}
	for line := range strings.Lines(stored.Get(formHeaders)) {
		name, _, _ := strings.Cut(line, ":")
		known[strings.ToLower(name)] = true
	}
	var lines []string
	dropped := false
	for line := range strings.Lines(v.Get(formHeaders)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "" {
			continue
		}
		masked := strings.TrimSpace(value) == endpoint.MaskedSecret
		dropped = dropped || !masked
		if masked || known[strings.ToLower(strings.TrimSpace(name))] {
			name += ": " + endpoint.MaskedSecret
		} else {
			name += ": "
		}
		lines = append(lines, name)
	}
	if v.Has(formHeaders) {
		shown.Set(formHeaders, strings.Join(lines, "\n"))
	}
	if dropped {
		again = append(again, FieldError{formHeaders, "Not saved, and values are not shown again: enter them once more."})
	}
	return shown, again
}
