// Package pkg_test holds the repository to its own rules: what a reader may rely
// on without looking.
package pkg_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/tidings-dev/tidings/"

// layers are the packages from which imports may only point down. What stands
// in one may import what stands below it, and nothing above.
var layers = [][]string{
	{"onepass", "event", "delivery", "retry", "breaker", "ratelimit", "signature", "pattern", "endpoint", "work", "catalog", "tracing", "platform", "stats", "audit"}, // vocabulary and policies
	{"schema", "guard", "adapter", "trigger", "capture", "functionurl"},
	{"dynamostore", "memstore", "queue", "localqueue", "topic", "metrics", "secretstore", "invoker", "sqsapi", "xraytracing",
		"adapter/httpadapter", "adapter/sqsadapter", "adapter/pubsubadapter", "adapter/kafkaadapter"}, // I/O
	{"emit", "dispatch", "registry", "testwebhook", "discussions", "console", "play", "health", "alert"}, // the stories
	{"daemon", "template", "assemble", "destinations", "receiver", "localdynamo", "localbrokers", "realbrokers", "local", "harness", "cost", "rehearsal", "simulation"},
}

// pure are the packages that do no I/O and read no clock.
var pure = layers[0]

func layer(name string) int {
	return slices.IndexFunc(layers, func(l []string) bool { return slices.Contains(l, name) })
}

func TestPackages(t *testing.T) {
	for _, root := range []string{".", "../cmd", "../functions", "../examples"} {
		err := filepath.WalkDir(root, func(dir string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return err
			}
			files, err := filepath.Glob(filepath.Join(dir, "*.go"))
			if err != nil {
				return err
			}
			documented, sources := false, 0
			for _, file := range files {
				if strings.HasSuffix(file, "_test.go") {
					continue
				}
				sources++
				parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
				if err != nil {
					return err
				}
				documented = documented || parsed.Doc != nil && len(parsed.Doc.Text()) > 60
				if slices.Contains([]string{"util", "utils", "common", "types", "helpers"}, parsed.Name.Name) {
					t.Errorf("%s: package %s is named for nothing it does", file, parsed.Name.Name)
				}
				for _, i := range parsed.Imports {
					path, err := strconv.Unquote(i.Path.Value)
					if err != nil {
						return err
					}
					checkImport(t, file, filepath.ToSlash(dir), path)
				}
			}
			if sources > 0 && !documented {
				t.Errorf("%s: the package has no comment that says what it is and what it promises", dir)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func checkImport(t *testing.T, file, dir, path string) {
	t.Helper()
	if slices.Contains(pure, dir) {
		for _, no := range []string{"net/http", "os", "github.com/aws/", "database/"} {
			if path == no || strings.HasSuffix(no, "/") && strings.HasPrefix(path, no) {
				t.Errorf("%s imports %s: the vocabulary does no I/O", file, path)
			}
		}
	}
	inner, ours := strings.CutPrefix(path, module+"pkg/")
	if !ours || layer(dir) < 0 {
		return
	}
	if layer(inner) < 0 {
		t.Errorf("%s imports %s, which stands in no layer: name it in this test", file, path)
	}
	if layer(inner) > layer(dir) {
		t.Errorf("%s imports %s: imports point from the stories to the vocabulary, not back", file, path)
	}
}

// Pure code gets its clock and its randomness from whoever calls it.
func TestThePureReadNoClock(t *testing.T) {
	for _, name := range append(slices.Clone(pure), "capture") {
		files, err := filepath.Glob(filepath.Join(name, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %v", name, files, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, clock := range []string{"time.Now(", "time.Since(", "time.Until(", "time.Sleep(", "math/rand"} {
				if strings.Contains(string(text), clock) {
					t.Errorf("%s uses %s", file, clock)
				}
			}
		}
	}
}
