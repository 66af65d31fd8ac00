package samtemplate

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// resolver evaluates CloudFormation intrinsic functions.
type resolver struct {
	*Template
	Context
	kinds map[string]string      // resource type by logical id
	depth int                    // recursion depth of eval
	roles map[string][]Statement // of functions, by ARN

	mappings []*separateMapping
}

var subVariable = regexp.MustCompile(`\$\{([^!}][^}]*)\}`)

// maxDepth limits recursion, to detect references in a cycle.
const maxDepth = 100

// eval evaluates a node to maps, lists and scalars.
func (r *resolver) eval(n *yaml.Node) (any, error) {
	if n == nil {
		return nil, nil
	}
	if r.depth == maxDepth {
		return nil, fmt.Errorf("line %d: circular reference", n.Line)
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

// noValue marks the result of AWS::NoValue: eval omits the property or list item.
var noValue any = struct{ noValue bool }{true}

// call evaluates one intrinsic function.
func (r *resolver) call(name string, arg *yaml.Node) (any, error) {
	invalid := func(format string, args ...any) error {
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
			return nil, invalid("with a variable map is not supported")
		}
		var failed error
		text := subVariable.ReplaceAllStringFunc(arg.Value, func(match string) string {
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
		return strings.ReplaceAll(text, "${!", "${"), nil // escaped ${
	case "Join":
		if len(arg.Content) != 2 {
			return nil, invalid("has %d arguments, want 2", len(arg.Content))
		}
		v, err := r.eval(arg.Content[1])
		if err != nil {
			return nil, err
		}
		list, ok := v.([]any)
		if !ok {
			return v, nil // a list parameter is a comma-separated string already
		}
		var parts []string
		for _, item := range list {
			parts = append(parts, fmt.Sprint(item))
		}
		return strings.Join(parts, arg.Content[0].Value), nil
	case "Select":
		if len(arg.Content) != 2 {
			return nil, invalid("has %d arguments, want 2", len(arg.Content))
		}
		index, err := strconv.Atoi(arg.Content[0].Value)
		if err != nil {
			return nil, invalid("index %q is not a number", arg.Content[0].Value)
		}
		v, err := r.eval(arg.Content[1])
		if err != nil {
			return nil, err
		}
		list, ok := v.([]any)
		if !ok || index < 0 || index >= len(list) {
			return nil, invalid("index %d is not in the list", index)
		}
		return list[index], nil
	case "Split":
		if len(arg.Content) != 2 {
			return nil, invalid("has %d arguments, want 2", len(arg.Content))
		}
		v, err := r.eval(arg.Content[1])
		if err != nil {
			return nil, err
		}
		list := []any{}
		for _, part := range strings.Split(fmt.Sprint(v), arg.Content[0].Value) {
			list = append(list, part)
		}
		return list, nil
	case "FindInMap":
		if len(arg.Content) != 3 {
			return nil, invalid("has %d arguments, want 3", len(arg.Content))
		}
		at := child(r.root, "Mappings")
		for _, n := range arg.Content {
			key, err := r.eval(n)
			if err != nil {
				return nil, err
			}
			if at = child(at, fmt.Sprint(key)); at == nil {
				return nil, invalid("finds no %v", key)
			}
		}
		return r.eval(at)
	case "If", "Equals", "Not", "And", "Or", "Condition":
		return r.logic(name, arg, invalid)
	}
	return nil, invalid("is not supported")
}

func (r *resolver) logic(name string, arg *yaml.Node, invalid func(string, ...any) error) (any, error) {
	if name == "Condition" {
		return r.condition(arg.Value)
	}
	if name == "If" {
		if len(arg.Content) != 3 {
			return nil, invalid("has %d arguments, want 3", len(arg.Content))
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
	return nil, invalid("has %d arguments", len(values))
}

func (r *resolver) condition(name string) (bool, error) {
	n := child(child(r.root, "Conditions"), name)
	if n == nil {
		return false, fmt.Errorf("condition %s does not exist", name)
	}
	v, err := r.eval(n)
	return v == true, err
}

// lookup evaluates Ref: a parameter, a pseudo parameter or a resource.
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
	// SAM generates the alias of a function under this id.
	if of, ok := strings.CutSuffix(name, "Alias"+Alias); ok && r.kinds[of] == "AWS::Serverless::Function" {
		function, err := r.physicalName(of)
		return r.aliasARN(function), err
	}
	return "", fmt.Errorf("%s is neither a parameter nor a resource", name)
}

// physicalName returns the name that the template gives a resource. A generated name
// is unknown before the deployment, so it is an error.
func (r *resolver) physicalName(id string) (string, error) {
	kind, ok := r.kinds[id]
	if !ok {
		return "", fmt.Errorf("%s is not a resource", id)
	}
	if kind == "AWS::KMS::Key" {
		return id, nil // stands for the generated key id
	}
	property, ok := map[string]string{
		"AWS::DynamoDB::Table": "TableName", "AWS::SQS::Queue": "QueueName",
		"AWS::Serverless::Function": "FunctionName", "AWS::Logs::LogGroup": "LogGroupName",
		"AWS::CloudWatch::Alarm": "AlarmName", "AWS::SNS::Topic": "TopicName",
	}[kind]
	if !ok {
		return "", fmt.Errorf("references to %s, a %s, are not supported", id, kind)
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

// ref returns the value of Ref for a resource.
func (r *resolver) ref(id string) (string, error) {
	name, err := r.physicalName(id)
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

// attribute returns the value of GetAtt.
func (r *resolver) attribute(id, attribute string) (string, error) {
	// A role has no name of its own; CloudFormation derives one from the stack's and the id.
	if r.kinds[id] == "AWS::IAM::Role" && attribute == "Arn" {
		return fmt.Sprintf("arn:aws:iam::%s:role/%s-%s", r.Account, r.StackName, id), nil
	}
	// SAM generates the function URL under this id; its real host name is unknown.
	if of, ok := strings.CutSuffix(id, "Url"); ok && r.kinds[id] == "" && r.kinds[of] == "AWS::Serverless::Function" && attribute == "FunctionUrl" {
		return fmt.Sprintf("https://%s.lambda-url.%s.on.aws/", strings.ToLower(of), r.Region), nil
	}
	name, err := r.physicalName(id)
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
	case "AWS::Logs::LogGroup Arn":
		return arn("logs", "log-group:"+name+":*")
	case "AWS::Serverless::Function Arn":
		return arn("lambda", "function:"+name)
	}
	return "", fmt.Errorf("attribute %s of %s, a %s, is not supported", attribute, id, r.kinds[id])
}
