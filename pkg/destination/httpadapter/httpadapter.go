// Package httpadapter delivers webhooks by HTTP POST. It promises that one
// Deliver is at most one request on the wire, that the whole attempt (name,
// connection, handshake, headers, body) ends with its context, that redirects
// are failures and not followed, and that once the status is 2xx nothing in the
// answer's body can turn the success into a failure.
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
	// maxBody is how much of an answer's body is read, in bytes.
	maxBody = 64 * 1024
	// drainTime is how long a successful answer's body is waited for, so that
	// its connection can be used again.
	drainTime = 250 * time.Millisecond
	// maxIdle is how many connections are kept for the next attempt.
	maxIdle   = 1000
	userAgent = "Tidings/1 (Standard Webhooks)"
	form      = "https://host/path"
)

// Options are what the adapters of one router share.
type Options struct {
	Guard *guard.Guard // decides which addresses may be reached
	// RootCAs verify receivers' certificates; nil means the system's.
	RootCAs *x509.CertPool
}

// Kind is HTTP for a router. All its adapters share one pool of connections.
func Kind(o Options) destination.Kind {
	transport := &http.Transport{
		DialContext:            o.Guard.DialContext,
		Proxy:                  nil, // a proxy would dial for us, past the guard
		TLSClientConfig:        &tls.Config{RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:      true, // a dialer of our own would turn it off
		DisableCompression:     true, // nothing of the body is wanted, least of all a bomb
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    maxIdle, // one receiver may be all there is
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 * 1024,
	}
	return destination.Kind{
		Schemes: []string{"https", "http"},
		Form:    form,
		Check: func(t destination.Target, u *url.URL) error {
			switch {
			case t.RoleARN != "":
				return errors.New("role_arn is for SQS and Kafka, not for HTTP")
			case t.Credentials != "":
				return errors.New("credentials are for Kafka, not for HTTP: receivers verify the signature")
			case t.Ordered:
				return errors.New("ordered is for Pub/Sub; HTTP has no order to keep")
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

// poster posts to one URL. It uses the transport itself: there is nothing to be
// redirected, no cookie, and no second request.
type poster struct {
	transport http.RoundTripper
	url       *url.URL
}

// What every request says alike. Nothing writes to the slices.
var (
	contentType = []string{destination.ContentType}
	agent       = []string{userAgent}
)

// Close has nothing to end: the connections belong to all posters together.
func (p *poster) Close() error { return nil }

// Deliver posts the message once.
func (p *poster) Deliver(ctx context.Context, m destination.Message) delivery.Outcome {
	began := time.Now()
	var watch stopwatch
	x := destination.Observed(ctx)
	outcome := p.post(httptrace.WithClientTrace(ctx, watch.trace(x != nil)), m, x)
	outcome.Timings = watch.timings()
	outcome.Timings.Total = time.Since(began)
	if x != nil {
		x.Ended, x.EndedAfter = watch.ended()
		if wrote := watch.fields(); wrote != nil {
			x.RequestHeaders = wrote
		}
	}
	return outcome
}

// post makes the request. x is where whoever looks wants to see it, or nil.
func (p *poster) post(ctx context.Context, m destination.Message, x *destination.Exchange) delivery.Outcome {
	request := (&http.Request{
		Method: http.MethodPost, URL: p.url, Host: p.url.Host, Header: make(http.Header, 2+len(m.Headers)),
		Body: io.NopCloser(bytes.NewReader(m.Body)), ContentLength: int64(len(m.Body)),
		// A kept connection that breaks before anything was written is replaced, and
		// the body read again (http.Transport).
		GetBody: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(m.Body)), nil },
	}).WithContext(ctx)
	request.Header["Content-Type"] = contentType
	request.Header["User-Agent"] = agent
	values := make([]string, 0, len(m.Headers))
	for name, value := range m.Headers {
		// Not Header.Set: under its canonical name, an Idempotency-Key makes
		// net/http send a POST again by itself when a kept connection breaks
		// (Request.isReplayable). That would be an attempt that nobody recorded.
		// Header names are case-insensitive on the wire (RFC 9110, 5.1).
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
			// An answer that goes on for long costs its connection, nothing else. Closing
			// it ends the reading.
			stop := time.AfterFunc(drainTime, func() { _ = response.Body.Close() })
			defer stop.Stop()
			_, _ = io.CopyN(io.Discard, response.Body, maxBody)
		}
		return delivery.Outcome{Class: delivery.Success, Status: response.StatusCode}
	}
	// A body that breaks off tells as much as it tells; the status is the verdict.
	body, _ := io.ReadAll(io.LimitReader(response.Body, maxBody))
	return refused(response, body)
}

// window keeps the beginning of what is read through it.
type window struct{ x *destination.Exchange }

func (w *window) Write(b []byte) (int, error) {
	room := destination.MaxExchangeBodyBytes - len(w.x.Body)
	w.x.Truncated = w.x.Truncated || len(b) > room
	w.x.Body = append(w.x.Body, b[:min(len(b), room)]...)
	return len(b), nil
}

// fields lists headers by name.
func fields(h http.Header) []destination.Field {
	var list []destination.Field
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, value := range h[name] {
			list = append(list, destination.Field{Name: name, Value: value})
		}
	}
	return list
}

// refused reports an answer that is no success.
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

// classify reports a request that got no answer.
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
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return failed(delivery.Timeout, "the receiver did not answer in time")
	case errors.As(err, &name):
		if name.IsNotFound {
			return failed(delivery.DNS, "the host's name has no address: check the URL's spelling and the domain's DNS records")
		}
		return failed(delivery.DNS, "the host's name could not be looked up")
	case errors.As(err, &hostname):
		return failed(delivery.TLS, "the receiver's certificate is for another host name")
	case errors.As(err, &authority):
		return failed(delivery.TLS, "the receiver's certificate is not signed by a known authority: is it self-signed, or an intermediate certificate missing?")
	case errors.As(err, &invalid):
		if invalid.Reason == x509.Expired && invalid.Cert != nil {
			return failed(delivery.TLS, fmt.Sprintf("the receiver's certificate is valid from %s to %s only",
				invalid.Cert.NotBefore.UTC().Format(time.DateOnly), invalid.Cert.NotAfter.UTC().Format(time.DateOnly)))
		}
		return failed(delivery.TLS, "the receiver's certificate is not valid for a server")
	case errors.As(err, &verify):
		return failed(delivery.TLS, "the receiver's certificate could not be verified")
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return failed(delivery.TLS, "the receiver does not speak TLS on this port: is it an http:// address?")
	case alerted:
		return failed(delivery.TLS, "the receiver broke off the TLS handshake ("+tls.AlertError(alert).Error()+")")
	case errors.As(err, &timeout) && timeout.Timeout():
		return failed(delivery.Timeout, "the receiver did not answer in time")
	case errors.Is(err, syscall.ECONNREFUSED):
		return failed(delivery.Connect, "the connection was refused: nothing listens at this address and port")
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return failed(delivery.Connect, "the receiver broke the connection off")
	case errors.As(err, &dial) && dial.Op == "dial":
		return failed(delivery.Connect, "no connection could be made to the receiver")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return failed(delivery.Protocol, "the receiver closed the connection without an answer")
	}
	// What is left are net/http's own complaints about the answer.
	return failed(delivery.Protocol, "the receiver's answer is not valid HTTP")
}

// printable returns the beginning of a body, fit for a log line and a page.
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

// ParseRetryAfter reads a Retry-After header: seconds, or an HTTP date (RFC
// 9110, section 10.2.3). What is past, negative or nonsense is no wish: 0.
func ParseRetryAfter(header string, now time.Time) time.Duration {
	header = strings.TrimSpace(header)
	if seconds, err := strconv.ParseInt(header, 10, 64); err == nil {
		// More than a year is beyond every cap; as a duration it might overflow.
		return time.Duration(min(max(seconds, 0), 365*24*3600)) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil && at.After(now) {
		return min(at.Sub(now), 365*24*time.Hour)
	}
	return 0
}

// stopwatch takes an attempt's phases. Dials race (IPv4 and IPv6), and one that
// lost may still report when the attempt is over; hence the lock.
type stopwatch struct {
	mu                                   sync.Mutex
	dns, connect, tls, wrote             time.Time
	dnsTook, connectTook, tlsTook, first time.Duration

	phase   destination.Phase // the latest that has begun
	phaseAt time.Time
	sent    []destination.Field // the headers as they were written, where somebody looks
}

// phases are in their order: an attempt goes forward only.
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

// ended returns the phase that was reached, and how long it has gone on.
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
