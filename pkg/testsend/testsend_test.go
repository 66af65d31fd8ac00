package testsend_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event/validate"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/testsend"
)

// received is what a receiver got.
type received struct {
	request *http.Request
	body    []byte
}

// good returns a lab whose receiver accepts everything, and the received request.
func good(t *testing.T) (*lab, *received) {
	l, got := newLab(t), &received{}
	l.serve(func(w http.ResponseWriter, r *http.Request) {
		got.request = r
		got.body, _ = io.ReadAll(r.Body)
		w.Header().Set("X-Receiver", "mine")
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, "thanks")
	})
	return l, got
}

// A test sends what an event would: in the endpoint's format, by its method, without the
// fields that it does not get.
func TestATestHasTheShapeOfTheEndpoint(t *testing.T) {
	l, got := good(t)
	l.endpoint.Shape = endpoint.Shape{Format: endpoint.FormatCloudEvents, Method: "PATCH", Exclude: []string{"data.community_name"}}
	r := l.run()
	if r.Verdict != testsend.Delivered || r.Request.Method != "PATCH" || got.request.Method != "PATCH" || got.request.Header.Get("content-type") != "application/cloudevents+json" {
		t.Errorf("%+v\n%+v", r, got.request)
	}
	if r.Request.Body != string(got.body) || !strings.Contains(r.Request.Body, `"specversion":"1.0"`) || strings.Contains(r.Request.Body, "community_name") {
		t.Errorf("body %s", got.body)
	}
	if want := got.request.Header.Get("webhook-id") + "." + got.request.Header.Get("webhook-timestamp") + "." + string(got.body); r.Request.Signature.Base != want {
		t.Errorf("base = %q, want %q", r.Request.Signature.Base, want)
	}
}

func TestReportMatchesTheReceivedRequest(t *testing.T) {
	l, got := good(t)
	old := signature.NewSecret()
	l.endpoint.Secrets = append(l.endpoint.Secrets, endpoint.SigningSecret{Secret: old, ExpiresAt: time.Now().Add(time.Hour)})
	r := l.run()
	if r.Verdict != testsend.Delivered || r.Outcome != delivery.Success || r.Status != 202 || r.Hint != nil || r.Error != "" || r.Consequence != testsend.ConsequenceDelivered {
		t.Errorf("report = %+v", r)
	}
	if r.Request.Body != string(got.body) || r.Request.Method != "POST" || r.Request.To != l.endpoint.URL {
		t.Errorf("request = %+v\nreceived %s", r.Request, got.body)
	}
	// The report contains exactly the received headers.
	arrived := got.request.Header.Clone()
	arrived.Set("Host", got.request.Host)
	for _, f := range r.Request.Headers {
		if arrived.Get(f.Name) != f.Value {
			t.Errorf("%s: reported %q, received %q", f.Name, f.Value, arrived.Get(f.Name))
		}
		arrived.Del(f.Name)
	}
	if len(arrived) != 0 {
		t.Errorf("received and not reported: %v", arrived)
	}
	if got.request.Header.Get(testsend.HeaderTest) != "true" {
		t.Error("the receiver cannot tell that it is a test")
	}
	// The official library verifies both secrets.
	for i, secret := range []signature.Secret{l.endpoint.Secrets[0].Secret, old} {
		verifier, err := standardwebhooks.NewWebhook(secret.Reveal())
		if err != nil {
			t.Fatal(err)
		}
		if err := verifier.Verify(got.body, got.request.Header); err != nil {
			t.Errorf("secret %d: %v", i, err)
		}
		by := r.Request.Signature.By[i]
		if by.Fingerprint != secret.Fingerprint() || by.Secret != "whsec_••••••••" || !strings.Contains(got.request.Header.Get("webhook-signature"), by.Signature) {
			t.Errorf("signer %d = %+v", i, by)
		}
	}
	if want := got.request.Header.Get("webhook-id") + "." + got.request.Header.Get("webhook-timestamp") + "." + string(got.body); r.Request.Signature.Base != want {
		t.Errorf("base = %q, want %q", r.Request.Signature.Base, want)
	}
	a := r.Response
	if a == nil || a.Status != 202 || a.Body != "thanks" || a.Proto != "HTTP/1.1" || !slices.Contains(a.Headers, destination.Field{Name: "X-Receiver", Value: "mine"}) {
		t.Errorf("response = %+v", a)
	}
	if r.Timings.Connect <= 0 || r.Timings.FirstByte <= 0 || r.Timings.Total < r.Timings.Connect || r.Timings.Ended != destination.PhaseBody {
		t.Errorf("timings = %+v", r.Timings)
	}
	if !r.Sample || r.Event != "user.joined_community" || r.EventID != got.request.Header.Get("webhook-id") || len(r.Notes) != 0 {
		t.Errorf("report = %+v", r)
	}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range l.endpoint.Secrets {
		if key := strings.TrimPrefix(s.Secret.Reveal(), "whsec_"); bytes.Contains(text, []byte(key)) {
			t.Error("the report contains a secret")
		}
	}
}

