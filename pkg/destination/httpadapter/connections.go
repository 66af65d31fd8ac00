package httpadapter

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/pkg/destination"
)

const (
	// idleTime is how long a connection may be idle. It is shorter than the keep-alive
	// time of common servers (5 s in Node.js), because a frozen function does not notice
	// that a server has closed a connection.
	idleTime = 4 * time.Second
	// pingAfter and pingTimeout find HTTP/2 connections that are dead without a FIN, while
	// requests are under way.
	pingAfter   = 5 * time.Second
	pingTimeout = 2 * time.Second
	// dialTime bounds a dial, which http.Transport does not end with the request that
	// asked for it. It is the maximum of an endpoint's timeout.
	dialTime = 30 * time.Second
	// lateAnswerTime is how long a failed write waits for a response: a receiver may
	// answer before it has read the request, and close the connection.
	lateAnswerTime = 250 * time.Millisecond
	// maxHead is the number of bytes of a response that are kept to find its status line.
	maxHead = 8 * 1024
	// maxHeaders is the maximum size of a response's headers in bytes. On HTTP/1, the
	// status line decides whatever their size; on HTTP/2, net/http reports no status of a
	// response whose headers are longer.
	maxHeaders = 256 * 1024
)

// connections are the connections to one endpoint. A connection that may be dead is not
// used again, and neither are those that were opened at the same time: what silently
// drops one connection (a proxy, a NAT gateway, a frozen function) drops them all.
type connections struct {
	options Options

	mu      sync.Mutex
	current *pool

	pause destination.Pause
}

func newConnections(o Options) *connections {
	return &connections{options: o, current: newPool(o), pause: destination.Pause{Now: o.Now}}
}

// acquire returns the pool for an attempt that begins now: a new one after a pause. To
// close the idle connections of the old one would be too early: net/http may not yet know
// that a connection whose response was read is idle. The caller releases it.
func (c *connections) acquire() *pool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pause.Exceeds(idleTime) {
		if c.current.users == 0 {
			c.current.close()
		}
		c.current = newPool(c.options)
	}
	c.current.users++
	return c.current
}

// release ends an attempt. If its connection is suspect, later attempts use a new pool;
// attempts under way keep the old one, and the last of them closes it.
func (c *connections) release(p *pool, suspect bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.users--
	if suspect && c.current == p {
		c.current = newPool(c.options)
	}
	if c.current != p {
		p.transport.CloseIdleConnections()
		if p.users == 0 {
			p.close()
		}
	}
}

// close closes all connections, also those of an attempt that did not end.
func (c *connections) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current.close()
}

// pool is a set of connections that were opened at about the same time.
type pool struct {
	transport *http.Transport
	users     int // attempts under way; guarded by the connections' mu

	options Options
	tls     *tls.Config
	closed  context.Context // ends when the pool is closed
	end     context.CancelFunc
}

func newPool(o Options) *pool {
	p := &pool{options: o, tls: &tls.Config{RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}}
	if o.certificate != nil {
		// Whatever authorities the receiver names: their list is often incomplete.
		p.tls.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return o.certificate(), nil }
	}
	p.closed, p.end = context.WithCancel(context.Background())
	p.transport = &http.Transport{
		DialContext:            p.dial,
		DialTLSContext:         p.dialTLS,
		Proxy:                  nil,  // a proxy would bypass the guard
		ForceAttemptHTTP2:      true, // a custom dialer disables it by default
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout, WriteByteTimeout: pingAfter},
		DisableCompression:     true, // avoids decompression bombs; bodies are only shown
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    maxIdle,
		IdleConnTimeout:        idleTime,
		MaxResponseHeaderBytes: maxHeaders,
	}
	return p
}

// close closes all connections and ends all dials. http.Transport alone does not close a
// connection that it waits for, such as one whose server does not answer a PING.
func (p *pool) close() {
	p.end()
	p.transport.CloseIdleConnections()
}

// open connects through the guard. The pool's end closes the connection.
func (p *pool) open(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := p.options.Guard.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &pooledConn{Conn: conn, forget: context.AfterFunc(p.closed, func() { _ = conn.Close() })}, nil
}

