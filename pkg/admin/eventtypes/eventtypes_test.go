package eventtypes_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/admin/eventtypes"
	"github.com/tidings-dev/tidings/pkg/admin/eventtypes/compile"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/deployed"
	"github.com/tidings-dev/tidings/pkg/store/memory"
)

const order = `{"title":"order.paid","description":"An order was paid","x-subject":"order_id","type":"object",
	"properties":{"order_id":{"type":"string"},"status":{"enum":["paid","late"]},"lines":{"type":"array","items":{"properties":{"sku":{"type":"string"}}}}},
	"required":["order_id"],"additionalProperties":false,"examples":[{"order_id":"o_1","status":"paid"}]}`

func parse(t *testing.T, text string) catalog.Type {
	t.Helper()
	parsed, err := catalog.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

type world struct {
	*testing.T
	*eventtypes.Manager
	store *memory.Store
}

// newWorld returns a deployment with the type order.paid.
func newWorld(t *testing.T) *world {
	store := memory.New(time.Now)
	w := &world{t, &eventtypes.Manager{Store: store, Endpoints: store, Check: compile.Check, Now: time.Now}, store}
	w.apply(eventtypes.Request{Types: []catalog.Type{parse(t, order)}}, false, nil)
	return w
}

func (w *world) apply(r eventtypes.Request, force bool, want error) eventtypes.Plan {
	w.Helper()
	p, err := w.Plan(w.Context(), r)
	if err != nil {
		w.Fatal(err)
	}
	if err := w.Apply(w.Context(), p, force, "op", fmt.Sprint(time.Now().UnixNano())); !errors.Is(err, want) {
		w.Fatalf("error %v, want %v", err, want)
	}
	return p
}

func (w *world) endpoint(types, filter string, status endpoint.Status, shape ...endpoint.Shape) {
	w.Helper()
	e := endpoint.Endpoint{Tenant: "t1", ID: endpoint.NewID(time.Now()), URL: "https://x.example", EventTypes: strings.Fields(types), Filter: json.RawMessage(filter), Status: status}
	if len(shape) > 0 {
		e.Shape = shape[0]
	}
	if err := w.store.AddEndpoint(w.Context(), e); err != nil {
		w.Fatal(err)
	}
}

func (w *world) has(name string) bool {
	w.Helper()
	set, err := deployed.Read(w.Context(), w.store, -1)
	if err != nil {
		w.Fatal(err)
	}
	known, err := set.Catalog()
	if err != nil {
		w.Fatal(err)
	}
	_, ok := known.Type(name)
	return ok
}

// A change is refused exactly if an endpoint gets the type and the change can break it, or
// if the change touches a field that its filter names.
func TestAChangeThatConcernsAnEndpointIsRefused(t *testing.T) {
	changed := func(old, new string) string { return strings.Replace(order, old, new, 1) }
	text, added := changed("was paid", "is paid"), changed(`"order_id":{"type":"string"}`, `"order_id":{"type":"string"},"note":{"type":"string"}`)
	narrower, renamed := changed(`["paid","late"]`, `["paid"]`), changed(`["paid","late"]`, `["paid","overdue"]`)
	removed := changed(`"status":{"enum":["paid","late"]},`, ``)
	removed = strings.Replace(removed, `,"status":"paid"`, ``, 1)
	item := changed(`"sku":{"type":"string"}`, `"sku":{"type":"string","maxLength":9}`)
	for name, c := range map[string]struct {
		definition    string
		types, filter string // of the endpoint; none if empty
		status        endpoint.Status
		want          string // why it is refused
	}{
		"a text, filtered":                    {text, "order.paid", `{"data":{"status":["paid"]}}`, endpoint.Enabled, ""},
		"a new field":                         {added, "order.paid", ``, endpoint.Enabled, ""},
		"a new field, filtered":               {added, "*", `{"data":{"note":[{"exists":false}]}}`, endpoint.Enabled, "the filter or body of 1 enabled endpoint names fields that change"},
		"a narrower field":                    {narrower, "order.paid", ``, endpoint.Enabled, ""},
		"a narrower field, filtered":          {narrower, "order.*", `{"data":{"status":["late"]}}`, endpoint.Enabled, "the filter or body of 1 enabled endpoint names fields that change"},
		"a narrower field, filtered in $or":   {narrower, "*", `{"$or":[{"data":{"status":["late"]}},{"event":["order.paid"]}]}`, endpoint.Enabled, "the filter or body of 1 enabled endpoint names fields that change"},
		"a narrower field, another filtered":  {narrower, "*", `{"data":{"order_id":["o_1"]}}`, endpoint.Enabled, ""},
		"a narrower field, type not received": {narrower, "user.*", `{"data":{"status":["late"]}}`, endpoint.Enabled, ""},
		"a narrower item, filtered":           {item, "*", `{"data":{"lines":{"sku":["a"]}}}`, endpoint.Enabled, "the filter or body of 1 enabled endpoint names fields that change"},
		"a renamed value":                     {renamed, "*", ``, endpoint.Enabled, `data.status can be "overdue" instead of "late", and 1 enabled endpoint gets it: define version 2 instead`},
		"a renamed value, disabled endpoint":  {renamed, "*", ``, endpoint.Disabled, ""},
		"a renamed value, no endpoint":        {renamed, "", ``, endpoint.Enabled, ""},
		"a removed field":                     {removed, "order.paid", ``, endpoint.Enabled, "data.status is removed, and 1 enabled endpoint gets it: define version 2 instead"},
		"a removed field, no endpoint":        {removed, "user.*", ``, endpoint.Enabled, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if c.types != "" {
				w.endpoint(c.types, c.filter, c.status)
			}
			r := eventtypes.Request{Types: []catalog.Type{parse(t, c.definition)}}
			want := eventtypes.ErrRefused
			if c.want == "" {
				want = nil
			}
			p := w.apply(r, false, want)
			if len(p.Items) != 1 || p.Items[0].Action != eventtypes.Change || p.Items[0].Refused != c.want || (c.want != "") != (len(p.Items[0].Endpoints) > 0) {
				t.Errorf("plan %+v", p.Items)
			}
			w.apply(r, true, nil)
			if again := w.apply(r, false, nil); !again.Empty() {
				t.Errorf("a second time it does %+v", again.Items)
			}
		})
	}
}

