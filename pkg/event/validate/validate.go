// Package validate checks events' data against the JSON Schemas of the catalog. It
// promises that data it accepts has every required field with its type and no field
// that the schema does not name, and that its errors name each wrong field without
// repeating the value.
package validate

import (
	"bytes"
	jsonv1 "encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"github.com/tidings-dev/tidings/pkg/event/catalog"
)

// Catalog is a catalog whose types can be validated. It is safe for concurrent use.
type Catalog struct {
	*catalog.Catalog
	schemas map[string]func() *jsonschema.Schema
}

// Default returns catalog.Default with validation.
var Default = sync.OnceValue(func() *Catalog { return New(catalog.Default()) })

// New returns a catalog that compiles a type's schema when it is first needed, so that
// a cold start compiles one schema and not all. A schema that does not compile panics
// then; a test compiles all that are shipped.
func New(types *catalog.Catalog) *Catalog {
	c := &Catalog{Catalog: types, schemas: map[string]func() *jsonschema.Schema{}}
	for _, name := range types.Types() {
		t, _ := types.Type(name)
		c.schemas[name] = sync.OnceValue(func() *jsonschema.Schema {
			schema, err := compile(t)
			if err != nil {
				panic(fmt.Errorf("schema %s: %w", t.Name, err))
			}
			return schema
		})
	}
	return c
}

func compile(t catalog.Type) (*jsonschema.Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(t.Schema))
	if err != nil {
		return nil, err
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.AssertFormat()
	if err := compiler.AddResource(t.Name, doc); err != nil {
		return nil, err
	}
	return compiler.Compile(t.Name)
}

// UnknownTypeError says that the catalog has no type of this name.
type UnknownTypeError struct {
	Type  string
	Known []string
}

func (e *UnknownTypeError) Error() string {
	return fmt.Sprintf("%q is not an event type; the types are %s", clip(e.Type), strings.Join(e.Known, ", "))
}

// InvalidDataError says what is wrong with an event's data, field by field.
type InvalidDataError struct {
	Type     string
	Problems []Problem // at least one
}

// Problem is what is wrong with one field.
type Problem struct {
	Field   string // such as data.status
	Message string
}

// maxProblems limits how many problems an error's text lists.
const maxProblems = 10

func (e *InvalidDataError) Error() string {
	var parts []string
	for i, p := range e.Problems {
		if i == maxProblems {
			parts = append(parts, fmt.Sprintf("and %d more", len(e.Problems)-i))
			break
		}
		parts = append(parts, p.Field+": "+p.Message)
	}
	return e.Type + ": " + strings.Join(parts, "; ")
}

// Validate checks data against a type's schema. It returns *UnknownTypeError or
// *InvalidDataError. Duplicate keys are refused, because receivers' parsers disagree
// about which value counts.
func (c *Catalog) Validate(eventType string, data jsonv1.RawMessage) error {
	compiled, ok := c.schemas[eventType]
	if !ok {
		return &UnknownTypeError{Type: eventType, Known: c.Types()}
	}
	schema := compiled()
	invalid := func(problems ...Problem) error { return &InvalidDataError{Type: eventType, Problems: problems} }
	if len(bytes.TrimSpace(data)) == 0 {
		return invalid(Problem{"data", "is missing; it must be an object with " + strings.Join(schema.Required, ", ")})
	}
	doc, err := decode(data)
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return invalid(Problem{fieldOf(err), "is a duplicate key"})
	}
	if err != nil {
		return invalid(Problem{"data", "is not JSON"})
	}
	err = schema.Validate(doc)
	if err == nil {
		return nil
	}
	failed, ok := err.(*jsonschema.ValidationError)
	if !ok {
		return invalid(Problem{"data", "cannot be checked"})
	}
	problems := problemsOf(failed, nil)
	slices.SortFunc(problems, func(a, b Problem) int { return strings.Compare(a.Field, b.Field) })
	return invalid(problems...)
}

func problemsOf(e *jsonschema.ValidationError, list []Problem) []Problem {
	if len(e.Causes) > 0 {
		for _, cause := range e.Causes {
			list = problemsOf(cause, list)
		}
		return list
	}
	field := strings.Join(append([]string{"data"}, e.InstanceLocation...), ".")
	switch k := e.ErrorKind.(type) {
	case *kind.Required:
		for _, name := range k.Missing {
			list = append(list, Problem{field + "." + name, "is missing"})
		}
		return list
	case *kind.AdditionalProperties:
		for _, name := range k.Properties {
			list = append(list, Problem{field + "." + clip(name), "is not a field of this event"})
		}
		return list
	case *kind.Type:
		return append(list, Problem{field, fmt.Sprintf("must be %s, not %s", strings.Join(k.Want, " or "), k.Got)})
	case *kind.Enum:
		words := make([]string, len(k.Want))
		for i, w := range k.Want {
			words[i] = fmt.Sprint(w)
		}
		return append(list, Problem{field, "must be one of " + strings.Join(words, ", ")})
	case *kind.MinLength:
		return append(list, Problem{field, fmt.Sprintf("has %d characters; the minimum is %d", k.Got, k.Want)})
	case *kind.MaxLength:
		return append(list, Problem{field, fmt.Sprintf("has %d characters; the maximum is %d", k.Got, k.Want)})
	case *kind.Format:
		// The library's text repeats the value, which may be long or private.
		return append(list, Problem{field, "must be a valid " + k.Want})
	}
	return append(list, Problem{field, e.ErrorKind.LocalizedString(english())})
}

var english = sync.OnceValue(func() *message.Printer { return message.NewPrinter(language.English) })

// decode decodes one JSON value as the schema library wants it: numbers as
// encoding/json's Number. Unlike encoding/json, it refuses duplicate keys.
func decode(data []byte) (any, error) {
	var d document
	err := json.Unmarshal(data, &d, jsontext.AllowInvalidUTF8(true))
	return d.root, err
}

// document lets json.Unmarshal lend its pooled decoder: a new one for each event took
// a tenth of the time of a list.
type document struct{ root any }

func (d *document) UnmarshalJSONFrom(in *jsontext.Decoder) (err error) {
	d.root, err = decodeValue(in)
	return err
}

func decodeValue(in *jsontext.Decoder) (any, error) {
	token, err := in.ReadToken()
	if err != nil {
		return nil, err
	}
	switch token.Kind() {
	case '{':
		object := map[string]any{}
		for in.PeekKind() != '}' {
			token, err := in.ReadToken()
			if err != nil {
				return nil, err
			}
			name := token.String()
			if object[name], err = decodeValue(in); err != nil {
				return nil, err
			}
		}
		_, err := in.ReadToken()
		return object, err
	case '[':
		list := []any{}
		for in.PeekKind() != ']' {
			value, err := decodeValue(in)
			if err != nil {
				return nil, err
			}
			list = append(list, value)
		}
		_, err := in.ReadToken()
		return list, err
	case '"':
		return token.String(), nil
	case '0':
		return jsonv1.Number(token.String()), nil
	case 't', 'f':
		return token.Bool(), nil
	}
	return nil, nil
}

// fieldOf returns the field that a duplicate key error names.
func fieldOf(err error) string {
	parts := []string{"data"}
	var at *jsontext.SyntacticError
	if errors.As(err, &at) {
		for name := range at.JSONPointer.Tokens() {
			parts = append(parts, clip(name))
		}
	}
	return strings.Join(parts, ".")
}

// clip shortens a name for an error's text: it comes from the sender.
func clip(s string) string {
	const limit = 64
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}
