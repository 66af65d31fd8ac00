package console_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/pkg/admin/eventtypes"
	typecompile "github.com/tidings-dev/tidings/pkg/admin/eventtypes/compile"
	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/deployed"
)

const ownType = `{"title":"order.paid","description":"An order was paid","x-subject":"order_id","type":"object",
 "properties":{"order_id":{"type":"string"},"status":{"enum":["paid","late"]},"total":{"type":"number"}},
 "required":["order_id"],"additionalProperties":false,"examples":[{"order_id":"o_1","status":"paid"}]}`

// stored returns the stored set of event types.
func (w *world) stored() deployed.Set {
	w.t.Helper()
	set, err := deployed.Read(w.t.Context(), w.store, -1)
	if err != nil {
		w.t.Fatal(err)
	}
	return set
}

// problemDetails is an error of the API (RFC 9457).
type problemDetails struct {
	Status int
	Detail string
	Errors []struct {
		Location, Message string
		Value             eventtypes.Item
	}
}

// call sends a change to the API and decodes the answer.
func (b *browser) change(path, body string, want int, into any) {
	b.w.t.Helper()
	method := http.MethodPost
	if path == "/api/undefined-event-types" {
		method = http.MethodPut
	}
	a := b.api(method, path, body)
	if a.Code != want {
		b.w.t.Fatalf("%s: %d, want %d: %s", body, a.Code, want, a.Body)
	}
	if err := json.Unmarshal(a.Body.Bytes(), into); err != nil {
		b.w.t.Fatal(err)
	}
}

// Event types are those of all tenants: no tenant's session changes them, by the API or by
// the page.
func TestOnlyOperatorsOfAllTenantsChangeEventTypes(t *testing.T) {
	w := newWorld(t)
	for _, who := range []struct {
		role   console.Role
		tenant string
	}{{console.Viewer, "default"}, {console.Admin, "default"}, {console.Operator, "acme"}} {
		b := w.login(who.role, who.tenant)
		for path, bodies := range map[string][]string{
			"/api/event-types": {
				`{"types":[` + ownType + `]}`, `{"types":[` + ownType + `],"dry_run":true}`, `{"remove":[{"type":"user.posted_comment"}],"force":true}`,
				`{"deprecate":[{"type":"user.posted_comment"}]}`, `{"tenant":"acme","types":[` + ownType + `]}`,
			},
			"/api/undefined-event-types": {`{"allowed":true}`},
		} {
			for _, body := range bodies {
				var answer problemDetails
				b.change(path, body, http.StatusForbidden, &answer)
				if len(answer.Errors) > 0 {
					t.Errorf("%s of %s: %+v", who.role, who.tenant, answer)
				}
			}
		}
	}
	if now := w.stored(); now.Revision != 0 {
		t.Errorf("revision %d", now.Revision)
	}
}