func TestTypesAreRemovedAndComeBack(t *testing.T) {
	w := newWorld(t)
	w.apply(eventtypes.Request{Remove: []string{"order.paid", "user.posted_comment"}}, false, nil)
	if w.has("order.paid") || w.has("user.posted_comment") {
		t.Error("removed types are known")
	}
	if _, err := w.Plan(t.Context(), eventtypes.Request{Remove: []string{"order.paid"}}); err == nil {
		t.Error("a type is removed that does not exist")
	}
	shipped, _ := catalog.Default().Type("user.posted_comment")
	p := w.apply(eventtypes.Request{Types: []catalog.Type{shipped}}, false, nil)
	if p.Items[0].Action != eventtypes.Add || !w.has("user.posted_comment") {
		t.Errorf("%+v", p.Items)
	}
}

func TestTheRemovalOfATypeThatAnEndpointNamesIsRefused(t *testing.T) {
	for types, want := range map[string]bool{"order.paid": true, "order.*": true, "*": false, "user.*": false} {
		w := newWorld(t)
		w.endpoint(types, ``, endpoint.Enabled)
		p, err := w.Plan(t.Context(), eventtypes.Request{Remove: []string{"order.paid"}})
		if err != nil || p.Refused() != want {
			t.Errorf("%s: refused %t, %v", types, p.Refused(), err)
		}
	}
}

func TestOneWrongDefinitionStopsAll(t *testing.T) {
	good := parse(t, strings.Replace(order, "order.paid", "order.shipped", 1))
	for name, r := range map[string]eventtypes.Request{
		"an example that does not conform": {Types: []catalog.Type{good, parse(t, strings.Replace(order, `"status":"paid"`, `"status":"x"`, 1))}},
		"a pattern that is none":           {Types: []catalog.Type{good, parse(t, strings.Replace(order, `{"type":"string"}`, `{"type":"string","pattern":"(?=x)"}`, 1))}},
		"a keyword's wrong value":          {Types: []catalog.Type{good, parse(t, strings.Replace(order, `{"type":"string"}`, `{"type":"text"}`, 1))}},
		"defined twice":                    {Types: []catalog.Type{good, good}},
		"removed twice":                    {Remove: []string{"user.posted_comment", "user.posted_comment"}},
		"defined and removed":              {Types: []catalog.Type{good, parse(t, order)}, Remove: []string{"order.paid"}},
		"the old name of another":          {Types: []catalog.Type{good, parse(t, strings.Replace(order, `"x-subject"`, `"x-replaces":"order.shipped","x-subject"`, 1))}},
		"deprecated in favour of nothing":  {Types: []catalog.Type{good, parse(t, strings.Replace(order, `"x-subject"`, `"x-deprecated":{"since":"2026-11-30","instead":"order.gone"},"x-subject"`, 1))}},
	} {
		w := newWorld(t)
		_, err := w.Plan(t.Context(), r)
		if err == nil || w.has("order.shipped") {
			t.Errorf("%s: %v", name, err)
		}
		t.Log(name, "→", err)
	}
}

