package console_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
)

// startJob stores a job that runs.
func (w *world) startJob(tenant, endpointID string) jobs.Job {
	w.t.Helper()
	now := w.now()
	j, err := jobs.New(jobs.Job{
		ID: jobs.NewID(now), Tenant: tenant, Kind: jobs.Recover, EndpointID: endpointID, Parameters: jobs.Parameters{From: now.Add(-time.Hour), To: now},
	}, now)
	if err == nil {
		j, err = w.store.PutJob(w.t.Context(), j)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return j
}

// The form starts a dry run. From its page, what was counted is sent: the same range,
// although time has passed.
func TestARecoveryIsCountedBeforeItIsSent(t *testing.T) {
	w := newWorld(t)
	e := w.endpoint("t1", "https://example.com/hook")
	b := w.login(console.Admin, "t1")
	began := w.now()
	counting := b.post("/endpoints/"+e.ID+"/recover", url.Values{"since": {"24h"}, "state": {"missing", "dead"}})
	dry := counting.Header().Get("Location")
	if counting.Code != http.StatusSeeOther || !strings.HasPrefix(dry, "/jobs/job_") {
		t.Fatalf("%d to %q, want the page of a job: %s", counting.Code, dry, counting.Body)
	}
	page := b.get(dry).Body.String()
	if !strings.Contains(page, "Send 3") || !strings.Contains(page, "Dry run of a recover") {
		t.Fatalf("the page of the dry run: %s", page)
	}
	w.pass(10 * time.Minute)
	sent := b.post(dry+"/send", url.Values{})
	running := sent.Header().Get("Location")
	if page := b.get(running).Body.String(); sent.Code != http.StatusSeeOther || !strings.Contains(page, "0 % done") || !strings.Contains(page, "Cancel") {
		t.Fatalf("%d, the page of the job: %s", sent.Code, page)
	}
	first := dispatch.Command{
		Action: "start_job", Kind: jobs.Recover, Tenant: "t1", EndpointID: e.ID, By: "ada", DryRun: true,
		From: began.Add(-24 * time.Hour), To: began, States: []delivery.State{dispatch.Missing, delivery.Dead},
	}
	second := first
	second.DryRun = false
	ids := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".JobID" }, cmp.Ignore())
	if diff := cmp.Diff([]dispatch.Command{first, second}, w.commands, ids); diff != "" {
		t.Errorf("commands (-want +got):\n%s", diff)
	}
	if a := b.post(running+"/send", url.Values{}); a.Code != http.StatusConflict {
		t.Errorf("what was not counted is sent: %d", a.Code)
	}
	if a := b.post(running+"/cancel", url.Values{}); a.Code != http.StatusSeeOther {
		t.Errorf("cancel: %d %s", a.Code, a.Body)
	}
	if list := b.get("/jobs").Body.String(); !strings.Contains(list, "cancelled by ada") || !strings.Contains(list, "recover, dry run") {
		t.Errorf("the list: %s", list)
	}
}

// What the filter of the deliveries' page selects is counted by a dry run.
func TestAllThatMatchAreReplayedByAJob(t *testing.T) {
	w := newWorld(t)
	e := w.endpoint("t1", "https://example.com/hook")
	b := w.login(console.Admin, "t1")
	if list := b.get("/deliveries?endpoint=" + e.ID + "&state=dead&status=500..599").Body.String(); !strings.Contains(list, "Replay all that match") {
		t.Fatalf("the list has no button: %s", list)
	}
	for _, c := range []struct {
		form   url.Values
		status int
		want   dispatch.Command // of the job
	}{
		{url.Values{"endpoint": {e.ID}, "state": {"dead"}, "status": {"500..599"}, "type": {"user.posted_comment"}, "from": {"2026-01-29T12:00"}}, http.StatusSeeOther, dispatch.Command{
			States: []delivery.State{delivery.Dead}, Status: "500..599", Types: []string{"user.posted_comment"}, From: time.Date(2026, 1, 29, 12, 0, 0, 0, time.UTC),
		}},
		{url.Values{"endpoint": {e.ID}}, http.StatusSeeOther, dispatch.Command{States: dispatch.ReplayStates}},
		{url.Values{"endpoint": {e.ID}, "state": {"pending"}}, http.StatusUnprocessableEntity, dispatch.Command{}},
		{url.Values{"endpoint": {e.ID}, "status": {"many"}}, http.StatusUnprocessableEntity, dispatch.Command{}},
		{url.Values{"state": {"dead"}}, http.StatusUnprocessableEntity, dispatch.Command{}},
	} {
		w.commands = nil
		if a := b.post("/deliveries/replay-matching", c.form); a.Code != c.status {
			t.Errorf("%v: %d, want %d: %s", c.form, a.Code, c.status, a.Body)
		}
		if c.status != http.StatusSeeOther {
			if len(w.commands) > 0 {
				t.Errorf("%v: dispatch is asked for %+v", c.form, w.commands)
			}
			continue
		}
		c.want.Action, c.want.Kind, c.want.Tenant, c.want.EndpointID, c.want.By, c.want.DryRun = "start_job", jobs.Replay, "t1", e.ID, "ada", true
		c.want.JobID = w.commands[0].JobID
		if diff := cmp.Diff([]dispatch.Command{c.want}, w.commands); diff != "" {
			t.Errorf("%v (-want +got):\n%s", c.form, diff)
		}
	}
	for _, want := range []string{
		"replay of " + e.ID + ", from 2026-01-29T12:00:00Z, types [user.posted_comment], states [dead], status 500..599, dry run\"",
		"replay of " + e.ID + ", states [dead skipped delivered], dry run\"",
	} {
		if log := b.get("/api/audit").Body.String(); !strings.Contains(log, want) {
			t.Errorf("the audit log has no %s: %s", want, log)
		}
	}
}

