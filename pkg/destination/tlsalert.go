package destination

import (
	"errors"
	"net"
	"reflect"
)

// TLSAlert returns the alert (RFC 8446, section 6) with which the peer closed a
// TLS connection, or false if err is something else. It needs reflection because
// crypto/tls does not export the type, a uint8 (tls.AlertError is for QUIC only).
func TLSAlert(err error) (uint8, bool) {
	for err != nil {
		var op *net.OpError
		if !errors.As(err, &op) {
			return 0, false
		}
		if op.Op == "remote error" {
			if v := reflect.ValueOf(op.Err); v.Kind() == reflect.Uint8 {
				return uint8(v.Uint()), true
			}
		}
		err = op.Err
	}
	return 0, false
}
