// Package httpadapter delivers webhooks by HTTP POST. It promises that one Deliver
// sends at most one request, that the whole attempt (DNS, connect, TLS, headers,
// body) ends with its context, that redirects are failures and are not followed,
// and that after a 2xx status nothing in the response body can make it a failure.
package httpadapter

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/guard"
)

const (
	maxBody = 64 * 1024 // bytes of a response body that are read
	// drainTime is how long a 2xx response's body is read, so that its connection
	// can be reused.
	drainTime = 250 * time.Millisecond
	maxIdle   = 1000 // idle connections
	userAgent = "Tidings/1 (Standard Webhooks)"
	form      = "https://host/path"
)

// Options are shared by all adapters of a router.
type Options struct {
	Guard *guard.Guard
	// RootCAs verify receivers' certificates. Nil means the system's.
	RootCAs *x509.CertPool
}

// Kind returns the HTTP protocol for a router. All adapters share one connection pool.
func Kind(o Options) destination.Kind {
	transport := &http.Transport{
		DialContext:            o.Guard.DialContext,
		Proxy:                  nil, // a proxy would bypass the guard
		TLSClientConfig:        &tls.Config{RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:      true, // a custom DialContext disables it by default
		DisableCompression:     true, // avoids decompression bombs; bodies are only shown
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    maxIdle, // a deployment may have a single receiver
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 * 1024,
	}
	return destination.Kind{
		Schemes: []string{"https", "http"},
		Form:    form,
		Check: func(t destination.Target, u *url.URL) error {
			switch {
			case t.RoleARN != "":
				return errors.New("role_arn applies to SQS and Kafka, not to HTTP")
			case t.Credentials != "":
				return errors.New("credentials apply to Kafka, not to HTTP: receivers verify the signature")
			case t.Ordered:
				return errors.New("ordered applies to Pub/Sub; HTTP has no ordering")
			}
			if u.Opaque != "" || u.Host == "" {
				return errors.New("the host is missing")
			}
			return o.Guard.CheckURL(u)
		},
		Open: func(_ destination.Target, u *url.URL) (destination.Adapter, error) {
			return &poster{transport: transport, url: u}, nil
		},
		Close: func() error {
			transport.CloseIdleConnections()
			return nil
		},
	}
}

// poster posts to one URL. It uses a RoundTripper, not an http.Client, because it
// needs neither redirects nor cookies.
type poster struct {
	transport http.RoundTripper
	url       *url.URL
}

// Header values shared by all requests. They are never modified.
var (
	contentType = []string{destination.ContentType}
	agent       = []string{userAgent}
)

// Close does nothing: all posters share the connections.
func (p *poster) Close() error { return nil }

// activity says what an attempt does in a phase. The errors of PhaseBody are those
// before the end of the headers: later ones do not fail an attempt.
var activity = map[destination.Phase]string{
	"":                        "waiting for a connection",
	destination.PhaseDNS:      "resolving the host name",
	destination.PhaseConnect:  "connecting",
	destination.PhaseTLS:      "performing the TLS handshake",
	destination.PhaseSend:     "sending the request",
	destination.PhaseResponse: "waiting for the response headers",
	destination.PhaseBody:     "reading the response headers",
}

// Deliver posts the message once.
func (p *poster) Deliver(ctx context.Context, m destination.Message) delivery.Outcome {
	began := time.Now()
	var watch stopwatch
	x := destination.Observed(ctx)
	outcome := p.post(httptrace.WithClientTrace(ctx, watch.trace(x != nil)), m, x)
	outcome.Timings = watch.timings()
	outcome.Timings.Total = time.Since(began)
	phase, after := watch.ended()
	if outcome.Class == delivery.Timeout {
		outcome.Error += fmt.Sprintf(" after %s while %s", outcome.Timings.Total.Round(100*time.Millisecond), activity[phase])
	}
	if x != nil {
		x.Ended, x.EndedAfter = phase, after
		if wrote := watch.fields(); wrote != nil {
			x.RequestHeaders = wrote
		}
	}
	return outcome
}

// post makes the request. It fills x unless it is nil.
func (p *poster) post(ctx context.Context, m destination.Message, x *destination.Exchange) delivery.Outcome {
	request := (&http.Request{
		Method: http.MethodPost, URL: p.url, Host: p.url.Host, Header: make(http.Header, 2+len(m.Headers)),
		Body: io.NopCloser(bytes.NewReader(m.Body)), ContentLength: int64(len(m.Body)),
		// http.Transport uses GetBody when an idle connection turns out to be closed
		// before anything was written.
		GetBody: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(m.Body)), nil },
	}).WithContext(ctx)
	request.Header["Content-Type"] = contentType
	request.Header["User-Agent"] = agent
	values := make([]string, 0, len(m.Headers))
	for name, value := range m.Headers {
		// Not Header.Set: with a canonical Idempotency-Key, net/http resends a POST
		// when a reused connection breaks (Request.isReplayable). That attempt would
		// not be recorded. Header names are case-insensitive (RFC 9110, section 5.1).
		values = append(values, value)
		request.Header[strings.ToLower(name)] = values[len(values)-1 : len(values) : len(values)]
	}
	if x != nil {
		x.Method, x.To = request.Method, p.url.String()
		x.RequestHeaders = append([]destination.Field{{Name: "Host", Value: request.URL.Host}, {Name: "Content-Length", Value: strconv.Itoa(len(m.Body))}}, fields(request.Header)...)
	}
	response, err := p.transport.RoundTrip(request)
	if err != nil {
		if x != nil {
			x.Cause = err
		}
		return classify(err)
	}
	defer response.Body.Close()
	if x != nil {
		x.Proto, x.ResponseHeaders = response.Proto, fields(response.Header)
		seen := &window{x: x}
		response.Body = struct {
			io.Reader
			io.Closer
		}{io.TeeReader(response.Body, seen), response.Body}
	}
	if response.StatusCode >= 200 && response.StatusCode <= 299 {
		if response.Body != http.NoBody {
			// Closing the body of a slow response ends the copy and the connection.
			stop := time.AfterFunc(drainTime, func() { _ = response.Body.Close() })
			defer stop.Stop()
			_, _ = io.CopyN(io.Discard, response.Body, maxBody)
		}
		return delivery.Outcome{Class: delivery.Success, Status: response.StatusCode}
	}
	body, _ := io.ReadAll(io.LimitReader(response.Body, maxBody)) // an incomplete body is kept: only the status counts
	return refused(response, body)
}

