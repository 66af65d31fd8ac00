package destinationtest

import (
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// Listen calls serve with each connection of a new listener on loopback, concurrently, and
// closes the connection afterwards. It returns the listener's address, host:port. The
// listener is closed at the end of the test.
func Listen(t testing.TB, serve func(net.Conn)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	return l.Addr().String()
}

// EndlessResponses are servers whose response has no end. No timeout of an http.Client ends
// reading the body of a 101 response, which is the connection; a dripping body, of the
// text, is as long as the server likes.
func EndlessResponses(text string) map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"switches protocols": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", "websocket")
			w.WriteHeader(http.StatusSwitchingProtocols)
			_ = http.NewResponseController(w).Flush()
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			_, _ = conn.Read(make([]byte, 1)) // until the client closes it
		},
		"drips": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = io.WriteString(w, text)
				_ = http.NewResponseController(w).Flush()
				time.Sleep(10 * time.Millisecond) // how slow the server is
			}
		},
	}
}
