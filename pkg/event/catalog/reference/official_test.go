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
	third := strings.NewReplacer(`"x-version": 2`, `"x-version": 3`, "version 2", "version 3").Replace(secondOrder)
	for name, c := range map[string]struct {
		types    []catalog.Type
		channels int
	}{
		"the shipped types":      {shipped, len(shipped)},
		"a type with references": {[]catalog.Type{parse(t, order)}, 1},
		"a deprecated type":      {[]catalog.Type{parse(t, strings.Replace(order, "{", `{"x-deprecated": {"since": "2026-11-30"},`, 1))}, 1},
		"a type with retention":  {[]catalog.Type{parse(t, strings.Replace(order, "{", `{"x-retention-days": 365,`, 1))}, 1},
		"versions side by side":  {append([]catalog.Type{parse(t, order), parse(t, secondOrder), parse(t, third)}, shipped...), 1 + len(shipped)},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := reference.AsyncAPI(c.types, 30, schemaURL)
			if err != nil {
				t.Fatal(err)
			}
			want := fmt.Sprintf("%d channels, %d messages\n", c.channels, len(c.types))
			if out, err := check(t, text); err != nil || out != want {
				t.Errorf("%v: %s, want %s", err, out, want)
			}
		})
	}
	// The check can fail.
	if out, err := check(t, []byte(`{"asyncapi":"3.0.0","info":{"title":"no version"}}`)); err == nil {
		t.Errorf("a document without a version is accepted: %s", out)
	}
}
