// Package eventtypes changes the event types of a deployment, or those of a tenant's own: it
// adds, changes, deprecates and removes them. It compares each change with the endpoints that
// get the type, and promises that no name means a type of the deployment and another one of a
// tenant; that a change that can break one of them is refused, with the endpoints that it
// concerns, unless it is forced; that a type that a capture rule of the deployment publishes
// is not removed, unless that is forced; and that all changes of one call take effect
// together or not at all. It does not compile definitions itself, so that a function that
// changes types does not link a compiler: see package compile.
package eventtypes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/catalog/compat"
	"github.com/tidings-dev/tidings/pkg/event/deployed"
	"github.com/tidings-dev/tidings/pkg/event/filter"
)

// Endpoints lists endpoints.
type Endpoints interface {
	ListEndpoints(ctx context.Context, tenant string) ([]endpoint.Endpoint, error)
	// EachEndpoint calls do with the endpoints of all tenants, some at a time. It returns
	// do's first error.
	EachEndpoint(ctx context.Context, do func([]endpoint.Endpoint) error) error
}

// Manager changes the event types of a deployment.
type Manager struct {
	Store     deployed.Store
	Endpoints Endpoints
	Check     Check
	Now       func() time.Time
}

// Request is what to change.
type Request struct {
	// Tenant is the tenant whose own types change; empty for the types of the deployment.
	Tenant string
	Types  []catalog.Type // to add, or to replace those of the same name and version
	Remove []string       // names; all versions are removed
	// RemoveVersions are single versions to remove, by the type's name: its oldest or newest.
	RemoveVersions map[string]int
	// Deprecate are types to mark as deprecated, or no longer.
	Deprecate []Mark
}

// Mark is a mark that a stored type gets.
type Mark struct {
	Type        string
	Version     int                  // 0: the newest
	Deprecation *catalog.Deprecation // nil takes the mark away
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
	Version int             `json:"version,omitempty"` // of the type; 0 if it has one version, and for the removal of all
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
	Tenant string `json:"tenant,omitempty"` // see Request
	Items  []Item `json:"types"`            // ordered by name

	set deployed.Set   // with the changes, if they are of the deployment's types
	own []catalog.Type // of the tenant, with the changes
}

// Revision is the revision of the stored types that the plan was made for. It grows with each
// change of types or capture rules; 0 if nothing was changed yet.
func (p Plan) Revision() int { return p.set.Revision }

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

// Plan says what a request does, without doing it. It returns a *WrongError if a definition
// cannot be used, if it collides with one of the deployment or of a tenant, or if a type to be
// removed does not exist.
func (m *Manager) Plan(ctx context.Context, r Request) (Plan, error) {
	set, err := deployed.Read(ctx, m.Store, -1)
	if err != nil {
		return Plan{}, err
	}
	p := Plan{Tenant: r.Tenant, set: set}
	before, after, err := m.change(ctx, &p, &r)
	if err != nil {
		return p, err
	}
	if err := m.check(ctx, after, r.Types); err != nil {
		return p, err
	}
	for _, t := range after.Own() {
		if t.Deprecated == nil || t.Deprecated.Instead == "" || r.Tenant != "" && !p.touches(t) {
			continue
		}
		if _, ok := after.Type(t.Deprecated.Instead); !ok {
			return p, wrong(fmt.Errorf("%s is deprecated in favour of %s: %s", t.Name, t.Deprecated.Instead, after.Unknown(t.Deprecated.Instead)))
		}
	}
	err = m.eachEndpoint(ctx, r.Tenant, func(list []endpoint.Endpoint) error {
		for _, e := range list {
			for i := range p.Items {
				concern(&p.Items[i], e, before)
			}
		}
		return nil
	})
	if err != nil {
		return p, fmt.Errorf("compare the changes with the endpoints: %w", err)
	}
	for i := range p.Items {
		item := &p.Items[i]
		item.Refused = refusal(*item, after)
		file, ok := set.Rules.Publishes(item.Type)
		if why := breaksRules(*item, after); ok && why != "" {
			if item.Refused != "" {
				item.Refused += ", and "
			}
			item.Refused += fmt.Sprintf("the capture rules %s publish it%s", file, why)
		}
	}
	return p, nil
}

// touches reports whether the plan changes a type, or removes the one that it is deprecated in
// favour of. What it does not touch can name a type that the deployment has no more.
func (p Plan) touches(t catalog.Type) bool {
	return slices.ContainsFunc(p.Items, func(i Item) bool {
		if i.Action == Remove {
			return i.Type == t.Deprecated.Instead
		}
		return i.Action != Keep && catalog.Label(i.Type, i.Version) == t.Label()
	})
}

