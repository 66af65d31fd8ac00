// Package filter matches event bodies against Amazon EventBridge event patterns
// (EventBridge User Guide, "Event patterns" and "Comparison operators"). It promises
// that a pattern with an unsupported operator does not compile, that matching cannot
// fail, and that each field of a pattern costs one map lookup, so that ten thousand
// filters can be matched against every event.
//
// It differs from EventBridge, as its User Guide and its open-source matcher (Event Ruler)
// describe it, where a difference is safer or harmless. docs/filters.md lists the same
// points for users; TestDifferences has each.
//
// Some events match otherwise:
//   - Numbers are equal if their values are: [300] matches 300.0 and 3e2. The User Guide
//     compares texts, Event Ruler values. Values are exact, not rounded to 64-bit floats.
//   - anything-but fails for a list if one element is excluded, so that it keeps out what
//     it names. EventBridge needs only one element that is not excluded.
//   - In a list of objects, two fields of a pattern may match two different elements.
//   - A field beside $or and within it must match in both places. EventBridge uses the
//     latter only.
//   - {"a.b": …} is the field "a.b", not the field b of a. EventBridge joins names with a dot.
//   - equals-ignore-case folds case as Unicode does, but one character to one: ß is not ss.
//
// Some patterns that EventBridge accepts are refused, because they are mistakes: a name that
// occurs twice in an object (EventBridge uses the last), an empty prefix or suffix, a
// pattern that nests deeper than 32 levels.
//
// Some patterns that EventBridge refuses are accepted: strings and numbers in one
// anything-but, the bounds of a numeric range in either order, and field names within $or
// that are also the name of an operator.
package filter

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// maxDepth is the maximum nesting depth of patterns and bodies.
const maxDepth = 32

// separator joins the keys of a path. JSON keys may contain dots, but hardly this.
const separator = "\x1f"

// Pattern is a compiled event pattern. It is immutable and safe for concurrent use.
type Pattern struct {
	fields []field
	either [][]*Pattern // one list per $or, of which one pattern must match
}

type field struct {
	path  string
	tests []test // one must hold
}

// test checks a field's values. The list is empty if the field is missing.
type test func(values []value) bool

// value is a leaf of the body.
type value struct {
	kind   byte // 's', 'n', 't', 'f', '0' (null)
	text   string
	number decimal
}

// Document is a parsed body.
type Document struct {
	leaves map[string][]value // by path; the elements of a list have the path of the list
}

// Parse parses a body for any number of patterns.
func Parse(body []byte) (Document, error) {
	root, err := decode(body)
	if err != nil {
		return Document{}, fmt.Errorf("body: %w", err)
	}
	object, ok := root.(map[string]any)
	if !ok {
		return Document{}, errors.New("body: is not a JSON object")
	}
	d := Document{leaves: map[string][]value{}}
	for name, v := range object {
		if err := d.add(name, v, 1); err != nil {
			return Document{}, err
		}
	}
	return d, nil
}

func decode(text []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var root any
	if err := dec.Decode(&root); err != nil {
		return nil, fmt.Errorf("is not JSON: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("has data after the JSON document")
	}
	return root, nil
}

func (d *Document) add(path string, v any, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("body: nests deeper than %d", maxDepth)
	}
	switch v := v.(type) {
	case map[string]any:
		for name, inner := range v {
			if err := d.add(path+separator+name, inner, depth+1); err != nil {
				return err
			}
		}
	case []any:
		for _, inner := range v {
			if err := d.add(path, inner, depth+1); err != nil {
				return err
			}
		}
	default:
		d.leaves[path] = append(d.leaves[path], leaf(v))
	}
	return nil
}

func leaf(v any) value {
	switch v := v.(type) {
	case string:
		return value{kind: 's', text: v}
	case json.Number:
		return value{kind: 'n', number: parseDecimal(v.String())}
	case bool:
		if v {
			return value{kind: 't'}
		}
		return value{kind: 'f'}
	}
	return value{kind: '0'}
}

// Matches reports whether the body satisfies the pattern.
func (p *Pattern) Matches(d Document) bool {
	for _, f := range p.fields {
		values := d.leaves[f.path]
		if !slices.ContainsFunc(f.tests, func(holds test) bool { return holds(values) }) {
			return false
		}
	}
	for _, alternatives := range p.either {
		if !slices.ContainsFunc(alternatives, func(a *Pattern) bool { return a.Matches(d) }) {
			return false
		}
	}
	return true
}

