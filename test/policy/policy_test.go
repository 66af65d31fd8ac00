// Package policy_test holds the repository to its own rules: every package is
// documented and has a layer, imports point one way, and each function links only
// what it runs.
package policy_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
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
var layers = []layer{
	{"vocabulary", []string{"pkg/event", "pkg/signature", "pkg/platform", "pkg/systemtest/testrun"}},
	{"policies", []string{"pkg/delivery", "pkg/endpoint", "pkg/emit/capture", "pkg/ops"}},
	{"adapters", []string{"pkg/aws", "pkg/store", "pkg/destination"}},
	{"features", []string{"pkg/admin", "pkg/testsend", "pkg/emit", "pkg/dispatch", "pkg/platform/discussions", "pkg/platform/remote", "pkg/console", "pkg/ops/health", "pkg/ops/alert", "pkg/systemtest"}},
	{"functions", []string{"functions"}},
	{"local", []string{"pkg/local", "cmd/tidings", "examples"}},
	{"test", []string{"test", "docs"}},
}

type layer struct {
	name string
	dirs []string
}

// deny lists packages that a function must not link, directly or not, by the function's
// folder; "" is for all functions. A name matches the package and those below it.
var deny = map[string][]string{
	"": {module + "test", module + "pkg/local", module + "pkg/store/memory", "testing"},
	"close-discussions": {xray, cel, huma, jsonschema, kafka, pubsub, grpc, module + "pkg/ops/alert", module + "pkg/destination", module + "pkg/dispatch",
		module + "pkg/emit", module + "pkg/console", sdk + "sqs", sdk + "sns", sdk + "secretsmanager", sdk + "lambda"},
	"console": {xray, cel, module + "pkg/ops/alert", jsonschema, sdk + "sns"},
	"dispatch": {cel, huma, jsonschema, module + "pkg/ops/alert", module + "pkg/console", module + "pkg/emit", module + "pkg/testsend", sdk + "lambda",
		sdk + "sns"},
	"emit": {huma, kafka, pubsub, module + "pkg/ops/alert", module + "pkg/destination", module + "pkg/dispatch", module + "pkg/console",
		sdk + "sns", sdk + "secretsmanager", sdk + "lambda"},
	"health": {xray, cel, huma, jsonschema, kafka, pubsub, grpc, module + "pkg/destination", module + "pkg/dispatch", module + "pkg/emit", module + "pkg/console",
		sdk + "lambda"},
	"test-receiver": {xray, cel, huma, jsonschema, kafka, pubsub, grpc, module + "pkg/ops/alert", module + "pkg/ops/health", module + "pkg/destination", module + "pkg/dispatch",
		module + "pkg/emit", module + "pkg/console", module + "pkg/admin", sdk + "sqs", sdk + "sns", sdk + "secretsmanager", sdk + "lambda"},
	"test-webhook": {xray, cel, huma, module + "pkg/ops/alert", module + "pkg/console", module + "pkg/dispatch", module + "pkg/emit", sdk + "lambda", sdk + "sns"},
}

const (
	huma       = "github.com/danielgtaylor/huma"
	cel        = "cel.dev/cel-go"
	jsonschema = "github.com/santhosh-tekuri/jsonschema"
	kafka      = "github.com/segmentio/kafka-go"
	pubsub     = "cloud.google.com/go/pubsub"
	grpc       = "google.golang.org/grpc"
	xray       = "github.com/aws/aws-xray-sdk-go"
	sdk        = "github.com/aws/aws-sdk-go-v2/service/"
)

// core lists the packages, with those below them, that link nothing of AWS: main gives
// them their clients.
var core = []string{"pkg/event", "pkg/endpoint", "pkg/delivery", "pkg/emit", "pkg/dispatch"}

// pure lists the packages that do no I/O and read no clock.
var pure = []string{"pkg/event", "pkg/signature", "pkg/delivery", "pkg/endpoint", "pkg/emit/capture", "pkg/platform", "pkg/ops/stats", "pkg/ops/audit", "pkg/ops/tracing", "pkg/ops/cost", "pkg/systemtest/testrun"}

func layerOf(layers []layer, dir string) (at int, name string) {
	longest := -1
	at = -1
	for i, l := range layers {
		for _, d := range l.dirs {
			if below(d, dir) && len(d) > longest {
				at, name, longest = i, l.name, len(d)
			}
		}
	}
	return at, name
}

// below tells whether a package is another one or below it.
func below(parent, path string) bool { return path == parent || strings.HasPrefix(path, parent+"/") }

