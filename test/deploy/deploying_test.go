//go:build rig

package deploy_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/systemtest"
	"github.com/tidings-dev/tidings/test/checkout"
	"github.com/tidings-dev/tidings/test/ministack"
)

var rate = flag.Int("rate", 10, "events per second of the load test; the emulator starts a process for each concurrent invocation")

// TestDeployingPage follows docs/deploying.md on an emulator of AWS: a reader runs each
// command of the page as it is written there. Meanwhile a stack is deployed as GitHub
// Actions does, with the roles that the page creates; a version of it that cannot start is
// rolled back.
func TestDeployingPage(t *testing.T) {
	root, err := checkout.Path()
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	began := time.Now()
	emulator := start(t, root, work)
	receiver := newReceiver(t)
	reader := newReader(t, emulator, root, work, map[string]string{"Architecture": ministack.Architecture(), "AllowHttp": "true", "AllowNetworks": "127.0.0.0/8"})
	// The stack as a job of GitHub Actions uses it.
	job := &stack{t: t, root: root, name: stackName}
	step(t, "create the roles of tools/github/role.yaml; only the environment's jobs may assume GitHub's", func() {
		if err := ministack.AdaptRoles(filepath.Join(reader.dir, "tools", "github", "role.yaml")); err != nil {
			t.Fatal(err)
		}
		reader.values["OWNER/REPOSITORY"] = "owner/name"
		const section = "Deploy a tag from GitHub Actions"
		reader.follow(section)
		reader.run(strings.ReplaceAll(reader.commands[section][0], environment, "prod"))
		for _, subject := range []string{"repo:owner/name:ref:refs/heads/main", "repo:owner/name:environment:prod", "repo:another/name:environment:" + environment} {
			if _, err := emulator.AsGitHub(t.Context(), stackName, subject); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
				t.Errorf("%s may assume the role (%v)", subject, err)
			}
		}
		if job.emulator, err = emulator.AsGitHub(t.Context(), stackName, "repo:owner/name:environment:"+environment); err != nil {
			t.Fatal(err)
		}
	})
	reader.follow("1. Check the account")
	reader.after["PARAMETERS="] = func(out string) {
		first, protected := strings.Index(out, `"DeletionProtection": "false"`), strings.LastIndex(out, `"DeletionProtection": "true"`)
		if first < 0 || protected < first {
			t.Errorf("a new stack is not first deployed without and then with deletion protection:\n%s", out)
		}
	}
	reader.follow("2. Build and deploy")
	built := filepath.Join(work, "built") // the page builds again
	if err := os.CopyFS(built, os.DirFS(reader.built())); err != nil {
		t.Fatal(err)
	}
	its := &stack{t: t, emulator: emulator, root: root, name: secondStack}
	reader.sendsATestEvent(its, receiver)
	applied := reader.addsATable()

	role := "AWS_CLOUDFORMATION_ROLE_ARN=" + ministack.StackRole(stackName)
	parameters := map[string]string{"AllowHttp": "true", "AllowNetworks": "127.0.0.0/8"}
	step(t, "sam deploy, as GitHub Actions does", func() { job.deploy(built, environment, parameters, role) })
	step(t, "tidings smoke, with GitHub's permissions", func() { job.expectSuccess() })
	step(t, fmt.Sprintf("tidings load, %d events a second for 10 s", *rate), func() {
		var load systemtest.LoadReport
		admin := job.as(emulator)
		admin.tidings(&load, "load", "--rate", fmt.Sprint(*rate), "--seconds", "10", "--receiver-url", admin.testReceiver())
		if load.Received != *rate*10 || load.Missing != 0 {
			t.Errorf("%+v", load)
		}
	})
	step(t, "a version whose dispatch cannot start: smoke fails", func() {
		broken := filepath.Join(work, "broken")
		copyWith(t, built, broken, func(t *testing.T, binary string) {
			if err := os.WriteFile(binary, []byte("#!/bin/sh\necho broken >&2\nexit 1\n"), 0o755); err != nil {
				t.Fatal(err)
			}
		})
		job.deploy(broken, environment, parameters, role)
		report, code := job.smoke("--receive-time", "10s")
		at := slices.IndexFunc(report.Steps, func(s systemtest.Step) bool { return !s.OK })
		if code != 1 || at < 0 || report.Steps[at].Name != "receive the webhook" || !strings.Contains(report.Steps[at].Error, "has not arrived") {
			t.Errorf("tidings smoke exits with %d: %+v", code, report.Steps)
		}
	})
	step(t, "roll back: deploy the version from before; smoke passes", func() {
		job.deploy(built, environment, parameters, role)
		job.expectSuccess()
	})
	reader.sellsOrders(its, receiver, applied)
	reader.followTheRest(its, &stack{t: t, emulator: emulator, root: root, name: prodStack}, receiver)
	fmt.Printf("%6.1f s  all\n", time.Since(began).Seconds())
}

func (s *stack) expectSuccess() {
	s.t.Helper()
	if report, code := s.smoke(); code != 0 || !report.OK {
		s.t.Errorf("tidings smoke exits with %d: %+v\n%s", code, report.Steps, s.emulator.Tail())
	}
}
