package console_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/console"
)

func TestSourceAddressesAreAddressesAndRanges(t *testing.T) {
	for _, c := range []struct{ text, want, says string }{
		{"", "", ""},
		{"198.51.100.10", "198.51.100.10/32", ""},
		{"198.51.100.10,203.0.113.255", "198.51.100.10/32 203.0.113.255/32", ""},
		{"198.51.100.10, 192.0.2.16/28", "198.51.100.10/32 192.0.2.16/28", ""},
		{"2001:db8::1,2001:db8:1::/56", "2001:db8::1/128 2001:db8:1::/56", ""},
		{"192.0.2.17/28", "", "write 192.0.2.17 or 192.0.2.16/28"},
		{"192.0.2", "", `"192.0.2" is not an address`},
		{"192.0.2.256", "", "is not an address"},
		{"192.0.2.1/33", "", "is not an address"},
		{"198.51.100.10,", "", `"" is not an address`},
		{"fe80::1%eth0", "", "is not an address"},
		{"nat.example.com", "", "is not an address"},
	} {
		var s console.SourceAddresses
		err := s.UnmarshalText([]byte(c.text))
		if c.says != "" {
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%q: %v, want %q", c.text, err, c.says)
			}
			continue
		}
		var got []string
		for _, p := range s {
			got = append(got, p.String())
		}
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%q: %q %v, want %q", c.text, got, err, c.want)
		}
	}
}

// Receivers' firewalls read the list: everybody may, at a path that stays the same, and no
// other path of the API is open with it.
func TestSourceAddressesArePublished(t *testing.T) {
	w := newWorld(t)
	stranger := &browser{w: w}
	var addresses console.SourceAddresses
	for _, c := range []struct{ text, want string }{
		{"198.51.100.10,192.0.2.16/28", `{"addresses":["198.51.100.10/32","192.0.2.16/28"]}`},
		{"", `{"addresses":[]}`},
	} {
		if err := addresses.UnmarshalText([]byte(c.text)); err != nil {
			t.Fatal(err)
		}
		w.handler = (&console.Console{Operations: w.ops, Sessions: w.store, SourceAddresses: addresses, Log: discard}).Handler()
		a := stranger.get("/api/source-addresses")
		if a.Code != http.StatusOK || strings.TrimSpace(a.Body.String()) != c.want || !strings.HasPrefix(a.Header().Get("Content-Type"), "application/json") {
			t.Errorf("%q: %d %s, want %s", c.text, a.Code, a.Body, c.want)
		}
		if got := a.Header().Get("Cache-Control"); got != "public, max-age=300" {
			t.Errorf("Cache-Control: %s", got)
		}
	}
	for _, path := range []string{"/api/source-addresses/", "/api/source-addresses/x", "/api/source-addresses%2f..%2fendpoints"} {
		if a := stranger.get(path); a.Code != http.StatusUnauthorized {
			t.Errorf("GET %s: %d", path, a.Code)
		}
	}
	if a := stranger.post("/api/source-addresses", nil); a.Code == http.StatusOK {
		t.Errorf("POST: %d", a.Code)
	}
	var document struct {
		Paths map[string]map[string]struct {
			Security *[]any `json:"security"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(w.login(console.Viewer, "default").get(console.OpenAPIPath).Body.Bytes(), &document); err != nil {
		t.Fatal(err)
	}
	for path, methods := range document.Paths {
		for method, o := range methods {
			if open := o.Security != nil && len(*o.Security) == 0; open != (path == console.SourceAddressesPath) {
				t.Errorf("%s %s: needs no session by the document: %t", method, path, open)
			}
		}
	}
}
