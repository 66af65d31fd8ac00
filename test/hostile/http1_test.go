//go:build rig

package hostile_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
)

// tcpBehaviours need no protocol.
func tcpBehaviours() []behaviour {
	list := []behaviour{
		{name: "accepts and is silent", serve: (*conn).silent, want: classes(delivery.Timeout)},
		{name: "accepts and never reads", serve: func(c *conn) {
			_ = c.raw.SetReadBuffer(1024)
			time.Sleep(c.limit() + c.grace()) // the time of the attempt, without a byte
		}, want: classes(delivery.Timeout)},
		{name: "closes at once", serve: func(*conn) {}, want: but(classes(delivery.Protocol, delivery.Connect, delivery.Timeout), httpsH1, delivery.Protocol, delivery.Connect, delivery.TLS)},
		{name: "resets at once", serve: (*conn).reset, want: but(classes(delivery.Protocol, delivery.Connect, delivery.Timeout), httpsH1, delivery.Connect, delivery.TLS)},
		{name: "closes its sending side and reads on", serve: func(c *conn) {
			_ = c.raw.CloseWrite()
			c.silent()
		}, want: classes(delivery.Protocol, delivery.Connect, delivery.Timeout)},
		{name: "speaks SSH", serve: func(c *conn) {
			c.send("SSH-2.0-OpenSSH_9.9\r\n")
			c.silent()
		}, want: but(but(classes(delivery.Protocol), kafka, delivery.Protocol, delivery.Connect, delivery.Timeout), pubsub, delivery.Connect, delivery.Protocol, delivery.Timeout)},
		{name: "drips bytes without meaning", serve: func(c *conn) { c.drip("\x00\x01\x02") }, want: classes(delivery.Timeout, delivery.Protocol, delivery.Connect)},
		{name: "sends garbage for ever", serve: func(c *conn) { c.forever("\xff\xfe\x00garbage") }, want: classes(delivery.Timeout, delivery.Protocol, delivery.Connect)},
		{name: "sends zeros for ever", serve: func(c *conn) { c.forever("\x00") }, want: classes(delivery.Timeout, delivery.Protocol, delivery.Connect)},
		{name: "sends line feeds for ever", serve: func(c *conn) { c.forever("\n") }, want: classes(delivery.Timeout, delivery.Protocol, delivery.Connect)},
	}
	for i := range list {
		list[i].layer, list[i].on = "TCP", schemes
	}
	return list
}

