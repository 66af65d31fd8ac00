//go:build receiving

package reference_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/catalog/reference"
)

// tools/receiving pins the official parser; `make verify-receiving` fetches it.
func TestReceivingTheOfficialParserAcceptsTheAsyncAPIDocument(t *testing.T) {
	var shipped []catalog.Type
	for _, name := range catalog.Default().Types() {
		kind, _ := catalog.Default().Type(name)
		shipped = append(shipped, kind)
	}
	schemaURL := func(name string) string { return "https://console.example.com/catalog/schemas/" + name + ".json" }
	check := func(t *testing.T, text []byte) (string, error) {
		file := filepath.Join(t.TempDir(), "asyncapi.json")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), "node", "../../../../tools/receiving/asyncapi.mjs", file).CombinedOutput()
		return string(out), err
	}
	for name, types := range map[string][]catalog.Type{"the shipped types": shipped, "a type with references": {parse(t, order)},
		"a deprecated type": {parse(t, strings.Replace(order, "{", `{"x-deprecated": {"since": "2026-11-30"},`, 1))}} {
		t.Run(name, func(t *testing.T) {
			text, err := reference.AsyncAPI(types, schemaURL)
			if err != nil {
				t.Fatal(err)
			}
			if out, err := check(t, text); err != nil || out != fmt.Sprintf("%d channels\n", len(types)) {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	// The check can fail.
	if out, err := check(t, []byte(`{"asyncapi":"3.0.0","info":{"title":"no version"}}`)); err == nil {
		t.Errorf("a document without a version is accepted: %s", out)
	}
}
