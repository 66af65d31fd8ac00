package docs_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// planRows is the number of rows per section of the plan.
var planRows = map[string]int{
	"Dashboard": 5, "Phase 1: foundation": 10, "Phase 2: protocols": 8, "Phase 3: reliability": 6, "Phase 4: observability": 6,
	"Events": 9, "Tests": 4, "Deployment": 3, "Metrics": 5, "Action items": 6, "Goals of the first week": 3, "The document itself": 2,
}

var progressRow = regexp.MustCompile("^\\| (\\d+) \\| (.+) \\| (.+) \\| `(.+)` \\|$")

// Every row of the plan names where it is and a command that proves it. What they name
// exists; `make progress` runs the commands.
func TestProgress(t *testing.T) {
	counts, number := map[string]int{}, 0
	for _, section := range strings.Split(page(t, "progress.md"), "\n## ")[1:] {
		title, text, _ := strings.Cut(section, "\n")
		for _, line := range strings.Split(text, "\n") {
			if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| # ") {
				continue
			}
			m := progressRow.FindStringSubmatch(line)
			if m == nil {
				t.Errorf("%s: not a row with a number and a command: %s", title, line)
				continue
			}
			counts[title]++
			if number++; m[1] != fmt.Sprint(number) {
				t.Errorf("%s: row %s comes after row %d", title, m[1], number-1)
			}
			for _, problem := range append(missingPaths(t, m[2]+" "+m[3]), missingProof(t, strings.ReplaceAll(m[4], `\|`, "|"))...) {
				t.Errorf("row %s: %s", m[1], problem)
			}
		}
	}
	for title, want := range planRows {
		if counts[title] != want {
			t.Errorf("%s: %d rows, the plan has %d", title, counts[title], want)
		}
	}
	if number != 67 {
		t.Errorf("%d rows, the plan has 67", number)
	}
}

func TestProgressFindsWhatIsMissing(t *testing.T) {
	for name, problems := range map[string][]string{
		"path":           missingPaths(t, "`pkg/nowhere`"),
		"link":           missingPaths(t, "[x](nowhere.md)"),
		"anchor":         missingPaths(t, "[x](monitoring.md#nowhere)"),
		"make target":    missingProof(t, "make nowhere"),
		"package":        missingProof(t, "go test ./pkg/nowhere"),
		"test":           missingProof(t, "go test ./pkg/emit -run TestNowhere"),
		"one of two":     missingProof(t, "go test ./pkg/emit -run 'TestFunctionURL|TestNowhere'"),
		"other commands": missingProof(t, "true"),
	} {
		if len(problems) != 1 {
			t.Errorf("%s: %d problems found, want 1: %v", name, len(problems), problems)
		}
	}
}

var (
	codeText = regexp.MustCompile("`([^`]+)`")
	linkText = regexp.MustCompile(`\]\(([^)#]*)(?:#([^)]*))?\)`)
	isPath   = regexp.MustCompile(`^(\.github|[a-z]+)/[\w./-]+$|^template\.yaml$`)
)

// missingPaths returns the paths in code spans and the targets of links that do not exist.
func missingPaths(t *testing.T, text string) (problems []string) {
	t.Helper()
	for _, m := range codeText.FindAllStringSubmatch(text, -1) {
		if !isPath.MatchString(m[1]) {
			continue
		}
		if _, err := os.Stat(filepath.Join("..", m[1])); err != nil {
			problems = append(problems, m[1]+" does not exist")
		}
	}
	for _, m := range linkText.FindAllStringSubmatch(text, -1) {
		linked, err := os.ReadFile(m[1])
		if err != nil {
			problems = append(problems, m[1]+" does not exist")
			continue
		}
		if m[2] != "" && !slices.Contains(anchors(string(linked)), m[2]) {
			problems = append(problems, fmt.Sprintf("%s has no heading #%s", m[1], m[2]))
		}
	}
	return problems
}

// anchors returns the anchors of a page's headings, as GitHub forms them.
func anchors(text string) (list []string) {
	for _, line := range strings.Split(text, "\n") {
		if heading, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && strings.HasPrefix(line, "#") {
			kept := regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(heading), "")
			list = append(list, strings.ReplaceAll(kept, " ", "-"))
		}
	}
	return list
}

// missingProof returns what a command names and does not exist: a make target, a package,
// or for each alternative of -run a test.
func missingProof(t *testing.T, command string) (problems []string) {
	t.Helper()
	words := strings.Fields(command)
	switch {
	case words[0] == "make" && len(words) > 1:
		makefile, err := os.ReadFile("../Makefile")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(makefile), "\n"+words[1]+":") {
			problems = append(problems, "the Makefile has no target "+words[1])
		}
	case strings.HasPrefix(command, "go test "):
		var tests []string
		pattern := ""
		for i := 2; i < len(words); i++ {
			switch word := words[i]; {
			case word == "-run":
				i++
				pattern = strings.Trim(words[i], "'")
			case strings.HasPrefix(word, "./"):
				found := testsOf(t, word)
				if len(found) == 0 {
					problems = append(problems, word+" has no tests")
				}
				tests = append(tests, found...)
			}
		}
		for _, alternative := range strings.Split(pattern, "|") {
			expression := regexp.MustCompile(alternative)
			if len(tests) > 0 && !slices.ContainsFunc(tests, expression.MatchString) {
				problems = append(problems, "no test matches "+alternative)
			}
		}
	default:
		problems = append(problems, "the proof must be a make target or `go test`: "+command)
	}
	return problems
}

// filesOf returns the files that match a pattern.
func filesOf(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// testsOf returns the tests of a package, or of a tree if it ends with "/...".
func testsOf(t *testing.T, pattern string) (names []string) {
	t.Helper()
	dir, tree := strings.CutSuffix(filepath.Join("..", pattern), "/...")
	files := filesOf(t, filepath.Join(dir, "*_test.go"))
	if tree {
		files = append(files, filesOf(t, filepath.Join(dir, "*", "*_test.go"))...)
	}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") && f.Name.Name != "TestMain" {
				names = append(names, f.Name.Name)
			}
		}
	}
	return names
}
