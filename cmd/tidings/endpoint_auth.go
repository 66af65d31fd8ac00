package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tidings-dev/tidings/pkg/endpoint"
)

// authFlags are the flags for how deliveries authenticate to an HTTP receiver. Secrets are
// read from a file, a variable or standard input: arguments are visible to every process of
// the machine, and in the shell's history.
type authFlags struct {
	headers               []string
	basic, bearer, apiKey string
	oauth2                endpoint.OAuth2
	clientSecret          string // its source
	certificate           string // the name of a secret
	none                  bool
	changed               func(flag string) bool
}

const sources = "@FILE, env:NAME or - (standard input)"

func (w *authFlags) add(f *pflag.FlagSet) {
	f.StringArrayVar(&w.headers, "header", nil, "HTTP: send a header, NAME=SOURCE; its value is a secret, from "+sources+"; can be repeated")
	f.StringVar(&w.basic, "basic", "", "HTTP: log in with a user name and a password, USER=SOURCE")
	f.StringVar(&w.bearer, "bearer", "", "HTTP: send a bearer token, SOURCE")
	f.StringVar(&w.apiKey, "api-key", "", "HTTP: send an API key in a header, NAME=SOURCE")
	f.StringVar(&w.oauth2.TokenURL, "oauth2-token-url", "", "HTTP: get bearer tokens from this URL (OAuth 2.0 client credentials)")
	f.StringVar(&w.oauth2.ClientID, "oauth2-client-id", "", "OAuth 2.0: client id")
	f.StringVar(&w.clientSecret, "oauth2-client-secret", "", "OAuth 2.0: client secret, SOURCE")
	f.StringSliceVar(&w.oauth2.Scopes, "oauth2-scopes", nil, "OAuth 2.0: scopes, separated by commas")
	f.StringVar(&w.oauth2.Audience, "oauth2-audience", "", "OAuth 2.0: the parameter audience, which some token endpoints require")
	f.BoolVar(&w.oauth2.SecretInBody, "oauth2-secret-in-body", false, "OAuth 2.0: send client id and secret as parameters, not by HTTP Basic")
	f.StringVar(&w.certificate, "client-certificate", "", "HTTP: name of the Secrets Manager secret with a client certificate and its key in PEM, tidings/<tenant>/… (set: \"\" removes it)")
	w.changed = f.Changed
}

func (w *authFlags) given() bool {
	return w.none || w.givenOAuth2() || slices.ContainsFunc([]string{"header", "basic", "bearer", "api-key", "client-certificate"}, w.changed)
}

// givenOAuth2 reports whether a flag of OAuth2 is given.
func (w *authFlags) givenOAuth2() bool {
	return slices.ContainsFunc([]string{"token-url", "client-id", "client-secret", "scopes", "audience", "secret-in-body"}, func(name string) bool { return w.changed("oauth2-" + name) })
}

// changeOAuth2 sets what the flags name.
func (w *authFlags) changeOAuth2(from *endpoint.OAuth2, secret endpoint.Secret) *endpoint.OAuth2 {
	to := endpoint.OAuth2{}
	if from != nil {
		to = *from
	}
	for name, set := range map[string]func(){
		"token-url": func() { to.TokenURL = w.oauth2.TokenURL }, "client-id": func() { to.ClientID = w.oauth2.ClientID }, "client-secret": func() { to.ClientSecret = secret },
		"scopes": func() { to.Scopes = w.oauth2.Scopes }, "audience": func() { to.Audience = w.oauth2.Audience }, "secret-in-body": func() { to.SecretInBody = w.oauth2.SecretInBody },
	} {
		if w.changed("oauth2-" + name) {
			set()
		}
	}
	if from != nil && (to.TokenURL != from.TokenURL || to.ClientID != from.ClientID) && !w.changed("oauth2-client-secret") {
		to.ClientSecret = endpoint.Secret{} // that of another client, perhaps of another host
	}
	return &to
}

// checkAdd refuses flags that are empty. `set` takes them as the removal of a way; with
// `add`, an endpoint without authentication would come of a mistake, such as an empty variable.
func (w *authFlags) checkAdd() error {
	for name, value := range map[string]string{
		"basic": w.basic, "bearer": w.bearer, "api-key": w.apiKey, "oauth2-token-url": w.oauth2.TokenURL, "oauth2-client-secret": w.clientSecret, "client-certificate": w.certificate,
	} {
		if value == "" && w.changed(name) {
			return usagef("--%s is empty", name)
		}
	}
	return nil
}

