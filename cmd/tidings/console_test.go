package main

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/tidings-dev/tidings/pkg/console"
)

// `tidings console open` signs with the operator's credentials for this machine only.
func TestSecurityConsoleOpenSignsForItsOwnPagesOnly(t *testing.T) {
	signed := 0
	deployed := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=AKID/") {
			signed++
		}
		w.Header().Add("Set-Cookie", "tidings_session=x; HttpOnly; Secure")
	}))
	defer deployed.Close()
	to, err := url.Parse(deployed.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := signingProxy(to, credentials.NewStaticCredentialsProvider("AKID", "secret", ""), "eu-west-1", time.Now)
	ask := func(host string, header ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("POST", "http://"+host+"/login", strings.NewReader("link=x"))
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		proxy.ServeHTTP(w, r)
		return w
	}
	for name, w := range map[string]*httptest.ResponseRecorder{
		"a rebound name":      ask("attacker.example:8765"),
		"another origin":      ask("127.0.0.1:8765", "Origin", "https://attacker.example"),
		"another local port":  ask("127.0.0.1:8765", "Origin", "http://127.0.0.1:3000", "Sec-Fetch-Site", "same-site"),
		"no origin":           ask("127.0.0.1:8765", "Origin", "null"),
		"a name of a network": ask("laptop.local:8765"),
	} {
		if w.Code != http.StatusForbidden || signed != 0 {
			t.Errorf("%s: %d, %d requests were signed", name, w.Code, signed)
		}
	}
	w := ask("127.0.0.1:8765", "Origin", "http://127.0.0.1:8765", "Sec-Fetch-Site", "same-origin")
	if w.Code != http.StatusOK || signed != 1 || strings.Contains(w.Header().Get("Set-Cookie"), "Secure") {
		t.Errorf("its own page: %d, %d signed, cookie %q", w.Code, signed, w.Header().Get("Set-Cookie"))
	}
}

func TestSecurityTokensLastAtMost90Days(t *testing.T) {
	t.Parallel()
	x := newTool(t)
	for lasts, code := range map[string]int{"876000h": exitUsage, "2160h1s": exitUsage, "-1h": exitUsage, "0s": exitUsage, "2160h": 0, "1s": 0} {
		out, errOut := x.do(code, "", "console", "login", "--token", "--lasts", lasts)
		if (out == "") == (code == 0) || code != 0 && !strings.Contains(errOut, "90 days") {
			t.Errorf("--lasts %s prints %q %q", lasts, out, errOut)
		}
	}
	// The package refuses it, too, whatever calls it.
	i := console.Invitation{Name: "a", Role: console.Admin, Tenant: "default"}
	for _, lasts := range []time.Duration{0, -time.Second, console.MaxTokenTime + 1} {
		if token, err := console.Token(t.Context(), nil, i, time.Now(), lasts); err == nil || token != "" {
			t.Errorf("a token for %s is made", lasts)
		}
	}
	for _, tenant := range []string{"", "a b", "a#b", "a/b"} {
		i.Tenant = tenant
		if _, err := console.Invite(t.Context(), nil, i, time.Now()); err == nil {
			t.Errorf("a link for the tenant %q is made", tenant)
		}
	}
}
