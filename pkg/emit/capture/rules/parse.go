package rules

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"go.yaml.in/yaml/v3"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
)

// Limits of a file.
const (
	MaxFileBytes = 256 << 10
	MaxRules     = 200
	maxLets      = 50
	maxFields    = 200 // of an event's data
	maxLevels    = 8   // of an event's data
	maxOnce      = 8
	// maxProblems bounds how many problems are listed.
	maxProblems = 50
)

var (
	eventForm = regexp.MustCompile(`^[a-z][a-z0-9_]*(\.[a-z0-9_]+)+$`)
	letForm   = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)
	tableForm = regexp.MustCompile(`^[A-Za-z0-9_.*-]{1,255}$`)
)

// variables are names that a let cannot have.
var variables = []string{varChange, varOld, varNew, varItem, varByTTL, varTable, varRecorded}

// Parse reads and compiles a file of rules. name is the file's, for Rule and for errors.
// The error lists every problem with its place; see Problems.
func Parse(name string, text []byte) (*Set, error) {
	p := &parse{file: name, lines: strings.Split(string(text), "\n")}
	if len(text) > MaxFileBytes {
		p.failf(1, 1, "the file has %d bytes; the maximum is %d", len(text), MaxFileBytes)
		return nil, p.problems()
	}
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		line := 1
		_, _ = fmt.Sscanf(err.Error(), "yaml: line %d:", &line)
		message := strings.TrimPrefix(err.Error(), "yaml: ")
		p.failf(max(line, 1), 1, "%s", strings.TrimPrefix(message, fmt.Sprintf("line %d: ", line)))
		return nil, p.problems()
	}
	env, err := baseEnv()
	if err != nil {
		return nil, fmt.Errorf("CEL's environment: %w", err)
	}
	p.env = env
	if len(document.Content) == 0 {
		p.failf(1, 1, "the file has no rules")
		return nil, p.problems()
	}
	set := p.set(document.Content[0])
	if err := p.problems(); err != nil {
		return nil, err
	}
	return set, nil
}

// parse is the reading of one file.
type parse struct {
	file  string
	lines []string
	env   *cel.Env
	found []*Problem
}

func (p *parse) failf(line, column int, format string, args ...any) {
	p.found = append(p.found, &Problem{p.file, line, column, fmt.Sprintf(format, args...)})
}

func (p *parse) failAtf(at *yaml.Node, format string, args ...any) {
	p.failf(at.Line, at.Column, format, args...)
}

// problems returns the problems as an error, in the order of their places.
func (p *parse) problems() error {
	slices.SortStableFunc(p.found, func(a, b *Problem) int { return cmp.Or(a.Line-b.Line, a.Column-b.Column) })
	var all []error
	for n, one := range p.found {
		if n == maxProblems {
			all = append(all, &Problem{p.file, one.Line, one.Column, fmt.Sprintf("and %d more problems", len(p.found)-n)})
			break
		}
		all = append(all, one)
	}
	return errors.Join(all...)
}

// member is a name and a value of a mapping.
type member struct{ key, value *yaml.Node }

// members returns those of a mapping. It refuses what is none, names twice, and those that
// are not known, if there is a list of these.
func (p *parse) members(node *yaml.Node, what string, known ...string) []member {
	if node.Kind != yaml.MappingNode {
		p.failAtf(node, "%s must be a mapping of names to values", what)
		return nil
	}
	var all []member
	seen := map[string]bool{}
	for n := 0; n+1 < len(node.Content); n += 2 {
		key, value := node.Content[n], node.Content[n+1]
		switch {
		case key.Kind != yaml.ScalarNode:
			p.failAtf(key, "a name must be a text")
		case seen[key.Value]:
			p.failAtf(key, "%q stands here twice", clip(key.Value))
		case len(known) > 0 && !slices.Contains(known, key.Value):
			p.failAtf(key, "%s has no %q; it can have %s", what, clip(key.Value), strings.Join(known, ", "))
		case value.Kind == yaml.AliasNode || value.Anchor != "":
			p.failAtf(value, "anchors and aliases are not supported: use let for what several expressions share")
		default:
			seen[key.Value] = true
			all = append(all, member{key, value})
		}
	}
	return all
}