// change puts a request into a plan, and the types that get a mark into the request. It
// returns the types before and after it.
func (m *Manager) change(ctx context.Context, p *Plan, r *Request) (before, after *catalog.Catalog, err error) {
	set := p.set
	base, err := set.Catalog()
	if err != nil {
		return nil, nil, err
	}
	if r.Tenant != "" {
		return m.changeTenant(ctx, p, r, base)
	}
	if r.Types, err = marked(base, *r); err != nil {
		return nil, nil, wrong(err)
	}
	if p.Items, err = compare(base, *r); err != nil {
		return nil, nil, wrong(err)
	}
	if err := m.refuseTenants(ctx, set, claiming(base, r.Types)); err != nil {
		return nil, nil, err
	}
	p.set.Types, p.set.Without = merge(set, *r, m.Now())
	if after, err = p.set.Catalog(); err != nil {
		return nil, nil, wrong(err)
	}
	return base, after, nil
}

// changeTenant is change for the types of a tenant's own.
func (m *Manager) changeTenant(ctx context.Context, p *Plan, r *Request, base *catalog.Catalog) (before, after *catalog.Catalog, err error) {
	if err := event.CheckTenant(r.Tenant); err != nil {
		return nil, nil, wrong(fmt.Errorf("tenant: %w", err))
	}
	stored, err := deployed.ReadTenant(ctx, m.Store, p.set, r.Tenant)
	if err != nil {
		return nil, nil, err
	}
	own, err := catalog.New(stored)
	if err != nil {
		return nil, nil, err
	}
	before = catalog.Over(base, own)
	if r.Types, err = marked(before, *r); err != nil {
		return nil, nil, wrong(err)
	}
	for _, t := range claiming(own, r.Types) {
		if why := base.Collision(t); why != "" {
			return nil, nil, wrong(fmt.Errorf("%s %s: a type of tenant %s cannot be", t.Label(), why, r.Tenant))
		}
	}
	for _, name := range slices.Concat(r.Remove, slices.Collect(maps.Keys(r.RemoveVersions))) {
		_, mine := own.Type(name)
		if _, ok := base.Type(name); ok && !mine {
			return nil, nil, wrong(fmt.Errorf("%s is an event type of the deployment, and none of tenant %s's own", name, r.Tenant))
		}
	}
	if p.Items, err = compare(before, *r); err != nil {
		return nil, nil, wrong(err)
	}
	p.own, _ = merge(deployed.Set{Types: stored}, *r, m.Now())
	if own, err = catalog.New(p.own); err != nil {
		return nil, nil, wrong(err)
	}
	return before, catalog.Over(base, own), nil
}

// claiming returns the types that claim a name that they did not have before. The others keep
// theirs: a tenant and the deployment can both have a name since a release shipped it.
func claiming(before *catalog.Catalog, types []catalog.Type) []catalog.Type {
	return slices.DeleteFunc(slices.Clone(types), func(t catalog.Type) bool {
		was, ok := before.Version(t.Name, t.Version)
		return ok && was.Replaces == t.Replaces
	})
}

// parallelTenants is how many tenants' types are read at once.
const parallelTenants = 16

