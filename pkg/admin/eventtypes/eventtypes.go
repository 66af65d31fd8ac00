// Package eventtypes changes the event types of a deployment: it adds, changes, deprecates
// and removes them. It compares each change with the endpoints that get the type, and
// promises that a change that can break one of them is refused, with the endpoints that it
// concerns, unless it is forced; that a type that a capture rule of the deployment publishes
// is not removed, unless that is forced; and that all changes of one call take effect
// together or not at all.
package eventtypes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/catalog/compat"
	"github.com/tidings-dev/tidings/pkg/event/deployed"
	"github.com/tidings-dev/tidings/pkg/event/filter"
	"github.com/tidings-dev/tidings/pkg/event/validate"
)

// Endpoints lists the endpoints of all tenants.
type Endpoints interface {
	// EachEndpoint calls do with the endpoints of all tenants, some at a time. It returns
	// do's first error.
	EachEndpoint(ctx context.Context, do func([]endpoint.Endpoint) error) error
}

// Manager changes the event types of a deployment.
type Manager struct {
	Store     deployed.Store
	Endpoints Endpoints
	Now       func() time.Time
}

// Request is what to change.
type Request struct {
	Types  []catalog.Type // to add, or to replace those of the same name
	Remove []string       // names
}

// Action is what a request does to a type.
type Action string

// The actions.
const (
	Add    Action = "add"
	Change Action = "change"
	Remove Action = "remove"
	Keep   Action = "keep" // the stored definition is the same
)

// Item is what a request does to one type.
type Item struct {
	Type    string          `json:"type"`
	Action  Action          `json:"action"`
	Changes []compat.Change `json:"changes,omitempty"`
	// Endpoints are the endpoints, without the disabled ones, that a breaking change or a removal concerns, or
	// whose filter names a field that changes.
	Endpoints []Concerned `json:"endpoints,omitempty"`
	// Refused says why the change is refused without force; empty if it is not.
	Refused string `json:"refused,omitempty"`
}

// Concerned is an endpoint that a change concerns.
type Concerned struct {
	Tenant string `json:"tenant"`
	ID     string `json:"id"`
	Why    string `json:"why"`
}

// Plan is what a request does.
type Plan struct {
	Items []Item `json:"types"` // ordered by name

	set deployed.Set // with the changes
}

// Refused reports whether a change is refused without force.
func (p Plan) Refused() bool {
	return slices.ContainsFunc(p.Items, func(i Item) bool { return i.Refused != "" })
}

// Empty reports whether the request changes nothing.
func (p Plan) Empty() bool {
	return !slices.ContainsFunc(p.Items, func(i Item) bool { return i.Action != Keep })
}

// ErrRefused is the error of a plan that is applied without force although a change is
// refused.
var ErrRefused = errors.New("a change would break an endpoint or a capture rule: nothing was changed")

// Plan says what a request does, without doing it. It fails if a definition cannot be used
// or a type to be removed does not exist.
func (m *Manager) Plan(ctx context.Context, r Request) (Plan, error) {
	set, err := deployed.Read(ctx, m.Store, -1)
	if err != nil {
		return Plan{}, err
	}
	before, err := set.Catalog()
	if err != nil {
		return Plan{}, err
	}
	p := Plan{set: set}
	if p.Items, err = compare(before, r); err != nil {
		return p, err
	}
	p.set.Types, p.set.Without = merge(set, r)
	after, err := p.set.Catalog()
	if err != nil {
		return p, err
	}
	for _, t := range r.Types {
		if err := validate.Check(t); err != nil {
			return p, fmt.Errorf("%s: %w", t.Name, err)
		}
	}
	for _, name := range after.Types() {
		t, _ := after.Type(name)
		if t.Deprecated == nil || t.Deprecated.Instead == "" {
			continue
		}
		if _, ok := after.Type(t.Deprecated.Instead); !ok {
			return p, fmt.Errorf("%s is deprecated in favour of %s: %s", t.Name, t.Deprecated.Instead, after.Unknown(t.Deprecated.Instead))
		}
	}
	err = m.Endpoints.EachEndpoint(ctx, func(list []endpoint.Endpoint) error {
		for _, e := range list {
			for i := range p.Items {
				concern(&p.Items[i], e)
			}
		}
		return nil
	})
	if err != nil {
		return p, fmt.Errorf("compare the changes with the endpoints: %w", err)
	}
	for i := range p.Items {
		item := &p.Items[i]
		item.Refused = refusal(*item)
		if file, ok := set.Rules.Publishes(item.Type); ok && item.Action == Remove {
			if item.Refused != "" {
				item.Refused += ", and "
			}
			item.Refused += fmt.Sprintf("the capture rules %s publish it", file)
		}
	}
	return p, nil
}

