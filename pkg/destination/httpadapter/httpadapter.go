// Package httpadapter delivers webhooks by HTTP POST. It promises that one Deliver
// sends at most one request (a second one after a 401, if the endpoint has OAuth2: the
// token may be revoked), that the whole attempt (DNS, connect, TLS, headers,
// body) ends with its context, that redirects are failures and are not followed,
// and that after a 2xx status nothing in the response body can make it a failure.
package httpadapter

import (
	"bytes"
	"cmp"
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

	"golang.org/x/net/http/httpguts"

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
	// Now is the clock for pauses between attempts; nil means time.Now.
	Now func() time.Time
	// Secrets reads client certificates. Nil has none.
	Secrets Secrets

	certificate func() *tls.Certificate // the client certificate; nil means none
}

// Secrets reads secrets by name.
type Secrets interface {
	Secret(ctx context.Context, name string) (string, error)
}

// Kind returns the HTTP protocol for a router. Each adapter has its own connections.
func Kind(o Options) destination.Kind {
	return destination.Kind{
		Schemes: []string{"https", "http"},
		Form:    form,
		Check: func(t destination.Target, u *url.URL) error {
			switch {
			case t.RoleARN != "":
				return errors.New("role_arn applies to SQS and Kafka, not to HTTP")
			case t.Credentials != "":
				return errors.New("credentials apply to Kafka, not to HTTP: receivers verify the signature, or auth says how to log in")
			case t.Ordered:
				return errors.New("ordered applies to Pub/Sub; HTTP has no ordering")
			}
			if u.Opaque != "" || u.Host == "" {
				return errors.New("the host is missing")
			}
			if err := o.Guard.CheckURL(u); err != nil {
				return err
			}
			if t.Auth != nil && !isPrivate(u) {
				return errors.New("auth needs https://: over http://, anybody on the way could read the secrets")
			}
			if t.Auth != nil && t.Auth.OAuth2 != nil {
				if err := checkTokenURL(o, t.Auth.OAuth2.TokenURL); err != nil {
					return &destination.FieldError{Field: "auth.oauth2", Err: err}
				}
			}
			if t.Auth != nil && t.Auth.ClientCertificate != "" && u.Scheme != "https" {
				return &destination.FieldError{Field: "auth.client_certificate", Err: errors.New("a client certificate needs https://")}
			}
			return nil
		},
		Open: func(t destination.Target, u *url.URL) (destination.Adapter, error) {
			p := &poster{url: u, method: cmp.Or(t.Method, http.MethodPost), auth: newAuth(t.Auth)}
			with := o
			if t.Auth != nil && t.Auth.ClientCertificate != "" {
				p.certificate = newCertificate(o, t.Auth.ClientCertificate)
				with.certificate = p.certificate.peek
			}
			p.connections = newConnections(with)
			if t.Auth != nil && t.Auth.OAuth2 != nil {
				p.tokens = newTokens(o, t.Auth.OAuth2, p.auth)
			}
			return p, nil
		},
	}
}

// poster posts to one URL. It uses a RoundTripper, not an http.Client, because it
// needs neither redirects nor cookies.
type poster struct {
	connections *connections
	url         *url.URL
	method      string
	auth        *auth                     // nil if requests have a signature only
	tokens      *shared[*auth]            // nil without OAuth2
	certificate *shared[*tls.Certificate] // nil without a client certificate
}

// Header values shared by all requests. They are never modified.
var (
	contentType = []string{"application/json"}
	agent       = []string{userAgent}
)

// Close closes the connections.
func (p *poster) Close() error {
	p.connections.close()
	return nil
}

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

// Deliver posts the message once, or twice with OAuth2 if the first token was refused.
func (p *poster) Deliver(ctx context.Context, m destination.Message) delivery.Outcome {
	if p.tokens == nil && p.certificate == nil {
		return p.request(ctx, m, p.auth)
	}
	began := time.Now()
	outcome := p.authenticated(ctx, m)
	outcome.Timings.Total = time.Since(began)
	return outcome
}

