package guard_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/destination/guard"
	"github.com/tidings-dev/tidings/test/guardtest"
)

// FuzzCheckHost: an accepted host is either a name of letters, digits, hyphens, dots
// and underscores whose last label is not a number, or an address in canonical form
// outside every special-purpose range.
func FuzzCheckHost(f *testing.F) {
	for _, host := range append(guardtest.Hosts(), guardtest.Disguises...) {
		f.Add(strings.Trim(host, "[]"))
	}
	for _, host := range []string{"example.com", "EXAMPLE.com.", "xn--bcher-kva.example", "_dmarc.example", "a b", "a\x00b", "a@b", "a:80", "a/b", "a,b", "*.example", "8.8.8.8", "2606:4700::1111", "1.1.1.1.", "a.0x", "0x.a", "1e3", "a.1e3"} {
		f.Add(host)
	}
	var special []netip.Prefix
	for _, r := range guardtest.Registries {
		special = append(special, netip.MustParsePrefix(r))
	}
	g := guard.New(guard.Options{})
	f.Fuzz(func(t *testing.T, host string) {
		if err := g.CheckHost(host); err != nil {
			if len(err.Error()) > 1024 {
				t.Errorf("an error of %d bytes for a host of %d bytes", len(err.Error()), len(host))
			}
			return
		}
		if a, err := netip.ParseAddr(strings.TrimSuffix(host, ".")); err == nil {
			if a.Zone() != "" || a.Is4In6() {
				t.Errorf("%q is accepted", host)
			}
			for _, p := range special {
				if p.Contains(a) {
					t.Errorf("%q is accepted, which is in %s", host, p)
				}
			}
			return
		}
		labels := strings.Split(strings.ToLower(strings.TrimSuffix(host, ".")), ".")
		for _, label := range labels {
			if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
				t.Errorf("%q is accepted", host)
			}
		}
		if last := labels[len(labels)-1]; last == "localhost" || strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") {
			t.Errorf("%q is accepted", host)
		}
	})
}
