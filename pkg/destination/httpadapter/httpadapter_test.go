package httpadapter_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/guard"
	"github.com/tidings-dev/tidings/pkg/destination/httpadapter"
)

func router(roots *x509.CertPool) *destination.Router {
	g := guard.New(guard.Options{AllowHTTP: true, AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	return destination.NewRouter(10, httpadapter.Kind(httpadapter.Options{Guard: g, RootCAs: roots}))
}

var message = destination.Message{
	EventID: "01J", EventType: "user.posted_comment", Body: []byte(`{"t":"<&\u2028 Grüße 1e21"}`),
	Headers: map[string]string{"webhook-id": "01J", "webhook-timestamp": "1", "webhook-signature": "v1,x", "idempotency-key": "01J"},
}

func deliver(t *testing.T, r *destination.Router, url string, timeout time.Duration) delivery.Outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	return r.Deliver(ctx, destination.Target{ID: "e", URL: url}, message)
}

func TestMessageArrivesUnchanged(t *testing.T) {
	var got *http.Request
	var body []byte
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
	}))
	defer server.Close()
	o := deliver(t, router(nil), server.URL+"/hook?x=1", 5*time.Second)
	if o.Class != delivery.Success || o.Status != 200 || o.Timings.Connect <= 0 || o.Timings.FirstByte <= 0 || o.Timings.Total < o.Timings.FirstByte {
		t.Errorf("outcome = %+v", o)
	}
	if !bytes.Equal(body, message.Body) {
		t.Errorf("body = %q", body)
	}
	if got.Method != "POST" || got.RequestURI != "/hook?x=1" || got.Header.Get("Content-Type") != "application/json" || got.Header.Get("Accept-Encoding") != "" {
		t.Errorf("request = %+v", got)
	}
	for name, value := range message.Headers {
		if got.Header.Get(name) != value {
			t.Errorf("%s = %q, want %q", name, got.Header.Get(name), value)
		}
	}
}

func TestStatuses(t *testing.T) {
	for _, c := range []struct {
		status int
		header [2]string
		class  delivery.Class
		after  time.Duration
	}{
		{200, [2]string{}, delivery.Success, 0},
		{204, [2]string{}, delivery.Success, 0},
		{299, [2]string{}, delivery.Success, 0},
		{301, [2]string{"Location", "/elsewhere"}, delivery.Redirect, 0},
		{302, [2]string{"Location", "/elsewhere"}, delivery.Redirect, 0},
		{307, [2]string{"Location", "/elsewhere"}, delivery.Redirect, 0},
		{400, [2]string{}, delivery.Answered, 0},
		{404, [2]string{}, delivery.Answered, 0},
		{410, [2]string{}, delivery.Gone, 0},
		{429, [2]string{"Retry-After", "17"}, delivery.Throttled, 17 * time.Second},
		{503, [2]string{"Retry-After", "5"}, delivery.Answered, 5 * time.Second},
		{599, [2]string{"Retry-After", "soon"}, delivery.Answered, 0},
	} {
		t.Run(fmt.Sprint(c.status), func(t *testing.T) {
			var requests atomic.Int32
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests.Add(1)
				if c.header[0] != "" {
					w.Header().Set(c.header[0], c.header[1])
				}
				w.WriteHeader(c.status)
				if c.status != 204 {
					fmt.Fprint(w, "why\x00 not\x1b[31m \xff")
				}
			}))
			defer server.Close()
			o := deliver(t, router(nil), server.URL, 5*time.Second)
			if o.Class != c.class || o.Status != c.status || o.RetryAfter != c.after || o.Permanent {
				t.Errorf("outcome = %+v", o)
			}
			if requests.Load() != 1 {
				t.Errorf("%d requests, want 1: redirects are not followed", requests.Load())
			}
			if c.class == delivery.Success && (o.Snippet != "" || o.Error != "") {
				t.Errorf("outcome of a success = %+v, want no error and no snippet", o)
			}
			if c.class != delivery.Success && (o.Snippet != "why not[31m \uFFFD" || o.Error == "") {
				t.Errorf("snippet %q, error %q", o.Snippet, o.Error)
			}
		})
	}
}

// raw serves one request per connection, for responses that net/http cannot send.
func raw(t *testing.T, serve func(conn net.Conn, request *http.Request)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				request, err := http.ReadRequest(bufio.NewReader(conn))
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, request.Body)
				serve(conn, request)
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// forever writes the text until the connection is closed.
func forever(conn net.Conn, text string) {
	for {
		if _, err := io.WriteString(conn, text); err != nil {
			return
		}
	}
}

