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
	"github.com/tidings-dev/tidings/test/destinationtest"
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
	return "http://" + destinationtest.Listen(t, func(conn net.Conn) {
		request, err := http.ReadRequest(bufio.NewReader(conn))
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, request.Body)
		serve(conn, request)
	})
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

// hang is how long nothing takes that ends, however busy the machine is.
const hang = 30 * time.Second

func TestMisbehavingReceivers(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for timeouts of 5 s")
	}
	// Long enough for every receiver that ends the attempt itself, also on a busy machine.
	const timeout = 5 * time.Second
	for name, c := range map[string]struct {
		serve func(net.Conn, *http.Request)
		class delivery.Class
	}{
		"never answers":             {func(conn net.Conn, _ *http.Request) { silent(conn) }, delivery.Timeout},
		"closes without a response": {func(net.Conn, *http.Request) {}, delivery.Protocol},
		"resets the connection": {func(conn net.Conn, _ *http.Request) {
			_ = conn.(*net.TCPConn).SetLinger(0)
		}, delivery.Connect},
		"does not speak HTTP": {func(conn net.Conn, _ *http.Request) { io.WriteString(conn, "SSH-2.0-OpenSSH_9\r\n") }, delivery.Protocol},
		"switches to another protocol": {func(conn net.Conn, _ *http.Request) {
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
			silent(conn)
		}, delivery.Answered},
		"closes in the status line": {func(conn net.Conn, _ *http.Request) { io.WriteString(conn, "HTTP/1.1 200") }, delivery.Protocol},
		"sends 100 and then hangs": {func(conn net.Conn, _ *http.Request) {
			io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n")
			silent(conn)
		}, delivery.Timeout},
		"sends 103 forever": {func(conn net.Conn, _ *http.Request) { forever(conn, "HTTP/1.1 103 Early Hints\r\n\r\n") }, delivery.Protocol},
		"fails with an endless body": {func(conn net.Conn, _ *http.Request) {
			io.WriteString(conn, "HTTP/1.1 500 Oops\r\n\r\n")
			forever(conn, "oops ")
		}, delivery.Answered},
		"fails with a body that hangs": {func(conn net.Conn, _ *http.Request) {
			io.WriteString(conn, "HTTP/1.1 500 Oops\r\nContent-Length: 100\r\n\r\noops")
			silent(conn)
		}, delivery.Answered},
		"fails with malformed headers": {func(conn net.Conn, _ *http.Request) { io.WriteString(conn, "HTTP/1.1 503 Busy\r\nno colon\r\n\r\n") }, delivery.Answered},
		// After a 2xx status line, nothing can make it a failure.
		"succeeds and closes during the headers": {func(conn net.Conn, _ *http.Request) { io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-") }, delivery.Success},
		"succeeds with endless headers": {func(conn net.Conn, _ *http.Request) {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
			forever(conn, "X-More: and more\r\n")
		}, delivery.Success},
		"succeeds and sends its headers slowly": {func(conn net.Conn, _ *http.Request) {
			for _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nX: "); err == nil; _, err = io.WriteString(conn, "x") {
				time.Sleep(20 * time.Millisecond) // simulates a slow receiver; the test waits for nothing
			}
		}, delivery.Success},
		"succeeds with a header without a colon": {func(conn net.Conn, _ *http.Request) { io.WriteString(conn, "HTTP/1.1 200 OK\r\nno colon\r\n\r\n") }, delivery.Success},
		"succeeds with two lengths": {func(conn net.Conn, _ *http.Request) {
			io.WriteString(conn, "HTTP/1.1 204 No Content\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n")
		}, delivery.Success},
		"succeeds with an invalid length": {func(conn net.Conn, _ *http.Request) {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n")
		}, delivery.Success},
		"succeeds after an informational response, with a header without a colon": {func(conn net.Conn, _ *http.Request) {
			io.WriteString(conn, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nno colon\r\n\r\n")
		}, delivery.Success},
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
			t.Parallel()
			url := raw(t, c.serve)
			began := time.Now()
			o := deliver(t, router(nil), url, timeout)
			if o.Class != c.class {
				t.Errorf("class = %s (%s), want %s", o.Class, o.Error, c.class)
			}
			if took := time.Since(began); took > timeout+hang {
				t.Errorf("took %s, want at most %s", took, timeout)
			}
			if o.Permanent {
				t.Error("the failure is permanent, want it retried")
			}
		})
	}
}

