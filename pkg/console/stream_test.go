package console_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
)

// A job of the stream concerns all tenants: only who operates the whole deployment may start
// one, from a dry run in the console, or by the API.
func TestJobsOfTheStreamAreForOperatorsOfTheDefaultTenant(t *testing.T) {
	w := newWorld(t)
	began := w.now()
	for _, c := range []struct {
		role   console.Role
		tenant string
		want   int
	}{
		{console.Viewer, event.DefaultTenant, http.StatusForbidden},
		{console.Admin, event.DefaultTenant, http.StatusForbidden},
		{console.Admin, "t1", http.StatusForbidden},
		{console.Operator, "t1", http.StatusForbidden},
	} {
		b := w.login(c.role, c.tenant)
		if a := b.api("POST", "/api/jobs", `{"kind":"stream","from":"2026-01-01T00:00:00Z"}`); a.Code != c.want {
			t.Errorf("%s of %s: %d %s", c.role, c.tenant, a.Code, a.Body)
		}
		if a := b.post("/jobs/stream", url.Values{"since": {"24h"}}); a.Code != c.want {
			t.Errorf("%s of %s, the form: %d", c.role, c.tenant, a.Code)
		}
		if page := b.get("/jobs").Body.String(); strings.Contains(page, "Count lost events") {
			t.Errorf("%s of %s is offered the form", c.role, c.tenant)
		}
	}
	if len(w.commands) != 0 {
		t.Fatalf("dispatch was asked for %+v", w.commands)
	}
	b := w.login(console.Operator, event.DefaultTenant)
	if page := b.get("/jobs").Body.String(); !strings.Contains(page, "Count lost events") {
		t.Error("the operator is not offered the form")
	}
	for _, body := range []string{
		`{"kind":"stream"}`, `{"kind":"stream","from":"2026-01-01T00:00:00Z","endpoint_id":"ep_1"}`, `{"kind":"stream","from":"2026-01-01T00:00:00Z","states":["missing"]}`,
	} {
		if a := b.api("POST", "/api/jobs", body); a.Code != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", body, a.Code, a.Body)
		}
	}
	a := b.post("/jobs/stream", url.Values{"since": {"24h"}})
	if a.Code != http.StatusSeeOther {
		t.Fatalf("the form: %d %s", a.Code, a.Body)
	}
	at := a.Header().Get("Location")
	page := b.get(at).Body.String()
	if !strings.Contains(page, "all tenants and endpoints") || !strings.Contains(page, "Send 3") {
		t.Errorf("the page of the dry run: %s", page)
	}
	if a := b.post(at+"/send", nil); a.Code != http.StatusSeeOther {
		t.Fatalf("sent: %d %s", a.Code, a.Body)
	}
	if len(w.commands) != 2 {
		t.Fatalf("dispatch was asked for %+v", w.commands)
	}
	for i, dry := range []bool{true, false} {
		c := w.commands[i]
		if c.Kind != jobs.Stream || c.Tenant != event.DefaultTenant || c.DryRun != dry || c.EndpointID != "" || c.From.Before(began.Add(-25*time.Hour)) || c.From.After(w.now().Add(-24*time.Hour)) {
			t.Errorf("command %d: %+v", i, c)
		}
	}
	log, err := w.store.ListAudit(t.Context(), event.DefaultTenant, 10, "")
	if err != nil || len(log.Entries) == 0 || log.Entries[0].Action != "job.start" || !strings.HasPrefix(log.Entries[0].Detail, "stream, from ") {
		t.Errorf("the audit log: %+v, %v", log, err)
	}
	if a := b.api("POST", "/api/jobs", `{"kind":"stream","from":"2026-01-01T00:00:00Z"}`); a.Code != http.StatusConflict {
		t.Errorf("a second job at the same time: %d %s", a.Code, a.Body)
	}
}
