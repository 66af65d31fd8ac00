package console_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"html"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event/deployed"
)

func TestOnlyOperatorsOfAllTenantsSeeThePageOfTypes(t *testing.T) {
	w := newWorld(t)
	for _, who := range []struct {
		role   console.Role
		tenant string
	}{{console.Viewer, "default"}, {console.Admin, "default"}, {console.Operator, "acme"}} {
		b := w.login(who.role, who.tenant)
		for _, path := range []string{"/event-types", "/event-types?type=user.posted_comment"} {
			if a := b.get(path); a.Code != http.StatusForbidden {
				t.Errorf("%s of %s gets %s: %d", who.role, who.tenant, path, a.Code)
			}
		}
		for _, what := range []string{"define", "deprecate", "undo", "remove", "restore", "undefined", "other"} {
			form := url.Values{"what": {what}, "do": {"apply"}, "force": {"1"}, "type": {"user.posted_comment"}, "text": {ownType}, "allowed": {"true"}}
			if a := b.post("/event-types", form); a.Code != http.StatusForbidden {
				t.Errorf("%s of %s may %s: %d", who.role, who.tenant, what, a.Code)
			}
		}
		for _, path := range []string{"/catalog", "/catalog/types/user.posted_comment"} {
			if a := b.get(path); strings.Contains(a.Body.String(), "/event-types") {
				t.Errorf("%s of %s is offered a change on %s", who.role, who.tenant, path)
			}
		}
	}
	if now := w.stored(); now.Revision != 0 {
		t.Errorf("revision %d", now.Revision)
	}
}

// confirm posts the form that a page shows below "What would change".
func (b *browser) confirm(page string) *httptest.ResponseRecorder {
	b.w.t.Helper()
	_, part, found := strings.Cut(page, `id="h-plan"`)
	part, _, _ = strings.Cut(part, "</section>")
	form := url.Values{"do": {"apply"}}
	for _, field := range strings.Split(part, `<input type="hidden" name="`)[1:] {
		name, rest, _ := strings.Cut(field, `" value="`)
		value, _, _ := strings.Cut(rest, `"`)
		form.Set(name, html.UnescapeString(value))
	}
	if _, text, ok := strings.Cut(part, "<textarea name=\"text\" hidden>\n"); ok {
		text, _, _ = strings.Cut(text, "</textarea>")
		form.Set("text", strings.ReplaceAll(html.UnescapeString(text), "\n", "\r\n"))
	}
	if !found || !form.Has("what") {
		b.w.t.Fatalf("the page offers no change: %s", page)
	}
	return b.post("/event-types", form)
}

