// Package catalog holds event types. A type is defined by a JSON Schema (draft 2020-12);
// the types of a community platform are in schemas/, one file per type. The package
// promises names, descriptions, samples and subjects without linking a JSON Schema
// compiler (package validate checks data against the schemas), and that a definition that
// it has read refers to nothing outside itself and can be compiled at little cost.
package catalog

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

//go:embed schemas/*.json
var files embed.FS

// Type is one event type.
type Type struct {
	Name         string       `json:"title"`
	Description  string       `json:"description"`
	CapturedFrom string       `json:"x-captured-from"` // the change of the platform's table that causes the event
	Subject      string       `json:"x-subject"`       // the data field that identifies what the event is about
	Replaces     string       `json:"x-replaces"`      // the old name of the type; empty if it never had another
	Deprecated   *Deprecation `json:"x-deprecated"`    // nil unless the type is deprecated
	Version      int          `json:"x-version"`       // 1 if the definition names none
	Downgrade    Mapping      `json:"x-downgrade"`     // how the version before is made of this one's data; nil in version 1
	Upgrade      Mapping      `json:"x-upgrade"`       // how this version is made of the data of the one before; may be nil
	// RetentionDays is how many days its events are kept, 1 to 365; 0: as the deployment does.
	RetentionDays int               `json:"x-retention-days"`
	Samples       []json.RawMessage `json:"examples"`
	Schema        json.RawMessage   `json:"-"` // the whole file
	// AddedAt is when the version was added to the deployment; zero for the first one.
	// Endpoints that existed then keep the version before.
	AddedAt time.Time `json:"-"`

	derived *sync.Map // what Derive keeps; nil outside of a catalog
}

// Catalog is a set of event types. It is immutable and safe for concurrent use.
type Catalog struct {
	types   map[string]*Type  // the newest version
	all     map[string][]Type // every version, ascending
	names   []string          // of its own types, without those of base
	renamed map[string]string // new names by old name
	open    bool
	base    *Catalog // the types below its own; nil for none. See Over
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
	var list []Type
	for _, entry := range entries {
		text, err := files.ReadFile(path.Join("schemas", entry.Name()))
		if err != nil {
			return nil, err
		}
		t, err := Parse(text)
		if err != nil {
			return nil, fmt.Errorf("schema %s: %w", entry.Name(), err)
		}
		if t.Name+".json" != entry.Name() {
			return nil, fmt.Errorf("schema %s: its title is %q; the title and the file name must agree", entry.Name(), t.Name)
		}
		list = append(list, t)
	}
	return New(list)
}

// New returns a catalog of types, each from Parse. It fails if two definitions have one name
// and version, if a version is missing between two, or if a type replaces the name of
// another.
func New(list []Type) (*Catalog, error) {
	c := &Catalog{types: make(map[string]*Type, len(list)), all: make(map[string][]Type, len(list)), renamed: map[string]string{}}
	for _, t := range list {
		t.Version = max(t.Version, 1)
		t.derived = new(sync.Map)
		if len(c.all[t.Name]) == 0 {
			c.names = append(c.names, t.Name)
		}
		c.all[t.Name] = append(c.all[t.Name], t)
	}
	slices.Sort(c.names)
	for _, name := range c.names {
		if err := c.order(name); err != nil {
			return nil, err
		}
	}
	for _, name := range c.names {
		old := c.types[name].Replaces
		switch {
		case old == "":
		case c.types[old] != nil:
			return nil, fmt.Errorf("event type %s: x-replaces names %s, which is an event type: remove that one first", name, old)
		case c.renamed[old] != "":
			return nil, fmt.Errorf("event types %s and %s both replace %s", c.renamed[old], name, old)
		default:
			c.renamed[old] = name
		}
	}
	return c, nil
}

// Of returns the catalog itself, for any tenant: one that does not change is its own source.
func (c *Catalog) Of(context.Context, string) (*Catalog, error) { return c, nil }

// Types returns the names of all types, sorted.
func (c *Catalog) Types() []string {
	if c.base == nil {
		return slices.Clone(c.names)
	}
	return merge(c.base.Types(), c.names)
}

// merge returns the names of two sorted lists, sorted and each once.
func merge(a, b []string) []string {
	out := make([]string, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		next := min(a[0], b[0])
		if out = append(out, next); a[0] == next {
			a = a[1:]
		}
		if b[0] == next {
			b = b[1:]
		}
	}
	return append(append(out, a...), b...)
}

