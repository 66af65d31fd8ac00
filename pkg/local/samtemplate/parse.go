package samtemplate

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"
)

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

// validate checks a value against the parameter's constraints, as CloudFormation does.
func (p parameter) validate(value string) error {
	if p.AllowedValues != nil && !slices.ContainsFunc(p.AllowedValues, func(v any) bool { return fmt.Sprint(v) == value }) {
		return fmt.Errorf("%q is not one of %v", value, p.AllowedValues)
	}
	if p.AllowedPattern != "" {
		// CloudFormation matches the whole value.
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
		return fmt.Errorf("%s is outside MinValue and MaxValue", value)
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
		return nil, errors.New("the template is not a YAML mapping")
	}
	if err := checkSyntax(doc.Content[0]); err != nil {
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

// checkSyntax rejects duplicate keys, which YAML parsers treat differently, and aliases
// and merge keys, which CloudFormation does not support (CloudFormation User Guide,
// "Template formats").
func checkSyntax(n *yaml.Node) error {
	if n.Kind == yaml.AliasNode {
		return fmt.Errorf("line %d: alias *%s is not supported", n.Line, n.Value)
	}
	if n.Kind == yaml.MappingNode {
		lines := map[string]int{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			if key.Value == "<<" {
				return fmt.Errorf("line %d: merge key << is not supported", key.Line)
			}
			if first, ok := lines[key.Value]; ok {
				return fmt.Errorf("line %d: duplicate key %s, first in line %d", key.Line, key.Value, first)
			}
			lines[key.Value] = key.Line
		}
	}
	for _, c := range n.Content {
		if err := checkSyntax(c); err != nil {
			return err
		}
	}
	return nil
}

// child returns the value of a key in a mapping, or nil.
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
