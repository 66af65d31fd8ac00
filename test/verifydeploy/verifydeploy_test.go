// Package verifydeploy_test checks template.yaml and the deployed binaries without an AWS
// account, with AWS's own tools: it lints the template, checks it against checkov's
// rules, builds every function, and runs each under the Lambda Runtime Interface
// Emulator with each sample event. It promises to fail if any of these reports a
// problem, and to print it. Package deploy deploys the template to an emulator.
package verifydeploy_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// verifier has the state that the steps share.
type verifier struct {
	project string // the checkout
	work    string // folder of the builds
	update  bool   // write the expected answers instead of comparing with them
}

// tool runs one of the tools that tools/sam/fetch has fetched.
func (v *verifier) tool(ctx context.Context, environment, tool string, extra []string, args ...string) error {
	path := filepath.Join(v.project, "tools", "sam", ".cache", environment, "bin", tool)
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("%w: `make verify-deploy` fetches it", err)
	}
	c := exec.CommandContext(ctx, path, args...)
	c.Dir = v.project
	// Commands need a region, but call no service.
	c.Env = append(os.Environ(), "SAM_CLI_TELEMETRY=0", "AWS_DEFAULT_REGION=us-east-1")
	c.Env = append(c.Env, extra...)
	out, err := c.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// rolesTemplate has the roles with which GitHub Actions deploys template.yaml.
const rolesTemplate = "tools/github/role.yaml"

func (v *verifier) validate(ctx context.Context) error {
	return v.tool(ctx, "sam", "sam", nil, "validate", "--lint")
}

func (v *verifier) lint(ctx context.Context) error {
	return v.tool(ctx, "sam", "cfn-lint", nil, "--non-zero-exit-code", "warning", "template.yaml", rolesTemplate)
}

// checkov's exceptions are in the template beside the resources; the contract tests
// require a reason for each.
func (v *verifier) checkov(ctx context.Context) error {
	return v.tool(ctx, "checkov", "checkov", nil, "-f", "template.yaml", "-f", rolesTemplate, "--framework", "cloudformation", "--compact", "--quiet", "--skip-download")
}

// goArch maps a Lambda architecture to GOARCH.
var goArch = map[string]string{"arm64": "arm64", "x86_64": "amd64"}

func (v *verifier) built(architecture string) string { return filepath.Join(v.work, architecture) }

// build runs `sam build`, and checks the architecture of the binaries.
func (v *verifier) build(ctx context.Context, architecture string) error {
	err := v.tool(ctx, "sam", "sam", []string{"TIDINGS_GOARCH=" + goArch[architecture]},
		"build", "--build-dir", v.built(architecture), "--parameter-overrides", "Architecture="+architecture)
	if err != nil {
		return err
	}
	binaries, err := filepath.Glob(filepath.Join(v.built(architecture), "*", "bootstrap"))
	if err != nil || len(binaries) == 0 {
		return errors.Join(err, errors.New("sam build produced no bootstrap"))
	}
	for _, binary := range binaries {
		if err := runsOn(binary, architecture); err != nil {
			return err
		}
	}
	fmt.Printf("   %d binaries for %s\n", len(binaries), architecture)
	return nil
}

// buildForHost builds what this machine can run, unless that has been built.
func (v *verifier) buildForHost(ctx context.Context) error {
	architecture, err := host()
	if err != nil || architecture == "arm64" {
		return err
	}
	return v.build(ctx, architecture)
}

// host returns the Lambda architecture of this machine.
func host() (string, error) {
	for lambda, go_ := range goArch {
		if go_ == runtime.GOARCH && runtime.GOOS == "linux" {
			return lambda, nil
		}
	}
	return "", fmt.Errorf("the Lambda emulator runs on Linux, on arm64 and x86_64; this is %s on %s; use `sam local invoke`, which needs Docker", runtime.GOOS, runtime.GOARCH)
}