// Apply stores a plan. It returns ErrRefused if a change is refused and force is false, and
// deployed.ErrConflict if the types changed since the plan was made. by is who applies it;
// writer must be unique. The types take effect within deployed.CacheTime.
func (m *Manager) Apply(ctx context.Context, p Plan, force bool, by, writer string) error {
	if p.Refused() && !force {
		return ErrRefused
	}
	if p.Empty() {
		return nil
	}
	_, err := deployed.Write(ctx, m.Store, p.set, by, writer, m.Now())
	return err
}

// compare returns what a request does to each type.
func compare(before *catalog.Catalog, r Request) ([]Item, error) {
	items := map[string]Item{}
	for _, t := range r.Types {
		if _, twice := items[t.Name]; twice {
			return nil, fmt.Errorf("event type %s is defined twice", t.Name)
		}
		item := Item{Type: t.Name, Action: Add}
		if was, ok := before.Type(t.Name); ok {
			changes, err := compat.Compare(was.Schema, t.Schema)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", t.Name, err)
			}
			item.Action, item.Changes = Change, changes
			if len(changes) == 0 {
				item.Action = Keep
			}
		}
		items[t.Name] = item
	}
	for _, name := range r.Remove {
		if _, ok := before.Type(name); !ok {
			return nil, errors.New(before.Unknown(name))
		}
		if other, both := items[name]; both && other.Action == Remove {
			return nil, fmt.Errorf("event type %s is named twice", name)
		} else if both {
			return nil, fmt.Errorf("event type %s cannot be defined and removed at once", name)
		}
		items[name] = Item{Type: name, Action: Remove}
	}
	var list []Item
	for _, name := range slices.Sorted(maps.Keys(items)) {
		list = append(list, items[name])
	}
	return list, nil
}

// merge returns a set's types, and the shipped ones that are switched off, after a request.
func merge(set deployed.Set, r Request) (types []catalog.Type, without []string) {
	replaced := map[string]bool{}
	for _, t := range r.Types {
		replaced[t.Name] = true
	}
	for _, name := range r.Remove {
		replaced[name] = true
	}
	types = append(slices.DeleteFunc(slices.Clone(set.Types), func(t catalog.Type) bool { return replaced[t.Name] }), r.Types...)
	slices.SortFunc(types, func(a, b catalog.Type) int { return strings.Compare(a.Name, b.Name) })
	without = slices.DeleteFunc(slices.Clone(set.Without), func(name string) bool { return replaced[name] })
	for _, name := range r.Remove {
		if deployed.IsShipped(name) {
			without = append(without, name)
		}
	}
	slices.Sort(without)
	return types, slices.Compact(without)
}

// concern adds an endpoint to an item if the item's change concerns it.
func concern(i *Item, e endpoint.Endpoint) {
	if e.Status == endpoint.Disabled || !e.Subscribes(i.Type) {
		return
	}
	add := func(format string, args ...any) {
		i.Endpoints = append(i.Endpoints, Concerned{e.Tenant, e.ID, fmt.Sprintf(format, args...)})
	}
	switch i.Action {
	case Remove:
		if !slices.Contains(e.EventTypes, "*") {
			add("subscribes to %s", strings.Join(e.EventTypes, ", "))
		}
		return
	case Change:
	default:
		return
	}
	for _, field := range filteredFields(e) {
		for _, c := range i.Changes {
			if c.Kind != compat.Documentation && overlaps(strings.ReplaceAll(c.Path, "[]", ""), field) {
				add("its filter names %s, which %s", field, c.Text)
				return
			}
		}
	}
	if slices.ContainsFunc(i.Changes, func(c compat.Change) bool { return c.Breaking }) {
		add("subscribes to %s", strings.Join(e.EventTypes, ", "))
	}
}

// filteredFields returns the fields that an endpoint's filter names. One that does not
// compile matches nothing.
func filteredFields(e endpoint.Endpoint) []string {
	if len(e.Filter) == 0 {
		return nil
	}
	pattern, err := filter.Compile(e.Filter)
	if err != nil {
		return nil
	}
	return pattern.Paths()
}

// overlaps reports whether one path is the other or lies within it. The whole data of an
// event overlaps no field: what changes within it has a path of its own.
func overlaps(a, b string) bool {
	if a == "data" || a == "" {
		return false
	}
	return a == b || strings.HasPrefix(a, b+".") || strings.HasPrefix(b, a+".")
}

// refusal says why an item is refused.
func refusal(i Item) string {
	n := len(i.Endpoints)
	if n == 0 {
		return ""
	}
	who, subscribe, get, filters := fmt.Sprintf("%d enabled endpoints", n), "subscribe", "get", "the filters of %s name"
	if n == 1 {
		who, subscribe, get, filters = "1 enabled endpoint", "subscribes", "gets", "the filter of %s names"
	}
	if i.Action == Remove {
		return who + " " + subscribe + " to it"
	}
	for _, c := range i.Changes {
		if c.Breaking {
			return fmt.Sprintf("%s, and %s %s it: define a new type instead", c, who, get)
		}
	}
	return fmt.Sprintf(filters+" fields that change", who)
}
