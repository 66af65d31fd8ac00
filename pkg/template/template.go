// Package template reads template.yaml, the one place where tables, queues,
// triggers and schedules are described: tests create their tables from it and
// the local runner takes its triggers from it. It resolves the intrinsic
// functions that the template uses. It promises to refuse, with its line, what it
// does not understand, rather than to run something other than what is deployed.
package template

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
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
	Type    string `yaml:"Type"`
	Default any    `yaml:"Default"`
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
	t := &Template{root: doc.Content[0], parameters: map[string]parameter{}}
	if n := child(t.root, "Parameters"); n != nil {
		if err := n.Decode(&t.parameters); err != nil {
			return nil, fmt.Errorf("parameters: %w", err)
		}
	}
	return t, nil
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
	s := &Stack{Name: c.StackName}
	for i := 0; i+1 < len(resources.Content); i += 2 {
		id, node := resources.Content[i].Value, resources.Content[i+1]
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

// into evaluates a resource's properties and reads them into a struct.
func (r *resolver) into(node *yaml.Node, properties any) error {
	v, err := r.eval(child(node, "Properties"))
	if err != nil {
		return err
	}
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, properties)
}

// number reads what CloudFormation takes as a number, written as one or quoted.
type number int

func (n *number) UnmarshalJSON(b []byte) error {
	i, err := strconv.Atoi(string(bytes.Trim(b, `"`)))
	*n = number(i)
	return err
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
		TimeToLiveSpecification *struct{ AttributeName string }
	}
	if err := r.into(node, &p); err != nil {
		return err
	}
	keys := func(list []key) (out []types.KeySchemaElement) {
		for _, k := range list {
			out = append(out, types.KeySchemaElement{AttributeName: aws.String(k.AttributeName), KeyType: types.KeyType(k.KeyType)})
		}
		return out
	}
	t := Table{LogicalID: id, Name: p.TableName, Input: dynamodb.CreateTableInput{
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
		t.StreamARN = r.arn(id, "StreamArn")
		t.Input.StreamSpecification = &types.StreamSpecification{
			StreamEnabled: aws.Bool(true), StreamViewType: types.StreamViewType(p.StreamSpecification.StreamViewType),
		}
	}
	if p.TimeToLiveSpecification != nil {
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
	}
	if err := r.into(node, &p); err != nil {
		return err
	}
	q := Queue{LogicalID: id, Name: p.QueueName, ARN: r.arn(id, "Arn"), URL: r.ref(id), Visibility: 30 * time.Second}
	if p.VisibilityTimeout != nil {
		q.Visibility = time.Duration(*p.VisibilityTimeout) * time.Second
	}
	if p.RedrivePolicy != nil {
		q.MaxReceives, q.DeadARN = int(p.RedrivePolicy.MaxReceiveCount), p.RedrivePolicy.DeadLetterTargetArn
	}
	s.Queues = append(s.Queues, q)
	return nil
}

// trigger is one entry of a function's Events.
type trigger struct {
	Type       string
	Properties struct {
		// DynamoDB
		Stream                     string
		StartingPosition           string
		MaximumRetryAttempts       *number
		MaximumRecordAgeInSeconds  *number
		BisectBatchOnFunctionError boolean
		DestinationConfig          struct{ OnFailure struct{ Destination string } }
		FilterCriteria             struct{ Filters []struct{ Pattern string } }
		// SQS
		Queue         string
		ScalingConfig struct{ MaximumConcurrency number }
		// both
		BatchSize             number
		FunctionResponseTypes []string
		// ScheduleV2
		Name               string
		ScheduleExpression string
		Input              string
	}
}

