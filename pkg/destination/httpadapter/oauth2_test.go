package httpadapter_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/guard"
	"github.com/tidings-dev/tidings/pkg/destination/httpadapter"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/test/destinationtest"
	"github.com/tidings-dev/tidings/test/guardtest"
)

// issuer is a token endpoint for the client tidings with the secret right. Its tokens are
// marker-token-1, -2, …
type issuer struct {
	*httptest.Server
	requests atomic.Int32
	revoked  atomic.Int32 // tokens up to this number are refused by guarded
	last     atomic.Pointer[http.Request]
}

// newIssuer returns an issuer that answers as RFC 6749 says, or as the handler does.
func newIssuer(t *testing.T, handler http.HandlerFunc) *issuer {
	i := &issuer{}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := i.requests.Add(1)
		_ = r.ParseForm()
		i.last.Store(r)
		if handler != nil {
			handler(w, r)
			return
		}
		if user, password, _ := r.BasicAuth(); user != "tidings" || password != "right" {
			if r.PostForm.Get("client_id") != "tidings" || r.PostForm.Get("client_secret") != "right" {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusUnauthorized)
				fmt.Fprintf(w, `{"error":"invalid_client","error_description":"not %s"}`, password)
				return
			}
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token":"marker-token-%d","token_type":"Bearer","expires_in":1000}`, n)
	}))
	t.Cleanup(i.CloseClientConnections)
	t.Cleanup(i.Close)
	return i
}

// guarded returns a receiver that accepts the tokens that are not revoked, and repeats in
// its answer what it was sent.
func (i *issuer) guarded(t *testing.T) (url string, requests *atomic.Int32) {
	requests = &atomic.Int32{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		var n int32
		if _, err := fmt.Sscanf(r.Header.Get("Authorization"), "Bearer marker-token-%d", &n); err != nil || n <= i.revoked.Load() {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprintln(w, "refused", r.Header.Get("Authorization"))
		}
	}))
	t.Cleanup(server.Close)
	return server.URL, requests
}

func oauth(tokenURL, clientSecret string) *endpoint.Auth {
	return &endpoint.Auth{OAuth2: &endpoint.OAuth2{TokenURL: tokenURL, ClientID: "tidings", ClientSecret: secret(clientSecret)}}
}