func TestEachTestUsesANewConnection(t *testing.T) {
	l, _ := good(t)
	for range 2 {
		if r := l.run(); r.Timings.Connect <= 0 {
			t.Errorf("timings = %+v, want a new connection", r.Timings)
		}
	}
}

func TestLongResponseIsTruncated(t *testing.T) {
	l := newLab(t)
	l.serve(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, "\x1b[31m\x00"+strings.Repeat("é", 20_000))
	})
	a := l.run().Response
	if a == nil || !a.Truncated || len(a.Body) > destination.MaxExchangeBodyBytes || !strings.HasPrefix(a.Body, "[31mé") || !strings.HasSuffix(a.Body, "é") {
		t.Errorf("response = %+v", a)
	}
}

func TestEventSelection(t *testing.T) {
	for name, c := range map[string]struct {
		types   []string
		filter  string
		request testsend.Request
		event   string
		sample  bool
		note    string // empty for none
	}{
		"all types":              {[]string{"*"}, "", testsend.Request{}, "user.joined_community", true, ""},
		"subscribed pattern":     {[]string{"discussion.*"}, "", testsend.Request{}, "discussion.auto_closed", true, ""},
		"named type":             {[]string{"*"}, "", testsend.Request{Event: "user.posted_comment"}, "user.posted_comment", true, ""},
		"custom data":            {[]string{"*"}, "", testsend.Request{Data: json.RawMessage(`{"community_id":"c","community_name":"<Grüße & 1e21>"}`)}, "user.joined_community", false, ""},
		"type not subscribed to": {[]string{"user.joined_community"}, "", testsend.Request{Event: "user.posted_comment"}, "user.posted_comment", true, "does not subscribe"},
		"filter does not match":  {[]string{"*"}, `{"data":{"community_id":["c_8"]}}`, testsend.Request{}, "user.joined_community", true, "filter does not match"},
		"filter matches":         {[]string{"*"}, `{"data":{"community_id":["c_7"]}}`, testsend.Request{}, "user.joined_community", true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			l, got := good(t)
			l.endpoint.EventTypes = c.types
			if c.filter != "" {
				l.endpoint.Filter = json.RawMessage(c.filter)
			}
			c.request.EndpointID = "ep_1"
			r, err := l.tester().Run(t.Context(), c.request)
			if err != nil {
				t.Fatal(err)
			}
			var body struct {
				Event string
				Data  json.RawMessage
			}
			if err := json.Unmarshal(got.body, &body); err != nil {
				t.Fatal(err)
			}
			if r.Event != c.event || body.Event != c.event || r.Sample != c.sample || c.request.Data != nil && string(body.Data) != string(c.request.Data) {
				t.Errorf("sent %s %s, sample %t", r.Event, body.Data, r.Sample)
			}
			if notes := strings.Join(r.Notes, "\n"); (notes != "") != (c.note != "") || !strings.Contains(notes, c.note) {
				t.Errorf("notes = %q, want %q", notes, c.note)
			}
		})
	}
}

func TestDisabledEndpointIsTestedWithANote(t *testing.T) {
	l, _ := good(t)
	l.endpoint.Status, l.endpoint.StatusReason = endpoint.Disabled, "moving"
	if r := l.run(); r.Verdict != testsend.Delivered || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "disabled (moving)") {
		t.Errorf("report = %+v", r)
	}
}