func (p *parse) set(root *yaml.Node) *Set {
	set := &Set{}
	var shared []let
	env := p.env
	var defaults, list *yaml.Node
	for _, m := range p.members(root, "the file", "description", "let", "defaults", "rules") {
		switch m.key.Value {
		case "let":
			env, shared = p.lets(env, nil, m.value)
		case "defaults":
			defaults = m.value
		case "rules":
			list = m.value
		}
	}
	if list == nil || list.Kind != yaml.SequenceNode || len(list.Content) == 0 {
		p.failAtf(cmp.Or(list, root), "rules must be a list of at least one rule")
		return nil
	}
	if len(list.Content) > MaxRules {
		p.failAtf(list, "there are %d rules; the maximum is %d in a file", len(list.Content), MaxRules)
		return nil
	}
	var common []member
	if defaults != nil {
		common = p.members(defaults, "defaults", "table", "tenant", "actor", "timestamp", "request_id")
	}
	number := map[string]int{} // of rules for each type
	for _, node := range list.Content {
		r := p.rule(env, shared, common, node)
		r.source = fmt.Sprintf("%s\n%d", p.file, number[r.Event])
		number[r.Event]++
		set.rules = append(set.rules, r)
	}
	return set
}

// lets compiles named expressions, each of which can use those before it.
func (p *parse) lets(env *cel.Env, before []let, node *yaml.Node) (*cel.Env, []let) {
	all := slices.Clone(before)
	for _, m := range p.members(node, "let") {
		name := m.key.Value
		switch {
		case !letForm.MatchString(name):
			p.failAtf(m.key, "%q is not a name: use lower-case letters, digits and _", clip(name))
			continue
		case slices.Contains(variables, name):
			p.failAtf(m.key, "%q is a variable's name already", name)
			continue
		case slices.ContainsFunc(all, func(l let) bool { return l.name == name }):
			p.failAtf(m.key, "%q is the name of another let already", name)
			continue
		case len(all) == maxLets:
			p.failAtf(m.key, "there are more than %d names", maxLets)
			return env, all
		}
		e, ok := p.expression(env, m.value, "let "+name)
		result := cel.DynType // so that a mistake is listed once
		if ok {
			result = e.ast.OutputType()
		}
		wider, err := env.Extend(cel.Variable(name, result))
		if err != nil {
			p.failAtf(m.key, "%q cannot be a name: %s", name, err)
			continue
		}
		env = wider
		all = append(all, let{name, e})
	}
	return env, all
}

var ruleMembers = []string{"event", "description", "table", "let", "when", "tenant", "actor", "timestamp", "request_id", "once", "data", "shorten"}

func (p *parse) rule(env *cel.Env, shared []let, common []member, node *yaml.Node) *rule {
	r := &rule{Rule: Rule{File: p.file, Line: node.Line, Column: node.Column}, lets: shared}
	members := p.members(node, "a rule", ruleMembers...)
	find := func(name string) *yaml.Node {
		for _, list := range [][]member{members, common} {
			for _, m := range list {
				if m.key.Value == name {
					return m.value
				}
			}
		}
		return nil
	}
	if at := find("event"); at == nil {
		p.failAtf(node, "event is missing: the type of the event that the rule captures")
	} else {
		r.Event, r.Line, r.Column = at.Value, at.Line, at.Column
		if !eventForm.MatchString(at.Value) || len(at.Value) > catalog.MaxNameBytes {
			p.failAtf(at, "event must be the name of an event type, such as order.paid")
		}
	}
	if at := find("table"); at != nil {
		r.Table = at.Value
		if _, err := path.Match(at.Value, ""); err != nil || !tableForm.MatchString(at.Value) {
			p.failAtf(at, "table must be the name of a table, in which * can stand for any text")
		}
	}
	if at := find("let"); at != nil {
		env, r.lets = p.lets(env, shared, at)
	}
	if at := find("when"); at == nil {
		p.failAtf(node, "when is missing: the condition on which a change is the event")
	} else if e, ok := p.expression(env, at, "when", cel.BoolType); ok {
		root := e.ast.NativeRep().Expr()
		r.when, r.When = e, e.text
		r.condition, r.isWhole = conditionOf(root)
		r.byTTL = names(root, varByTTL, r.lets)
	}
	for _, one := range []struct {
		name string
		to   **expression
	}{{"tenant", &r.tenant}, {"actor", &r.actor}, {"timestamp", &r.timestamp}, {"request_id", &r.requestID}} {
		if at := find(one.name); at != nil {
			if e, ok := p.expression(env, at, one.name); ok {
				*one.to = &e
			}
		}
	}
	if at := find("once"); at != nil {
		r.once = p.onceOf(env, at)
	}
	if at := find("data"); at == nil {
		p.failAtf(node, "data is missing: the fields of the event")
	} else {
		left := maxFields
		r.data = p.fields(env, at, "data", 1, &left)
	}
	if at := find("shorten"); at != nil {
		r.shorten = p.shorten(at, r.data)
	}
	return r
}