// refuseTenants refuses types of the deployment that collide with types of tenants' own. The
// error names the tenants.
func (m *Manager) refuseTenants(ctx context.Context, set deployed.Set, types []catalog.Type) error {
	tenants := set.Tenants()
	if len(types) == 0 || len(tenants) == 0 {
		return nil
	}
	collide := make([]string, len(tenants)) // the first type that collides, by tenant
	group, reading := errgroup.WithContext(ctx)
	group.SetLimit(parallelTenants)
	for i, tenant := range tenants {
		group.Go(func() error {
			list, err := deployed.ReadTenant(reading, m.Store, set, tenant)
			if err != nil {
				return err
			}
			own, err := catalog.New(list)
			if err != nil {
				return err
			}
			if at := slices.IndexFunc(types, func(t catalog.Type) bool { return own.Collision(t) != "" }); at >= 0 {
				collide[i] = types[at].Label()
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	var named []string
	for i, label := range collide {
		if label != "" {
			named = append(named, fmt.Sprintf("%s (%s)", tenants[i], label))
		}
	}
	if len(named) == 0 {
		return nil
	}
	if more := len(named) - maxNamed; more > 0 {
		named = append(named[:maxNamed], fmt.Sprintf("and %d more", more))
	}
	return wrong(fmt.Errorf("tenants have types of their own with these names, old names or versions: %s. Remove theirs first, or choose another name", strings.Join(named, ", ")))
}

// maxNamed is how many tenants an error names.
const maxNamed = 20

// eachEndpoint calls do with the endpoints of a tenant, or of all tenants, some at a time.
func (m *Manager) eachEndpoint(ctx context.Context, tenant string, do func([]endpoint.Endpoint) error) error {
	if tenant == "" {
		return m.Endpoints.EachEndpoint(ctx, do)
	}
	list, err := m.Endpoints.ListEndpoints(ctx, tenant)
	if err != nil {
		return err
	}
	return do(list)
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
	if p.Tenant != "" {
		_, err := deployed.WriteTenant(ctx, m.Store, p.set, p.Tenant, p.own, by, writer, m.Now())
		return err
	}
	_, err := deployed.Write(ctx, m.Store, p.set, by, writer, m.Now())
	return err
}

// SetOpen allows types without a definition, or forbids them. It reports whether that is a
// change, and returns deployed.ErrConflict if the types changed meanwhile. by is who does it;
// writer must be unique.
func (m *Manager) SetOpen(ctx context.Context, open bool, by, writer string) (changed bool, err error) {
	set, err := deployed.Read(ctx, m.Store, -1)
	if err != nil || set.Open == open {
		return false, err
	}
	set.Open = open
	_, err = deployed.Write(ctx, m.Store, set, by, writer, m.Now())
	return err == nil, err
}

// breaksRules says why events that capture rules publish could be refused after a change of
// their type, as the rest of a sentence; empty if they are accepted.
func breaksRules(i Item, after *catalog.Catalog) string {
	t, _ := after.Type(i.Type)
	switch {
	case i.Action == Remove && i.Version == 0:
		return " now"
	case i.Action == Add && i.Version > 1 && t.Version == i.Version && t.Upgrade == nil:
		return fmt.Sprintf(", and version %d has no x-upgrade for their events", i.Version)
	case i.Action == Change && t.Version == max(i.Version, 1):
		for _, c := range i.Changes {
			if c.Kind == compat.Required {
				return fmt.Sprintf(", and %s", c)
			}
		}
	}
	return ""
}

// marked returns the types of a request with those that get a mark.
func marked(before *catalog.Catalog, r Request) ([]catalog.Type, error) {
	list := slices.Clip(r.Types)
	for _, m := range r.Deprecate {
		was, ok := before.Type(m.Type)
		if !ok {
			return nil, errors.New(before.Unknown(m.Type))
		}
		if m.Version != 0 {
			if was, ok = before.Version(m.Type, m.Version); !ok {
				return nil, fmt.Errorf("event type %s has no version %d", m.Type, m.Version)
			}
		}
		text, err := catalog.Deprecate(was.Schema, m.Deprecation)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", was.Label(), err)
		}
		is, err := catalog.Parse(text)
		if at := (*catalog.DefinitionError)(nil); errors.As(err, &at) {
			return nil, fmt.Errorf("%s: %s", was.Label(), at.Message) // its line is of a text that nobody wrote
		} else if err != nil {
			return nil, err
		}
		list = append(list, is)
	}
	return list, nil
}

// compare returns what a request does to each type.
func compare(before *catalog.Catalog, r Request) ([]Item, error) {
	items := map[string]Item{}
	for _, t := range r.Types {
		if _, twice := items[t.Label()]; twice {
			return nil, fmt.Errorf("event type %s is defined twice", t.Label())
		}
		item := Item{Type: t.Name, Action: Add}
		if t.Version > 1 {
			item.Version = t.Version
		}
		if was, ok := before.Version(t.Name, t.Version); ok {
			changes, err := compat.Compare(was.Schema, t.Schema)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", t.Name, err)
			}
			item.Action, item.Changes = Change, changes
			if len(changes) == 0 {
				item.Action = Keep
			}
		}
		items[t.Label()] = item
	}
	for _, name := range r.Remove {
		if _, ok := before.Type(name); !ok {
			return nil, errors.New(before.Unknown(name))
		}
		if err := only(items, name); err != nil {
			return nil, err
		}
		items[name] = Item{Type: name, Action: Remove}
	}
	for _, name := range slices.Sorted(maps.Keys(r.RemoveVersions)) {
		list, version := before.Versions(name), r.RemoveVersions[name]
		switch _, ok := before.Version(name, version); {
		case len(list) == 0:
			return nil, errors.New(before.Unknown(name))
		case !ok:
			return nil, fmt.Errorf("event type %s has no version %d", name, version)
		case len(list) == 1:
			return nil, fmt.Errorf("version %d is the only one of event type %s: remove the type", version, name)
		}
		if err := only(items, name); err != nil {
			return nil, err
		}
		items[catalog.Label(name, version)] = Item{Type: name, Version: version, Action: Remove}
	}
	var list []Item
	for _, name := range slices.Sorted(maps.Keys(items)) {
		list = append(list, items[name])
	}
	return list, nil
}

// only refuses a removal of a type that a request names otherwise, too.
func only(items map[string]Item, name string) error {
	for _, other := range items {
		if other.Type == name && other.Action == Remove {
			return fmt.Errorf("event type %s is named twice", name)
		} else if other.Type == name {
			return fmt.Errorf("event type %s cannot be defined and removed at once", name)
		}
	}
	return nil
}

// merge returns a set's types, and the shipped ones that are switched off, after a request.
func merge(set deployed.Set, r Request, now time.Time) (types []catalog.Type, without []string) {
	// Types that are replaced or removed, by their labels; all versions by the name's.
	replaced, removed, added := map[string]bool{}, map[string]bool{}, map[string]time.Time{}
	for _, t := range r.Types {
		replaced[t.Label()] = true
	}
	for _, name := range r.Remove {
		removed[name] = true
	}
	for name, version := range r.RemoveVersions {
		replaced[catalog.Label(name, version)] = true
		if version == 1 && deployed.IsShipped(name) {
			without = append(without, name)
		}
	}
	for _, t := range set.Types {
		added[t.Label()] = t.AddedAt
		if !replaced[t.Label()] && !removed[t.Name] {
			types = append(types, t)
		}
	}
	for _, t := range r.Types {
		if at, was := added[t.Label()]; was {
			t.AddedAt = at
		} else if t.Version > 1 {
			t.AddedAt = now.UTC().Truncate(time.Millisecond)
		}
		types = append(types, t)
	}
	slices.SortFunc(types, catalog.Order)
	for _, name := range set.Without {
		if !replaced[name] && !removed[name] {
			without = append(without, name)
		}
	}
	for _, name := range r.Remove {
		if deployed.IsShipped(name) {
			without = append(without, name)
		}
	}
	slices.Sort(without)
	return types, slices.Compact(without)
}

// concern adds an endpoint to an item if the item's change concerns it. before are the types
// without the change.
func concern(i *Item, e endpoint.Endpoint, before *catalog.Catalog) {
	if e.Status == endpoint.Disabled || !e.Subscribes(i.Type) {
		return
	}
	list := before.Versions(i.Type)
	if one := i.Action == Change || i.Version > 0; one && len(list) > 1 && e.TypeVersion(list).Version != max(i.Version, 1) {
		return // it gets another version
	}
	add := func(format string, args ...any) {
		i.Endpoints = append(i.Endpoints, Concerned{e.Tenant, e.ID, fmt.Sprintf(format, args...)})
	}
	switch i.Action {
	case Remove:
		if len(list) > 1 && i.Version > 0 {
			add("gets version %d", i.Version)
		} else if !slices.Contains(e.EventTypes, "*") {
			add("subscribes to %s", strings.Join(e.EventTypes, ", "))
		}
		return
	case Change:
	default:
		return
	}
	for _, by := range []struct {
		what   string
		fields []string
	}{{"filter names", filteredFields(e)}, {"body is made by naming", slices.Concat(e.Shape.Include, e.Shape.Exclude)}} {
		for _, field := range by.fields {
			for _, c := range i.Changes {
				if c.Kind != compat.Documentation && overlaps(strings.ReplaceAll(c.Path, "[]", ""), field) {
					add("its %s %s, which %s", by.what, field, c.Text)
					return
				}
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
func refusal(i Item, after *catalog.Catalog) string {
	n := len(i.Endpoints)
	if n == 0 {
		return ""
	}
	who, subscribe, get, filters := fmt.Sprintf("%d enabled endpoints", n), "subscribe", "get", "the filters or bodies of %s name"
	if n == 1 {
		who, subscribe, get, filters = "1 enabled endpoint", "subscribes", "gets", "the filter or body of %s names"
	}
	switch {
	case i.Action == Remove && i.Version > 0:
		return fmt.Sprintf("%s %s version %d", who, get, i.Version)
	case i.Action == Remove:
		return who + " " + subscribe + " to it"
	}
	list := after.Versions(i.Type)
	next := list[len(list)-1].Version + 1
	for _, c := range i.Changes {
		if c.Breaking {
			return fmt.Sprintf("%s, and %s %s it: define version %d instead", c, who, get, next)
		}
	}
	return fmt.Sprintf(filters+" fields that change", who)
}
