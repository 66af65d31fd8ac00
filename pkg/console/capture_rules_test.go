package console_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/event/deployed"
)

const ownRules = `rules:
  - event: user.posted_comment
    when: change == "insert" && new.kind == "note"
    data:
      comment_id: id(new.id)
`

// Capture rules are those of all tenants: no tenant's session sees or changes them.
func TestOnlyOperatorsOfAllTenantsChangeCaptureRules(t *testing.T) {
	w := newWorld(t)
	set, err := deployed.Write(t.Context(), w.store, deployed.Set{Rules: deployed.Rules{Files: []deployed.RuleFile{{Name: "secret", Text: ownRules}}}}, "op", "w", w.now())
	if err != nil {
		t.Fatal(err)
	}
	for _, who := range []struct {
		role   console.Role
		tenant string
	}{{console.Viewer, "default"}, {console.Admin, "default"}, {console.Operator, "acme"}} {
		b := w.login(who.role, who.tenant)
		for _, path := range []string{"/capture-rules", "/capture-rules?file=secret", "/api/capture-rules"} {
			if a := b.get(path); a.Code != http.StatusForbidden || strings.Contains(a.Body.String(), "secret") {
				t.Errorf("%s of %s gets %s: %d %s", who.role, who.tenant, path, a.Code, a.Body)
			}
		}
		for _, do := range []string{"check", "apply", "remove", "on"} {
			if a := b.post("/capture-rules", url.Values{"do": {do}, "name": {"secret"}, "text": {ownRules}}); a.Code != http.StatusForbidden {
				t.Errorf("%s of %s may %s: %d", who.role, who.tenant, do, a.Code)
			}
		}
		if a := b.api("POST", "/api/capture-rules", `{"remove":["secret"]}`); a.Code != http.StatusForbidden {
			t.Errorf("%s of %s removes rules: %d", who.role, who.tenant, a.Code)
		}
	}
	if now, err := deployed.Read(t.Context(), w.store, -1); err != nil || now.Revision != set.Revision {
		t.Errorf("revision %d, %v", now.Revision, err)
	}
}

// The page checks a file, shows what would change, applies and removes it.
func TestCaptureRulesAreChangedOnTheirPage(t *testing.T) {
	w := newWorld(t)
	b := w.login(console.Operator, "default")
	form := func(do, name, text string) url.Values {
		return url.Values{"do": {do}, "name": {name}, "text": {strings.ReplaceAll(text, "\n", "\r\n")}} // as browsers send it
	}
	stored := func() deployed.Rules {
		t.Helper()
		set, err := deployed.Read(t.Context(), w.store, -1)
		if err != nil {
			t.Fatal(err)
		}
		return set.Rules
	}
	if a := b.get("/capture"); !strings.Contains(a.Body.String(), `href="/capture-rules"`) {
		t.Error("the page of capture has no link")
	}
	wrong := strings.Replace(ownRules, "new.kind", "news.kind", 1)
	if a := b.post("/capture-rules", form("apply", "own", wrong)); a.Code != http.StatusUnprocessableEntity || !strings.Contains(a.Body.String(), "own:3:") || !strings.Contains(a.Body.String(), "news.kind") {
		t.Errorf("wrong rules: %d %s", a.Code, a.Body)
	}
	if a := b.post("/capture-rules", form("check", "own", ownRules)); a.Code != http.StatusOK || !strings.Contains(a.Body.String(), "<strong>add</strong> own: user.posted_comment") || len(stored().Files) != 0 {
		t.Errorf("check: %d %s", a.Code, a.Body)
	}
	if a := b.post("/capture-rules", form("apply", "own", ownRules)); a.Code != http.StatusSeeOther || a.Header().Get("Location") != "/capture-rules?did=ruled&file=own" {
		t.Fatalf("apply: %d %s", a.Code, a.Body)
	}
	if files := stored().Files; len(files) != 1 || files[0].Text != ownRules {
		t.Errorf("stored %+v", files)
	}
	if a := b.get("/capture-rules?did=ruled&file=own"); !strings.Contains(a.Body.String(), "They take effect within a minute.") || !strings.Contains(a.Body.String(), "new.kind == &#34;note&#34;") {
		t.Errorf("the page afterwards: %s", a.Body)
	}
	if a := b.post("/capture-rules", form("check", "own", strings.Replace(ownRules, "note", "memo", 1))); !strings.Contains(a.Body.String(), "-    when: change == &#34;insert&#34; &amp;&amp; new.kind == &#34;note&#34;") {
		t.Errorf("the difference: %s", a.Body)
	}
	if a := b.get("/capture-rules?file=none"); a.Code != http.StatusNotFound {
		t.Errorf("a file that is none: %d", a.Code)
	}
	for _, step := range []struct {
		do, name string
		files    int
		off      bool
	}{{"remove", "shipped", 1, true}, {"on", "shipped", 1, false}, {"remove", "own", 0, false}} {
		if a := b.post("/capture-rules", form(step.do, step.name, "")); a.Code != http.StatusSeeOther {
			t.Errorf("%+v: %d %s", step, a.Code, a.Body)
		}
		if now := stored(); len(now.Files) != step.files || now.WithoutShipped != step.off {
			t.Errorf("after %+v: %+v", step, now)
		}
	}
	log, err := w.store.ListAudit(t.Context(), "default", 0, "")
	if err != nil || len(log.Entries) != 4 || log.Entries[0].Action != "capture_rules.change" || log.Entries[0].Detail != "own" {
		t.Errorf("audit log %+v, %v", log.Entries, err)
	}
}
