package httpadapter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/endpoint"
)

const (
	// tokenTime bounds a token request; the attempt's deadline does too.
	tokenTime = 10 * time.Second
	// maxToken is the maximum size of a token endpoint's answer in bytes, and maxTokenText
	// that of a token: web servers limit a request's headers to 8 to 16 KB.
	maxToken     = 64 * 1024
	maxTokenText = 8 * 1024
	// tokenLifetime is that of a token whose lifetime the token endpoint does not say.
	tokenLifetime = time.Hour
	// tokenReserve is how long before its end a token is renewed, or a tenth of its lifetime
	// if that is shorter.
	tokenReserve = time.Minute
)

// checkTokenURL applies the rules for an endpoint's URL to that of its token endpoint.
func checkTokenURL(o Options, raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil: // it would repeat the URL, perhaps with a password
		return errors.New("the token URL is malformed")
	case u.Scheme != "https" && u.Scheme != "http" || u.Opaque != "" || u.Host == "":
		return errors.New("the token URL must have the form " + form)
	}
	if err := o.Guard.CheckURL(u); err != nil {
		return fmt.Errorf("the token URL: %w", err)
	}
	if !isPrivate(u) {
		return errors.New("the token URL must begin with https://: over http://, anybody on the way could read the client secret")
	}
	return nil
}

// newTokens returns the tokens of an endpoint, each with what else its requests carry.
func newTokens(o Options, from *endpoint.OAuth2, beside *auth) *shared[*auth] {
	r := tokenRequest{options: o, beside: beside, config: clientcredentials.Config{
		ClientID: from.ClientID, ClientSecret: from.ClientSecret.Reveal(), TokenURL: from.TokenURL, Scopes: from.Scopes, AuthStyle: oauth2.AuthStyleInHeader,
	}}
	if from.Audience != "" {
		r.config.EndpointParams = url.Values{"audience": {from.Audience}}
	}
	if from.SecretInBody {
		r.config.AuthStyle = oauth2.AuthStyleInParams
	}
	return &shared[*auth]{get: r.get, now: o.clock(), late: delivery.Outcome{Class: delivery.Timeout, Error: "no token: the token endpoint did not answer in time"}}
}

// clock returns the wall clock: while a function is frozen, the monotonic one may stand still.
func (o Options) clock() func() time.Time {
	if o.Now != nil {
		return o.Now
	}
	return func() time.Time { return time.Now().Round(0) }
}

// tokenRequest requests tokens of one endpoint.
type tokenRequest struct {
	options Options
	beside  *auth
	config  clientcredentials.Config
}

// get requests a token. It uses a connection of its own: a token lasts longer than a server
// keeps an idle connection.
func (r *tokenRequest) get(ctx context.Context) (with *auth, until time.Time, failed *delivery.Outcome) {
	ctx, cancel := context.WithTimeout(ctx, tokenTime)
	defer cancel()
	p := newPool(r.options)
	defer p.close()
	client := &http.Client{
		Transport: bounded{p.transport},
		// A redirect could carry the client secret to another host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	began := time.Now()
	got, err := r.config.Token(context.WithValue(ctx, oauth2.HTTPClient, client))
	if err != nil {
		return nil, until, noToken(ctx, err, time.Since(began))
	}
	if !strings.EqualFold(got.Type(), "Bearer") || len(got.AccessToken) > maxTokenText || !httpguts.ValidHeaderFieldValue(got.AccessToken) {
		return nil, until, &delivery.Outcome{Class: delivery.Auth, Error: "no token: the token endpoint's answer has no bearer token, or one that HTTP cannot carry"}
	}
	lifetime := tokenLifetime
	if !got.Expiry.IsZero() {
		lifetime = got.Expiry.Sub(began)
	}
	return r.beside.with(got.AccessToken), r.options.clock()().Add(lifetime - min(tokenReserve, lifetime/10)), nil
}

// bounded bounds the bodies of responses.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := b.RoundTripper.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode == http.StatusSwitchingProtocols {
		_ = response.Body.Close() // it is the connection, which does not end with the context
		response.Body = http.NoBody
		return response, nil
	}
	response.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(response.Body, maxToken), response.Body}
	return response, nil
}

// errorCodes are the codes of a refusal (RFC 6749, sections 4.1.2.1 and 5.2). Others are not
// shown: a token endpoint could repeat the secret.
var errorCodes = []string{
	"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope", "access_denied",
	"invalid_target", "server_error", "temporarily_unavailable",
}

// noToken returns the outcome for a token request that failed. It contains nothing of the
// answer but its status and code. No failure is permanent but that of a blocked address: the
// token endpoint's owner can end it.
func noToken(ctx context.Context, err error, took time.Duration) *delivery.Outcome {
	o := delivery.Outcome{Class: delivery.Auth}
	var refusal *oauth2.RetrieveError
	var failed *url.Error
	switch {
	case errors.As(err, &refusal):
		status := refusal.Response.StatusCode
		o.Error = fmt.Sprintf("the token endpoint answered %d", status)
		o.RetryAfter = ParseRetryAfter(refusal.Response.Header.Get("Retry-After"), time.Now())
		switch {
		case slices.Contains(errorCodes, refusal.ErrorCode):
			o.Error += " " + refusal.ErrorCode
		case status >= 300 && status <= 399:
			o.Error += ": redirects are not followed; set the token URL to the final address"
		case http.StatusText(status) != "":
			o.Error += " " + http.StatusText(status)
		}
	case ctx.Err() != nil: // also while the body is read, which the library does not wrap
		o.Class = delivery.Timeout
		o.Error = fmt.Sprintf("the token endpoint did not answer within %s", took.Round(100*time.Millisecond))
	case errors.As(err, &failed):
		o = classify(failed.Err)
		o.Error = strings.ReplaceAll(o.Error, "the receiver", "the token endpoint")
		if o.Class == delivery.Protocol {
			o.Class = delivery.Auth
		}
	default:
		o.Error = "the token endpoint's answer is not a token (RFC 6749, section 5.1)"
	}
	o.Error = "no token: " + o.Error
	return &o
}

// withToken makes an attempt with a token. A token can be revoked before its end: after a
// 401, the request is made once more with a new one, if there is one and the old one was not
// quite new itself. A receiver that refuses every token thus gets no double load.
func (p *poster) withToken(ctx context.Context, m destination.Message) delivery.Outcome {
	with, failed := p.tokens.take(ctx)
	if failed == nil {
		outcome := p.request(ctx, m, with)
		if outcome.Status != http.StatusUnauthorized || !p.tokens.drop(with) {
			return outcome
		}
		old := with
		if with, failed = p.tokens.take(ctx); failed == nil {
			if with.token == old.token {
				return outcome
			}
			if x := destination.Observed(ctx); x != nil {
				*x = destination.Exchange{}
			}
			return p.request(ctx, m, with)
		}
		repeated := *failed
		repeated.Error = "the receiver answered 401 Unauthorized; " + failed.Error
		failed = &repeated
	}
	p.notSent(ctx, m, destination.CodeNoToken, failed)
	return *failed
}
