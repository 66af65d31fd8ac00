package template_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/tidings-dev/tidings/pkg/assemble"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/pattern"
	"github.com/tidings-dev/tidings/pkg/schema"
	"github.com/tidings-dev/tidings/pkg/template"
	"github.com/tidings-dev/tidings/pkg/trigger"
	"github.com/tidings-dev/tidings/pkg/work"
)

const root = "../.."

func text(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "template.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func resolve(text string) (*template.Stack, error) {
	parsed, err := template.Parse([]byte(text))
	if err != nil {
		return nil, err
	}
	return parsed.Resolve(template.Context{StackName: "mine", Region: "eu-west-1", Account: "123456789012"})
}

func stack(t *testing.T) *template.Stack {
	t.Helper()
	s, err := resolve(text(t))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// problems holds the resolved template against what cfn-lint does not see.
func problems(s *template.Stack) (list []string) {
	bad := func(ok bool, what string) {
		if !ok {
			list = append(list, what)
		}
	}
	queues := map[string]template.Queue{}
	dead := map[string]bool{}
	for _, q := range s.Queues {
		queues[q.ARN] = q
		dead[q.DeadARN] = true
		bad(strings.HasPrefix(q.Name, s.Name+"-"), "queue "+q.LogicalID+": its name lacks the stack's")
	}
	for _, q := range s.Queues {
		isFailures := false
		for _, f := range s.Functions {
			for _, t := range f.Streams {
				isFailures = isFailures || t.FailureARN == q.ARN
			}
		}
		bad(dead[q.ARN] || isFailures || q.DeadARN != "", "queue "+q.LogicalID+": has no dead-letter queue and is none")
	}
	streams := map[string]bool{}
	for _, table := range s.Tables {
		streams[table.StreamARN] = table.StreamARN != ""
		bad(strings.HasPrefix(table.Name, s.Name+"-"), "table "+table.LogicalID+": its name lacks the stack's")
	}
	for _, f := range s.Functions {
		bad(strings.HasPrefix(f.Name, s.Name+"-"), "function "+f.LogicalID+": its name lacks the stack's")
		for _, t := range f.Streams {
			where := "function " + f.LogicalID + ", trigger " + t.Name + ": "
			bad(streams[t.StreamARN], where+"its table has no stream")
			bad(t.BatchSize >= 1 && t.BatchSize <= 10_000, where+"batch size")
			bad(t.MaxRetries >= 0 && t.MaxAge > 0, where+"a poison record blocks its shard for ever")
			bad(t.ReportsItems && t.Bisect, where+"one record fails its whole batch")
			bad(t.FailureARN != "" && queues[t.FailureARN].Name != "", where+"what is given up goes nowhere")
			bad(t.FromBeginning, where+"what was written before the trigger is lost")
			for _, filter := range t.Filters {
				_, err := pattern.Compile(filter)
				bad(err == nil, where+"filter is no event pattern")
			}
		}
		for _, t := range f.Queues {
			where := "function " + f.LogicalID + ", trigger " + t.Name + ": "
			q, ok := queues[t.QueueARN]
			bad(ok, where+"its queue does not exist")
			bad(t.BatchSize >= 1 && t.BatchSize <= 10, where+"a batch over 10 needs a window, and a window delays every delivery")
			bad(t.ReportsItems, where+"one message fails its whole batch")
			bad(q.Visibility >= 6*f.Timeout, where+"visibility timeout is less than six times the function's timeout")
			bad(t.MaxConcurrency >= 2 && t.MaxConcurrency <= 1000, where+"maximum concurrency")
		}
		for _, one := range f.Schedules {
			bad(strings.HasPrefix(one.Name, s.Name+"-"), "schedule "+one.Name+": its name lacks the stack's, two stacks would collide")
			bad(json.Valid(one.Input), "schedule "+one.Name+": input is not JSON")
		}
	}
	return list
}

func TestTheTemplateHoldsTogether(t *testing.T) {
	for _, p := range problems(stack(t)) {
		t.Error(p)
	}
}

// A rule that can't fail proves nothing: each is broken once.
func TestEachRuleCanFail(t *testing.T) {
	original := text(t)
	for name, c := range map[string]struct{ from, to, says string }{
		"a stream removed":          {"      StreamSpecification: { StreamViewType: NEW_IMAGE }\n", "", "has no stream"},
		"a batch over ten":          {"BatchSize: 10\n", "BatchSize: 11\n", "needs a window"},
		"a short visibility":        {"VisibilityTimeout: 360", "VisibilityTimeout: 300", "six times"},
		"a filter that is none":     {`'{"eventName":["INSERT"]}'`, `'{"eventName":"INSERT"}'`, "no event pattern"},
		"retries for ever":          {"            MaximumRetryAttempts: 10000\n", "", "for ever"},
		"no failure destination":    {"OnFailure: { Destination: !GetAtt StreamDeadLetterQueue.Arn }", "OnFailure: {}", "goes nowhere"},
		"no partial failures":       {"            FunctionResponseTypes: [ReportBatchItemFailures]\n            ScalingConfig", "            ScalingConfig", "one message fails"},
		"a schedule for all stacks": {"Name: !Sub '${AWS::StackName}-sweep'", "Name: sweep", "collide"},
		"a table for all stacks":    {"TableName: !Sub '${AWS::StackName}-Events'", "TableName: Events", "lacks the stack's"},
		"no dead-letter queue":      {"      RedrivePolicy:\n        deadLetterTargetArn: !GetAtt WorkDeadLetterQueue.Arn\n        maxReceiveCount: 10\n", "", "no dead-letter queue"},
		"an input that is no JSON":  {`'{"action":"sweep"}'`, `'sweep'`, "not JSON"},
	} {
		changed := strings.Replace(original, c.from, c.to, 1)
		if changed == original {
			t.Errorf("%s: %q is not in the template", name, c.from)
			continue
		}
		s, err := resolve(changed)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if found := strings.Join(problems(s), "\n"); !strings.Contains(found, c.says) {
			t.Errorf("%s: found %q, want it to say %q", name, found, c.says)
		}
	}
}

func TestWhatCannotBeResolvedIsRefusedWithItsLine(t *testing.T) {
	original := text(t)
	for name, c := range map[string]struct{ from, to, says string }{
		"rate(1 minutes)":      {"rate(1 minute)", "rate(1 minutes)", "rate(1 minute)"},
		"a name misspelt":      {"!Ref EventsTable", "!Ref EventTable", "EventTable is no parameter"},
		"an unknown function":  {"!Ref EventsTable", "!ImportValue x", "!ImportValue"},
		"an unknown trigger":   {"Type: ScheduleV2", "Type: Cron", "Cron"},
		"a name in Sub missed": {"${AWS::StackName}-Events", "${Stack}-Events", "Stack is no parameter"},
	} {
		_, err := resolve(strings.Replace(original, c.from, c.to, 1))
		if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "line ") {
			t.Errorf("%s: %v, want it to say %q and the line", name, err, c.says)
		}
	}
	parsed, err := template.Parse([]byte(original))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parsed.Resolve(template.Context{Parameters: map[string]string{"Nobody": "x"}}); err == nil {
		t.Error("a parameter that does not exist is accepted")
	}
}

