package loopback_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/tidings-dev/tidings/pkg/local/loopback"
)

// Requests that programs and the server's own pages make pass; those that a page of another
// origin can make do not, whichever name it uses for this machine.
func TestSecurityPagesOfOtherOriginsAreRefused(t *testing.T) {
	headers := func(list ...string) http.Header {
		h := http.Header{}
		for i := 0; i < len(list); i += 2 {
			h.Set(list[i], list[i+1])
		}
		return h
	}
	navigation := []string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}
	for name, c := range map[string]struct {
		method, host string
		header       http.Header
		passes       bool
	}{
		"a program":                      {"POST", "127.0.0.1:8701", nil, true},
		"a program, by name":             {"POST", "localhost:8701", nil, true},
		"a program, by name in capitals": {"POST", "LocalHost:8701", nil, true},
		"a program, IPv6":                {"POST", "[::1]:8701", nil, true},
		"a program, without a port":      {"GET", "127.0.0.1", nil, true},
		"the server's own page":          {"POST", "127.0.0.1:8703", headers("Origin", "http://127.0.0.1:8703", "Sec-Fetch-Site", "same-origin"), true},
		"its form, in an old browser":    {"POST", "127.0.0.1:8703", headers("Origin", "http://127.0.0.1:8703"), true},
		"an address that was typed":      {"GET", "127.0.0.1:8703", headers(append(navigation, "Sec-Fetch-Site", "none")...), true},
		"a link from a mail":             {"GET", "127.0.0.1:8703", headers(append(navigation, "Sec-Fetch-Site", "cross-site")...), true},
		"its form, without a referrer":   {"POST", "127.0.0.1:8703", headers("Origin", "null", "Sec-Fetch-Site", "same-origin"), true},

		"a rebound name":                  {"POST", "attacker.example:8701", nil, false},
		"a rebound name, its own origin":  {"POST", "attacker.example:8701", headers("Origin", "http://attacker.example:8701", "Sec-Fetch-Site", "same-origin"), false},
		"a name below localhost":          {"POST", "a.localhost:8701", nil, false},
		"a name that begins like it":      {"POST", "localhost.attacker.example:8701", nil, false},
		"a name that begins like IPv4":    {"POST", "127.0.0.1.attacker.example", nil, false},
		"localhost with a dot":            {"POST", "localhost.:8701", nil, false},
		"an address of a network":         {"POST", "192.168.0.7:8701", nil, false},
		"every address":                   {"POST", "0.0.0.0:8701", nil, false},
		"every address, IPv6":             {"POST", "[::]:8701", nil, false},
		"a zone":                          {"POST", "[::1%25lo]:8701", nil, false},
		"a user":                          {"POST", "127.0.0.1@attacker.example", nil, false},
		"no host":                         {"POST", "", nil, false},
		"two hosts":                       {"POST", "127.0.0.1, attacker.example", nil, false},
		"another port":                    {"POST", "127.0.0.1:8701", headers("Origin", "http://127.0.0.1:9999", "Sec-Fetch-Site", "same-site"), false},
		"another port, in an old browser": {"POST", "127.0.0.1:8701", headers("Origin", "http://127.0.0.1:9999"), false},
		"another name of this machine":    {"POST", "127.0.0.1:8701", headers("Origin", "http://localhost:8701"), false},
		"another scheme":                  {"POST", "127.0.0.1:8701", headers("Origin", "https://127.0.0.1:8701"), false},
		"another site":                    {"POST", "127.0.0.1:8701", headers("Origin", "https://attacker.example", "Sec-Fetch-Site", "cross-site"), false},
		"a sandboxed frame":               {"POST", "127.0.0.1:8701", headers("Origin", "null", "Sec-Fetch-Site", "cross-site"), false},
		"a sandboxed frame, old browser":  {"POST", "127.0.0.1:8701", headers("Origin", "null"), false},
		"a preflight":                     {"OPTIONS", "127.0.0.1:8701", headers("Origin", "http://127.0.0.1:9999", "Access-Control-Request-Method", "POST", "Sec-Fetch-Site", "same-site"), false},
		"an image":                        {"GET", "127.0.0.1:8701", headers("Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image"), false},
		"a frame":                         {"GET", "127.0.0.1:8701", headers("Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"), false},
		"a form of another site":          {"POST", "127.0.0.1:8701", headers(append(navigation, "Sec-Fetch-Site", "cross-site")...), false},
		"fetch without CORS":              {"GET", "127.0.0.1:8701", headers("Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "empty"), false},
		"an unknown Sec-Fetch-Site":       {"POST", "127.0.0.1:8701", headers("Sec-Fetch-Site", "sideways"), false},
	} {
		reached := false
		h := loopback.Only(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
		r := httptest.NewRequest(c.method, "/", nil)
		r.Host = c.host
		for key, values := range c.header {
			r.Header[key] = values
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if reached != c.passes || !c.passes && w.Code != http.StatusForbidden {
			t.Errorf("%s: reached %t, status %d", name, reached, w.Code)
		}
	}
}
