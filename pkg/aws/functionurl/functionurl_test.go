package functionurl_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambdacontext"

	"github.com/tidings-dev/tidings/pkg/aws/functionurl"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
)

// seen is what a handler sees of a request.
type seen struct {
	Method, Path, Escaped, Query, URI, Host string
	Header                                  http.Header
	Cookies                                 []string
	Body                                    []byte
	Length                                  int64
}

func look(r *http.Request) seen {
	s := seen{
		Method: r.Method, Path: r.URL.Path, Escaped: r.URL.EscapedPath(), Query: r.URL.RawQuery, URI: r.RequestURI,
		Host: r.Host, Header: r.Header, Length: r.ContentLength,
	}
	for _, c := range r.Cookies() {
		s.Cookies = append(s.Cookies, c.Name+"="+c.Value)
	}
	s.Body, _ = io.ReadAll(r.Body)
	return s
}

// served serves h by a function URL of the local runner.
func served(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(local.FunctionURL(&local.Function{
		Function: samtemplate.Function{Folder: "f", Name: "f", Timeout: time.Minute}, ARN: "arn:f",
		Handle: functionurl.Handler(h), Log: slog.New(slog.DiscardHandler),
	}))
	t.Cleanup(server.Close)
	return server
}

// The handler must see the same request, and its client get the same response, as with
// a net/http server.
func TestHandlersBehaveAsWithNetHTTP(t *testing.T) {
	gzipped := func() []byte {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = w.Write([]byte("packed"))
		_ = w.Close()
		return b.Bytes()
	}()
	requests := map[string]func(url string) *http.Request{
		"plain":        newRequest(http.MethodGet, "/", "", nil),
		"no path":      newRequest(http.MethodGet, "", "", nil),
		"escaped path": newRequest(http.MethodGet, "/a%2Fb/c%20d/%25/ü", "", nil),
		"two slashes":  newRequest(http.MethodGet, "//evil.example/x", "", nil),
		"query":        newRequest(http.MethodGet, "/q?a=1&a=2&b=%26+%C3%BC&flag", "", nil),
		"commas":       newRequest(http.MethodGet, "/", "", http.Header{"If-None-Match": {`"a,b", "c"`}, "Date": {"Tue, 24 Nov 2026 12:00:00 GMT"}}),
		"cookies":      newRequest(http.MethodGet, "/", "", http.Header{"Cookie": {"a=1; b=x=y"}}),
		"text":         newRequest(http.MethodPost, "/in", "Grüße \u2028 🎟", http.Header{"Content-Type": {"text/plain"}}),
		"binary":       newRequest(http.MethodPut, "/in", "\x00\xff\xfe", nil),
		"form":         newRequest(http.MethodPost, "/in", "a=1&b=2", http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}),
		"head":         newRequest(http.MethodHead, "/", "", nil),
		"delete":       newRequest(http.MethodDelete, "/x", "", nil),
	}
	answers := map[string]http.HandlerFunc{
		"nothing":     func(http.ResponseWriter, *http.Request) {},
		"text":        func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello, 🎟") },
		"html":        func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<!doctype html><p>x") },
		"no content":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) },
		"redirect":    func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/else?where", http.StatusSeeOther) },
		"error":       func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusTeapot) },
		"early hints": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK); w.WriteHeader(500) },
		"late header": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "x")
			w.Header().Set("X-Late", "1")
		},
		"cookies": func(w http.ResponseWriter, _ *http.Request) {
			http.SetCookie(w, &http.Cookie{Name: "a", Value: "1", Path: "/", HttpOnly: true, Expires: time.Unix(2e9, 0)})
			http.SetCookie(w, &http.Cookie{Name: "b", Value: "2"})
		},
		"binary": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/octet-stream")
			_, _ = w.Write([]byte{0, 0xff, 0xfe, '"'})
		},
		"compressed": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Header().Set("Content-Type", "text/plain")
			_, _ = w.Write(gzipped)
		},
		"cached": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"v1"`)
			http.ServeContent(w, r, "x.css", time.Unix(1e9, 0), strings.NewReader("p{}"))
		},
	}
	for name, request := range requests {
		for kind, answer := range answers {
			t.Run(name+" "+kind, func(t *testing.T) {
				var got []seen
				h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					got = append(got, look(r))
					answer(w, r)
				})
				plain := httptest.NewServer(h)
				defer plain.Close()
				want, wantBody := do(t, request(plain.URL))
				have, haveBody := do(t, request(served(t, h).URL))

				a, b := got[0], got[1]
				a.Host, b.Host = "", "" // the ports differ
				if x, y := js(t, a), js(t, b); x != y {
					t.Errorf("the handler saw\n%s behind the function URL, and without\n%s", y, x)
				}
				if have.StatusCode != want.StatusCode || haveBody != wantBody {
					t.Errorf("answer %d %q, want %d %q", have.StatusCode, haveBody, want.StatusCode, wantBody)
				}
				for _, h := range []http.Header{have.Header, want.Header} {
					h.Del("Date")
					h.Del("Content-Length") // set by Lambda
				}
				if x, y := js(t, want.Header), js(t, have.Header); x != y {
					t.Errorf("answered with headers\n%s, want\n%s", y, x)
				}
			})
		}
	}
}

func newRequest(method, path, body string, header http.Header) func(string) *http.Request {
	return func(url string) *http.Request {
		r := httptest.NewRequest(method, "http://x"+path, strings.NewReader(body))
		r.RequestURI = ""
		r.URL.Host = strings.TrimPrefix(url, "http://")
		r.Host = ""
		if body == "" {
			r.Body = nil
		}
		for name, values := range header {
			r.Header[name] = values
		}
		return r
	}
}

func do(t *testing.T, r *http.Request) (*http.Response, string) {
	t.Helper()
	client := &http.Client{
		Transport:     &http.Transport{DisableCompression: true, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Do(r.WithContext(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	response.Header.Del("Connection")
	return response, string(body)
}

func js(t *testing.T, v any) string {
	t.Helper()
	text, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTheDocumentedRequestIsServed(t *testing.T) {
	payload, err := os.ReadFile("../../../events/emit-function-url.json")
	if err != nil {
		t.Fatal(err)
	}
	var got seen
	var remote, id string
	h := functionurl.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, remote = look(r), r.RemoteAddr
		c, _ := functionurl.RequestContext(r.Context())
		lambda, _ := lambdacontext.FromContext(r.Context())
		id = c.RequestID + " " + lambda.AwsRequestID
	}))
	ctx := lambdacontext.NewContext(t.Context(), &lambdacontext.LambdaContext{AwsRequestID: "from-lambda"})
	if _, err := h(ctx, payload); err != nil {
		t.Fatal(err)
	}
	if got.Method != "POST" || got.Path != "/" || got.Host != "abcdefghijklmnop.lambda-url.us-east-1.on.aws" || got.Header.Get("Host") != "" ||
		got.Header.Get("Idempotency-Key") != "join-c_7-u_1042" || !bytes.HasPrefix(got.Body, []byte(`{"event"`)) ||
		remote != "192.0.2.10:0" || id != "7c1a2f0e-0000-4000-8000-000000000001 from-lambda" {
		t.Errorf("the handler saw %s from %s as %s", js(t, got), remote, id)
	}
}

func TestRepeatedHeadersAreJoined(t *testing.T) {
	h := functionurl.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Vary"] = []string{"Accept", "Cookie"}
		w.Header()["X-Nothing"] = nil
		http.SetCookie(w, &http.Cookie{Name: "a", Value: "1"})
		http.SetCookie(w, &http.Cookie{Name: "b", Value: "2"})
	}))
	got := call(t, h, `{"rawPath":"/","requestContext":{"http":{"method":"GET"}}}`)
	if got.Headers["Vary"] != "Accept, Cookie" || len(got.Headers) != 1 || !slices.Equal(got.Cookies, []string{"a=1", "b=2"}) {
		t.Errorf("answer = %+v", got)
	}
}

func TestPayloadsThatAreNotRequestsFail(t *testing.T) {
	h := functionurl.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the handler was called") }))
	for _, payload := range []string{`{}`, `{"action":"sweep"}`, `[]`, `{"requestContext":{"http":"GET"}}`} {
		if answer, err := h(context.Background(), json.RawMessage(payload)); err == nil {
			t.Errorf("%s is answered %v", payload, answer)
		}
	}
}

func TestMalformedRequestsReachTheHandler(t *testing.T) {
	for name, c := range map[string]struct {
		payload, path, method string
		readable              bool
	}{
		"body is not base64":        {`{"requestContext":{"http":{"method":"POST"}},"body":"%%%","isBase64Encoded":true}`, "/", "POST", false},
		"path is not a valid URL":   {`{"rawPath":"/%zz","requestContext":{"http":{"method":"GET"}}}`, "/%zz", "GET", true},
		"request without a method":  {`{"requestContext":{"http":{"path":"/"}}}`, "/", "", true},
		"request with an empty one": {`{"requestContext":{"http":{"method":""}}}`, "/", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			called := false
			call(t, functionurl.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				called = true
				body, err := io.ReadAll(r.Body)
				if r.Method != c.method || r.URL.Path != c.path || (err == nil) != c.readable || len(body) != 0 {
					t.Errorf("the handler saw %s %s, body %q, %v", r.Method, r.URL.Path, body, err)
				}
			})), c.payload)
			if !called {
				t.Error("the handler was not called")
			}
		})
	}
}

func call(t *testing.T, h func(context.Context, json.RawMessage) (any, error), payload string) events.LambdaFunctionURLResponse {
	t.Helper()
	answer, err := h(t.Context(), json.RawMessage(payload))
	if err != nil {
		t.Fatal(err)
	}
	return answer.(events.LambdaFunctionURLResponse)
}
