package httpadapter_test

import (
	"context"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/endpoint"
)

var secret = endpoint.NewSecret

// deliverTo makes one attempt to a target and returns what a test of the endpoint shows.
func deliverTo(t *testing.T, r *destination.Router, to destination.Target, timeout time.Duration) (delivery.Outcome, *destination.Exchange) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	ctx, x := destination.Observe(ctx)
	if err := r.Check(to); err != nil {
		t.Fatal(err)
	}
	return r.Deliver(ctx, to, message), x
}

// shown is all that an attempt shows to people.
func shown(t *testing.T, o delivery.Outcome, x *destination.Exchange) string {
	t.Helper()
	text, err := json.Marshal(struct {
		Outcome delivery.Outcome
		*destination.Exchange
	}{o, x})
	if err != nil {
		t.Fatal(err)
	}
	return string(text) + fmt.Sprint(x.Cause) + string(x.Body)
}

func TestRequestsCarryTheEndpointsAuthentication(t *testing.T) {
	for name, c := range map[string]struct {
		auth *endpoint.Auth
		want http.Header // as received
		mask map[string]string
	}{
		"headers": {
			&endpoint.Auth{Headers: []endpoint.AuthHeader{{Name: "X-Team", Value: secret("marker one")}, {Name: "cookie", Value: secret("s=marker")}}},
			http.Header{"X-Team": {"marker one"}, "Cookie": {"s=marker"}}, map[string]string{"X-Team": "••••••••", "cookie": "••••••••"},
		},
		"Basic": {
			&endpoint.Auth{Basic: &endpoint.BasicAuth{User: "tidings", Password: secret("marker: ü")}},
			http.Header{"Authorization": {"Basic dGlkaW5nczptYXJrZXI6IMO8"}}, map[string]string{"Authorization": "Basic ••••••••"},
		},
		"a bearer token": {
			&endpoint.Auth{Bearer: secret("marker.token")},
			http.Header{"Authorization": {"Bearer marker.token"}}, map[string]string{"Authorization": "Bearer ••••••••"},
		},
		"an API key": {
			&endpoint.Auth{APIKey: &endpoint.AuthHeader{Name: "X-Api-Key", Value: secret("marker")}},
			http.Header{"X-Api-Key": {"marker"}}, map[string]string{"X-Api-Key": "••••••••"},
		},
		"another scheme": {
			&endpoint.Auth{Headers: []endpoint.AuthHeader{{Name: "Authorization", Value: secret("GenieKey marker")}}},
			http.Header{"Authorization": {"GenieKey marker"}}, map[string]string{"Authorization": "••••••••"},
		},
		"none": {nil, http.Header{}, nil},
	} {
		for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
			t.Run(name+" over "+proto, func(t *testing.T) {
				var got atomic.Pointer[http.Request]
				server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					got.Store(r)
					body, _ := io.ReadAll(r.Body)
					// As debugging receivers do, in all the places that are shown.
					w.Header().Set("X-Echo", fmt.Sprint(r.Header["X-Team"], r.Header["Authorization"], r.Header["Cookie"], r.Header["X-Api-Key"]))
					w.WriteHeader(http.StatusForbidden)
					fmt.Fprintln(w, "refused:", r.Header["X-Team"], r.Header["Authorization"], r.Header["Cookie"], r.Header["X-Api-Key"], len(body))
				}))
				server.EnableHTTP2 = proto == "HTTP/2.0"
				server.StartTLS()
				defer server.Close()
				r := router(server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs)
				defer r.Close()
				o, x := deliverTo(t, r, destination.Target{ID: "e", URL: server.URL, Auth: c.auth}, 5*time.Second)
				if o.Status != 403 || got.Load() == nil || got.Load().Proto != proto {
					t.Fatalf("%+v", o)
				}
				for _, name := range []string{"X-Team", "Authorization", "Cookie", "X-Api-Key"} {
					if fmt.Sprint(got.Load().Header[name]) != fmt.Sprint(c.want[name]) {
						t.Errorf("%s: %q, want %q", name, got.Load().Header[name], c.want[name])
					}
				}
				for name, value := range message.Headers {
					if got.Load().Header.Get(name) != value {
						t.Errorf("%s: %q, want %q", name, got.Load().Header.Get(name), value)
					}
				}
				masks := 0
				for _, f := range x.RequestHeaders {
					for name, mask := range c.mask {
						if strings.EqualFold(f.Name, name) {
							masks++
							if f.Value != mask {
								t.Errorf("%s is shown as %q, want %q", f.Name, f.Value, mask)
							}
						}
					}
				}
				all := shown(t, o, x)
				if masks != len(c.mask) || strings.Contains(all, "marker") || strings.Contains(all, "dGlkaW5nczptYXJrZXI6IMO8") || !strings.Contains(o.Snippet, "refused:") {
					t.Errorf("%d headers are masked, want %d; shown: %s", masks, len(c.mask), all)
				}
			})
		}
	}
}

// A receiver's answer that ends within a secret does not show the part.
func TestASecretThatIsCutOffInAResponseIsHidden(t *testing.T) {
	const token = "marker-of-a-long-token"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(500)
		fmt.Fprint(w, strings.Repeat("x", destination.MaxExchangeBodyBytes-10)+r.Header.Get("Authorization")[len("Bearer "):])
	}))
	defer server.Close()
	r := router(nil)
	defer r.Close()
	o, x := deliverTo(t, r, destination.Target{ID: "e", URL: server.URL, Auth: &endpoint.Auth{Bearer: secret(token)}}, 5*time.Second)
	if o.Status != 500 || !x.Truncated || strings.Contains(shown(t, o, x), token[:5]) || !strings.HasSuffix(string(x.Body), endpoint.MaskedSecret) {
		t.Errorf("%+v ends with %q", o, x.Body[len(x.Body)-40:])
	}
}

