package eventtypes_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/admin/eventtypes"
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
	w := &world{t, &eventtypes.Manager{Store: store, Endpoints: store, Now: time.Now}, store}
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

func (w *world) endpoint(types, filter string, status endpoint.Status) {
	w.Helper()
	e := endpoint.Endpoint{Tenant: "t1", ID: endpoint.NewID(time.Now()), URL: "https://x.example", EventTypes: strings.Fields(types), Filter: json.RawMessage(filter), Status: status}
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
		"a new field, filtered":               {added, "*", `{"data":{"note":[{"exists":false}]}}`, endpoint.Enabled, "the filter of 1 enabled endpoint names fields that change"},
		"a narrower field":                    {narrower, "order.paid", ``, endpoint.Enabled, ""},
		"a narrower field, filtered":          {narrower, "order.*", `{"data":{"status":["late"]}}`, endpoint.Enabled, "the filter of 1 enabled endpoint names fields that change"},
		"a narrower field, filtered in $or":   {narrower, "*", `{"$or":[{"data":{"status":["late"]}},{"event":["order.paid"]}]}`, endpoint.Enabled, "the filter of 1 enabled endpoint names fields that change"},
		"a narrower field, another filtered":  {narrower, "*", `{"data":{"order_id":["o_1"]}}`, endpoint.Enabled, ""},
		"a narrower field, type not received": {narrower, "user.*", `{"data":{"status":["late"]}}`, endpoint.Enabled, ""},
		"a narrower item, filtered":           {item, "*", `{"data":{"lines":{"sku":["a"]}}}`, endpoint.Enabled, "the filter of 1 enabled endpoint names fields that change"},
		"a renamed value":                     {renamed, "*", ``, endpoint.Enabled, `data.status can be "overdue" instead of "late", and 1 enabled endpoint gets it: define a new type instead`},
		"a renamed value, disabled endpoint":  {renamed, "*", ``, endpoint.Disabled, ""},
		"a renamed value, no endpoint":        {renamed, "", ``, endpoint.Enabled, ""},
		"a removed field":                     {removed, "order.paid", ``, endpoint.Enabled, "data.status is removed, and 1 enabled endpoint gets it: define a new type instead"},
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
	if p := w.apply(remove, false, eventtypes.ErrRefused); p.Items[0].Refused != "the capture rules orders publish it" {
		t.Errorf("%+v", p.Items)
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