// request makes one request.
func (p *poster) request(ctx context.Context, m destination.Message, a *auth) delivery.Outcome {
	began := time.Now()
	var watch stopwatch
	x := destination.Observed(ctx)
	used := p.connections.acquire()
	suspect := true // if post panics
	defer func() { p.connections.release(used, suspect) }()
	outcome := p.post(httptrace.WithClientTrace(ctx, watch.trace(x != nil)), used.transport, &watch, m, a, x)
	outcome.Timings = watch.timings()
	outcome.Timings.Total = time.Since(began)
	phase, after := watch.ended()
	if outcome.Class == delivery.Timeout {
		outcome.Error += fmt.Sprintf(" after %s while %s", outcome.Timings.Total.Round(100*time.Millisecond), activity[phase])
		if phase == destination.PhaseDNS {
			outcome.Class = delivery.DNS // the name servers hang, not the receiver
		}
	}
	suspect = watch.suspect(outcome)
	if x != nil {
		x.Ended, x.EndedAfter = phase, after
		if wrote := watch.fields(); wrote != nil {
			x.RequestHeaders = wrote
		}
		a.hideIn(x)
	}
	return outcome
}

// errRepeat ends the repetition of a request by net/http.
var errRepeat = errors.New("the receiver refused the request before it processed it (HTTP/2 REFUSED_STREAM or GOAWAY)")

// post makes the request. It fills x unless it is nil.
func (p *poster) post(ctx context.Context, transport *http.Transport, watch *stopwatch, m destination.Message, a *auth, x *destination.Exchange) delivery.Outcome {
	request := (&http.Request{
		Method: p.method, URL: p.url, Host: p.url.Host, Header: make(http.Header, 2+len(m.Headers)+len(m.CloudEvent)),
		Body: io.NopCloser(bytes.NewReader(m.Body)), ContentLength: int64(len(m.Body)),
		// http.Transport uses GetBody when an idle HTTP/1 connection turns out to be
		// closed before anything was written. On HTTP/2, it would repeat a request that
		// the receiver has seen: a second attempt.
		GetBody: func() (io.ReadCloser, error) {
			if watch.usesHTTP2() {
				return nil, errRepeat
			}
			return io.NopCloser(bytes.NewReader(m.Body)), nil
		},
	}).WithContext(ctx)
	request.Header["Content-Type"] = contentType
	if m.ContentType != "" && m.ContentType != contentType[0] {
		request.Header["Content-Type"] = []string{m.ContentType}
	}
	request.Header["User-Agent"] = agent
	values := make([]string, 0, len(m.Headers))
	for name, value := range m.Headers {
		// Not Header.Set: with a canonical Idempotency-Key, net/http resends a POST
		// when a reused connection breaks (Request.isReplayable). That attempt would
		// not be recorded. Header names are case-insensitive (RFC 9110, section 5.1).
		values = append(values, value)
		request.Header[strings.ToLower(name)] = values[len(values)-1 : len(values) : len(values)]
	}
	for name, value := range m.CloudEventHeaders() {
		request.Header[name] = []string{value}
	}
	a.set(request.Header)
	if x != nil {
		x.Method, x.To = request.Method, p.url.String()
	}
	if bad := unsendable(request.Header); bad != "" {
		return delivery.Outcome{Class: delivery.Invalid, Permanent: true,
			Error: "nothing was sent: the header " + bad + " would have a character that HTTP does not allow"}
	}
	if x != nil {
		x.RequestHeaders = append([]destination.Field{{Name: "Host", Value: request.URL.Host}, {Name: "Content-Length", Value: strconv.Itoa(len(m.Body))}}, fields(request.Header)...)
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		err = watch.explain(err)
		if x != nil {
			x.Cause = err
		}
		if status := watch.answer(); status != 0 {
			return unread(status, err)
		}
		outcome := classify(err)
		if p.certificate != nil {
			p.mayBeRefused(&outcome, err, watch)
		}
		return outcome
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusSwitchingProtocols {
		// Its body is the connection, which does not end with the context.
		return refused(response, nil)
	}
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
	return refused(response, a.hide(body))
}

// unsendable returns the name of a header that net/http would refuse to send; "" if there
// is none. The refusal would be no fault of the receiver's.
func unsendable(h http.Header) string {
	for name, values := range h {
		if !httpguts.ValidHeaderFieldName(name) || slices.ContainsFunc(values, func(v string) bool { return !httpguts.ValidHeaderFieldValue(v) }) {
			return name
		}
	}
	return ""
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

const tooLong = "the response headers are longer than 256 KB"

// unread returns the outcome for a response of which only the status line could be read.
func unread(status int, err error) delivery.Outcome {
	why := "the rest of the response could not be read"
	switch text := err.Error(); {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		why = "the response headers did not end in time"
	case strings.Contains(text, "headers exceeded"):
		why = tooLong
	case strings.Contains(text, "malformed"):
		why = "the response headers are malformed"
	}
	if status >= 200 && status <= 299 {
		return delivery.Outcome{Class: delivery.Success, Status: status, Error: why}
	}
	o := refused(&http.Response{StatusCode: status}, nil)
	o.Error += "; " + why
	return o
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
	case status == http.StatusSwitchingProtocols:
		o.Error += ": a webhook receiver must not switch to another protocol"
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
	case errors.Is(err, errRepeat):
		return failed(delivery.Protocol, errRepeat.Error())
	}
	// The remaining errors are those of net/http about malformed responses. The text only
	// chooses the words.
	for _, known := range []struct{ text, sentence string }{
		{"GOAWAY", "the receiver closed the HTTP/2 connection (GOAWAY)"},
		{"stream error", "the receiver aborted the request (HTTP/2 RST_STREAM)"},
		{"client connection lost", "the connection was lost: the receiver did not answer an HTTP/2 ping"},
		{"connection lost", "the connection was lost"},
		{"header list larger", tooLong},
		{"headers exceeded", tooLong},
	} {
		if strings.Contains(err.Error(), known.text) {
			return failed(delivery.Protocol, known.sentence)
		}
	}
	return failed(delivery.Protocol, destination.NotHTTP)
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

	conn   *answerConn // nil before there is a connection, and for HTTP/2
	http2  *tls.Conn   // nil before there is a connection, and for HTTP/1
	reused bool
}

func (w *stopwatch) got(info httptrace.GotConnInfo) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conn, _ = info.Conn.(*answerConn)
	w.http2, _ = info.Conn.(*tls.Conn)
	w.reused = info.Reused
	if w.conn != nil {
		w.conn.begin()
	}
}

