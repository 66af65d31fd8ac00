// Package samtemplate reads template.yaml, the one place where tables, queues,
// triggers and schedules are described: tests create their tables from it and
// the local runner takes its triggers from it. It resolves the intrinsic
// functions that the template uses. It promises to refuse, with its line, what it
// does not understand, rather than to run something other than what is deployed.
package samtemplate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
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

// Alias is what deployed functions are called by: it names the version that is
// live, or two while a deployment moves from one to the next. A function's plain
// name is its newest version, rolled out or not.
const Alias = "live"

// Context is where the template is thought to be deployed.
type Context struct {
	StackName  string
	Region     string
	Account    string
	Parameters map[string]string // over the template's defaults
	// QueueURL gives the URL of the queue with a name; nil gives SQS's own form.
	QueueURL func(name string) string
}

// Stack is the resolved template, as far as running it needs.
type Stack struct {
	Name      string
	Tables    []Table
	Queues    []Queue
	Functions []Function
}

// Table is a DynamoDB table.
type Table struct {
	LogicalID    string
	Name         string
	StreamARN    string // where streams' triggers point; "" without a stream
	TTLAttribute string
	KeyARN       string // the KMS key it is encrypted under; "" is AWS's own
	Input        dynamodb.CreateTableInput
}

// Queue is an SQS queue.
type Queue struct {
	LogicalID   string
	Name        string
	ARN         string
	URL         string
	Visibility  time.Duration
	MaxReceives int    // 0 without a redrive policy
	DeadARN     string // of its dead-letter queue
}

// Function is a Lambda function with its triggers.
type Function struct {
	LogicalID   string
	Folder      string // functions/<Folder>
	Name        string
	Timeout     time.Duration
	Environment map[string]string
	Streams     []StreamTrigger
	Queues      []QueueTrigger
	Schedules   []Schedule
	URL         bool // has a function URL
	// SystemLogLevel is the least level of what Lambda itself logs, Tracing its mode.
	SystemLogLevel, Tracing string
	// Role is the ARN of the role that the function works under, where it is
	// another function's: that one's statements are what it may do.
	Role       string
	Statements []Statement
}

// Statement is one statement of a function's own role.
type Statement struct {
	Sid                string
	Actions, Resources []string
}

// Allows reports whether the statement allows an action on a resource, in
// IAM's words: a * stands for anything, a ? for one character.
func (s Statement) Allows(action, resource string) bool {
	matches := func(patterns []string, text string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool { return like(p, text) })
	}
	return matches(s.Actions, action) && matches(s.Resources, resource)
}

// like matches IAM's wildcards.
func like(pattern, text string) bool {
	quoted := strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(regexp.QuoteMeta(pattern))
	return regexp.MustCompile("^(?s:" + quoted + ")$").MatchString(text)
}

// StreamTrigger is an event source mapping of a table's stream.
type StreamTrigger struct {
	Name          string
	StreamARN     string
	BatchSize     int
	MaxRetries    int // -1 for ever
	MaxAge        time.Duration
	Bisect        bool
	ReportsItems  bool
	FailureARN    string
	Filters       []json.RawMessage
	FromBeginning bool
}

// QueueTrigger is an event source mapping of a queue.
type QueueTrigger struct {
	Name           string
	QueueARN       string
	BatchSize      int
	MaxConcurrency int // 0 without a limit
	ReportsItems   bool
}

// Schedule is an EventBridge schedule.
type Schedule struct {
	Name  string
	Every time.Duration
	Input json.RawMessage
}

// Template is a parsed template.
type Template struct {
	root       *yaml.Node
	parameters map[string]parameter
}

type parameter struct {
	Default        any      `yaml:"Default"`
	AllowedValues  []any    `yaml:"AllowedValues"`
	AllowedPattern string   `yaml:"AllowedPattern"`
	MinValue       *float64 `yaml:"MinValue"`
	MaxValue       *float64 `yaml:"MaxValue"`
}

