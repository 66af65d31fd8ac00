package console_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/deployed"
	"github.com/tidings-dev/tidings/pkg/event/validate"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/testsend"
)

const parcel = `{"title":"parcel.lost","description":"A parcel was lost","x-subject":"parcel_id","x-replaces":"parcel.missed","type":"object",
	"properties":{"parcel_id":{"type":"string"}},"required":["parcel_id"],"additionalProperties":false,"examples":[{"parcel_id":"p_1"}]}`

// withParcel returns a world where tenant acme has the type parcel.lost of its own.
func withParcel(t *testing.T) *world {
	w := newWorld(t)
	lost, err := catalog.Parse([]byte(parcel))
	if err == nil {
		_, err = deployed.WriteTenant(t.Context(), w.store, deployed.Set{}, "acme", []catalog.Type{lost}, "op", "a", time.Now())
	}
	if err != nil {
		t.Fatal(err)
	}
	types := &deployed.Live{Source: w.store, CacheTime: deployed.CacheTime, Now: w.now, Log: slog.New(slog.DiscardHandler)}
	w.ops.Endpoints.Catalog = types
	w.ops.TestWebhook = invoking(&testsend.Tester{
		Catalog: types, Validate: (&validate.Live{Types: types}).Validate, Endpoints: w.store, Limits: w.store, Log: slog.New(slog.DiscardHandler), Now: w.now,
		Open: func() (testsend.Sender, error) { return answering{protocols(t), &w.answer}, nil },
	})
	return w
}

func TestASessionSeesTheTypesOfItsTenant(t *testing.T) {
	w := withParcel(t)
	w.console.PublicCatalog = true
	w.handler = w.console.Handler()
	for _, role := range []console.Role{console.Viewer, console.Admin, console.Operator} {
		b := w.login(role, "acme")
		for _, path := range []string{console.CatalogPath, "/catalog?q=parcel", "/catalog/types/parcel.lost", "/catalog/schemas/parcel.lost.json", console.AsyncAPIPath, "/api/event-types"} {
			text := b.get(path).Body.String()
			if !strings.Contains(text, "parcel.lost") || !strings.Contains(path, "parcel") && !strings.Contains(text, "user.joined_platform") {
				t.Errorf("%s of a %s does not have the types of both", path, role)
			}
		}
	}
	b := w.login(console.Admin, "acme")
	for _, path := range []string{"/endpoints/new", "/events", "/deliveries"} {
		if !strings.Contains(b.get(path).Body.String(), "parcel.lost") {
			t.Errorf("%s does not offer the type", path)
		}
	}
	a := b.api("POST", "/api/endpoints", `{"url":"https://acme.example/hook","event_types":["parcel.*"]}`)
	if a.Code != http.StatusCreated && a.Code != http.StatusOK {
		t.Fatalf("an endpoint for it: %d %s", a.Code, a.Body)
	}
	list, err := w.store.ListEndpoints(t.Context(), "acme")
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	if a := b.api("POST", "/api/endpoints/"+list[0].ID+"/test", `{}`); a.Code != http.StatusOK || !strings.Contains(a.Body.String(), `p_1`) {
		t.Errorf("a test send: %d %s", a.Code, a.Body)
	}
}

// Another tenant's session, whatever its role, and a stranger find no trace of it.
func TestSecurityNobodyElseSeesTheTypesOfATenant(t *testing.T) {
	w := withParcel(t)
	w.console.PublicCatalog = true
	w.handler = w.console.Handler()
	clients := map[string]*browser{
		"a stranger": {w: w}, "a viewer": w.login(console.Viewer, "globex"), "an admin": w.login(console.Admin, "globex"),
		"an operator": w.login(console.Operator, "globex"), "a tenant of a similar name": w.login(console.Admin, "acme.lost"),
	}
	w.login(console.Viewer, "acme").get(console.AsyncAPIPath) // fills the cache
	seesNothing := func(name string, b *browser) {
		t.Helper()
		for _, path := range []string{
			console.CatalogPath, "/catalog?q=parcel", "/catalog?q=lost&tenant=acme", "/catalog/types/parcel.lost", "/catalog/types/parcel.lost?version=1&tenant=acme", "/catalog/schemas/parcel.lost.json",
			"/catalog/schemas/parcel.lost.v1.json", "/catalog/schemas/acme%2fparcel.lost.json", console.AsyncAPIPath, console.AsyncAPIPath + "?tenant=acme", "/api/event-types", "/api/event-types?tenant=acme",
			console.OpenAPIPath, "/endpoints/new", "/events", "/deliveries", "/capture-rules",
		} {
			r := httptest.NewRequest("GET", path, nil)
			r.Header.Set("X-Tidings-Tenant", "acme")
			a := b.do(r)
			text := strings.NewReplacer(`"parcel.lost"`, "", `&#34;parcel.lost&#34;`, "", "parcel.lost.json", "", "parcel.lost.v1", "", "acme/parcel.lost", "").Replace(a.Body.String()) // what was asked for
			if strings.Contains(text, "parcel.") || strings.Contains(text, "parcel_id") || strings.Contains(text, "A parcel was lost") || strings.Contains(text, "7654") {
				t.Errorf("%s gets %s: %d %s", name, path, a.Code, a.Body)
			}
			if a.Code == http.StatusOK && (strings.HasPrefix(path, "/catalog/types/") || strings.HasPrefix(path, "/catalog/schemas/")) {
				t.Errorf("%s gets %s", name, path)
			}
		}
	}
	for name, b := range clients {
		seesNothing(name, b)
		if name == "a stranger" {
			continue
		}
		for body, want := range map[string]string{
			`{"url":"https://x.example/hook","event_types":["parcel.lost"]}`:                              "matches no event type",
			`{"url":"https://x.example/hook","event_types":["parcel.missed"]}`:                            "matches no event type",
			`{"url":"https://x.example/hook","event_types":["user.*"],"type_versions":{"parcel.lost":1}}`: "is not an event type",
		} {
			a := b.api("POST", "/api/endpoints", body)
			if a.Code < 400 || !strings.Contains(a.Body.String(), want) && name != "a viewer" || strings.Contains(a.Body.String(), "replaced by") || strings.Contains(a.Body.String(), "parcel_id") {
				t.Errorf("%s adds %s: %d %s", name, body, a.Code, a.Body)
			}
		}
	}

	// Nor of its events of types without a definition.
	seen := stats.Batch{ID: "1", At: w.now(), UndefinedTypes: map[string]int64{"parcel.sent": 7654}}
	if err := w.store.AddStatistics(t.Context(), seen); err != nil {
		t.Fatal(err)
	}
	w.change(func(s *deployed.Set) { s.Open = true })
	for name, b := range clients {
		seesNothing(name+", with open types,", b)
	}
	if a := w.login(console.Operator, "default").get(console.CatalogPath); !strings.Contains(a.Body.String(), "parcel.sent") {
		t.Errorf("an operator of all tenants does not see it: %s", a.Body)
	}
}