// readAuth reads the secrets and returns the change of an endpoint's authentication. What no
// flag names stays, an empty flag removes its way, and Basic, Bearer and OAuth2 replace each
// other.
func (a *app) readAuth(w authFlags, stdinTaken bool) (func(*endpoint.Auth) *endpoint.Auth, error) {
	var set []func(*endpoint.Auth)
	secret := func(flag, source string) (endpoint.Secret, error) {
		var text []byte
		var err error
		switch name, isVariable := strings.CutPrefix(source, "env:"); {
		case isVariable:
			value, there := os.LookupEnv(name)
			if !there {
				return endpoint.Secret{}, usagef("--%s: the variable %s is not set", flag, name)
			}
			text = []byte(value)
		case source == "-" && stdinTaken:
			return endpoint.Secret{}, usagef("--%s: standard input is read already: use @FILE or env:NAME", flag)
		case source == "-", strings.HasPrefix(source, "@"):
			stdinTaken = stdinTaken || source == "-"
			if text, err = a.text(source); err != nil {
				return endpoint.Secret{}, fmt.Errorf("--%s: %w", flag, err)
			}
		default: // not repeated: it may be the secret
			return endpoint.Secret{}, usagef("--%s takes no secret as an argument, which others can see: give %s", flag, sources)
		}
		value := strings.TrimRight(string(text), "\r\n")
		if value == "" {
			return endpoint.Secret{}, usagef("--%s: there is no secret in %s", flag, source)
		}
		return endpoint.NewSecret(value), nil
	}
	named := func(flag, given string) (string, endpoint.Secret, error) {
		name, source, found := strings.Cut(given, "=")
		if !found || name == "" {
			return "", endpoint.Secret{}, usagef("--%s must have the form NAME=SOURCE, with %s as the source", flag, sources)
		}
		value, err := secret(flag, source)
		return name, value, err
	}
	for _, given := range w.headers {
		name, value, err := named("header", given)
		if err != nil {
			return nil, err
		}
		set = append(set, func(to *endpoint.Auth) {
			to.Headers = slices.DeleteFunc(to.Headers, func(h endpoint.AuthHeader) bool { return strings.EqualFold(h.Name, name) })
			to.Headers = append(to.Headers, endpoint.AuthHeader{Name: name, Value: value})
		})
	}
	if w.changed("api-key") && w.apiKey == "" {
		set = append(set, func(to *endpoint.Auth) { to.APIKey = nil })
	} else if w.apiKey != "" {
		name, value, err := named("api-key", w.apiKey)
		if err != nil {
			return nil, err
		}
		set = append(set, func(to *endpoint.Auth) { to.APIKey = &endpoint.AuthHeader{Name: name, Value: value} })
	}
	if w.basic != "" && w.bearer != "" || w.givenOAuth2() && w.basic+w.bearer != "" {
		return nil, usagef("--basic, --bearer and --oauth2-… cannot be combined: each sets the header Authorization")
	}
	if w.changed("oauth2-client-secret") && w.clientSecret == "" {
		return nil, usagef("--oauth2-client-secret is empty: give %s; --oauth2-token-url \"\" removes OAuth 2.0", sources)
	}
	if w.changed("oauth2-token-url") && w.oauth2.TokenURL == "" {
		set = append(set, func(to *endpoint.Auth) { to.OAuth2 = nil })
	} else if w.givenOAuth2() {
		var clientSecret endpoint.Secret
		if w.clientSecret != "" {
			var err error
			if clientSecret, err = secret("oauth2-client-secret", w.clientSecret); err != nil {
				return nil, err
			}
		}
		set = append(set, func(to *endpoint.Auth) {
			to.Basic, to.Bearer, to.OAuth2 = nil, endpoint.Secret{}, w.changeOAuth2(to.OAuth2, clientSecret)
		})
	}
	if w.changed("basic") && w.basic == "" {
		set = append(set, func(to *endpoint.Auth) { to.Basic = nil })
	} else if w.basic != "" {
		user, password, err := named("basic", w.basic)
		if err != nil {
			return nil, err
		}
		set = append(set, func(to *endpoint.Auth) {
			to.Basic, to.Bearer, to.OAuth2 = &endpoint.BasicAuth{User: user, Password: password}, endpoint.Secret{}, nil
		})
	}
	if w.changed("bearer") && w.bearer == "" {
		set = append(set, func(to *endpoint.Auth) { to.Bearer = endpoint.Secret{} })
	} else if w.bearer != "" {
		token, err := secret("bearer", w.bearer)
		if err != nil {
			return nil, err
		}
		set = append(set, func(to *endpoint.Auth) { to.Basic, to.Bearer, to.OAuth2 = nil, token, nil })
	}
	return func(from *endpoint.Auth) *endpoint.Auth {
		to := &endpoint.Auth{}
		if from != nil && !w.none {
			*to = *from
			to.Headers = slices.Clone(from.Headers)
		}
		for _, change := range set {
			change(to)
		}
		if w.changed("client-certificate") {
			to.ClientCertificate = w.certificate
		}
		if to.IsZero() {
			return nil
		}
		return to
	}, nil
}