func TestTheCodesTablesAreTheTemplates(t *testing.T) {
	want := map[string]struct {
		keys string
		ttl  string
	}{
		schema.Events: {"event_id", "expires_at"}, schema.Deliveries: {"endpoint_id event_id due: due_shard due_at", "expires_at"},
		schema.Endpoints: {"tenant endpoint_id", ""}, schema.Control: {"key", "expires_at"}, schema.Platform: {"pk sk expiring: expiring_shard expires_at", "ttl"},
	}
	s := stack(t)
	if len(s.Tables) != len(want) {
		t.Errorf("%d tables, want %d", len(s.Tables), len(want))
	}
	for _, table := range s.Tables {
		w := want[strings.TrimPrefix(table.Name, "mine-")]
		var keys []string
		for _, k := range table.Input.KeySchema {
			keys = append(keys, *k.AttributeName)
		}
		for _, g := range table.Input.GlobalSecondaryIndexes {
			keys = append(keys, *g.IndexName+":")
			for _, k := range g.KeySchema {
				keys = append(keys, *k.AttributeName)
			}
		}
		if got := strings.Join(keys, " "); got != w.keys || table.TTLAttribute != w.ttl {
			t.Errorf("%s: keys %q, TTL %q; want %q, %q", table.Name, got, table.TTLAttribute, w.keys, w.ttl)
		}
	}
}