// refuses says why CloudFormation would not take the value, or nil.
func (p parameter) refuses(value string) error {
	if p.AllowedValues != nil && !slices.ContainsFunc(p.AllowedValues, func(v any) bool { return fmt.Sprint(v) == value }) {
		return fmt.Errorf("%q is none of %v", value, p.AllowedValues)
	}
	if p.AllowedPattern != "" {
		// CloudFormation holds the whole value against it.
		pattern, err := regexp.Compile("^(?:" + p.AllowedPattern + ")$")
		if err != nil {
			return fmt.Errorf("AllowedPattern: %w", err)
		}
		if !pattern.MatchString(value) {
			return fmt.Errorf("%q does not match %s", value, p.AllowedPattern)
		}
	}
	if p.MinValue == nil && p.MaxValue == nil {
		return nil
	}
	n, err := strconv.ParseFloat(value, 64)
	if err != nil {
		return fmt.Errorf("%q is not a number", value)
	}
	if p.MinValue != nil && n < *p.MinValue || p.MaxValue != nil && n > *p.MaxValue {
		return fmt.Errorf("%s is out of its bounds", value)
	}
	return nil
}

// Load reads a template file.
func Load(path string) (*Template, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("template: %w", err)
	}
	t, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

// Parse reads a template.
func Parse(text []byte) (*Template, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("is not a mapping")
	}
	if err := unambiguous(doc.Content[0]); err != nil {
		return nil, err
	}
	t := &Template{root: doc.Content[0], parameters: map[string]parameter{}}
	if n := child(t.root, "Parameters"); n != nil {
		if err := n.Decode(&t.parameters); err != nil {
			return nil, fmt.Errorf("parameters: %w", err)
		}
	}
	return t, nil
}

// unambiguous refuses what YAML's readers read differently: a key given twice
// (some take the first, some the last), aliases and merge keys (CloudFormation
// User Guide, "Template formats": not supported).
func unambiguous(n *yaml.Node) error {
	if n.Kind == yaml.AliasNode {
		return fmt.Errorf("line %d: aliases (*%s) are not understood", n.Line, n.Value)
	}
	if n.Kind == yaml.MappingNode {
		lines := map[string]int{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			if key.Value == "<<" {
				return fmt.Errorf("line %d: merge keys (<<) are not understood", key.Line)
			}
			if first, ok := lines[key.Value]; ok {
				return fmt.Errorf("line %d: %s stands in line %d already", key.Line, key.Value, first)
			}
			lines[key.Value] = key.Line
		}
	}
	for _, c := range n.Content {
		if err := unambiguous(c); err != nil {
			return err
		}
	}
	return nil
}

// child returns the value of a key, or nil.
func child(n *yaml.Node, key string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// resolver evaluates intrinsic functions.
type resolver struct {
	*Template
	Context
	kinds map[string]string // resource type by logical id
	depth int               // of the evaluation, see eval
}

// Resolve returns what the template deploys in a context.
func (t *Template) Resolve(c Context) (*Stack, error) {
	r := &resolver{Template: t, Context: c, kinds: map[string]string{}}
	resources := child(t.root, "Resources")
	if resources == nil {
		return nil, errors.New("template: has no Resources")
	}
	for i := 0; i+1 < len(resources.Content); i += 2 {
		if kind := child(resources.Content[i+1], "Type"); kind != nil {
			r.kinds[resources.Content[i].Value] = kind.Value
		}
	}
	for name := range c.Parameters {
		if _, ok := t.parameters[name]; !ok {
			return nil, fmt.Errorf("template: has no parameter %s", name)
		}
	}
	for name, p := range t.parameters {
		value, ok := c.Parameters[name]
		if !ok && p.Default == nil {
			continue // refused where it is used
		}
		if !ok {
			value = fmt.Sprint(p.Default)
		}
		if err := p.refuses(value); err != nil {
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
		}
		if err != nil {
			return nil, fmt.Errorf("template: %s (line %d): %w", id, node.Line, err)
		}
	}
	return s, nil
}

// into evaluates a resource's properties and reads them into a struct, which
// has a field for every property that may be there.
func (r *resolver) into(node *yaml.Node, properties any) error {
	v, err := r.eval(child(node, "Properties"))
	if err != nil {
		return err
	}
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return strict(text, properties)
}

// strict refuses a property that v has no field for: this package would pass it
// over, and AWS would not.
func strict(text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		return nil
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return fmt.Errorf("property %s is not understood: what runs on this machine would differ from what is deployed", name)
	}
	return err
}

