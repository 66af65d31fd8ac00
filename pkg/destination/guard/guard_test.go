package guard_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/destination/guard"
	"github.com/tidings-dev/tidings/test/guardtest"
)

func TestHostileAddressesAreBlocked(t *testing.T) {
	g := guard.New(guard.Options{AllowHTTP: true})
	for _, host := range guardtest.Hosts() {
		t.Run(host, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			conn, err := g.DialContext(ctx, "tcp", host+":80")
			if conn != nil {
				conn.Close()
			}
			var blocked *guard.BlockedError
			if !errors.As(err, &blocked) {
				t.Errorf("dial: %v, want it blocked", err)
			}
			u := &url.URL{Scheme: "https", Host: host}
			if err := g.CheckURL(u); !errors.As(err, &blocked) {
				t.Errorf("CheckURL: %v, want it blocked", err)
			}
		})
	}
}

func TestCheckURL(t *testing.T) {
	strict := guard.New(guard.Options{})
	for raw, allowed := range map[string]bool{
		"https://example.com/hook":                     true,
		"https://example.com:8443/a?b=c":               true,
		"https://xn--bcher-kva.example/":               true,
		"https://bücher.example/":                      false, // must be Punycode, so that the checked name is the resolved one
		"https://93.184.215.14/":                       true,
		"https://[2606:2800:21f:cb07::1]/":             true,
		"http://example.com/":                          false, // not encrypted
		"https://user:secret@example.com/":             false,
		"https://example.com/#fragment":                false,
		"https://example.com:0/":                       false,
		"https://example.com:65536/":                   false,
		"https://example.com:/":                        false,
		"https:///path":                                false,
		"https://localhost/":                           false,
		"https://a.LOCALHOST./":                        false,
		"https://2130706433/":                          false, // 127.0.0.1 as an integer
		"https://0x7f000001/":                          false,
		"https://0x7f.1/":                              false,
		"https://017700000001/":                        false,
		"https://127.1/":                               false,
		"https://0177.0.0.1/":                          false,
		"https://1.2.3.4.5/":                           false,
		"https://169.254.169.254./":                    false,
		"https://[fe80::1%25eth0]/":                    false,
		"https://[2606:2800:21f::1%25eth0]/":           false, // a zone names a local interface
		"https://example..com/":                        false,
		"https://" + strings.Repeat("a", 64) + ".com/": false,
	} {
		u, err := url.Parse(raw)
		if err == nil {
			err = strict.CheckURL(u)
		}
		if (err == nil) != allowed {
			t.Errorf("%s: %v, want it allowed: %v", raw, err, allowed)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error repeats the password", raw)
		}
	}
}

func TestAllowedNetworksAreReached(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	g := guard.New(guard.Options{AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	conn, err := g.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	var blocked *guard.BlockedError
	if _, err := g.DialContext(t.Context(), "tcp", "169.254.169.254:80"); !errors.As(err, &blocked) {
		t.Errorf("allowing loopback also allows the metadata service: %v", err)
	}
}

// The name resolves to a public address when it is checked, and to loopback when it
// is dialled.
func TestDNSRebindingIsBlocked(t *testing.T) {
	victim, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer victim.Close()
	var connected atomic.Bool
	go func() {
		if conn, err := victim.Accept(); err == nil {
			connected.Store(true)
			conn.Close()
		}
	}()
	dns := guardtest.NewDNS(t)
	dns.Answer("rebind.example", []netip.Addr{netip.MustParseAddr("93.184.215.14")}, []netip.Addr{netip.MustParseAddr("127.0.0.1")})
	g := guard.New(guard.Options{}).WithResolver(dns.Resolver())
	u, err := url.Parse("https://rebind.example/")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.CheckURL(u); err != nil {
		t.Fatalf("a name is accepted before DNS: %v", err)
	}
	if found, err := dns.Resolver().LookupNetIP(t.Context(), "ip", "rebind.example"); err != nil || len(found) != 1 || found[0].String() != "93.184.215.14" {
		t.Fatalf("first lookup: %v, %v", found, err)
	}
	_, port, err := net.SplitHostPort(victim.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_, err = g.DialContext(t.Context(), "tcp", "rebind.example:"+port)
	var blocked *guard.BlockedError
	if !errors.As(err, &blocked) || connected.Load() {
		t.Errorf("dial: %v, connected: %v; want it blocked", err, connected.Load())
	}
	if blocked != nil && strings.Contains(blocked.Error(), "127.0.0.1") {
		t.Errorf("the error reveals the resolved address: %v", blocked)
	}
}

func TestParseNetworks(t *testing.T) {
	got, err := guard.ParseNetworks(" 10.0.0.7/16, fd00::/8 ,")
	if err != nil || len(got) != 2 || got[0].String() != "10.0.0.0/16" {
		t.Errorf("ParseNetworks = %v, %v", got, err)
	}
	if _, err := guard.ParseNetworks("10.0.0.1"); err == nil {
		t.Error("an address without a prefix length is accepted")
	}
}

// An address that is allowed and does not answer this time may answer the next time.
func TestAHostIsBlockedOnlyIfAllItsAddressesAre(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close() // nothing listens on it
	down, private := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("10.0.0.7")
	for name, c := range map[string]struct {
		addresses []netip.Addr
		blocked   bool
	}{
		"blocked first": {[]netip.Addr{private, down}, false},
		"blocked last":  {[]netip.Addr{down, private}, false},
		"all blocked":   {[]netip.Addr{private, netip.MustParseAddr("10.0.0.8")}, true},
	} {
		t.Run(name, func(t *testing.T) {
			dns := guardtest.NewDNS(t)
			dns.Answer("hooks.example", c.addresses)
			g := guard.New(guard.Options{AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}).WithResolver(dns.Resolver())
			_, err := g.DialContext(t.Context(), "tcp", fmt.Sprintf("hooks.example:%d", port))
			var blocked *guard.BlockedError
			if err == nil || errors.As(err, &blocked) != c.blocked {
				t.Errorf("error %v, want a BlockedError: %v", err, c.blocked)
			}
		})
	}
}