// The page checks definitions, shows what would change and the endpoints that this concerns,
// and applies what was shown, but not after another change.
func TestEventTypesAreChangedOnTheirPage(t *testing.T) {
	w := newWorld(t)
	b := w.login(console.Operator, "default")
	check := func(form url.Values, want int, says ...string) string {
		t.Helper()
		a := b.post("/event-types", form)
		text := html.UnescapeString(a.Body.String())
		if a.Code != want {
			t.Fatalf("%v: %d, want %d: %s", form, a.Code, want, text)
		}
		for _, s := range says {
			if !strings.Contains(text, s) {
				_, main, _ := strings.Cut(text, "<main")
				t.Errorf("%v does not say %q: %s", form, s, main)
			}
		}
		return a.Body.String()
	}
	define := func(text string) url.Values {
		return url.Values{"what": {"define"}, "do": {"check"}, "text": {strings.ReplaceAll(text, "\n", "\r\n")}}
	}
	applied := func(a *httptest.ResponseRecorder, location string) {
		t.Helper()
		if a.Code != http.StatusSeeOther || a.Header().Get("Location") != location {
			t.Fatalf("%d to %q, want %q: %s", a.Code, a.Header().Get("Location"), location, a.Body)
		}
	}
	if a := b.get("/catalog"); !strings.Contains(a.Body.String(), `href="/event-types"`) {
		t.Error("the catalog has no link")
	}

	// What is wrong is said with its place in the whole text, which stays in the form.
	sent := strings.ReplaceAll(ownType, "order.paid", "order.sent")
	for text, says := range map[string]string{
		"":                             "there is no definition",
		ownType + "\n{":                "line 4, column 2: this is not JSON: it ends within a definition",
		ownType + ",":                  "line 3, column 103: this is not JSON",
		"7":                            "line 1, column 1: the definition must be a JSON object",
		ownType + "\n" + ownType:       "event type order.paid is defined twice",
		"\n[" + ownType + ",\n\n{}\n]": "line 6, column 1: title ",
		ownType + " " + strings.Replace(sent, `{"title"`, `{"title":"x.y","title"`, 1):            "line 3, column 119: this is not JSON: duplicate object member name",
		ownType + " " + strings.Replace(sent, "object", "thing", 1):                               "order.sent: line 3, column 183: type must be",
		ownType + "\n\n" + strings.Replace(sent, `"number"`, `"numeral"`, 1):                      "order.sent: line 6, column 88: value must be one of",
		strings.Replace(ownType, `"o_1"`, "7", 1) + "\n" + strings.Replace(sent, `"o_1"`, "8", 1): "order.sent: line 6, column 67: example 1 does not conform",
	} {
		if page := check(define(text), http.StatusUnprocessableEntity, says); text != "" && !strings.Contains(html.UnescapeString(page), text+"</textarea>") {
			t.Errorf("%.20q is lost: %s", text, page)
		}
	}
	page := check(define(ownType+"\n"+sent), http.StatusOK, "add order.paid", "add order.sent")
	if w.stored().Revision != 0 {
		t.Fatal("a check changes something")
	}
	applied(b.confirm(page), "/event-types?did=typed")
	if now := w.stored(); len(now.Types) != 2 || string(now.Types[0].Schema) != ownType {
		t.Fatalf("stored %+v", now)
	}
	if a := b.confirm(page); a.Code != http.StatusConflict || !strings.Contains(a.Body.String(), "changed at the same time") {
		t.Errorf("applied twice: %d %s", a.Code, a.Body)
	}
	if page := check(define(ownType), http.StatusOK, "keep order.paid", "Nothing changes."); strings.Contains(page, `value="apply"`) {
		t.Error("a change that changes nothing is offered")
	}

	err := w.store.AddEndpoint(t.Context(), endpoint.Endpoint{
		Tenant: "acme", ID: endpoint.NewID(w.now()), URL: "https://acme.example/", EventTypes: []string{"order.*"}, Filter: json.RawMessage(`{"data":{"status":["late"]}}`), Status: endpoint.Enabled,
	})
	if err != nil {
		t.Fatal(err)
	}
	renamed := strings.Replace(ownType, `"late"`, `"overdue"`, 1)
	page = check(define(renamed), http.StatusOK, "change order.paid", `data.status can be "overdue" instead of "late"`, "breaks receivers", "acme", "its filter names data.status", "Apply nevertheless", "data-confirm")
	applied(b.confirm(page), "/event-types?did=typed&type=order.paid")
	if a := b.get("/event-types?did=typed&type=order.paid"); !strings.Contains(a.Body.String(), "Event types changed.") || !strings.Contains(a.Body.String(), "overdue") {
		t.Errorf("the page afterwards: %s", a.Body)
	}
	// Without the confirmation, it is refused, and shown again.
	form := define(ownType)
	form.Set("do", "apply")
	check(form, http.StatusConflict, "would break an endpoint", "Apply nevertheless")

	for _, step := range []struct {
		form  url.Values
		says  string
		found func() bool // stored afterwards
	}{
		{url.Values{"what": {"deprecate"}, "type": {"order.paid"}, "version": {"1"}, "since": {"2026-11-30"}, "instead": {"order.sent"}}, "change order.paid", func() bool {
			d := w.stored().Types[0].Deprecated
			return d != nil && d.Instead == "order.sent"
		}},
		{url.Values{"what": {"undo"}, "type": {"order.paid"}, "version": {"1"}}, "change order.paid", func() bool { return w.stored().Types[0].Deprecated == nil }},
		{url.Values{"what": {"remove"}, "type": {"order.paid"}}, "1 enabled endpoint subscribes to it", func() bool { return len(w.stored().Types) == 1 }},
		{url.Values{"what": {"remove"}, "type": {"user.joined_platform"}}, "remove user.joined_platform", func() bool { return slices.Contains(w.stored().Without, "user.joined_platform") }},
		{url.Values{"what": {"restore"}, "type": {"user.joined_platform"}}, "add user.joined_platform", func() bool { return len(w.stored().Without) == 0 }},
	} {
		page := check(step.form, http.StatusOK, step.says)
		if step.found() {
			t.Fatalf("a check of %v changes something", step.form)
		}
		if a := b.confirm(page); a.Code != http.StatusSeeOther || !step.found() {
			t.Errorf("%v: %d, stored %+v: %s", step.form, a.Code, w.stored(), a.Body)
		}
	}
	check(url.Values{"what": {"deprecate"}, "type": {"order.sent"}, "since": {"2026-11-30"}, "instead": {"order.gone"}}, http.StatusUnprocessableEntity, `"order.gone" is not an event type`)
	check(url.Values{"what": {"restore"}, "type": {"order.sent"}}, http.StatusNotFound, "does not come with Tidings")
	check(url.Values{"what": {"paint"}}, http.StatusUnprocessableEntity, "does not say what to change")
	if a := b.get("/event-types?type=order.gone"); a.Code != http.StatusNotFound {
		t.Errorf("a type that is none: %d", a.Code)
	}
	for _, allowed := range []string{"true", "false"} {
		applied(b.post("/event-types", url.Values{"what": {"undefined"}, "allowed": {allowed}}), "/event-types?did=typed")
		if open := w.stored().Open; open != (allowed == "true") {
			t.Errorf("allowed %s: %v", allowed, open)
		}
	}
}

