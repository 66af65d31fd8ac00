package samtemplate_test

import (
	"crypto/md5"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/aws/aws-lambda-go/events"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.yaml.in/yaml/v3"

	"github.com/tidings-dev/tidings/pkg/aws/lambdaevent"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/emit/capture/rules"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/filter"
	"github.com/tidings-dev/tidings/pkg/event/validate"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
	"github.com/tidings-dev/tidings/test/streamtest"
)

const root = "../../.."

func text(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "template.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func resolve(text string) (*samtemplate.Stack, error) {
	parsed, err := samtemplate.Parse([]byte(text))
	if err != nil {
		return nil, err
	}
	c := samtemplate.Context{StackName: "mine", Region: "eu-west-1", Account: "123456789012"}
	if strings.Contains(text, "\n  TestReceiver:\n") { // with all that it has
		c.Parameters = map[string]string{"TestReceiver": "true", "EmitQueue": "true"}
	}
	return parsed.Resolve(c)
}

func stack(t *testing.T) *samtemplate.Stack {
	t.Helper()
	s, err := resolve(text(t))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// problems checks the resolved template for errors that cfn-lint does not find.
func problems(s *samtemplate.Stack) (list []string) {
	bad := func(ok bool, what string) {
		if !ok {
			list = append(list, what)
		}
	}
	queues := map[string]samtemplate.Queue{}
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
			for _, text := range t.Filters {
				_, err := filter.Compile(text)
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

// written returns a node as maps, lists and strings, with its argument for an intrinsic
// function (`!GetAtt Queue.Arn` is "Queue.Arn").
func written(n *yaml.Node) any {
	switch n.Kind {
	case yaml.DocumentNode:
		return written(n.Content[0])
	case yaml.MappingNode:
		m := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			m[n.Content[i].Value] = written(n.Content[i+1])
		}
		return m
	case yaml.SequenceNode:
		list := []any{}
		for _, c := range n.Content {
			list = append(list, written(c))
		}
		return list
	}
	return n.Value
}

// words decodes a string, or the strings of a list and of the lists in it.
type words []string

func (w *words) UnmarshalJSON(b []byte) error {
	if b[0] == '"' {
		*w = words{""}
		return json.Unmarshal(b, &(*w)[0])
	}
	var nested []words // functions in functions
	if err := json.Unmarshal(b, &nested); err != nil {
		return err
	}
	*w = slices.Concat(nested...)
	return nil
}

// document has the parts of the template that oversights checks.
type document struct {
	Globals struct {
		Function struct {
			AutoPublishAlias     string
			DeploymentPreference struct{ Alarms any }
		}
	}
	Parameters map[string]any
	Resources  map[string]struct {
		Type       string
		Properties struct {
			// a function's
			FunctionName                  string
			LoggingConfig                 struct{ LogGroup string }
			AutoPublishAliasAllProperties string
			FunctionUrlConfig             struct{ AuthType string }
			ReservedConcurrentExecutions  any
			Role                          string
			Events                        map[string]struct {
				Type       string
				Properties struct {
					DestinationConfig struct{ OnFailure struct{ Destination string } }
				}
			}
			// a log group's
			RetentionInDays string
			// a queue's
			RedrivePolicy struct{ DeadLetterTargetArn string }
			// a topic's
			KmsMasterKeyId string
			// an alarm's
			MetricName       string
			TreatMissingData string
			AlarmActions     []string
			Metrics          []struct {
				MetricStat struct {
					Period int `json:",string"`
					Metric struct{ Dimensions []struct{ Value string } }
				}
			}
			Dimensions                                              []struct{ Value string }
			Period, EvaluationPeriods, DatapointsToAlarm, Threshold int `json:",string"`
		}
	}
}

// oversights checks the parts of the template that a Stack does not contain.
func oversights(t *testing.T, text string) (list []string) {
	t.Helper()
	bad := func(ok bool, what string) {
		if !ok {
			list = append(list, what)
		}
	}
	var root yaml.Node
	if err := yaml.Unmarshal([]byte(text), &root); err != nil {
		t.Fatal(err)
	}
	plain, err := json.Marshal(written(&root))
	if err != nil {
		t.Fatal(err)
	}
	var doc document
	if err := json.Unmarshal(plain, &doc); err != nil {
		t.Fatal(err)
	}
	dead, watched := map[string]bool{}, map[string]bool{}
	global := doc.Globals.Function
	bad(global.AutoPublishAlias == samtemplate.Alias, "functions are published as "+global.AutoPublishAlias+", and called as "+samtemplate.Alias)
	// An alarm names its function. A reference would make a circle: the function's variables
	// refer to a URL, this to an alias, this to CodeDeploy's group, and this to the alarm.
	function := map[string]string{} // logical ID by name
	for id, r := range doc.Resources {
		if r.Type == "AWS::Serverless::Function" {
			function[r.Properties.FunctionName] = id
		}
	}
	watches := func(alarm, dimension string) string {
		bad(doc.Resources[dimension].Type != "AWS::Serverless::Function", alarm+": refers to "+dimension+", which can make a circular dependency: use the function's name")
		return function[dimension]
	}
	rollback := map[string]bool{} // functions whose errors roll a deployment back
	for alarm, r := range doc.Resources {
		if r.Type != "AWS::CloudWatch::Alarm" || !mentions(global.DeploymentPreference.Alarms, alarm) {
			continue
		}
		p := r.Properties
		for _, d := range p.Dimensions {
			rollback[watches(alarm, d.Value)] = true
		}
		for _, m := range p.Metrics {
			p.Period = max(p.Period, m.MetricStat.Period)
			for _, d := range m.MetricStat.Metric.Dimensions {
				rollback[watches(alarm, d.Value)] = true
			}
		}
		breaching := p.DatapointsToAlarm
		if breaching == 0 {
			breaching = p.EvaluationPeriods
		}
		// The shortest rollout takes five minutes; metrics arrive within two.
		bad(p.Period*breaching <= 180, alarm+": goes off when a deployment is over already: it needs more than three minutes")
	}
	scheduled := map[string]time.Duration{} // period of scheduled functions
	stack, err := resolve(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range stack.Functions {
		for _, schedule := range f.Schedules {
			scheduled[f.LogicalID] = schedule.Every
		}
	}
	for id, r := range doc.Resources {
		p := r.Properties
		switch r.Type {
		case "AWS::SQS::Queue":
			if to := p.RedrivePolicy.DeadLetterTargetArn; to != "" {
				dead[strings.TrimSuffix(to, ".Arn")] = true
			}
		case "AWS::CloudWatch::Alarm":
			bad(len(p.AlarmActions) > 0, id+": tells nobody")
			bad(p.TreatMissingData != "breaching", id+": goes off as soon as it is created, before there is data; be told of INSUFFICIENT_DATA instead")
			for _, d := range p.Dimensions {
				if every := scheduled[watches(id, d.Value)]; p.MetricName == "Errors" && every > 0 {
					breaching := p.DatapointsToAlarm
					if breaching == 0 {
						breaching = p.EvaluationPeriods
					}
					fires := goesOff(every, time.Duration(p.Period)*time.Second, p.EvaluationPeriods, breaching, p.Threshold)
					bad(fires, id+": can't go off, for "+function[d.Value]+" runs every "+every.String()+" only")
				}
				if p.MetricName == "ApproximateNumberOfMessagesVisible" {
					watched[strings.TrimSuffix(d.Value, ".QueueName")] = true
				}
			}
		case "AWS::SNS::Topic":
			// AWS re:Post, "Why didn't I receive an SNS notification for my CloudWatch alarm trigger?"
			bad(p.KmsMasterKeyId != "alias/aws/sns", id+": CloudWatch may not use alias/aws/sns")
		case "AWS::Serverless::Function":
			bad(p.AutoPublishAliasAllProperties == "true", id+": a changed variable alone would not be deployed: set AutoPublishAliasAllProperties")
			every := scheduled[id]
			bad(rollback[id] || every > time.Minute && len(p.Events) == 1 && p.FunctionUrlConfig.AuthType == "", id+": its errors turn no deployment back: have DeploymentPreference watch an alarm of them")
			bad(p.FunctionUrlConfig.AuthType != "NONE" || p.ReservedConcurrentExecutions != nil, id+": everybody can call it, and nothing limits how often at the same time: set ReservedConcurrentExecutions as TestWebhookFunction does")
			group := doc.Resources[p.LoggingConfig.LogGroup]
			bad(group.Type == "AWS::Logs::LogGroup" && group.Properties.RetentionInDays != "", id+": its logs would be kept for ever")
			// Receivers authorize the role of dispatch.
			bad(id != "TestWebhookFunction" || p.Role == "DispatchFunctionRole.Arn", id+": does not send as dispatch does")
			var sends words
			secrets, key := false, false
			at := slices.IndexFunc(stack.Functions, func(f samtemplate.Function) bool { return f.LogicalID == id })
			if at < 0 {
				continue // its condition is false
			}
			for _, s := range stack.Functions[at].Statements {
				if s.Sid == "ListStreams" || s.Sid == "WriteLogs" {
					continue // AWS has no narrower resource than all streams, or than a group's streams
				}
				for _, v := range slices.Concat(s.Actions, s.Resources) {
					// Endpoints choose names of secrets, queues, buses and roles within a namespace.
					bad(!strings.Contains(strings.TrimSuffix(v, ":secret:"+stack.Name+"/*"), "*") || s.Sid == "SendToDestinationQueues" || s.Sid == "SendToDestinationBuses" || s.Sid == "AssumeDestinationRoles",
						id+", statement "+s.Sid+": "+v+" allows more than is needed")
				}
				secrets = secrets || slices.ContainsFunc(s.Resources, func(r string) bool { return strings.HasSuffix(r, "-Endpoints") })
				key = key || slices.Contains(s.Actions, "kms:Decrypt")
				if slices.Contains(s.Actions, "sqs:SendMessage") {
					sends = append(sends, s.Resources...)
				}
			}
			bad(!secrets || key, id+": reads endpoints, and may not use the key that they are encrypted under")
			for name, e := range p.Events {
				if to := e.Properties.DestinationConfig.OnFailure.Destination; to != "" {
					dead[strings.TrimSuffix(to, ".Arn")] = true
					queue := slices.IndexFunc(stack.Queues, func(q samtemplate.Queue) bool { return q.LogicalID+".Arn" == to })
					bad(queue >= 0 && slices.Contains(sends, stack.Queues[queue].ARN), id+", trigger "+name+": may not send to "+to+", and Lambda sends there as the function")
				}
			}
		}
	}
	for queue := range dead {
		bad(watched[queue], queue+": what ends there is seen by nobody, no alarm watches it")
	}
	used := references(&root)
	for name := range doc.Parameters {
		bad(used[name], "parameter "+name+": is not used")
	}
	return list
}

// mentions reports whether a name occurs anywhere in a node.
func mentions(written any, name string) bool {
	list, ok := written.([]any)
	if !ok {
		return written == name
	}
	return slices.ContainsFunc(list, func(v any) bool { return mentions(v, name) })
}

// goesOff reports whether an alarm on the sum of a function's errors fires if every run
// fails, wherever in a period the runs begin. A schedule invokes asynchronously: Lambda
// retries a failed run after one minute and after two more.
func goesOff(every, period time.Duration, evaluated, breaching, threshold int) bool {
	for offset := time.Duration(0); offset < period; offset += time.Minute {
		const periods = 50
		var errors [periods]int
		for run := offset; run < periods*period; run += every {
			for _, try := range []time.Duration{0, time.Minute, 3 * time.Minute} {
				if at := (run + try) / period; at < periods {
					errors[at]++
				}
			}
		}
		// The first and the last period are partial.
		most := 0
		for first := 1; first+evaluated < periods; first++ {
			n := 0
			for _, e := range errors[first : first+evaluated] {
				if e > threshold {
					n++
				}
			}
			most = max(most, n)
		}
		if most < breaching {
			return false
		}
	}
	return true
}

var inSub = regexp.MustCompile(`\$\{([^!}.]+)`)

// references returns the names in all Ref and Sub functions below a node.
func references(n *yaml.Node) map[string]bool {
	found := map[string]bool{}
	switch n.Tag {
	case "!Ref":
		found[n.Value] = true
	case "!Sub":
		for _, m := range inSub.FindAllStringSubmatch(n.Value, -1) {
			found[m[1]] = true
		}
	}
	for _, c := range n.Content {
		maps.Copy(found, references(c))
	}
	return found
}

func TestTheTemplateIsConsistent(t *testing.T) {
	for _, p := range problems(stack(t)) {
		t.Error(p)
	}
	for _, p := range oversights(t, text(t)) {
		t.Error(p)
	}
}

// Every rule is violated once, to prove that it can fail.
func TestEveryRuleCanFail(t *testing.T) {
	if testing.Short() {
		t.Skip("resolves the template a hundred times")
	}
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

		"variables not deployed":     {"      AutoPublishAliasAllProperties: true\n", "", "would not be deployed"},
		"another alias":              {"AutoPublishAlias: live", "AutoPublishAlias: current", "published as current"},
		"no way back":                {"!Ref DispatchErrorsAlarm, ", "", "DispatchFunction: its errors turn no deployment back"},
		"a circular dependency":      {"Value: !Sub '${AWS::StackName}-health' }", "Value: !Ref HealthFunction }", "HealthErrorsAlarm: refers to HealthFunction"},
		"no way back for a page":     {"Value: !Sub '${AWS::StackName}-test-webhook' }", "Value: !Sub '${AWS::StackName}-console' }", "TestWebhookFunction: its errors turn no deployment back"},
		"a way back that is late":    {"      EvaluationPeriods: 3\n      DatapointsToAlarm: 2\n", "      EvaluationPeriods: 5\n", "when a deployment is over already"},
		"an alarm that can't go off": {"      Period: 1800\n      EvaluationPeriods: 1\n      Threshold: 2\n", "      Period: 60\n      EvaluationPeriods: 3\n      Threshold: 1\n", "CloseDiscussionsErrorsAlarm: can't go off"},
		"a URL without a brake":      {"FunctionUrlConfig: { AuthType: AWS_IAM }", "FunctionUrlConfig: { AuthType: NONE }", "nothing limits how often"},
		"a queue for all stacks":     {"QueueName: !Sub '${AWS::StackName}-work'", "QueueName: work", "queue WorkQueue: its name"},
		"a function for all stacks":  {"FunctionName: !Sub '${AWS::StackName}-emit'", "FunctionName: emit", "function EmitFunction: its name"},
		"what was before is lost":    {"StartingPosition: TRIM_HORIZON", "StartingPosition: LATEST", "is lost"},
		"a whole batch fails":        {"            BisectBatchOnFunctionError: true\n", "", "one record fails its whole batch"},
		"no limit of concurrency":    {"            ScalingConfig: { MaximumConcurrency: !Ref MaximumConcurrency }\n", "", "maximum concurrency"},
		"a queue without them":       {"      FunctionResponseTypes: [ReportBatchItemFailures]\n      ScalingConfig", "      ScalingConfig", "EmitQueueMapping: one message fails"},
		"refusals nobody sees":       {"Value: !GetAtt EmitDeadLetterQueue.QueueName", "Value: !GetAtt WorkQueue.QueueName", "EmitDeadLetterQueue: what ends there"},
		"an action with a star":      {"Action: dynamodb:GetItem\n", "Action: dynamodb:*\n", "dynamodb:* allows more"},
		"a resource with a star":     {"${DeliveriesTable.Arn}/index/due", "${DeliveriesTable.Arn}/index/*", "index/* allows more"},
		"a star in a list":           {"Action: [dynamodb:UpdateItem, dynamodb:GetItem,", "Action: [dynamodb:Batch*, dynamodb:GetItem,", "dynamodb:Batch* allows more"},
		"logs kept for ever":         {"      RetentionInDays: !Ref LogRetentionDays\n", "", "kept for ever"},
		"logs to no group":           {"      LoggingConfig:\n        LogGroup: !Ref EmitLogs\n", "", "kept for ever"},
		"failures it may not send":   {"Resource: !GetAtt StreamDeadLetterQueue.Arn", "Resource: !GetAtt WorkDeadLetterQueue.Arn", "may not send to StreamDeadLetterQueue"},
		"dead letters nobody sees":   {"Value: !GetAtt WorkDeadLetterQueue.QueueName", "Value: !GetAtt WorkQueue.QueueName", "WorkDeadLetterQueue: what ends there"},
		"failed batches nobody sees": {"Value: !GetAtt StreamDeadLetterQueue.QueueName", "Value: !GetAtt WorkQueue.QueueName", "StreamDeadLetterQueue: what ends there"},
		"an alarm at once":           {"TreatMissingData: missing", "TreatMissingData: breaching", "MissedSweepAlarm: goes off as soon as it is created"},
		"an alarm that tells nobody": {"      AlarmActions: [!Ref AlarmTopic]\n", "", "tells nobody"},
		"a topic alarms can't reach": {"TopicName: !Sub '${AWS::StackName}-alarms'\n", "TopicName: !Sub '${AWS::StackName}-alarms'\n      KmsMasterKeyId: alias/aws/sns\n", "CloudWatch may not use"},
		"a tester of its own":        {"      Role: !GetAtt DispatchFunctionRole.Arn\n      Environment:\n        Variables:\n          ENDPOINTS_TABLE", "      Role: !GetAtt HealthFunctionRole.Arn\n      Environment:\n        Variables:\n          ENDPOINTS_TABLE", "does not send as dispatch does"},
		"endpoints without the key":  {"Action: [kms:Decrypt, ", "Action: [", "may not use the key"},
		"an unused parameter":        {"Parameters:\n  AllowHttp:", "Parameters:\n  Nothing:\n    Type: String\n    Default: ''\n  AllowHttp:", "parameter Nothing: is not used"},
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
		if found := strings.Join(append(problems(s), oversights(t, changed)...), "\n"); !strings.Contains(found, c.says) {
			t.Errorf("%s: found %q, want it to say %q", name, found, c.says)
		}
	}
}

// EventBridge Scheduler rejects rate(1 minutes), rate(4 minute) and rate(0 minutes).
func TestCloseEveryMinutesIsTheScheduleOfCloseDiscussions(t *testing.T) {
	for minutes, want := range map[string]time.Duration{"0": 0, "1": time.Minute, "4": 4 * time.Minute, "30": 30 * time.Minute} {
		tmpl, err := samtemplate.Parse([]byte(text(t)))
		if err != nil {
			t.Fatal(err)
		}
		s, err := tmpl.Resolve(samtemplate.Context{
			StackName: "mine", Region: "eu-west-1", Account: "123456789012", Parameters: map[string]string{"CloseEveryMinutes": minutes},
		})
		if err != nil {
			t.Fatalf("%s: %v", minutes, err)
		}
		var got time.Duration
		for _, f := range s.Functions {
			if f.Folder == "close-discussions" && len(f.Schedules) > 0 {
				got = f.Schedules[0].Every
			}
		}
		if got != want {
			t.Errorf("CloseEveryMinutes=%s: every %s, want %s", minutes, got, want)
		}
	}
}

func TestUnsupportedTemplatesAreErrorsWithALineNumber(t *testing.T) {
	original := text(t)
	for name, c := range map[string]struct{ from, to, says string }{
		"rate(1 minutes)":             {"rate(1 minute)", "rate(1 minutes)", "rate(1 minute)"},
		"a misspelled name":           {"!Ref EventsTable", "!Ref EventTable", "EventTable is neither a parameter"},
		"a misspelled name, GetAtt":   {"!GetAtt EventsTable.StreamArn", "!GetAtt EventTable.StreamArn", "EventTable is not a resource"},
		"a misspelled attribute":      {"Resource: !GetAtt WorkDeadLetterQueue.Arn", "Resource: !GetAtt WorkDeadLetterQueue.An", "attribute An of WorkDeadLetterQueue"},
		"a role of no function":       {"!GetAtt DispatchFunctionRole.Arn", "!GetAtt DispatcherFunctionRole.Arn", "DispatcherFunctionRole is not a resource"},
		"a misspelled name, Sub":      {"${DeliveriesTable.Arn}/index", "${DeliveryTable.Arn}/index", "DeliveryTable is not a resource"},
		"an unknown name in Sub":      {"${AWS::StackName}-Events", "${Stack}-Events", "Stack is neither a parameter"},
		"an unknown function":         {"!Ref EventsTable", "!ImportValue x", "!ImportValue"},
		"an unknown trigger":          {"Type: ScheduleV2", "Type: Cron", "Cron"},
		"a disabled trigger":          {"            BatchSize: 10\n", "            BatchSize: 10\n            Enabled: false\n", `"Enabled" is not supported`},
		"a batching window":           {"            BatchSize: 10\n", "            BatchSize: 10\n            MaximumBatchingWindowInSeconds: 5\n", `"MaximumBatchingWindowInSeconds" is not supported`},
		"a window, apart":             {"      BatchSize: 10\n      FunctionResponseTypes", "      BatchSize: 10\n      MaximumBatchingWindowInSeconds: 5\n      FunctionResponseTypes", `"MaximumBatchingWindowInSeconds" is not supported`},
		"a delay queue":               {"      VisibilityTimeout: 360\n", "      VisibilityTimeout: 360\n      DelaySeconds: 60\n", `"DelaySeconds" is not supported`},
		"a local index":               {"      StreamSpecification: { StreamViewType: NEW_IMAGE }\n", "      LocalSecondaryIndexes: []\n", `"LocalSecondaryIndexes" is not supported`},
		"provisioned capacity":        {"BillingMode: PAY_PER_REQUEST", "BillingMode: PROVISIONED", `BillingMode "PROVISIONED"`},
		"a circular reference":        {"TableName: !Sub '${AWS::StackName}-Events'", "TableName: !Ref EventsTable", "circular reference"},
		"a double circular reference": {"TableName: !Sub '${AWS::StackName}-Events'", "TableName: !Sub '${EventsTable}${EventsTable}'", "circular reference"},
		"a table without a name":      {"      TableName: !Sub '${AWS::StackName}-Control'\n", "", "ControlTable has no TableName"},
		"an unknown condition":        {"  ControlTable:\n    Type:", "  ControlTable:\n    Condition: Sunny\n    Type:", "Sunny does not exist"},
		"an invalid default":          {"Default: INFO", "Default: LOUD", `parameter LogLevel`},
		"a number out of bounds":      {"Default: 500", "Default: 1", `parameter MaximumConcurrency`},
		"a duplicate key":             {"      VisibilityTimeout: 360\n", "      VisibilityTimeout: 360\n      VisibilityTimeout: 10\n", "duplicate key VisibilityTimeout"},
		"a merge key":                 {"      VisibilityTimeout: 360\n", "      <<: { VisibilityTimeout: 360 }\n", "merge key <<"},
		"an alias":                    {"Default: 500\n    MinValue: 2", "Default: &d 500\n    MinValue: *d", "alias *d"},
	} {
		changed := strings.Replace(original, c.from, c.to, 1)
		if changed == original {
			t.Errorf("%s: %q is not in the template", name, c.from)
			continue
		}
		_, err := resolve(changed)
		if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "line ") {
			t.Errorf("%s: %v, want it to say %q and the line", name, err, c.says)
		}
	}
}

func TestParameterConstraints(t *testing.T) {
	parsed, err := samtemplate.Parse([]byte(text(t)))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ parameter, value, says string }{
		"unknown parameter":    {"Nobody", "x", "no parameter Nobody"},
		"not an allowed value": {"AllowHttp", "yes", `"yes" is not one of [true false]`},
		"no match":             {"AllowNetworks", "everywhere", "does not match"},
		"partial match":        {"AllowNetworks", "10.0.0.0/8,", "does not match"},
		"not a number":         {"MaximumConcurrency", "many", "not a number"},
		"too large":            {"MaximumConcurrency", "1001", "outside MinValue and MaxValue"},
		"the largest":          {"MaximumConcurrency", "1000", ""},
		"two networks":         {"AllowNetworks", "127.0.0.0/8,::1/128", ""},
	} {
		_, err := parsed.Resolve(samtemplate.Context{StackName: "mine", Parameters: map[string]string{c.parameter: c.value}})
		if (err != nil) != (c.says != "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want it to say %q", name, err, c.says)
		}
	}
}

