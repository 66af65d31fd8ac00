package console

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/pkg/admin/eventtypes"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/deployed"
)

// TypeVersion is a version of an event type.
type TypeVersion struct {
	Version int `json:"version"`
	// From is where the definition comes from.
	From       string               `json:"from" enum:"shipped,deployed,tenant" doc:"shipped comes with Tidings as it is; deployed was added or changed here; tenant is the tenant's own"`
	AddedAt    time.Time            `json:"added_at,omitzero" doc:"When a version after the first was added: endpoints that existed then keep the one before"`
	Deprecated *catalog.Deprecation `json:"deprecated,omitempty"`
	Definition json.RawMessage      `json:"definition,omitempty" doc:"As it was applied; only in the answer for one type"`
}

// typeVersions lists the versions of a type, the oldest first.
func typeVersions(known *catalog.Catalog, name string) []TypeVersion {
	list := []TypeVersion{}
	for _, t := range known.Versions(name) {
		v := TypeVersion{Version: t.Version, From: "deployed", AddedAt: t.AddedAt, Deprecated: t.Deprecated}
		if known.Adds(name) {
			v.From = "tenant"
		} else if shipped, ok := catalog.Default().Version(t.Name, t.Version); ok && bytes.Equal(shipped.Schema, t.Schema) {
			v.From = "shipped"
		}
		list = append(list, v)
	}
	return list
}

// typesOf returns the event types of a tenant, of the session's if it is empty: those of the
// deployment and its own. Those of another tenant are for operators of all tenants.
func (o *Operations) typesOf(ctx context.Context, who Session, tenant string) (*catalog.Catalog, error) {
	tenant = cmp.Or(tenant, who.Tenant)
	if tenant != who.Tenant && !operatesAll(who) {
		return nil, errorf(Forbidden, "the event types of another tenant are for operators: log in with --role operator, to the tenant %s", event.DefaultTenant)
	}
	if err := event.CheckTenant(tenant); err != nil {
		return nil, errorf(Invalid, "tenant: %s", err)
	}
	return o.Endpoints.Catalog.Of(ctx, tenant)
}

// GetEventType returns an event type with the definitions of its versions, of the newest ones
// if all would be too large for an answer. For tenant, see typesOf.
func (o *Operations) GetEventType(ctx context.Context, who Session, tenant, name string) (EventType, error) {
	known, err := o.typesOf(ctx, who, tenant)
	if err != nil {
		return EventType{}, err
	}
	t, ok := known.Type(name)
	if !ok {
		return EventType{}, errorf(NotFound, "%s", known.Unknown(name))
	}
	v := o.viewType(known, t)
	left := budget{len(v.Versions), maxTypesBytes}
	for i, version := range slices.Backward(known.Versions(name)) {
		if left.take(version.Schema) {
			v.Versions[i].Definition = version.Schema
		} else {
			v.LeftOut++
		}
	}
	return v, nil
}

// EventTypesChange is a change of the event types. All of it takes effect together, or
// nothing.
type EventTypesChange struct {
	Tenant    string            `json:"tenant,omitempty" required:"false" maxLength:"64" doc:"The tenant whose own types change; without it, those of the deployment do"`
	Types     []json.RawMessage `json:"types,omitempty" required:"false" maxItems:"10000" doc:"Definitions (JSON Schema) to add, or to replace those of the same name and version"`
	Remove    []TypeRemoval     `json:"remove,omitempty" required:"false" maxItems:"10000"`
	Deprecate []TypeMark        `json:"deprecate,omitempty" required:"false" maxItems:"10000"`
	DryRun    bool              `json:"dry_run,omitempty" required:"false" doc:"Say what would change and which endpoints that concerns, and change nothing"`
	Force     bool              `json:"force,omitempty" required:"false" doc:"Make changes that can break endpoints or capture rules, too; without it the answer is 409"`
	// Revision makes the change conditional on what an earlier answer was about.
	Revision *int `json:"revision,omitempty" required:"false" minimum:"0" doc:"The revision of a dry run; the answer is 409 if types or capture rules were changed since"`
}

// TypeRemoval names a type to remove.
type TypeRemoval struct {
	Type    string `json:"type" minLength:"1" maxLength:"64"`
	Version int    `json:"version,omitempty" required:"false" minimum:"0" doc:"Only this version: the oldest or the newest; 0 removes the type"`
}

// TypeMark marks a type as deprecated, or takes the mark away.
type TypeMark struct {
	Type    string `json:"type" minLength:"1" maxLength:"64"`
	Version int    `json:"version,omitempty" required:"false" minimum:"0" doc:"The version to mark; 0 is the newest"`
	Since   string `json:"since,omitempty" required:"false" maxLength:"10" doc:"A date such as 2026-11-30; today if it is missing"`
	Instead string `json:"instead,omitempty" required:"false" maxLength:"64" doc:"The type to use instead"`
	Undo    bool   `json:"undo,omitempty" required:"false" doc:"The type is no longer deprecated"`
}

