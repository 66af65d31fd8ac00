package console_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/platform"
)

// failedChange keeps a failed change and returns its ID.
func (w *world) failedChange(text string) string {
	w.t.Helper()
	record, err := json.Marshal(map[string]any{"dynamodb": map[string]any{"NewImage": map[string]any{"comment_text": map[string]string{"S": text}}}})
	if err != nil {
		w.t.Fatal(err)
	}
	f := platform.FailedChange{
		ID: event.NewID(w.now()), Tenant: "acme", Key: `{"pk":{"S":"DISCUSSION#d_1"}}`, Kind: "comment", Operation: platform.Insert, Reason: "comment_id: is missing",
		At: w.now(), FirstSeen: w.now(), LastTried: w.now(), Attempts: 1, Record: record, RecordBytes: len(record),
	}
	if _, err := w.store.KeepFailedChange(w.t.Context(), f); err != nil {
		w.t.Fatal(err)
	}
	return f.ID
}

// emit captures a failed change again like the function, unless it still fails.
func (w *world) emit(ctx context.Context, payload, answer any) error {
	text, err := json.Marshal(payload)
	if err != nil {
		return err
	}
	var command struct {
		Action string
		IDs    []string
	}
	if err := json.Unmarshal(text, &command); err != nil || command.Action != "recapture" || len(command.IDs) != 1 {
		return fmt.Errorf("emit was asked %s", text)
	}
	if w.stillFails {
		return json.Unmarshal([]byte(`{"results":[{"captured":false,"events":0,"error":"comment_id: is still missing"}]}`), answer)
	}
	if err := w.store.RemoveFailedChange(ctx, command.IDs[0]); err != nil {
		return err
	}
	return json.Unmarshal([]byte(`{"results":[{"captured":true,"events":1}]}`), answer)
}

// Failed changes contain data of every tenant: neither a tenant's viewer nor its admin
// sees them.
func TestOnlyOperatorsSeeFailedChanges(t *testing.T) {
	w := newWorld(t)
	id := w.failedChange("private")
	for _, role := range []console.Role{console.Viewer, console.Admin} {
		b := w.login(role, "acme")
		for _, path := range []string{"/capture", "/capture/" + id, "/api/failed-changes", "/api/failed-changes/" + id} {
			if a := b.get(path); a.Code != http.StatusForbidden || strings.Contains(a.Body.String(), "private") || strings.Contains(a.Body.String(), "comment_id") {
				t.Errorf("%s gets %s: %d %s", role, path, a.Code, a.Body)
			}
		}
		if a := b.post("/capture/"+id+"/redrive", nil); a.Code != http.StatusForbidden {
			t.Errorf("%s captures again: %d", role, a.Code)
		}
		if strings.Contains(b.get("/").Body.String(), `href="/capture"`) {
			t.Errorf("%s sees the link to the page", role)
		}
	}
	if err := w.store.AddStatistics(t.Context(), stats.Batch{ID: "1", At: w.now(), UnknownKinds: map[string]int64{"User": 7}}); err != nil {
		t.Fatal(err)
	}
	b := w.login(console.Operator, "default")
	if a := b.get("/capture"); !strings.Contains(a.Body.String(), "<code>User</code>") {
		t.Errorf("the page does not list the unknown kind: %s", a.Body)
	}
	for path, want := range map[string]string{"/": `href="/capture"`, "/capture": "comment_id: is missing", "/capture/" + id: "private", "/api/failed-changes/" + id: "private"} {
		if a := b.get(path); a.Code != http.StatusOK || !strings.Contains(a.Body.String(), want) {
			t.Errorf("the operator gets %s: %d %s", path, a.Code, a.Body)
		}
	}
	if strings.Contains(b.get("/api/failed-changes").Body.String(), "private") {
		t.Error("the list has the records")
	}
}

func TestCapturingAgainIsAudited(t *testing.T) {
	w := newWorld(t)
	id := w.failedChange("<script>alert(1)</script>")
	b := w.login(console.Operator, "default")
	if body := b.get("/capture/" + id).Body.String(); strings.Contains(body, "<script>alert") || !strings.Contains(body, "data-confirm") {
		t.Errorf("the page: %s", body)
	}
	w.stillFails = true
	if a := b.post("/capture/"+id+"/redrive", nil); a.Code != http.StatusConflict || !strings.Contains(a.Body.String(), "comment_id: is still missing") {
		t.Errorf("a change that still fails: %d %s", a.Code, a.Body)
	}
	w.pass(time.Second)
	w.stillFails = false
	if a := b.post("/capture/"+id+"/redrive", nil); a.Code != http.StatusSeeOther {
		t.Fatalf("capture again: %d %s", a.Code, a.Body)
	}
	if a := b.get("/capture?did=captured"); !strings.Contains(a.Body.String(), "Captured again.") || !strings.Contains(a.Body.String(), "No failed changes") {
		t.Errorf("the list afterwards: %s", a.Body)
	}
	log, err := w.store.ListAudit(t.Context(), "default", 0, "")
	if err != nil || len(log.Entries) != 2 {
		t.Fatalf("%+v, %v", log, err)
	}
	for i, outcome := range []string{"done", "failed"} {
		if e := log.Entries[i]; e.Action != "capture.redrive" || e.Subject != id || string(e.Outcome) != outcome {
			t.Errorf("entry %d: %+v, want %s", i, e, outcome)
		}
	}
}
