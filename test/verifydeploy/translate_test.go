package verifydeploy_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Where the template is resolved for.
const (
	stackName = "mine"
	region    = "us-east-1"
	account   = "123456789012"
)

// translated lints what SAM makes of the template: circular dependencies only show there.
func (v *verifier) translated(ctx context.Context) error {
	text, err := v.python(ctx, "translate.py", "template.yaml")
	if err != nil {
		return err
	}
	path := filepath.Join(v.work, "translated.json")
	if err := os.MkdirAll(v.work, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return err
	}
	return v.tool(ctx, "sam", "cfn-lint", nil, "--non-zero-exit-code", "error", path)
}

// python runs a program of tools/sam in the SAM CLI's environment.
func (v *verifier) python(ctx context.Context, program string, args ...string) ([]byte, error) {
	c := exec.CommandContext(ctx, filepath.Join(v.project, "tools", "sam", ".cache", "sam", "bin", "python3"), append([]string{filepath.Join("tools", "sam", program)}, args...)...)
	c.Dir = v.project
	c.Env = append(os.Environ(), "AWS_DEFAULT_REGION="+region, "SAM_CLI_TELEMETRY=0")
	var complaint bytes.Buffer
	c.Stderr = &complaint
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", program, err, complaint.String())
	}
	return out, nil
}
