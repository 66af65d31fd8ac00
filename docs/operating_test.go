package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/event/catalog"
)

// Every alarm of the template has a runbook, and every runbook an alarm.
func TestEveryAlarmHasARunbook(t *testing.T) {
	template, err := os.ReadFile("../template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var alarms, runbooks []string
	for _, m := range regexp.MustCompile(`AlarmName: !Sub '\$\{AWS::StackName\}-([a-z-]+)'`).FindAllStringSubmatch(string(template), -1) {
		alarms = append(alarms, m[1])
	}
	if n := strings.Count(string(template), "Type: AWS::CloudWatch::Alarm"); n != len(alarms) || n == 0 {
		t.Errorf("%d alarms, %d of them named after the stack", n, len(alarms))
	}
	for _, section := range strings.Split(page(t, "operating.md"), "\n## ")[1:] {
		name, text, _ := strings.Cut(section, "\n")
		runbooks = append(runbooks, name)
		for _, part := range []string{"**Means:**", "**Look at:**", "**Do:**"} {
			if !strings.Contains(text, part) {
				t.Errorf("the runbook of %s lacks %s", name, part)
			}
		}
	}
	slices.Sort(alarms)
	slices.Sort(runbooks)
	if !slices.Equal(alarms, runbooks) {
		t.Errorf("alarms   %v\nrunbooks %v", alarms, runbooks)
	}
}

// Parameters and outputs named in the pages exist in the template.
func TestPagesNameExistingParameters(t *testing.T) {
	template, err := os.ReadFile("../template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	roles, err := os.ReadFile("../tools/github/role.yaml")
	if err != nil {
		t.Fatal(err)
	}
	template = append(template, roles...)
	for _, name := range []string{"operating.md", "deploying.md", "limits.md", "cost.md", "migrating.md"} {
		for _, m := range regexp.MustCompile("`([A-Z][a-z]+[A-Z][A-Za-z0-9]*)(=[^`]*)?`").FindAllStringSubmatch(page(t, name), -1) {
			if slices.Contains([]string{"IteratorAge", "ConcurrentExecutions", "AccessDenied", "ReportBatchItemFailures", "NewImage"}, m[1]) {
				continue // names of AWS
			}
			if !regexp.MustCompile(`\b` + m[1] + `\b`).Match(template) {
				t.Errorf("%s names %s, which is not in the template", name, m[1])
			}
		}
	}
}

// Log events named in the pages exist in the code.
func TestPagesNameExistingLogEvents(t *testing.T) {
	logged := map[string]bool{}
	families := map[string]bool{}
	err := filepath.WalkDir("../pkg", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range regexp.MustCompile(`(?:Debug|Info|Warn|Error|Log|LogAttrs|log)(?:Context)?\((?:[^"\n]*, )?"(([a-z]+)\.[a-z_]+)"`).FindAllStringSubmatch(string(source), -1) {
			logged[m[1]], families[m[2]] = true, true
		}
		return nil
	})
	if err != nil || len(logged) < 20 {
		t.Fatal(len(logged), err)
	}
	pages, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, name := range pages {
		for _, m := range regexp.MustCompile("`(([a-z]+)\\.[a-z_]+)`").FindAllStringSubmatch(page(t, name), -1) {
			if !families[m[2]] || strings.HasSuffix(m[1], ".go") {
				continue
			}
			if named++; !logged[m[1]] && !isType(m[1]) {
				t.Errorf("%s names the log event %s, which is never logged", name, m[1])
			}
		}
	}
	if named < 15 {
		t.Errorf("the pages name only %d log events", named)
	}
}

func isType(name string) bool { return slices.Contains(catalog.Default().Types(), name) }