func tlsBehaviours() []behaviour {
	failure := func() map[string][]delivery.Class {
		return but(classes(delivery.TLS), kafka, delivery.TLS, delivery.Protocol, delivery.Connect)
	}
	list := []behaviour{
		{name: "never answers the ClientHello", beforeTLS: true, serve: (*conn).silent, want: classes(delivery.Timeout)},
		{name: "stops in the middle of the handshake", beforeTLS: true, serve: func(c *conn) {
			// Only the first 300 bytes of the server's flight arrive.
			_ = tls.Server(&throttled{Conn: c.Conn, left: 300}, c.tls).Handshake()
		}, want: classes(delivery.Timeout)},
		{name: "drips the handshake", beforeTLS: true, serve: func(c *conn) { c.drip("\x16\x03\x03\x40\x00\x02") }, want: classes(delivery.Timeout, delivery.TLS, delivery.Protocol, delivery.Connect)},
		{name: "closes in the middle of the handshake", beforeTLS: true, serve: func(c *conn) {
			_, _ = c.in.Peek(100)
		}, want: classes(delivery.Protocol, delivery.Connect)},
		{name: "resets in the middle of the handshake", beforeTLS: true, serve: func(c *conn) {
			_, _ = c.in.Peek(100)
			c.reset()
		}, want: classes(delivery.Connect, delivery.Protocol)},
		{name: "sends a fatal alert instead of a ServerHello", beforeTLS: true, serve: func(c *conn) {
			_, _ = c.in.Peek(100)
			c.send("\x15\x03\x03\x00\x02\x02\x28")
			c.silent()
		}, want: failure()},
		{name: "sends alerts for ever", beforeTLS: true, serve: func(c *conn) { c.forever("\x15\x03\x03\x00\x02\x01\x5a") }, want: classes(delivery.TLS, delivery.Protocol, delivery.Connect)},
		{name: "answers the ClientHello in plain HTTP", beforeTLS: true, serve: func(c *conn) {
			_, _ = c.in.Peek(100)
			c.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
			c.silent()
		}, want: failure()},
		{name: "sends an oversized record", beforeTLS: true, serve: func(c *conn) {
			_, _ = c.in.Peek(100)
			c.send("\x16\x03\x03\xff\xff" + strings.Repeat("x", 70000))
			c.silent()
		}, want: classes(delivery.TLS, delivery.Protocol, delivery.Connect)},
		{name: "has a self-signed certificate", tls: func(t *tls.Config) { t.Certificates = []tls.Certificate{selfSigned()} }, serve: (*conn).silent, want: failure()},
		{name: "speaks only TLS 1.0", tls: func(t *tls.Config) { t.MinVersion, t.MaxVersion = tls.VersionTLS10, tls.VersionTLS10 }, serve: (*conn).silent, want: failure()},
		{name: "requires a client certificate", tls: func(t *tls.Config) { t.ClientAuth = tls.RequireAnyClientCert }, serve: (*conn).silent,
			// The reset that follows may overtake the alert.
			want: classes(delivery.TLS, delivery.Connect, delivery.Protocol)},
		{name: "closes after the handshake", serve: func(c *conn) { _ = c.Conn.(*tls.Conn).Handshake() }, want: classes(delivery.Protocol, delivery.Connect)},
		{name: "is silent after the handshake", serve: func(c *conn) {
			_ = c.Conn.(*tls.Conn).Handshake()
			time.Sleep(c.limit() + c.grace()) // the time of the attempt
		}, want: classes(delivery.Timeout)},
		{name: "sends plain text after the handshake", serve: func(c *conn) {
			_ = c.Conn.(*tls.Conn).Handshake()
			_, _ = c.raw.Write([]byte("HTTP/1.1 200 OK\r\n\r\n"))
			c.silent()
		}, want: classes(delivery.TLS, delivery.Protocol, delivery.Connect)},
		{name: "negotiates another protocol than it speaks", serve: func(c *conn) {
			if c.scheme == httpsH1 {
				c.send("\x00\x00\x00\x04\x00\x00\x00\x00\x00") // HTTP/2 SETTINGS
			} else {
				c.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}
			c.silent()
		}, want: but(but(classes(delivery.Protocol), httpsH1, delivery.Protocol, delivery.Timeout), kafka, delivery.Timeout, delivery.Protocol, delivery.Connect)},
	}
	for i := range list {
		list[i].layer, list[i].on = "TLS", overTLS
	}
	return list
}

// request reads one HTTP/1 request and its body, and counts it.
func (c *conn) request() bool {
	r, err := http.ReadRequest(c.in)
	if err != nil {
		return false
	}
	c.requests.Add(1)
	_, err = io.Copy(io.Discard, r.Body)
	return err == nil
}

// rest counts further requests on the connection until it is closed.
func (c *conn) rest() {
	for c.request() {
	}
}

// sent is what SQS answers to a message whose MD5 the SDK does not check.
const sent = `{"MessageId":"m"}`

