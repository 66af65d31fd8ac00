package guard_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/tidings-dev/tidings/pkg/guard"
)

// hostile are addresses of the IANA special-purpose registries, of the private
// corners of clouds, and the forms that hide them.
var hostile = []string{
	// IPv4: "this network", loopback, private, shared, link-local, metadata
	"0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.254", "127.0.0.1", "127.8.8.8",
	"169.254.0.1", "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255", "192.168.0.1", "192.168.255.255",
	// IETF protocol assignments, documentation, AS112, 6to4 relay, benchmarking, multicast, reserved, broadcast, Azure
	"192.0.0.1", "192.0.0.170", "192.0.2.1", "192.31.196.1", "192.52.193.1", "192.88.99.1", "192.175.48.1", "198.18.0.1", "198.19.255.255",
	"198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "168.63.129.16",
	// IPv6: unspecified, loopback, mapped, compatible, SIIT, NAT64 and its local form
	"[::]", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:10.0.0.1]", "[::ffff:169.254.169.254]", "[::127.0.0.1]", "[::ffff:0:127.0.0.1]",
	"[64:ff9b::7f00:1]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::1]",
	// discard, Teredo, benchmarking, ORCHID, documentation, 6to4, AS112, SRv6
	"[100::1]", "[2001::1]", "[2001:0:7f00:1::]", "[2001:2::1]", "[2001:10::1]", "[2001:20::1]", "[2001:db8::1]", "[3fff::1]", "[2002:7f00:1::1]",
	"[2002:a9fe:a9fe::1]", "[2620:4f:8000::1]", "[5f00::1]",
	// unique local, link-local, site-local, multicast, ISATAP, AWS's metadata
	"[fc00::1]", "[fd00:ec2::254]", "[fe80::1]", "[fec0::1]", "[ff02::1]", "[fe80::5efe:7f00:1]", "[::ffff:192.168.1.1]", "[64:ff9b::c0a8:101]", "[2002:c0a8:101::1]",
}

func TestNoHostileAddressIsConnectedTo(t *testing.T) {
	if len(hostile) < 60 {
		t.Fatalf("%d addresses, want at least 60", len(hostile))
	}
	g := guard.New(guard.Options{AllowHTTP: true})
	for _, host := range hostile {
		t.Run(host, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
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
		"https://2130706433/":                          false, // 127.0.0.1 as one number
		"https://0x7f000001/":                          false,
		"https://0x7f.1/":                              false,
		"https://017700000001/":                        false,
		"https://127.1/":                               false,
		"https://0177.0.0.1/":                          false,
		"https://1.2.3.4.5/":                           false,
		"https://169.254.169.254./":                    false,
		"https://[fe80::1%25eth0]/":                    false,
		"https://[2606:2800:21f::1%25eth0]/":           false, // a zone is always of this machine
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

func TestAnAllowedNetworkIsReached(t *testing.T) {
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
		t.Errorf("an allowance for loopback opens the metadata service: %v", err)
	}
}

// A name that answers with a public address when it is checked, and with
// loopback when it is dialled.
func TestAnAnswerThatChangesGainsNothing(t *testing.T) {
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
	var asked atomic.Int32
	g := guard.New(guard.Options{}).WithResolver(resolver(t, func() [4]byte {
		if asked.Add(1) == 1 {
			return [4]byte{93, 184, 215, 14}
		}
		return [4]byte{127, 0, 0, 1}
	}))
	u, err := url.Parse("https://rebind.example/")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.CheckURL(u); err != nil {
		t.Fatalf("the name alone is innocent: %v", err)
	}
	asked.Store(1) // the innocent answer has been given
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
		t.Errorf("the error tells what the name resolves to: %v", blocked)
	}
}

// resolver asks a DNS server of the test's own, which answers every A question.
func resolver(t *testing.T, answer func() [4]byte) *net.Resolver {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			var query dnsmessage.Message
			if query.Unpack(buf[:n]) != nil || len(query.Questions) == 0 {
				continue
			}
			q := query.Questions[0]
			reply := dnsmessage.Message{Header: dnsmessage.Header{ID: query.ID, Response: true}, Questions: query.Questions}
			if q.Type == dnsmessage.TypeA {
				reply.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
					Body:   &dnsmessage.AResource{A: answer()},
				}}
			}
			if packed, err := reply.Pack(); err == nil {
				_, _ = server.WriteTo(packed, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", server.LocalAddr().String())
	}}
}

func TestParseNetworks(t *testing.T) {
	got, err := guard.ParseNetworks(" 10.0.0.7/16, fd00::/8 ,")
	if err != nil || len(got) != 2 || got[0].String() != "10.0.0.0/16" {
		t.Errorf("ParseNetworks = %v, %v", got, err)
	}
	if _, err := guard.ParseNetworks("10.0.0.1"); err == nil {
		t.Error("an address without a length is accepted")
	}
}