func TestOfTwoConcurrentChangesOneIsAConflict(t *testing.T) {
	w := newWorld(t)
	r := eventtypes.Request{Types: []catalog.Type{parse(t, strings.Replace(order, "order.paid", "order.shipped", 1))}}
	p, err := w.Plan(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	w.apply(eventtypes.Request{Remove: []string{"user.posted_comment"}}, false, nil)
	if err := w.Apply(t.Context(), p, false, "op", "late"); !errors.Is(err, deployed.ErrConflict) {
		t.Errorf("error %v", err)
	}
}

func TestTheRemovalOfATypeThatACaptureRulePublishesIsRefused(t *testing.T) {
	w := newWorld(t)
	set, err := deployed.Read(t.Context(), w.store, -1)
	if err != nil {
		t.Fatal(err)
	}
	set.Rules.Files = []deployed.RuleFile{{Name: "orders", Text: "rules: []", Events: []string{"order.paid"}}}
	if _, err := deployed.Write(t.Context(), w.store, set, "op", "rules", time.Now()); err != nil {
		t.Fatal(err)
	}
	remove := eventtypes.Request{Remove: []string{"order.paid"}}
	if p := w.apply(remove, false, eventtypes.ErrRefused); p.Items[0].Refused != "the capture rules orders publish it now" {
		t.Errorf("%+v", p.Items)
	}
	// A rule's events do not conform to a new version without a way up, or to a new required field.
	for want, text := range map[string]string{
		"the capture rules orders publish it, and version 2 has no x-upgrade for their events": second,
		"": strings.Replace(second, `"x-downgrade"`, `"x-upgrade":{"state":"'paid'"},"x-downgrade"`, 1),
		"the capture rules orders publish it, and data.status is required": strings.Replace(order, `["order_id"]`, `["order_id","status"]`, 1),
	} {
		p, err := w.Plan(t.Context(), eventtypes.Request{Types: []catalog.Type{parse(t, text)}})
		if err != nil || p.Items[0].Refused != want {
			t.Errorf("%v, %+v, want %q", err, p.Items, want)
		}
	}
	// A change is no removal, and keeps the rules; nor does a shipped rule keep its type.
	w.apply(eventtypes.Request{Types: []catalog.Type{parse(t, strings.Replace(order, "was paid", "is paid", 1))}, Remove: []string{"user.posted_comment"}}, false, nil)
	if set, err := deployed.Read(t.Context(), w.store, -1); err != nil || len(set.Rules.Files) != 1 {
		t.Errorf("after a change of a type, there are the rules %+v, %v", set.Rules, err)
	}
	w.apply(remove, true, nil)
	if w.has("order.paid") {
		t.Error("it is not removed by force")
	}
}

const second = `{"title":"order.paid","x-version":2,"description":"An order was paid","x-subject":"order_id","type":"object",
	"properties":{"order_id":{"type":"string"},"state":{"type":"string","maxLength":9}},"required":["order_id","state"],
	"x-downgrade":{"status":"data.state == 'paid' ? 'paid' : 'late'"},"examples":[{"order_id":"o_1","state":"paid"}]}`

// What breaks receivers of version 1 can be version 2: who was there before keeps version 1,
// and a change concerns only those that get the version.
func TestANewVersionConcernsNoEndpointThatWasThere(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	w := newWorld(t)
	w.Now = func() time.Time { return now }
	add := func(created time.Time, pin int) {
		e := endpoint.Endpoint{Tenant: "t1", ID: endpoint.NewID(created), URL: "https://x.example", EventTypes: []string{"*"}, Status: endpoint.Enabled, CreatedAt: created}
		if pin > 0 {
			e.TypeVersions = map[string]int{"order.paid": pin}
		}
		if err := w.store.AddEndpoint(w.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	add(now.Add(-time.Hour), 0)
	r := eventtypes.Request{Types: []catalog.Type{parse(t, second)}}
	p := w.apply(r, false, nil)
	if len(p.Items) != 1 || p.Items[0].Action != eventtypes.Add || p.Items[0].Version != 2 || len(p.Items[0].Endpoints) != 0 {
		t.Fatalf("%+v", p.Items)
	}
	if again := w.apply(r, false, nil); !again.Empty() {
		t.Errorf("a second time it does %+v", again.Items)
	}
	wider := strings.Replace(second, `,"maxLength":9`, ``, 1)
	change := func(text string, want error, endpoints int, says string) {
		t.Helper()
		p := w.apply(eventtypes.Request{Types: []catalog.Type{parse(t, text)}}, false, want)
		if len(p.Items[0].Endpoints) != endpoints || !strings.Contains(p.Items[0].Refused, says) {
			t.Errorf("%+v", p.Items[0])
		}
	}
	change(wider, nil, 0, "") // nobody gets version 2 yet
	change(second, nil, 0, "")
	add(now, 0) // as new as version 2
	add(now.Add(time.Hour), 1)
	change(wider, eventtypes.ErrRefused, 1, "and 1 enabled endpoint gets it: define version 3 instead")
	change(strings.Replace(order, `"sku":{"type":"string"}`, `"sku":{}`, 1), eventtypes.ErrRefused, 2, "define version 3 instead")
	for version, want := range map[int]int{1: 2, 2: 1} {
		p := w.apply(eventtypes.Request{RemoveVersions: map[string]int{"order.paid": version}}, false, eventtypes.ErrRefused)
		if len(p.Items) != 1 || len(p.Items[0].Endpoints) != want || p.Items[0].Version != version {
			t.Errorf("remove version %d: %+v", version, p.Items)
		}
	}
	// Version 1 is removed in spite of it, and is not added again by the next change.
	w.apply(eventtypes.Request{RemoveVersions: map[string]int{"order.paid": 1}}, true, nil)
	set, err := deployed.Read(t.Context(), w.store, -1)
	if err != nil || len(set.Types) != 1 || set.Types[0].Version != 2 || !set.Types[0].AddedAt.Equal(now) {
		t.Errorf("%v %+v", err, set.Types)
	}
}

// A shipped type gets versions, too, beside the shipped one.
func TestAShippedTypeGetsAVersion(t *testing.T) {
	w := newWorld(t)
	shipped, _ := catalog.Default().Type("user.joined_community")
	next := strings.Replace(string(shipped.Schema), "{", `{"x-version": 2, "x-downgrade": {},`, 1)
	w.apply(eventtypes.Request{Types: []catalog.Type{parse(t, next)}}, false, nil)
	numbers := func() (list []int) {
		set, err := deployed.Read(t.Context(), w.store, -1)
		if err != nil {
			t.Fatal(err)
		}
		known, err := set.Catalog()
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range known.Versions(shipped.Name) {
			list = append(list, v.Version)
		}
		return list
	}
	if got := numbers(); fmt.Sprint(got) != "[1 2]" {
		t.Error(got)
	}
	w.apply(eventtypes.Request{RemoveVersions: map[string]int{shipped.Name: 1}}, false, nil)
	if got := numbers(); fmt.Sprint(got) != "[2]" {
		t.Error(got)
	}
	w.apply(eventtypes.Request{Types: []catalog.Type{shipped}}, false, nil)
	if got := numbers(); fmt.Sprint(got) != "[1 2]" {
		t.Error(got)
	}
	w.apply(eventtypes.Request{Remove: []string{shipped.Name}}, false, nil)
	if got := numbers(); got != nil {
		t.Error(got)
	}
}

func TestARequestForVersionsThatMakesNoSenseIsRefused(t *testing.T) {
	w := newWorld(t)
	w.apply(eventtypes.Request{Types: []catalog.Type{parse(t, second)}}, false, nil)
	for name, c := range map[string]struct {
		request eventtypes.Request
		want    string
	}{
		"a gap":                 {eventtypes.Request{Types: []catalog.Type{parse(t, strings.Replace(second, `"x-version":2`, `"x-version":4`, 1))}}, "has the versions 2 and 4"},
		"a mapping that fails":  {eventtypes.Request{Types: []catalog.Type{parse(t, strings.Replace(second, "data.state ==", "data.stat ==", 1))}}, "order.paid.v2: line 3, column"},
		"a version before it":   {eventtypes.Request{Types: []catalog.Type{parse(t, strings.Replace(order, `"status":{"enum":["paid","late"]}`, `"status":{"enum":["paid","overdue"]}`, 1)), parse(t, strings.Replace(second, `"state":"paid"}]`, `"state":"x"}]`, 1))}}, "order.paid.v2: line 3"},
		"a version that is not": {eventtypes.Request{RemoveVersions: map[string]int{"order.paid": 3}}, "has no version 3"},
		"the only version":      {eventtypes.Request{RemoveVersions: map[string]int{"user.posted_comment": 1}}, "remove the type"},
		"a type that is not":    {eventtypes.Request{RemoveVersions: map[string]int{"order.payed": 1}}, "is not an event type"},
		"removed in two ways":   {eventtypes.Request{Remove: []string{"order.paid"}, RemoveVersions: map[string]int{"order.paid": 1}}, "is named twice"},
		"removed and defined":   {eventtypes.Request{Types: []catalog.Type{parse(t, second)}, RemoveVersions: map[string]int{"order.paid": 1}}, "cannot be defined and removed at once"},
	} {
		if _, err := w.Plan(t.Context(), c.request); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
