package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/brokers"
	"github.com/tidings-dev/tidings/pkg/signature"
)

// syncBuffer is a bytes.Buffer for concurrent use.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *syncBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *syncBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// The test sends markers in secrets and payloads through every path: emit, fan-out,
// each protocol, success, failure, dead letter, skip, replay, tests and errors. No
// marker may appear in the functions' log, at any level, or in the CLI's errors;
// signing secrets and credentials not in the CLI's other output either.
func TestSecretsAreNeitherLoggedNorPrinted(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 3 s")
	}
	t.Parallel()
	brokers, err := brokers.Start(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(brokers.Close)
	text, err := brokers.Secret(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	var login struct{ Password string }
	if err := json.Unmarshal([]byte(text), &login); err != nil || login.Password == "" {
		t.Fatalf("the broker's secret: %v", err)
	}
	log := &syncBuffer{}
	x := newTool(t, func(o *local.Options) {
		o.Log = slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		o.Clouds = cloudClients(brokers)
	})
	note, err := local.ReadRunnerInfo(x.dir)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Session", "marker-of-a-header")
		if strings.HasPrefix(r.URL.Path, "/token") {
			_, password, _ := r.BasicAuth()
			w.Header().Set("Content-Type", "application/json")
			if strings.HasPrefix(r.URL.Path, "/token/bad") {
				w.WriteHeader(http.StatusBadRequest)
				fmt.Fprintf(w, `{"error":"invalid_client","error_description":"not %s"}`, password)
				return
			}
			fmt.Fprintf(w, `{"access_token":"credential-of-a-token","token_type":"Bearer","expires_in":60}`)
			return
		}
		if strings.HasPrefix(r.URL.Path, "/bad") {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, "marker-of-an-answer "+r.Header.Get("Authorization")+r.Header.Get("X-Api-Key")+r.Header.Get("X-Team"))
		}
	}))
	defer server.Close()

	secret := signature.NewSecret().Reveal()
	private := signature.NewEd25519().Reveal()
	var printed, failed strings.Builder // standard output and standard error
	do := func(code int, in string, args ...string) string {
		t.Helper()
		out, errOut := x.do(code, in, args...)
		printed.WriteString(out)
		failed.WriteString(errOut)
		return out
	}
	add := func(in, url string, more ...string) string {
		t.Helper()
		var v console.WithSecret
		out := do(0, in, append([]string{"endpoint", "add", url, "--secret-stdin", "--json"}, more...)...)
		if err := json.Unmarshal([]byte(out), &v); err != nil {
			t.Fatal(err)
		}
		return v.ID
	}
	good := add(secret, server.URL+"/good/marker-of-a-path?token=marker-of-a-query", "--traceparent")
	dead := add(private, server.URL+"/bad/marker-of-a-path", "--max-attempts", "1")
	retried := add(secret, server.URL+"/bad/marker-of-a-path")
	credential := filepath.Join(t.TempDir(), "credential")
	if err := os.WriteFile(credential, []byte("credential-of-a-receiver\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	do(0, "", "endpoint", "set", good, "--basic", "tidings=@"+credential, "--header", "X-Team=@"+credential)
	do(0, "credential-of-a-receiver", "endpoint", "set", good, "--bearer", "-", "--json")
	do(0, "", "endpoint", "set", dead, "--api-key", "X-Api-Key=@"+credential, "--basic", "tidings=@"+credential)
	do(2, "", "endpoint", "set", dead, "--bearer", "credential-of-a-receiver")
	do(2, "", "endpoint", "set", dead, "--header", "credential-of-a-receiver")
	do(1, "credential-of-a-receiver\x01", "endpoint", "set", dead, "--bearer", "-")
	oauth := add(secret, server.URL+"/good/marker-of-a-path", "--oauth2-token-url", server.URL+"/token", "--oauth2-client-id", "c", "--oauth2-client-secret", "@"+credential)
	do(0, "", "endpoint", "set", retried, "--oauth2-token-url", server.URL+"/token/bad", "--oauth2-client-id", "c", "--oauth2-client-secret", "@"+credential)
	ids := []string{good, dead, retried, oauth}
	for _, d := range brokers.Destinations(event.DefaultTenant) {
		args := []string{}
		if d.Credentials != "" {
			args = append(args, "--credentials", d.Credentials)
		}
		if d.Ordered {
			args = append(args, "--ordered")
		}
		ids = append(ids, add(secret, d.URL, args...))
	}

	const data = `{"discussion_id":"d","comment_id":"c","comment_text":"marker-of-a-payload"}`
	var accepted struct{ ID string }
	if err := json.Unmarshal([]byte(do(0, data, "emit", "user.posted_comment", "--data", "-", "--json")), &accepted); err != nil {
		t.Fatal(err)
	}
	// await waits until the endpoint's delivery is in the state.
	await := func(endpoint, state string) {
		t.Helper()
		for end := time.Now().Add(patience); time.Now().Before(end); {
			var list []console.Delivery
			x.json(&list, "delivery", "list", "--endpoint", endpoint)
			if len(list) == 1 && string(list[0].State) == state {
				return
			}
		}
		t.Fatalf("the delivery to %s does not become %s:\n%s", endpoint, state, log.String())
	}
	await(good, "delivered")
	await(dead, "dead")
	for _, id := range ids[3:] {
		await(id, "delivered")
	}
	await(retried, "pending")
	do(0, "", "endpoint", "disable", retried)
	await(retried, "skipped")
	do(0, "", "delivery", "replay", dead, accepted.ID)
	do(0, "", "delivery", "replay", "--dead", "--endpoint", dead, "--yes")

	for _, id := range ids {
		do(0, "", "endpoint", "show", id)
	}
	do(0, "", "endpoint", "list", "--json")
	for _, id := range append(ids[:0:0], good, ids[3], ids[4], ids[5], ids[6]) {
		do(0, "", "test", id)
	}
	do(1, "", "test", dead)
	do(1, "", "test", retried)
	do(1, secret, "test", server.URL+"/bad/marker-of-a-path", "--secret-stdin")

	// Refused requests.
	do(1, "", "endpoint", "add", "https://u:marker-of-a-password@example.com/marker-of-a-path")
	do(1, "whsec_marker-of-a-password", "endpoint", "add", "https://example.com/", "--secret-stdin")
	do(1, "", "endpoint", "add", "https://example.com/%zz?token=marker-of-a-query")
	do(1, "whsec_marker-of-a-password", "test", "https://example.com/", "--secret-stdin")
	do(1, "", "emit", "user.posted_comment", "--data", `{"comment_text":"marker-of-a-payload"}`)
	for _, body := range []string{`{"event":"user.posted_comment","data":{"email":"marker-of-a-payload"}}`, `{"data":"marker-of-a-payload`, data} {
		for _, function := range []string{"emit", "test-webhook", "health", "console"} {
			if note.URLs[function] == "" {
				continue
			}
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, note.URLs[function]+"/?token=marker-of-a-query", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer marker-of-a-bearer")
			r.Header.Set("Cookie", "session=marker-of-a-cookie")
			answer, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = answer.Body.Close()
		}
	}

	keys := []string{strings.TrimPrefix(secret, "whsec_"), strings.TrimPrefix(private, "whsk_"), login.Password, "marker-of-a-password", "credential-of", base64.StdEncoding.EncodeToString([]byte("tidings:credential-of-a-receiver"))}
	markers := []string{"marker-of", server.URL}
	for _, of := range []struct {
		what, text string
		never      []string
		// says proves that the paths were taken.
		says []string
	}{
		{"log", log.String(), append(markers, keys...), []string{"event.accepted", "event.refused", "fanout.done", "delivery.attempted", "delivery.skipped", "delivery.replayed", "webhook.tested",
			`"outcome":"success"`, `"outcome":"auth"`, `"state":"dead"`, `"protocol":"sqs"`, `"protocol":"pubsub"`, `"protocol":"kafka"`}},
		{"standard error", failed.String(), append(markers, keys...), []string{"tidings: "}},
		{"standard output", printed.String(), keys, []string{"✓ delivered", "✗ not delivered", "fingerprint",
			"bearer token, header X-Team", "Bearer ••••••••", "Basic ••••••••", "X-Api-Key: ••••••••", "no token: the token endpoint answered 400 invalid_client", "marker-of-an-answer Basic ••••••••"}},
	} {
		for _, word := range of.never {
			if i := strings.Index(of.text, word); i >= 0 {
				t.Errorf("%s contains a secret (%.12s…): …%.300s…", of.what, word, of.text[max(0, i-150):])
			}
		}
		for _, word := range of.says {
			if !strings.Contains(of.text, word) {
				t.Errorf("%s does not contain %s, so the test proves nothing", of.what, word)
			}
		}
	}
}
