// Package guard protects against server-side request forgery (SSRF): endpoint URLs
// come from users and could name the metadata service, the VPC or loopback. It
// promises that no connection is opened to an address in the IANA special-purpose
// registries, unless the deployment allows the network. The check runs in the
// dialer, after DNS, on the address that is dialled, so DNS rebinding cannot
// bypass it.
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
	"sync/atomic"
	"syscall"
	"time"
	"unicode"

	"code.dny.dev/ssrf"
)

// azureWire is the address of Azure's host agent (WireServer). It is in no registry,
// but is only reachable from within Azure.
var azureWire = netip.MustParsePrefix("168.63.129.16/32")

// Options configure what a deployment allows beyond public addresses over TLS.
type Options struct {
	// AllowNetworks are additional allowed networks: ranges of a VPC, or loopback
	// on a developer's machine.
	AllowNetworks []netip.Prefix
	// AllowHTTP allows http:// besides https://.
	AllowHTTP bool
	// Connecting, if set, is called with every allowed address before it is
	// dialled. If it returns an error, the address is not dialled. For tests.
	Connecting func(netip.AddrPort) error
}

// Guard checks hosts and addresses. It is safe for concurrent use.
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

// WithResolver returns a copy of the guard that uses r for DNS.
func (g *Guard) WithResolver(r *net.Resolver) *Guard {
	other := *g
	other.dialer.Resolver = r
	other.dialer.ControlContext = other.control
	return &other
}

// BlockedError means that a host is not allowed. It contains the host as given, not
// the address that it resolves to, so that it reveals nothing about internal DNS.
type BlockedError struct {
	Host   string
	Reason string
}

func (e *BlockedError) Error() string {
	return fmt.Sprintf("%s is not an allowed destination: %s", e.Host, e.Reason)
}

const notPublic = "it is not a public address; webhooks are sent to public addresses only, unless the deployment allows the network"

// DialContext is net.Dialer.DialContext with a check of every resolved address. It
// returns a *BlockedError if none of the addresses is allowed: one that is allowed and
// does not accept a connection now may accept one later. Its connect timeout is 10 s.
func (g *Guard) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	var allowed atomic.Bool
	conn, err := g.dialer.DialContext(context.WithValue(ctx, allowedKey{}, &allowed), network, address)
	var blocked *BlockedError
	if errors.As(err, &blocked) {
		if allowed.Load() {
			return nil, &net.OpError{Op: "dial", Net: network, Err: errUnreachable}
		}
		if host, _, split := net.SplitHostPort(address); split == nil {
			return nil, &BlockedError{Host: host, Reason: blocked.Reason}
		}
	}
	return conn, err
}

// errUnreachable is the error of a host that has blocked and allowed addresses.
var errUnreachable = errors.New("no allowed address of the host accepted the connection")

// allowedKey is the context key of an *atomic.Bool that control sets when an address is
// allowed.
type allowedKey struct{}

// control runs after DNS, before each connect.
func (g *Guard) control(ctx context.Context, network, address string, raw syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return &BlockedError{Host: address, Reason: notPublic}
	}
	if !g.allowed(to.Addr()) && (g.public.Safe(network, address, raw) != nil || isatap(to.Addr())) {
		return &BlockedError{Host: address, Reason: notPublic}
	}
	if allowed, ok := ctx.Value(allowedKey{}).(*atomic.Bool); ok {
		allowed.Store(true)
	}
	if g.options.Connecting != nil {
		return g.options.Connecting(to)
	}
	return nil
}

// isatap reports whether the address is an ISATAP address (RFC 5214, section 6.1).
// Under any prefix, it leads to the IPv4 address in its last 32 bits.
func isatap(a netip.Addr) bool {
	b := a.As16()
	return a.Is6() && !a.Is4In6() && b[8]&^3 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe
}

// allowed reports whether the deployment allows the address. An address with a zone
// is never allowed: a zone names an interface of this machine.
func (g *Guard) allowed(a netip.Addr) bool {
	return a.Zone() == "" && slices.ContainsFunc(g.options.AllowNetworks, func(p netip.Prefix) bool {
		return p.Contains(a) || p.Contains(a.Unmap())
	})
}

// CheckURL validates a URL without DNS, when an endpoint is created or edited. The
// dialer checks the resolved addresses.
func (g *Guard) CheckURL(u *url.URL) error {
	switch {
	case u.Scheme == "http" && !g.options.AllowHTTP:
		return errors.New("http:// is not allowed in this deployment: use https://, so that nobody can read or change events in transit")
	case u.User != nil:
		return errors.New("a URL must not hold a user name or password, because URLs appear in logs: verify the signature instead")
	case u.Fragment != "":
		return errors.New("a fragment (#…) is never sent: remove it")
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
		return fmt.Errorf("port %s is not between 1 and 65535", port)
	}
	return nil
}

// CheckHost validates a host without DNS. It must be a DNS name or an allowed address.
func (g *Guard) CheckHost(host string) error {
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if name == "" {
		return errors.New("the host is missing")
	}
	if len(name) > 253 {
		return errors.New("the host name is longer than 253 characters")
	}
	if a, err := netip.ParseAddr(name); err == nil {
		if !g.allowed(a) && (a.Zone() != "" || g.public.SafeAddr(a) != nil || isatap(a)) {
			return &BlockedError{Host: host, Reason: notPublic}
		}
		return nil
	}
	if strings.ContainsFunc(name, func(r rune) bool { return r > unicode.MaxASCII }) {
		// Resolvers may normalize １２７。０。０。１ to an address.
		return fmt.Errorf("host %.64q contains non-ASCII characters: write it in Punycode (xn--…)", host)
	}
	labels := strings.Split(name, ".")
	last := labels[len(labels)-1]
	// Legacy resolvers parse 2130706433, 0x7f.1 and 017700000001 as addresses. No
	// top-level domain is a number (RFC 3696, section 2).
	if isNumber(last) {
		return &BlockedError{Host: host, Reason: "it is a number; write an IPv4 address as four decimal numbers"}
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

// letters are allowed in names. Underscores are not in RFC 1123, but in use.
const letters = "abcdefghijklmnopqrstuvwxyz0123456789-_"

func isNumber(label string) bool {
	_, err := strconv.ParseUint(label, 0, 64)
	if err == nil {
		return true
	}
	return strings.HasPrefix(label, "0x") || strings.Trim(label, "0123456789") == "" && label != ""
}

// ParseNetworks parses a comma-separated list of CIDR ranges. It may be empty.
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
