// Package validate checks events' data against the JSON Schemas of the catalog. It
// promises that data it accepts has every required field with its type and no field
// that the schema does not name, and that its errors name each wrong field without
// repeating the value.
package validate

import (
	"bytes"
	"context"
	jsonv1 "encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
)

// Catalog is a catalog whose types can be validated. It is safe for concurrent use.
type Catalog struct{ *catalog.Catalog }

// Default returns catalog.Default with validation.
var Default = sync.OnceValue(func() *Catalog { return New(catalog.Default()) })

// New returns a catalog that compiles a type's schema when it is first needed, so that
// a cold start compiles one schema and not all. The schema is kept as long as types has the
// type, and shared by the catalogs that have it.
func New(types *catalog.Catalog) *Catalog { return &Catalog{types} }

type schemaKey struct{}

// compiled is a schema, or the error of its compilation.
type compiled struct {
	schema *jsonschema.Schema
	err    error
}

func schemaOf(t catalog.Type) (*jsonschema.Schema, error) {
	c := t.Derive(schemaKey{}, func(t catalog.Type) any {
		schema, err := compile(t)
		return compiled{schema, err}
	}).(compiled)
	return c.schema, c.err
}

// Check reports why a type cannot be used: its schema does not compile, or refuses one of
// its examples. The error is a *catalog.DefinitionError.
func Check(t catalog.Type) error {
	list, err := catalog.New([]catalog.Type{t})
	if err != nil {
		return catalog.At(t.Schema, "/x-replaces", "%s", err)
	}
	c := New(list)
	t, _ = list.Version(t.Name, max(t.Version, 1))
	if _, err := schemaOf(t); err != nil {
		var wrong *jsonschema.SchemaValidationError
		if errors.As(err, &wrong) {
			at, text := deepest(wrong.Err)
			return catalog.At(t.Schema, at, "%s", text)
		}
		var pattern *jsonschema.InvalidRegexError
		if errors.As(err, &pattern) {
			return catalog.At(t.Schema, fragment(pattern.URL), "pattern %q is not a regular expression of RE2, which takes linear time: %s", clip(pattern.Regex), pattern.Err)
		}
		return catalog.At(t.Schema, "", "the schema cannot be compiled: %s", err)
	}
	for i, sample := range t.Samples {
		if err := c.Validate(t.Name, sample); err != nil {
			return catalog.At(t.Schema, fmt.Sprintf("/examples/%d", i), "example %d does not conform to the schema: %s", i+1, err)
		}
	}
	return nil
}

// fragment returns the JSON pointer of a schema's URL.
func fragment(url string) string {
	_, pointer, _ := strings.Cut(url, "#")
	return pointer
}

// deepest returns the place and the text of the first cause of a schema's errors.
func deepest(err error) (at, text string) {
	failed, ok := err.(*jsonschema.ValidationError)
	if !ok {
		return "", err.Error()
	}
	for len(failed.Causes) > 0 {
		failed = failed.Causes[0]
	}
	var pointer jsontext.Pointer
	for _, token := range failed.InstanceLocation {
		pointer = pointer.AppendToken(token)
	}
	return string(pointer), failed.ErrorKind.LocalizedString(english())
}

// noLoader refuses to load what a schema refers to outside itself.
type noLoader struct{}

func (noLoader) Load(url string) (any, error) {
	return nil, fmt.Errorf("%s: only references within the definition are possible", url)
}

// Of returns the catalog itself, for any tenant: one that does not change is its own source.
func (c *Catalog) Of(context.Context, string) (*Catalog, error) { return c, nil }

// Live validates with the types of a source as they are now. It is safe for concurrent use.
type Live struct {
	Types interface {
		// Of returns the types of a tenant.
		Of(ctx context.Context, tenant string) (*catalog.Catalog, error)
	}
}

// Of returns a tenant's types. It fails if the source does.
func (l *Live) Of(ctx context.Context, tenant string) (*Catalog, error) {
	types, err := l.Types.Of(ctx, tenant)
	if err != nil {
		return nil, err
	}
	return New(types), nil
}

// Validate is ValidateVersion with the tenant's types as they are now. It returns
// *UnknownTypeError for a version that there is none of.
func (l *Live) Validate(ctx context.Context, tenant, eventType string, version int, data jsonv1.RawMessage) error {
	c, err := l.Of(ctx, tenant)
	if err != nil {
		return err
	}
	t, ok := c.Version(eventType, version)
	if !ok && version == 0 {
		return c.Validate(eventType, data)
	}
	if !ok {
		return &UnknownTypeError{Type: eventType, Known: c.Types(), text: c.Unknown(eventType)}
	}
	return c.ValidateVersion(t, data)
}

func compile(t catalog.Type) (*jsonschema.Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(t.Schema))
	if err != nil {
		return nil, err
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.AssertFormat()
	compiler.UseLoader(noLoader{})
	compiler.RegisterFormat(&jsonschema.Format{Name: "idn-email", Validate: func(v any) error {
		if text, ok := v.(string); ok && !event.IsEmail(text) {
			return errors.New("is not an email address")
		}
		return nil
	}})
	if err := compiler.AddResource(t.Name, doc); err != nil {
		return nil, err
	}
	return compiler.Compile(t.Name)
}

// UnknownTypeError says that the catalog has no type of this name.
type UnknownTypeError struct {
	Type  string
	Known []string

	text string
}

