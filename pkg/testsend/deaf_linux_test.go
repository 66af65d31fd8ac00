package testsend_test

import (
	"context"
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/testsend"
)

func TestDroppedConnectionTimesOut(t *testing.T) {
	l := newLab(t)
	l.endpoint.URL, l.endpoint.Timeout = "http://"+deaf(t), 400*time.Millisecond
	r := l.run()
	if r.Hint == nil || r.Hint.Code != testsend.HintConnectTimeout || r.Timings.Ended != destination.PhaseConnect || r.Timings.Connect < 200 {
		t.Errorf("report = %+v, hint %+v", r, r.Hint)
	}
}

// deaf returns an address that does not respond to SYN packets, like a firewall that
// drops them: the listener's accept queue is full.
func deaf(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
	for range 16 {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		cancel()
		if err != nil {
			return address // full
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	t.Fatal("the accept queue does not fill")
	return ""
}