// window copies the beginning of the response body to the exchange.
type window struct{ x *destination.Exchange }

func (w *window) Write(b []byte) (int, error) {
	room := destination.MaxExchangeBodyBytes - len(w.x.Body)
	w.x.Truncated = w.x.Truncated || len(b) > room
	w.x.Body = append(w.x.Body, b[:min(len(b), room)]...)
	return len(b), nil
}

func fields(h http.Header) []destination.Field {
	var list []destination.Field
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, value := range h[name] {
			list = append(list, destination.Field{Name: name, Value: value})
		}
	}
	return list
}

// refused returns the outcome for a response with a status other than 2xx.
func refused(response *http.Response, body []byte) delivery.Outcome {
	status := response.StatusCode
	o := delivery.Outcome{
		Class: delivery.Answered, Status: status, Snippet: printable(body),
		RetryAfter: ParseRetryAfter(response.Header.Get("Retry-After"), time.Now()),
		Error:      fmt.Sprintf("the receiver answered %d", status),
	}
	if text := http.StatusText(status); text != "" {
		o.Error += " " + text
	}
	switch {
	case status >= 300 && status <= 399:
		o.Class = delivery.Redirect
		o.Error += ": redirects are not followed; set the endpoint's URL to the final address"
	case status == http.StatusGone:
		o.Class = delivery.Gone
	case status == http.StatusTooManyRequests:
		o.Class = delivery.Throttled
	}
	return o
}

// classify returns the outcome for a request without a response.
func classify(err error) delivery.Outcome {
	var (
		blocked   *guard.BlockedError
		name      *net.DNSError
		hostname  x509.HostnameError
		authority x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
		verify    *tls.CertificateVerificationError
		record    tls.RecordHeaderError
		dial      *net.OpError
		timeout   net.Error
	)
	failed := func(c delivery.Class, sentence string) delivery.Outcome {
		return delivery.Outcome{Class: c, Error: sentence}
	}
	alert, alerted := destination.TLSAlert(err)
	switch {
	case errors.As(err, &blocked):
		return delivery.Outcome{Class: delivery.Blocked, Permanent: true, Error: blocked.Error()}
	case errors.Is(err, context.Canceled):
		return failed(delivery.Timeout, "canceled") // Deliver adds time and phase
	case errors.Is(err, context.DeadlineExceeded):
		return failed(delivery.Timeout, "timeout")
	case errors.As(err, &name):
		if name.IsNotFound {
			return failed(delivery.DNS, "the host name does not exist or has no address: check its spelling in the URL, and the domain's DNS records")
		}
		return failed(delivery.DNS, "DNS lookup of the host name failed")
	case errors.As(err, &hostname):
		return failed(delivery.TLS, "the receiver's certificate is for another host name")
	case errors.As(err, &authority):
		return failed(delivery.TLS, "the receiver's certificate is not signed by a trusted authority: it may be self-signed, or the server does not send the intermediate certificate")
	case errors.As(err, &invalid):
		if invalid.Reason == x509.Expired && invalid.Cert != nil {
			return failed(delivery.TLS, fmt.Sprintf("the receiver's certificate is only valid from %s to %s",
				invalid.Cert.NotBefore.UTC().Format(time.DateOnly), invalid.Cert.NotAfter.UTC().Format(time.DateOnly)))
		}
		return failed(delivery.TLS, "the receiver's certificate is not valid for a server")
	case errors.As(err, &verify):
		return failed(delivery.TLS, "the receiver's certificate could not be verified")
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return failed(delivery.TLS, "the receiver does not speak TLS on this port: check the port, or whether the URL must begin with http://")
	case alerted:
		return failed(delivery.TLS, "the receiver aborted the TLS handshake ("+tls.AlertError(alert).Error()+")")
	case errors.As(err, &timeout) && timeout.Timeout():
		return failed(delivery.Timeout, "timeout")
	case errors.Is(err, syscall.ECONNREFUSED):
		return failed(delivery.Connect, "connection refused: nothing listens on this address and port")
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return failed(delivery.Connect, "connection reset by the receiver")
	case errors.As(err, &dial) && dial.Op == "dial":
		return failed(delivery.Connect, "could not connect to the receiver")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return failed(delivery.Protocol, "the receiver closed the connection without a response")
	}
	// The remaining errors are those of net/http about malformed responses.
	return failed(delivery.Protocol, "the receiver's response is not valid HTTP")
}