// Names returns the top-level fields of the body that the pattern uses. A name may occur
// twice.
func (p *Pattern) Names() []string {
	var names []string
	for _, path := range p.Paths() {
		name, _, _ := strings.Cut(path, ".")
		names = append(names, name)
	}
	return names
}

// Paths returns the fields of the body that the pattern uses, such as data.status. A path
// may occur twice.
func (p *Pattern) Paths() []string {
	var paths []string
	for _, f := range p.fields {
		paths = append(paths, strings.ReplaceAll(f.path, separator, "."))
	}
	for _, alternatives := range p.either {
		for _, a := range alternatives {
			paths = append(paths, a.Paths()...)
		}
	}
	return paths
}

// Compile compiles an event pattern. Its errors name the field and the accepted values.
func Compile(text json.RawMessage) (*Pattern, error) {
	root, err := decode(text)
	if err != nil {
		return nil, fmt.Errorf("pattern: %w", err)
	}
	if err := uniqueNames(text); err != nil {
		return nil, err
	}
	object, ok := root.(map[string]any)
	if !ok {
		return nil, errors.New(`pattern: must be an object such as {"data":{"status":["success"]}}`)
	}
	if len(object) == 0 {
		return nil, errors.New("pattern: is empty; omit the filter to receive every event")
	}
	p := &Pattern{}
	if err := p.compile(nil, object); err != nil {
		return nil, err
	}
	return p, nil
}

// uniqueNames refuses a pattern in which an object has two members of one name: only one
// of them would count.
func uniqueNames(text []byte) error {
	_, err := jsontext.NewDecoder(bytes.NewReader(text), jsontext.AllowInvalidUTF8(true)).ReadValue()
	var syntax *jsontext.SyntacticError
	if errors.Is(err, jsontext.ErrDuplicateName) && errors.As(err, &syntax) {
		return at(slices.Collect(syntax.JSONPointer.Tokens()), "the name occurs twice in its object")
	}
	return nil
}

func at(path []string, format string, args ...any) error {
	where := strings.Join(path, ".")
	if where == "" {
		where = "pattern"
	}
	return fmt.Errorf("%s: %w", where, fmt.Errorf(format, args...))
}

func (p *Pattern) compile(path []string, object map[string]any) error {
	if len(path) >= maxDepth {
		return at(path, "nests deeper than %d", maxDepth)
	}
	for name, v := range object {
		here := append(slices.Clone(path), name)
		if name == "$or" {
			if err := p.compileOr(path, here, v); err != nil {
				return err
			}
			continue
		}
		switch v := v.(type) {
		case map[string]any:
			if len(v) == 0 {
				return at(here, "is an empty object")
			}
			if err := p.compile(here, v); err != nil {
				return err
			}
		case []any:
			if len(v) == 0 {
				return at(here, "is an empty list, which nothing matches")
			}
			f := field{path: strings.Join(here, separator)}
			for i, one := range v {
				t, err := compileTest(append(slices.Clone(path), fmt.Sprintf("%s[%d]", name, i)), one)
				if err != nil {
					return err
				}
				f.tests = append(f.tests, t)
			}
			p.fields = append(p.fields, f)
		default:
			return at(here, `must be a list of values and operators, such as ["a", {"prefix":"b"}], or an object of nested fields`)
		}
	}
	return nil
}

func (p *Pattern) compileOr(path, here []string, v any) error {
	list, ok := v.([]any)
	if !ok || len(list) < 2 {
		return at(here, "must be a list of at least two patterns")
	}
	var alternatives []*Pattern
	for _, one := range list {
		object, ok := one.(map[string]any)
		if !ok || len(object) == 0 {
			return at(here, "must be a list of patterns, none of them empty")
		}
		a := &Pattern{}
		if err := a.compile(path, object); err != nil {
			return err
		}
		alternatives = append(alternatives, a)
	}
	p.either = append(p.either, alternatives)
	return nil
}

// anyOf makes a test that holds if one of the values does.
func anyOf(holds func(value) bool) test {
	return func(values []value) bool { return slices.ContainsFunc(values, holds) }
}

