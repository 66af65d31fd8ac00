package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/tidings-dev/tidings/pkg/console"
)

// The flags, step by step on one endpoint: what the receiver gets, and what is shown.
func TestAuthFlags(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 2 s")
	}
	var mu sync.Mutex
	var got, form string // of the latest request and token request
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path == "/token" {
			_ = r.ParseForm()
			user, password, _ := r.BasicAuth()
			form = user + ":" + password + " " + r.PostForm.Encode()
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"access_token":"granted","token_type":"Bearer"}`)
			return
		}
		got = strings.TrimSpace(r.Header.Get("Authorization") + " " + r.Header.Get("X-Api-Key") + " " + r.Header.Get("X-Team"))
	}))
	defer server.Close()
	x := newTool(t)
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TIDINGS_TEST_SECRET", "from-variable")
	var e console.WithSecret
	x.json(&e, "endpoint", "add", server.URL+"/hook", "--header", "X-Team=@"+file)
	for _, flag := range []string{"--bearer", "--basic", "--api-key", "--header", "--oauth2-token-url", "--oauth2-client-secret", "--client-certificate"} {
		x.do(2, "", "endpoint", "add", server.URL+"/hook", flag, "")
	}
	clientCredentials := "grant_type=client_credentials"
	for _, step := range []struct {
		name  string
		in    string
		args  []string
		code  int
		got   string // by the receiver of a test; "" makes none: an endpoint has few tests a minute
		form  string // by the token endpoint, if it is asked
		shows string
	}{
		{"added with a header", "", nil, 0, "", "", "header X-Team"},
		{"a bearer token from a variable", "", []string{"--bearer", "env:TIDINGS_TEST_SECRET"}, 0, "", "", "bearer token, header X-Team"},
		{"an API key from standard input", "from-stdin", []string{"--api-key", "X-Api-Key=-"}, 0, "Bearer from-variable from-stdin from-file", "", "bearer token, API key in X-Api-Key, header X-Team"},
		{"Basic replaces the token", "", []string{"--basic", "u=env:TIDINGS_TEST_SECRET"}, 0, "Basic dTpmcm9tLXZhcmlhYmxl from-stdin from-file", "", "basic as u"},
		{"a header is replaced whatever its case", "", []string{"--header", "x-team=env:TIDINGS_TEST_SECRET"}, 0, "", "", "header x-team"},
		{"another setting keeps all", "", []string{"--timeout", "5s"}, 0, "", "", "basic as u"},
		{"OAuth2 without a secret", "", []string{"--oauth2-token-url", server.URL + "/token", "--oauth2-client-id", "c"}, 1, "", "", ""},
		{"OAuth2 replaces Basic", "", []string{"--oauth2-token-url", server.URL + "/token", "--oauth2-client-id", "c", "--oauth2-client-secret", "@" + file}, 0, "Bearer granted from-stdin from-variable", "c:from-file " + clientCredentials, "OAuth2 as c at " + server.URL + "/token"},
		{"scopes are set and the secret stays", "", []string{"--oauth2-scopes", "a,b"}, 0, "Bearer granted from-stdin from-variable", "c:from-file " + clientCredentials + "&scope=a+b", "OAuth2 as c"},
		{"another token URL needs the secret again", "", []string{"--oauth2-token-url", server.URL + "/elsewhere"}, 1, "", "", ""},
		{"another client needs the secret again", "", []string{"--oauth2-client-id", "d"}, 1, "", "", ""},
		{"the same token URL keeps the secret", "", []string{"--oauth2-token-url", server.URL + "/token"}, 0, "", "", "OAuth2 as c"},
		{"an empty client secret", "", []string{"--oauth2-client-secret", ""}, 2, "", "", ""},
		{"an empty API key removes it", "", []string{"--api-key", ""}, 0, "", "", "OAuth2 as c at " + server.URL + "/token, header x-team"},
		{"an empty token URL removes OAuth2", "", []string{"--oauth2-token-url", ""}, 0, "", "", "   header x-team"},
		{"a token, again", "x", []string{"--bearer", "-"}, 0, "", "", "bearer token, header"},
		{"an empty token removes it", "", []string{"--bearer", ""}, 0, "", "", "   header x-team"},
		{"Basic, again", "x", []string{"--basic", "u=-"}, 0, "", "", "basic as u, header"},
		{"empty Basic removes it", "", []string{"--basic", ""}, 0, "", "", "   header x-team"},
		{"none, then a header", "", []string{"--no-auth", "--header", "X-Team=@" + file}, 0, "", "", "header X-Team"},
		{"a client certificate", "", []string{"--client-certificate", "tidings/default/crm"}, 1, "", "", ""}, // the URL has no TLS
		{"a client certificate of another tenant", "", []string{"--client-certificate", "tidings/acme/crm"}, 1, "", "", ""},
		{"none", "", []string{"--no-auth"}, 0, "", "", ""},
		{"a secret as an argument", "", []string{"--bearer", "abc"}, 2, "", "", ""},
		{"no source", "", []string{"--header", "X-Team"}, 2, "", "", ""},
		{"a variable that is not set", "", []string{"--bearer", "env:TIDINGS_TEST_NONE"}, 2, "", "", ""},
		{"a file that does not exist", "", []string{"--bearer", "@" + file + ".none"}, 1, "", "", ""},
		{"an empty source", "\n", []string{"--bearer", "-"}, 2, "", "", ""},
		{"standard input twice", "x", []string{"--api-key", "X-Api-Key=-", "--bearer", "-"}, 2, "", "", ""},
		{"two ways", "x", []string{"--basic", "u=-", "--oauth2-client-id", "c"}, 2, "", "", ""},
		{"a refused header", "x", []string{"--header", "Host=-"}, 1, "", "", ""},
	} {
		t.Run(step.name, func(t *testing.T) {
			if step.args != nil {
				x.do(step.code, step.in, append([]string{"endpoint", "set", e.ID}, step.args...)...)
			}
			if step.code != 0 {
				return
			}
			out, _ := x.do(0, "", "endpoint", "show", e.ID)
			if !strings.Contains(out, step.shows) || step.shows == "" && strings.Contains(out, "auth") {
				t.Errorf("shown: %s, want %s", out, step.shows)
			}
			if step.got == "" {
				return
			}
			mu.Lock()
			got, form = "", ""
			mu.Unlock()
			x.do(0, "", "test", e.ID)
			mu.Lock()
			defer mu.Unlock()
			if got != step.got || form != step.form {
				t.Errorf("the receiver got %q, want %q; the token endpoint %q, want %q", got, step.got, form, step.form)
			}
		})
	}
}
