package docs_test

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
)

// The table of sam-local.md has each function by its logical id, with all its samples.
func TestSamLocalListsEachFunctionAndSample(t *testing.T) {
	parsed, err := samtemplate.Load("../template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	stack, err := parsed.Resolve(samtemplate.Context{StackName: "s", Region: "us-east-1", Account: "123456789012", Parameters: map[string]string{"TestReceiver": "true"}})
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]string{} // function by sample
	row := regexp.MustCompile("(?m)^\\| `([A-Za-z]+)` \\|(.*)$")
	for _, m := range row.FindAllStringSubmatch(page(t, "sam-local.md"), -1) {
		for _, sample := range regexp.MustCompile("`([a-z-]+)`").FindAllStringSubmatch(m[2], -1) {
			listed[sample[1]] = m[1]
		}
	}
	files, err := filepath.Glob("../events/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal(len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		want := stack.ForSample(name)
		if want == nil || listed[name] != want.LogicalID {
			t.Errorf("sam-local.md lists %s with %q; its function is %+v", name, listed[name], want)
		}
		delete(listed, name)
	}
	for name := range listed {
		t.Errorf("sam-local.md lists %s, which is not in events/", name)
	}
}
