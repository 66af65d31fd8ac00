package docs_test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/retry"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
)

// tableRow returns the cells of the row whose first cell is name.
func tableRow(t *testing.T, text, name string) []string {
	t.Helper()
	for _, line := range strings.Split(text, "\n") {
		if rest, ok := strings.CutPrefix(line, "| "+name+" | "); ok {
			return strings.Split(strings.TrimSuffix(rest, " |"), " | ")
		}
	}
	t.Errorf("no row %s", name)
	return []string{"", "", ""}
}

func TestImplementationPlanHasTheThresholdsOfTheCode(t *testing.T) {
	text := page(t, "implementation-plan.md")
	short := func(d fmt.Stringer) string {
		text := d.String()
		if strings.HasSuffix(text, "m0s") {
			text = strings.TrimSuffix(text, "0s")
		}
		if strings.HasSuffix(text, "h0m") {
			text = strings.TrimSuffix(text, "0m")
		}
		return text
	}
	for name, want := range map[string]string{
		"age":                                short(retry.DefaultMaxAge),
		"first backoff, factor, longest":     fmt.Sprintf("2s, 2, %s", short(retry.DefaultMaxDelay)),
		"timeout of an attempt":              endpoint.DefaultTimeout.String(),
		"circuit breaker opens after":        fmt.Sprint(breaker.DefaultFailures),
		"… that span at least":               short(breaker.DefaultFailingFor),
		"… first probe after, doubled up to": fmt.Sprintf("%s, %s", short(breaker.DefaultOpenFor), short(breaker.DefaultMaxOpenFor)),
		"… endpoint disabled after":          short(breaker.DefaultDisableAfter),
	} {
		if got := tableRow(t, text, name)[0]; got != want {
			t.Errorf("%s: the page says %s, the code %s", name, got, want)
		}
	}
	template, err := os.ReadFile("../template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	parameters := regexp.MustCompile("(?m)^\\| `(Alert\\w+)` \\| (\\d+) \\|").FindAllStringSubmatch(text, -1)
	if len(parameters) < 7 {
		t.Errorf("only %d parameters in the page", len(parameters))
	}
	for _, m := range parameters {
		if !regexp.MustCompile(`\n  ` + m[1] + `:\n    Type: Number\n    Default: ` + m[2] + `\n`).Match(template) {
			t.Errorf("%s is not %s in the template", m[1], m[2])
		}
	}
}

func TestImplementationPlanHasThePayloadsOfTheCatalog(t *testing.T) {
	text := page(t, "implementation-plan.md")
	for _, eventType := range catalog.Default().Types() {
		schema, err := os.ReadFile("../pkg/event/catalog/schemas/" + eventType + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var s struct {
			Properties map[string]any
			Required   []string
		}
		if err := json.Unmarshal(schema, &s); err != nil {
			t.Fatal(err)
		}
		cells := tableRow(t, text, "`"+eventType+"`")
		fields := codeText.FindAllStringSubmatch(cells[0], -1)
		if len(fields) != len(s.Required) {
			t.Errorf("%s: %d required fields in the page, %d in the schema", eventType, len(fields), len(s.Required))
		}
		for _, name := range s.Required {
			if !strings.Contains(cells[0], "`"+name+"`") {
				t.Errorf("%s: %s is not among the required fields of the page", eventType, name)
			}
		}
		all := append(fields, codeText.FindAllStringSubmatch(cells[1], -1)...)
		for _, m := range all {
			if _, ok := s.Properties[m[1]]; !ok {
				t.Errorf("%s: the schema has no %s", eventType, m[1])
			}
		}
		if len(all) != len(s.Properties) {
			t.Errorf("%s: %d fields in the page, %d in the schema", eventType, len(all), len(s.Properties))
		}
	}
}

// The checklist names only commands, targets, files and pages that exist.
func TestManualChecklist(t *testing.T) {
	text := page(t, "manual-checklist.md")
	rows := regexp.MustCompile(`(?m)^\| (\d+) \| (.+) \| (.+) \| ☐ \|$`).FindAllStringSubmatch(text, -1)
	if len(rows) < 20 {
		t.Fatalf("only %d rows", len(rows))
	}
	commands := commandsOfTheCLI(t)
	for i, row := range rows {
		if row[1] != fmt.Sprint(i+1) {
			t.Errorf("row %s comes after row %d", row[1], i)
		}
		for _, problem := range missingPaths(t, row[2]) {
			t.Errorf("row %s: %s", row[1], problem)
		}
		for _, m := range regexp.MustCompile(`bin/tidings (?:--stack \w+ )?(\w+)(?: (\w+))?`).FindAllStringSubmatch(row[2], -1) {
			if !commands[m[1]] {
				t.Errorf("row %s: tidings has no command %s", row[1], m[1])
			}
		}
		for _, m := range regexp.MustCompile("`(make [a-z-]+)").FindAllStringSubmatch(row[2], -1) {
			for _, problem := range missingProof(t, m[1]) {
				t.Errorf("row %s: %s", row[1], problem)
			}
		}
		for _, m := range regexp.MustCompile(`(?:@|^|\s)((?:events|tools)/[\w./-]+)`).FindAllStringSubmatch(row[2], -1) {
			if _, err := os.Stat("../" + m[1]); err != nil {
				t.Errorf("row %s: %s does not exist", row[1], m[1])
			}
		}
	}
}

// commandsOfTheCLI returns the names of the tool's commands and subcommands.
func commandsOfTheCLI(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, name := range filesOf(t, "../cmd/tidings/*.go") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`Use:\s+"(\w+)`).FindAllStringSubmatch(string(text), -1) {
			names[m[1]] = true
		}
	}
	return names
}