func (r *resolver) function(s *Stack, id string, node *yaml.Node) error {
	var p struct {
		FunctionName      string
		Timeout           number
		Environment       struct{ Variables map[string]any }
		FunctionUrlConfig map[string]any
		Events            map[string]trigger
	}
	if err := r.into(node, &p); err != nil {
		return err
	}
	f := Function{
		LogicalID: id, Folder: Folder(id), Name: p.FunctionName, Timeout: time.Duration(p.Timeout) * time.Second,
		Environment: map[string]string{}, URL: p.FunctionUrlConfig != nil,
	}
	for name, v := range p.Environment.Variables {
		f.Environment[name] = fmt.Sprint(v)
	}
	names := make([]string, 0, len(p.Events))
	for name := range p.Events {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		t := p.Events[name]
		reports := slices.Contains(t.Properties.FunctionResponseTypes, "ReportBatchItemFailures")
		switch t.Type {
		case "DynamoDB":
			one := StreamTrigger{
				Name: name, StreamARN: t.Properties.Stream, BatchSize: int(t.Properties.BatchSize), MaxRetries: -1,
				Bisect: bool(t.Properties.BisectBatchOnFunctionError), ReportsItems: reports,
				FailureARN: t.Properties.DestinationConfig.OnFailure.Destination, FromBeginning: t.Properties.StartingPosition == "TRIM_HORIZON",
			}
			if n := t.Properties.MaximumRetryAttempts; n != nil {
				one.MaxRetries = int(*n)
			}
			if n := t.Properties.MaximumRecordAgeInSeconds; n != nil && *n > 0 {
				one.MaxAge = time.Duration(*n) * time.Second
			}
			for _, filter := range t.Properties.FilterCriteria.Filters {
				one.Filters = append(one.Filters, json.RawMessage(filter.Pattern))
			}
			f.Streams = append(f.Streams, one)
		case "SQS":
			f.Queues = append(f.Queues, QueueTrigger{
				Name: name, QueueARN: t.Properties.Queue, BatchSize: int(t.Properties.BatchSize),
				MaxConcurrency: int(t.Properties.ScalingConfig.MaximumConcurrency), ReportsItems: reports,
			})
		case "ScheduleV2":
			every, err := rate(t.Properties.ScheduleExpression)
			if err != nil {
				return fmt.Errorf("event %s: %w", name, err)
			}
			f.Schedules = append(f.Schedules, Schedule{Name: t.Properties.Name, Every: every, Input: json.RawMessage(t.Properties.Input)})
		default:
			return fmt.Errorf("event %s has type %s; DynamoDB, SQS and ScheduleV2 are understood", name, t.Type)
		}
	}
	s.Functions = append(s.Functions, f)
	return nil
}

// Folder returns the folder under functions/ of a function's logical id:
// CloseDiscussionsFunction is close-discussions.
func Folder(logicalID string) string {
	words := camel.FindAllString(strings.TrimSuffix(logicalID, "Function"), -1)
	return strings.ToLower(strings.Join(words, "-"))
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

// eval evaluates a node to maps, lists and scalars.
func (r *resolver) eval(n *yaml.Node) (any, error) {
	if n == nil {
		return nil, nil
	}
	if n.Kind == yaml.AliasNode {
		return r.eval(n.Alias)
	}
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
		return r.arn(id, attribute), nil
	case "Sub":
		if arg.Kind != yaml.ScalarNode {
			return nil, wrong("with variables of its own is not understood")
		}
		var failed error
		text := inSub.ReplaceAllStringFunc(arg.Value, func(match string) string {
			inner := match[2 : len(match)-1]
			if id, attribute, ok := strings.Cut(inner, "."); ok {
				return r.arn(id, attribute)
			}
			v, err := r.lookup(inner)
			failed = errors.Join(failed, err)
			return v
		})
		if failed != nil {
			return nil, fmt.Errorf("line %d: !%s: %w", arg.Line, name, failed)
		}
		return text, nil
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
		return r.ref(name), nil
	}
	return "", fmt.Errorf("%s is no parameter and no resource", name)
}

// physical returns a resource's own name, or its logical id where it has none.
func (r *resolver) physical(id string) string {
	property := map[string]string{
		"AWS::DynamoDB::Table": "TableName", "AWS::SQS::Queue": "QueueName",
		"AWS::Serverless::Function": "FunctionName", "AWS::Logs::LogGroup": "LogGroupName",
	}[r.kinds[id]]
	if v, err := r.eval(child(child(child(child(r.root, "Resources"), id), "Properties"), property)); err == nil {
		if name, ok := v.(string); ok {
			return name
		}
	}
	return id
}

// ref is what Ref gives for a resource.
func (r *resolver) ref(id string) string {
	name := r.physical(id)
	if r.kinds[id] != "AWS::SQS::Queue" {
		return name
	}
	if r.QueueURL != nil {
		return r.QueueURL(name)
	}
	return fmt.Sprintf("https://sqs.%s.amazonaws.com/%s/%s", r.Region, r.Account, name)
}

// arn is what GetAtt gives: an ARN of AWS's form, or the name itself for
// attributes that are names.
func (r *resolver) arn(id, attribute string) string {
	name := r.physical(id)
	switch {
	case attribute == "QueueName":
		return name
	case r.kinds[id] == "AWS::DynamoDB::Table" && attribute == "StreamArn":
		return fmt.Sprintf("arn:aws:dynamodb:%s:%s:table/%s/stream/local", r.Region, r.Account, name)
	case r.kinds[id] == "AWS::DynamoDB::Table":
		return fmt.Sprintf("arn:aws:dynamodb:%s:%s:table/%s", r.Region, r.Account, name)
	case r.kinds[id] == "AWS::SQS::Queue":
		return fmt.Sprintf("arn:aws:sqs:%s:%s:%s", r.Region, r.Account, name)
	}
	return fmt.Sprintf("arn:aws:lambda:%s:%s:function:%s", r.Region, r.Account, name)
}