func (w *stopwatch) usesHTTP2() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.http2 != nil
}

// explain returns the alert with which the receiver ended a new HTTP/2 connection, where
// net/http only says that it ended. In TLS 1.3, a client learns after the handshake that its
// certificate is missing or refused.
func (w *stopwatch) explain(err error) error {
	w.mu.Lock()
	conn := w.http2
	w.mu.Unlock()
	if conn == nil || !strings.Contains(err.Error(), "client conn could not be established") {
		return err
	}
	// net/http has closed it, and nobody else has used it: Read returns its last error.
	_ = conn.SetReadDeadline(time.Unix(1, 0))
	_, why := conn.Read(make([]byte, 1))
	if _, alerted := destination.TLSAlert(why); alerted {
		return why
	}
	return err
}

// answer returns the status of the response that has begun to arrive; 0 if none has. It
// is known for HTTP/1 only.
func (w *stopwatch) answer() int {
	w.mu.Lock()
	conn := w.conn
	w.mu.Unlock()
	if conn == nil {
		return 0
	}
	return conn.answer()
}

// suspect reports whether the attempt's connection, and those that are as old, may be
// dead: it timed out (also while it was opened), or it was reused and broke.
func (w *stopwatch) suspect(o delivery.Outcome) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch o.Class {
	case delivery.Timeout:
		return true
	case delivery.Connect, delivery.Protocol:
		return w.reused
	}
	return false
}

// phases are the phases in order. An attempt never goes back to an earlier one.
var phases = []destination.Phase{"", destination.PhaseDNS, destination.PhaseConnect, destination.PhaseTLS, destination.PhaseSend, destination.PhaseResponse, destination.PhaseBody}

func (w *stopwatch) trace(headers bool) *httptrace.ClientTrace {
	begin := func(at *time.Time, phase destination.Phase) {
		w.mu.Lock()
		defer w.mu.Unlock()
		now := time.Now()
		if at != nil && at.IsZero() { // http.Transport reports the TLS handshake of HTTP/2 once more
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
		GotConn: func(info httptrace.GotConnInfo) {
			w.got(info)
			begin(nil, destination.PhaseSend)
		},
		WroteRequest: func(httptrace.WroteRequestInfo) { begin(&w.wrote, destination.PhaseResponse) },
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
