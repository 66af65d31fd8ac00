package console_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/ops/audit"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
)

// The form starts a dry run. From its page, the erasure itself is started; the audit log has
// both, with what the operator wrote.
func TestAnErasureIsCountedBeforeItIsDone(t *testing.T) {
	w := newWorld(t)
	viewer, b, operator := w.login(console.Viewer, "t1"), w.login(console.Admin, "t1"), w.login(console.Operator, "t1")
	form := func() url.Values { return url.Values{"subject": {" u_1042 "}} }
	if strings.Contains(viewer.get("/events").Body.String(), "Erase") || !strings.Contains(b.get("/events").Body.String(), "Erase") {
		t.Error("the form is for admins")
	}
	if a := viewer.post("/erasures", form()); a.Code != http.StatusForbidden || len(w.commands) != 0 {
		t.Errorf("a viewer: %d, %v", a.Code, w.commands)
	}
	if a := b.post("/erasures", url.Values{"subject": {" u "}}); a.Code != http.StatusUnprocessableEntity || len(w.commands) != 0 {
		t.Errorf("a letter: %d, %v", a.Code, w.commands)
	}
	counting := b.post("/erasures", form())
	dry := counting.Header().Get("Location")
	if counting.Code != http.StatusSeeOther {
		t.Fatalf("%d: %s", counting.Code, counting.Body)
	}
	if page := b.get(dry).Body.String(); !strings.Contains(page, "Dry run of an erase") || !strings.Contains(page, "cannot be undone") || strings.Contains(page, "/endpoints/\"") {
		t.Fatalf("the page of the dry run: %s", page)
	}
	if a := b.post(dry+"/send", url.Values{}); a.Code != http.StatusSeeOther {
		t.Fatalf("%d: %s", a.Code, a.Body)
	}
	if len(w.commands) != 2 {
		t.Fatalf("commands: %+v", w.commands)
	}
	for i, c := range w.commands {
		want := dispatch.Command{Action: "start_job", Kind: jobs.Erase, JobID: c.JobID, Tenant: "t1", Subject: "u_1042", By: "ada", DryRun: i == 0}
		if c.Subject != want.Subject || c.Kind != want.Kind || c.Tenant != want.Tenant || c.By != want.By || c.DryRun != want.DryRun || c.EndpointID != "" || c.WithoutTenant {
			t.Errorf("%+v, want %+v", c, want)
		}
	}
	log, err := w.store.ListAudit(t.Context(), "t1", 10, "")
	if err != nil || len(log.Entries) != 2 {
		t.Fatalf("%+v, %v", log, err)
	}
	for _, e := range log.Entries {
		if e.Action != "person.erase" || e.Subject != "u_1042" || e.Outcome != audit.Done || !strings.HasPrefix(e.Detail, "job job_") {
			t.Errorf("%+v", e)
		}
	}
	// Failed changes that have no tenant can be any tenant's.
	if a := operator.post("/erasures", form()); a.Code != http.StatusSeeOther || !w.commands[len(w.commands)-1].WithoutTenant {
		t.Errorf("an operator: %d, %+v", a.Code, w.commands)
	}
}

func TestAnErasedEventSaysSo(t *testing.T) {
	w, e, id := seeded(t)
	b := w.login(console.Admin, "default")
	held, err := w.store.GetEvent(t.Context(), id)
	if err == nil {
		err = w.store.EraseEvent(t.Context(), held, event.Erasure{ID: id, By: "job_1", Now: w.now()})
	}
	if err != nil {
		t.Fatal(err)
	}
	if page := b.get("/events/" + id).Body.String(); !strings.Contains(page, "<dt>Erased</dt>") || strings.Contains(page, "u_1<") {
		t.Errorf("the page: %s", page)
	}
	if a := b.get("/api/events/" + id); !strings.Contains(a.Body.String(), `"erased_at":`) {
		t.Errorf("the API: %s", a.Body)
	}
	if a := b.get("/api/deliveries/" + e.ID + "/" + id + "/request"); a.Code != http.StatusConflict || !strings.Contains(a.Body.String(), "was erased at") {
		t.Errorf("the request: %d %s", a.Code, a.Body)
	}
}