// silent sends nothing and waits until the client closes the connection.
func silent(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

func TestMisbehavingReceivers(t *testing.T) {
	const timeout = 400 * time.Millisecond
	for name, c := range map[string]struct {
		serve func(net.Conn, *http.Request)
		class delivery.Class
	}{
		"never answers":             {func(conn net.Conn, _ *http.Request) { silent(conn) }, delivery.Timeout},
		"closes without a response": {func(net.Conn, *http.Request) {}, delivery.Protocol},
		"resets the connection": {func(conn net.Conn, _ *http.Request) {
			_ = conn.(*net.TCPConn).SetLinger(0)
		}, delivery.Connect},
		"does not speak HTTP":       {func(conn net.Conn, _ *http.Request) { io.WriteString(conn, "SSH-2.0-OpenSSH_9\r\n") }, delivery.Protocol},
		"closes during the headers": {func(conn net.Conn, _ *http.Request) { io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-") }, delivery.Protocol},
		"endless headers": {func(conn net.Conn, _ *http.Request) {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
			forever(conn, "X-More: and more\r\n")
		}, delivery.Protocol},
		"sends 100 and then hangs": {func(conn net.Conn, _ *http.Request) {
			io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n")
			silent(conn)
		}, delivery.Timeout},
		"sends 103 forever": {func(conn net.Conn, _ *http.Request) { forever(conn, "HTTP/1.1 103 Early Hints\r\n\r\n") }, delivery.Protocol},
		"sends its headers slowly": {func(conn net.Conn, _ *http.Request) {
			for _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nX: "); err == nil; _, err = io.WriteString(conn, "x") {
				time.Sleep(20 * time.Millisecond) // simulates a slow receiver; the test waits for nothing
			}
		}, delivery.Timeout},
		"fails with an endless body": {func(conn net.Conn, _ *http.Request) {
			io.WriteString(conn, "HTTP/1.1 500 Oops\r\n\r\n")
			forever(conn, "oops ")
		}, delivery.Answered},
		"fails with a body that hangs": {func(conn net.Conn, _ *http.Request) {
			io.WriteString(conn, "HTTP/1.1 500 Oops\r\nContent-Length: 100\r\n\r\noops")
			silent(conn)
		}, delivery.Answered},
		// After a 2xx status, nothing in the body can make it a failure.
		"succeeds with an endless body": {func(conn net.Conn, _ *http.Request) {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
			forever(conn, "fine ")
		}, delivery.Success},
		"succeeds with a body that hangs": {func(conn net.Conn, _ *http.Request) {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfine")
			silent(conn)
		}, delivery.Success},
		"succeeds and closes during the body": {func(conn net.Conn, _ *http.Request) {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfine")
		}, delivery.Success},
		"succeeds with broken chunks": {func(conn net.Conn, _ *http.Request) {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
		}, delivery.Success},
		"succeeds with invalid gzip": {func(conn net.Conn, _ *http.Request) {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope")
		}, delivery.Success},
	} {
		t.Run(name, func(t *testing.T) {
			url := raw(t, c.serve)
			began := time.Now()
			o := deliver(t, router(nil), url, timeout)
			if o.Class != c.class {
				t.Errorf("class = %s (%s), want %s", o.Class, o.Error, c.class)
			}
			if took := time.Since(began); took > timeout+300*time.Millisecond {
				t.Errorf("took %s, want at most %s", took, timeout)
			}
			if o.Permanent {
				t.Error("the failure is permanent, want it retried")
			}
		})
	}
}

func TestRefusedConnectionIsReported(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if o := deliver(t, router(nil), "http://"+l.Addr().String(), time.Second); o.Class != delivery.Connect {
		t.Errorf("outcome = %+v", o)
	}
}

func TestBlockedAddressFailsPermanently(t *testing.T) {
	if o := deliver(t, router(nil), "https://169.254.169.254/latest/meta-data", time.Second); !o.Permanent {
		t.Errorf("outcome = %+v", o)
	}
}

func TestBrokenReusedConnectionIsNotRetried(t *testing.T) {
	// net/http resends a POST with an Idempotency-Key when a reused connection breaks.
	// That attempt would not be recorded.
	var requests atomic.Int32
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				for n := 1; ; n++ {
					request, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, request.Body)
					requests.Add(1)
					if n > 1 {
						return // reads the second request on the connection and hangs up
					}
					io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				}
			}()
		}
	}()
	r := router(nil)
	url := "http://" + l.Addr().String()
	if o := deliver(t, r, url, time.Second); o.Class != delivery.Success {
		t.Fatalf("first: %+v", o)
	}
	if o := deliver(t, r, url, time.Second); o.Class == delivery.Success {
		t.Errorf("second: %+v, want a failure", o)
	}
	if requests.Load() != 2 {
		t.Errorf("%d requests for 2 deliveries", requests.Load())
	}
}

