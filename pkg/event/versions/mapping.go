// Package versions makes the data of one version of an event type from another's, by the
// mappings of the type's definitions: CEL expressions over data. It does no I/O. It
// promises that data that it returns conforms to the schema of its version, and that a
// mapping takes bounded time.
package versions

import (
	jsonv1 "encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/ext"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
)

// maxCost bounds the evaluation of one expression, in CEL's units: about a millisecond for
// each ten thousand.
const maxCost = 100_000

// environment is what expressions can use: data, CEL's standard functions and its string
// functions, and optional values (data.?note). A number of the data is a double, as CEL
// defines it for JSON.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(cel.Variable("data", cel.MapType(cel.StringType, cel.DynType)), cel.OptionalTypes(), ext.Strings())
})

// mapping is a compiled catalog.Mapping.
type mapping struct {
	copied []string // fields that are copied if they are there
	fields map[string]cel.Program
}

// FieldError says which field's expression is wrong.
type FieldError struct {
	Field string
	Err   error
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Err.Error() }

func (e *FieldError) Unwrap() error { return e.Err }

// compile compiles the mapping that makes data of a version. Its errors are *FieldError.
func compile(m catalog.Mapping, to catalog.Type) (*mapping, error) {
	env, err := environment()
	if err != nil {
		return nil, &FieldError{"", err}
	}
	out := &mapping{fields: map[string]cel.Program{}}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if m[name] == nil {
			continue
		}
		ast, issues := env.Compile(*m[name])
		if issues.Err() != nil {
			first := issues.Errors()[0]
			return nil, &FieldError{name, fmt.Errorf("column %d of the expression: %s", first.Location.Column()+1, first.Message)}
		}
		program, err := env.Program(ast, cel.CostLimit(maxCost))
		if err != nil {
			return nil, &FieldError{name, err}
		}
		out.fields[name] = program
	}
	var schema struct {
		Properties map[string]jsontext.Value `json:"properties"`
	}
	if err := json.Unmarshal(to.Schema, &schema); err != nil {
		return nil, &FieldError{"", err}
	}
	for name := range schema.Properties {
		if _, named := m[name]; !named {
			out.copied = append(out.copied, name)
		}
	}
	return out, nil
}

// apply makes the data. Copied fields keep their spelling.
func (m *mapping) apply(data jsonv1.RawMessage) (jsonv1.RawMessage, error) {
	var raw map[string]jsontext.Value
	if err := json.Unmarshal(data, &raw, spelling); err != nil {
		return nil, err
	}
	out := make(map[string]jsontext.Value, len(raw))
	for _, name := range m.copied {
		if value, ok := raw[name]; ok {
			out[name] = value
		}
	}
	if len(m.fields) > 0 {
		var decoded map[string]any // numbers are doubles
		if err := jsonv1.Unmarshal(data, &decoded); err != nil {
			return nil, err
		}
		x := expansion{left: event.MaxVersionsBytes}
		for name, program := range m.fields {
			value, _, err := program.Eval(map[string]any{"data": decoded})
			if err != nil {
				return nil, &FieldError{name, safe(err)}
			}
			plain, there, err := x.plain(value, 1)
			if err != nil {
				return nil, &FieldError{name, err}
			}
			if !there {
				continue
			}
			if out[name], err = json.Marshal(plain, json.Deterministic(true)); err != nil {
				return nil, &FieldError{name, err}
			}
		}
	}
	return json.Marshal(out, json.Deterministic(true), spelling)
}

// spelling keeps numbers and texts as they are written.
var spelling = json.JoinOptions(jsontext.PreserveRawStrings(true), jsontext.CanonicalizeRawFloats(false), jsontext.CanonicalizeRawInts(false))

// maxDepth is how deep a value may nest that an expression gives.
const maxDepth = 64

// expansion writes out CEL values. Values of CEL share their parts, so a value that cost
// little to compute can be large when it is written.
type expansion struct{ left int } // bytes

var (
	errTooLarge = fmt.Errorf("gives more than %d bytes", event.MaxVersionsBytes)
	errTooDeep  = fmt.Errorf("nests deeper than %d levels", maxDepth)
)

// plain returns a CEL value as JSON knows it; there is false for an absent optional.
func (x *expansion) plain(v ref.Val, depth int) (plain any, there bool, err error) {
	size := 4 // a short number, or true
	if text, ok := v.(types.String); ok {
		size = len(text) + 2
	}
	if x.left -= size; x.left < 0 {
		return nil, false, errTooLarge
	}
	if depth > maxDepth {
		return nil, false, errTooDeep
	}
	switch v := v.(type) {
	case *types.Optional:
		if !v.HasValue() {
			return nil, false, nil
		}
		return x.plain(v.GetValue(), depth+1)
	case types.Null:
		return nil, true, nil
	case types.Bool:
		return bool(v), true, nil
	case types.String:
		return string(v), true, nil
	case types.Int:
		return int64(v), true, nil
	case types.Uint:
		return uint64(v), true, nil
	case types.Double:
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return nil, false, errors.New("is not a number that JSON has")
		}
		return float64(v), true, nil
	case types.Timestamp, types.Duration:
		text := v.ConvertToType(types.StringType)
		return fmt.Sprint(text.Value()), true, nil
	case traits.Lister:
		list := []any{}
		for it := v.Iterator(); it.HasNext() == types.True; {
			item, there, err := x.plain(it.Next(), depth+1)
			if err != nil {
				return nil, false, err
			}
			if there {
				list = append(list, item)
			}
		}
		return list, true, nil
	case traits.Mapper:
		object := map[string]any{}
		for it := v.Iterator(); it.HasNext() == types.True; {
			key := it.Next()
			name, ok := key.(types.String)
			if !ok {
				return nil, false, errors.New("has a key that is no text")
			}
			x.left -= len(name)
			value, there, err := x.plain(v.Get(key), depth+1)
			if err != nil {
				return nil, false, err
			}
			if there {
				object[string(name)] = value
			}
		}
		return object, true, nil
	}
	return nil, false, fmt.Errorf("gives a %s, which JSON does not have", strings.ToLower(reflect.TypeOf(v).String()))
}

// safe returns an error of an evaluation without the values of the data that CEL's has: it
// is logged, and is the publisher's response.
func safe(err error) error {
	text := err.Error()
	for _, known := range []struct{ part, message string }{
		{"no such key", "the data, or a map of the expression, has no such key: data.?name is an optional field"},
		{"no such overload", "an operator or a function does not take a value of this type"},
		{"iterable", "an operator or a function does not take a value of this type"},
		{"index out of", "a list has no such index"},
		{"cost limit", "it is too costly for this data"},
		{"by zero", "division by zero"},
		{"overflow", "a number overflows"},
		{"range", "a number or a time is out of range"},
		{"optional.none()", "an optional field has no value"},
	} {
		if strings.Contains(text, known.part) {
			return errors.New(known.message)
		}
	}
	return errors.New("a value cannot be converted")
}
