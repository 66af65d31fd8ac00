// Package guardtest has test data for the destination guard: addresses that webhooks
// must not reach, notations that hide them, and a DNS server with changing answers.
// It promises that a dialer without a guard would connect to every entry.
package guardtest

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// Registries are all entries of the IANA special-purpose address registries for IPv4
// and IPv6 (RFC 6890 and its updates), and special ranges of other registries:
// multicast, site-local, IPv4-compatible, SIIT.
var Registries = []string{
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
	"192.0.0.0/24", "192.0.0.0/29", "192.0.0.8/32", "192.0.0.9/32", "192.0.0.10/32", "192.0.0.170/32", "192.0.0.171/32",
	"192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
	"198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4", "255.255.255.255/32",
	"224.0.0.0/4", // multicast

	"::1/128", "::/128", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64",
	"2001::/23", "2001::/32", "2001:1::1/128", "2001:1::2/128", "2001:1::3/128", "2001:2::/48", "2001:3::/32",
	"2001:4:112::/48", "2001:10::/28", "2001:20::/28", "2001:30::/28", "2001:db8::/32", "2002::/16",
	"2620:4f:8000::/48", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10",
	"::/96", "::ffff:0:0:0/96", "fec0::/10", "ff00::/8",
}

// Addresses are further single addresses: common targets of attacks, and each way to
// write an IPv4 address inside an IPv6 one.
var Addresses = []string{
	"127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "192.168.1.1",
	"169.254.169.254", // metadata of AWS, Google, Azure
	"169.254.170.2",   // credentials of ECS tasks
	"169.254.169.123", // Amazon Time Sync Service
	"169.254.100.1",   // Lambda's execution environment
	"100.100.100.200", // metadata of Alibaba
	"192.0.0.192",     // metadata of Oracle
	"168.63.129.16",   // Azure's host agent: in no registry

	"::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "::ffff:168.63.129.16", // mapped
	"::127.0.0.1", "::169.254.169.254", // compatible
	"::ffff:0:127.0.0.1", "::ffff:0:169.254.169.254", // SIIT
	"64:ff9b::127.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b::192.168.1.1", "64:ff9b:1::127.0.0.1", // NAT64
	"2002:7f00:1::1", "2002:a9fe:a9fe::1", "2002:c0a8:101::1", // 6to4
	"2001:0:4136:e378:8000:63bf:80ff:fffe", // Teredo, of 127.0.0.1
	"fe80::5efe:127.0.0.1",                 // ISATAP, link-local
	"2600:1f18::5efe:127.0.0.1",            // ISATAP under a public prefix
	"2600:1f18::200:5efe:8.8.8.8",          // ISATAP, of a public address
	"fd00:ec2::254", "fd00:ec2::253",       // AWS's metadata and resolver
	"fd20:ce::254",               // metadata of Google
	"fe80::1", "fe80::a9fe:a9fe", // link-local
	"ff02::1", "fec0::1", "fc00::1", "100::1", // multicast, site-local, unique local, discard
	"2001:db8::1", "3fff::1", "5f00::1", "::2", // documentation, segment routing, unassigned
}

// Hosts returns all addresses as hosts of a URL, with the first and the last address
// of each range in the registries.
func Hosts() []string {
	var hosts []string
	seen := map[netip.Addr]bool{}
	add := func(a netip.Addr) {
		if seen[a] {
			return
		}
		seen[a] = true
		if a.Is4() {
			hosts = append(hosts, a.String())
		} else {
			hosts = append(hosts, "["+a.String()+"]")
		}
	}
	for _, r := range Registries {
		p := netip.MustParsePrefix(r)
		add(p.Addr())
		add(last(p))
	}
	for _, a := range Addresses {
		add(netip.MustParseAddr(a))
	}
	return hosts
}