// pooledConn is a connection that its pool closes at the pool's end.
type pooledConn struct {
	net.Conn
	forget func() bool
}

func (c *pooledConn) Close() error {
	c.forget()
	return c.Conn.Close()
}

// dialTimeout returns the context of a dial, which http.Transport does not end with the
// request that asked for it.
func (p *pool) dialTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	forget := context.AfterFunc(p.closed, cancel)
	return ctx, func() {
		forget()
		cancel()
	}
}

// dial opens a connection without TLS.
func (p *pool) dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := p.dialTimeout(ctx)
	defer cancel()
	conn, err := p.open(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return newAnswerConn(conn), nil
}

// dialTLS does what http.Transport does, except that a connection for HTTP/1 is an
// answerConn. For HTTP/2, http.Transport needs the *tls.Conn itself.
func (p *pool) dialTLS(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := p.dialTimeout(ctx)
	defer cancel()
	raw, err := p.open(ctx, network, address)
	if err != nil {
		return nil, err
	}
	conn, err := destination.Handshake(ctx, raw, address, p.tls)
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	if conn.ConnectionState().NegotiatedProtocol == "h2" {
		return conn, nil
	}
	return newAnswerConn(conn), nil
}

// answerConn is an HTTP/1 connection that remembers the beginning of the latest
// response. The status line decides about an attempt, and net/http does not tell it if
// what follows is malformed, too long or missing.
type answerConn struct {
	net.Conn

	mu       sync.Mutex
	head     []byte
	status   int           // of the final status line; 0 before it has arrived
	answered chan struct{} // closed when status is set
}

func newAnswerConn(conn net.Conn) *answerConn {
	return &answerConn{Conn: conn, answered: make(chan struct{})}
}

// begin forgets the previous response.
func (c *answerConn) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.head = c.head[:0]
	if c.status != 0 {
		c.status, c.answered = 0, make(chan struct{})
	}
}

func (c *answerConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status == 0 && n > 0 {
		c.head = append(c.head, b[:min(n, maxHead-len(c.head))]...)
		if c.status = finalStatus(c.head); c.status != 0 {
			close(c.answered)
		}
	}
	return n, err
}

// Write waits for a response if it fails: net/http would report the failed write and
// discard a response that is about to arrive.
func (c *answerConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err != nil {
		c.mu.Lock()
		answered := c.answered
		c.mu.Unlock()
		wait := time.NewTimer(lateAnswerTime)
		defer wait.Stop()
		select {
		case <-answered:
		case <-wait.C:
		}
	}
	return n, err
}

// answer returns the status of the response under way; 0 if there is none yet.
func (c *answerConn) answer() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

// finalStatus returns the status of the first response in the text that is not
// informational (RFC 9110, section 15.2), and 0 if there is no whole status line of one.
// 101 is final: after it, the connection speaks another protocol.
func finalStatus(text []byte) int {
	for {
		line, rest, whole := bytes.Cut(text, []byte("\n"))
		if !whole {
			return 0
		}
		status := statusOf(line)
		if status < 100 || status > 199 || status == http.StatusSwitchingProtocols {
			return status
		}
		// Skip the informational response's headers, up to the empty line.
		for {
			if line, rest, whole = bytes.Cut(rest, []byte("\n")); !whole {
				return 0
			}
			if len(bytes.TrimSuffix(line, []byte("\r"))) == 0 {
				break
			}
		}
		text = rest
	}
}

// statusOf parses a status line (RFC 9112, section 4): 0 if it is not one.
func statusOf(line []byte) int {
	version, after, ok := bytes.Cut(bytes.TrimSuffix(line, []byte("\r")), []byte(" "))
	if !ok || len(version) != len("HTTP/1.1") || !bytes.HasPrefix(version, []byte("HTTP/1.")) {
		return 0
	}
	code, _, _ := bytes.Cut(after, []byte(" "))
	status, err := strconv.Atoi(string(code))
	if err != nil || len(code) != 3 || status < 100 {
		return 0
	}
	return status
}
