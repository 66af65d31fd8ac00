package samtemplate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"go.yaml.in/yaml/v3"
)

// Resolve evaluates the template for a stack. Resources whose condition is false are
// omitted.
func (t *Template) Resolve(c Context) (*Stack, error) {
	r := &resolver{Template: t, Context: c, kinds: map[string]string{}, roles: map[string][]Statement{}}
	resources := child(t.root, "Resources")
	if resources == nil {
		return nil, errors.New("template: no Resources")
	}
	for i := 0; i+1 < len(resources.Content); i += 2 {
		if kind := child(resources.Content[i+1], "Type"); kind != nil {
			r.kinds[resources.Content[i].Value] = kind.Value
		}
	}
	for name := range c.Parameters {
		if _, ok := t.parameters[name]; !ok {
			return nil, fmt.Errorf("template: no parameter %s", name)
		}
	}
	for name, p := range t.parameters {
		value, ok := c.Parameters[name]
		if !ok && p.Default == nil {
			continue // an error where it is used
		}
		if !ok {
			value = fmt.Sprint(p.Default)
		}
		if err := p.validate(value); err != nil {
			return nil, fmt.Errorf("template: parameter %s (line %d): %w", name, child(child(t.root, "Parameters"), name).Line, err)
		}
	}
	s := &Stack{Name: c.StackName}
	for i := 0; i+1 < len(resources.Content); i += 2 {
		id, node := resources.Content[i].Value, resources.Content[i+1]
		if c := child(node, "Condition"); c != nil {
			holds, err := r.condition(c.Value)
			if err != nil {
				return nil, fmt.Errorf("template: %s (line %d): %w", id, c.Line, err)
			}
			if !holds {
				continue
			}
		}
		var err error
		switch r.kinds[id] {
		case "AWS::DynamoDB::Table":
			err = r.table(s, id, node)
		case "AWS::SQS::Queue":
			err = r.queue(s, id, node)
		case "AWS::Serverless::Function":
			err = r.function(s, id, node)
		case "AWS::IAM::Role":
			err = r.role(id, node)
		case "AWS::Lambda::EventSourceMapping":
			err = r.mapping(id, node)
		}
		if err != nil {
			return nil, fmt.Errorf("template: %s (line %d): %w", id, node.Line, err)
		}
	}
	if err := r.assignMappings(s); err != nil {
		return nil, err
	}
	return s, r.assignRoles(s)
}

// mapping reads an event source mapping that is a resource of its own, which can have a
// condition, unlike an entry of a function's Events.
func (r *resolver) mapping(id string, node *yaml.Node) error {
	v, err := r.eval(child(node, "Properties"))
	if err != nil {
		return err
	}
	properties, _ := v.(map[string]any)
	function, source := fmt.Sprint(properties["FunctionName"]), fmt.Sprint(properties["EventSourceArn"])
	delete(properties, "FunctionName")
	delete(properties, "EventSourceArn")
	kind, name := "DynamoDB", "Stream"
	if strings.Contains(source, ":sqs:") {
		kind, name = "SQS", "Queue"
	}
	properties[name] = source
	text, err := json.Marshal(properties)
	if err != nil {
		return err
	}
	m := separateMapping{name: id, function: function}
	r.mappings = append(r.mappings, &m)
	return m.trigger.addTrigger(id, kind, text)
}

// separateMapping is the trigger of a function by an event source mapping.
type separateMapping struct {
	name     string
	function string   // ARN of its alias
	trigger  Function // has nothing but the trigger
}

// assignMappings gives the functions the triggers of the separate mappings.
func (r *resolver) assignMappings(s *Stack) error {
	for _, m := range r.mappings {
		i := slices.IndexFunc(s.Functions, func(f Function) bool { return m.function == r.aliasARN(f.Name) })
		if i < 0 {
			return fmt.Errorf("template: %s: the function %s is not in the template, or not its alias %s", m.name, m.function, Alias)
		}
		s.Functions[i].Streams = append(s.Functions[i].Streams, m.trigger.Streams...)
		s.Functions[i].Queues = append(s.Functions[i].Queues, m.trigger.Queues...)
	}
	return nil
}

// aliasARN returns the ARN of a function's alias.
func (r *resolver) aliasARN(function string) string {
	return fmt.Sprintf("arn:aws:lambda:%s:%s:function:%s:%s", r.Region, r.Account, function, Alias)
}