// EventTypesPlan is what a change does.
type EventTypesPlan struct {
	Tenant   string        `json:"tenant,omitempty" doc:"The tenant whose own types change"`
	Types    []PlannedType `json:"types" nullable:"false" doc:"What it does to each type, field by field, and the endpoints that this concerns"`
	Refused  bool          `json:"refused" doc:"A change needs force"`
	Applied  bool          `json:"applied" doc:"False for a dry run, and if nothing changes. What is applied takes effect within a minute"`
	Revision int           `json:"revision" doc:"The revision of types and capture rules that the change was compared with"`
}

// Empty reports whether nothing changes.
func (p EventTypesPlan) Empty() bool {
	return !slices.ContainsFunc(p.Types, func(t PlannedType) bool { return t.Action != eventtypes.Keep })
}

// PlannedType is what a change does to one type.
type PlannedType struct {
	eventtypes.Item
	MoreChanges   int `json:"more_changes,omitempty" doc:"Changes of fields beyond those listed: an answer lists 1,000, breaking ones first, and fewer if they are long"`
	MoreEndpoints int `json:"more_endpoints,omitempty" doc:"Endpoints that the change concerns beyond those listed: an answer lists 1,000, and fewer if what is said of them is long"`
}

// What an answer lists of a plan's changes, and again of its endpoints: one of a Lambda
// function has up to 6 MB. The name of a field and the values of an enum can be as long as a
// definition.
const (
	maxListed      = 1000
	maxListedBytes = 512 << 10
	maxRefusal     = 160 // characters
)

// budget is what an answer can still list.
type budget struct{ count, bytes int }

// take reports whether an answer can list v, and counts it if so.
func (b *budget) take(v any) bool {
	if b.count == 0 {
		return false
	}
	text, err := json.Marshal(v)
	if err != nil || len(text) > b.bytes {
		return false
	}
	b.count, b.bytes = b.count-1, b.bytes-len(text)
	return true
}

// planned returns the items of a plan for an answer.
func planned(items []eventtypes.Item) []PlannedType {
	list := make([]PlannedType, len(items))
	listed := make([][]bool, len(items)) // by item and change
	endpoints, changes := budget{maxListed, maxListedBytes}, budget{maxListed, maxListedBytes}
	for n, i := range items {
		listed[n] = make([]bool, len(i.Changes))
	}
	for _, breaking := range []bool{true, false} {
		for n, i := range items {
			for at, c := range i.Changes {
				if c.Breaking == breaking {
					listed[n][at] = changes.take(c)
				}
			}
		}
	}
	for n, i := range items {
		p := PlannedType{Item: i}
		p.Changes, p.Endpoints = nil, nil
		for at, c := range i.Changes {
			if listed[n][at] {
				p.Changes = append(p.Changes, c)
			}
		}
		for _, e := range i.Endpoints {
			if endpoints.take(e) {
				p.Endpoints = append(p.Endpoints, e)
			}
		}
		p.MoreChanges, p.MoreEndpoints = len(i.Changes)-len(p.Changes), len(i.Endpoints)-len(p.Endpoints)
		if text := []rune(i.Refused); len(text) > maxRefusal {
			// It ends with what to do.
			p.Refused = string(text[:maxRefusal/2]) + " … " + string(text[len(text)-maxRefusal/2:])
		}
		list[n] = p
	}
	return list
}

// UndefinedTypes is whether events of types without a definition are accepted.
type UndefinedTypes struct {
	Allowed bool `json:"allowed"`
}

// operatesTypes requires an operator of all tenants.
func operatesTypes(who Session) error {
	if !operatesAll(who) {
		return errorf(Forbidden, "event types are those of all tenants: to change them, log in with --role operator, to the tenant %s", event.DefaultTenant)
	}
	return nil
}

// ChangeEventTypes changes the deployment's event types, or says what the change would do.
func (o *Operations) ChangeEventTypes(ctx context.Context, who Session, c EventTypesChange) (EventTypesPlan, error) {
	return o.changeTypes(ctx, who, c, nil)
}

// changeTypes is ChangeEventTypes; begin says where in a text the definitions begin, if they
// are parts of one.
func (o *Operations) changeTypes(ctx context.Context, who Session, c EventTypesChange, begin []place) (EventTypesPlan, error) {
	if err := operatesTypes(who); err != nil {
		return EventTypesPlan{}, err
	}
	request, names, err := c.request(o.Now())
	if err != nil {
		return EventTypesPlan{}, explainTypes(err, begin)
	}
	plan, err := o.Types.Plan(ctx, request)
	if err != nil {
		return EventTypesPlan{}, explainTypes(err, begin)
	}
	result := EventTypesPlan{Tenant: plan.Tenant, Types: planned(plan.Items), Refused: plan.Refused(), Revision: plan.Revision()}
	if c.Revision != nil && *c.Revision != plan.Revision() {
		return result, explainTypes(deployed.ErrConflict, nil)
	}
	if c.DryRun || plan.Empty() {
		return result, nil
	}
	detail := strings.Join(names, ", ")
	if c.Force {
		detail = "forced: " + detail
	}
	subject := "event types"
	if c.Tenant != "" {
		subject += " of tenant " + c.Tenant
	}
	return change(ctx, o, who, "event_types.change", &subject, detail, func() (EventTypesPlan, error) {
		err := o.Types.Apply(ctx, plan, c.Force, "console:"+who.Name, event.NewID(o.Now()))
		if errors.Is(err, eventtypes.ErrRefused) {
			return result, refusedTypes(result.Types)
		}
		result.Applied = err == nil
		return result, explainTypes(err, nil)
	})
}