// Tracing costs money, so it is off by default.
func TestTracingIsOffByDefault(t *testing.T) {
	parsed, err := samtemplate.Parse([]byte(text(t)))
	if err != nil {
		t.Fatal(err)
	}
	for sampling, want := range map[string]string{"": "PassThrough", "0": "PassThrough", "1": "Active", "100": "Active"} {
		given := map[string]string{}
		if sampling != "" {
			given["TraceSampling"] = sampling
		}
		s, err := parsed.Resolve(samtemplate.Context{StackName: "mine", Parameters: given})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range s.Functions {
			if f.Tracing != want {
				t.Errorf("TraceSampling=%s: the mode of %s is %q, want %s", sampling, f.LogicalID, f.Tracing, want)
			}
		}
	}
}

// samconfig.toml fits the template.
func TestDeployments(t *testing.T) {
	var config map[string]any
	if _, err := toml.DecodeFile(filepath.Join(root, "samconfig.toml"), &config); err != nil {
		t.Fatal(err)
	}
	if config["version"] != 0.1 {
		t.Errorf("version = %v", config["version"])
	}
	parsed, err := samtemplate.Parse([]byte(text(t)))
	if err != nil {
		t.Fatal(err)
	}
	stacks := map[string]string{}
	for _, environment := range []string{"default", "staging", "prod"} {
		parameters := func(command string) map[string]any {
			section, _ := config[environment].(map[string]any)
			of, _ := section[command].(map[string]any)
			p, _ := of["parameters"].(map[string]any)
			return p
		}
		if parameters("build")["cached"] != false {
			t.Errorf("%s builds from a cache that does not see pkg/", environment)
		}
		name, _ := parameters("deploy")["stack_name"].(string)
		if other := stacks[name]; name == "" || other != "" {
			t.Errorf("%s deploys to the stack %q, and so does %q", environment, name, other)
		}
		stacks[name] = environment
		overrides := map[string]string{}
		given, _ := parameters("deploy")["parameter_overrides"].(string)
		for _, pair := range strings.Fields(given) {
			parameter, value, _ := strings.Cut(pair, "=")
			overrides[parameter] = value
		}
		if _, err := parsed.Resolve(samtemplate.Context{StackName: name, Parameters: overrides}); err != nil {
			t.Errorf("%s: %v", environment, err)
		}
		if environment == "prod" && overrides["DeletionProtection"] != "true" {
			t.Error("prod's tables can be deleted")
		}
	}
}