func (p *parse) onceOf(env *cel.Env, node *yaml.Node) (all []expression) {
	if node.Kind != yaml.SequenceNode || len(node.Content) == 0 || len(node.Content) > maxOnce {
		p.failAtf(node, "once must be a list of 1 to %d expressions that identify the fact", maxOnce)
		return nil
	}
	for _, at := range node.Content {
		if e, ok := p.expression(env, at, "once"); ok {
			all = append(all, e)
		}
	}
	return all
}

// fields compiles the fields of an event's data. left counts down to the maximum.
func (p *parse) fields(env *cel.Env, node *yaml.Node, where string, level int, left *int) []field {
	all := []field{}
	if level > maxLevels {
		p.failAtf(node, "the data nest deeper than %d levels", maxLevels)
		return all
	}
	names := map[string]bool{}
	for _, m := range p.members(node, where) {
		if *left--; *left < 0 {
			p.failAtf(m.key, "the data have more than %d fields", maxFields)
			return all
		}
		name, optional := strings.CutSuffix(m.key.Value, "?")
		f := field{name: name, optional: optional, path: where + "." + name}
		switch {
		case name == "" || len(name) > 256:
			p.failAtf(m.key, "a field's name must have 1 to 256 bytes")
			continue
		case names[name]:
			p.failAtf(m.key, "the field %q stands here twice", clip(name))
			continue
		}
		names[name] = true
		if m.value.Kind == yaml.MappingNode {
			f.fields = p.fields(env, m.value, f.path, level+1, left)
		} else if e, ok := p.expression(env, m.value, f.path); ok {
			f.value = e
		}
		all = append(all, f)
	}
	return all
}

func (p *parse) shorten(node *yaml.Node, data []field) *shortening {
	s := &shortening{characters: event.MaxBodyBytes}
	is := func(name string) bool {
		return slices.ContainsFunc(data, func(f field) bool { return f.name == name && f.fields == nil })
	}
	for _, m := range p.members(node, "shorten", "field", "characters", "truncated", "length") {
		switch m.key.Value {
		case "field":
			if s.field = m.value.Value; !is(s.field) {
				p.failAtf(m.value, "shorten: the data have no field %q", clip(s.field))
			}
		case "characters":
			if err := m.value.Decode(&s.characters); err != nil || s.characters < 1 || s.characters > event.MaxBodyBytes {
				p.failAtf(m.value, "characters must be a number from 1 to %d", event.MaxBodyBytes)
			}
		case "truncated", "length":
			name := m.value.Value
			if name == "" || is(name) {
				p.failAtf(m.value, "%s must be the name of a field that the data do not have", m.key.Value)
			}
			if m.key.Value == "truncated" {
				s.truncated = name
			} else {
				s.length = name
			}
		}
	}
	if s.field == "" {
		p.failAtf(node, "shorten needs the name of a field")
	}
	return s
}

// expression compiles the expression of a scalar.
func (p *parse) expression(env *cel.Env, node *yaml.Node, what string, results ...*cel.Type) (expression, bool) {
	switch {
	case node.Kind == yaml.AliasNode || node.Anchor != "":
		p.failAtf(node, "anchors and aliases are not supported: use let for what several expressions share")
		return expression{}, false
	case node.Kind != yaml.ScalarNode:
		p.failAtf(node, "%s must be an expression: put one that begins with [ or { in quotes", what)
		return expression{}, false
	case strings.HasPrefix(node.Tag, "!") && !strings.HasPrefix(node.Tag, "!!"):
		p.failAtf(node, "%s must be an expression: put one that begins with ! in quotes", what)
		return expression{}, false
	}
	e, problems := compile(env, node.Value, results...)
	for _, one := range problems {
		line, column := p.place(node, one)
		p.failf(line, column, "%s: %s", what, one.message)
	}
	return e, len(problems) == 0
}

// place returns where in the file a place of an expression is: exactly for an expression
// on one line and for the lines of a block (|), otherwise where the expression begins.
func (p *parse) place(node *yaml.Node, at expressionProblem) (line, column int) {
	switch {
	case node.Style&yaml.LiteralStyle != 0:
		line = node.Line + at.line
		if line <= len(p.lines) {
			text := p.lines[line-1]
			return line, len(text) - len(strings.TrimLeft(text, " ")) + at.column + 1
		}
	case node.Style&yaml.FoldedStyle != 0 || node.Line > len(p.lines):
	case node.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0:
		if p.standsAt(node, 1) {
			return node.Line, node.Column + 1 + at.column
		}
	case p.standsAt(node, 0):
		return node.Line, node.Column + at.column
	}
	return node.Line, node.Column
}

// standsAt reports whether an expression stands in one line of the file as it is.
func (p *parse) standsAt(node *yaml.Node, quotes int) bool {
	line := []rune(p.lines[node.Line-1])
	from := node.Column - 1 + quotes
	return from <= len(line) && strings.HasPrefix(string(line[from:]), node.Value)
}