// role reads a function's role.
func (r *resolver) role(id string, node *yaml.Node) error {
	var p struct {
		AssumeRolePolicyDocument ignored
		Policies                 []writtenPolicy
	}
	if err := r.decodeProperties(node, &p); err != nil {
		return err
	}
	arn, err := r.attribute(id, "Arn")
	if err != nil {
		return err
	}
	list, err := statements(p.Policies)
	r.roles[arn] = list
	return err
}

// assignRoles gives the functions the statements of their roles.
func (r *resolver) assignRoles(s *Stack) error {
	for i := range s.Functions {
		f := &s.Functions[i]
		list, ok := r.roles[f.Role]
		if !ok && f.Role != "" {
			return fmt.Errorf("template: function %s has the role %s, which is not in the template", f.LogicalID, f.Role)
		}
		f.Statements = list
	}
	return nil
}

// decodeProperties evaluates a resource's properties into a struct, which must have a
// field for each of them.
func (r *resolver) decodeProperties(node *yaml.Node, properties any) error {
	v, err := r.eval(child(node, "Properties"))
	if err != nil {
		return err
	}
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return decodeStrict(text, properties)
}

// decodeStrict rejects properties that v has no field for, instead of ignoring a
// setting that AWS applies.
func decodeStrict(text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		return nil
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return fmt.Errorf("property %s is not supported: the local runner would differ from the deployment", name)
	}
	return err
}

// ignored is a property without an effect on the local runner.
type ignored = json.RawMessage

// number decodes a number or, as CloudFormation does, a quoted number.
type number int

func (n *number) UnmarshalJSON(b []byte) error {
	i, err := strconv.Atoi(string(bytes.Trim(b, `"`)))
	*n = number(i)
	return err
}

// oneOrMore decodes a string or a list of strings.
type oneOrMore []string

func (v *oneOrMore) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '[' {
		return json.Unmarshal(b, (*[]string)(v))
	}
	*v = oneOrMore{""}
	return json.Unmarshal(b, &(*v)[0])
}

// boolean decodes true and "true".
type boolean bool

func (v *boolean) UnmarshalJSON(b []byte) error {
	t, err := strconv.ParseBool(string(bytes.Trim(b, `"`)))
	*v = boolean(t)
	return err
}

func (r *resolver) table(s *Stack, id string, node *yaml.Node) error {
	type key struct{ AttributeName, KeyType string }
	var p struct {
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
		StreamSpecification     *struct{ StreamViewType string }
		TimeToLiveSpecification struct {
			AttributeName string
			Enabled       boolean
		}
		BillingMode string

		SSESpecification struct {
			SSEEnabled     boolean
			SSEType        string
			KMSMasterKeyId string
		}

		DeletionProtectionEnabled, PointInTimeRecoverySpecification, Tags ignored
	}
	if err := r.decodeProperties(node, &p); err != nil {
		return err
	}
	if p.BillingMode != string(types.BillingModePayPerRequest) {
		return fmt.Errorf("BillingMode %q is not supported, only %s", p.BillingMode, types.BillingModePayPerRequest)
	}
	keys := func(list []key) (out []types.KeySchemaElement) {
		for _, k := range list {
			out = append(out, types.KeySchemaElement{AttributeName: aws.String(k.AttributeName), KeyType: types.KeyType(k.KeyType)})
		}
		return out
	}
	t := Table{LogicalID: id, Name: p.TableName, KeyARN: p.SSESpecification.KMSMasterKeyId, Input: dynamodb.CreateTableInput{
		TableName: aws.String(p.TableName), BillingMode: types.BillingModePayPerRequest, KeySchema: keys(p.KeySchema),
	}}
	for _, a := range p.AttributeDefinitions {
		t.Input.AttributeDefinitions = append(t.Input.AttributeDefinitions,
			types.AttributeDefinition{AttributeName: aws.String(a.AttributeName), AttributeType: types.ScalarAttributeType(a.AttributeType)})
	}
	for _, g := range p.GlobalSecondaryIndexes {
		t.Input.GlobalSecondaryIndexes = append(t.Input.GlobalSecondaryIndexes, types.GlobalSecondaryIndex{
			IndexName: aws.String(g.IndexName), KeySchema: keys(g.KeySchema),
			Projection: &types.Projection{ProjectionType: types.ProjectionType(g.Projection.ProjectionType), NonKeyAttributes: g.Projection.NonKeyAttributes},
		})
	}
	if p.StreamSpecification != nil {
		var err error
		if t.StreamARN, err = r.attribute(id, "StreamArn"); err != nil {
			return err
		}
		t.Input.StreamSpecification = &types.StreamSpecification{
			StreamEnabled: aws.Bool(true), StreamViewType: types.StreamViewType(p.StreamSpecification.StreamViewType),
		}
	}
	if p.TimeToLiveSpecification.Enabled {
		t.TTLAttribute = p.TimeToLiveSpecification.AttributeName
	}
	s.Tables = append(s.Tables, t)
	return nil
}