// printable returns the printable characters of the beginning of a body on one line.
func printable(body []byte) string {
	text := strings.ToValidUTF8(string(body[:min(len(body), 4*delivery.MaxSnippetBytes)]), "\uFFFD")
	var out strings.Builder
	for _, r := range text {
		if unicode.IsSpace(r) {
			r = ' '
		}
		if !unicode.IsPrint(r) {
			continue
		}
		if out.Len()+utf8.RuneLen(r) > delivery.MaxSnippetBytes {
			break
		}
		out.WriteRune(r)
	}
	return strings.TrimSpace(out.String())
}

// ParseRetryAfter parses a Retry-After header: seconds, or an HTTP date (RFC 9110,
// section 10.2.3). It returns 0 for a past date and for invalid values, at most a year.
func ParseRetryAfter(header string, now time.Time) time.Duration {
	header = strings.TrimSpace(header)
	if seconds, err := strconv.ParseInt(header, 10, 64); err == nil {
		// Without the maximum, the duration could overflow.
		return time.Duration(min(max(seconds, 0), 365*24*3600)) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil && at.After(now) {
		return min(at.Sub(now), 365*24*time.Hour)
	}
	return 0
}

// stopwatch measures an attempt's phases. It needs a lock because dials race (IPv4
// and IPv6), and the slower one may report after the attempt has ended.
type stopwatch struct {
	mu                                   sync.Mutex
	dns, connect, tls, wrote             time.Time
	dnsTook, connectTook, tlsTook, first time.Duration

	phase   destination.Phase // the latest phase that was entered
	phaseAt time.Time
	sent    []destination.Field // the headers as written, if traced
}

// phases are the phases in order. An attempt never goes back to an earlier one.
var phases = []destination.Phase{"", destination.PhaseDNS, destination.PhaseConnect, destination.PhaseTLS, destination.PhaseSend, destination.PhaseResponse, destination.PhaseBody}

func (w *stopwatch) trace(headers bool) *httptrace.ClientTrace {
	begin := func(at *time.Time, phase destination.Phase) {
		w.mu.Lock()
		defer w.mu.Unlock()
		now := time.Now()
		if at != nil {
			*at = now
		}
		if slices.Index(phases, phase) > slices.Index(phases, w.phase) {
			w.phase, w.phaseAt = phase, now
		}
	}
	end := func(began *time.Time, took *time.Duration) {
		w.mu.Lock()
		if !began.IsZero() {
			*took = time.Since(*began)
		}
		w.mu.Unlock()
	}
	t := &httptrace.ClientTrace{
		DNSStart:          func(httptrace.DNSStartInfo) { begin(&w.dns, destination.PhaseDNS) },
		DNSDone:           func(httptrace.DNSDoneInfo) { end(&w.dns, &w.dnsTook) },
		ConnectStart:      func(string, string) { begin(&w.connect, destination.PhaseConnect) },
		ConnectDone:       func(string, string, error) { end(&w.connect, &w.connectTook) },
		TLSHandshakeStart: func() { begin(&w.tls, destination.PhaseTLS) },
		TLSHandshakeDone:  func(tls.ConnectionState, error) { end(&w.tls, &w.tlsTook) },
		GotConn:           func(httptrace.GotConnInfo) { begin(nil, destination.PhaseSend) },
		WroteRequest:      func(httptrace.WroteRequestInfo) { begin(&w.wrote, destination.PhaseResponse) },
		GotFirstResponseByte: func() {
			end(&w.wrote, &w.first)
			begin(nil, destination.PhaseBody)
		},
	}
	if headers {
		t.WroteHeaderField = func(name string, values []string) {
			w.mu.Lock()
			for _, value := range values {
				w.sent = append(w.sent, destination.Field{Name: name, Value: value})
			}
			w.mu.Unlock()
		}
	}
	return t
}

func (w *stopwatch) timings() delivery.Timings {
	w.mu.Lock()
	defer w.mu.Unlock()
	return delivery.Timings{DNS: w.dnsTook, Connect: w.connectTook, TLS: w.tlsTook, FirstByte: w.first}
}

// ended returns the latest phase and the time since it was entered.
func (w *stopwatch) ended() (destination.Phase, time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.phaseAt.IsZero() {
		return w.phase, 0
	}
	return w.phase, time.Since(w.phaseAt)
}

func (w *stopwatch) fields() []destination.Field {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.sent)
}
