package console_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
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

// maxAnswer is how many bytes an answer of a Lambda function has at most.
const maxAnswer = 6_000_000

// Each of these changes has the long name of the field around it in its path: an answer lists
// as many as fit, the breaking ones first, and counts the others.
func TestAPlanOfManyLongChangesFitsIntoAnAnswer(t *testing.T) {
	w := newWorld(t)
	const types, fields = 3, 120
	long := strings.Repeat("x", 20_000)
	define := func(n int, required bool) string {
		var names []string
		properties := map[string]any{}
		for i := range fields {
			name := fmt.Sprintf("f%03d", i)
			names, properties[name] = append(names, name), map[string]any{"type": "string"}
		}
		inner := map[string]any{"type": "object", "properties": properties}
		if required {
			inner["required"] = names
		} else {
			properties["a_new"] = true
		}
		text, err := json.Marshal(map[string]any{
			"title": fmt.Sprintf("order.n%d", n), "description": "An order", "type": "object", "properties": map[string]any{long: inner}, "examples": []any{map[string]any{}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	var set deployed.Set
	var changed []string
	for n := range types {
		parsed, err := catalog.Parse([]byte(define(n, true)))
		if err != nil {
			t.Fatal(err)
		}
		set.Types, changed = append(set.Types, parsed), append(changed, define(n, false))
	}
	if _, err := deployed.Write(t.Context(), w.store, set, "op", "w", w.now()); err != nil {
		t.Fatal(err)
	}
	if err := w.store.AddEndpoint(t.Context(), endpoint.Endpoint{Tenant: "acme", ID: endpoint.NewID(w.now()), URL: "https://acme.example/", EventTypes: []string{"*"}, Status: endpoint.Enabled}); err != nil {
		t.Fatal(err)
	}
	b := w.login(console.Operator, "default")
	body := `{"types":[` + strings.Join(changed, ",") + `]`
	a := b.api(http.MethodPost, "/api/event-types", body+`,"dry_run":true}`)
	var plan console.EventTypesPlan
	if err := json.Unmarshal(a.Body.Bytes(), &plan); err != nil || a.Code != http.StatusOK || a.Body.Len() > maxAnswer {
		t.Fatalf("a plan of %d bytes: %d, %v", a.Body.Len(), a.Code, err)
	}
	listed := 0
	for _, i := range plan.Types {
		for _, c := range i.Changes {
			if listed++; !c.Breaking {
				t.Errorf("%s lists a change that breaks nothing before others that do", i.Type)
			}
		}
		if len(i.Changes)+i.MoreChanges != fields+1 || len(i.Refused) > 1000 || !strings.HasSuffix(i.Refused, ": define version 2 instead") {
			t.Errorf("%s has %d changes and %d more, refused for %d bytes", i.Type, len(i.Changes), i.MoreChanges, len(i.Refused))
		}
	}
	if listed == 0 || len(plan.Types) != types {
		t.Errorf("%d changes of %d types", listed, len(plan.Types))
	}
	if a := b.api(http.MethodPost, "/api/event-types", body+`}`); a.Code != http.StatusConflict || a.Body.Len() > maxAnswer {
		t.Errorf("refused with %d bytes: %d", a.Body.Len(), a.Code)
	}
	form := url.Values{"what": {"define"}, "do": {"check"}, "text": {strings.Join(changed, "\n")}}
	if a := b.post("/event-types", form); a.Code != http.StatusOK || a.Body.Len() > maxAnswer || !strings.Contains(a.Body.String(), fmt.Sprintf("%d more changes.", fields+1)) {
		t.Errorf("a page of %d bytes: %d", a.Body.Len(), a.Code)
	}
}

// A hundred versions of the largest size are more than fits: the newest ones have their
// definitions, and the answer says how many have none.
func TestATypeWithManyLargeVersionsFitsIntoAnAnswer(t *testing.T) {
	w := newWorld(t)
	large := strings.Repeat("x", 60_000)
	var list []catalog.Type
	for n := 1; n <= catalog.MaxVersion; n++ {
		text := ownType
		if n > 1 {
			text = strings.Replace(text, `"title"`, fmt.Sprintf(`"x-version":%d,"x-downgrade":{},"title"`, n), 1)
		}
		parsed, err := catalog.Parse([]byte(strings.Replace(text, "An order was paid", large, 1)))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, parsed)
	}
	known, err := catalog.New(list)
	if err != nil {
		t.Fatal(err)
	}
	w.ops.Endpoints.Catalog = known
	a := w.login(console.Viewer, "default").get("/api/event-types/order.paid")
	var one console.EventType
	if err := json.Unmarshal(a.Body.Bytes(), &one); err != nil || a.Code != http.StatusOK || a.Body.Len() > maxAnswer {
		t.Fatalf("an answer of %d bytes: %d, %v", a.Body.Len(), a.Code, err)
	}
	if len(one.Versions) != catalog.MaxVersion || one.LeftOut == 0 {
		t.Errorf("%d versions, %d without a definition", len(one.Versions), one.LeftOut)
	}
	for at, v := range one.Versions {
		if has := len(v.Definition) > 0; has != (at >= one.LeftOut) {
			t.Errorf("version %d has a definition: %t; %d have none", v.Version, has, one.LeftOut)
		}
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
		if a.Code != http.StatusOK || a.Body.Len() > maxAnswer {
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
		if a.Code != http.StatusOK || a.Body.Len() > maxAnswer || !strings.Contains(a.Body.String(), says) {
			t.Errorf("%s: %d, %d bytes, want %q", path, a.Code, a.Body.Len(), says)
		}
	}
}
