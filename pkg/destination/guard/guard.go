// Package guard decides which addresses webhooks may reach. Endpoints' URLs come
// from strangers; without a guard they reach the metadata service, the VPC, the
// loopback interface. It promises that no connection is begun to an address in
// one of the IANA special-purpose registries, unless the deployment allows the
// network: the check runs in the dialer after DNS, on the very address that is
// dialled, so a name that answers differently the second time gains nothing.
package guard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"code.dny.dev/ssrf"
)

// azureWire is the address of Azure's host agent. It looks public and is in no
// registry, but answers from within.
var azureWire = netip.MustParsePrefix("168.63.129.16/32")

// Options are what a deployment allows beyond public addresses over TLS.
type Options struct {
	// AllowNetworks may be reached though they are not public: a VPC's own
	// ranges, or loopback on a developer's machine.
	AllowNetworks []netip.Prefix
	// AllowHTTP permits http:// beside https://.
	AllowHTTP bool
	// Connecting, where it is set, is told of every address that may be reached,
	// just before the connection begins; its error ends the attempt. It is how a
	// test sees what would have been connected to.
	Connecting func(netip.AddrPort) error
}

// Guard is safe for concurrent use.
type Guard struct {
	options Options
	public  *ssrf.Guardian
	dialer  net.Dialer
}

// New returns a guard.
func New(o Options) *Guard {
	g := &Guard{options: o, public: ssrf.New(ssrf.WithAnyPort(), ssrf.WithDeniedV4Prefixes(azureWire))}
	g.dialer = net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second, ControlContext: g.control}
	return g
}

// WithResolver returns a guard that looks names up elsewhere.
func (g *Guard) WithResolver(r *net.Resolver) *Guard {
	other := *g
	other.dialer.Resolver = r
	other.dialer.ControlContext = other.control
	return &other
}

// BlockedError says that an address may not be reached. Its text names what the
// endpoint's owner gave, and not what it resolved to.
type BlockedError struct {
	Host   string
	Reason string
}

func (e *BlockedError) Error() string {
	return fmt.Sprintf("%s may not be reached: %s", e.Host, e.Reason)
}

const notPublic = "it is not a public address; webhooks go to public addresses only, unless the deployment allows the network"

// DialContext connects if the address that the name resolves to may be reached.
func (g *Guard) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := g.dialer.DialContext(ctx, network, address)
	var blocked *BlockedError
	if errors.As(err, &blocked) {
		if host, _, split := net.SplitHostPort(address); split == nil {
			// What was dialled is none of the endpoint's owner's business.
			return nil, &BlockedError{Host: host, Reason: blocked.Reason}
		}
	}
	return conn, err
}

// control runs after DNS and before the connection begins.
func (g *Guard) control(_ context.Context, network, address string, raw syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return &BlockedError{Host: address, Reason: notPublic}
	}
	if !g.allowed(to.Addr()) && (g.public.Safe(network, address, raw) != nil || isatap(to.Addr())) {
		return &BlockedError{Host: address, Reason: notPublic}
	}
	if g.options.Connecting != nil {
		return g.options.Connecting(to)
	}
	return nil
}

// isatap reports whether the address ends in an IPv4 address by ISATAP's rule
// (RFC 5214, section 6.1): whatever its prefix, it leads to that one. No server of
// today lives there.
func isatap(a netip.Addr) bool {
	b := a.As16()
	return a.Is6() && !a.Is4In6() && b[8]&^3 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe
}

// allowed reports whether the deployment allows the address. A zone names an
// interface of this machine, which nobody else can mean.
func (g *Guard) allowed(a netip.Addr) bool {
	return a.Zone() == "" && slices.ContainsFunc(g.options.AllowNetworks, func(p netip.Prefix) bool {
		return p.Contains(a) || p.Contains(a.Unmap())
	})
}

// CheckURL refuses what can be judged without asking DNS; the dialer judges the
// rest. It is for the moment at which an endpoint is added.
func (g *Guard) CheckURL(u *url.URL) error {
	switch {
	case u.Scheme == "http" && !g.options.AllowHTTP:
		return errors.New("http:// is not allowed here: use https://, so that nobody on the way can read or change the events")
	case u.User != nil:
		return errors.New("a URL must not hold a user name or password: they would end up in logs; verify the signature instead")
	case u.Fragment != "":
		return errors.New("a fragment (#…) is never sent: leave it out")
	}
	if err := checkPort(u); err != nil {
		return err
	}
	return g.CheckHost(u.Hostname())
}

func checkPort(u *url.URL) error {
	port := u.Port()
	if port == "" {
		if strings.HasSuffix(u.Host, ":") {
			return errors.New("the port is missing after the colon")
		}
		return nil
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("port %s is not one of 1 to 65535", port)
	}
	return nil
}

// CheckHost refuses a host that is no name and no public address.
func (g *Guard) CheckHost(host string) error {
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if name == "" {
		return errors.New("the host is missing")
	}
	if len(name) > 253 {
		return errors.New("the host's name is longer than DNS allows")
	}
	if a, err := netip.ParseAddr(name); err == nil {
		if !g.allowed(a) && (a.Zone() != "" || g.public.SafeAddr(a) != nil || isatap(a)) {
			return &BlockedError{Host: host, Reason: notPublic}
		}
		return nil
	}
	if strings.ContainsFunc(name, func(r rune) bool { return r > unicode.MaxASCII }) {
		// １２７。０。０。１ becomes an address where it is looked up.
		return fmt.Errorf("host %.64q holds other letters than ASCII's: write it in its xn-- form", host)
	}
	labels := strings.Split(name, ".")
	last := labels[len(labels)-1]
	// 2130706433, 0x7f.1, 017700000001: no top-level domain is a number
	// (RFC 3696, section 2), but resolvers of old read these as addresses.
	if isNumber(last) {
		return &BlockedError{Host: host, Reason: "it is a number in disguise; write an address as four decimal numbers"}
	}
	if last == "localhost" && !g.allowed(netip.AddrFrom4([4]byte{127, 0, 0, 1})) {
		return &BlockedError{Host: host, Reason: notPublic}
	}
	for _, label := range labels {
		if label == "" || len(label) > 63 || strings.Trim(label, letters) != "" {
			return fmt.Errorf("host %.64q is malformed", host)
		}
	}
	return nil
}

// letters are those of names; a name in use has an underscore now and then.
const letters = "abcdefghijklmnopqrstuvwxyz0123456789-_"

func isNumber(label string) bool {
	_, err := strconv.ParseUint(label, 0, 64)
	if err == nil {
		return true
	}
	return strings.HasPrefix(label, "0x") || strings.Trim(label, "0123456789") == "" && label != ""
}

// ParseNetworks reads a list of CIDR ranges, separated by commas; "" is none.
func ParseNetworks(list string) ([]netip.Prefix, error) {
	var networks []netip.Prefix
	for part := range strings.SplitSeq(list, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		p, err := netip.ParsePrefix(part)
		if err != nil {
			return nil, fmt.Errorf("%q is not a CIDR range such as 10.0.0.0/16", part)
		}
		networks = append(networks, p.Masked())
	}
	return networks, nil
}
