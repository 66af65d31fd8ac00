// Package compat compares two versions of an event type's JSON Schema from the point of
// view of receivers: which fields changed, how, and whether a receiver that was written
// for the old version can fail on events of the new one. It is pure. It promises that a
// change that it cannot compare counts as breaking.
package compat

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Kind is a kind of change.
type Kind string

// The kinds of change of a field.
const (
	Added         Kind = "added"         // a new field; receivers ignore fields that they do not know
	Removed       Kind = "removed"       // the field is gone
	Required      Kind = "required"      // was optional, is always there now
	Optional      Kind = "optional"      // was always there, can be missing now
	Retyped       Kind = "retyped"       // another JSON type, or one more
	Narrowed      Kind = "narrowed"      // fewer values are possible
	Widened       Kind = "widened"       // more values are possible
	Renamed       Kind = "renamed"       // values of an enum were replaced
	Changed       Kind = "changed"       // a change that cannot be compared
	Documentation Kind = "documentation" // texts and samples; events stay as they are
)

// Change is the change of one field of an event, or of the type as a whole.
type Change struct {
	// Path names the field, such as data.price.amount or data.tags[]; it is empty for a
	// change of the whole type.
	Path string `json:"path,omitempty"`
	Kind Kind   `json:"kind"`
	Text string `json:"text"` // one clause, such as "is no longer required"
	// Breaking says that a receiver can fail on events that conform to the new schema.
	Breaking bool `json:"breaking"`
}

// String returns the change as one line.
func (c Change) String() string {
	return cmp.Or(c.Path, "the type") + " " + c.Text
}

