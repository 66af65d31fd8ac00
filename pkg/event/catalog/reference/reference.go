// Package reference describes event types for the developers of receivers: as a table of
// fields and as an AsyncAPI document. It is pure. It promises that what it describes is
// what package validate checks and what receivers get.
package reference

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/catalog/compat"
)

// Field is a field of an event's data.
type Field struct {
	Path        string   `json:"path"` // such as price.amount or tags[]
	Type        string   `json:"type"` // JSON types with their format, such as "string (date-time)"; "any" if the schema names none
	Required    bool     `json:"required"`
	Values      []string `json:"values,omitempty"` // of an enum, as JSON
	Description string   `json:"description,omitempty"`
}

// maxDepth is the nesting of fields that the table shows.
const maxDepth = 8

// Fields returns the fields of a type's data in the order of the schema: a field before
// what it contains.
func Fields(t catalog.Type) ([]Field, error) {
	var root map[string]any
	if err := json.Unmarshal(t.Schema, &root); err != nil {
		return nil, fmt.Errorf("schema of %s: %w", t.Name, err)
	}
	order, err := keyOrder(t.Schema)
	if err != nil {
		return nil, fmt.Errorf("schema of %s: %w", t.Name, err)
	}
	var list []Field
	var walk func(path string, schema map[string]any, depth int)
	walk = func(path string, schema map[string]any, depth int) {
		if items, ok := schema["items"].(map[string]any); ok && path != "" {
			items = follow(root, items)
			list = append(list, field(path+"[]", items, true))
			if depth < maxDepth {
				walk(path+"[]", items, depth+1)
			}
		}
		properties, _ := schema["properties"].(map[string]any)
		required, _ := schema["required"].([]any)
		names := make([]string, 0, len(properties))
		for name := range properties {
			names = append(names, name)
		}
		slices.SortFunc(names, func(a, b string) int {
			if n := order[a] - order[b]; n != 0 {
				return n
			}
			return strings.Compare(a, b)
		})
		for _, name := range names {
			of, ok := properties[name].(map[string]any)
			if !ok {
				of = map[string]any{} // true or false: anything, or nothing
			}
			of = follow(root, of)
			at := strings.TrimPrefix(path+"."+name, ".")
			list = append(list, field(at, of, slices.Contains(required, any(name))))
			if depth < maxDepth {
				walk(at, of, depth+1)
			}
		}
	}
	walk("", compat.Resolve(root, root), 1)
	return list, nil
}

// follow returns the schema that a reference leads to, with the reference's own description
// where it has one.
func follow(root, schema map[string]any) map[string]any {
	own, ok := schema["description"]
	if _, refers := schema["$ref"]; !refers || !ok {
		return compat.Resolve(root, schema)
	}
	bare := maps.Clone(schema)
	delete(bare, "description")
	to := maps.Clone(compat.Resolve(root, bare))
	to["description"] = own
	return to
}

func field(path string, schema map[string]any, required bool) Field {
	f := Field{Path: path, Required: required}
	f.Description, _ = schema["description"].(string)
	switch types := schema["type"].(type) {
	case string:
		f.Type = types
	case []any:
		var names []string
		for _, t := range types {
			names = append(names, fmt.Sprint(t))
		}
		f.Type = strings.Join(names, " or ")
	}
	values, _ := schema["enum"].([]any)
	if constant, ok := schema["const"]; ok {
		values = []any{constant}
	}
	kinds := map[string]bool{}
	for _, v := range values {
		text, err := json.Marshal(v)
		if err != nil {
			continue // it was JSON before
		}
		f.Values = append(f.Values, string(text))
		kinds[jsonType(v)] = true
	}
	if f.Type == "" && len(kinds) == 1 {
		for f.Type = range kinds {
		}
	}
	if f.Type == "" {
		f.Type = "any"
	}
	if format, ok := schema["format"].(string); ok {
		f.Type += " (" + format + ")"
	}
	return f
}

func jsonType(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case float64:
		return "number"
	case string:
		return "string"
	case []any:
		return "array"
	}
	return "object"
}

// keyOrder returns the place at which each name first appears in a document.
func keyOrder(text []byte) (map[string]int, error) {
	order := map[string]int{}
	in := jsontext.NewDecoder(bytes.NewReader(text))
	for {
		token, err := in.ReadToken()
		if errors.Is(err, io.EOF) {
			return order, nil
		}
		if err != nil {
			return nil, err
		}
		if kind, count := in.StackIndex(in.StackDepth()); kind != '{' || count%2 == 0 || token.Kind() != '"' {
			continue // not a name
		}
		if _, ok := order[token.String()]; !ok {
			order[token.String()] = len(order)
		}
	}
}