func (r *resolver) queue(s *Stack, id string, node *yaml.Node) error {
	var p struct {
		QueueName         string
		VisibilityTimeout *number
		RedrivePolicy     *struct {
			DeadLetterTargetArn string `json:"deadLetterTargetArn"`
			MaxReceiveCount     number `json:"maxReceiveCount"`
		}

		SqsManagedSseEnabled, MessageRetentionPeriod, Tags ignored
	}
	if err := r.decodeProperties(node, &p); err != nil {
		return err
	}
	arn, err := r.attribute(id, "Arn")
	if err != nil {
		return err
	}
	url, err := r.ref(id)
	if err != nil {
		return err
	}
	q := Queue{LogicalID: id, Name: p.QueueName, ARN: arn, URL: url, Visibility: 30 * time.Second}
	if p.VisibilityTimeout != nil {
		q.Visibility = time.Duration(*p.VisibilityTimeout) * time.Second
	}
	if p.RedrivePolicy != nil {
		q.MaxReceives, q.DeadARN = int(p.RedrivePolicy.MaxReceiveCount), p.RedrivePolicy.DeadLetterTargetArn
	}
	s.Queues = append(s.Queues, q)
	return nil
}

// Properties of the supported event types.
type (
	streamProperties struct {
		Stream                     string
		StartingPosition           string
		BatchSize                  *number
		MaximumRetryAttempts       *number
		MaximumRecordAgeInSeconds  *number
		BisectBatchOnFunctionError boolean
		DestinationConfig          struct {
			OnFailure struct {
				Type        ignored
				Destination string
			}
		}
		FilterCriteria        struct{ Filters []struct{ Pattern string } }
		FunctionResponseTypes []string
		// A local stream has one shard without parallelization.
		ParallelizationFactor ignored
	}
	queueProperties struct {
		Queue                 string
		BatchSize             *number
		ScalingConfig         struct{ MaximumConcurrency number }
		FunctionResponseTypes []string
	}
	scheduleProperties struct {
		Name               string
		ScheduleExpression string
		State              string
		Input              string

		Description, RetryPolicy ignored
	}
)

// Defaults of AWS::Lambda::Function (seconds) and AWS::Lambda::EventSourceMapping, from
// the CloudFormation reference.
const (
	defaultTimeout     = 3
	defaultStreamBatch = 100
	defaultQueueBatch  = 10
)

func (n *number) or(otherwise int) int {
	if n == nil {
		return otherwise
	}
	return int(*n)
}

func (r *resolver) function(s *Stack, id string, node *yaml.Node) error {
	own, err := r.eval(child(node, "Properties"))
	if err != nil {
		return err
	}
	shared, err := r.eval(child(child(r.root, "Globals"), "Function"))
	if err != nil {
		return fmt.Errorf("globals: %w", err)
	}
	merged := merge(shared, own)
	text, err := json.Marshal(merged)
	if err != nil {
		return err
	}
	configuration, err := configuration(merged)
	if err != nil {
		return err
	}
	// Not strict: most function properties have no effect on the local runner.
	var p struct {
		FunctionName      string
		Timeout           *number
		Environment       struct{ Variables map[string]any }
		FunctionUrlConfig map[string]any
		LoggingConfig     struct{ SystemLogLevel string }
		Tracing           string
		RecursiveLoop     string
		Version           string `json:"VersionDescription"`
		Role              string
		Events            map[string]struct {
			Type       string
			Properties json.RawMessage
		}
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return err
	}
	f := Function{
		LogicalID: id, Folder: Folder(id), Name: p.FunctionName, Timeout: time.Duration(p.Timeout.or(defaultTimeout)) * time.Second,
		Environment: map[string]string{}, URL: p.FunctionUrlConfig != nil, Role: p.Role,
		SystemLogLevel: p.LoggingConfig.SystemLogLevel, Tracing: p.Tracing,
		Configuration: configuration, VersionDescription: p.Version, RecursiveLoop: p.RecursiveLoop,
	}
	for name, v := range p.Environment.Variables {
		f.Environment[name] = fmt.Sprint(v)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Events)) {
		if err := f.addTrigger(name, p.Events[name].Type, p.Events[name].Properties); err != nil {
			return fmt.Errorf("event %s (line %d): %w", name, child(child(child(node, "Properties"), "Events"), name).Line, err)
		}
	}
	s.Functions = append(s.Functions, f)
	return nil
}