func TestURLWithoutEndpoint(t *testing.T) {
	l, got := good(t)
	secret := signature.NewSecret()
	r, err := l.tester().Run(t.Context(), testsend.Request{URL: l.endpoint.URL, Secret: secret.Reveal(), TimeoutSeconds: 3})
	if err != nil || r.Verdict != testsend.Delivered || r.EndpointID != "" || len(r.Notes) != 0 {
		t.Errorf("report = %+v, %v", r, err)
	}
	if err := signature.Verify(secret, got.request.Header.Get("webhook-id"), got.request.Header.Get("webhook-timestamp"), got.request.Header.Get("webhook-signature"), got.body, time.Now()); err != nil {
		t.Error(err)
	}

	l.status(http.StatusUnauthorized)
	r, err = l.tester().Run(t.Context(), testsend.Request{URL: l.endpoint.URL})
	if err != nil || r.Hint == nil || !strings.Contains(r.Hint.Text, "generated secret") || len(r.Notes) != 1 {
		t.Errorf("report = %+v, %v", r, err)
	}
}

func TestInvalidRequestsAreRefused(t *testing.T) {
	l, got := good(t)
	for name, c := range map[string]struct {
		request testsend.Request
		code    testsend.Code
		says    string
	}{
		"nothing":              {testsend.Request{}, testsend.Invalid, "either endpoint_id or url"},
		"both":                 {testsend.Request{EndpointID: "ep_1", URL: l.endpoint.URL}, testsend.Invalid, "not both"},
		"unknown endpoint":     {testsend.Request{EndpointID: "ep_2"}, testsend.NotFound, "no endpoint ep_2"},
		"another tenant":       {testsend.Request{EndpointID: "ep_1", Tenant: "other"}, testsend.NotFound, "tenant other"},
		"a secret with an id":  {testsend.Request{EndpointID: "ep_1", Secret: "whsec_x"}, testsend.Invalid, "only allowed with url"},
		"a metadata address":   {testsend.Request{URL: "https://169.254.169.254/latest/"}, testsend.Invalid, "not an allowed destination"},
		"an unknown scheme":    {testsend.Request{URL: "gopher://x/"}, testsend.Invalid, "https://host/path"},
		"another tenant's key": {testsend.Request{URL: "kafka://127.0.0.1:1/t?sasl=scram-sha-512", Credentials: "tidings/other/k"}, testsend.Invalid, "the stack's name and /default/"},
		"a malformed secret":   {testsend.Request{URL: l.endpoint.URL, Secret: "hunter2hunter2"}, testsend.Invalid, "whsec_"},
		"a long timeout":       {testsend.Request{URL: l.endpoint.URL, TimeoutSeconds: 60}, testsend.Invalid, "timeout_seconds"},
		"an unknown type":      {testsend.Request{EndpointID: "ep_1", Event: "user.exploded"}, testsend.Invalid, "not an event type"},
		"data without a field": {testsend.Request{EndpointID: "ep_1", Data: json.RawMessage(`{"community_name":"c"}`)}, testsend.Invalid, "data.community_id: is missing"},
		"too much data":        {testsend.Request{EndpointID: "ep_1", Event: "user.posted_comment", Data: comment(300_000)}, testsend.Invalid, "comment_text"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := l.tester().Run(t.Context(), c.request)
			var refusal *testsend.Refusal
			if !errors.As(err, &refusal) || refusal.Code != c.code || !strings.Contains(refusal.Message, c.says) || strings.Contains(refusal.Message, "hunter2") {
				t.Errorf("error = %+v, want %s saying %q", err, c.code, c.says)
			}
			if got.request != nil {
				t.Error("a request was sent")
			}
		})
	}
}

func comment(n int) json.RawMessage {
	return json.RawMessage(`{"discussion_id":"d","comment_id":"c","comment_text":"` + strings.Repeat("x", n) + `"}`)
}

func TestTestEndsBeforeItsInvocation(t *testing.T) {
	l := newLab(t)
	l.endpoint.URL = "http://" + l.accept(silent)
	l.endpoint.Timeout = 30 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	r, err := l.tester().Run(ctx, testsend.Request{EndpointID: "ep_1"})
	if err != nil || r.Hint == nil || r.Hint.Code != testsend.HintAnswerTimeout || ctx.Err() != nil || len(r.Notes) != 1 {
		t.Errorf("report = %+v, %v; the invocation: %v", r, err, ctx.Err())
	}
}

func TestLogContainsNoURLAndNoPayload(t *testing.T) {
	l, _ := good(t)
	var log bytes.Buffer
	l.log = &log
	l.endpoint.URL += "?token=hunter2"
	if _, err := l.tester().Run(t.Context(), testsend.Request{EndpointID: "ep_1", Event: "user.posted_comment", Data: comment(7)}); err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"hunter2", "/hooks", "127.0.0.1", "xxxxxxx", "thanks", "whsec_"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log contains %q: %s", secret, log.String())
		}
	}
	if !strings.Contains(log.String(), `"msg":"webhook.tested"`) || !strings.Contains(log.String(), `"verdict":"delivered"`) {
		t.Errorf("log = %s", log.String())
	}
}

