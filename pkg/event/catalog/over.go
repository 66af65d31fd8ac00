package catalog

import (
	"fmt"
	"sync"
)

// Over returns a catalog with the types of base and types of its own: those of a tenant
// beside those of its deployment. It shares both, so it takes no memory for either. A type
// of its own is found before one of the same name in base; Collision says whether there is
// one.
func Over(base, own *Catalog) *Catalog {
	return &Catalog{types: own.types, all: own.all, names: own.names, renamed: own.renamed, open: base.open, base: base}
}

// Own returns the catalog's own types without those of its base, every version of each, in
// the order of Order.
func (c *Catalog) Own() (list []Type) {
	for _, name := range c.names {
		list = append(list, c.all[name]...)
	}
	return list
}

// Adds reports whether a type is one that the catalog has over its base: a tenant's own.
func (c *Catalog) Adds(name string) bool { return c.base != nil && c.types[name] != nil }

// Collision says why a type cannot be there beside the types of the catalog, as the rest of
// a sentence that begins with the type's label; empty if it can. The type is none of the
// catalog's.
func (c *Catalog) Collision(t Type) string {
	if other, ok := c.Labelled(t.Name); ok {
		if other.Name == t.Name {
			return "is an event type of the deployment"
		}
		return fmt.Sprintf("is the name of version %d of %s, an event type of the deployment", other.Version, other.Name)
	}
	if other, ok := c.Labelled(t.Label()); ok {
		return fmt.Sprintf("is the name of %s, an event type of the deployment", other.Name)
	}
	if other, ok := c.Renamed(t.Name); ok {
		return fmt.Sprintf("is the old name of %s, an event type of the deployment", other)
	}
	if t.Replaces == "" {
		return ""
	}
	if c.newest(t.Replaces) != nil {
		return fmt.Sprintf("replaces %s (x-replaces), which is an event type of the deployment", t.Replaces)
	}
	if other, ok := c.Renamed(t.Replaces); ok {
		return fmt.Sprintf("replaces %s (x-replaces), which is the old name of %s, an event type of the deployment", t.Replaces, other)
	}
	return ""
}

// Derive returns what from returned the first time for the key, such as the compiled schema
// of the type: it is kept as long as the catalog's definition of the type. key should be a
// value of a type that only the caller's package knows. from runs once, or each time for a
// type that is of no catalog.
func (t Type) Derive(key any, from func(Type) any) any {
	if t.derived == nil {
		return from(t)
	}
	if made, ok := t.derived.Load(key); ok {
		return made.(func() any)()
	}
	return t.derive(key, from)
}

// derive is a function of its own so that Derive does not move the type to the heap.
func (t Type) derive(key any, from func(Type) any) any {
	made, _ := t.derived.LoadOrStore(key, sync.OnceValue(func() any { return from(t) }))
	return made.(func() any)()
}