// clocked is a router whose clock can be set ahead.
func clocked(t *testing.T) (*destination.Router, *destinationtest.Clock) {
	clock := &destinationtest.Clock{}
	g := guard.New(guard.Options{AllowHTTP: true, AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	r := destination.NewRouter(10, httpadapter.Kind(httpadapter.Options{Guard: g, Now: clock.Now}))
	t.Cleanup(func() { _ = r.Close() })
	return r, clock
}

// The table of a token's life: what the receiver and the token endpoint do, and how many
// requests each of them gets.
func TestTokens(t *testing.T) {
	type step struct {
		pass   time.Duration // before the attempt
		revoke int32         // tokens up to this number
		class  delivery.Class
		errs   string
		// requests of the attempt
		tokens, requests int32
	}
	for name, c := range map[string]struct {
		secret string
		steps  []step
	}{
		"a warm endpoint makes no further request": {"right", []step{{0, 0, delivery.Success, "", 1, 1}, {0, 0, delivery.Success, "", 0, 1}, {0, 0, delivery.Success, "", 0, 1}}},
		"a token is renewed before its end": {"right", []step{
			{0, 0, delivery.Success, "", 1, 1}, {900 * time.Second, 0, delivery.Success, "", 0, 1}, {45 * time.Second, 0, delivery.Success, "", 1, 1}, {0, 0, delivery.Success, "", 0, 1},
		}},
		"a revoked token is replaced at once": {"right", []step{{0, 0, delivery.Success, "", 1, 1}, {2 * time.Minute, 1, delivery.Success, "", 1, 2}, {0, 1, delivery.Success, "", 0, 1}}},
		"a receiver that refuses every token gets no double load": {"right", []step{
			{0, 1000, delivery.Answered, "the receiver answered 401 Unauthorized", 1, 1}, {0, 1000, delivery.Answered, "the receiver answered 401 Unauthorized", 0, 1},
			{2 * time.Minute, 1000, delivery.Answered, "the receiver answered 401 Unauthorized", 1, 2}, {0, 1000, delivery.Answered, "the receiver answered 401 Unauthorized", 0, 1},
			{0, 0, delivery.Success, "", 0, 1},
		}},
		"a wrong client secret": {"marker-wrong", []step{
			{0, 0, delivery.Auth, "no token: the token endpoint answered 401 invalid_client", 1, 0}, {0, 0, delivery.Auth, "no token: the token endpoint answered 401 invalid_client", 1, 0},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			i := newIssuer(t, nil)
			to, requests := i.guarded(t)
			r, clock := clocked(t)
			for n, s := range c.steps {
				clock.Pass(s.pass)
				i.revoked.Store(s.revoke)
				tokens, sent := i.requests.Load(), requests.Load()
				o, x := deliverTo(t, r, destination.Target{ID: "e", URL: to, Auth: oauth(i.URL, c.secret)}, 5*time.Second)
				if o.Class != s.class || o.Error != s.errs || o.Permanent || o.Timings.Total <= 0 {
					t.Errorf("attempt %d: %+v", n, o)
				}
				if got := i.requests.Load() - tokens; got != s.tokens {
					t.Errorf("attempt %d: %d token requests, want %d", n, got, s.tokens)
				}
				if got := requests.Load() - sent; got != s.requests {
					t.Errorf("attempt %d: %d requests, want %d", n, got, s.requests)
				}
				if all := shown(t, o, x); strings.Contains(all, "marker") || strings.Contains(all, "right") || x.To != to || x.Method != "POST" || len(x.RequestHeaders) == 0 {
					t.Errorf("attempt %d shows %s", n, all)
				}
				if (x.Code == destination.CodeNoToken) != (s.class == delivery.Auth) {
					t.Errorf("attempt %d: code %q", n, x.Code)
				}
			}
		})
	}
}

// A client that was removed while its token is refused: what failed is the token endpoint's
// answer, and that the receiver refused the old token is said too.
func TestARevokedClientIsShownAsWhatItIs(t *testing.T) {
	var gone atomic.Bool
	i := newIssuer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if gone.Load() {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"error":"unauthorized_client"}`)
			return
		}
		fmt.Fprint(w, `{"access_token":"marker-token-1","token_type":"bearer"}`)
	})
	to, requests := i.guarded(t)
	r, clock := clocked(t)
	target := destination.Target{ID: "e", URL: to, Auth: oauth(i.URL, "right")}
	if o, _ := deliverTo(t, r, target, 5*time.Second); o.Class != delivery.Success {
		t.Fatalf("%+v", o)
	}
	// A token endpoint that returns the same token again does not make another request.
	clock.Pass(2 * time.Minute)
	i.revoked.Store(1)
	if o, _ := deliverTo(t, r, target, 5*time.Second); o.Status != 401 || requests.Load() != 2 || i.requests.Load() != 2 {
		t.Errorf("%+v, %d requests, %d token requests", o, requests.Load(), i.requests.Load())
	}
	clock.Pass(2 * time.Minute)
	gone.Store(true)
	o, x := deliverTo(t, r, target, 5*time.Second)
	if want := "the receiver answered 401 Unauthorized; no token: the token endpoint answered 400 unauthorized_client"; o.Class != delivery.Auth || o.Error != want || requests.Load() != 3 {
		t.Errorf("%+v, want %s", o, want)
	}
	if strings.Contains(shown(t, o, x), "marker") {
		t.Errorf("shown: %s", shown(t, o, x))
	}
}

func TestTheTokenRequestIsThatOfTheRFC(t *testing.T) {
	i := newIssuer(t, nil)
	to, _ := i.guarded(t)
	r, _ := clocked(t)
	auth := oauth(i.URL+"/token?tenant=1", "right")
	auth.OAuth2.Scopes, auth.OAuth2.Audience = []string{"hooks:write", "b"}, "https://crm.example.com/"
	for id, inBody := range map[string]bool{"header": false, "body": true} {
		client := *auth.OAuth2
		client.SecretInBody = inBody
		if o, _ := deliverTo(t, r, destination.Target{ID: id, URL: to, Auth: &endpoint.Auth{OAuth2: &client}}, 5*time.Second); o.Class != delivery.Success {
			t.Fatalf("%+v", o)
		}
		got := i.last.Load()
		want := url.Values{"grant_type": {"client_credentials"}, "scope": {"hooks:write b"}, "audience": {"https://crm.example.com/"}}
		if inBody {
			want.Set("client_id", "tidings")
			want.Set("client_secret", "right")
		}
		if got.Method != "POST" || got.URL.RequestURI() != "/token?tenant=1" || got.PostForm.Encode() != want.Encode() || (got.Header.Get("Authorization") != "") == inBody {
			t.Errorf("%s %s %s, want %s", got.Method, got.URL, got.PostForm.Encode(), want.Encode())
		}
	}
}

// Whatever the token endpoint does, the attempt ends in time, nothing is sent to the
// receiver, and nothing of the answer but its status and code is shown.
func TestHostileTokenEndpoints(t *testing.T) {
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		elsewhere.Add(1)
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"access_token":"marker-token-1000","token_type":"Bearer"}`)
	}))
	t.Cleanup(other.Close)
	json := func(status int, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(status)
			fmt.Fprint(w, text)
		}
	}
	const notAToken = "no token: the token endpoint's answer is not a token (RFC 6749, section 5.1)"
	const noBearer = "no token: the token endpoint's answer has no bearer token, or one that HTTP cannot carry"
	type row struct {
		handler http.HandlerFunc
		class   delivery.Class
		errs    string
	}
	rows := map[string]row{
		"invalid_scope":        {json(400, `{"error":"invalid_scope","error_description":"marker"}`), delivery.Auth, "no token: the token endpoint answered 400 invalid_scope"},
		"an error with 200":    {json(200, `{"error":"invalid_client"}`), delivery.Auth, "no token: the token endpoint answered 200 invalid_client"},
		"an unknown code":      {json(400, `{"error":"marker-right"}`), delivery.Auth, "no token: the token endpoint answered 400 Bad Request"},
		"unavailable":          {json(503, `marker`), delivery.Auth, "no token: the token endpoint answered 503 Service Unavailable"},
		"too many requests":    {json(429, `marker`), delivery.Auth, "no token: the token endpoint answered 429 Too Many Requests"},
		"a redirect":           {http.RedirectHandler(other.URL, http.StatusTemporaryRedirect).ServeHTTP, delivery.Auth, "no token: the token endpoint answered 307: redirects are not followed; set the token URL to the final address"},
		"a page":               {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>marker</html>") }, delivery.Auth, notAToken},
		"nothing":              {json(200, ``), delivery.Auth, notAToken},
		"no token":             {json(200, `{"token_type":"Bearer"}`), delivery.Auth, notAToken},
		"another kind of JSON": {json(200, `["marker"]`), delivery.Auth, notAToken},
		"another type":         {json(200, `{"access_token":"marker","token_type":"mac"}`), delivery.Auth, noBearer},
		"a line break":         {json(200, `{"access_token":"marker\r\nX-Evil: 1","token_type":"Bearer"}`), delivery.Auth, noBearer},
		"a large token":        {json(200, `{"access_token":"`+strings.Repeat("marker", 2000)+`","token_type":"Bearer"}`), delivery.Auth, noBearer},
		"deep JSON":            {json(200, strings.Repeat(`[`, 60_000)), delivery.Auth, notAToken},
		"an endless body": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"access_token":"`)
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		}, delivery.Auth, notAToken},
		"endless headers": {func(w http.ResponseWriter, _ *http.Request) {
			for i := range 300 {
				w.Header().Set(fmt.Sprint("X-", i), strings.Repeat("marker", 200))
			}
		}, delivery.Auth, "no token: the response headers are longer than 256 KB"},
		"no answer":           {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, delivery.Timeout, "no token: the token endpoint did not answer within 400ms"},
		"a closed connection": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, delivery.Auth, "no token: the token endpoint closed the connection without a response"},
	}
	for name, handler := range destinationtest.EndlessResponses(`{"access_token":`) {
		rows[name] = row{handler, "", ""}
	}
	for name, c := range rows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := newIssuer(t, c.handler)
			to, requests := i.guarded(t)
			r, _ := clocked(t)
			timeout := 10 * time.Second
			if c.class == delivery.Timeout || c.class == "" {
				timeout = 400 * time.Millisecond
			}
			began := time.Now()
			o, x := deliverTo(t, r, destination.Target{ID: "e", URL: to, Auth: oauth(i.URL, "right")}, timeout)
			if took := time.Since(began); took > timeout+2*time.Second {
				t.Errorf("it took %s", took)
			}
			if c.class != "" && (o.Class != c.class || o.Error != c.errs) || o.Class == delivery.Success || o.Permanent || requests.Load() != 0 || i.requests.Load() != 1 {
				t.Errorf("%+v, want %s: %s; %d requests, %d token requests", o, c.class, c.errs, requests.Load(), i.requests.Load())
			}
			if (name == "unavailable" || name == "too many requests") && o.RetryAfter != 7*time.Second {
				t.Errorf("RetryAfter is %s", o.RetryAfter)
			}
			if all := shown(t, o, x); strings.Contains(all, "marker") || strings.Contains(all, "right") || x.Code != destination.CodeNoToken {
				t.Errorf("shown: %s", all)
			}
		})
	}
	t.Cleanup(func() {
		if elsewhere.Load() != 0 {
			t.Error("a redirect of the token endpoint was followed")
		}
	})
}