func TestTheCodesTablesAreTheTemplates(t *testing.T) {
	want := map[string]struct {
		keys string
		ttl  string
	}{
		dynamoitem.Events: {"event_id", "expires_at"}, dynamoitem.Deliveries: {"endpoint_id event_id due: due_shard due_at waiting: waiting event_id listed: listed event_id", "expires_at"},
		dynamoitem.Endpoints: {"tenant endpoint_id", ""}, dynamoitem.Control: {"key wake: wake_shard wake_at", "expires_at"}, dynamoitem.TestReceiver: {"run item", "expires_at"}, dynamoitem.Platform: {"pk sk expiring: expiring_shard expires_at closed: closed_shard closed_at", "ttl"},
		dynamoitem.Discussions: {"tenant discussion_id expiring: expiring_shard expires_at closed: closed_shard closed_at", ""},
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
	for name := range local.Settings() {
		built = append(built, name)
	}
	slices.Sort(declared)
	slices.Sort(built)
	if !slices.Equal(have, declared) || !slices.Equal(have, built) {
		t.Errorf("folders %v, template %v, handlers %v", have, declared, built)
	}
}

// Every environment variable that the code reads is set, and the reverse.
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
		walk(reflect.TypeOf(local.Settings()[f.Folder]))
		var set []string
		for name := range f.Environment {
			if !strings.HasPrefix(name, "AWS_ENDPOINT_URL_") { // the AWS SDK reads these
				set = append(set, name)
			}
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

func sample(t *testing.T, name string, into any) []byte {
	t.Helper()
	payload, err := os.ReadFile(filepath.Join(root, "events", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(payload, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return payload
}

// checkRequest fails the test if emit would reject the request.
func checkRequest(t *testing.T, name string, r emit.Request) {
	t.Helper()
	if err := validate.Default().Validate(r.Event, r.Data); err != nil {
		t.Errorf("%s: %v", name, err)
	}
}

// Every event type has a sample, and every sample is valid input for its function.
func TestSampleEvents(t *testing.T) {
	rest := map[string]lambdaevent.Kind{
		"emit-list": lambdaevent.Direct, "emit-function-url": lambdaevent.FunctionURL, "emit-platform-stream": lambdaevent.Stream,
		"dispatch-stream": lambdaevent.Stream, "dispatch-sqs": lambdaevent.Queue,
		"close-discussions": lambdaevent.Direct, "dispatch-sweep": lambdaevent.Direct, "dispatch-replay": lambdaevent.Direct, "dispatch-replay-dead": lambdaevent.Direct, "dispatch-recover": lambdaevent.Direct, "dispatch-erase": lambdaevent.Direct,
	}
	for _, eventType := range validate.Default().Types() {
		name := "emit-" + strings.NewReplacer(".", "-", "_", "-").Replace(eventType)
		rest[name] = lambdaevent.Direct
		var r emit.Request
		sample(t, name, &r)
		if r.Event != eventType {
			t.Errorf("%s holds %q", name, r.Event)
		}
		checkRequest(t, name, r)
	}
	files, err := filepath.Glob(filepath.Join(root, "events", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		want, ok := rest[name]
		if !ok {
			continue // has its own test
		}
		delete(rest, name)
		var any json.RawMessage
		if kind, err := lambdaevent.Of(sample(t, name, &any)); err != nil || kind != want {
			t.Errorf("%s: %s, %v; want %s", name, kind, err, want)
		}
	}
	for name := range rest {
		t.Errorf("events/%s.json is missing", name)
	}
}

// events/ has a sample for each trigger of each function, for `sam local invoke`, and no
// other files.
func TestEveryTriggerHasASampleEvent(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "events", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	s := stack(t)
	samples := map[string]map[lambdaevent.Kind][]json.RawMessage{} // by function
	for _, file := range files {
		name, owner := strings.TrimSuffix(filepath.Base(file), ".json"), ""
		for _, f := range s.Functions {
			if (name == f.Folder || strings.HasPrefix(name, f.Folder+"-")) && len(f.Folder) > len(owner) {
				owner = f.Folder
			}
		}
		if owner == "" {
			t.Errorf("events/%s.json: the name does not begin with a function's folder", name)
			continue
		}
		var payload json.RawMessage
		kind, err := lambdaevent.Of(sample(t, name, &payload))
		if err != nil {
			t.Errorf("events/%s.json: %v", name, err)
		}
		if samples[owner] == nil {
			samples[owner] = map[lambdaevent.Kind][]json.RawMessage{}
		}
		samples[owner][kind] = append(samples[owner][kind], payload)
	}
	for _, f := range s.Functions {
		has := samples[f.Folder]
		for kind, wanted := range map[lambdaevent.Kind]bool{lambdaevent.Stream: len(f.Streams) > 0, lambdaevent.Queue: len(f.Queues) > 0, lambdaevent.FunctionURL: f.URL} {
			if wanted && len(has[kind]) == 0 {
				t.Errorf("function %s has a trigger that is a %s, and no sample of one in events", f.Folder, kind)
			}
		}
		for _, one := range f.Schedules {
			if !slices.ContainsFunc(has[lambdaevent.Direct], func(p json.RawMessage) bool { return sameJSON(t, p, one.Input) }) {
				t.Errorf("function %s: no event is what its schedule %s sends: %s", f.Folder, one.Name, one.Input)
			}
		}
	}
}

func sameJSON(t *testing.T, a, b json.RawMessage) bool {
	t.Helper()
	var x, y any
	if err := errors.Join(json.Unmarshal(a, &x), json.Unmarshal(b, &y)); err != nil {
		t.Fatal(err)
	}
	return reflect.DeepEqual(x, y)
}

func TestSampleOfAList(t *testing.T) {
	var list struct{ Events []emit.Request }
	sample(t, "emit-list", &list)
	if len(list.Events) < 2 {
		t.Errorf("%d events", len(list.Events))
	}
	for _, r := range list.Events {
		checkRequest(t, "emit-list", r)
	}
}

func TestSampleOfAFunctionURL(t *testing.T) {
	var request events.LambdaFunctionURLRequest
	sample(t, "emit-function-url", &request)
	var r emit.Request
	if err := json.Unmarshal([]byte(request.Body), &r); err != nil {
		t.Fatal(err)
	}
	checkRequest(t, "emit-function-url", r)
}

// PlatformStreamArn replaces the stream of the stack's own platform table.
func TestAPlatformsOwnStreamIsFollowed(t *testing.T) {
	parsed, err := samtemplate.Parse([]byte(text(t)))
	if err != nil {
		t.Fatal(err)
	}
	const own = "arn:aws:dynamodb:eu-west-1:123456789012:table/members/stream/2026-01-29T00:00:00.000"
	for given, want := range map[string]string{"": "arn:aws:dynamodb:eu-west-1:123456789012:table/mine-Platform/stream/local", own: own} {
		s, err := parsed.Resolve(samtemplate.Context{StackName: "mine", Region: "eu-west-1", Account: "123456789012", Parameters: map[string]string{"PlatformStreamArn": given}})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range s.Functions {
			if f.Folder == "emit" && (len(f.Streams) != 1 || f.Streams[0].StreamARN != want) {
				t.Errorf("given %q, emit follows %+v", given, f.Streams)
			}
		}
	}
	if _, err := parsed.Resolve(samtemplate.Context{StackName: "mine", Parameters: map[string]string{"PlatformStreamArn": "members"}}); err == nil {
		t.Error("a name that is no stream's ARN is taken")
	}
}

// Each CaptureStream is a stream that emit follows as it follows the platform's, with
// permission on that stream and no other.
func TestOtherTablesStreamsAreFollowed(t *testing.T) {
	parsed, err := samtemplate.Parse([]byte(text(t)))
	if err != nil {
		t.Fatal(err)
	}
	const arn = "arn:aws:dynamodb:eu-west-1:123456789012:table/%s/stream/2026-01-29T00:00:00.000"
	given := map[string]string{}
	for n := range 6 {
		if n > 0 {
			given[fmt.Sprintf("CaptureStream%d", n)] = fmt.Sprintf(arn, fmt.Sprintf("orders%d", n))
		}
		s, err := parsed.Resolve(samtemplate.Context{StackName: "mine", Region: "eu-west-1", Account: "123456789012", Parameters: given})
		if err != nil {
			t.Fatal(err)
		}
		at := slices.IndexFunc(s.Functions, func(f samtemplate.Function) bool { return f.Folder == "emit" })
		emit := s.Functions[at]
		if len(emit.Streams) != n+1 {
			t.Fatalf("with %d streams, emit follows %+v", n, emit.Streams)
		}
		platforms := emit.Streams[0]
		for i, stream := range emit.Streams {
			want := platforms
			want.Name, want.StreamARN = stream.Name, stream.StreamARN
			if !reflect.DeepEqual(stream, want) || i > 0 && stream.StreamARN != fmt.Sprintf(arn, fmt.Sprintf("orders%d", i)) {
				t.Errorf("stream %d is followed as %+v, want %+v", i, stream, want)
			}
		}
		for i := 1; i <= 5; i++ {
			read := samtemplate.Request{Action: "dynamodb:GetRecords", Resource: fmt.Sprintf(arn, fmt.Sprintf("orders%d", i))}
			if allowed := samtemplate.Allows(emit.Statements, read); allowed != (i <= n) {
				t.Errorf("with %d streams, emit may read that of orders%d: %t", n, i, allowed)
			}
		}
	}
	if _, err := parsed.Resolve(samtemplate.Context{StackName: "mine", Parameters: map[string]string{"CaptureStream3": "orders"}}); err == nil {
		t.Error("a name that is no stream's ARN is taken")
	}
}

// The sample has a new member and an expired registration.
func TestSampleOfThePlatformsStream(t *testing.T) {
	var batch events.DynamoDBEvent
	sample(t, "emit-platform-stream", &batch)
	var got []string
	for _, r := range streamtest.Changes(batch.Records...) {
		list, err := rules.Shipped().Events(r)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range list {
			got = append(got, c.Event.Type)
		}
	}
	if len(batch.Records) != 2 || !slices.Equal(got, []string{"user.joined_community"}) {
		t.Errorf("%d records mean %v", len(batch.Records), got)
	}
}

func TestSampleOfTheStream(t *testing.T) {
	var batch events.DynamoDBEvent
	sample(t, "dispatch-stream", &batch)
	for _, r := range batch.Records {
		body := r.Change.NewImage["body"].String()
		e, err := event.Decode([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		if again, err := e.Encode(); err != nil || string(again) != body {
			t.Errorf("the body is not as Encode makes it: %s, %v", again, err)
		}
		if key := r.Change.Keys["event_id"].String(); key != e.ID {
			t.Errorf("the record of %s holds %s", key, e.ID)
		}
		if at, err := event.IDTime(e.ID); err != nil || !at.Equal(e.Timestamp) {
			t.Errorf("the id says %s, %v; the event %s", at, err, e.Timestamp)
		}
		checkRequest(t, "dispatch-stream", emit.Request{Event: e.Type, Data: e.Data})
	}
}

func TestSampleOfTheQueue(t *testing.T) {
	var batch events.SQSEvent
	sample(t, "dispatch-sqs", &batch)
	for _, m := range batch.Records {
		item, err := work.Decode(m.Body)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := event.IDTime(item.EventID); err != nil {
			t.Error(err)
		}
		if m.Attributes["MessageGroupId"] != item.Group() {
			t.Errorf("the item of %s travels in the group %s", item.EndpointID, m.Attributes["MessageGroupId"])
		}
		if sum := fmt.Sprintf("%x", md5.Sum([]byte(m.Body))); sum != m.Md5OfBody {
			t.Errorf("md5OfBody is %s, want %s", m.Md5OfBody, sum)
		}
	}
}

func TestSampleCommands(t *testing.T) {
	for name, action := range map[string]string{"dispatch-sweep": "sweep", "dispatch-replay": "replay", "dispatch-replay-dead": "start_job", "dispatch-recover": "start_job", "dispatch-erase": "start_job"} {
		var c dispatch.Command
		sample(t, name, &c)
		if c.Action != action {
			t.Errorf("%s asks for %q", name, c.Action)
		}
	}
}

func TestFolder(t *testing.T) {
	for id, want := range map[string]string{"EmitFunction": "emit", "CloseDiscussionsFunction": "close-discussions", "TestWebhookFunction": "test-webhook"} {
		if got := samtemplate.Folder(id); got != want {
			t.Errorf("Folder(%s) = %s", id, got)
		}
	}
}

func TestResolution(t *testing.T) {
	s, err := resolve(`
Parameters:
  Fast: { Type: String, Default: 'no' }
Mappings:
  Places: { no: { Name: here } }
Conditions:
  IsFast: !Equals [!Ref Fast, 'yes']
  IsSlow: !Not [!Condition IsFast]
Globals:
  Function:
    Timeout: 20
    Environment:
      Variables: { LEVEL: INFO, PLACE: everywhere }
Resources:
  Q:
    Type: AWS::SQS::Queue
    Properties:
      QueueName: !Sub '${AWS::StackName}-q'
      VisibilityTimeout: !If [IsSlow, 60, 10]
      DelaySeconds: !If [IsFast, 1, !Ref AWS::NoValue]
  OnlyFast:
    Type: AWS::SQS::Queue
    Condition: IsFast
    Properties: { QueueName: fast }
  AFunction:
    Type: AWS::Serverless::Function
    Properties:
      FunctionName: a
      Environment:
        Variables:
          PLACE: !FindInMap [Places, !Ref Fast, Name]
          LITERAL: !Sub '${!AWS::StackName} ${AWS::StackName}'
          LONG: { 'Fn::GetAtt': [Q, Arn] }
          SHORT: !GetAtt Q.Arn
          URL: { Ref: Q }
      Events:
        Work: { Type: SQS, Properties: { Queue: !GetAtt Q.Arn } }
        Stream: { Type: DynamoDB, Properties: { Stream: x, StartingPosition: LATEST } }
  BFunction:
    Type: AWS::Serverless::Function
    Properties: { FunctionName: b, Timeout: 5 }
`)
	if err != nil {
		t.Fatal(err)
	}
	arn, url := "arn:aws:sqs:eu-west-1:123456789012:mine-q", "https://sqs.eu-west-1.amazonaws.com/123456789012/mine-q"
	want := &samtemplate.Stack{
		Name:   "mine",
		Queues: []samtemplate.Queue{{LogicalID: "Q", Name: "mine-q", ARN: arn, URL: url, Visibility: time.Minute}},
		Functions: []samtemplate.Function{
			{
				LogicalID: "AFunction", Folder: "a", Name: "a", Timeout: 20 * time.Second,
				Environment: map[string]string{
					"LEVEL": "INFO", "PLACE": "here", "LITERAL": "${AWS::StackName} mine", "LONG": arn, "SHORT": arn, "URL": url,
				},
				// AWS's defaults.
				Queues:  []samtemplate.QueueTrigger{{Name: "Work", QueueARN: arn, BatchSize: 10}},
				Streams: []samtemplate.StreamTrigger{{Name: "Stream", StreamARN: "x", BatchSize: 100, MaxRetries: -1}},
			},
			{LogicalID: "BFunction", Folder: "b", Name: "b", Timeout: 5 * time.Second, Environment: map[string]string{"LEVEL": "INFO", "PLACE": "everywhere"}},
		},
	}
	if diff := cmp.Diff(want, s, cmpopts.IgnoreFields(samtemplate.Function{}, "Configuration")); diff != "" {
		t.Errorf("stack (-want +got):\n%s", diff)
	}
}
