package eventtypes_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/admin/eventtypes"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/deployed"
)

// own returns the definition of another type like order.paid.
func own(t *testing.T, name string) catalog.Type {
	return parse(t, strings.Replace(order, "order.paid", name, 1))
}

func (w *world) of(tenant string) *catalog.Catalog {
	w.Helper()
	live := &deployed.Live{Source: w.store, Now: time.Now}
	known, err := live.Of(w.Context(), tenant)
	if err != nil {
		w.Fatal(err)
	}
	return known
}

// refused plans a request that must fail with an error that has a text.
func (w *world) refused(r eventtypes.Request, want string) {
	w.Helper()
	if _, err := w.Plan(w.Context(), r); err == nil || !strings.Contains(err.Error(), want) {
		w.Errorf("error %v, want %q", err, want)
	}
}

func TestATypeOfATenantIsThatTenantsOnly(t *testing.T) {
	w := newWorld(t)
	w.apply(eventtypes.Request{Tenant: "acme", Types: []catalog.Type{own(t, "parcel.lost"), own(t, "parcel.found")}}, false, nil)
	w.apply(eventtypes.Request{Tenant: "globex", Types: []catalog.Type{own(t, "parcel.lost")}}, false, nil) // its own of that name
	for tenant, want := range map[string]string{"acme": "parcel.found parcel.lost", "globex": "parcel.lost", "default": "", "": ""} {
		var has []string
		for _, name := range w.of(tenant).Types() {
			if strings.HasPrefix(name, "parcel.") {
				has = append(has, name)
			}
		}
		if strings.Join(has, " ") != want {
			t.Errorf("%q has %v, want %s", tenant, has, want)
		}
		if _, ok := w.of(tenant).Type("order.paid"); !ok {
			t.Errorf("%q does not have the deployment's", tenant)
		}
	}
	if again := w.apply(eventtypes.Request{Tenant: "acme", Types: []catalog.Type{own(t, "parcel.lost")}}, false, nil); !again.Empty() {
		t.Errorf("a second time it does %+v", again.Items)
	}
	w.apply(eventtypes.Request{Tenant: "acme", Remove: []string{"parcel.lost"}}, false, nil)
	if _, ok := w.of("acme").Type("parcel.lost"); ok {
		t.Error("it is there after its removal")
	}
	if _, ok := w.of("globex").Type("parcel.lost"); !ok {
		t.Error("another tenant's was removed, too")
	}
}

func TestNoNameMeansATypeOfTheDeploymentAndAnotherOneOfATenant(t *testing.T) {
	w := newWorld(t)
	version2 := parse(t, strings.Replace(order, `"x-subject"`, `"x-version":2,"x-downgrade":{},"x-subject"`, 1))
	old := parse(t, strings.Replace(order, `"title":"order.paid"`, `"title":"parcel.sent","x-replaces":"parcel.posted"`, 1))
	w.apply(eventtypes.Request{Types: []catalog.Type{old}}, false, nil)
	for _, c := range []struct {
		add  catalog.Type
		want string
	}{
		{own(t, "order.paid"), "order.paid is an event type of the deployment: a type of tenant acme cannot be"},
		{own(t, "user.posted_comment"), "user.posted_comment is an event type of the deployment"},
		{version2, "order.paid.v2 is an event type of the deployment"},
		{own(t, "parcel.posted"), "parcel.posted is the old name of parcel.sent, an event type of the deployment"},
	} {
		w.refused(eventtypes.Request{Tenant: "acme", Types: []catalog.Type{own(t, "parcel.lost"), c.add}}, c.want)
	}
	w.refused(eventtypes.Request{Tenant: "acme", Remove: []string{"order.paid"}}, "order.paid is an event type of the deployment, and none of tenant acme's own")
	w.refused(eventtypes.Request{Tenant: "acme", RemoveVersions: map[string]int{"order.paid": 1}}, "none of tenant acme's own")
	w.refused(eventtypes.Request{Tenant: "acme", Remove: []string{"parcel.gone"}}, `"parcel.gone" is not an event type`)
	w.refused(eventtypes.Request{Tenant: "a b", Types: []catalog.Type{own(t, "parcel.lost")}}, "tenant: must be 1 to 64")

	for _, tenant := range []string{"globex", "acme", "umbrella"} {
		name := "parcel.lost"
		if tenant == "umbrella" {
			name = "parcel.other"
		}
		w.apply(eventtypes.Request{Tenant: tenant, Types: []catalog.Type{own(t, name)}}, false, nil)
	}
	w.refused(eventtypes.Request{Types: []catalog.Type{own(t, "parcel.new"), own(t, "parcel.lost")}}, "acme (parcel.lost), globex (parcel.lost). Remove theirs first")
	renamed := parse(t, strings.Replace(order, `"title":"order.paid"`, `"title":"parcel.missing","x-replaces":"parcel.other"`, 1))
	w.refused(eventtypes.Request{Types: []catalog.Type{renamed}}, "umbrella (parcel.missing)")
	w.apply(eventtypes.Request{Types: []catalog.Type{own(t, "parcel.new")}}, false, nil)
	for i := range maxNamed + 3 {
		w.apply(eventtypes.Request{Tenant: fmt.Sprint("t", i), Types: []catalog.Type{own(t, "parcel.many")}}, false, nil)
	}
	w.refused(eventtypes.Request{Types: []catalog.Type{own(t, "parcel.many")}}, "t5 (parcel.many)")
	w.refused(eventtypes.Request{Types: []catalog.Type{own(t, "parcel.many")}}, "and 3 more")
}

