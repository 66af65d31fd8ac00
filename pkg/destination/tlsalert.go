package destination

import (
	"errors"
	"net"
	"reflect"
)

// TLSAlert returns the alert (RFC 8446, section 6) with which the other side
// ended a TLS connection, or false where err is none. crypto/tls keeps the type
// to itself, a uint8 with the alert's number; its AlertError is QUIC's.
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
