// Package policy_test holds the repository to its own rules: every package is
// documented and has a layer, imports point one way, and each function links only
// what it runs.
package policy_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/tidings-dev/tidings/"

// layers lists every directory with Go code, lowest layer first. A package imports
// only from its own layer and from those before it. The longest matching prefix
// decides, so a new package below a listed one needs no line of its own.
var layers = []struct {
	name string
	dirs []string
}{
	{"vocabulary", []string{"pkg/onepass", "pkg/event", "pkg/signature", "pkg/platform"}},
	{"policies", []string{"pkg/delivery", "pkg/endpoint", "pkg/ops"}},
	{"adapters", []string{"pkg/aws", "pkg/store", "pkg/destination", "pkg/emit/capture"}},
	{"stories", []string{"pkg/admin", "pkg/testsend", "pkg/emit", "pkg/dispatch", "pkg/platform/discussions", "pkg/console", "pkg/ops/health", "pkg/ops/alert"}},
	{"functions", []string{"functions"}},
	{"local", []string{"pkg/local", "cmd/tidings", "examples"}},
	{"test", []string{"test", "docs"}},
}

// pure lists the packages that do no I/O and read no clock.
var pure = []string{"pkg/event", "pkg/signature", "pkg/delivery", "pkg/endpoint", "pkg/platform", "pkg/ops/stats", "pkg/ops/audit", "pkg/ops/tracing", "pkg/ops/cost"}

func layerOf(dir string) (at int, name string) {
	longest := -1
	at = -1
	for i, l := range layers {
		for _, d := range l.dirs {
			if (dir == d || strings.HasPrefix(dir, d+"/")) && len(d) > longest {
				at, name, longest = i, l.name, len(d)
			}
		}
	}
	return at, name
}

func isPure(dir string) bool {
	if strings.HasPrefix(dir, "pkg/platform/") {
		return false
	}
	return slices.ContainsFunc(pure, func(p string) bool { return dir == p || strings.HasPrefix(dir, p+"/") })
}

// listed is what `go list -json` says of a package.
type listed struct {
	ImportPath, Dir string
	GoFiles         []string
	Imports         []string
}

func (l listed) dir() string { return strings.TrimPrefix(l.ImportPath, module) }

// packages lists the repository's packages that have code besides tests.
func packages(t *testing.T) []listed {
	t.Helper()
	command := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,Imports", "./...")
	command.Dir = "../.."
	command.Stderr = os.Stderr
	out, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var l listed
		if err := dec.Decode(&l); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if len(l.GoFiles) > 0 {
			all = append(all, l)
		}
	}
	if len(all) < 50 {
		t.Fatalf("go list found %d packages", len(all))
	}
	return all
}

func TestPolicyImportsPointDown(t *testing.T) {
	for _, l := range packages(t) {
		at, name := layerOf(l.dir())
		if at < 0 {
			t.Errorf("%s has no layer: add it to layers in this test", l.dir())
			continue
		}
		for _, path := range l.Imports {
			inner, ours := strings.CutPrefix(path, module)
			if !ours {
				continue
			}
			if to, above := layerOf(inner); to > at {
				t.Errorf("%s (%s) imports %s (%s): imports point from functions to the vocabulary, never back", l.dir(), name, inner, above)
			}
		}
	}
}

func TestPolicyPackagesAreDocumented(t *testing.T) {
	for _, l := range packages(t) {
		documented := false
		for _, file := range l.GoFiles {
			parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(l.Dir, file), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			documented = documented || parsed.Doc != nil && len(parsed.Doc.Text()) > 60
			if slices.Contains([]string{"util", "utils", "common", "types", "helpers"}, parsed.Name.Name) {
				t.Errorf("%s: the package name %s does not say what the package does", l.dir(), parsed.Name.Name)
			}
		}
		if !documented {
			t.Errorf("%s: the package has no comment that says what it is and what it promises", l.dir())
		}
	}
}

// The vocabulary and the policies get their clock and their randomness from the caller.
func TestPolicyPurePackagesDoNoIO(t *testing.T) {
	for _, l := range packages(t) {
		if !isPure(l.dir()) {
			continue
		}
		for _, path := range l.Imports {
			if path == "net/http" || path == "os" || strings.HasPrefix(path, "github.com/aws/") || strings.HasPrefix(path, "database/") || path == "math/rand" || path == "math/rand/v2" {
				t.Errorf("%s imports %s: pure packages do no I/O", l.dir(), path)
			}
		}
		for _, file := range l.GoFiles {
			text, err := os.ReadFile(filepath.Join(l.Dir, file))
			if err != nil {
				t.Fatal(err)
			}
			for _, clock := range []string{"time.Now(", "time.Since(", "time.Until(", "time.Sleep("} {
				if bytes.Contains(text, []byte(clock)) {
					t.Errorf("%s/%s uses %s): pure packages are given the time", l.dir(), file, clock)
				}
			}
		}
	}
}
