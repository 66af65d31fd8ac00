//go:build receiving

package docs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// tools/receiving pins the libraries; `make verify-receiving` fetches them. Those for Ruby,
// PHP and C# come with the Go library: one module has the official libraries of all
// languages, and go.sum pins it.

func TestReceivingInJavaScript(t *testing.T) {
	// Node searches for packages in the parent directories of the program.
	dir, err := os.MkdirTemp("../tools/receiving/.cache", "js")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	checkReceiver(t, "node", program(t, "## JavaScript", dir, "receiver.mjs"))
}

func TestReceivingInJavaScriptWithAPublicKey(t *testing.T) {
	checkPublicKeyReceiver(t, "node", program(t, "### JavaScript with a public key", t.TempDir(), "receiver.mjs"))
}

func TestReceivingInPython(t *testing.T) {
	checkReceiver(t, cached(t, "python/bin/python3"), program(t, "## Python", t.TempDir(), "receiver.py"))
}

func TestReceivingInJava(t *testing.T) {
	checkReceiver(t, "java", "-cp", cached(t, "java/standardwebhooks-1.2.0.jar"), program(t, "## Java", t.TempDir(), "Receiver.java"))
}

func TestReceivingInJavaWithAPublicKey(t *testing.T) {
	checkPublicKeyReceiver(t, "java", program(t, "### Java with a public key", t.TempDir(), "Receiver.java"))
}

func TestReceivingInRuby(t *testing.T) {
	checkReceiver(t, "ruby", "-I", library(t, "ruby/lib"), program(t, "## Ruby", t.TempDir(), "receiver.rb"))
}

func TestReceivingInRubyWithAPublicKey(t *testing.T) {
	checkPublicKeyReceiver(t, "ruby", program(t, "### Ruby with a public key", t.TempDir(), "receiver.rb"))
}

func TestReceivingInPHP(t *testing.T) {
	dir := t.TempDir()
	// What Composer makes of the package's autoload entry.
	autoload := `<?php spl_autoload_register(function ($class) {
	require "` + library(t, "php/src") + `/" . str_replace("\\", "/", substr($class, strlen("StandardWebhooks\\"))) . ".php";
});`
	if err := os.Mkdir(filepath.Join(dir, "vendor"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "vendor", "autoload.php"), []byte(autoload), 0o644); err != nil {
		t.Fatal(err)
	}
	program(t, "## PHP", dir, "receiver.php")
	checkReceiver(t, "sh", "-c", `cd "$1" && exec php -S 127.0.0.1:$PORT receiver.php`, "sh", dir)
}

func TestReceivingInPHPWithAPublicKey(t *testing.T) {
	checkPublicKeyReceiver(t, "sh", "-c", `exec php -S 127.0.0.1:$PORT "$1"`, "sh", program(t, "### PHP with a public key", t.TempDir(), "receiver.php"))
}

func TestReceivingInCSharp(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "receiver.exe")
	output(t, "mcs", "-out:"+binary, program(t, "## C#", dir, "Receiver.cs"),
		library(t, "csharp/StandardWebhooks/Webhook.cs"), library(t, "csharp/StandardWebhooks/Utils.cs"),
		library(t, "csharp/StandardWebhooks/Exceptions/WebhookVerificationException.cs"))
	checkReceiver(t, "mono", binary)
}

func TestReceivingInRust(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"Cargo.toml", "Cargo.lock"} {
		text, err := os.ReadFile(filepath.Join("../tools/receiving/rust", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	source := program(t, "## Rust", dir, "main.rs")
	output(t, "cargo", "build", "--quiet", "--locked", "--offline", "--manifest-path", filepath.Join(filepath.Dir(source), "Cargo.toml"),
		"--target-dir", cached(t, "rust"))
	checkReceiver(t, cached(t, "rust/debug/receiver"))
}

// cached returns the path of what tools/receiving/fetch has fetched.
func cached(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../tools/receiving/.cache", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// library returns the path of an official library within their Go module.
func library(t *testing.T, name string) string {
	t.Helper()
	dir := output(t, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/standard-webhooks/standard-webhooks/libraries")
	return filepath.Join(strings.TrimSpace(dir), name)
}

func output(t *testing.T, command string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), command, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}
