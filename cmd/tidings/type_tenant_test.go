package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A tenant has a type of its own, which its endpoint filters and gets, and which does not
// exist for another tenant.
func TestEventTypesOfATenant(t *testing.T) {
	t.Parallel()
	x := newTool(t)
	received := make(chan string, 8)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // an incomplete body is reported below
		received <- r.URL.Path + " " + string(body)
	}))
	t.Cleanup(receiver.Close)
	file := filepath.Join(t.TempDir(), "parcel.lost.json")
	write := func(name string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(strings.Replace(orderPaid, "order.paid", name, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("user.posted_comment")
	if _, complaint := x.do(1, "", "type", "apply", file, "--tenant", "acme"); !strings.Contains(complaint, "user.posted_comment is an event type of the deployment") {
		t.Errorf("a type of the deployment: %s", complaint)
	}
	write("parcel.lost")
	if out, _ := x.do(0, "", "type", "diff", file, "--tenant", "acme"); !strings.Contains(out, "add     parcel.lost\nnothing was changed yet\n") {
		t.Errorf("diff:\n%s", out)
	}
	x.do(1, "", "endpoint", "add", receiver.URL, "--types", "parcel.*", "--tenant", "acme") // nothing has such a type yet
	var plan struct {
		Tenant  string `json:"tenant"`
		Applied bool   `json:"applied"`
	}
	if x.json(&plan, "type", "apply", file, "--tenant", "acme"); plan.Tenant != "acme" || !plan.Applied {
		t.Errorf("apply: %+v", plan)
	}
	var tenants []string
	if x.json(&tenants, "type", "tenants"); !slices.Equal(tenants, []string{"acme"}) {
		t.Errorf("tenants with types of their own: %q", tenants)
	}
	if _, complaint := x.do(1, "", "type", "apply", file); !strings.Contains(complaint, "acme (parcel.lost)") {
		t.Errorf("for the deployment: %s", complaint)
	}
	var names []string
	x.json(&names, "type", "list")
	if slices.Contains(names, "parcel.lost") || len(names) != 9 {
		t.Errorf("the deployment has %q", names)
	}
	x.json(&names, "type", "list", "--tenant", "globex")
	if len(names) != 9 {
		t.Errorf("another tenant has %q", names)
	}
	if out, _ := x.do(0, "", "type", "list", "--tenant", "acme"); strings.Count(out, "deployment") != 9 || strings.Count(out, " own ") != 1 {
		t.Errorf("list:\n%s", out)
	}
	if out, _ := x.do(0, "", "type", "show", "parcel.lost", "--tenant", "acme"); !json.Valid([]byte(out)) {
		t.Errorf("show:\n%s", out)
	}
	x.do(2, "", "type", "show", "parcel.lost")
	x.do(2, "", "type", "show", "parcel.lost", "--tenant", "globex")
	x.do(0, `{"order_id":"o_1"}`, "type", "test", "parcel.lost", "--tenant", "acme")
	x.do(2, "", "type", "list", "--tenant", "acme", "--shipped")
	x.do(2, "", "type", "list", "--tenant", "a b")
	x.do(2, "", "type", "apply", file, "--tenant", "")
	x.do(2, "", "type", "undefined", "allow", "--tenant", "acme")

	x.do(1, "", "endpoint", "add", receiver.URL, "--types", "parcel.*") // of the default tenant
	x.do(0, "", "endpoint", "add", receiver.URL+"/acme", "--types", "parcel.*", "--filter", `{"data":{"status":["paid"]}}`, "--tenant", "acme")
	x.do(0, "", "endpoint", "add", receiver.URL+"/globex", "--tenant", "globex") // all types
	emit := func(tenant string, code int, data string) (complaint string) {
		t.Helper()
		// The runner reads the types again after a moment.
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			out, got := x.try("emit", "parcel.lost", "--data", data, "--tenant", tenant)
			if got == code {
				return out
			}
			if time.Now().After(end) {
				t.Fatalf("exit code %d, want %d: %s", got, code, out)
			}
		}
	}
	emit("acme", 0, `{"order_id":"o_76","status":"late"}`)
	emit("acme", 0, `{"order_id":"o_77","status":"paid"}`)
	select {
	case body := <-received:
		if !strings.HasPrefix(body, "/acme ") || !strings.Contains(body, `"event":"parcel.lost"`) || !strings.Contains(body, `"order_id":"o_77"`) {
			t.Errorf("received %s", body)
		}
	case <-time.After(time.Minute):
		t.Fatal("no webhook")
	}
	if complaint := emit("globex", 1, `{"order_id":"o_78","status":"paid"}`); !strings.Contains(complaint, `"parcel.lost" is not an event type`) {
		t.Errorf("another tenant's event: %s", complaint)
	}
	x.do(0, "", "type", "deprecate", "parcel.lost", "--instead", "user.joined_platform", "--tenant", "acme")
	if out, _ := x.do(1, "", "type", "remove", "parcel.lost", "--tenant", "acme", "--yes"); !strings.Contains(out, "1 enabled endpoint subscribes to it") {
		t.Errorf("remove:\n%s", out)
	}
	x.do(0, "", "type", "remove", "parcel.lost", "--tenant", "acme", "--yes", "--force")
	if complaint := emit("acme", 1, `{"order_id":"o_79","status":"paid"}`); !strings.Contains(complaint, "is not an event type") {
		t.Errorf("a removed type: %s", complaint)
	}
	x.do(0, "", "type", "apply", file) // free for the deployment
}