// elsewhere holds a property that is AWS's business alone: nothing that runs
// on this machine behaves differently for it.
type elsewhere = json.RawMessage

// number reads what CloudFormation takes as a number, written as one or quoted.
type number int

func (n *number) UnmarshalJSON(b []byte) error {
	i, err := strconv.Atoi(string(bytes.Trim(b, `"`)))
	*n = number(i)
	return err
}

// oneOrMore reads a string, or a list of them.
type oneOrMore []string

func (v *oneOrMore) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '[' {
		return json.Unmarshal(b, (*[]string)(v))
	}
	*v = oneOrMore{""}
	return json.Unmarshal(b, &(*v)[0])
}

// boolean reads true and "true".
type boolean bool

func (v *boolean) UnmarshalJSON(b []byte) error {
	t, err := strconv.ParseBool(string(bytes.Trim(b, `"`)))
	*v = boolean(t)
	return err
}

func (r *resolver) table(s *Stack, id string, node *yaml.Node) error {
	type key struct{ AttributeName, KeyType string }
	var p struct {
		TableName            string
		AttributeDefinitions []struct{ AttributeName, AttributeType string }
		KeySchema            []key
		// Only what the tables here use of an index.
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

		DeletionProtectionEnabled, PointInTimeRecoverySpecification, Tags elsewhere
	}
	if err := r.into(node, &p); err != nil {
		return err
	}
	if p.BillingMode != string(types.BillingModePayPerRequest) {
		return fmt.Errorf("BillingMode is %q; the tables are %s", p.BillingMode, types.BillingModePayPerRequest)
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

		SqsManagedSseEnabled, MessageRetentionPeriod, Tags elsewhere
	}
	if err := r.into(node, &p); err != nil {
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

// The properties of a function's triggers, by the trigger's type.
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
				Type        elsewhere
				Destination string
			}
		}
		FilterCriteria        struct{ Filters []struct{ Pattern string } }
		FunctionResponseTypes []string
		// A local stream has one shard, and one lane.
		ParallelizationFactor elsewhere
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
		Input              string

		Description, RetryPolicy elsewhere
	}
)

// What AWS takes where the template says nothing (AWS::Lambda::Function and
// AWS::Lambda::EventSourceMapping, CloudFormation's reference).
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
	text, err := json.Marshal(merge(shared, own))
	if err != nil {
		return err
	}
	// Not strict: most of what a function can be told is AWS's business alone.
	var p struct {
		FunctionName      string
		Timeout           *number
		Environment       struct{ Variables map[string]any }
		FunctionUrlConfig map[string]any
		LoggingConfig     struct{ SystemLogLevel string }
		Tracing           string
		Role              string
		Policies          []struct {
			Statement []struct {
				Sid, Effect      string
				Action, Resource oneOrMore
				Condition        map[string]any
			}
		}
		Events map[string]struct {
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
	}
	for name, v := range p.Environment.Variables {
		f.Environment[name] = fmt.Sprint(v)
	}
	for _, policy := range p.Policies {
		for _, statement := range policy.Statement {
			if statement.Effect != "Allow" {
				return fmt.Errorf("statement %s: effect %q is not understood", statement.Sid, statement.Effect)
			}
			f.Statements = append(f.Statements, Statement{statement.Sid, statement.Action, statement.Resource})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Events)) {
		if err := f.trigger(name, p.Events[name].Type, p.Events[name].Properties); err != nil {
			return fmt.Errorf("event %s (line %d): %w", name, child(child(child(node, "Properties"), "Events"), name).Line, err)
		}
	}
	s.Functions = append(s.Functions, f)
	return nil
}

// merge lays what one function says over what Globals say of all, as SAM does:
// maps are merged, lists joined, everything else replaced.
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