// http1Behaviours begin after one request, unless they say so.
func http1Behaviours() []behaviour {
	says := func(text string) func(*conn) {
		return func(c *conn) {
			if c.request() {
				c.send(text)
				c.rest()
			}
		}
	}
	thenCloses := func(text string) func(*conn) {
		return func(c *conn) {
			if c.request() {
				c.send(text)
			}
		}
	}
	after := func(then func(*conn)) func(*conn) {
		return func(c *conn) {
			if c.request() {
				then(c)
			}
		}
	}
	// SQS accepts a message only with a body that says so.
	success := func() map[string][]delivery.Class {
		return but(classes(delivery.Success), sqs, delivery.Protocol, delivery.Timeout, delivery.Connect)
	}
	answered := func() map[string][]delivery.Class { return classes(delivery.Answered) }
	broken := func() map[string][]delivery.Class { return classes(delivery.Protocol) }
	list := []behaviour{
		{name: "reads the request and is silent", serve: after((*conn).silent), want: classes(delivery.Timeout)},
		{name: "reads half of the request and is silent", serve: func(c *conn) {
			_ = c.raw.SetReadBuffer(1024)
			_, _ = c.in.Peek(500)
			c.requests.Add(1)
			time.Sleep(c.limit() + c.grace()) // the time of the attempt
		}, want: classes(delivery.Timeout)},
		{name: "reads half of the request and closes", serve: func(c *conn) {
			_, _ = c.in.Peek(500)
			c.requests.Add(1)
		}, want: classes(delivery.Protocol, delivery.Connect)},
		{name: "reads half of the request and resets", serve: func(c *conn) {
			_, _ = c.in.Peek(500)
			c.requests.Add(1)
			c.reset()
		}, want: classes(delivery.Connect, delivery.Protocol)},
		{name: "closes without a response", serve: after(func(*conn) {}), want: broken()},
		{name: "resets without a response", serve: after((*conn).reset), want: classes(delivery.Connect)},
		{name: "switches protocols (101) and keeps the connection", serve: says("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"), want: answered()},
		{name: "switches protocols (101) and drips", serve: after(func(c *conn) {
			c.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
			c.drip("frame")
		}), want: answered()},
		{name: "sends 101 without Upgrade", serve: says("HTTP/1.1 101 Switching Protocols\r\n\r\n"), want: answered()},
		{name: "sends 100 and is silent", serve: says("HTTP/1.1 100 Continue\r\n\r\n"), want: classes(delivery.Timeout)},
		{name: "sends 103 for ever", serve: after(func(c *conn) { c.forever("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n") }), want: classes(delivery.Protocol, delivery.Timeout)},
		{name: "drips 102 for ever", serve: after(func(c *conn) { c.drip("HTTP/1.1 102 Processing\r\n\r\n") }), want: classes(delivery.Protocol, delivery.Timeout)},
		{name: "drips the status line", serve: after(func(c *conn) { c.drip("HTTP/1.1 200 " + strings.Repeat("very ", 1000) + "OK\r\n\r\n") }), want: classes(delivery.Timeout)},
		{name: "closes in the status line", serve: thenCloses("HTTP/1.1 200"), want: broken()},
		{name: "sends an endless status line", serve: after(func(c *conn) {
			c.send("HTTP/1.1 200 ")
			c.forever("O")
		}), want: broken()},
		{name: "sends status 99", serve: says("HTTP/1.1 99 X\r\n\r\n"), want: broken()},
		{name: "sends status 1000", serve: says("HTTP/1.1 1000 X\r\n\r\n"), want: broken()},
		{name: "sends status 999", serve: says("HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n"), want: answered()},
		{name: "sends HTTP/0.9", serve: says("<html>ok</html>\r\n"), want: broken()},
		{name: "sends HTTP/3.0 in the status line", serve: says("HTTP/3.0 200 OK\r\n\r\n"), want: success()},
		{name: "2xx, then drips headers", serve: after(func(c *conn) {
			c.send("HTTP/1.1 200 OK\r\nX: ")
			c.drip("x")
		}), want: success()},
		{name: "2xx, then endless headers", serve: after(func(c *conn) {
			c.send("HTTP/1.1 200 OK\r\n")
			c.forever("X-More: and more\r\n")
		}), want: success()},
		{name: "2xx with 70 KB of headers", serve: says("HTTP/1.1 200 OK\r\n" + strings.Repeat("X-More: "+strings.Repeat("x", 1000)+"\r\n", 70) + "Content-Length: 0\r\n\r\n"), want: success()},
		{name: "2xx with a header without colon", serve: says("HTTP/1.1 200 OK\r\nno colon\r\n\r\n"), want: success()},
		{name: "2xx with NUL in a header", serve: says("HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 0\r\n\r\n"), want: success()},
		{name: "2xx with two lengths", serve: says("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx"), want: success()},
		{name: "2xx with a negative length", serve: says("HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"), want: success()},
		{name: "2xx with a length of 2^70", serve: says("HTTP/1.1 200 OK\r\nContent-Length: 1180591620717411303424\r\n\r\n"), want: success()},
		{name: "2xx with an unknown transfer encoding", serve: says("HTTP/1.1 200 OK\r\nTransfer-Encoding: rot13\r\n\r\n"), want: success()},
		{name: "2xx with a broken chunk", serve: says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), want: success()},
		{name: "2xx with a chunk of 2^64 bytes", serve: says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n"), want: success()},
		{name: "2xx with endless chunk extensions", serve: after(func(c *conn) {
			c.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;")
			c.forever("x")
		}), want: success()},
		{name: "2xx, then an endless body", serve: after(func(c *conn) {
			c.send("HTTP/1.1 200 OK\r\n\r\n")
			c.forever("fine ")
		}), want: success()},
		{name: "2xx, then drips the body", serve: after(func(c *conn) {
			c.send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
			c.drip("fine ")
		}), want: success()},
		{name: "2xx, then a body that hangs", serve: says("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfine"), want: success()},
		{name: "2xx, then closes in the body", serve: thenCloses("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfine"), want: success()},
		{name: "2xx, then resets in the body", serve: after(func(c *conn) {
			c.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfine")
			time.Sleep(20 * time.Millisecond) // so that the response arrives before the reset
			c.reset()
		}), want: success()},
		{name: "2xx with invalid gzip", serve: says("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope"), want: success()},
		{name: "2xx with more than it announced", serve: says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 500 Oops\r\n\r\n"), want: but(success(), sqs, delivery.Success, delivery.Protocol)},
		{name: "2xx with a body although 204", serve: says("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello"), want: but(success(), sqs, delivery.Success, delivery.Protocol)},
		{name: "2xx before the request, then silence", serve: func(c *conn) {
			c.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			c.rest()
		}, want: but(classes(delivery.Success, delivery.Protocol, delivery.Connect, delivery.Timeout), sqs, delivery.Success, delivery.Protocol, delivery.Connect, delivery.Timeout)},
		{name: "2xx with the request unread, then closes", serve: func(c *conn) {
			_, _ = c.in.Peek(300)
			c.requests.Add(1)
			c.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}, want: but(classes(delivery.Success), sqs, delivery.Success, delivery.Protocol, delivery.Connect)},
		{name: "413 with the request unread, then closes", serve: func(c *conn) {
			_, _ = c.in.Peek(300)
			c.requests.Add(1)
			c.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
		}, want: but(answered(), sqs, delivery.Answered, delivery.Protocol, delivery.Connect)},
		{name: "500 with an endless body", serve: after(func(c *conn) {
			c.send("HTTP/1.1 500 Oops\r\n\r\n")
			c.forever("oops ")
		}), want: but(answered(), sqs, delivery.Answered, delivery.Timeout, delivery.Protocol)},
		{name: "500, then drips the body", serve: after(func(c *conn) {
			c.send("HTTP/1.1 500 Oops\r\nContent-Length: 100000\r\n\r\n")
			c.drip("oops ")
		}), want: but(answered(), sqs, delivery.Answered, delivery.Timeout)},
		{name: "503 with a malformed header", serve: says("HTTP/1.1 503 Busy\r\nno colon\r\n\r\n"), want: but(answered(), sqs, delivery.Answered, delivery.Protocol)},
		{name: "429 with a Retry-After of 10^30 s", serve: says("HTTP/1.1 429 Slow\r\nRetry-After: 1000000000000000000000000000000\r\nContent-Length: 0\r\n\r\n"), want: but(classes(delivery.Throttled), sqs, delivery.Throttled, delivery.Answered)},
		{name: "redirects to itself", serve: says("HTTP/1.1 308 Permanent Redirect\r\nLocation: /hook\r\nContent-Length: 0\r\n\r\n"), want: but(classes(delivery.Redirect), sqs, delivery.Answered, delivery.Protocol)},
		{name: "asks for a login", serve: says("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Negotiate\r\nContent-Length: 0\r\n\r\n"), want: but(answered(), sqs, delivery.Answered)},
		{name: "408 on the idle connection, then closes", serve: func(c *conn) {
			if c.request() {
				c.send("HTTP/1.1 200 OK\r\nContent-Length: 17\r\nContent-Type: application/x-amz-json-1.0\r\n\r\n" + sent)
				c.send("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			}
		}, want: classes(delivery.Success)},
	}
	for i := range list {
		list[i].layer, list[i].on = "HTTP/1", http1
	}
	return list
}