// text makes a test on strings; other values fail it.
func text(holds func(string) bool) test {
	return anyOf(func(v value) bool { return v.kind == 's' && holds(v.text) })
}

const operators = "prefix, suffix, equals-ignore-case, wildcard, anything-but, numeric, cidr, exists"

func compileTest(path []string, v any) (test, error) {
	operator, ok := v.(map[string]any)
	if !ok {
		if _, list := v.([]any); list {
			return nil, at(path, "is a list in a list; it must be a value or an operator")
		}
		want := leaf(v)
		return anyOf(func(got value) bool { return got == want }), nil
	}
	if len(operator) != 1 {
		return nil, at(path, "has %d operators; it must have one of %s", len(operator), operators)
	}
	for name, arg := range operator {
		here := append(slices.Clone(path[:len(path)-1]), path[len(path)-1]+"."+name)
		switch name {
		case "prefix", "suffix", "equals-ignore-case", "wildcard":
			holds, err := textTest(here, name, arg)
			if err != nil {
				return nil, err
			}
			return text(holds), nil
		case "anything-but":
			return anythingBut(here, arg)
		case "numeric":
			return numeric(here, arg)
		case "cidr":
			return cidr(here, arg)
		case "exists":
			want, ok := arg.(bool)
			if !ok {
				return nil, at(here, "must be true or false")
			}
			return func(values []value) bool { return (len(values) > 0) == want }, nil
		}
		return nil, at(path, "operator %q is unknown; the operators are %s", name, operators)
	}
	return nil, at(path, "cannot be read")
}

// textTest compiles an operator on strings. prefix and suffix also take
// {"equals-ignore-case": …}, as in EventBridge.
func textTest(path []string, name string, arg any) (func(string) bool, error) {
	ignoreCase := name == "equals-ignore-case"
	if inner, ok := arg.(map[string]any); ok && len(inner) == 1 && (name == "prefix" || name == "suffix") {
		if folded, ok := inner["equals-ignore-case"]; ok {
			arg, ignoreCase = folded, true
		}
	}
	want, ok := arg.(string)
	if !ok {
		return nil, at(path, "must be a string")
	}
	switch name {
	case "prefix", "suffix":
		if want == "" {
			return nil, at(path, "must not be empty")
		}
		return func(got string) bool {
			if len(got) < len(want) {
				return false
			}
			part := got[:len(want)]
			if name == "suffix" {
				part = got[len(got)-len(want):]
			}
			return part == want || ignoreCase && strings.EqualFold(part, want)
		}, nil
	case "wildcard":
		parts, err := splitWildcard(want)
		if err != nil {
			return nil, at(path, "%w", err)
		}
		return func(got string) bool { return wildcard(parts, got) }, nil
	}
	return func(got string) bool { return strings.EqualFold(got, want) }, nil
}

