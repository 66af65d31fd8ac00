package verifydeploy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
)

// Where the translated stack is created.
const (
	motoStack   = "mine"
	motoRegion  = "us-east-1"
	motoAccount = "123456789012" // moto's own
)

// created is the output of tools/sam/create.py.
type created struct {
	Status string
	Tables []struct {
		TableName              string
		AttributeDefinitions   []struct{ AttributeName, AttributeType string }
		KeySchema              []key
		GlobalSecondaryIndexes []struct {
			IndexName  string
			KeySchema  []key
			Projection struct {
				ProjectionType   string
				NonKeyAttributes []string
			}
		}
		StreamSpecification *struct{ StreamViewType string }
	}
	Queues        []map[string]string
	Made, LeftOut map[string]int
}

type key struct{ AttributeName, KeyType string }

// create translates the template with SAM, creates the resources that moto's
// CloudFormation supports, and compares tables and queues with package samtemplate's
// reading of the template. moto's CloudFormation sets no TTL, so it is not compared.
func (v *verifier) create(ctx context.Context) error {
	translated, err := v.python(ctx, nil, filepath.Join("tools", "sam", ".cache", "sam"), "translate.py", "template.yaml")
	if err != nil {
		return err
	}
	answer, err := v.python(ctx, translated, filepath.Join("tools", "brokers", ".cache", "moto"), "create.py", motoStack)
	if err != nil {
		return err
	}
	var c created
	if err := json.Unmarshal(answer, &c); err != nil {
		return fmt.Errorf("create.py: %w", err)
	}
	parsed, err := samtemplate.Load(filepath.Join(v.project, "template.yaml"))
	if err != nil {
		return err
	}
	want, err := parsed.Resolve(samtemplate.Context{StackName: motoStack, Region: motoRegion, Account: motoAccount})
	if err != nil {
		return err
	}
	for _, kind := range slices.Sorted(maps.Keys(c.Made)) {
		fmt.Printf("   created: %3d × %s\n", c.Made[kind], kind)
	}
	for _, kind := range slices.Sorted(maps.Keys(c.LeftOut)) {
		fmt.Printf("  left out: %3d × %s\n", c.LeftOut[kind], kind)
	}
	if c.Status != "CREATE_COMPLETE" {
		return fmt.Errorf("the stack is %s", c.Status)
	}
	return errors.Join(differences("table", c.tables(), tablesOf(want)), differences("queue", c.queues(), queuesOf(want)))
}

// python runs a program of tools/sam in a virtual environment.
func (v *verifier) python(ctx context.Context, in []byte, environment, program string, args ...string) ([]byte, error) {
	c := exec.CommandContext(ctx, filepath.Join(v.project, environment, "bin", "python3"), append([]string{filepath.Join("tools", "sam", program)}, args...)...)
	c.Dir, c.Stdin = v.project, bytes.NewReader(in)
	c.Env = append(os.Environ(), "AWS_DEFAULT_REGION="+motoRegion, "SAM_CLI_TELEMETRY=0")
	var complaint bytes.Buffer
	c.Stderr = &complaint
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", program, err, complaint.String())
	}
	return out, nil
}

func differences(what string, got, want map[string]string) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			errs = append(errs, fmt.Errorf("%s %s is\n  %s\nwant\n  %s", what, name, got[name], want[name]))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[name]; !ok {
			errs = append(errs, fmt.Errorf("%s %s is unknown to the code", what, name))
		}
	}
	return errors.Join(errs...)
}

// described renders a table for comparison.
func described(attributes []string, keys string, indexes []string, stream string) string {
	slices.Sort(attributes)
	slices.Sort(indexes)
	return fmt.Sprintf("attributes %s; key %s; indexes [%s]; stream %q", strings.Join(attributes, " "), keys, strings.Join(indexes, ", "), stream)
}

func index(name, keys, projection string, with []string) string {
	return fmt.Sprintf("%s (%s, %s %v)", name, keys, projection, with)
}

func (c created) tables() map[string]string {
	keys := func(list []key) string {
		var parts []string
		for _, k := range list {
			parts = append(parts, k.AttributeName+":"+k.KeyType)
		}
		return strings.Join(parts, "+")
	}
	found := map[string]string{}
	for _, t := range c.Tables {
		var attributes, indexes []string
		for _, a := range t.AttributeDefinitions {
			attributes = append(attributes, a.AttributeName+":"+a.AttributeType)
		}
		for _, g := range t.GlobalSecondaryIndexes {
			indexes = append(indexes, index(g.IndexName, keys(g.KeySchema), g.Projection.ProjectionType, g.Projection.NonKeyAttributes))
		}
		stream := ""
		if t.StreamSpecification != nil {
			stream = t.StreamSpecification.StreamViewType
		}
		found[t.TableName] = described(attributes, keys(t.KeySchema), indexes, stream)
	}
	return found
}

func tablesOf(s *samtemplate.Stack) map[string]string {
	keys := func(list []types.KeySchemaElement) string {
		var parts []string
		for _, k := range list {
			parts = append(parts, *k.AttributeName+":"+string(k.KeyType))
		}
		return strings.Join(parts, "+")
	}
	want := map[string]string{}
	for _, t := range s.Tables {
		var attributes, indexes []string
		for _, a := range t.Input.AttributeDefinitions {
			attributes = append(attributes, *a.AttributeName+":"+string(a.AttributeType))
		}
		for _, g := range t.Input.GlobalSecondaryIndexes {
			indexes = append(indexes, index(aws.ToString(g.IndexName), keys(g.KeySchema), string(g.Projection.ProjectionType), g.Projection.NonKeyAttributes))
		}
		stream := ""
		if t.Input.StreamSpecification != nil {
			stream = string(t.Input.StreamSpecification.StreamViewType)
		}
		want[t.Name] = described(attributes, keys(t.Input.KeySchema), indexes, stream)
	}
	return want
}

func (c created) queues() map[string]string {
	found := map[string]string{}
	for _, q := range c.Queues {
		redrive := struct {
			DeadLetterTargetArn string `json:"deadLetterTargetArn"`
			MaxReceiveCount     int    `json:"maxReceiveCount"`
		}{}
		_ = json.Unmarshal([]byte(q["RedrivePolicy"]), &redrive) // "" where there is none
		found[q["QueueArn"]] = fmt.Sprintf("visibility %s s, to %q after %d", q["VisibilityTimeout"], redrive.DeadLetterTargetArn, redrive.MaxReceiveCount)
	}
	return found
}

func queuesOf(s *samtemplate.Stack) map[string]string {
	want := map[string]string{}
	for _, q := range s.Queues {
		want[q.ARN] = fmt.Sprintf("visibility %.0f s, to %q after %d", q.Visibility.Seconds(), q.DeadARN, q.MaxReceives)
	}
	return want
}