func TestTokenURLsPassTheAddressGuard(t *testing.T) {
	dns := guardtest.NewDNS(t)
	g := guard.New(guard.Options{AllowHTTP: true, AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}).WithResolver(dns.Resolver())
	r := destination.NewRouter(10, httpadapter.Kind(httpadapter.Options{Guard: g}))
	defer r.Close()
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the receiver gets a request") }))
	defer receiver.Close()
	for to, want := range map[string]string{
		"https://169.254.169.254/latest/api/token": "not an allowed destination",
		"https://10.0.0.1/token":                   "not an allowed destination",
		"http://login.example.com/token":           "must begin with https://",
		"https://u:marker@login.example.com/token": "user name or password",
		"ftp://login.example.com/token":            "must have the form",
		"https:///token":                           "must have the form",
		"login.example.com":                        "must have the form",
		"https://u:marker%zz@login.example.com":    "malformed",
	} {
		err := r.Check(destination.Target{URL: receiver.URL, Auth: oauth(to, "right")})
		if err == nil || !strings.HasPrefix(err.Error(), "auth.oauth2: ") || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "marker") {
			t.Errorf("%s: %v, want %s", to, err, want)
		}
	}
	// A name can lead to another address later.
	dns.Answer("login.example.com", []netip.Addr{netip.MustParseAddr("10.0.0.1")})
	o, _ := deliverTo(t, r, destination.Target{URL: receiver.URL, Auth: oauth("https://login.example.com/token", "right")}, 5*time.Second)
	if o.Class != delivery.Blocked || !strings.HasPrefix(o.Error, "no token: login.example.com is not an allowed destination") {
		t.Errorf("%+v", o)
	}
	// Nothing listens.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	o, _ = deliverTo(t, r, destination.Target{ID: "closed", URL: receiver.URL, Auth: oauth("http://"+l.Addr().String(), "right")}, 5*time.Second)
	if o.Class != delivery.Connect || o.Error != "no token: connection refused: nothing listens on this address and port" || o.Permanent {
		t.Errorf("%+v", o)
	}
}

