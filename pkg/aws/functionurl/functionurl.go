// Package functionurl serves an http.Handler from a Lambda function URL (payload
// version 2.0, BUFFERED). It promises that the handler sees the request, and the
// client the response, as with net/http: escaped paths and queries, cookies and binary
// bodies in both directions, and no body in the response to HEAD. A header that is
// repeated becomes one line with commas, because the payload has one line per header.
// Lambda rejects responses over 6 MB.
//
// Other libraries split every header at its commas, which breaks entity tags and
// dates, and send cookies as several lines.
package functionurl

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tidings-dev/tidings/pkg/aws/lambdaevent"
)

// Handler returns the Lambda function that serves h. It fails for payloads that are
// not function URL requests. It does not recover from a panic of h: the Lambda runtime
// reports it, and the client gets 502.
func Handler(h http.Handler) func(context.Context, json.RawMessage) (any, error) {
	return func(ctx context.Context, payload json.RawMessage) (any, error) {
		in, err := ReadRequest(payload)
		if err != nil {
			return nil, err
		}
		if in.RequestContext.HTTP.Method == "" {
			if kind, _ := lambdaevent.Of(payload); kind != lambdaevent.FunctionURL {
				return nil, errors.New("payload is not a function URL request: requestContext.http is missing; call this function by its URL")
			}
		}
		w := &writer{header: http.Header{}}
		h.ServeHTTP(w, newRequest(ctx, in))
		return w.response(in.RequestContext.HTTP.Method), nil
	}
}

type contextKey struct{}

// RequestContext returns what Lambda adds to the request that ctx belongs to: the
// caller's identity, the request ID, the time.
func RequestContext(ctx context.Context) (events.LambdaFunctionURLRequestContext, bool) {
	c, ok := ctx.Value(contextKey{}).(events.LambdaFunctionURLRequestContext)
	return c, ok
}

func newRequest(ctx context.Context, in events.LambdaFunctionURLRequest) *http.Request {
	u := &url.URL{Path: in.RawPath, RawQuery: in.RawQueryString}
	if path, err := url.PathUnescape(in.RawPath); err == nil {
		u.Path, u.RawPath = path, in.RawPath
	}
	if u.Path == "" {
		u.Path, u.RawPath = "/", ""
	}
	described := in.RequestContext.HTTP
	r := &http.Request{
		Method: described.Method, URL: u, RequestURI: u.RequestURI(), Host: in.RequestContext.DomainName,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{},
	}
	r.Body, r.ContentLength = newBody(in)
	if major, minor, ok := http.ParseHTTPVersion(described.Protocol); ok {
		r.Proto, r.ProtoMajor, r.ProtoMinor = described.Protocol, major, minor
	}
	if described.SourceIP != "" {
		r.RemoteAddr = net.JoinHostPort(described.SourceIP, "0")
	}
	for name, value := range in.Headers {
		r.Header.Set(name, value)
	}
	// net/http's server also moves the Host header to its own field.
	if host := r.Header.Get("Host"); host != "" {
		r.Host = host
	}
	r.Header.Del("Host")
	if len(in.Cookies) > 0 {
		r.Header.Set("Cookie", strings.Join(in.Cookies, "; "))
	}
	return r.WithContext(context.WithValue(ctx, contextKey{}, in.RequestContext))
}

// newBody returns the body and its length. Like net/http's server with a malformed
// chunked body, it leaves the answer to a body that is not base64 to the handler:
// reading it fails, and its length is unknown.
func newBody(in events.LambdaFunctionURLRequest) (io.ReadCloser, int64) {
	body := in.Body
	if in.IsBase64Encoded {
		decoded, err := base64.StdEncoding.DecodeString(body)
		if err != nil {
			return malformedBody{}, -1
		}
		body = string(decoded)
	}
	if body == "" {
		return http.NoBody, 0
	}
	return io.NopCloser(strings.NewReader(body)), int64(len(body))
}

type malformedBody struct{}

func (malformedBody) Read([]byte) (int, error) { return 0, errors.New("request body is not base64") }
func (malformedBody) Close() error             { return nil }

// writer collects a response until the handler returns.
type writer struct {
	header http.Header
	sent   http.Header // copy of header from when the status was written
	status int
	body   bytes.Buffer
}

func (w *writer) Header() http.Header { return w.header }

func (w *writer) WriteHeader(status int) {
	informational := status >= 100 && status < 200 && status != http.StatusSwitchingProtocols
	if w.status != 0 || informational {
		return // the response payload has one status
	}
	w.status, w.sent = status, w.header.Clone()
}

func (w *writer) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.status == http.StatusNoContent || w.status == http.StatusNotModified {
		return 0, http.ErrBodyNotAllowed
	}
	return w.body.Write(p)
}

// Flush implements http.Flusher. The response is sent when the handler returns.
func (w *writer) Flush() { w.WriteHeader(http.StatusOK) }

func (w *writer) response(method string) events.LambdaFunctionURLResponse {
	w.WriteHeader(http.StatusOK)
	_, typed := w.sent["Content-Type"]
	if !typed && w.body.Len() > 0 && w.sent.Get("Content-Encoding") == "" {
		w.sent.Set("Content-Type", http.DetectContentType(w.body.Bytes()))
	}
	out := events.LambdaFunctionURLResponse{StatusCode: w.status, Headers: map[string]string{}}
	for name, values := range w.sent {
		switch {
		case name == "Set-Cookie":
			out.Cookies = values
		case len(values) > 0:
			out.Headers[name] = strings.Join(values, ", ")
		}
	}
	if method == http.MethodHead {
		return out
	}
	if body := w.body.Bytes(); utf8.Valid(body) {
		out.Body = string(body)
	} else {
		out.Body, out.IsBase64Encoded = base64.StdEncoding.EncodeToString(body), true
	}
	return out
}
