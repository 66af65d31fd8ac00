package verifydeploy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
	"github.com/tidings-dev/tidings/test/checkout"
	"github.com/tidings-dev/tidings/test/lambdaemulator"
)

// envFile is the --env-vars file for functions that run beside the local runner.
const envFile = "tools/sam/env.json"

// runnerURL matches the services of a local runner on its default ports.
var runnerURL = regexp.MustCompile(`http://127\.0\.0\.1:87[0-9]{2}`)

// samLocal runs every function with every sample as `sam local invoke` does: SAM's own
// code resolves the function's name and its environment from the template and envFile.
// Only the addresses and the stack's name are replaced by those of the deployment that
// the sample needs. Docker is left out: the function runs in the emulator that SAM's
// image has.
func (v *verifier) samLocal(ctx context.Context) error {
	parsed, err := samtemplate.Load(filepath.Join(v.project, "template.yaml"))
	if err != nil {
		return err
	}
	stack, err := parsed.Resolve(samtemplate.Context{StackName: stackName, Region: region, Account: account, Parameters: map[string]string{"TestReceiver": "true"}})
	if err != nil {
		return err
	}
	args := []string{"template.yaml", envFile}
	for _, f := range stack.Functions {
		args = append(args, f.LogicalID)
	}
	out, err := v.python(ctx, "environment.py", args...)
	if err != nil {
		return err
	}
	var resolved map[string]map[string]string
	if err := json.Unmarshal(out, &resolved); err != nil {
		return fmt.Errorf("environment.py: %w", err)
	}
	return v.invokeAll(ctx, "samlocal", func(d *lambdaemulator.Deployment, f *samtemplate.Function) (map[string]string, error) {
		given := resolved[f.LogicalID]
		for name, value := range given {
			// What SAM cannot resolve it replaces by the resource's logical id.
			if strings.HasSuffix(name, "_TABLE") && !strings.HasPrefix(value, local.StackName+"-") {
				return nil, fmt.Errorf("%s is %q: add it to %s", name, value, envFile)
			}
		}
		variables := maps.Clone(given)
		for name, value := range variables {
			value = runnerURL.ReplaceAllString(value, d.URL)
			variables[name] = strings.ReplaceAll(value, local.StackName, d.Stack.Name)
		}
		return variables, nil
	})
}

// The file names what the local runner has, on its default ports.
func TestTheEnvironmentFileFitsTheTemplate(t *testing.T) {
	root, err := checkout.Path()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, envFile))
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Parameters map[string]string }
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	parsed, err := samtemplate.Load(filepath.Join(root, "template.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	const sqsURL = "http://127.0.0.1:8707" // cmd/tidings sets the first port, pkg/local the others
	stack, err := parsed.Resolve(samtemplate.Context{
		StackName: local.StackName, Region: "us-east-1", Account: "000000000000",
		Parameters: map[string]string{"AllowHttp": "true", "AllowNetworks": "127.0.0.0/8", "TestReceiver": "true", "EmitQueue": "true"},
		QueueURL:   func(name string) string { return sqsURL + "/000000000000/" + name },
	})
	if err != nil {
		t.Fatal(err)
	}
	declared := map[string]bool{}
	for _, f := range stack.Functions {
		for name, value := range f.Environment {
			declared[name] = true
			given, ok := file.Parameters[name]
			switch {
			case strings.HasPrefix(name, "AWS_ENDPOINT_URL_"):
				if !runnerURL.MatchString(given) {
					t.Errorf("%s: %s is %q: the function would call AWS", f.Folder, name, given)
				}
			case name == "CONSOLE_URL":
			case ok && given != value:
				t.Errorf("%s: %s is %q in %s and %q in the template", f.Folder, name, given, envFile, value)
			case !ok && strings.Contains(value, local.StackName):
				t.Errorf("%s: %s is missing in %s: want %q", f.Folder, name, envFile, value)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(file.Parameters)) {
		if !declared[name] {
			t.Errorf("%s sets %s, which the template does not declare: SAM ignores it", envFile, name)
		}
	}
}
