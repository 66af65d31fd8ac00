// Package docs_test holds the pages to what they say: their programs run, their
// runbooks are those of the alarms that there are.
package docs_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/local/process"
	"github.com/tidings-dev/tidings/pkg/signature"
)

func page(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// program is the one program of a language in receiving.md, in a file.
func program(t *testing.T, language, dir, name string) string {
	t.Helper()
	_, after, ok := strings.Cut(page(t, "receiving.md"), "```"+language+"\n")
	text, _, closed := strings.Cut(after, "\n```")
	if !ok || !closed {
		t.Fatalf("receiving.md has no program in %s", language)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// receives starts a receiver and sends it what it must take and what it must refuse.
func receives(t *testing.T, command string, args ...string) {
	t.Helper()
	port, err := process.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	secret := signature.NewSecret()
	var log bytes.Buffer
	c := exec.Command(command, args...)
	c.Env = append(os.Environ(), fmt.Sprint("PORT=", port), "WEBHOOK_SECRET="+secret.Reveal())
	c.Stdout, c.Stderr = &log, &log
	process, err := process.Start(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(process.Stop)
	err = process.Ready(t.Context(), time.Minute, func(ctx context.Context) error {
		connection, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return connection.Close()
	})
	if err != nil {
		process.Stop()
		t.Fatalf("%v\n%s", err, &log)
	}
	const id, body = "01KG4VZS4NCPSXFR1K7QEWBC9B", `{"id":"01KG4VZS4NCPSXFR1K7QEWBC9B","event":"user.posted_comment","data":{"comment_text":"<b>Zoë & 日本</b>"}}`
	now := time.Now()
	for name, r := range map[string]struct {
		secrets []signature.Secret
		at      time.Time
		sent    string
		taken   bool
	}{
		"as Tidings sends it":        {[]signature.Secret{secret}, now, body, true},
		"while a secret rotates":     {[]signature.Secret{signature.NewSecret(), secret}, now, body, true},
		"another secret":             {[]signature.Secret{signature.NewSecret()}, now, body, false},
		"a changed body":             {[]signature.Secret{secret}, now, strings.Replace(body, "posted", "flagged", 1), false},
		"the same JSON, not as sent": {[]signature.Secret{secret}, now, strings.Replace(body, ",", ", ", 1), false},
		"older than five minutes":    {[]signature.Secret{secret}, now.Add(-10 * time.Minute), body, false},
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address+"/hooks", strings.NewReader(r.sent))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("webhook-id", id)
		request.Header.Set("webhook-timestamp", fmt.Sprint(r.at.Unix()))
		request.Header.Set("webhook-signature", signature.Sign(r.secrets, id, r.at, []byte(body)))
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_ = response.Body.Close()
		if want := map[bool]int{true: http.StatusNoContent, false: http.StatusUnauthorized}[r.taken]; response.StatusCode != want {
			t.Errorf("%s: answered %d, want %d", name, response.StatusCode, want)
		}
	}
}

func TestReceivingInGo(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "receiver")
	build := exec.Command("go", "build", "-o", binary, program(t, "go", dir, "main.go"))
	build.Dir = ".." // for its go.mod
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	receives(t, binary)
}