// together makes attempts at once and returns the number of each class.
func together(t *testing.T, r *destination.Router, to destination.Target, n int) map[delivery.Class]int {
	t.Helper()
	var wait sync.WaitGroup
	var mu sync.Mutex
	classes := map[delivery.Class]int{}
	for range n {
		wait.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			o := r.Deliver(ctx, to, message)
			mu.Lock()
			defer mu.Unlock()
			classes[o.Class]++
		})
	}
	wait.Wait()
	return classes
}

func TestAttemptsShareOneTokenRequest(t *testing.T) {
	const n = 100
	i := newIssuer(t, nil)
	to, requests := i.guarded(t)
	r, clock := clocked(t)
	target := destination.Target{ID: "e", URL: to, Auth: oauth(i.URL, "right")}
	if got := together(t, r, target, n); got[delivery.Success] != n || i.requests.Load() != 1 || requests.Load() != n {
		t.Errorf("cold: %v, %d token requests, %d requests", got, i.requests.Load(), requests.Load())
	}
	if got := together(t, r, target, n); got[delivery.Success] != n || i.requests.Load() != 1 {
		t.Errorf("warm: %v, %d token requests", got, i.requests.Load())
	}
	clock.Pass(2 * time.Minute)
	i.revoked.Store(1)
	if got := together(t, r, target, n); got[delivery.Success] != n || i.requests.Load() != 2 {
		t.Errorf("revoked: %v, %d token requests", got, i.requests.Load())
	}
	clock.Pass(1000 * time.Second)
	if got := together(t, r, target, n); got[delivery.Success] != n || i.requests.Load() != 3 {
		t.Errorf("expired: %v, %d token requests", got, i.requests.Load())
	}
}

// An attempt that runs out of time while it asks for a token does not fail the others, and a
// refusal is the answer to all that waited for it.
func TestAFailedTokenRequestIsSharedUnlessItsAttemptGaveUp(t *testing.T) {
	asked := make(chan struct{}, 100)
	var hang atomic.Bool
	hang.Store(true)
	release := make(chan struct{})
	i := newIssuer(t, func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		if hang.Load() {
			<-r.Context().Done()
			return
		}
		<-release
		w.WriteHeader(http.StatusForbidden)
	})
	to, _ := i.guarded(t)
	r, _ := clocked(t)
	target := destination.Target{ID: "e", URL: to, Auth: oauth(i.URL, "right")}
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan delivery.Outcome)
	go func() { first <- r.Deliver(ctx, target, message) }()
	<-asked
	hang.Store(false)
	rest := make(chan map[delivery.Class]int)
	go func() { rest <- together(t, r, target, 20) }()
	cancel()
	if o := <-first; o.Class != delivery.Timeout {
		t.Errorf("%+v", o)
	}
	<-asked // one of the others asks again
	close(release)
	if got := <-rest; got[delivery.Auth] != 20 || i.requests.Load() > 21 {
		t.Errorf("%v, %d token requests", got, i.requests.Load())
	}
}
