// Package catalog knows the event types: one JSON Schema (draft 2020-12) a type
// in schemas/, embedded. Adding a type is adding a file. It promises that data
// it has passed has every required field with its type and no field that the
// schema doesn't name, and that what it refuses, it refuses field by field.
package catalog

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"github.com/tidings-dev/tidings/pkg/onepass"
)

//go:embed schemas/*.json
var files embed.FS

// Type is one event type, as its file says.
type Type struct {
	Name         string            `json:"title"`
	Description  string            `json:"description"`
	CapturedFrom string            `json:"x-captured-from"` // which change of the platform it is
	Subject      string            `json:"x-subject"`       // the data field that names what the event is about
	Samples      []json.RawMessage `json:"examples"`
	Schema       json.RawMessage   `json:"-"` // the file itself

	compiled *jsonschema.Schema
}

// Catalog is a set of event types. It is immutable and safe for concurrent use.
type Catalog struct {
	types map[string]*Type
	names []string
}

// Default is the catalog of the embedded schemas, compiled at its first use.
// That they compile is tested; at run time it cannot fail.
var Default = sync.OnceValue(func() *Catalog {
	c, err := load()
	if err != nil {
		panic(err)
	}
	return c
})

func load() (*Catalog, error) {
	entries, err := files.ReadDir("schemas")
	if err != nil {
		return nil, err
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.AssertFormat()
	c := &Catalog{types: map[string]*Type{}}
	for _, entry := range entries {
		text, err := files.ReadFile(path.Join("schemas", entry.Name()))
		if err != nil {
			return nil, err
		}
		t := &Type{Schema: text}
		if err := json.Unmarshal(text, t); err != nil {
			return nil, fmt.Errorf("schema %s: %w", entry.Name(), err)
		}
		if t.Name+".json" != entry.Name() {
			return nil, fmt.Errorf("schema %s: its title is %q; title and file name must agree", entry.Name(), t.Name)
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			return nil, fmt.Errorf("schema %s: %w", entry.Name(), err)
		}
		if err := compiler.AddResource(entry.Name(), doc); err != nil {
			return nil, fmt.Errorf("schema %s: %w", entry.Name(), err)
		}
		if t.compiled, err = compiler.Compile(entry.Name()); err != nil {
			return nil, fmt.Errorf("schema %s: %w", entry.Name(), err)
		}
		c.types[t.Name] = t
		c.names = append(c.names, t.Name)
	}
	slices.Sort(c.names)
	return c, nil
}

// Types returns the names of all types, sorted.
func (c *Catalog) Types() []string { return slices.Clone(c.names) }

// Type returns one type, or false.
func (c *Catalog) Type(name string) (Type, bool) {
	t, ok := c.types[name]
	if !ok {
		return Type{}, false
	}
	return *t, true
}

// Subject returns what an event is about: the value of the data field that its
// type names, or "" where there is none.
func (c *Catalog) Subject(eventType string, data json.RawMessage) string {
	t, ok := c.types[eventType]
	if !ok {
		return ""
	}
	var subject string
	// Nothing to be done about data that does not satisfy the type's schema: it has
	// no subject.
	_ = onepass.Read(data, func(r *onepass.Reader) error {
		return r.Object(func(name []byte) error {
			if string(name) != t.Subject {
				return r.Skip()
			}
			if err := r.String(&subject); err != nil {
				return err
			}
			return onepass.ErrDone // what stands behind it is not read: this is done for every attempt
		})
	})
	return subject
}

// UnknownTypeError says that no schema has this name.
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

// Problem is one field's trouble.
type Problem struct {
	Field   string // data.status
	Message string
}

// maxProblems is how many problems an error names; who sent a thousand wrong
// fields sees enough in ten.
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

// Validate checks data against a type's schema: *UnknownTypeError or
// *InvalidDataError. Objects with one name twice are refused, because receivers'
// parsers disagree about which counts.
func (c *Catalog) Validate(eventType string, data json.RawMessage) error {
	t, ok := c.types[eventType]
	if !ok {
		return &UnknownTypeError{Type: eventType, Known: c.Types()}
	}
	invalid := func(problems ...Problem) error { return &InvalidDataError{Type: eventType, Problems: problems} }
	if len(bytes.TrimSpace(data)) == 0 {
		return invalid(Problem{"data", "is missing; it must be an object with " + strings.Join(t.compiled.Required, ", ")})
	}
	doc, err := read(data)
	var twice *onepass.TwiceError
	switch {
	case errors.As(err, &twice):
		return invalid(Problem{place(twice.Path), "stands twice in its object"})
	case err != nil:
		return invalid(Problem{"data", "is not JSON"})
	}
	err = t.compiled.Validate(doc)
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
		return append(list, Problem{field, fmt.Sprintf("has %d characters; it must have at least %d", k.Got, k.Want)})
	case *kind.MaxLength:
		return append(list, Problem{field, fmt.Sprintf("has %d characters; the limit is %d", k.Got, k.Want)})
	case *kind.Format:
		// The library's own words repeat the value, which may be long or private.
		return append(list, Problem{field, "must be a valid " + k.Want})
	}
	return append(list, Problem{field, e.ErrorKind.LocalizedString(english)})
}

var english = message.NewPrinter(language.English)

// read reads data for the schemas' library.
func read(data []byte) (doc any, err error) {
	err = onepass.Read(data, func(r *onepass.Reader) (err error) {
		doc, err = r.Tree()
		return err
	})
	return doc, err
}

// place is how a field is called in a problem.
func place(path []string) string {
	parts := []string{"data"}
	for _, name := range path {
		parts = append(parts, clip(name))
	}
	return strings.Join(parts, ".")
}

// clip keeps a stranger's text short in an error.
func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