// request converts the change, and returns what it is about for the audit log.
func (c EventTypesChange) request(now time.Time) (r eventtypes.Request, names []string, err error) {
	var problems []eventtypes.Problem
	r.Tenant = c.Tenant
	for i, text := range c.Types {
		t, err := catalog.Parse(text)
		if err != nil {
			problems = append(problems, eventtypes.Wrong(i, t.Name, err))
			continue
		}
		r.Types, names = append(r.Types, t), append(names, t.Label())
	}
	for _, d := range c.Deprecate {
		m := eventtypes.Mark{Type: d.Type, Version: d.Version}
		switch {
		case !d.Undo:
			m.Deprecation = &catalog.Deprecation{Since: cmp.Or(d.Since, now.UTC().Format(time.DateOnly)), Instead: d.Instead}
			names = append(names, "deprecate "+d.Type)
		case d.Since != "" || d.Instead != "":
			problems = append(problems, eventtypes.Wrong(-1, d.Type, errors.New("undo takes neither since nor instead")))
		default:
			names = append(names, "deprecate "+d.Type+" no longer")
		}
		r.Deprecate = append(r.Deprecate, m)
	}
	for _, d := range c.Remove {
		if d.Version == 0 {
			r.Remove, names = append(r.Remove, d.Type), append(names, "remove "+d.Type)
			continue
		}
		if r.RemoveVersions == nil {
			r.RemoveVersions = map[string]int{}
		}
		if _, twice := r.RemoveVersions[d.Type]; twice {
			problems = append(problems, eventtypes.Wrong(-1, d.Type, errors.New("it is to be removed twice: remove one version after the other")))
		}
		r.RemoveVersions[d.Type] = d.Version
		names = append(names, fmt.Sprintf("remove %s version %d", d.Type, d.Version))
	}
	if len(problems) > 0 {
		return r, names, &eventtypes.WrongError{Problems: problems}
	}
	return r, names, nil
}

// SetUndefinedTypes allows or refuses events of types without a definition.
func (o *Operations) SetUndefinedTypes(ctx context.Context, who Session, u UndefinedTypes) (UndefinedTypes, error) {
	if err := operatesTypes(who); err != nil {
		return UndefinedTypes{}, err
	}
	detail := "types without a definition are refused"
	if u.Allowed {
		detail = "types without a definition are allowed"
	}
	subject := "event types"
	return change(ctx, o, who, "event_types.undefined", &subject, detail, func() (UndefinedTypes, error) {
		_, err := o.Types.SetOpen(ctx, u.Allowed, "console:"+who.Name, event.NewID(o.Now()))
		return u, explainTypes(err, nil)
	})
}

// place is a place in a text: the number of lines before it, and of bytes in its line.
type place struct{ line, column int }

// maxTypeProblems is how many problems of a change an answer lists.
const maxTypeProblems = 50

// explainTypes converts the errors of a change of event types. begin says where in a text the
// definitions begin, if they are parts of one.
func explainTypes(err error, begin []place) error {
	var wrong *eventtypes.WrongError
	var large *deployed.LimitError
	switch {
	case errors.As(err, &wrong):
		out := errorf(Invalid, "the event types cannot be changed so: nothing was changed")
		for i, p := range wrong.Problems {
			if i == maxTypeProblems {
				out.Fields = append(out.Fields, FieldError{"types", fmt.Sprintf("%d more are wrong", len(wrong.Problems)-i)})
				break
			}
			field := "types"
			if p.At >= 0 {
				field = fmt.Sprintf("types[%d]", p.At)
			}
			if p.At >= 0 && p.At < len(begin) && p.Line > 0 {
				if p.Line == 1 {
					p.Column += begin[p.At].column
				}
				p.Line += begin[p.At].line
			}
			out.Fields = append(out.Fields, FieldError{field, p.String()})
		}
		if len(wrong.Problems) == 1 {
			out.Message = out.Fields[0].Message
		}
		return out
	case errors.As(err, &large):
		return errorf(Invalid, "%s", large)
	case errors.Is(err, deployed.ErrConflict):
		return errorf(Conflict, "%s", deployed.ErrConflict)
	}
	return err
}

// refusedTypes says which changes are refused, and the endpoints that they concern.
func refusedTypes(items []PlannedType) error {
	out := errorf(Conflict, "%s. Force makes the change nevertheless", eventtypes.ErrRefused)
	for _, i := range items {
		if i.Refused != "" {
			out.Refused = append(out.Refused, i)
		}
	}
	return out
}