// Each reading costs a request, so a page that cannot change is read once.
func TestTheListOfJobsIsReadAgainWhileOneRuns(t *testing.T) {
	w := newWorld(t)
	e := w.endpoint("t1", "https://example.com/hook")
	b := w.login(console.Viewer, "t1")
	for _, running := range []bool{false, true} {
		if running {
			w.startJob("t1", e.ID)
		}
		if list := b.get("/jobs").Body.String(); strings.Contains(list, `hx-get="/jobs"`) != running {
			t.Errorf("with a running job: %t: %s", running, list)
		}
	}
}

func TestANewEndpointCanHaveThePast(t *testing.T) {
	w := newWorld(t)
	b := w.login(console.Admin, "t1")
	began := w.now()
	var added console.WithSecret
	if err := json.Unmarshal(b.api("POST", "/api/endpoints", `{"url":"https://example.com/hook","backfill":"14d"}`).Body.Bytes(), &added); err != nil {
		t.Fatal(err)
	}
	if j := added.Backfill; j == nil || added.Secret == "" || j.Kind != jobs.Backfill || j.EndpointID != added.ID || !j.From.Equal(began.Add(-14*24*time.Hour)) {
		t.Errorf("added: %+v", added)
	}
	page := b.post("/endpoints/new", url.Values{"url": {"https://example.com/other"}, "event_types": {"*"}, "backfill": {"7d"}}).Body.String()
	if !strings.Contains(page, "Past events are being sent") || !strings.Contains(page, "shown only once") {
		t.Errorf("the page of the new endpoint: %s", page)
	}
	if a := b.api("POST", "/api/endpoints", `{"url":"https://example.com/third","backfill":"soon"}`); a.Code != http.StatusUnprocessableEntity {
		t.Errorf("an odd span: %d %s", a.Code, a.Body)
	}
	// If the job cannot be started, the secret is shown all the same.
	for range jobs.MaxRunning {
		w.startJob("t1", added.ID)
	}
	if err := json.Unmarshal(b.api("POST", "/api/endpoints", `{"url":"https://example.com/late","backfill":"14d"}`).Body.Bytes(), &added); err != nil || added.Secret == "" || !strings.Contains(added.BackfillError, "jobs are running") {
		t.Errorf("too many jobs: %+v, %v", added, err)
	}
}

func TestJobsAreForAdminsAndEnabledEndpoints(t *testing.T) {
	w := newWorld(t)
	e, off := w.endpoint("t1", "https://example.com/hook"), w.endpoint("t1", "https://example.com/off")
	if err := w.store.DisableEndpoint(t.Context(), "t1", off.ID, "gone", w.now()); err != nil {
		t.Fatal(err)
	}
	running := w.startJob("t1", e.ID)
	viewer, admin := w.login(console.Viewer, "t1"), w.login(console.Admin, "t1")
	const rest = `,"from":"2026-01-01T00:00:00Z"}`
	for _, c := range []struct {
		name     string
		by       *browser
		endpoint endpoint.Endpoint
		rest     string
		want     int
	}{
		{"a viewer", viewer, e, rest, http.StatusForbidden},
		{"a viewer's dry run", viewer, e, `,"from":"2026-01-01T00:00:00Z","dry_run":true}`, http.StatusForbidden},
		{"an admin", admin, e, rest, http.StatusOK},
		{"a disabled endpoint", admin, off, rest, http.StatusConflict},
		{"no time", admin, e, `}`, http.StatusUnprocessableEntity},
		{"what is no type", admin, e, `,"types":["Exploded"]` + rest, http.StatusUnprocessableEntity},
	} {
		if got := c.by.api("POST", "/api/jobs", `{"kind":"recover","endpoint_id":"`+c.endpoint.ID+`"`+c.rest); got.Code != c.want {
			t.Errorf("%s: %d, want %d: %s", c.name, got.Code, c.want, got.Body)
		}
	}
	if len(w.commands) != 1 {
		t.Errorf("%d commands reached dispatch, want 1", len(w.commands))
	}
	if got := viewer.api("POST", "/api/jobs/"+running.ID+"/cancel", ""); got.Code != http.StatusForbidden {
		t.Errorf("a viewer cancels: %d", got.Code)
	}
	if got := w.login(console.Admin, "t2").api("POST", "/api/jobs/"+running.ID+"/cancel", ""); got.Code != http.StatusNotFound {
		t.Errorf("another tenant cancels: %d", got.Code)
	}
	var list console.JobPage
	if err := json.Unmarshal(viewer.get("/api/jobs").Body.Bytes(), &list); err != nil || len(list.Jobs) != 2 {
		t.Errorf("a viewer's list: %v, %v; want 2 jobs", list, err)
	}
	if err := json.Unmarshal(w.login(console.Viewer, "t2").get("/api/jobs").Body.Bytes(), &list); err != nil || len(list.Jobs) != 0 {
		t.Errorf("another tenant's list: %v, %v; want none", list, err)
	}
	for range jobs.MaxRunning {
		w.startJob("t1", e.ID)
	}
	if got := admin.api("POST", "/api/jobs", `{"kind":"replay","endpoint_id":"`+e.ID+`"}`); got.Code != http.StatusConflict {
		t.Errorf("too many: %d, want 409: %s", got.Code, got.Body)
	}
}
