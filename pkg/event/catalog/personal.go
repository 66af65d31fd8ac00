package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
)

// personalKeyword marks a field of a type's schema as personal: its values identify a
// person, or were written by one.
const personalKeyword = "x-personal"

// anyItem is the step of a path that leads to every item of an array.
const anyItem = "*"

// checkPersonal refuses an x-personal that is not true, or that is not at a field. A schema
// in $defs can be used at several fields, so the mark belongs to each of them.
func (d *definition) checkPersonal() error {
	for _, at := range d.personal {
		if _, ok := fieldPath(at); !ok {
			return d.errorAt(at.AppendToken(personalKeyword), "x-personal marks a field: it belongs to a field under properties, also of objects and of items")
		}
		if !d.marked[at] {
			return d.errorAt(at.AppendToken(personalKeyword), "x-personal can only be true: leave it out for a field that is not personal")
		}
	}
	return nil
}

// fieldPath returns the path of a field in the data from the place of its schema; false if
// the schema is not that of a field.
func fieldPath(schema jsontext.Pointer) (path []string, ok bool) {
	tokens := slices.Collect(schema.Tokens())
	for i := 0; i < len(tokens); i++ {
		switch {
		case tokens[i] == "properties" && i+1 < len(tokens):
			i++
			path = append(path, tokens[i])
		case tokens[i] == "items" && len(path) > 0:
			path = append(path, anyItem)
		default:
			return nil, false
		}
	}
	return path, len(path) > 0
}

// Personal returns the paths of the fields that the type marks as personal, sorted; * stands
// for every item of an array. What is within such a field is personal, too.
func (t Type) Personal() [][]string {
	d := definition{text: t.Schema, offsets: map[jsontext.Pointer]int{}}
	if d.read() != nil {
		return nil // Parse has read it before it was stored
	}
	var paths [][]string
	for _, at := range d.personal {
		if path, ok := fieldPath(at); ok && d.marked[at] {
			paths = append(paths, path)
		}
	}
	slices.SortFunc(paths, slices.Compare)
	return paths
}

// Concerns reports whether the data of a version of a type is about a person: whether a
// field that the version marks as personal has the person's id, or another text of theirs, as
// its value. All fields count if the version marks none, or is unknown, so that an erasure
// misses nothing.
func (c *Catalog) Concerns(eventType string, version int, data json.RawMessage, person string) bool {
	in := json.NewDecoder(bytes.NewReader(data))
	in.UseNumber()
	var value any
	if in.Decode(&value) != nil {
		return bytes.Contains(data, []byte(person))
	}
	paths := c.personal(eventType, max(version, 1))
	if len(paths) == 0 {
		return contains(value, nil, person)
	}
	return slices.ContainsFunc(paths, func(path []string) bool { return contains(value, path, person) })
}

type personalKey struct{}

// personal is Type.Personal of a version, which it reads once; none for an unknown version.
func (c *Catalog) personal(eventType string, version int) [][]string {
	t, ok := c.Version(eventType, version)
	if !ok {
		return nil
	}
	return t.Derive(personalKey{}, func(t Type) any { return t.Personal() }).([][]string)
}

// contains reports whether a text or a number at the path, or below it, is the text.
func contains(value any, path []string, text string) bool {
	switch v := value.(type) {
	case string:
		return len(path) == 0 && v == text
	case json.Number:
		return len(path) == 0 && v.String() == text
	case []any:
		if len(path) > 0 && path[0] == anyItem {
			path = path[1:]
		} else if len(path) > 0 {
			return false
		}
		return slices.ContainsFunc(v, func(item any) bool { return contains(item, path, text) })
	case map[string]any:
		if len(path) > 0 {
			field, ok := v[path[0]]
			return ok && contains(field, path[1:], text)
		}
		for _, field := range v {
			if contains(field, nil, text) {
				return true
			}
		}
	}
	return false
}

// HasText reports whether a JSON document has a text or a number that is exactly the text.
func HasText(document []byte, text string) bool {
	in := json.NewDecoder(bytes.NewReader(document))
	in.UseNumber()
	for {
		var value any
		switch err := in.Decode(&value); {
		case errors.Is(err, io.EOF):
			return false
		case err != nil:
			return bytes.Contains(document, []byte(text))
		case contains(value, nil, text):
			return true
		}
	}
}