// The types of a tenant's own say nothing about the events of the others.
func TestEventsWithoutADefinitionAreThoseThatTheDeploymentDoesNotDefine(t *testing.T) {
	w := newWorld(t)
	lost, err := catalog.Parse([]byte(parcel))
	if err == nil {
		_, err = deployed.WriteTenant(t.Context(), w.store, deployed.Set{Open: true}, "default", []catalog.Type{lost}, "op", "a", time.Now())
	}
	if err == nil {
		err = w.store.AddStatistics(t.Context(), stats.Batch{ID: "1", At: w.now(), UndefinedTypes: map[string]int64{"parcel.lost": 7654}})
	}
	if err != nil {
		t.Fatal(err)
	}
	w.ops.Endpoints.Catalog = &deployed.Live{Source: w.store, Now: w.now, Log: slog.New(slog.DiscardHandler)}
	list := w.login(console.Operator, "default").get(console.CatalogPath).Body.String()
	if !strings.Contains(list, "7654") {
		t.Errorf("an operator does not see that other tenants publish it without a definition:\n%s", list)
	}
}

// change changes the types of the deployment, and passes the time until they are used.
func (w *world) change(do func(*deployed.Set)) {
	w.t.Helper()
	set, err := deployed.Read(w.t.Context(), w.store, -1)
	if err == nil {
		do(&set)
		_, err = deployed.Write(w.t.Context(), w.store, set, "op", fmt.Sprint("change", set.Revision), w.now())
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.pass(2 * deployed.CacheTime)
}

// Operators of all tenants choose the tenant; a tenant's own session sees its types, and
// changes none.
func TestOperatorsChangeTheTypesOfATenant(t *testing.T) {
	w := withParcel(t)
	b := w.login(console.Operator, "default")
	found := strings.Replace(parcel, "parcel.lost", "parcel.found", 1)
	found = strings.Replace(found, `"x-replaces":"parcel.missed",`, "", 1)
	var plan console.EventTypesPlan
	b.change("/api/event-types", `{"tenant":"acme","types":[`+found+`],"dry_run":true}`, http.StatusOK, &plan)
	if plan.Tenant != "acme" || plan.Applied || len(plan.Types) != 1 {
		t.Errorf("dry run: %+v", plan)
	}
	if err := w.store.AddEndpoint(t.Context(), endpoint.Endpoint{Tenant: "globex", ID: endpoint.NewID(w.now()), URL: "https://globex.example/hooks", EventTypes: []string{"parcel.*"}, Status: endpoint.Enabled}); err != nil {
		t.Fatal(err)
	}
	b.change("/api/event-types", fmt.Sprintf(`{"tenant":"acme","types":[%s],"remove":[{"type":"parcel.lost"}],"revision":%d}`, found, plan.Revision), http.StatusOK, &plan)
	if !plan.Applied || plan.Refused { // the endpoint is another tenant's
		t.Errorf("applied: %+v", plan)
	}
	var wrong problemDetails
	b.change("/api/event-types", `{"types":[`+found+`]}`, http.StatusUnprocessableEntity, &wrong)
	if !strings.Contains(wrong.Detail, "acme (parcel.found)") {
		t.Errorf("for the deployment: %+v", wrong)
	}
	w.pass(2 * deployed.CacheTime)
	types := func(b *browser, query string) (own []string) {
		t.Helper()
		var list console.EventTypes
		if a := b.get("/api/event-types" + query); a.Code != http.StatusOK || json.Unmarshal(a.Body.Bytes(), &list) != nil {
			t.Fatalf("%s: %d %s", query, a.Code, a.Body)
		}
		for _, kind := range list.Types {
			if kind.Versions[0].From == "tenant" {
				own = append(own, kind.Name)
			}
		}
		return own
	}
	viewer := w.login(console.Viewer, "acme")
	for name, got := range map[string][]string{"the operator": types(b, "?tenant=acme"), "the tenant": types(viewer, ""), "by its name": types(viewer, "?tenant=acme")} {
		if !slices.Equal(got, []string{"parcel.found"}) {
			t.Errorf("%s sees %q", name, got)
		}
	}
	if got := types(b, ""); got != nil {
		t.Errorf("the operator's own tenant has %q", got)
	}
	for _, path := range []string{"/api/event-types?tenant=globex", "/api/event-types?tenant=default", "/api/event-types/parcel.found?tenant=globex"} {
		if a := w.login(console.Operator, "acme").get(path); a.Code != http.StatusForbidden {
			t.Errorf("%s: %d", path, a.Code)
		}
	}
	log, err := w.store.ListAudit(t.Context(), "default", 10, "")
	if err != nil || len(log.Entries) == 0 || log.Entries[0].Subject != "event types of tenant acme" {
		t.Errorf("the audit log has %+v, %v", log.Entries, err)
	}
}

// The page changes the types of the tenant that is chosen, in every form.
func TestTypesOfATenantAreChangedOnThePage(t *testing.T) {
	w := withParcel(t)
	b := w.login(console.Operator, "default")
	own := func() string {
		t.Helper()
		set := w.stored()
		list, err := deployed.ReadTenant(t.Context(), w.store, set, "acme")
		if err != nil || len(set.Types)+len(set.Without) > 0 {
			t.Fatalf("the deployment has %v, without %v: %v", set.Types, set.Without, err)
		}
		var names []string
		for _, kind := range list {
			names = append(names, kind.Name+map[bool]string{true: " deprecated"}[kind.Deprecated != nil])
		}
		return strings.Join(names, ", ")
	}
	page := b.get("/event-types?tenant=acme").Body.String()
	if !strings.Contains(page, `href="/event-types?type=parcel.lost&amp;tenant=acme"`) || strings.Contains(page, "user.posted_comment") || strings.Contains(page, `value="undefined"`) {
		t.Errorf("the page of acme: %s", page)
	}
	if page := b.get("/event-types").Body.String(); strings.Contains(page, "parcel.lost") || !strings.Contains(page, `<option value="acme">`) {
		t.Errorf("the page of the deployment: %s", page)
	}
	if forms := strings.Count(b.get("/event-types?tenant=acme&type=parcel.lost").Body.String(), `name="tenant"`); forms != 4 { // search, deprecate, remove, define
		t.Errorf("%d forms have the tenant", forms)
	}
	found := strings.NewReplacer("parcel.lost", "parcel.found", `"x-replaces":"parcel.missed",`, "").Replace(parcel)
	for _, c := range []struct {
		form url.Values
		want string
	}{
		{url.Values{"what": {"define"}, "text": {found}}, "parcel.found, parcel.lost"},
		{url.Values{"what": {"deprecate"}, "type": {"parcel.lost"}, "since": {"2026-11-30"}, "instead": {"parcel.found"}}, "parcel.found, parcel.lost deprecated"},
		{url.Values{"what": {"undo"}, "type": {"parcel.lost"}}, "parcel.found, parcel.lost"},
		{url.Values{"what": {"remove"}, "type": {"parcel.lost"}}, "parcel.found"},
	} {
		c.form.Set("tenant", "acme")
		before := own()
		a := b.post("/event-types", c.form)
		if a.Code != http.StatusOK || own() != before {
			t.Fatalf("%v: %d %s", c.form, a.Code, a.Body)
		}
		if a := b.confirm(a.Body.String()); a.Code != http.StatusSeeOther || !strings.Contains(a.Header().Get("Location"), "tenant=acme") {
			t.Fatalf("%v: %d to %s", c.form, a.Code, a.Header().Get("Location"))
		}
		if got := own(); got != c.want {
			t.Errorf("after %v acme has %q, want %q", c.form, got, c.want)
		}
	}
	for text, want := range map[string]string{"acme": "is an event type of the deployment", "a b": "tenant: must be"} {
		shipped, _ := catalog.Default().Type("user.posted_comment")
		if a := b.post("/event-types", url.Values{"what": {"define"}, "tenant": {text}, "text": {string(shipped.Schema)}}); a.Code != http.StatusUnprocessableEntity || !strings.Contains(a.Body.String(), want) {
			t.Errorf("%s: %d %s", text, a.Code, a.Body)
		}
	}
	if a := b.get("/event-types?tenant=a%20b"); a.Code != http.StatusUnprocessableEntity {
		t.Errorf("a tenant that is none: %d", a.Code)
	}
}
