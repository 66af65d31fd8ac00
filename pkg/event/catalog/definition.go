package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tidings-dev/tidings/pkg/event"
)

// Limits of a definition. A schema beyond them is a mistake or an attack: every emitter
// compiles it.
const (
	MaxDefinitionBytes = 64 * 1024
	MaxDefinitionDepth = 32    // levels of nested objects and arrays
	MaxReferences      = 1_000 // schemas that a validator visits by following references
	MaxNameBytes       = 64
)

// draft is the only version of JSON Schema that definitions can be written in.
const draft = "https://json-schema.org/draft/2020-12/schema"

// nameForm is the form of a type's name: words separated by dots, at least two, so that
// subscriptions can name a group (order.*).
var nameForm = regexp.MustCompile(`^[a-z][a-z0-9_]*(\.[a-z0-9_]+)+$`)

// reserved begins the names of types that Tidings itself emits.
const reserved = "tidings."

// extensions are the keywords of a type's schema beyond those of JSON Schema.
var extensions = []string{"x-captured-from", deprecationKeyword, downgradeKeyword, "x-replaces", retentionKeyword, "x-subject", upgradeKeyword, versionKeyword}

// DefinitionError says what is wrong with a type's definition, and where.
type DefinitionError struct {
	Line, Column int // starting at 1; the column counts bytes
	Message      string
}

func (e *DefinitionError) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Message)
}

// Parse reads the definition of an event type: a JSON Schema (draft 2020-12) whose title is
// the type's name, with a description and at least one example. Its errors are
// *DefinitionError. It does not compile the schema: package validate does that.
func Parse(text []byte) (Type, error) {
	t := Type{Schema: bytes.Clone(text)}
	d := definition{text: text, offsets: map[jsontext.Pointer]int{}}
	if len(text) > MaxDefinitionBytes {
		return t, d.errorAt("", "the definition has %d bytes; the maximum is %d", len(text), MaxDefinitionBytes)
	}
	if err := d.read(); err != nil {
		return t, err
	}
	if err := d.checkDeprecation(); err != nil {
		return t, err
	}
	if err := d.checkRetention(); err != nil {
		return t, err
	}
	if err := d.checkVersion(); err != nil {
		return t, err
	}
	if err := json.Unmarshal(text, &t); err != nil {
		return t, d.errorAt("", "%s", err)
	}
	t.Version = max(t.Version, 1)
	if err := d.check(t); err != nil {
		return t, err
	}
	return t, nil
}

// At returns an error at the place of a JSON pointer in a definition: at its nearest parent
// that exists, if it does not.
func At(text []byte, pointer, format string, args ...any) *DefinitionError {
	d := definition{text: text, offsets: map[jsontext.Pointer]int{}}
	_ = d.read() // what was read before an error is enough
	return d.errorAt(jsontext.Pointer(pointer), format, args...)
}

// definition is the text of a definition and what was found in it.
type definition struct {
	text    []byte
	offsets map[jsontext.Pointer]int // where each value begins
	names   map[string]bool          // of the top level
	refs    []reference
	// personal are the schemas with x-personal, and marked those whose value is true.
	personal []jsontext.Pointer
	marked   map[jsontext.Pointer]bool
}

// reference is a $ref and the place that it stands at.
type reference struct{ from, to jsontext.Pointer }

func (d *definition) errorAt(at jsontext.Pointer, format string, args ...any) *DefinitionError {
	offset, ok := d.offsets[at]
	for !ok && at != "" {
		at = at.Parent()
		offset, ok = d.offsets[at]
	}
	return d.errorAtOffset(offset, format, args...)
}

func (d *definition) errorAtOffset(offset int, format string, args ...any) *DefinitionError {
	before := d.text[:min(offset, len(d.text))]
	line := bytes.Count(before, []byte("\n"))
	return &DefinitionError{Line: line + 1, Column: len(before) - (bytes.LastIndexByte(before, '\n') + 1) + 1, Message: fmt.Sprintf(format, args...)}
}

