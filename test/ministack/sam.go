package ministack

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
)

// Sam runs the SAM CLI in the work folder, so that it finds no samconfig.toml unless
// --config-file names one. in is its standard input.
func (e *Emulator) Sam(ctx context.Context, in string, args ...string) ([]byte, error) {
	c := exec.CommandContext(ctx, filepath.Join(e.project, "tools", "sam", ".cache", "sam", "bin", "sam"), args...)
	c.Dir, c.Env, c.Stdin = e.work, e.Environment(), strings.NewReader(in)
	var complaint bytes.Buffer
	c.Stderr = &complaint
	out, err := c.Output()
	if err != nil {
		return out, fmt.Errorf("sam %s: %w\n%s%s", args[0], err, out, &complaint)
	}
	return out, nil
}

// Python runs one of the project's Python programs in the SAM CLI's environment.
func (e *Emulator) Python(ctx context.Context, program string, args ...string) ([]byte, error) {
	return e.output(ctx, nil, "python3", append([]string{filepath.FromSlash(program)}, args...)...)
}

// FunctionHost returns the host name of a function's URL. The emulator answers to requests
// for it; it does not exist in DNS.
func (e *Emulator) FunctionHost(ctx context.Context, function string) (string, error) {
	out, err := lambda.NewFromConfig(e.Access()).GetFunctionUrlConfig(ctx, &lambda.GetFunctionUrlConfigInput{
		FunctionName: &function, Qualifier: aws.String(samtemplate.Alias),
	})
	if err != nil {
		return "", err
	}
	host, ok := strings.CutPrefix(aws.ToString(out.FunctionUrl), "https://")
	if !ok {
		return "", fmt.Errorf("%s has the URL %q", function, aws.ToString(out.FunctionUrl))
	}
	return strings.TrimSuffix(host, "/"), nil
}