// Compare returns the changes from one schema of a type to another, ordered by path.
func Compare(before, after json.RawMessage) ([]Change, error) {
	var was, is map[string]any
	for text, into := range map[*json.RawMessage]*map[string]any{&before: &was, &after: &is} {
		if err := json.Unmarshal(*text, into); err != nil {
			return nil, fmt.Errorf("compare schemas: %w", err)
		}
	}
	c := comparison{was: was, is: is}
	c.schema("data", was, is)
	c.typeKeywords(was, is)
	slices.SortStableFunc(c.changes, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	return c.changes, nil
}

// comparison collects changes. was and is are the whole documents, for references.
type comparison struct {
	was, is map[string]any
	changes []Change
}

func (c *comparison) addf(path string, kind Kind, breaking bool, format string, args ...any) {
	c.changes = append(c.changes, Change{path, kind, fmt.Sprintf(format, args...), breaking})
}

// breakingTypeKeywords are extension keywords of the whole type, and why a change of each
// breaks receivers.
var breakingTypeKeywords = map[string]string{
	"x-subject":  "takes its subject from another field: ordering keys and the subject attribute change",
	"x-replaces": "replaces another old name: endpoints with old names get another type",
}

func (c *comparison) typeKeywords(was, is map[string]any) {
	var texts []string
	for _, name := range slices.Sorted(maps.Keys(union(was, is))) {
		if reflect.DeepEqual(was[name], is[name]) || !texted[name] && !strings.HasPrefix(name, "x-") {
			continue
		}
		if name == "x-downgrade" || name == "x-upgrade" {
			c.addf("", Changed, false, "has another %s: other versions are made in another way", name)
			continue
		}
		// A keyword that the type did not have gives receivers something new to ignore.
		if why, ok := breakingTypeKeywords[name]; ok && was[name] != nil {
			c.addf("", Changed, true, "%s", why)
			continue
		}
		texts = append(texts, name)
	}
	if len(texts) > 0 {
		c.addf("", Documentation, false, "has another %s", strings.Join(texts, ", "))
	}
}

// maxReferences bounds a chain of references that refer to references.
const maxReferences = 16

// Resolve follows a schema's local reference. A schema with other keywords beside its
// reference, or whose reference leads nowhere, is returned as it is.
func Resolve(root, schema map[string]any) map[string]any {
	for range maxReferences {
		pointer, ok := schema["$ref"].(string)
		if !ok || len(schema) > 1 || !strings.HasPrefix(pointer, "#/") {
			return schema
		}
		var at any = root
		for part := range strings.SplitSeq(pointer[len("#/"):], "/") {
			m, _ := at.(map[string]any)
			at = m[strings.NewReplacer("~1", "/", "~0", "~").Replace(part)]
		}
		next, ok := at.(map[string]any)
		if !ok {
			return schema
		}
		schema = next
	}
	return schema
}

// schema compares the schemas of one field.
func (c *comparison) schema(path string, was, is map[string]any) {
	was, is = Resolve(c.was, was), Resolve(c.is, is)
	c.types(path, was, is)
	c.enum(path, was, is)
	for _, b := range bounds {
		c.bound(path, b, was, is)
	}
	for _, name := range []string{"format", "pattern"} {
		switch before, after := was[name], is[name]; {
		case reflect.DeepEqual(before, after):
		case before == nil:
			c.addf(path, Narrowed, false, "must match the %s %v", name, after)
		case after == nil:
			c.addf(path, Widened, true, "no longer has the %s %v", name, before)
		default:
			c.addf(path, Changed, true, "has the %s %v instead of %v", name, after, before)
		}
	}
	if before, after := truth(was["uniqueItems"]), truth(is["uniqueItems"]); before != after {
		c.either(path, after, "can hold each item only once", "can hold an item more than once")
	}
	c.open(path, was, is)
	c.properties(path, was, is)
	c.items(path, was, is)
	var texts, unknown []string
	for _, name := range slices.Sorted(maps.Keys(union(was, is))) {
		switch {
		case reflect.DeepEqual(was[name], is[name]) || compared[name]:
		case path == "data" && (texted[name] || strings.HasPrefix(name, "x-")): // of the whole type
		case texted[name] || strings.HasPrefix(name, "x-"):
			texts = append(texts, name)
		default:
			unknown = append(unknown, name)
		}
	}
	if len(texts) > 0 {
		c.addf(path, Documentation, false, "has another %s", strings.Join(texts, ", "))
	}
	if len(unknown) > 0 {
		c.addf(path, Changed, true, "changes in %s, which cannot be compared", strings.Join(unknown, ", "))
	}
}

// compared are the keywords that schema compares itself. Definitions count where they are
// referred to.
var compared = map[string]bool{
	"type": true, "enum": true, "const": true, "format": true, "pattern": true, "uniqueItems": true,
	"minLength": true, "maxLength": true, "minimum": true, "maximum": true, "exclusiveMinimum": true, "exclusiveMaximum": true,
	"minItems": true, "maxItems": true, "minProperties": true, "maxProperties": true,
	"properties": true, "required": true, "additionalProperties": true, "items": true, "$defs": true, "definitions": true,
}

// texted are the keywords that do not change what conforms.
var texted = map[string]bool{
	"title": true, "description": true, "examples": true, "default": true, "deprecated": true, "readOnly": true, "writeOnly": true,
	"$comment": true, "$id": true, "$schema": true,
}

func union(a, b map[string]any) map[string]bool {
	all := map[string]bool{}
	for _, m := range []map[string]any{a, b} {
		for name := range m {
			all[name] = true
		}
	}
	return all
}

func truth(v any) bool { b, _ := v.(bool); return b }

// either records a change between a narrow and a wide form.
func (c *comparison) either(path string, narrow bool, narrowed, widened string) {
	if narrow {
		c.addf(path, Narrowed, false, "%s", narrowed)
		return
	}
	c.addf(path, Widened, true, "%s", widened)
}

// types compares the JSON types. An integer is a number.
func (c *comparison) types(path string, was, is map[string]any) {
	before, after := typesOf(was), typesOf(is)
	if slices.Equal(before, after) {
		return
	}
	covered := func(have []string, t string) bool {
		return len(have) == 0 || slices.Contains(have, t) || t == "integer" && slices.Contains(have, "number")
	}
	isCovered := len(after) > 0 || len(before) == 0
	for _, t := range after {
		isCovered = isCovered && covered(before, t)
	}
	was1, is1 := cmp.Or(strings.Join(before, " or "), "any type"), cmp.Or(strings.Join(after, " or "), "any type")
	if isCovered {
		c.addf(path, Narrowed, false, "is %s instead of %s", is1, was1)
		return
	}
	c.addf(path, Retyped, true, "is %s instead of %s", is1, was1)
}

func typesOf(schema map[string]any) []string {
	switch t := schema["type"].(type) {
	case string:
		return []string{t}
	case []any:
		var list []string
		for _, v := range t {
			list = append(list, fmt.Sprint(v))
		}
		slices.Sort(list)
		return list
	}
	return nil
}

// values returns the possible values by their JSON form; nil means all.
func values(schema map[string]any) []string {
	list, ok := schema["enum"].([]any)
	if v, has := schema["const"]; has {
		list, ok = []any{v}, true
	}
	if !ok {
		return nil
	}
	out := []string{}
	for _, v := range list {
		text, _ := json.Marshal(v) // it was JSON
		out = append(out, string(text))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// enum compares the possible values. A value more breaks receivers that know only the
// others; a value less does not.
func (c *comparison) enum(path string, was, is map[string]any) {
	before, after := values(was), values(is)
	switch {
	case before == nil && after == nil:
		return
	case before == nil:
		c.addf(path, Narrowed, false, "must be one of %s", strings.Join(after, ", "))
		return
	case after == nil:
		c.addf(path, Widened, true, "is no longer one of %s", strings.Join(before, ", "))
		return
	}
	gone := slices.DeleteFunc(slices.Clone(before), func(v string) bool { return slices.Contains(after, v) })
	more := slices.DeleteFunc(slices.Clone(after), func(v string) bool { return slices.Contains(before, v) })
	switch {
	case len(gone) > 0 && len(more) > 0:
		c.addf(path, Renamed, true, "can be %s instead of %s", strings.Join(more, ", "), strings.Join(gone, ", "))
	case len(more) > 0:
		c.addf(path, Widened, true, "can also be %s", strings.Join(more, ", "))
	case len(gone) > 0:
		c.addf(path, Narrowed, false, "can no longer be %s", strings.Join(gone, ", "))
	}
}

// bound is a keyword that limits a number, a length or a count.
type bound struct {
	keyword string
	upper   bool
}

var bounds = []bound{
	{"minLength", false}, {"maxLength", true}, {"minimum", false}, {"maximum", true}, {"exclusiveMinimum", false}, {"exclusiveMaximum", true},
	{"minItems", false}, {"maxItems", true}, {"minProperties", false}, {"maxProperties", true},
}

func (c *comparison) bound(path string, b bound, was, is map[string]any) {
	before, hadBefore := was[b.keyword].(float64)
	after, hasAfter := is[b.keyword].(float64)
	switch {
	case hadBefore == hasAfter && before == after:
	case !hadBefore:
		c.addf(path, Narrowed, false, "has the %s %v", b.keyword, after)
	case !hasAfter:
		c.addf(path, Widened, true, "no longer has the %s %v", b.keyword, before)
	default:
		text := fmt.Sprintf("has the %s %v instead of %v", b.keyword, after, before)
		c.either(path, after < before == b.upper, text, text)
	}
}

// open compares whether fields without a schema are possible. Receivers ignore fields that
// they do not know, so opening a schema breaks none of them.
func (c *comparison) open(path string, was, is map[string]any) {
	before, after := was["additionalProperties"], is["additionalProperties"]
	switch {
	case reflect.DeepEqual(before, after):
	case after == false:
		c.addf(path, Narrowed, false, "has no fields beyond those of its schema")
	case before == false && (after == nil || after == true):
		c.addf(path, Added, false, "can have fields that its schema does not name")
	default:
		c.addf(path, Changed, true, "has other additionalProperties, which cannot be compared")
	}
}

func (c *comparison) properties(path string, was, is map[string]any) {
	before, _ := was["properties"].(map[string]any)
	after, _ := is["properties"].(map[string]any)
	required := func(schema map[string]any, name string) bool {
		list, _ := schema["required"].([]any)
		return slices.Contains(list, any(name))
	}
	for _, name := range slices.Sorted(maps.Keys(union(before, after))) {
		field := path + "." + name
		b, had := before[name]
		a, has := after[name]
		switch {
		case !had:
			c.addf(field, Added, false, "is a new field")
			continue
		case !has:
			c.addf(field, Removed, true, "is removed")
			continue
		}
		switch wasRequired, isRequired := required(was, name), required(is, name); {
		case wasRequired && !isRequired:
			c.addf(field, Optional, true, "is no longer required: it can be missing")
		case !wasRequired && isRequired:
			c.addf(field, Required, false, "is required")
		}
		c.sub(field, b, a)
	}
}

func (c *comparison) items(path string, was, is map[string]any) {
	before, had := was["items"]
	after, has := is["items"]
	switch {
	case !had && !has:
	case had && has:
		c.sub(path+"[]", before, after)
	case has:
		c.addf(path+"[]", Narrowed, false, "has a schema")
	default:
		c.addf(path+"[]", Widened, true, "no longer has a schema")
	}
}

// sub compares two subschemas, of which each can be true or false instead of an object.
func (c *comparison) sub(path string, was, is any) {
	before, isObject := was.(map[string]any)
	after, ok := is.(map[string]any)
	switch {
	case isObject && ok:
		c.schema(path, before, after)
	case !reflect.DeepEqual(was, is):
		c.addf(path, Changed, true, "has another schema, which cannot be compared")
	}
}