func TestEveryFunctionHasItsFolderAndHandler(t *testing.T) {
	folders, err := os.ReadDir(filepath.Join(root, "functions"))
	if err != nil {
		t.Fatal(err)
	}
	var have, declared, built []string
	for _, f := range folders {
		if f.IsDir() {
			have = append(have, f.Name())
		}
	}
	for _, f := range stack(t).Functions {
		declared = append(declared, f.Folder)
	}
	for name := range assemble.Functions() {
		built = append(built, name)
	}
	slices.Sort(declared)
	slices.Sort(built)
	if !slices.Equal(have, declared) || !slices.Equal(have, built) {
		t.Errorf("folders %v, template %v, handlers %v", have, declared, built)
	}
}

// Every variable that code reads is set, and every one that is set is read.
func TestEnvironments(t *testing.T) {
	for _, f := range stack(t).Functions {
		var reads []string
		var walk func(reflect.Type)
		walk = func(s reflect.Type) {
			for i := range s.NumField() {
				field := s.Field(i)
				if field.Anonymous {
					walk(field.Type)
					continue
				}
				name, _, _ := strings.Cut(field.Tag.Get("env"), ",")
				reads = append(reads, name)
			}
		}
		walk(reflect.TypeOf(assemble.Settings()[f.Folder]))
		var set []string
		for name := range f.Environment {
			set = append(set, name)
		}
		slices.Sort(reads)
		slices.Sort(set)
		if !slices.Equal(reads, set) {
			t.Errorf("%s reads %v, the template sets %v", f.Folder, reads, set)
		}
	}
}

func TestTimesFitTogether(t *testing.T) {
	for _, f := range stack(t).Functions {
		if f.Folder != "dispatch" {
			continue
		}
		lease := endpoint.MaxTimeout + dispatch.LeaseMargin
		if lease >= f.Timeout {
			t.Errorf("a lease of %s outlives the invocation, %s", lease, f.Timeout)
		}
		for _, q := range f.Queues {
			for _, have := range stack(t).Queues {
				if have.ARN == q.QueueARN && lease >= have.Visibility {
					t.Errorf("a lease of %s outlives the message's visibility, %s", lease, have.Visibility)
				}
			}
		}
		for _, s := range f.Schedules {
			if s.Every >= dispatch.Lookahead {
				t.Errorf("a sweep every %s that looks ahead %s leaves deliveries late", s.Every, dispatch.Lookahead)
			}
		}
	}
	if dispatch.Backstop < dispatch.Lookahead+endpoint.MaxTimeout {
		t.Errorf("a sweep that looks ahead %s finds attempts that are still running after %s", dispatch.Lookahead, dispatch.Backstop)
	}
}

