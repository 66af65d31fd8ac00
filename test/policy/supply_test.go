package policy_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// workflowJob is a job of a workflow.
type workflowJob struct {
	Permissions map[string]string
	Uses        string
	Steps       []struct{ Uses, Run string }
}

// risks returns what is wrong with a workflow's jobs: a job that gets a token for a cloud, or
// signs, must run nothing that comes from a registry or is built there.
func risks(t *testing.T, text string) (problems []string) {
	t.Helper()
	var workflow struct {
		Permissions map[string]string
		Jobs        map[string]workflowJob
	}
	if err := yaml.Unmarshal([]byte(text), &workflow); err != nil {
		t.Fatal(err)
	}
	if workflow.Permissions["id-token"] == "write" {
		problems = append(problems, "every job gets a token")
	}
	builds := regexp.MustCompile(`(?m)(^|[\s;&|])(npm|npx|pip3?|go|make|sam build|curl|wget|\.ci/run|\S*/sam build|\S*/pip)([\s]|$)`)
	for name, job := range workflow.Jobs {
		if job.Permissions["id-token"] != "write" || job.Uses != "" {
			continue // a called workflow's jobs have their own permissions
		}
		unpacks, checks := false, false
		for _, step := range job.Steps {
			if m := builds.FindString(step.Run); m != "" {
				problems = append(problems, fmt.Sprintf("the job %s has a token and runs%s", name, m))
			}
			unpacks = unpacks || strings.Contains(step.Uses, "actions/download-artifact@")
			checks = checks || strings.Contains(step.Run, "sha256sum --check --strict")
		}
		if !unpacks || !checks {
			problems = append(problems, fmt.Sprintf("the job %s has a token and does not check the digest of what it gets", name))
		}
	}
	return problems
}

func TestSecurityJobsWithATokenBuildNothing(t *testing.T) {
	workflows, err := filepath.Glob("../../.github/workflows/*.yml")
	if err != nil {
		t.Fatal(err)
	}
	tokens := 0
	for _, workflow := range workflows {
		text, err := os.ReadFile(workflow)
		if err != nil {
			t.Fatal(err)
		}
		tokens += strings.Count(string(text), "id-token: write")
		for _, problem := range risks(t, string(text)) {
			t.Errorf("%s: %s", filepath.Base(workflow), problem)
		}
	}
	if tokens < 2 {
		t.Errorf("only %d jobs have a token", tokens)
	}
	const good = "jobs:\n  a:\n    permissions: { id-token: write }\n    steps:\n      - uses: actions/download-artifact@x\n      - run: echo x | sha256sum --check --strict\n"
	if found := risks(t, good); len(found) != 0 {
		t.Errorf("a good job: %q", found)
	}
	for _, bad := range []string{
		good + "      - run: npm ci\n", good + "      - run: |\n          set -e\n          make bin/tidings\n", good + "      - run: tools/x/bin/sam build\n", good + "      - run: go build ./...\n",
		strings.Replace(good, "sha256sum --check --strict", "cat", 1), "permissions: { id-token: write }\n" + good,
	} {
		if found := risks(t, bad); len(found) == 0 {
			t.Errorf("nothing is found in\n%s", bad)
		}
	}
}

// Packages from npm and PyPI are pinned by hash, and run no code when they are installed.
func TestSecurityPackagesArePinnedAndRunNoScripts(t *testing.T) {
	command := exec.Command("git", "ls-files", "-z", "Makefile", ".ci", ".github", "tools", "cmd", "test")
	command.Dir = "../.."
	out, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	npm, pip := regexp.MustCompile(`(?m)^[^#\n]*\bnpm (ci|install)\b.*$`), regexp.MustCompile(`(?m)^[^#\n]*\bpip3?"? install\b.*$`)
	found := 0
	for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(filepath.Join("../..", name))
		if err != nil {
			continue // deleted, and not committed yet
		}
		for _, line := range npm.FindAllString(string(text), -1) {
			found++
			if !strings.Contains(line, "--ignore-scripts") {
				t.Errorf("%s: %s: add --ignore-scripts", name, strings.TrimSpace(line))
			}
		}
		for _, line := range pip.FindAllString(string(text), -1) {
			found++
			if !strings.Contains(line, "--require-hashes") || !strings.Contains(line, "--no-deps --only-binary :all:") {
				t.Errorf("%s: %s: add --require-hashes --no-deps --only-binary :all:", name, strings.TrimSpace(line))
			}
		}
		if filepath.Ext(name) == ".txt" && strings.Contains(string(text), "==") {
			for _, one := range regexp.MustCompile(`(?m)^[A-Za-z0-9].*==.*(\n .*)*`).FindAllString(string(text), -1) {
				if found++; !strings.Contains(one, "--hash=sha256:") {
					t.Errorf("%s: %s has no hash", name, one)
				}
			}
		}
	}
	if found < 100 {
		t.Errorf("only %d installations and packages were found", found)
	}
}