func (e *UnknownTypeError) Error() string { return e.text }

// SchemaError says that the schema of a type does not compile.
type SchemaError struct {
	Type string
	Err  error
}

func (e *SchemaError) Error() string {
	return fmt.Sprintf("the schema of %s cannot be compiled: %s", e.Type, e.Err)
}

func (e *SchemaError) Unwrap() error { return e.Err }

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

// undefined is the schema of a type without a definition: its data is an object.
var undefined = sync.OnceValues(func() (*jsonschema.Schema, error) {
	return compile(catalog.Type{Name: "undefined", Schema: jsonv1.RawMessage(`{"type":"object"}`)})
})

// Validate checks data against the schema of a type's newest version, or, if the catalog
// allows the type without a definition, that it is an object. It returns *UnknownTypeError,
// *InvalidDataError or *SchemaError. Duplicate keys are refused, because receivers' parsers disagree
// about which value counts; so are texts that are not Unicode and numbers outside the range
// of a double, because strict parsers refuse the whole event.
func (c *Catalog) Validate(eventType string, data jsonv1.RawMessage) error {
	t, ok := c.Type(eventType)
	if !ok && c.Allows(eventType) {
		schema, err := undefined()
		return check(eventType, schema, err, data)
	}
	if !ok {
		return &UnknownTypeError{Type: eventType, Known: c.Types(), text: c.Unknown(eventType)}
	}
	return c.ValidateVersion(t, data)
}

// ValidateVersion checks data against the schema of one of the catalog's types, like
// Validate.
func (c *Catalog) ValidateVersion(t catalog.Type, data jsonv1.RawMessage) error {
	schema, err := schemaOf(t)
	return check(t.Name, schema, err, data)
}

// check checks data against a schema; err is that of its compilation.
func check(eventType string, schema *jsonschema.Schema, err error, data jsonv1.RawMessage) error {
	if err != nil {
		return &SchemaError{eventType, err}
	}
	invalid := func(problems ...Problem) error { return &InvalidDataError{Type: eventType, Problems: problems} }
	if len(bytes.TrimSpace(data)) == 0 {
		text := "is missing; it must be an object"
		if len(schema.Required) > 0 {
			text += " with " + strings.Join(schema.Required, ", ")
		}
		return invalid(Problem{"data", text})
	}
	var large *numberError
	doc, err := decode(data)
	switch {
	case err == nil:
	case errors.Is(err, jsontext.ErrDuplicateName):
		return invalid(Problem{fieldOf(err), "is a duplicate key"})
	case errors.As(err, &large):
		return invalid(Problem{pathOf(large.at), "is a number that most receivers cannot read: it is outside the range of a double (IEEE 754)"})
	case jsontext.Value(data).IsValid(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)):
		return invalid(Problem{fieldOf(err), "has a lone surrogate, such as \\ud800, or bytes that are not UTF-8: strict JSON parsers refuse it"})
	default:
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
	case *kind.Pattern: // the library's texts of these repeat the value
		return append(list, Problem{field, fmt.Sprintf("does not match the pattern %q", k.Want)})
	case *kind.Minimum:
		return append(list, Problem{field, "must be at least " + decimal(k.Want)})
	case *kind.Maximum:
		return append(list, Problem{field, "must be at most " + decimal(k.Want)})
	case *kind.ExclusiveMinimum:
		return append(list, Problem{field, "must be more than " + decimal(k.Want)})
	case *kind.ExclusiveMaximum:
		return append(list, Problem{field, "must be less than " + decimal(k.Want)})
	case *kind.MultipleOf:
		return append(list, Problem{field, "must be a multiple of " + decimal(k.Want)})
	case *kind.Format:
		// The library's text repeats the value, which may be long or private.
		return append(list, Problem{field, "must be a valid " + strings.TrimPrefix(k.Want, "idn-")})
	}
	return append(list, Problem{field, e.ErrorKind.LocalizedString(english())})
}

// decimal formats a bound of a schema.
func decimal(r *big.Rat) string {
	f, _ := r.Float64()
	return strconv.FormatFloat(f, 'f', -1, 64)
}

var english = sync.OnceValue(func() *message.Printer { return message.NewPrinter(language.English) })

// decode decodes one JSON value as the schema library wants it: numbers as
// encoding/json's Number. Unlike encoding/json, it refuses duplicate keys and invalid
// UTF-8.
func decode(data []byte) (any, error) {
	var d document
	err := json.Unmarshal(data, &d)
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
		text := token.String()
		if _, err := strconv.ParseFloat(text, 64); err != nil {
			return nil, &numberError{in.StackPointer()}
		}
		return jsonv1.Number(text), nil
	case 't', 'f':
		return token.Bool(), nil
	}
	return nil, nil
}

// numberError says that a number is outside the range of a double.
type numberError struct{ at jsontext.Pointer }

func (e *numberError) Error() string { return string(e.at) + ": number out of range" }

// fieldOf returns the field that an error of the decoder names.
func fieldOf(err error) string {
	var at *jsontext.SyntacticError
	if errors.As(err, &at) {
		return pathOf(at.JSONPointer)
	}
	return "data"
}

func pathOf(p jsontext.Pointer) string {
	parts := []string{"data"}
	for name := range p.Tokens() {
		parts = append(parts, clip(name))
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