func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// Disguises are invalid host names: numbers that old resolvers and C libraries read
// as 127.0.0.1 or 169.254.169.254, zones, and digits of other scripts.
var Disguises = []string{
	"2130706433", "0x7f000001", "0X7F000001", "017700000001", "0177.0.0.1", "0x7f.0.0.1", "0x7f.1", "127.1", "127.0.1", "0177.1", "00000177.0.0.01",
	"2852039166", "0xa9fea9fe", "025177524776", "0xa9.254.169.254", "169.254.43518", "0251.0376.0251.0376", "169.16689662", "127.0.0.1.", "169.254.169.254.",
	"1.2.3.4.5", "0", "00", "0x0", "4294967296", "18446744073709551617",
	"localhost", "localhost.", "LOCALHOST", "a.localhost", "a.b.LocalHost.",
	"[fe80::1%25eth0]", "[fe80::1%25lo]", "[::1%25lo]", "[2606:2800:21f::1%25eth0]", "[::ffff:127.0.0.1%25lo]",
	"１２７.０.０.１", "127。0。0。1", "①②⑦.⓪.⓪.①", "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", "localho\u017ft",
}

// DNS is a name server on loopback with the answers of its test.
type DNS struct {
	address string

	mu      sync.Mutex
	answers map[string][][]netip.Addr
	asked   map[question]int
}

type question struct {
	name string
	kind dnsmessage.Type
}

// NewDNS starts a name server for the duration of the test.
func NewDNS(t testing.TB) *DNS {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	d := &DNS{address: conn.LocalAddr().String(), answers: map[string][][]netip.Addr{}, asked: map[question]int{}}
	go d.serve(conn)
	return d
}

// Answer sets the addresses of a name, one slice per lookup. The last slice is the
// answer to all further lookups.
func (d *DNS) Answer(name string, answers ...[]netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answers[name+"."] = answers
}

// Resolver returns a resolver that asks only this server.
func (d *DNS) Resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "udp", d.address)
	}}
}

func (d *DNS) serve(conn net.PacketConn) {
	buf := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return // the test is over
		}
		var query dnsmessage.Message
		if query.Unpack(buf[:n]) != nil || len(query.Questions) != 1 {
			continue
		}
		q := query.Questions[0]
		reply := dnsmessage.Message{Header: dnsmessage.Header{ID: query.ID, Response: true, Authoritative: true}, Questions: query.Questions}
		found, ok := d.next(question{q.Name.String(), q.Type})
		if !ok {
			reply.RCode = dnsmessage.RCodeNameError
		}
		// Answers contain a CNAME record, as real ones often do.
		alias := dnsmessage.MustNewName("alias." + q.Name.String())
		header := func(name dnsmessage.Name, kind dnsmessage.Type) dnsmessage.ResourceHeader {
			return dnsmessage.ResourceHeader{Name: name, Type: kind, Class: q.Class} // TTL 0
		}
		if len(found) > 0 {
			reply.Answers = append(reply.Answers, dnsmessage.Resource{Header: header(q.Name, dnsmessage.TypeCNAME), Body: &dnsmessage.CNAMEResource{CNAME: alias}})
		}
		for _, a := range found {
			var body dnsmessage.ResourceBody = &dnsmessage.AAAAResource{AAAA: a.As16()}
			if a.Is4() {
				body = &dnsmessage.AResource{A: a.As4()}
			}
			reply.Answers = append(reply.Answers, dnsmessage.Resource{Header: header(alias, q.Type), Body: body})
		}
		if packed, err := reply.Pack(); err == nil {
			_, _ = conn.WriteTo(packed, from)
		}
	}
}

// next returns the next answer to a question, and whether the name exists.
func (d *DNS) next(q question) ([]netip.Addr, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	answers, ok := d.answers[q.name]
	if !ok || len(answers) == 0 {
		return nil, false
	}
	at := min(d.asked[q], len(answers)-1)
	d.asked[q]++
	var found []netip.Addr
	for _, a := range answers[at] {
		if a.Is4() && q.kind == dnsmessage.TypeA || a.Is6() && q.kind == dnsmessage.TypeAAAA {
			found = append(found, a)
		}
	}
	return found, true
}