func isPure(dir string) bool {
	if strings.HasPrefix(dir, "pkg/platform/") {
		return false
	}
	return slices.ContainsFunc(pure, func(p string) bool { return below(p, dir) })
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

// imports returns what is wrong with the packages' layers and imports.
func imports(layers []layer, packages []listed) (problems []string) {
	for _, l := range packages {
		at, name := layerOf(layers, l.dir())
		if at < 0 {
			problems = append(problems, fmt.Sprintf("%s has no layer: add it to layers in this test", l.dir()))
			continue
		}
		for _, path := range l.Imports {
			inner, ours := strings.CutPrefix(path, module)
			if !ours {
				continue
			}
			if to, above := layerOf(layers, inner); to > at {
				problems = append(problems, fmt.Sprintf("%s (%s) imports %s (%s): imports point from the functions down to the vocabulary", l.dir(), name, inner, above))
			}
		}
	}
	return problems
}

func TestPolicyImportsPointDown(t *testing.T) {
	for _, problem := range imports(layers, packages(t)) {
		t.Error(problem)
	}
}

func TestPolicyImportsCheckFindsUpwardImportsAndMissingLayers(t *testing.T) {
	made := []layer{{"low", []string{"a"}}, {"high", []string{"b", "a/top"}}}
	for _, c := range []struct{ from, to, want string }{
		{"b", "a", ""}, {"b", "b/c", ""}, {"a/top", "b", ""}, {"a", "ab", ""},
		{"a", "b", "a (low) imports b (high)"}, {"a/x", "a/top/y", "a/x (low) imports a/top/y (high)"}, {"ab", "a", "ab has no layer"},
	} {
		got := strings.Join(imports(made, []listed{{ImportPath: module + c.from, Imports: []string{"fmt", module + c.to}}}), "; ")
		if got != c.want && (c.want == "" || !strings.HasPrefix(got, c.want)) {
			t.Errorf("%s imports %s: %q, want %q", c.from, c.to, got, c.want)
		}
	}
}

// denied returns which of a function's dependencies it must not link.
func denied(deny map[string][]string, function string, dependencies []string) (problems []string) {
	for _, d := range dependencies {
		for _, path := range slices.Concat(deny[""], deny[function]) {
			if below(path, d) {
				problems = append(problems, fmt.Sprintf("function %s links %s", function, d))
			}
		}
	}
	return problems
}

func TestPolicyFunctionsLinkOnlyWhatTheyRun(t *testing.T) {
	if testing.Short() {
		t.Skip("lists the dependencies of every function")
	}
	mains, err := filepath.Glob("../../functions/*/main.go")
	if err != nil || len(mains) != len(deny)-1 {
		t.Fatalf("%d functions, %d deny lists besides the common one (%v)", len(mains), len(deny)-1, err)
	}
	for _, main := range mains {
		name := filepath.Base(filepath.Dir(main))
		if deny[name] == nil {
			t.Errorf("function %s has no deny list", name)
		}
		for _, problem := range denied(deny, name, dependencies(t, "./functions/"+name)) {
			t.Error(problem)
		}
	}
}

// dependencies lists the packages that the packages of a pattern link.
func dependencies(t *testing.T, pattern string) []string {
	t.Helper()
	command := exec.Command("go", "list", "-deps", "-tags", "lambda.norpc", pattern)
	command.Dir, command.Stderr = "../..", os.Stderr
	out, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}

func TestPolicyCoreLinksNothingOfAWS(t *testing.T) {
	for _, dir := range core {
		linked := dependencies(t, "./"+dir+"/...")
		if !slices.Contains(linked, module+dir) {
			t.Errorf("go list -deps ./%s/... does not list the package itself", dir)
		}
		for _, path := range linked {
			if below("github.com/aws", path) || below(module+"pkg/aws", path) {
				t.Errorf("%s links %s: let main give it what it needs of AWS", dir, path)
			}
		}
	}
}

func TestPolicyDenyCheckFindsPackagesBelowADeniedOne(t *testing.T) {
	made := map[string][]string{"": {"x"}, "f": {"y/z"}}
	got := denied(made, "f", []string{"x/v2", "xx", "y", "y/z", "y/zz"})
	if want := []string{"function f links x/v2", "function f links y/z"}; !slices.Equal(got, want) {
		t.Errorf("denied = %q, want %q", got, want)
	}
	if got := denied(made, "g", []string{"y/z"}); len(got) > 0 {
		t.Errorf("denied = %q for another function", got)
	}
}

func TestPolicyPackagesAreDocumented(t *testing.T) {
	if testing.Short() {
		t.Skip("lists every package")
	}
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
	if testing.Short() {
		t.Skip("lists the dependencies of every package")
	}
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
