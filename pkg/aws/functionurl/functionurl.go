// Package functionurl serves an ordinary http.Handler from a Lambda function URL
// (payload version 2.0, BUFFERED). It promises the handler the request that the
// client sent, and the client the answer that the handler gave, as net/http would
// have carried them: path and query as they were escaped, cookies both ways, bodies
// of any bytes both ways, a HEAD without a body. What the payload itself loses stays
// lost: of a header that came twice, or goes out twice, there is one line with
// commas. An answer over Lambda's 6 MB is Lambda's to refuse.
//
// The libraries that do this split every header at its commas, which breaks entity
// tags and dates, and send cookies as several lines.
package functionurl

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/events"
)

// Handler returns the Lambda function that serves h. A panic of h goes on to the
// runtime, which reports it and answers the client with 502.
func Handler(h http.Handler) func(context.Context, json.RawMessage) (any, error) {
	return func(ctx context.Context, payload json.RawMessage) (any, error) {
		in, err := ReadRequest(payload)
		if err != nil {
			return nil, err
		}
		if in.RequestContext.HTTP.Method == "" {
			return nil, fmt.Errorf("function URL request: it has no requestContext.http.method: call this function by its URL")
		}
		r, err := request(ctx, in)
		if err != nil {
			return events.LambdaFunctionURLResponse{StatusCode: http.StatusBadRequest, Body: err.Error() + "\n"}, nil
		}
		w := &writer{header: http.Header{}}
		h.ServeHTTP(w, r)
		return w.answer(r.Method), nil
	}
}

type contextKey struct{}

// RequestContext returns what Lambda says of the request that ctx belongs to: who
// signed it, its id, its time.
func RequestContext(ctx context.Context) (events.LambdaFunctionURLRequestContext, bool) {
	c, ok := ctx.Value(contextKey{}).(events.LambdaFunctionURLRequestContext)
	return c, ok
}

func request(ctx context.Context, in events.LambdaFunctionURLRequest) (*http.Request, error) {
	body := []byte(in.Body)
	if in.IsBase64Encoded {
		decoded, err := base64.StdEncoding.DecodeString(in.Body)
		if err != nil {
			return nil, fmt.Errorf("the request's body is not the base64 that it says it is")
		}
		body = decoded
	}
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
		Header: http.Header{}, Body: http.NoBody, ContentLength: int64(len(body)),
	}
	if major, minor, ok := http.ParseHTTPVersion(described.Protocol); ok {
		r.Proto, r.ProtoMajor, r.ProtoMinor = described.Protocol, major, minor
	}
	if len(body) > 0 {
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	if described.SourceIP != "" {
		r.RemoteAddr = net.JoinHostPort(described.SourceIP, "0")
	}
	for name, value := range in.Headers {
		r.Header.Set(name, value)
	}
	// As a server does: the host is no header to a handler.
	if host := r.Header.Get("Host"); host != "" {
		r.Host = host
	}
	r.Header.Del("Host")
	if len(in.Cookies) > 0 {
		r.Header.Set("Cookie", strings.Join(in.Cookies, "; "))
	}
	return r.WithContext(context.WithValue(ctx, contextKey{}, in.RequestContext)), nil
}

// writer keeps an answer until it is complete.
type writer struct {
	header http.Header
	sent   http.Header // header as it was when the status was written
	status int
	body   bytes.Buffer
}

func (w *writer) Header() http.Header { return w.header }

func (w *writer) WriteHeader(status int) {
	informational := status >= 100 && status < 200 && status != http.StatusSwitchingProtocols
	if w.status != 0 || informational {
		return // the payload carries one status
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

// Flush is there for handlers that ask for it; the answer goes out whole.
func (w *writer) Flush() { w.WriteHeader(http.StatusOK) }

func (w *writer) answer(method string) events.LambdaFunctionURLResponse {
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