// Receivers that repeat a request write it as JSON, as a page, or as a query.
func TestASecretIsHiddenInEachFormOfAResponse(t *testing.T) {
	const token = `mark/er+"of&a<token>` + "'"
	inJSON, err := json.Marshal(token)
	if err != nil {
		t.Fatal(err)
	}
	for name, form := range map[string]string{
		"as it is": token, "JSON of Go": string(inJSON), "JSON of PHP": strings.ReplaceAll(string(inJSON), "/", `\/`), "a page": html.EscapeString(token), "a query": url.QueryEscape(token),
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(500)
				fmt.Fprint(w, "you sent ", form, ".")
			}))
			defer server.Close()
			r := router(nil)
			defer r.Close()
			o, x := deliverTo(t, r, destination.Target{ID: "e", URL: server.URL, Auth: &endpoint.Auth{Headers: []endpoint.AuthHeader{{Name: "X-Token", Value: secret(token)}}}}, 5*time.Second)
			if strings.Contains(shown(t, o, x), "mark") || !strings.Contains(o.Snippet, "you sent") || !strings.Contains(o.Snippet, endpoint.MaskedSecret) {
				t.Errorf("shown: %s", shown(t, o, x))
			}
		})
	}
}

func TestPartsOfASecretAreHidden(t *testing.T) {
	for name, c := range map[string]struct{ value, answer, want string }{
		"after its scheme":        {"Token abcdef123456", "unknown token abcdef123456.", "unknown token ••••••••."},
		"of a cookie":             {"session=abcdef123456; theme=dark", "no session abcdef123456.", "no session ••••••••."},
		"its beginning":           {"abcdef123456", "invalid: abcdef12… is not known", "invalid: ••••••••… is not known"},
		"twice":                   {"abcdef123456", "abcdef123456, abcdef123456", "••••••••, ••••••••"},
		"a short one":             {"abcdef", "the key abcdef.", "the key ••••••••."},
		"a word is no secret":     {"1", "1 of 10 failed", "1 of 10 failed"},
		"a short part is no part": {"Token abcdef123456", "no Token", "no Token"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(500)
				fmt.Fprint(w, c.answer)
			}))
			defer server.Close()
			r := router(nil)
			defer r.Close()
			o, x := deliverTo(t, r, destination.Target{ID: "e", URL: server.URL, Auth: &endpoint.Auth{Headers: []endpoint.AuthHeader{{Name: "Authorization", Value: secret(c.value)}}}}, 5*time.Second)
			if o.Snippet != c.want || string(x.Body) != c.want {
				t.Errorf("shown as %q and %q, want %q", o.Snippet, x.Body, c.want)
			}
		})
	}
}

func TestSecretsAreNotSentInPlainTextOrElsewhere(t *testing.T) {
	auth := &endpoint.Auth{Bearer: secret("marker")}
	r := router(nil)
	defer r.Close()
	for name, c := range map[string]struct {
		target destination.Target
		want   string
	}{
		"http":                       {destination.Target{URL: "http://example.com/", Auth: auth}, "auth needs https://"},
		"http without auth":          {destination.Target{URL: "http://example.com/"}, ""},
		"http to this machine":       {destination.Target{URL: "http://127.0.0.1:8080/", Auth: auth}, ""},
		"http to this machine, IPv6": {destination.Target{URL: "http://[::1]:8080/", Auth: auth}, "not an allowed destination"},
		"http to localhost":          {destination.Target{URL: "http://localhost:8080/", Auth: auth}, ""},
		"https":                      {destination.Target{URL: "https://example.com/", Auth: auth}, ""},
		"another host that resolves to this machine": {destination.Target{URL: "http://127.0.0.1.nip.io/", Auth: auth}, "auth needs https://"},
	} {
		t.Run(name, func(t *testing.T) {
			err := r.Check(c.target)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
			// A deployment's rules can change after the endpoint was added.
			c.target.ID = name
			if c.want == "" {
				return
			}
			if o := r.Deliver(t.Context(), c.target, message); o.Class != delivery.Invalid {
				t.Errorf("%+v", o)
			}
		})
	}
}

func TestARedirectDoesNotCarrySecretsToAnotherHost(t *testing.T) {
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		server := httptest.NewServer(http.RedirectHandler(other.URL, status))
		r := router(nil)
		o, _ := deliverTo(t, r, destination.Target{ID: "e", URL: server.URL, Auth: &endpoint.Auth{Bearer: secret("marker")}}, 5*time.Second)
		if o.Class != delivery.Redirect || elsewhere.Load() != 0 {
			t.Errorf("%d: %+v, %d requests to the other host", status, o, elsewhere.Load())
		}
		_ = r.Close()
		server.Close()
	}
}

// Each read of an endpoint has another pointer to its authentication.
func TestAnEndpointThatIsReadAgainKeepsItsConnections(t *testing.T) {
	var connections atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	r := router(nil)
	defer r.Close()
	for i, version := range []int{1, 1, 1, 2} {
		o, _ := deliverTo(t, r, destination.Target{ID: "e", Version: version, URL: server.URL, Auth: &endpoint.Auth{Bearer: secret("marker")}}, 5*time.Second)
		if o.Class != delivery.Success || int(connections.Load()) != version {
			t.Errorf("attempt %d of version %d: %+v, %d connections", i, version, o, connections.Load())
		}
	}
}
