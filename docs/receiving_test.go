// Package docs_test checks the pages against the code and the template: sample
// programs run, names exist, every alarm has a runbook.
package docs_test

import (
	"bytes"
	"context"
	"errors"
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

// program writes the first program of a section of receiving.md to a file and returns its
// path. The section is named by its heading, such as "## Go".
func program(t *testing.T, heading, dir, name string) string {
	t.Helper()
	_, section, found := strings.Cut(page(t, "receiving.md"), "\n"+heading+"\n")
	section, _, _ = strings.Cut(section, "\n##")
	_, block, ok := strings.Cut(section, "\n```")
	_, after, _ := strings.Cut(block, "\n") // the language
	text, _, closed := strings.Cut(after, "\n```")
	if !found || !ok || !closed {
		t.Fatalf("receiving.md has no program below %q", heading)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// checkReceiver starts a receiver with a shared secret and sends it requests that it must
// accept or reject.
func checkReceiver(t *testing.T, command string, args ...string) {
	t.Helper()
	checkReceiverOf(t, signature.NewSecret, signature.NewEd25519, "WEBHOOK_SECRET", signature.Secret.Reveal, command, args...)
}

// checkPublicKeyReceiver is checkReceiver for a receiver with a public key.
func checkPublicKeyReceiver(t *testing.T, command string, args ...string) {
	t.Helper()
	checkReceiverOf(t, signature.NewEd25519, signature.NewSecret, "WEBHOOK_PUBLIC_KEY", signature.Secret.Public, command, args...)
}

// checkReceiverOf is checkReceiver for a kind of key, which the receiver has in a variable,
// and another kind, which it does not know.
func checkReceiverOf(t *testing.T, newKey, newOther func() signature.Secret, variable string, value func(signature.Secret) string, command string, args ...string) {
	t.Helper()
	port, err := process.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	secret := newKey()
	var log bytes.Buffer
	c := exec.Command(command, args...)
	c.Env = append(os.Environ(), fmt.Sprint("PORT=", port), variable+"="+value(secret))
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
		accept  bool
	}{
		"a signed webhook":           {[]signature.Secret{secret}, now, body, true},
		"during secret rotation":     {[]signature.Secret{newKey(), secret}, now, body, true},
		"beside the other kind":      {[]signature.Secret{newOther(), secret}, now, body, true},
		"the other kind only":        {[]signature.Secret{newOther()}, now, body, false},
		"a wrong secret":             {[]signature.Secret{newKey()}, now, body, false},
		"a changed body":             {[]signature.Secret{secret}, now, strings.Replace(body, "posted", "flagged", 1), false},
		"the same JSON, reformatted": {[]signature.Secret{secret}, now, strings.Replace(body, ",", ", ", 1), false},
		"older than five minutes":    {[]signature.Secret{secret}, now.Add(-10 * time.Minute), body, false},
	} {
		breakConnections(t, address) // the receiver must go on
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
		if want := map[bool]int{true: http.StatusNoContent, false: http.StatusUnauthorized}[r.accept]; response.StatusCode != want {
			t.Errorf("%s: status %d, want %d", name, response.StatusCode, want)
		}
	}
}

// breakConnections breaks two connections in the middle of a body: it closes one, and resets
// the other.
func breakConnections(t *testing.T, address string) {
	t.Helper()
	for _, reset := range []bool{false, true} {
		connection, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatalf("the receiver has ended: %v", err)
		}
		if _, err := fmt.Fprintf(connection, "POST /hooks HTTP/1.1\r\nHost: %s\r\nContent-Length: 100\r\n\r\n{\"a", address); err != nil {
			t.Fatal(err)
		}
		if reset {
			err = connection.(*net.TCPConn).SetLinger(0)
		}
		if err := errors.Join(err, connection.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReceivingInGo(t *testing.T) {
	checkReceiver(t, buildGo(t, "## Go"))
}

func TestReceivingInGoWithAPublicKey(t *testing.T) {
	checkPublicKeyReceiver(t, buildGo(t, "### Go with a public key"))
}

// buildGo builds the Go program of a section, and returns the binary's path.
func buildGo(t *testing.T, heading string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("builds a receiver")
	}
	dir := t.TempDir()
	binary := filepath.Join(dir, "receiver")
	build := exec.Command("go", "build", "-o", binary, program(t, heading, dir, "main.go"))
	build.Dir = ".." // uses the go.mod of the repository
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}