// byURL invokes the function with a function URL event.
func byURL(t *testing.T, tester *testsend.Tester, method, body string) events.LambdaFunctionURLResponse {
	t.Helper()
	payload, err := json.Marshal(events.LambdaFunctionURLRequest{Version: "2.0", RawPath: "/", Body: body, RequestContext: events.LambdaFunctionURLRequestContext{
		HTTP: events.LambdaFunctionURLRequestContextHTTPDescription{Method: method, Path: "/", Protocol: "HTTP/1.1"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	out, err := tester.Handle(t.Context(), payload)
	if err != nil {
		t.Fatal(err)
	}
	return out.(events.LambdaFunctionURLResponse)
}

func TestHandle(t *testing.T) {
	l, _ := good(t)
	out, err := l.tester().Handle(t.Context(), json.RawMessage(`{"endpoint_id":"ep_1","data":null}`))
	if report, ok := out.(testsend.Report); err != nil || !ok || report.Verdict != testsend.Delivered {
		t.Errorf("invoked: %+v, %v", out, err)
	}
	if _, err := l.tester().Handle(t.Context(), json.RawMessage(`{"endpoint":"ep_1"}`)); err == nil || !strings.Contains(err.Error(), "endpoint_id") {
		t.Errorf("a misspelt field: %v", err)
	}
	for _, c := range []struct {
		method, body string
		status       int
		says         string
	}{
		{"POST", `{"endpoint_id":"ep_1"}`, 200, `"verdict":"delivered"`},
		{"POST", `{"url":"http://127.0.0.1:1/"}`, 200, `"connection_refused"`},
		{"POST", `{"endpoint_id":"ep_2"}`, 404, `"endpoint_not_found"`},
		{"POST", `{`, 400, `"invalid"`},
		{"POST", `{"endpoint_id":"ep_1","data":{}}`, 400, `"field":"data"`},
		{"POST", `{"data":"` + strings.Repeat("x", 600_000) + `"}`, 413, "larger"},
		{"GET", ``, 405, "use POST"},
	} {
		out := byURL(t, l.tester(), c.method, c.body)
		if out.StatusCode != c.status || !strings.Contains(out.Body, c.says) || out.Headers["Content-Type"] != "application/json" || out.Headers["Cache-Control"] != "no-store" {
			t.Errorf("%s %.40s: %d %v %.200s", c.method, c.body, out.StatusCode, out.Headers, out.Body)
		}
	}
}

func TestSecurityTestsAreRateLimited(t *testing.T) {
	for name, c := range map[string]struct {
		request func(l *lab, i int) testsend.Request
		minimum int // tests allowed at once
		maximum int
	}{
		"per endpoint": {func(*lab, int) testsend.Request { return testsend.Request{EndpointID: "ep_1"} }, 5, 6},
		// URLs that differ in the path share a limit.
		"per host": {func(l *lab, i int) testsend.Request {
			return testsend.Request{URL: l.endpoint.URL + "/" + strconv.Itoa(i)}
		}, 5, 6},
		// Nor do another port and another tenant help, which the caller chooses.
		"per host, for each port and tenant": {func(l *lab, i int) testsend.Request {
			u, _ := url.Parse(l.endpoint.URL)
			return testsend.Request{URL: "http://" + u.Hostname() + ":" + strconv.Itoa(20000+i) + "/", Tenant: "t" + strconv.Itoa(i), Caller: "arn:aws:iam::123456789012:user/" + strconv.Itoa(i)}
		}, 5, 6},
		"per host, for each broker of a list": {func(l *lab, i int) testsend.Request {
			return testsend.Request{URL: "kafka://127.0.2." + strconv.Itoa(i+1) + ":1,127.0.0.1:" + strconv.Itoa(20000+i) + "/topic", Tenant: "t" + strconv.Itoa(i)}
		}, 5, 6},
		"per tenant, by invocation": {func(l *lab, i int) testsend.Request {
			return testsend.Request{URL: strings.Replace(l.endpoint.URL, "127.0.0.1", "127.0.1."+strconv.Itoa(i+1), 1)}
		}, 11, 12},
		"by invocation, with a tenant for each": {func(l *lab, i int) testsend.Request {
			return testsend.Request{URL: strings.Replace(l.endpoint.URL, "127.0.0.1", "127.0.1."+strconv.Itoa(i+1), 1), Tenant: "t" + strconv.Itoa(i)}
		}, 18, 20},
		"per caller": {func(l *lab, i int) testsend.Request {
			return testsend.Request{URL: strings.Replace(l.endpoint.URL, "127.0.0.1", "127.0.1."+strconv.Itoa(i+1), 1), Caller: "arn:aws:iam::123456789012:user/a"}
		}, 18, 20},
	} {
		t.Run(name, func(t *testing.T) {
			l, _ := good(t)
			now := time.Now()
			l.now = func() time.Time { return now }
			made := 0
			var refusal *testsend.Refusal
			for i := range 100 {
				r := c.request(l, i)
				r.TimeoutSeconds = 0
				_, err := l.tester().Run(t.Context(), r)
				if errors.As(err, &refusal) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				made++
			}
			if made < c.minimum || made > c.maximum {
				t.Fatalf("%d tests were allowed at once", made)
			}
			if refusal.Code != testsend.TooMany || refusal.RetryAfter <= 0 || refusal.RetryAfter > 5*time.Second {
				t.Errorf("refused: %+v", refusal)
			}
			// Early retries do not extend the wait.
			for range 50 {
				if _, err := l.tester().Run(t.Context(), c.request(l, 200)); !errors.As(err, &refusal) {
					t.Fatalf("error = %v", err)
				}
			}
			now = now.Add(refusal.RetryAfter)
			if _, err := l.tester().Run(t.Context(), c.request(l, 200)); err != nil {
				t.Errorf("after %s: %v", refusal.RetryAfter, err)
			}
		})
	}
}

func TestTooManyRequestsHasRetryAfter(t *testing.T) {
	l, _ := good(t)
	now := time.Now()
	l.now = func() time.Time { return now }
	for range 10 {
		out := byURL(t, l.tester(), "POST", `{"endpoint_id":"ep_1"}`)
		if out.StatusCode == http.StatusOK {
			continue
		}
		if seconds, err := strconv.Atoi(out.Headers["Retry-After"]); out.StatusCode != http.StatusTooManyRequests || err != nil || seconds < 1 || seconds > 5 {
			t.Errorf("%d %v %s", out.StatusCode, out.Headers, out.Body)
		}
		return
	}
	t.Error("ten tests at once were allowed")
}

func TestTimestampIsTheCurrentTime(t *testing.T) {
	l, got := good(t)
	r := l.run()
	unix, err := strconv.ParseInt(got.request.Header.Get("webhook-timestamp"), 10, 64)
	if err != nil || r.At.Unix() != unix || time.Since(r.At) > time.Minute {
		t.Errorf("at %s, signed at %d: %v", r.At, unix, err)
	}
}

// constants returns all HintCode values.
func constants(t *testing.T) (codes []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "hints.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && len(spec.Values) == 1 {
			if kind, ok := spec.Type.(*ast.Ident); ok && kind.Name == "HintCode" {
				code, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				codes = append(codes, code)
			}
		}
		return true
	})
	return codes
}

func TestEveryHintIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/testing-endpoints.md")
	if err != nil {
		t.Fatal(err)
	}
	codes := constants(t)
	if len(codes) < 40 {
		t.Fatalf("%d codes", len(codes))
	}
	for _, code := range codes {
		if !strings.Contains(string(text), "`"+code+"`") {
			t.Errorf("%s is not in docs/testing-endpoints.md", code)
		}
	}
	for _, m := range regexp.MustCompile("`((?:http|tls|dns|kafka|pubsub|queue)_[a-z0-9_]+)`").FindAllStringSubmatch(string(text), -1) {
		if !slices.Contains(codes, m[1]) {
			t.Errorf("docs/testing-endpoints.md documents %s, which does not exist", m[1])
		}
	}
}

func TestSamples(t *testing.T) {
	for _, name := range []string{"endpoint", "url"} {
		text, err := os.ReadFile("../../events/test-webhook-" + name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		dec := json.NewDecoder(bytes.NewReader(text))
		dec.DisallowUnknownFields()
		var r testsend.Request
		if err := dec.Decode(&r); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if r.Data != nil {
			if err := validate.Default().Validate(r.Event, r.Data); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