// newest returns the newest version of a type; nil if there is no such type.
func (c *Catalog) newest(name string) *Type {
	if t, ok := c.types[name]; ok || c.base == nil {
		return t
	}
	return c.base.newest(name)
}

// Type returns the newest version of the type of that name, or false if there is none.
func (c *Catalog) Type(name string) (Type, bool) {
	t := c.newest(name)
	if t == nil {
		return Type{}, false
	}
	return *t, true
}

// Renamed returns the type that replaced an old one, or false if the name is not that of
// an old type.
func (c *Catalog) Renamed(old string) (name string, ok bool) {
	if name, ok = c.renamed[old]; ok || c.base == nil {
		return name, ok
	}
	return c.base.Renamed(old)
}

// OldName returns the name that a type replaced; empty if it had no other.
func (c *Catalog) OldName(eventType string) string {
	if t := c.newest(eventType); t != nil {
		return t.Replaces
	}
	return ""
}

// Stored returns the names under which events of types are stored: a type that was renamed
// has events of both names. A type that was removed still has events, so every name that a
// type could have is accepted; unknown are those that no type has.
func (c *Catalog) Stored(types []string) (names, unknown []string, err error) {
	add := func(name string) {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, name := range types {
		if !nameForm.MatchString(name) || len(name) > MaxNameBytes {
			return nil, nil, fmt.Errorf("%q is not the name of an event type, such as order.paid", clip(name))
		}
		add(name)
		replacement, renamed := c.Renamed(name)
		if c.newest(name) == nil && !renamed {
			unknown = append(unknown, name)
		}
		add(replacement)
		add(c.OldName(name))
	}
	return names, unknown, nil
}

// Opened returns the catalog with types without a definition allowed.
func (c *Catalog) Opened() *Catalog {
	return &Catalog{types: c.types, all: c.all, names: c.names, renamed: c.renamed, base: c.base, open: true}
}

// Allows reports whether events of a type without a definition are accepted: the catalog is
// open, and the name is one that a type can have.
func (c *Catalog) Allows(name string) bool {
	_, renamed := c.Renamed(name)
	return c.open && c.newest(name) == nil && !renamed && nameForm.MatchString(name) && len(name) <= MaxNameBytes && !strings.HasPrefix(name, reserved)
}

// IsOpen reports whether types without a definition are allowed.
func (c *Catalog) IsOpen() bool { return c.open }

// Gone says what became of a type of which there are events: "" if it is a type.
func (c *Catalog) Gone(name string) string {
	if c.newest(name) != nil {
		return ""
	}
	if replacement, ok := c.Renamed(name); ok {
		return "the type is called " + replacement + " now"
	}
	if c.Allows(name) {
		return "the type has no definition"
	}
	return "the type was removed; its events are delivered all the same"
}

// Unknown says that a name is not that of a type, and what to write instead: the new
// name of a type that was renamed, or one of all types.
func (c *Catalog) Unknown(name string) string {
	if replacement, ok := c.Renamed(name); ok {
		return fmt.Sprintf("%q was replaced by %q: use the new name", name, replacement)
	}
	return fmt.Sprintf("%q is not an event type; %s", clip(name), c.Summary())
}

// maxListed is how many types an error's text lists.
const maxListed = 20

// Summary lists the types in one clause, or as many as an error can list.
func (c *Catalog) Summary() string {
	names := c.names
	if c.base != nil {
		names = c.Types()
	}
	switch {
	case len(names) == 0:
		return "there are none"
	case len(names) > maxListed:
		return fmt.Sprintf("there are %d types, such as %s", len(names), strings.Join(names[:maxListed], ", "))
	}
	return "the types are " + strings.Join(names, ", ")
}

// clip shortens a name for an error's text: it comes from the sender.
func clip(name string) string {
	const limit = 64
	if len(name) <= limit {
		return name
	}
	return strings.ToValidUTF8(name[:limit], "") + "…"
}

// Subject returns what an event is about: the value of the data field that its type
// names, or "" if there is none. It reads data only up to that field, because it runs
// for every attempt.
func (c *Catalog) Subject(eventType string, data json.RawMessage) string {
	t := c.newest(eventType)
	if t == nil {
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