// A receiver may answer before it has read the request, and close the connection: the
// kernel then resets it while the request is still being written.
func TestAnEarlyAnswerCounts(t *testing.T) {
	for status, class := range map[int]delivery.Class{200: delivery.Success, 413: delivery.Answered} {
		for range 20 {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.ReadFull(conn, make([]byte, 512))
				fmt.Fprintf(conn, "HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n", status)
				_ = conn.Close() // most of the request is unread
			}()
			r := router(nil)
			body := bytes.Repeat([]byte("x"), 256<<10)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			o := r.Deliver(ctx, destination.Target{Tenant: "t", ID: "e", URL: "http://" + l.Addr().String()}, destination.Message{EventID: "e", Body: body})
			cancel()
			if o.Class != class || o.Status != status {
				t.Fatalf("status %d: outcome %+v", status, o)
			}
			_ = r.Close()
			_ = l.Close()
		}
	}
}

// A proxy or a NAT gateway can drop connections without telling either side. Each test
// has 12 idle connections; all are dropped, and new ones work.
func TestAfterOneTimeoutNoDeadConnectionIsUsed(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a timeout of 2 s")
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(server.Close)
	gate := destinationtest.NewGate(t, server.Listener.Addr().String())
	r := router(nil)
	url := "http://" + gate.Address
	var open sync.WaitGroup
	begin := make(chan struct{})
	for range 12 {
		open.Go(func() {
			<-begin
			if o := deliver(t, r, url, 5*time.Second); o.Class != delivery.Success {
				t.Errorf("before: %+v", o)
			}
		})
	}
	close(begin)
	open.Wait()
	gate.Drop()
	failed := 0
	for range 12 {
		if o := deliver(t, r, url, 2*time.Second); o.Class != delivery.Success {
			failed++
		}
	}
	if failed > 1 {
		t.Errorf("%d of 12 attempts failed, want at most 1", failed)
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
	address := destinationtest.Listen(t, func(conn net.Conn) {
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
	})
	r := router(nil)
	url := "http://" + address
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
	// Usually it is one. But net/http keeps a connection only if it knows within 50 ms that
	// the request was written, which a busy machine may not tell in time.
	if n := connections.Load(); n > 100 {
		t.Errorf("200 sequential deliveries opened %d connections", n)
	}
	// net/http begins to dial for each request that finds no idle connection, and
	// takes a connection that becomes idle first: how many it opens depends on the
	// scheduler. Without reuse it would be one per delivery.
	const workers, each = 20, 10
	connections.Store(0)
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for range each {
				deliver(t, r, server.URL, 5*time.Second)
			}
		})
	}
	all.Wait()
	if n := connections.Load(); n > workers*each/2 {
		t.Errorf("%d deliveries by %d workers opened %d connections", workers*each, workers, n)
	}
	server.Close()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(hang); runtime.NumGoroutine() > before+2; runtime.Gosched() {
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

// A request that HTTP cannot carry is our fault: nothing is sent, and no retry helps.
func TestAnUnsendableRequestIsInvalid(t *testing.T) {
	var requests atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	defer server.Close()
	for _, key := range []string{"a\nb", "a\r\nEvil: 1", "a\x00", "a\x7f", "a\x01"} {
		m := message
		m.Headers = map[string]string{"webhook-id": "01J", "idempotency-key": key}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		o := router(nil).Deliver(ctx, destination.Target{ID: "e", URL: server.URL}, m)
		cancel()
		if o.Class != delivery.Invalid || !o.Permanent || !strings.Contains(o.Error, "idempotency-key") || strings.Contains(o.Error, key) {
			t.Errorf("%q: %+v", key, o)
		}
	}
	if n := requests.Load(); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}