// splitWildcard returns the parts between the stars. A backslash makes a star or a
// backslash an ordinary character.
func splitWildcard(pattern string) ([]string, error) {
	var parts []string
	var part strings.Builder
	for i := 0; i < len(pattern); i++ {
		switch next := pattern[i+1:]; {
		case pattern[i] == '*' && strings.HasPrefix(next, "*"):
			return nil, errors.New("must not contain ** (use one *)")
		case pattern[i] == '*':
			parts = append(parts, part.String())
			part.Reset()
		case pattern[i] != '\\':
			part.WriteByte(pattern[i])
		case strings.HasPrefix(next, "*"), strings.HasPrefix(next, `\`):
			part.WriteByte(next[0])
			i++
		default:
			return nil, errors.New(`has a backslash that escapes nothing: write \* for a star and \\ for a backslash, with each backslash doubled in JSON`)
		}
	}
	return append(parts, part.String()), nil
}

// wildcard matches text against the parts between the stars. It is enough to look for
// the first occurrence of each part, because a star matches anything.
func wildcard(parts []string, got string) bool {
	first, last := parts[0], parts[len(parts)-1]
	if len(parts) == 1 {
		return got == first
	}
	if len(got) < len(first)+len(last) || !strings.HasPrefix(got, first) || !strings.HasSuffix(got, last) {
		return false
	}
	got = got[len(first) : len(got)-len(last)]
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(got, part)
		if i < 0 {
			return false
		}
		got = got[i+len(part):]
	}
	return true
}

// anythingBut matches if the field exists and none of its values is excluded.
func anythingBut(path []string, arg any) (test, error) {
	var excluded []func(value) bool
	add := func(v any) error {
		switch v.(type) {
		case string, json.Number:
			want := leaf(v)
			excluded = append(excluded, func(got value) bool { return got == want })
			return nil
		}
		return at(path, "must be strings or numbers, or one of prefix, suffix, equals-ignore-case, wildcard")
	}
	switch arg := arg.(type) {
	case map[string]any:
		if len(arg) != 1 {
			return nil, at(path, "has %d operators; it must have one", len(arg))
		}
		for name, inner := range arg {
			if !slices.Contains([]string{"prefix", "suffix", "equals-ignore-case", "wildcard"}, name) {
				return nil, at(path, "operator %q is not one of prefix, suffix, equals-ignore-case, wildcard", name)
			}
			list, ok := inner.([]any)
			if !ok {
				list = []any{inner}
			}
			for _, one := range list {
				holds, err := textTest(path, name, one)
				if err != nil {
					return nil, err
				}
				excluded = append(excluded, func(got value) bool { return got.kind == 's' && holds(got.text) })
			}
		}
	case []any:
		for _, one := range arg {
			if err := add(one); err != nil {
				return nil, err
			}
		}
	default:
		if err := add(arg); err != nil {
			return nil, err
		}
	}
	if len(excluded) == 0 {
		return nil, at(path, "is empty; it must exclude at least one value")
	}
	return func(values []value) bool {
		return len(values) > 0 && !slices.ContainsFunc(values, func(v value) bool {
			return slices.ContainsFunc(excluded, func(is func(value) bool) bool { return is(v) })
		})
	}, nil
}

// numeric compiles a comparison, [">", 0], or a range, [">", 0, "<=", 100].
func numeric(path []string, arg any) (test, error) {
	list, ok := arg.([]any)
	if !ok || len(list) != 2 && len(list) != 4 {
		return nil, at(path, `must be a comparison such as [">", 0], or a range such as [">", 0, "<=", 100]`)
	}
	var signs []string
	var bounds []decimal
	for i := 0; i < len(list); i += 2 {
		sign, _ := list[i].(string)
		if !slices.Contains([]string{"<", "<=", "=", ">=", ">"}, sign) {
			return nil, at(path, "%v is not one of < <= = >= >", list[i])
		}
		number, ok := list[i+1].(json.Number)
		if !ok {
			return nil, at(path, "%v is not a number", list[i+1])
		}
		signs, bounds = append(signs, sign), append(bounds, parseDecimal(number.String()))
	}
	if len(signs) == 2 {
		lower, upper := 0, 1
		if signs[0][0] == '<' {
			lower, upper = 1, 0
		}
		if signs[lower][0] != '>' || signs[upper][0] != '<' {
			return nil, at(path, "must have one of > and >= and one of < and <= for a range")
		}
		if bounds[lower].compare(bounds[upper]) >= 0 {
			return nil, at(path, `must have a lower bound that is less than its upper bound (use ["=", 5] for one number)`)
		}
	}
	return anyOf(func(v value) bool {
		if v.kind != 'n' {
			return false
		}
		for i, sign := range signs {
			if !holds(sign, v.number.compare(bounds[i])) {
				return false
			}
		}
		return true
	}), nil
}

// holds reports whether a comparison with the result c satisfies the sign.
func holds(sign string, c int) bool {
	switch sign {
	case "<":
		return c < 0
	case "<=":
		return c <= 0
	case ">":
		return c > 0
	case ">=":
		return c >= 0
	}
	return c == 0
}

// cidr compiles a block of IP addresses, such as "10.0.0.0/24".
func cidr(path []string, arg any) (test, error) {
	block, _ := arg.(string)
	prefix, err := netip.ParsePrefix(block)
	if err != nil {
		return nil, at(path, `must be a block of IP addresses such as "10.0.0.0/24" or "2001:db8::/32"`)
	}
	return text(func(got string) bool {
		address, err := netip.ParseAddr(got)
		return err == nil && prefix.Contains(address)
	}), nil
}
