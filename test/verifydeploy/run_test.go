//go:build rig

package verifydeploy_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/tidings-dev/tidings/test/checkout"
)

var (
	only   = flag.String("only", "", "run only these steps: their numbers, separated by commas")
	update = flag.Bool("update", false, "update events/answers with the functions' answers")
)

func TestVerifyDeploy(t *testing.T) {
	root, err := checkout.Path()
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(root)
	v := verifier{project: root, update: *update}
	v.work = filepath.Join(v.project, ".aws-sam", "verify")
	steps := []struct {
		name string
		run  func(context.Context) error
	}{
		{"sam validate --lint", v.validate},
		{"cfn-lint, no warnings", v.lint},
		{"checkov, with a reason for each exception", v.checkov},
		{"cfn-lint of what SAM translates it to", v.translated},
		{"sam build for arm64", func(ctx context.Context) error { return v.build(ctx, "arm64") }},
		{"sam build for this machine, if it is another", v.buildForHost},
		{"each function in the Lambda emulator", v.emulate},
		{"each function as `sam local invoke` runs it", v.samLocal},
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "STEP\tTOOK\tVERDICT\t")
	for i, step := range steps {
		if *only != "" && !strings.Contains(","+*only+",", fmt.Sprintf(",%d,", i+1)) {
			continue
		}
		fmt.Printf("-- %d. %s\n", i+1, step.name)
		began := time.Now()
		if err := step.run(t.Context()); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		fmt.Fprintf(table, "%s\t%.1f s\tpassed\t\n", step.name, time.Since(began).Seconds())
	}
	fmt.Println()
	_ = table.Flush()
}