// read goes through the text once. It notes where each value is, and each reference.
func (d *definition) read() error {
	d.names, d.marked = map[string]bool{}, map[jsontext.Pointer]bool{}
	in := jsontext.NewDecoder(bytes.NewReader(d.text))
	for {
		at := d.next(int(in.InputOffset()))
		token, err := in.ReadToken()
		if errors.Is(err, io.EOF) && d.offsets[""] < at {
			return nil
		}
		if err != nil {
			return d.syntaxError(err)
		}
		pointer := in.StackPointer()
		if _, known := d.offsets[pointer]; !known {
			d.offsets[pointer] = at // of a member's name, so that an error points to it
		}
		kind, count := in.StackIndex(in.StackDepth())
		isName := kind == '{' && count%2 == 1 && token.Kind() == '"'
		switch depth := in.StackDepth(); {
		case pointer == "" && at == d.offsets[""] && token.Kind() != '{':
			return d.errorAtOffset(at, "the definition must be a JSON object")
		case pointer == "" && at > d.offsets[""] && token.Kind() != '}':
			return d.errorAtOffset(at, "there is text after the definition")
		case depth > MaxDefinitionDepth:
			return d.errorAtOffset(at, "the definition nests deeper than %d levels", MaxDefinitionDepth)
		case isName && depth == 1:
			d.names[token.String()] = true
		}
		if err := d.noteReference(pointer, token, isName); err != nil {
			return err
		}
		d.notePersonal(pointer, token, isName)
	}
}

// notePersonal notes the x-personal whose name or value a token is, if it is one.
func (d *definition) notePersonal(at jsontext.Pointer, token jsontext.Token, isName bool) {
	schema := at.Parent()
	switch {
	case at.LastToken() != personalKeyword || isData(at) || !isSchema(schema):
	case isName:
		d.personal = append(d.personal, schema)
	case token.Kind() == 't':
		d.marked[schema] = true
	}
}

// isSchema reports whether a place is a schema's, and not that of fields by their names.
func isSchema(p jsontext.Pointer) bool {
	names := false
	for token := range p.Tokens() {
		names = !names && namesFields(token)
	}
	return !names
}

// next returns the place of the token that follows a place.
func (d *definition) next(at int) int {
	for at < len(d.text) && strings.IndexByte(" \t\r\n,:", d.text[at]) >= 0 {
		at++
	}
	return at
}

// noteReference notes the reference that a token is, if it is one.
func (d *definition) noteReference(at jsontext.Pointer, token jsontext.Token, isName bool) error {
	if token.Kind() != '"' || isData(at) {
		return nil
	}
	switch name := at.LastToken(); {
	case isName && (name == "$dynamicRef" || name == "$recursiveRef") && !namesFields(at.Parent().LastToken()):
		return d.errorAt(at, "%s is not supported: use $ref", name)
	case !isName && name == "$ref":
		to, err := target(token.String())
		if err != "" {
			return d.errorAt(at, "%s", err)
		}
		d.refs = append(d.refs, reference{at.Parent(), to})
	}
	return nil
}

// isData reports whether a place is within values of events, which can have any names.
func isData(p jsontext.Pointer) bool {
	before := ""
	for token := range p.Tokens() {
		switch token {
		case "examples", "enum", "const", "default":
			if !namesFields(before) {
				return true
			}
		}
		before = token
	}
	return false
}

// namesFields reports whether the members of a keyword's value have names of their own.
func namesFields(keyword string) bool { return keyword == "properties" || keyword == "$defs" }

// target returns the place that a $ref refers to, or what is wrong with it.
func target(ref string) (to jsontext.Pointer, problem string) {
	fragment, local := strings.CutPrefix(ref, "#")
	to = jsontext.Pointer(fragment)
	if !local || !to.IsValid() || strings.Contains(fragment, "%") {
		return "", fmt.Sprintf("$ref %q: only references within the definition are possible, such as #/$defs/money", clip(ref))
	}
	return to, ""
}

