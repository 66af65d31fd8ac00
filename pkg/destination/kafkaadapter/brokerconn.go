package kafkaadapter

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/guard"
)

// maxResponse is the maximum size of a broker's response in bytes. The largest one is the
// metadata of one topic: it is enough for ten thousand partitions.
const maxResponse = 512 * 1024

// dialer opens connections to brokers and knows those that are open.
type dialer struct {
	guard *guard.Guard
	tls   *tls.Config // nil for none

	mu     sync.Mutex
	closed bool
	open   map[*brokerConn]struct{}

	failed   error // how the latest connection that a broker broke ended
	failedAt time.Time
}

// failure returns how the latest connection that a broker broke since then ended, or nil.
// kafka-go tries again until the context ends, and then reports only that.
func (d *dialer) failure(since time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failedAt.Before(since) {
		return nil
	}
	return d.failed
}

// dial connects through the guard, performs the TLS handshake and returns a brokerConn.
func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	raw, err := d.guard.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &brokerConn{Conn: raw, dialer: d}
	d.mu.Lock()
	closed := d.closed
	if !closed {
		if d.open == nil {
			d.open = map[*brokerConn]struct{}{}
		}
		d.open[c] = struct{}{}
	}
	d.mu.Unlock()
	if closed {
		_ = raw.Close()
		return nil, net.ErrClosed
	}
	if d.tls == nil {
		return c, nil
	}
	secure, err := destination.Handshake(ctx, raw, address, d.tls)
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	c.Conn = secure
	return c, nil
}

// note keeps an error, unless it is a deadline's or our own close.
func (d *dialer) note(err error) {
	var timeout net.Error
	if errors.Is(err, net.ErrClosed) || errors.As(err, &timeout) && timeout.Timeout() {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failed, d.failedAt = err, time.Now()
}

// close closes all connections, and those that are being opened.
func (d *dialer) close() {
	d.mu.Lock()
	d.closed = true
	open := d.open
	d.open = nil
	d.mu.Unlock()
	for c := range open {
		_ = c.Conn.Close()
	}
}

// brokerConn is a connection to a broker that passes on only whole, well-formed
// responses. kafka-go's decoder trusts the lengths in a response: a negative or a huge
// one panics or takes gigabytes, in a goroutine of kafka-go's, which ends the process. kmsg
// decodes the same bytes safely. kafka-go sends one request at a time on a connection.
type brokerConn struct {
	net.Conn
	dialer *dialer

	// of the request under way
	left    int // bytes of it that are still to be written
	key     int16
	version int16

	checked bytes.Reader // the rest of the response that may be read
}

var errMalformed = errors.New("the broker's response is malformed")

func (c *brokerConn) Close() error {
	c.dialer.mu.Lock()
	delete(c.dialer.open, c)
	c.dialer.mu.Unlock()
	return c.Conn.Close()
}

// Write notes which request is sent: size, API key, version.
func (c *brokerConn) Write(b []byte) (int, error) {
	if c.left <= 0 && len(b) >= 8 {
		c.left = 4 + int(binary.BigEndian.Uint32(b))
		c.key, c.version = int16(binary.BigEndian.Uint16(b[4:])), int16(binary.BigEndian.Uint16(b[6:]))
	}
	n, err := c.Conn.Write(b)
	c.left -= n
	return n, err
}

func (c *brokerConn) Read(b []byte) (int, error) {
	if c.checked.Len() == 0 {
		response, err := c.response()
		if err != nil {
			c.dialer.note(err)
			return 0, err
		}
		c.checked.Reset(response)
	}
	return c.checked.Read(b)
}

// response reads a response with its length and checks it.
func (c *brokerConn) response() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(c.Conn, head[:]); err != nil {
		return nil, err
	}
	size := int32(binary.BigEndian.Uint32(head[:]))
	if size < 0 || size > maxResponse {
		return nil, fmt.Errorf("%w: its length is %d", errMalformed, size)
	}
	// The buffer grows with what arrives, not with what is announced.
	var whole bytes.Buffer
	whole.Write(head[:])
	if n, err := io.CopyN(&whole, c.Conn, int64(size)); err != nil {
		if errors.Is(err, io.EOF) && n > 0 {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return whole.Bytes(), check(whole.Bytes()[4:], c.key, c.version)
}

// check decodes a response to the request, without its length. Requests of other kinds
// than those that an attempt makes have no response to check: a SASL exchange with brokers
// before 1.0 is not framed as a request.
func check(response []byte, key, version int16) error {
	var r kmsg.Response
	switch key {
	case 0:
		r = kmsg.NewPtrProduceResponse()
	case 3:
		r = kmsg.NewPtrMetadataResponse()
	case 17:
		r = kmsg.NewPtrSASLHandshakeResponse()
	case 18:
		r = kmsg.NewPtrApiVersionsResponse()
	case 36:
		r = kmsg.NewPtrSASLAuthenticateResponse()
	default:
		return nil
	}
	r.SetVersion(version)
	if len(response) < 4 { // the correlation ID
		return fmt.Errorf("%w: it has no correlation ID", errMalformed)
	}
	body := response[4:]
	if r.IsFlexible() && key != 18 {
		// The header has tagged fields, of which none is defined.
		if len(body) == 0 || body[0] != 0 {
			return fmt.Errorf("%w: its header has unknown fields", errMalformed)
		}
		body = body[1:]
	}
	if err := r.ReadFrom(body); err != nil {
		return fmt.Errorf("%w: %w", errMalformed, err)
	}
	return nil
}
