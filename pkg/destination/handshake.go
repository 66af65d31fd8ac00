package destination

import (
	"context"
	"crypto/tls"
	"net"
	"net/http/httptrace"
)

// Handshake performs the TLS handshake of a client on a connection to address, host:port,
// whose certificate must be for the host. It reports to the context's httptrace, if there
// is one. If it fails, the caller closes the connection.
func Handshake(ctx context.Context, raw net.Conn, address string, config *tls.Config) (*tls.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	config = config.Clone()
	config.ServerName = host
	conn := tls.Client(raw, config)
	trace := httptrace.ContextClientTrace(ctx)
	if trace != nil && trace.TLSHandshakeStart != nil {
		trace.TLSHandshakeStart()
	}
	err = conn.HandshakeContext(ctx)
	if trace != nil && trace.TLSHandshakeDone != nil {
		trace.TLSHandshakeDone(conn.ConnectionState(), err)
	}
	return conn, err
}