// trigger adds one entry of the function's Events.
func (f *Function) trigger(name, kind string, properties []byte) error {
	const reports = "ReportBatchItemFailures"
	switch kind {
	case "DynamoDB":
		var p streamProperties
		if err := strict(properties, &p); err != nil {
			return err
		}
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
		f.Streams = append(f.Streams, t)
	case "SQS":
		var p queueProperties
		if err := strict(properties, &p); err != nil {
			return err
		}
		f.Queues = append(f.Queues, QueueTrigger{
			Name: name, QueueARN: p.Queue, BatchSize: p.BatchSize.or(defaultQueueBatch),
			MaxConcurrency: int(p.ScalingConfig.MaximumConcurrency), ReportsItems: slices.Contains(p.FunctionResponseTypes, reports),
		})
	case "ScheduleV2":
		var p scheduleProperties
		if err := strict(properties, &p); err != nil {
			return err
		}
		every, err := rate(p.ScheduleExpression)
		if err != nil {
			return err
		}
		f.Schedules = append(f.Schedules, Schedule{Name: p.Name, Every: every, Input: json.RawMessage(p.Input)})
	default:
		return fmt.Errorf("type %s; DynamoDB, SQS and ScheduleV2 are understood", kind)
	}
	return nil
}

// Folder returns the folder under functions/ of a function's logical id:
// CloseDiscussionsFunction is close-discussions.
func Folder(logicalID string) string {
	words := camel.FindAllString(strings.TrimSuffix(logicalID, "Function"), -1)
	return strings.ToLower(strings.Join(words, "-"))
}

// ForSample returns the function that a sample event is for, by the sample's name,
// which begins with the function's folder: dispatch-sqs is dispatch's. It is nil
// where there is none.
func (s *Stack) ForSample(name string) *Function {
	var found *Function
	for i := range s.Functions {
		f := &s.Functions[i]
		if (name == f.Folder || strings.HasPrefix(name, f.Folder+"-")) && (found == nil || len(f.Folder) > len(found.Folder)) {
			found = f
		}
	}
	return found
}