// A set of definitions is compared, refused with the endpoints that it concerns, forced, and
// recorded in the audit log.
func TestEventTypesAreChangedByTheAPI(t *testing.T) {
	w := newWorld(t)
	b := w.login(console.Operator, "default")
	var plan console.EventTypesPlan
	b.change("/api/event-types", `{"types":[`+ownType+`],"dry_run":true}`, 200, &plan)
	want := []console.PlannedType{{Item: eventtypes.Item{Type: "order.paid", Action: eventtypes.Add}}}
	if diff := cmp.Diff(want, plan.Types); diff != "" || plan.Applied || plan.Refused || plan.Revision != 0 || w.stored().Revision != 0 {
		t.Fatalf("dry run %+v, stored %+v: %s", plan, w.stored(), diff)
	}
	b.change("/api/event-types", `{"types":[`+ownType+`],"revision":0}`, 200, &plan)
	set := w.stored()
	if !plan.Applied || len(set.Types) != 1 || string(set.Types[0].Schema) != ownType || set.ChangedBy != "console:ada" {
		t.Fatalf("plan %+v, stored %+v", plan, set)
	}
	b.change("/api/event-types", `{"types":[`+ownType+`]}`, 200, &plan)
	if plan.Applied || plan.Types[0].Action != eventtypes.Keep || w.stored().Revision != 1 {
		t.Errorf("the same again: %+v", plan)
	}

	e := endpoint.Endpoint{
		Tenant: "acme", ID: endpoint.NewID(w.now()), URL: "https://acme.example/hooks", EventTypes: []string{"order.*"},
		Filter: json.RawMessage(`{"data":{"status":["late"]}}`), Status: endpoint.Enabled, Version: 1, CreatedAt: w.now(),
	}
	if err := w.store.AddEndpoint(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	renamed := strings.Replace(ownType, `"late"`, `"overdue"`, 1)
	var refused problemDetails
	b.change("/api/event-types", `{"types":[`+renamed+`]}`, http.StatusConflict, &refused)
	if len(refused.Errors) != 1 || refused.Errors[0].Location != "order.paid" || !strings.Contains(refused.Errors[0].Message, `data.status can be "overdue" instead of "late"`) {
		t.Fatalf("refused %+v", refused)
	}
	concerned := []eventtypes.Concerned{{Tenant: "acme", ID: e.ID, Why: `its filter names data.status, which can be "overdue" instead of "late"`}}
	if diff := cmp.Diff(concerned, refused.Errors[0].Value.Endpoints); diff != "" || w.stored().Revision != 1 {
		t.Errorf("concerned: %s, stored %+v", diff, w.stored())
	}
	b.change("/api/event-types", `{"types":[`+renamed+`],"dry_run":true}`, 200, &plan)
	if !plan.Refused || plan.Applied || plan.Revision != 1 || !cmp.Equal(concerned, plan.Types[0].Endpoints) {
		t.Errorf("dry run of a change that is refused: %+v", plan)
	}
	b.change("/api/event-types", `{"types":[`+renamed+`],"force":true}`, 200, &plan)
	if now := w.stored(); !plan.Applied || string(now.Types[0].Schema) != renamed {
		t.Errorf("forced: %+v, stored %s", plan, now.Types[0].Schema)
	}
	// What was checked before another change is not applied after it.
	b.change("/api/event-types", `{"types":[`+ownType+`],"revision":1,"force":true}`, http.StatusConflict, &refused)
	if !strings.Contains(refused.Detail, "changed at the same time") || w.stored().Revision != 2 {
		t.Errorf("an old revision: %+v", refused)
	}

	b.change("/api/event-types", `{"deprecate":[{"type":"order.paid","instead":"user.posted_comment"}]}`, 200, &plan)
	day := w.now().UTC().Format("2006-01-02")
	if diff := cmp.Diff(&catalog.Deprecation{Since: day, Instead: "user.posted_comment"}, w.stored().Types[0].Deprecated); diff != "" {
		t.Errorf("deprecated: %s", diff)
	}
	b.change("/api/event-types", `{"deprecate":[{"type":"order.paid","undo":true}]}`, 200, &plan)
	if d := w.stored().Types[0].Deprecated; d != nil {
		t.Errorf("still deprecated %v", d)
	}
	b.change("/api/event-types", `{"remove":[{"type":"order.paid"}]}`, http.StatusConflict, &refused)
	if refused.Errors[0].Message != "1 enabled endpoint subscribes to it" {
		t.Errorf("removal: %+v", refused)
	}
	b.change("/api/event-types", `{"remove":[{"type":"order.paid"},{"type":"user.joined_platform"}],"force":true}`, 200, &plan)
	if now := w.stored(); len(now.Types) != 0 || !slices.Equal(now.Without, []string{"user.joined_platform"}) {
		t.Errorf("removed: %+v", now)
	}
	var undefined console.UndefinedTypes
	b.change("/api/undefined-event-types", `{"allowed":true}`, 200, &undefined)
	if !undefined.Allowed || !w.stored().Open {
		t.Errorf("undefined types %+v, stored %+v", undefined, w.stored())
	}

	log, err := w.store.ListAudit(t.Context(), "default", 0, "")
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, entry := range slices.Backward(log.Entries) {
		said = append(said, entry.Action+" "+string(entry.Outcome)+" "+strings.SplitAfterN(entry.Detail, ": ", 3)[0])
	}
	wantLog := []string{
		"event_types.change done order.paid", "event_types.change failed order.paid: ", "event_types.change done forced: ",
		"event_types.change done deprecate order.paid", "event_types.change done deprecate order.paid no longer", "event_types.change failed remove order.paid: ",
		"event_types.change done forced: ", "event_types.undefined done types without a definition are allowed",
	}
	if diff := cmp.Diff(wantLog, said); diff != "" {
		t.Errorf("audit log: %s", diff)
	}
}

// Each definition that is wrong is named with its place in the request, its line and its
// column, whether the console or emit finds it.
func TestWrongEventTypesAreNamedWithTheirPlace(t *testing.T) {
	w := newWorld(t)
	// The console asks emit: what reaches it has gone through JSON.
	w.ops.Types.Check = eventtypes.Remote(func(ctx context.Context, command, answer any) error {
		var c struct{ Types []eventtypes.Definition }
		text, err := json.Marshal(command)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(text, &c); err != nil {
			return err
		}
		checked := answer.(*eventtypes.Checked)
		checked.Problems = []eventtypes.Problem{}
		if err := typecompile.Check(ctx, c.Types); err != nil {
			checked.Problems = err.(*eventtypes.WrongError).Problems
		}
		return nil
	})
	b := w.login(console.Operator, "default")
	other := strings.Replace(ownType, "order.paid", "order.sent", 1)
	for name, c := range map[string]struct{ types, location, says string }{
		"no type":               {ownType + `,{"title":"a.b"}`, "body.types[1]", `a.b: line 1, column 1: type must be "object"`},
		"an unknown type":       {ownType + "," + strings.Replace(other, `"number"`, `"numeral"`, 1), "body.types[1]", "order.sent: line 2, column 88: value must be one of"},
		"an example is refused": {strings.Replace(ownType, `"o_1"`, `7`, 1), "body.types[0]", "order.paid: line 3, column 67: example 1 does not conform"},
		"defined twice":         {ownType + "," + ownType, "body.types", "event type order.paid is defined twice"},
	} {
		var wrong problemDetails
		b.change("/api/event-types", `{"types":[`+c.types+`]}`, http.StatusUnprocessableEntity, &wrong)
		if len(wrong.Errors) != 1 || wrong.Errors[0].Location != c.location || !strings.Contains(wrong.Errors[0].Message, c.says) {
			t.Errorf("%s: %+v, want %s", name, wrong, c.says)
		}
	}
	if now := w.stored(); now.Revision != 0 {
		t.Errorf("stored %+v", now)
	}
}

// The list and a type say where each version comes from.
func TestEventTypesAreListedWithTheirVersions(t *testing.T) {
	w := newWorld(t)
	live := &deployed.Live{Source: w.store, Now: w.now, Log: discard}
	w.ops.Endpoints.Catalog = live
	b := w.login(console.Operator, "default")
	second := strings.Replace(ownType, `"title"`, `"x-version":2,"x-downgrade":{"total":null},"title"`, 1)
	second = strings.Replace(second, `"paid","late"`, `"paid","late","lost"`, 1)
	second = strings.ReplaceAll(second, `"status"`, `"state"`)
	var plan console.EventTypesPlan
	b.change("/api/event-types", `{"types":[`+ownType+`,`+second+`]}`, 200, &plan)
	b.change("/api/event-types", `{"deprecate":[{"type":"user.posted_comment","since":"2026-11-30"},{"type":"order.paid","version":1,"since":"2026-11-30"}]}`, 200, &plan)
	viewer := w.login(console.Viewer, "acme")
	var all console.EventTypes
	if err := json.Unmarshal(viewer.get("/api/event-types").Body.Bytes(), &all); err != nil {
		t.Fatal(err)
	}
	since := &catalog.Deprecation{Since: "2026-11-30"}
	for name, want := range map[string][]console.TypeVersion{
		"order.paid":           {{Version: 1, From: "deployed", Deprecated: since}, {Version: 2, From: "deployed", AddedAt: w.now().UTC()}},
		"user.posted_comment":  {{Version: 1, From: "deployed", Deprecated: since}},
		"user.joined_platform": {{Version: 1, From: "shipped"}},
	} {
		at := slices.IndexFunc(all.Types, func(e console.EventType) bool { return e.Name == name })
		if at < 0 || !cmp.Equal(all.Types[at].Versions, want) {
			t.Errorf("%s: %s", name, cmp.Diff(want, all.Types[max(at, 0)].Versions))
		}
	}
	var one console.EventType
	if err := json.Unmarshal(viewer.get("/api/event-types/order.paid").Body.Bytes(), &one); err != nil {
		t.Fatal(err)
	}
	if len(one.Versions) != 2 || one.Version != 2 || !strings.Contains(string(one.Versions[1].Definition), `"lost"`) || strings.Contains(string(one.Versions[0].Definition), `"lost"`) {
		t.Errorf("one type: %+v", one)
	}
}

// Any number of types is listed page by page, and no page is too large for an answer of a
// Lambda function.
func TestManyEventTypesAreListedInPages(t *testing.T) {
	w := newWorld(t)
	w.ops.Endpoints.Catalog = &deployed.Live{Source: w.store, Now: w.now, Log: discard}
	var set deployed.Set
	long := strings.Repeat("x", 9_000)
	for i := range 1200 {
		text := strings.Replace(ownType, "order.paid", fmt.Sprintf("order.n%04d", i), 1)
		if i < 700 {
			text = strings.Replace(text, "An order was paid", long, 1)
		}
		parsed, err := catalog.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		set.Types = append(set.Types, parsed)
	}
	if _, err := deployed.Write(t.Context(), w.store, set, "op", "w", w.now()); err != nil {
		t.Fatal(err)
	}
	b := w.login(console.Viewer, "default")
	var names []string
	pages := 0
	for next := ""; ; {
		a := b.get("/api/event-types?limit=1000&after=" + next)
		if a.Code != http.StatusOK || a.Body.Len() > 6_000_000 {
			t.Fatalf("a page of %d bytes: %d", a.Body.Len(), a.Code)
		}
		var page console.EventTypes
		if err := json.Unmarshal(a.Body.Bytes(), &page); err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Types {
			names = append(names, e.Name)
		}
		pages++
		if next = page.Next; next == "" {
			break
		}
	}
	if len(names) != 1209 || !slices.IsSorted(names) || len(slices.Compact(names)) != 1209 || pages < 3 {
		t.Errorf("%d types in %d pages", len(names), pages)
	}
	// Pages for people list the first ones, and find the others.
	for path, says := range map[string]string{
		"/events": "Search for another one", "/event-types": "1009 more match", "/event-types?q=n1199": ">order.n1199</a>", "/catalog": "1009 more match",
	} {
		a := w.login(console.Operator, "default").get(path)
		if a.Code != http.StatusOK || a.Body.Len() > 6_000_000 || !strings.Contains(a.Body.String(), says) {
			t.Errorf("%s: %d, %d bytes, want %q", path, a.Code, a.Body.Len(), says)
		}
	}
}