// Files are added to the text, and stay in the form.
// faulty is a store of types and rules that answers some reads, and fails from then on.
type faulty struct {
	deployed.Store
	reads int
}

var errAway = errors.New("the table tidings-Control is unavailable")

func (f *faulty) ReadDocument(ctx context.Context, name string) ([]byte, int, error) {
	if f.reads--; f.reads < 0 {
		return nil, 0, errAway
	}
	return f.Store.ReadDocument(ctx, name)
}

func (f *faulty) WriteDocument(context.Context, string, []byte, int, string) (bool, error) {
	return false, errAway
}

// A fault of the store loses nothing of what was written: the form is shown again with it, and
// says nothing about the deployment's tables. The check succeeds with one read; the page then
// needs another.
func TestWhatWasWrittenOutlivesAFaultOfTheStore(t *testing.T) {
	for _, form := range []struct {
		path, do, text string
	}{
		{"/event-types", "check", ownType}, {"/event-types", "apply", ownType},
		{"/capture-rules", "check", ownRules}, {"/capture-rules", "apply", ownRules},
	} {
		for reads := range 3 {
			w := newWorld(t)
			store := &faulty{w.store, reads}
			w.ops.Types.Store, w.ops.Rules.Store = store, store
			a := w.login(console.Operator, "default").post(form.path, url.Values{"what": {"define"}, "do": {form.do}, "name": {"own"}, "text": {form.text}})
			page, fine := html.UnescapeString(a.Body.String()), form.do == "check" && reads == 2
			if (a.Code == http.StatusOK) != fine || !fine && (a.Code != http.StatusInternalServerError || !strings.Contains(page, "console.failed")) {
				t.Errorf("%s %s after %d reads: %d", form.do, form.path, reads, a.Code)
			}
			if !strings.Contains(page, form.text+"</textarea>") || strings.Contains(page, "tidings-Control") {
				t.Errorf("%s %s after %d reads shows %s", form.do, form.path, reads, page)
			}
		}
	}
}

func TestDefinitionsAreUploaded(t *testing.T) {
	w := newWorld(t)
	b := w.login(console.Operator, "default")
	upload := func(files ...string) *httptest.ResponseRecorder {
		var body bytes.Buffer
		m := multipart.NewWriter(&body)
		for name, value := range map[string]string{"csrf": b.csrf, "what": "define", "do": "check", "text": ""} {
			if err := m.WriteField(name, value); err != nil {
				t.Fatal(err)
			}
		}
		for _, text := range files {
			part, err := m.CreateFormFile("files", "order.json")
			if err == nil {
				_, err = part.Write([]byte(text))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest("POST", "/event-types", &body)
		r.Header.Set("Content-Type", m.FormDataContentType())
		return b.do(r)
	}
	a := upload(ownType+"\n", strings.ReplaceAll(ownType, "order.paid", "order.sent"))
	if a.Code != http.StatusOK || !strings.Contains(a.Body.String(), "add order.sent") || strings.Count(html.UnescapeString(a.Body.String()), `"title":"order.sent"`) != 2 {
		t.Errorf("two files: %d %s", a.Code, a.Body)
	}
	if a := b.confirm(a.Body.String()); a.Code != http.StatusSeeOther || len(w.stored().Types) != 2 {
		t.Errorf("applied: %d, %+v", a.Code, w.stored())
	}
	if a := upload(strings.Repeat(" ", 1<<20)); a.Code != http.StatusRequestEntityTooLarge || !strings.Contains(a.Body.String(), "more than 1048576 bytes") {
		t.Errorf("a large file: %d %.300s", a.Code, a.Body)
	}
}
