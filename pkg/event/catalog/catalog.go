// Package catalog holds the event types, read from the JSON Schemas (draft 2020-12)
// in schemas/, one file per type. Adding a type is adding a file. It promises names,
// descriptions, samples and subjects without linking a JSON Schema compiler; package
// validate checks data against the schemas.
package catalog

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

//go:embed schemas/*.json
var files embed.FS

// Type is one event type.
type Type struct {
	Name         string            `json:"title"`
	Description  string            `json:"description"`
	CapturedFrom string            `json:"x-captured-from"` // the change of the platform's table that causes the event
	Subject      string            `json:"x-subject"`       // the data field that identifies what the event is about
	Samples      []json.RawMessage `json:"examples"`
	Schema       json.RawMessage   `json:"-"` // the whole file
}

// Catalog is a set of event types. It is immutable and safe for concurrent use.
type Catalog struct {
	types map[string]*Type
	names []string
}

// Default returns the catalog of the embedded files. It cannot fail at run time: a
// test reads the same files.
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
			return nil, fmt.Errorf("schema %s: its title is %q; the title and the file name must agree", entry.Name(), t.Name)
		}
		c.types[t.Name] = t
		c.names = append(c.names, t.Name)
	}
	slices.Sort(c.names)
	return c, nil
}

// Types returns the names of all types, sorted.
func (c *Catalog) Types() []string { return slices.Clone(c.names) }

// Type returns the type of that name, or false if there is none.
func (c *Catalog) Type(name string) (Type, bool) {
	t, ok := c.types[name]
	if !ok {
		return Type{}, false
	}
	return *t, true
}

// Subject returns what an event is about: the value of the data field that its type
// names, or "" if there is none. It reads data only up to that field, because it runs
// for every attempt.
func (c *Catalog) Subject(eventType string, data json.RawMessage) string {
	t, ok := c.types[eventType]
	if !ok {
		return ""
	}
	in := jsontext.NewDecoder(bytes.NewBuffer(data), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if start, err := in.ReadToken(); err != nil || start.Kind() != '{' {
		return ""
	}
	for {
		name, err := in.ReadToken()
		if err != nil || name.Kind() != '"' {
			return ""
		}
		if name.String() != t.Subject {
			if in.SkipValue() != nil {
				return ""
			}
			continue
		}
		if value, err := in.ReadToken(); err == nil && value.Kind() == '"' {
			return value.String()
		}
		return ""
	}
}