const maxNamed = 20

// Of two changes that were planned at the same time, one is stored: so a name cannot become
// one of the deployment and of a tenant at once.
func TestPlansOfTheSameTimeConflict(t *testing.T) {
	w := newWorld(t)
	var plans []eventtypes.Plan
	for _, tenant := range []string{"", "acme", "globex", ""} {
		p, err := w.Plan(t.Context(), eventtypes.Request{Tenant: tenant, Types: []catalog.Type{own(t, "parcel.lost")}})
		if err != nil {
			t.Fatal(err)
		}
		plans = append(plans, p)
	}
	errs := make([]error, len(plans))
	var all sync.WaitGroup
	for i, p := range plans {
		all.Go(func() { errs[i] = w.Apply(t.Context(), p, false, "op", fmt.Sprint("racer", i)) })
	}
	all.Wait()
	stored := 0
	for _, err := range errs {
		if err == nil {
			stored++
		} else if !errors.Is(err, deployed.ErrConflict) {
			t.Error(err)
		}
	}
	if stored != 1 {
		t.Errorf("%d of %d were stored: %v", stored, len(plans), errs)
	}
}

// Only the tenant's own endpoints are concerned by a change of its types.
func TestAChangeOfATenantsTypeIsComparedWithItsEndpoints(t *testing.T) {
	w := newWorld(t)
	for _, tenant := range []string{"acme", "globex"} {
		w.apply(eventtypes.Request{Tenant: tenant, Types: []catalog.Type{own(t, "parcel.lost")}}, false, nil)
	}
	e := endpoint.Endpoint{Tenant: "globex", ID: endpoint.NewID(time.Now()), URL: "https://x.example", EventTypes: []string{"parcel.*"}, Filter: []byte(`{"data":{"status":["late"]}}`), Status: endpoint.Enabled}
	if err := w.store.AddEndpoint(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	renamed := parse(t, strings.NewReplacer("order.paid", "parcel.lost", `["paid","late"]`, `["paid","overdue"]`).Replace(order))
	for tenant, want := range map[string]error{"acme": nil, "globex": eventtypes.ErrRefused} {
		p := w.apply(eventtypes.Request{Tenant: tenant, Types: []catalog.Type{renamed}}, false, want)
		if concerned := len(p.Items[0].Endpoints); (concerned == 1) != (want != nil) || p.Tenant != tenant {
			t.Errorf("%s: %+v", tenant, p)
		}
	}
	w.apply(eventtypes.Request{Tenant: "globex", Remove: []string{"parcel.lost"}}, false, eventtypes.ErrRefused)
	w.apply(eventtypes.Request{Tenant: "acme", Remove: []string{"parcel.lost"}}, false, nil)
	w.apply(eventtypes.Request{Tenant: "globex", Remove: []string{"parcel.lost"}}, true, nil)
}

// A release can ship a name that a tenant has. Both keep theirs and can change them, but
// claim no name more.
func TestBothKeepANameThatAReleaseShippedLater(t *testing.T) {
	w := newWorld(t)
	const name = "user.posted_comment"
	set, err := deployed.Read(t.Context(), w.store, -1)
	if err == nil { // by a release that does not ship it
		_, err = deployed.WriteTenant(t.Context(), w.store, set, "acme", []catalog.Type{own(t, name)}, "op", "a", time.Now())
	}
	if err != nil {
		t.Fatal(err)
	}
	shipped, _ := catalog.Default().Type(name)
	version2 := `"x-version":2,"x-downgrade":{},`
	edit := func(text, more string) catalog.Type {
		return parse(t, strings.Replace(text, "{", "{"+more, 1))
	}
	mine := strings.Replace(order, "order.paid", name, 1)
	described := func(text string) catalog.Type {
		return parse(t, strings.Replace(text, `"description"`, `"$comment":"x","description"`, 1))
	}
	mark := []eventtypes.Mark{{Type: name, Deprecation: &catalog.Deprecation{Since: "2026-11-30"}}}
	for _, tenant := range []string{"acme", ""} {
		text, old := mine, "user.joined_platform" // the deployment's
		if tenant == "" {
			text, old = string(shipped.Schema), "parcel.lost"
			w.apply(eventtypes.Request{Tenant: "acme", Types: []catalog.Type{own(t, old)}}, false, nil)
		}
		w.apply(eventtypes.Request{Tenant: tenant, Types: []catalog.Type{parse(t, text)}}, false, nil)
		w.apply(eventtypes.Request{Tenant: tenant, Types: []catalog.Type{described(text)}}, false, nil)
		w.apply(eventtypes.Request{Tenant: tenant, Deprecate: mark}, false, nil)
		if is, _ := w.of(tenant).Type(name); is.Deprecated == nil {
			t.Errorf("%q: it has no mark", tenant)
		}
		for more, want := range map[string]string{version2: name + ".v2", `"x-replaces":"` + old + `",`: name} {
			r := eventtypes.Request{Tenant: tenant, Types: []catalog.Type{edit(text, more)}}
			if tenant == "" {
				want = "acme (" + want + ")"
			}
			w.refused(r, want)
		}
	}
}

// What a tenant's types name can be removed from the deployment, without looking at all
// tenants. It is wrong in what the tenant changes next, not in what it leaves.
func TestATenantsTypesCanBeDeprecatedInFavourOfOneThatTheDeploymentRemoves(t *testing.T) {
	w := newWorld(t)
	instead := func(name, instead string) catalog.Type {
		return parse(t, strings.Replace(strings.Replace(order, "order.paid", name, 1), "{", `{"x-deprecated":{"since":"2026-11-30","instead":"`+instead+`"},`, 1))
	}
	old := instead("parcel.lost", "order.paid")
	w.apply(eventtypes.Request{Tenant: "acme", Types: []catalog.Type{old}}, false, nil)
	w.apply(eventtypes.Request{Remove: []string{"order.paid"}}, false, nil)
	w.apply(eventtypes.Request{Tenant: "acme", Types: []catalog.Type{old, own(t, "parcel.found"), own(t, "parcel.sent")}}, false, nil)
	w.apply(eventtypes.Request{Tenant: "acme", Remove: []string{"parcel.found"}}, false, nil)
	w.refused(eventtypes.Request{Tenant: "acme", Types: []catalog.Type{instead("parcel.sent", "order.paid")}}, "parcel.sent is deprecated in favour of order.paid")
	w.apply(eventtypes.Request{Tenant: "acme", Types: []catalog.Type{instead("parcel.lost", "parcel.sent")}}, false, nil)
	w.refused(eventtypes.Request{Tenant: "acme", Remove: []string{"parcel.sent"}}, "parcel.lost is deprecated in favour of parcel.sent")
	w.apply(eventtypes.Request{Tenant: "acme", Types: []catalog.Type{instead("parcel.lost", "user.posted_comment")}}, false, nil)
}
