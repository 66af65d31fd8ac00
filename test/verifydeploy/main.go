// Command verifydeploy checks template.yaml and the deployed binaries without an AWS
// account, with AWS's own tools: it lints the template, checks it against checkov's
// rules, builds every function for both architectures, runs each function under the
// Lambda Runtime Interface Emulator with each sample event, and creates the
// translated stack in moto's CloudFormation. It promises to fail if any of these
// reports a problem, and to print it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"
)

// verifier has the state that the steps share.
type verifier struct {
	project string // the checkout
	work    string // folder of the builds
	update  bool   // write the expected answers instead of comparing with them
}

func main() {
	v := verifier{}
	only := flag.String("only", "", "run only these steps: their numbers, separated by commas")
	flag.BoolVar(&v.update, "update", false, "update events/answers with the functions' answers")
	flag.Parse()
	ctx := context.Background()
	if err := v.run(ctx, *only); err != nil {
		fmt.Fprintln(os.Stderr, "verify-deploy:", err)
		os.Exit(1)
	}
}

func (v *verifier) run(ctx context.Context, only string) (err error) {
	if v.project, err = os.Getwd(); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(v.project, "template.yaml")); err != nil {
		return fmt.Errorf("run it in the root of the repository: %w", err)
	}
	v.work = filepath.Join(v.project, ".aws-sam", "verify")
	steps := []struct {
		name string
		run  func(context.Context) error
	}{
		{"sam validate --lint", v.validate},
		{"cfn-lint, no warnings", v.lint},
		{"checkov, with a reason for each exception", v.checkov},
		{"sam build for arm64", func(ctx context.Context) error { return v.build(ctx, "arm64") }},
		{"sam build for x86_64", func(ctx context.Context) error { return v.build(ctx, "x86_64") }},
		{"each function in the Lambda emulator", v.emulate},
		{"the translated template in moto's CloudFormation", v.create},
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "STEP\tTOOK\tVERDICT\t")
	for i, step := range steps {
		if only != "" && !strings.Contains(","+only+",", fmt.Sprintf(",%d,", i+1)) {
			continue
		}
		fmt.Printf("-- %d. %s\n", i+1, step.name)
		began := time.Now()
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		fmt.Fprintf(table, "%s\t%.1f s\tpassed\t\n", step.name, time.Since(began).Seconds())
	}
	fmt.Println()
	return table.Flush()
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

func (v *verifier) validate(ctx context.Context) error {
	return v.tool(ctx, "sam", "sam", nil, "validate", "--lint")
}

func (v *verifier) lint(ctx context.Context) error {
	return v.tool(ctx, "sam", "cfn-lint", nil, "--non-zero-exit-code", "warning", "template.yaml")
}

// checkov's exceptions are in the template beside the resources; the contract tests
// require a reason for each.
func (v *verifier) checkov(ctx context.Context) error {
	return v.tool(ctx, "checkov", "checkov", nil, "-f", "template.yaml", "--framework", "cloudformation", "--compact", "--quiet", "--skip-download")
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

// host returns the Lambda architecture of this machine.
func host() (string, error) {
	for lambda, go_ := range goArch {
		if go_ == runtime.GOARCH && runtime.GOOS == "linux" {
			return lambda, nil
		}
	}
	return "", fmt.Errorf("the Lambda emulator runs on Linux, on arm64 and x86_64; this is %s on %s; use `sam local invoke`, which needs Docker", runtime.GOOS, runtime.GOARCH)
}
