package capturerules_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/admin/capturerules"
	"github.com/tidings-dev/tidings/pkg/admin/capturerules/compile"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/deployed"
	"github.com/tidings-dev/tidings/pkg/store/memory"
)

const order = `{"title":"order.paid","description":"An order was paid","x-subject":"order_id","type":"object",
	"properties":{"order_id":{"type":"string"}},"required":["order_id"],"additionalProperties":false,"examples":[{"order_id":"o_1"}]}`

const paid = `rules:
  - event: order.paid
    table: Orders
    when: change == "insert"
    data:
      order_id: id(new.order_id)
`

type world struct {
	*testing.T
	*capturerules.Manager
	store *memory.Store
	n     int
}

// newWorld returns a deployment with the type order.paid.
func newWorld(t *testing.T) *world {
	t.Helper()
	store := memory.New(time.Now)
	parsed, err := catalog.Parse([]byte(order))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := deployed.Write(t.Context(), store, deployed.Set{Types: []catalog.Type{parsed}}, "op", "types", time.Now()); err != nil {
		t.Fatal(err)
	}
	return &world{t, &capturerules.Manager{Store: store, Check: compile.Check, Now: time.Now}, store, 0}
}

// apply applies a request and returns what it did, as "action file" for each file.
func (w *world) apply(r capturerules.Request) []string {
	w.Helper()
	p, err := w.Plan(w.Context(), r)
	if err == nil {
		w.n++
		err = w.Apply(w.Context(), p, "op", fmt.Sprint(w.n))
	}
	if err != nil {
		w.Fatal(err)
	}
	var did []string
	for _, i := range p.Items {
		did = append(did, string(i.Action)+" "+i.File)
	}
	return did
}

func (w *world) stored() deployed.Set {
	w.Helper()
	set, err := deployed.Read(w.Context(), w.store, -1)
	if err != nil {
		w.Fatal(err)
	}
	return set
}

func file(path, text string) capturerules.File { return capturerules.File{Path: path, Text: text} }

func TestRulesAreAddedChangedAndRemoved(t *testing.T) {
	w := newWorld(t)
	other := strings.Replace(paid, "insert", "modify", 1)
	for _, step := range []struct {
		request capturerules.Request
		does    []string
		files   []string
		shipped bool
	}{
		{capturerules.Request{Files: []capturerules.File{file("a/orders.yaml", paid), file("b/more.yml", other)}}, []string{"add more", "add orders"}, []string{"more", "orders"}, true},
		{capturerules.Request{Files: []capturerules.File{file("orders.yaml", paid)}}, []string{"keep orders"}, []string{"more", "orders"}, true},
		{capturerules.Request{Files: []capturerules.File{file("orders.yaml", other)}, Remove: []string{"more"}}, []string{"remove more", "change orders"}, []string{"orders"}, true},
		{capturerules.Request{Remove: []string{"shipped"}}, []string{"remove shipped"}, []string{"orders"}, false},
		{capturerules.Request{Remove: []string{"shipped"}}, []string{"keep shipped"}, []string{"orders"}, false},
		{capturerules.Request{Shipped: true, Remove: []string{"orders"}}, []string{"remove orders", "add shipped"}, nil, true},
		{capturerules.Request{Shipped: true}, []string{"keep shipped"}, nil, true},
	} {
		if does := w.apply(step.request); !slices.Equal(does, step.does) {
			t.Errorf("%+v does %v, want %v", step.request, does, step.does)
		}
		var files []string
		set := w.stored()
		for _, f := range set.Rules.Files {
			files = append(files, f.Name)
			if !slices.Equal(f.Events, []string{"order.paid"}) {
				t.Errorf("%s publishes %v", f.Name, f.Events)
			}
		}
		if !slices.Equal(files, step.files) || set.Rules.WithoutShipped == step.shipped || len(set.Types) != 1 {
			t.Errorf("after %v: files %v, without the shipped %t, %d types", step.does, files, set.Rules.WithoutShipped, len(set.Types))
		}
	}
}

func TestAChangeIsShownAsADiff(t *testing.T) {
	w := newWorld(t)
	w.apply(capturerules.Request{Files: []capturerules.File{file("orders.yaml", paid)}})
	p, err := w.Plan(t.Context(), capturerules.Request{Files: []capturerules.File{file("x/orders.yaml", strings.Replace(paid, "insert", "modify", 1))}})
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"--- stored", "+++ x/orders.yaml", `-    when: change == "insert"`, `+    when: change == "modify"`} {
		if !strings.Contains(p.Items[0].Diff, line+"\n") {
			t.Errorf("the diff lacks %q:\n%s", line, p.Items[0].Diff)
		}
	}
}

