//go:build receiving

package docs_test

import (
	"os"
	"path/filepath"
	"testing"
)

// The libraries are those that tools/receiving pins; `make verify-receiving`
// fetches them.
func TestReceivingInJavaScript(t *testing.T) {
	// Node looks for packages in the folders above the program.
	dir, err := os.MkdirTemp("../tools/receiving/.cache", "js")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	receives(t, "node", program(t, "js", dir, "receiver.mjs"))
}

func TestReceivingInPython(t *testing.T) {
	python, err := filepath.Abs("../tools/receiving/.cache/python/bin/python3")
	if err != nil {
		t.Fatal(err)
	}
	receives(t, python, program(t, "python", t.TempDir(), "receiver.py"))
}