func certificate(t *testing.T, name string, from, to time.Time) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sheet := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: from, NotAfter: to, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(name); ip != nil {
		sheet.IPAddresses = []net.IP{ip}
	} else {
		sheet.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, sheet, sheet, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestCertificates(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		host     string
		from, to time.Time
		trusted  bool
		class    delivery.Class
		says     string
	}{
		"good":                  {"127.0.0.1", now.Add(-time.Hour), now.Add(time.Hour), true, delivery.Success, ""},
		"self-signed":           {"127.0.0.1", now.Add(-time.Hour), now.Add(time.Hour), false, delivery.TLS, "authority"},
		"for another host name": {"other.example", now.Add(-time.Hour), now.Add(time.Hour), true, delivery.TLS, "another host name"},
		"expired":               {"127.0.0.1", now.Add(-48 * time.Hour), now.Add(-24 * time.Hour), true, delivery.TLS, now.Add(-24 * time.Hour).UTC().Format(time.DateOnly)},
		"not yet valid":         {"127.0.0.1", now.Add(24 * time.Hour), now.Add(48 * time.Hour), true, delivery.TLS, "valid from"},
	} {
		t.Run(name, func(t *testing.T) {
			cert, pool := certificate(t, c.host, c.from, c.to)
			if !c.trusted {
				pool = x509.NewCertPool()
			}
			var proto string
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { proto = r.Proto }))
			server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
			server.EnableHTTP2 = true
			server.Config.ErrorLog = nil
			server.StartTLS()
			defer server.Close()
			o := deliver(t, router(pool), server.URL, 5*time.Second)
			if o.Class != c.class || !strings.Contains(o.Error, c.says) {
				t.Errorf("outcome = %+v, want %s saying %q", o, c.class, c.says)
			}
			if c.class == delivery.Success && (proto != "HTTP/2.0" || o.Timings.TLS <= 0) {
				t.Errorf("proto %s, timings %+v; want HTTP/2 and the duration of the handshake", proto, o.Timings)
			}
		})
	}
	t.Run("plain HTTP on the https port", func(t *testing.T) {
		server := httptest.NewServer(http.NotFoundHandler())
		defer server.Close()
		o := deliver(t, router(nil), strings.Replace(server.URL, "http:", "https:", 1), 5*time.Second)
		if o.Class != delivery.TLS {
			t.Errorf("outcome = %+v", o)
		}
	})
}

func TestConnectionsAreReusedAndNothingLeaks(t *testing.T) {
	before := runtime.NumGoroutine()
	var connections atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	r := router(nil)
	for range 200 {
		if o := deliver(t, r, server.URL, 5*time.Second); o.Class != delivery.Success {
			t.Fatalf("outcome = %+v", o)
		}
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("200 sequential deliveries opened %d connections, want 1", n)
	}
	const workers = 20
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for range 10 {
				deliver(t, r, server.URL, 5*time.Second)
			}
		})
	}
	all.Wait()
	if n := connections.Load(); n > 2*workers {
		t.Errorf("%d workers opened %d connections", workers, n)
	}
	server.Close()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before+2; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines after Close, %d before", runtime.NumGoroutine(), before)
		}
	}
}

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 29, 12, 0, 0, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"":                                 0,
		"120":                              2 * time.Minute,
		" 7 ":                              7 * time.Second,
		"0":                                0,
		"-5":                               0,
		"1.5":                              0,
		"soon":                             0,
		"9223372036854775807":              365 * 24 * time.Hour,
		"99999999999999999999":             0,
		"Thu, 29 Jan 2026 12:01:00 GMT":    time.Minute,
		"Thu, 29 Jan 2026 11:59:00 GMT":    0,
		"Thursday, 29-Jan-26 12:01:00 GMT": time.Minute,
	} {
		if got := httpadapter.ParseRetryAfter(header, now); got != want {
			t.Errorf("ParseRetryAfter(%q) = %s, want %s", header, got, want)
		}
	}
}