func TestLeastPrivilege(t *testing.T) {
	var doc struct {
		Parameters map[string]any
		Resources  map[string]struct {
			Type       string
			Properties struct {
				Policies []struct {
					Statement []struct {
						Sid              string
						Action, Resource yaml.Node
					}
				}
			}
		}
	}
	all := text(t)
	if err := yaml.Unmarshal([]byte(all), &doc); err != nil {
		t.Fatal(err)
	}
	logs := map[string]bool{}
	for id, r := range doc.Resources {
		if r.Type == "AWS::Logs::LogGroup" {
			logs[id] = true
		}
	}
	for id, r := range doc.Resources {
		if r.Type != "AWS::Serverless::Function" {
			continue
		}
		if !logs[strings.TrimSuffix(id, "Function")+"Logs"] {
			t.Errorf("%s has no log group of its own: its logs would be kept for ever", id)
		}
		for _, p := range r.Properties.Policies {
			for _, s := range p.Statement {
				for _, n := range append([]*yaml.Node{&s.Action, &s.Resource}, append(s.Action.Content, s.Resource.Content...)...) {
					if strings.Contains(n.Value, "*") {
						t.Errorf("%s, statement %s: %q", id, s.Sid, n.Value)
					}
				}
			}
		}
	}
	for name := range doc.Parameters {
		if !regexp.MustCompile(`(!Ref |\$\{|\[)`+name+`\b`).MatchString(strings.SplitN(all, "\nConditions:", 2)[1]) &&
			!strings.Contains(all, "!Equals [!Ref "+name) {
			t.Errorf("parameter %s is not used", name)
		}
	}
}

// The files in events/ are what the functions would get.
func TestSampleEvents(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "events", "*.json"))
	if err != nil || len(files) < 16 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	kinds := map[string]trigger.Kind{"emit-function-url": trigger.FunctionURL, "dispatch-stream": trigger.Stream, "dispatch-sqs": trigger.Queue}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		payload, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if kind, err := trigger.Of(payload); err != nil || kind != kinds[name] {
			t.Errorf("%s: %s, %v", name, kind, err)
		}
		switch {
		case name == "dispatch-sqs":
			var batch struct{ Records []struct{ Body string } }
			if err := json.Unmarshal(payload, &batch); err != nil {
				t.Fatal(err)
			}
			if _, err := work.Decode(batch.Records[0].Body); err != nil {
				t.Error(err)
			}
		case strings.HasPrefix(name, "dispatch-") && kinds[name] == trigger.Direct:
			var c dispatch.Command
			if err := json.Unmarshal(payload, &c); err != nil || c.Action == "" {
				t.Errorf("%s: %+v, %v", name, c, err)
			}
		case strings.HasPrefix(name, "emit-user") || strings.HasPrefix(name, "emit-discussion"):
			var r emit.Request
			if err := json.Unmarshal(payload, &r); err != nil || "emit-"+strings.NewReplacer(".", "-", "_", "-").Replace(r.Event) != name {
				t.Errorf("%s holds %q, %v", name, r.Event, err)
			}
		}
	}
}

func TestFolder(t *testing.T) {
	for id, want := range map[string]string{"EmitFunction": "emit", "CloseDiscussionsFunction": "close-discussions", "TestWebhookFunction": "test-webhook"} {
		if got := template.Folder(id); got != want {
			t.Errorf("Folder(%s) = %s", id, got)
		}
	}
}

func TestParametersAndConditions(t *testing.T) {
	s, err := resolve(`
Parameters:
  Fast: { Type: String, Default: 'no' }
Conditions:
  IsFast: !Equals [!Ref Fast, 'yes']
  IsSlow: !Not [!Condition IsFast]
Resources:
  Q:
    Type: AWS::SQS::Queue
    Properties:
      QueueName: !Sub '${AWS::StackName}-q'
      VisibilityTimeout: !If [IsSlow, 60, 10]
      Other: !If [IsFast, x, !Ref AWS::NoValue]
`)
	if err != nil || len(s.Queues) != 1 || s.Queues[0].Visibility != time.Minute || s.Queues[0].Name != "mine-q" {
		t.Errorf("stack = %+v, %v", s, err)
	}
}
