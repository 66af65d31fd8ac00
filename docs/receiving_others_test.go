//go:build receiving

package docs_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/tidings-dev/tidings/pkg/signature"
)

// tools/receiving pins the libraries; `make verify-receiving` fetches them.
func TestReceivingInJavaScript(t *testing.T) {
	// Node searches for packages in the parent directories of the program.
	dir, err := os.MkdirTemp("../tools/receiving/.cache", "js")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	checkReceiver(t, "node", program(t, "js", dir, "receiver.mjs"))
}

func TestReceivingWithEd25519(t *testing.T) {
	checkReceiverOf(t, signature.NewEd25519, "WEBHOOK_PUBLIC_KEY", signature.Secret.Public, "node", program(t, "javascript", t.TempDir(), "receiver.mjs"))
}

func TestReceivingInPython(t *testing.T) {
	python, err := filepath.Abs("../tools/receiving/.cache/python/bin/python3")
	if err != nil {
		t.Fatal(err)
	}
	checkReceiver(t, python, program(t, "python", t.TempDir(), "receiver.py"))
}

func TestReceivingInJava(t *testing.T) {
	jar, err := filepath.Abs("../tools/receiving/.cache/java/standardwebhooks-1.2.0.jar")
	if err != nil {
		t.Fatal(err)
	}
	checkReceiver(t, "java", "-cp", jar, program(t, "java", t.TempDir(), "Receiver.java"))
}