var (
	camel   = regexp.MustCompile(`[A-Z][a-z0-9]*`)
	rates   = regexp.MustCompile(`^rate\((\d+) (minute|hour|day)(s?)\)$`)
	inSub   = regexp.MustCompile(`\$\{([^!}][^}]*)\}`)
	periods = map[string]time.Duration{"minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour}
)

// rate reads a rate expression. EventBridge wants the singular after 1, and the
// plural after everything else, and refuses the deployment otherwise.
func rate(expression string) (time.Duration, error) {
	m := rates.FindStringSubmatch(expression)
	if m == nil {
		return 0, fmt.Errorf("schedule %q is not rate(N minutes|hours|days)", expression)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil || n < 1 || (n == 1) != (m[3] == "") {
		return 0, fmt.Errorf("schedule %q: write rate(1 minute) or rate(2 minutes)", expression)
	}
	return time.Duration(n) * periods[m[2]], nil
}

// maxDepth is far deeper than templates are; what is deeper goes in a circle.
const maxDepth = 100

// eval evaluates a node to maps, lists and scalars.
func (r *resolver) eval(n *yaml.Node) (any, error) {
	if n == nil {
		return nil, nil
	}
	if r.depth == maxDepth {
		return nil, fmt.Errorf("line %d: refers to itself", n.Line)
	}
	r.depth++
	defer func() { r.depth-- }()
	if name, ok := strings.CutPrefix(n.Tag, "!"); ok && !strings.HasPrefix(n.Tag, "!!") {
		plain := *n
		plain.Tag = ""
		return r.call(name, &plain)
	}
	switch n.Kind {
	case yaml.ScalarNode:
		var v any
		err := n.Decode(&v)
		return v, err
	case yaml.SequenceNode:
		list := []any{}
		for _, item := range n.Content {
			v, err := r.eval(item)
			if err != nil {
				return nil, err
			}
			if v != noValue {
				list = append(list, v)
			}
		}
		return list, nil
	}
	if len(n.Content) == 2 {
		key := n.Content[0].Value
		if name, ok := strings.CutPrefix(key, "Fn::"); ok || key == "Ref" {
			if !ok {
				name = key
			}
			return r.call(name, n.Content[1])
		}
	}
	object := map[string]any{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		v, err := r.eval(n.Content[i+1])
		if err != nil {
			return nil, err
		}
		if v != noValue {
			object[n.Content[i].Value] = v
		}
	}
	return object, nil
}

// noValue is what AWS::NoValue leaves out.
var noValue any = struct{ noValue bool }{true}

// call evaluates one intrinsic function.
func (r *resolver) call(name string, arg *yaml.Node) (any, error) {
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("line %d: !%s %s", arg.Line, name, fmt.Sprintf(format, args...))
	}
	switch name {
	case "Ref":
		if arg.Value == "AWS::NoValue" {
			return noValue, nil
		}
		v, err := r.lookup(arg.Value)
		if err != nil {
			return nil, fmt.Errorf("line %d: !%s: %w", arg.Line, name, err)
		}
		return v, nil
	case "GetAtt":
		id, attribute, _ := strings.Cut(arg.Value, ".")
		if arg.Kind == yaml.SequenceNode && len(arg.Content) == 2 {
			id, attribute = arg.Content[0].Value, arg.Content[1].Value
		}
		v, err := r.attribute(id, attribute)
		if err != nil {
			return nil, fmt.Errorf("line %d: !%s: %w", arg.Line, name, err)
		}
		return v, nil
	case "Sub":
		if arg.Kind != yaml.ScalarNode {
			return nil, wrong("with variables of its own is not understood")
		}
		var failed error
		text := inSub.ReplaceAllStringFunc(arg.Value, func(match string) string {
			if failed != nil {
				return ""
			}
			inner := match[2 : len(match)-1]
			var v string
			if id, attribute, ok := strings.Cut(inner, "."); ok {
				v, failed = r.attribute(id, attribute)
			} else {
				v, failed = r.lookup(inner)
			}
			return v
		})
		if failed != nil {
			return nil, fmt.Errorf("line %d: !%s: %w", arg.Line, name, failed)
		}
		return strings.ReplaceAll(text, "${!", "${"), nil // the way to write a literal ${
	case "Join":
		if len(arg.Content) != 2 {
			return nil, wrong("has %d parts, not 2", len(arg.Content))
		}
		v, err := r.eval(arg.Content[1])
		if err != nil {
			return nil, err
		}
		list, ok := v.([]any)
		if !ok {
			return v, nil // a list parameter, which is written as one string
		}
		var parts []string
		for _, item := range list {
			parts = append(parts, fmt.Sprint(item))
		}
		return strings.Join(parts, arg.Content[0].Value), nil
	case "If", "Equals", "Not", "And", "Or", "Condition":
		return r.logic(name, arg, wrong)
	}
	return nil, wrong("is not understood")
}

func (r *resolver) logic(name string, arg *yaml.Node, wrong func(string, ...any) error) (any, error) {
	if name == "Condition" {
		return r.condition(arg.Value)
	}
	if name == "If" {
		if len(arg.Content) != 3 {
			return nil, wrong("has %d parts, not 3", len(arg.Content))
		}
		holds, err := r.condition(arg.Content[0].Value)
		if err != nil {
			return nil, err
		}
		if holds {
			return r.eval(arg.Content[1])
		}
		return r.eval(arg.Content[2])
	}
	var values []any
	for _, n := range arg.Content {
		v, err := r.eval(n)
		if err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	switch {
	case name == "Equals" && len(values) == 2:
		return fmt.Sprint(values[0]) == fmt.Sprint(values[1]), nil
	case name == "Not" && len(values) == 1:
		return values[0] != true, nil
	case name == "And":
		return !slices.ContainsFunc(values, func(v any) bool { return v != true }), nil
	case name == "Or":
		return slices.Contains(values, any(true)), nil
	}
	return nil, wrong("has %d parts", len(values))
}

func (r *resolver) condition(name string) (bool, error) {
	n := child(child(r.root, "Conditions"), name)
	if n == nil {
		return false, fmt.Errorf("condition %s does not exist", name)
	}
	v, err := r.eval(n)
	return v == true, err
}

// lookup returns a parameter, a pseudo parameter or a resource's reference.
func (r *resolver) lookup(name string) (string, error) {
	if v, ok := r.Parameters[name]; ok {
		return v, nil
	}
	if p, ok := r.parameters[name]; ok {
		if p.Default == nil {
			return "", fmt.Errorf("parameter %s has no default and no value", name)
		}
		return fmt.Sprint(p.Default), nil
	}
	switch name {
	case "AWS::StackName":
		return r.StackName, nil
	case "AWS::Region":
		return r.Region, nil
	case "AWS::AccountId":
		return r.Account, nil
	case "AWS::Partition":
		return "aws", nil
	case "AWS::URLSuffix":
		return "amazonaws.com", nil
	}
	if _, ok := r.kinds[name]; ok {
		return r.ref(name)
	}
	return "", fmt.Errorf("%s is no parameter and no resource", name)
}

// physical returns a resource's own name. It needs one: a name that
// CloudFormation makes up is not known before it has.
func (r *resolver) physical(id string) (string, error) {
	kind, ok := r.kinds[id]
	if !ok {
		return "", fmt.Errorf("%s is no resource", id)
	}
	if kind == "AWS::KMS::Key" {
		return id, nil // AWS chooses its id
	}
	property, ok := map[string]string{
		"AWS::DynamoDB::Table": "TableName", "AWS::SQS::Queue": "QueueName",
		"AWS::Serverless::Function": "FunctionName", "AWS::Logs::LogGroup": "LogGroupName",
		"AWS::CloudWatch::Alarm": "AlarmName", "AWS::SNS::Topic": "TopicName",
	}[kind]
	if !ok {
		return "", fmt.Errorf("%s is of type %s: what refers to it is not understood", id, kind)
	}
	v, err := r.eval(child(child(child(child(r.root, "Resources"), id), "Properties"), property))
	if err != nil {
		return "", err
	}
	name, ok := v.(string)
	if !ok {
		return "", fmt.Errorf("%s has no %s", id, property)
	}
	return name, nil
}

// ref is what Ref gives for a resource.
func (r *resolver) ref(id string) (string, error) {
	name, err := r.physical(id)
	switch {
	case err == nil && r.kinds[id] == "AWS::SNS::Topic":
		return fmt.Sprintf("arn:aws:sns:%s:%s:%s", r.Region, r.Account, name), nil
	case err != nil || r.kinds[id] != "AWS::SQS::Queue":
		return name, err
	case r.QueueURL != nil:
		return r.QueueURL(name), nil
	}
	return fmt.Sprintf("https://sqs.%s.amazonaws.com/%s/%s", r.Region, r.Account, name), nil
}

// attribute is what GetAtt gives, ARNs in AWS's form.
func (r *resolver) attribute(id, attribute string) (string, error) {
	// SAM makes a role for a function that names none, under this id.
	if of, ok := strings.CutSuffix(id, "Role"); ok && r.kinds[id] == "" && r.kinds[of] == "AWS::Serverless::Function" && attribute == "Arn" {
		return fmt.Sprintf("arn:aws:iam::%s:role/%s-%s", r.Account, r.StackName, id), nil
	}
	// And a URL, under this one; only AWS knows its host.
	if of, ok := strings.CutSuffix(id, "Url"); ok && r.kinds[id] == "" && r.kinds[of] == "AWS::Serverless::Function" && attribute == "FunctionUrl" {
		return fmt.Sprintf("https://%s.lambda-url.%s.on.aws/", strings.ToLower(of), r.Region), nil
	}
	name, err := r.physical(id)
	if err != nil {
		return "", err
	}
	arn := func(service, resource string) (string, error) {
		return fmt.Sprintf("arn:aws:%s:%s:%s:%s", service, r.Region, r.Account, resource), nil
	}
	switch r.kinds[id] + " " + attribute {
	case "AWS::DynamoDB::Table Arn":
		return arn("dynamodb", "table/"+name)
	case "AWS::DynamoDB::Table StreamArn":
		return arn("dynamodb", "table/"+name+"/stream/local")
	case "AWS::SQS::Queue Arn":
		return arn("sqs", name)
	case "AWS::SQS::Queue QueueName":
		return name, nil
	case "AWS::KMS::Key Arn":
		return arn("kms", "key/"+name)
	case "AWS::Serverless::Function Arn":
		return arn("lambda", "function:"+name)
	}
	return "", fmt.Errorf("attribute %s of %s, a %s, is not understood", attribute, id, r.kinds[id])
}