// versioned are the properties that a version keeps.
var versioned = []string{"Architectures", "Environment", "Handler", "LoggingConfig", "MemorySize", "Runtime", "Timeout", "Tracing", "VpcConfig"}

func configuration(properties any) (string, error) {
	all, _ := properties.(map[string]any)
	kept := map[string]any{}
	for _, name := range versioned {
		kept[name] = all[name]
	}
	text, err := json.Marshal(kept)
	return string(text), err
}

// merge applies SAM's rules for Globals: maps are merged, lists concatenated, other
// values replaced.
func merge(shared, own any) any {
	switch over := own.(type) {
	case nil:
		return shared
	case map[string]any:
		under, ok := shared.(map[string]any)
		if !ok {
			return own
		}
		merged := maps.Clone(under)
		for name, v := range over {
			merged[name] = merge(under[name], v)
		}
		return merged
	case []any:
		if under, ok := shared.([]any); ok {
			return slices.Concat(under, over)
		}
	}
	return own
}

// reports is the function response type of functions that report the items that failed.
const reports = "ReportBatchItemFailures"

func (p streamProperties) trigger(name string) StreamTrigger {
	t := StreamTrigger{
		Name: name, StreamARN: p.Stream, BatchSize: p.BatchSize.or(defaultStreamBatch), MaxRetries: p.MaximumRetryAttempts.or(-1),
		Bisect: bool(p.BisectBatchOnFunctionError), ReportsItems: slices.Contains(p.FunctionResponseTypes, reports),
		FailureARN: p.DestinationConfig.OnFailure.Destination, FromBeginning: p.StartingPosition == "TRIM_HORIZON",
	}
	if age := p.MaximumRecordAgeInSeconds.or(-1); age > 0 {
		t.MaxAge = time.Duration(age) * time.Second
	}
	for _, filter := range p.FilterCriteria.Filters {
		t.Filters = append(t.Filters, json.RawMessage(filter.Pattern))
	}
	return t
}

// addTrigger adds an entry of the function's Events.
func (f *Function) addTrigger(name, kind string, properties []byte) error {
	switch kind {
	case "DynamoDB":
		var p streamProperties
		if err := decodeStrict(properties, &p); err != nil {
			return err
		}
		f.Streams = append(f.Streams, p.trigger(name))
	case "SQS":
		var p queueProperties
		if err := decodeStrict(properties, &p); err != nil {
			return err
		}
		f.Queues = append(f.Queues, QueueTrigger{
			Name: name, QueueARN: p.Queue, BatchSize: p.BatchSize.or(defaultQueueBatch),
			MaxConcurrency: int(p.ScalingConfig.MaximumConcurrency), ReportsItems: slices.Contains(p.FunctionResponseTypes, reports),
		})
	case "ScheduleV2":
		var p scheduleProperties
		if err := decodeStrict(properties, &p); err != nil {
			return err
		}
		every, err := parseRate(p.ScheduleExpression)
		if err != nil {
			return err
		}
		if p.State == "DISABLED" {
			return nil
		}
		f.Schedules = append(f.Schedules, Schedule{Name: p.Name, Every: every, Input: json.RawMessage(p.Input)})
	default:
		return fmt.Errorf("type %s is not supported; use DynamoDB, SQS or ScheduleV2", kind)
	}
	return nil
}

var (
	rateExpression = regexp.MustCompile(`^rate\((\d+) (minute|hour|day)(s?)\)$`)
	rateUnits      = map[string]time.Duration{"minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour}
)

// parseRate parses a rate expression. EventBridge rejects a plural unit with 1 and a
// singular unit with other values.
func parseRate(expression string) (time.Duration, error) {
	m := rateExpression.FindStringSubmatch(expression)
	if m == nil {
		return 0, fmt.Errorf("schedule %q is not rate(N minutes|hours|days)", expression)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil || n < 1 || (n == 1) != (m[3] == "") {
		return 0, fmt.Errorf("schedule %q: write rate(1 minute) or rate(2 minutes)", expression)
	}
	return time.Duration(n) * rateUnits[m[2]], nil
}
