// Package deploy_test deploys the template to an emulator of AWS and follows
// docs/deploying.md there: see deploy_test.go, which has the build tag rig.
package deploy_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// sections are those of docs/deploying.md that have commands, in the order in which the
// test follows them.
var sections = []string{
	"Deploy a tag from GitHub Actions",
	"1. Check the account",
	"2. Build and deploy",
	"3. Send a test event",
	"Deploy a new version",
	"Static source addresses",
	"Delete a stack, and what remains",
	"Roll back",
}

// more are sections of other pages that the test follows, by page.
var more = map[string]string{
	"docs/capture.md":         "Capture from more tables",
	"examples/shop/README.md": "On AWS",
}

// reasons says why a command of the page, by how it begins, cannot work on the emulator.
// The test runs it all the same, and fails if it works.
var reasons = map[string]string{
	"curl https://tidings.example.com": "the domain is the reader's",
}

// edits are what the test writes in the place of words of the page for the emulator, each
// with the reason; for the reader's own words, such as ENDPOINT, it has values.
var edits = []struct{ from, to, reason string }{
	{"smoke --stack", "smoke --receiver-url RECEIVER_URL --stack", "the host name of the URL in the stack's outputs is not in DNS"},
	{"doctor --stack tidings-prod", "doctor --stack tidings-prod || [ $? = 1 ]", "the emulator protects no table from deletion"},
	{"go run ./examples/shop", "go run -trimpath ./examples/shop", "most of it is compiled so already"},
	{"import.py tidings", "import.py tidings SecretsKeyArn=create", "the stack has a key of its own"},
}

var codeBlock = regexp.MustCompile("(?ms)^```sh\n(.*?)^```")

// commands returns the shell commands of a page of documentation by the title of their
// section. A loop and a continued line are one command.
func commands(page string) map[string][]string {
	all := map[string][]string{}
	for _, section := range regexp.MustCompile(`(?m)^## `).Split(page, -1)[1:] {
		title, text, _ := strings.Cut(section, "\n")
		for _, block := range codeBlock.FindAllStringSubmatch(text, -1) {
			var command string
			for line := range strings.Lines(block[1]) {
				command = strings.TrimLeft(command+line, "\n")
				open := strings.HasPrefix(command, "for ") && !strings.HasSuffix(command, "done\n")
				if command == "" || open || strings.HasSuffix(command, "\\\n") {
					continue
				}
				all[title] = append(all[title], strings.TrimSpace(command))
				command = ""
			}
		}
	}
	return all
}

// reason returns why a command cannot work on the emulator, or "".
func reason(command string) string {
	for begins, reason := range reasons {
		if strings.HasPrefix(command, begins) {
			return reason
		}
	}
	return ""
}

// TestEachSectionWithCommandsIsFollowed holds sections, reasons and edits to the page
// without an emulator.
func TestEachSectionWithCommandsIsFollowed(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "deploying.md"))
	if err != nil {
		t.Fatal(err)
	}
	all := commands(string(text))
	have, want := slices.Sorted(maps.Keys(all)), slices.Sorted(slices.Values(sections))
	if !slices.Equal(have, want) {
		t.Errorf("the page has commands in the sections %q, the test follows %q", have, want)
	}
	for name, section := range more {
		text, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		if all[section] = commands(string(text))[section]; len(all[section]) == 0 {
			t.Errorf("%s has no commands in the section %q", name, section)
		}
	}
	list := slices.Concat(slices.Collect(maps.Values(all))...)
	for begins := range reasons {
		if !slices.ContainsFunc(list, func(c string) bool { return strings.HasPrefix(c, begins) }) {
			t.Errorf("the page has no command %q any more", begins)
		}
	}
	for _, e := range edits {
		if !slices.ContainsFunc(list, func(c string) bool { return strings.Contains(c, e.from) }) {
			t.Errorf("the page has no command with %q any more", e.from)
		}
	}
}

func TestCommandsOfAPage(t *testing.T) {
	page := "# Title\n\n```sh\nbefore the first section\n```\n\n## One\n\nText.\n\n```sh\na        # why\nb \\\n  --c\n\nfor x in 1 2; do\n  d $x\ndone\n```\n\n" +
		"## Two\n\n```json\n{}\n```\n\n## Three\n\n```sh\ne && f\n```\n\n```sh\ng\n```\n"
	want := map[string][]string{"One": {"a        # why", "b \\\n  --c", "for x in 1 2; do\n  d $x\ndone"}, "Three": {"e && f", "g"}}
	if got := commands(page); !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("%q, want %q", got, want)
	}
}
