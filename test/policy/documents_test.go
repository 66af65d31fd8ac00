package policy_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// frontPages are the documents that a newcomer reads first.
var frontPages = []string{"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"}

var (
	codeSpan   = regexp.MustCompile("`([^`\n]+)`")
	linkTarget = regexp.MustCompile(`\]\(([^)#\s]+)[^)]*\)`)
	topLevel   = regexp.MustCompile(`^(\.?[\w.-]+/|[A-Z]+\.md$|Makefile$|template\.yaml$|go\.mod$)`)
	makeTarget = regexp.MustCompile("(?m)(?:^|`|step )make ([a-z][a-z/-]*)")
)

// CONTRIBUTING.md says where things are, so it must not name a file that has moved.
func TestPolicyPathsInDocumentsExist(t *testing.T) {
	for _, page := range frontPages {
		text := readFile(t, page)
		var paths []string
		for _, m := range linkTarget.FindAllStringSubmatch(text, -1) {
			if !strings.Contains(m[1], "://") {
				paths = append(paths, m[1])
			}
		}
		if page == "CONTRIBUTING.md" {
			for _, m := range codeSpan.FindAllStringSubmatch(text, -1) {
				// A path has no spaces; <name> stands for any name.
				if p := m[1]; topLevel.MatchString(p) && !strings.ContainsAny(p, " @…=$") && !strings.Contains(p, "://") {
					paths = append(paths, p)
				}
			}
			if len(paths) < 30 {
				t.Errorf("CONTRIBUTING.md names only %d paths: is the pattern in this test still right?", len(paths))
			}
		}
		for _, p := range paths {
			pattern := regexp.MustCompile(`<[^>]*>`).ReplaceAllString(p, "*")
			pattern = strings.TrimSuffix(pattern, "/...")
			if found, err := filepath.Glob(filepath.Join("../..", pattern)); err != nil || len(found) == 0 {
				t.Errorf("%s names %s, which does not exist", page, p)
			}
		}
	}
}

func TestPolicyMakeTargetsInDocumentsExist(t *testing.T) {
	makefile := readFile(t, "Makefile")
	for _, page := range []string{"README.md", "CONTRIBUTING.md", ".ci/run", ".github/pull_request_template.md"} {
		for _, m := range makeTarget.FindAllStringSubmatch(readFile(t, page), -1) {
			if !strings.Contains(makefile, "\n"+m[1]+":") {
				t.Errorf("%s names `make %s`, which the Makefile does not have", page, m[1])
			}
		}
	}
}

func TestPolicyFrontPagesAreReadable(t *testing.T) {
	if lines := strings.Count(readFile(t, "README.md"), "\n"); lines > 200 {
		t.Errorf("README.md has %d lines; at most 200: move details to docs/", lines)
	}
	pages := slices.Clone(frontPages)
	for _, pattern := range []string{"docs/*.md", "examples/*/*.md"} {
		found, err := filepath.Glob(filepath.Join("../..", pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, page := range found {
			pages = append(pages, strings.TrimPrefix(filepath.ToSlash(page), "../../"))
		}
	}
	for _, page := range pages {
		code := false
		for i, line := range strings.Split(readFile(t, page), "\n") {
			if strings.HasPrefix(line, "```") {
				code = !code
			}
			if !code && !strings.HasPrefix(line, "|") && !strings.HasPrefix(line, "[") && utf8.RuneCountInString(line) >= 120 {
				t.Errorf("%s:%d has %d columns; at most 119 outside tables and code", page, i+1, utf8.RuneCountInString(line))
			}
		}
	}
}

// A tag of an action can be moved to other code; a commit cannot.
func TestPolicyActionsArePinned(t *testing.T) {
	workflows, err := filepath.Glob("../../.github/workflows/*.yml")
	if err != nil || len(workflows) == 0 {
		t.Fatal("no workflows found", err)
	}
	uses := regexp.MustCompile(`(?m)^\s*(?:- )?uses: *(.*)$`)
	pinned := regexp.MustCompile(`^[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$`)
	for _, workflow := range workflows {
		text, err := os.ReadFile(workflow)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range uses.FindAllStringSubmatch(string(text), -1) {
			if local := strings.HasPrefix(m[1], "./.github/workflows/"); !local && !pinned.MatchString(m[1]) {
				t.Errorf("%s uses %s: pin it as owner/name@<commit> # v1.2.3", filepath.Base(workflow), m[1])
			}
		}
	}
}