func (d *definition) syntaxError(err error) error {
	if syntactic, ok := err.(*jsontext.SyntacticError); ok {
		return d.errorAtOffset(int(syntactic.ByteOffset), "%s", syntactic.Err)
	}
	return d.errorAtOffset(len(d.text), "%s", err)
}

// check applies the rules beyond JSON's syntax.
func (d *definition) check(t Type) error {
	var form struct {
		Draft      string                     `json:"$schema"`
		Type       string                     `json:"type"`
		Properties map[string]json.RawMessage `json:"properties"`
	}
	if err := json.Unmarshal(d.text, &form); err != nil {
		return d.errorAt("", "%s", err)
	}
	switch {
	case !nameForm.MatchString(t.Name) || len(t.Name) > MaxNameBytes:
		return d.errorAt("/title", "title %q is not the name of an event type: use lower-case words separated by dots, such as order.paid, of at most %d bytes", clip(t.Name), MaxNameBytes)
	case strings.HasPrefix(t.Name, reserved):
		return d.errorAt("/title", "title %q: names that begin with %q are for events of Tidings itself", t.Name, reserved)
	case form.Draft != "" && strings.TrimSuffix(form.Draft, "#") != draft:
		return d.errorAt("/$schema", "$schema must be %s", draft)
	case form.Type != "object":
		return d.errorAt("/type", "type must be \"object\": an event's data is an object")
	case strings.TrimSpace(t.Description) == "":
		return d.errorAt("/description", "description is missing: customers read it")
	case len(t.Samples) == 0:
		return d.errorAt("/examples", "examples is missing: test sends and customers need at least one")
	case t.Replaces != "" && (!nameForm.MatchString(t.Replaces) || t.Replaces == t.Name):
		return d.errorAt("/x-replaces", "x-replaces %q is not the old name of an event type", clip(t.Replaces))
	case t.RetentionDays < 0 || t.RetentionDays > event.MaxRetentionDays: // a keyword in other letters, such as X-Retention-Days
		return d.errorAt("", "%s must be 1 to %d", retentionKeyword, event.MaxRetentionDays)
	}
	if _, ok := form.Properties[t.Subject]; t.Subject != "" && !ok {
		return d.errorAt("/x-subject", "x-subject %q is not a field of the type", clip(t.Subject))
	}
	for _, name := range slices.Sorted(maps.Keys(d.names)) {
		if strings.HasPrefix(name, "x-") && !slices.Contains(extensions, name) {
			return d.errorAt(jsontext.Pointer("").AppendToken(name), "%q is not a keyword; those beyond JSON Schema are %s", clip(name), strings.Join(extensions, ", "))
		}
	}
	if err := d.checkPersonal(); err != nil {
		return err
	}
	return d.checkReferences()
}

// checkReferences refuses references that lead nowhere, in a circle, or to more schemas
// than a validator should visit.
func (d *definition) checkReferences() error {
	visited := 0
	var visit func(at jsontext.Pointer, via []jsontext.Pointer) error
	visit = func(at jsontext.Pointer, via []jsontext.Pointer) error {
		for _, r := range d.refs {
			if !at.Contains(r.from) {
				continue
			}
			visited++
			switch _, exists := d.offsets[r.to]; {
			case !exists:
				return d.errorAt(r.from.AppendToken("$ref"), "$ref #%s leads nowhere", r.to)
			case slices.Contains(via, r.to) || r.to.Contains(r.from):
				return d.errorAt(r.from.AppendToken("$ref"), "$ref #%s is recursive, which is not supported", r.to)
			case visited > MaxReferences:
				return d.errorAt(r.from.AppendToken("$ref"), "the references lead to more than %d schemas", MaxReferences)
			}
			if err := visit(r.to, append(via, r.to)); err != nil {
				return err
			}
		}
		return nil
	}
	return visit("", nil)
}