// What is wrong is refused with its place, and nothing of the request is applied.
func TestWrongRulesAreRefused(t *testing.T) {
	good := file("good.yaml", paid)
	for name, c := range map[string]struct {
		request capturerules.Request
		want    string
	}{
		"an unknown event type":   {capturerules.Request{Files: []capturerules.File{good, file("x/orders.yaml", strings.Replace(paid, "order.paid", "order.payed", 1))}}, "x/orders.yaml:2:12: "},
		"an expression":           {capturerules.Request{Files: []capturerules.File{good, file("orders.yaml", strings.Replace(paid, `change ==`, `change =`, 1))}}, "orders.yaml:4:"},
		"an unknown key":          {capturerules.Request{Files: []capturerules.File{good, file("orders.yaml", strings.Replace(paid, `when:`, `if:`, 1))}}, "orders.yaml:4:5: "},
		"no YAML":                 {capturerules.Request{Files: []capturerules.File{good, file("orders.yaml", "rules: [")}}, "orders.yaml:"},
		"all that is wrong":       {capturerules.Request{Files: []capturerules.File{file("a.yaml", strings.Replace(paid, "order.paid", "order.x", 1)), file("b.yaml", strings.Replace(paid, "order.paid", "order.y", 1))}}, "\nb.yaml:2:12: "},
		"the same name twice":     {capturerules.Request{Files: []capturerules.File{good, file("x/good.yml", paid)}}, "there is another file good"},
		"the name of the shipped": {capturerules.Request{Files: []capturerules.File{good, file("shipped.yaml", paid)}}, "and not shipped"},
		"a name with a space":     {capturerules.Request{Files: []capturerules.File{good, file("my rules.yaml", paid)}}, "must be 1 to 64 letters"},
		"removal of what is none": {capturerules.Request{Files: []capturerules.File{good}, Remove: []string{"none"}}, `there are no capture rules "none"`},
		"replaced and removed":    {capturerules.Request{Files: []capturerules.File{good}, Remove: []string{"good"}}, "cannot be named twice"},
		"off and on":              {capturerules.Request{Files: []capturerules.File{good}, Remove: []string{"shipped"}, Shipped: true}, "off and on at once"},
	} {
		w := newWorld(t)
		p, err := w.Plan(t.Context(), c.request)
		if !errors.Is(err, capturerules.ErrWrong) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: plan %+v, error %v, want %q", name, p.Items, err, c.want)
		}
		if set := w.stored(); len(set.Rules.Files) != 0 || set.Revision != 1 {
			t.Errorf("%s: stored %+v", name, set.Rules)
		}
	}
}

func TestOfTwoConcurrentChangesOneIsAConflict(t *testing.T) {
	w := newWorld(t)
	late, err := w.Plan(t.Context(), capturerules.Request{Files: []capturerules.File{file("late.yaml", paid)}})
	if err != nil {
		t.Fatal(err)
	}
	w.apply(capturerules.Request{Files: []capturerules.File{file("orders.yaml", paid)}})
	if err := w.Apply(t.Context(), late, "op", "late"); !errors.Is(err, deployed.ErrConflict) {
		t.Errorf("error %v", err)
	}
}

func TestRulesMayPublishWhatIsAllowedWithoutADefinition(t *testing.T) {
	w := newWorld(t)
	set := w.stored()
	set.Open = true
	if _, err := deployed.Write(t.Context(), w.store, set, "op", "open", time.Now()); err != nil {
		t.Fatal(err)
	}
	w.apply(capturerules.Request{Files: []capturerules.File{file("orders.yaml", strings.Replace(paid, "order.paid", "order.payed", 1))}})
	if _, err := w.Plan(t.Context(), capturerules.Request{Files: []capturerules.File{file("x.yaml", strings.Replace(paid, "order.paid", "tidings.paid", 1))}}); !errors.Is(err, capturerules.ErrWrong) {
		t.Errorf("a reserved name: %v", err)
	}
}

// A rule can give events of any tenant, so it needs a type of the deployment.
func TestARuleDoesNotPublishATypeOfOneTenant(t *testing.T) {
	w := newWorld(t)
	lost, err := catalog.Parse([]byte(strings.Replace(order, "order.paid", "parcel.lost", 1)))
	if err == nil {
		_, err = deployed.WriteTenant(t.Context(), w.store, w.stored(), "acme", []catalog.Type{lost}, "op", "acme", time.Now())
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Plan(t.Context(), capturerules.Request{Files: []capturerules.File{file("parcels.yaml", strings.Replace(paid, "order.paid", "parcel.lost", 1))}}); !errors.Is(err, capturerules.ErrWrong) || !strings.Contains(err.Error(), "parcels.yaml:2:12: ") {
		t.Errorf("error %v", err)
	}
	w.apply(capturerules.Request{Files: []capturerules.File{file("orders.yaml", paid)}})
	if tenants := w.stored().Tenants(); !slices.Equal(tenants, []string{"acme"}) {
		t.Errorf("after a change of rules %q have types of their own", tenants)
	}
}
