package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/admin/eventtypes"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
)

const orderPaid = `{
  "title": "order.paid",
  "description": "An order was paid",
  "x-subject": "order_id",
  "type": "object",
  "properties": {
    "order_id": {"type": "string"},
    "status": {"enum": ["paid", "late"]}
  },
  "required": ["order_id"],
  "additionalProperties": false,
  "examples": [{"order_id": "o_1", "status": "paid"}]
}
`

// A type is added, published, changed and removed while the deployment runs.
func TestEventTypesAtRunTime(t *testing.T) {
	t.Parallel()
	x := newTool(t)
	received := make(chan string, 8)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // an incomplete body is reported below
		received <- string(body)
	}))
	t.Cleanup(receiver.Close)
	dir := t.TempDir()
	file := filepath.Join(dir, "order.paid.json")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(orderPaid)
	shipped := strings.Replace(orderPaid, "order.paid", "order.shipped", 1)
	if err := os.WriteFile(filepath.Join(dir, "order.shipped.json"), []byte(shipped), 0o600); err != nil {
		t.Fatal(err)
	}

	if out, _ := x.do(0, "", "type", "diff", dir); !strings.Contains(out, "add     order.paid\nadd     order.shipped\nnothing was changed yet\n") {
		t.Errorf("diff:\n%s", out)
	}
	x.do(1, "", "endpoint", "add", receiver.URL, "--types", "order.*") // nothing has such a type yet
	if out, _ := x.do(0, "", "type", "apply", dir); !strings.Contains(out, "stored; in effect within a minute") {
		t.Errorf("apply:\n%s", out)
	}
	if out, _ := x.do(0, "", "type", "apply", dir); out != "keep    order.paid\nkeep    order.shipped\n" {
		t.Errorf("a second apply:\n%s", out)
	}
	if out, _ := x.do(0, "", "type", "list"); strings.Count(out, "\n") != 12 || !strings.Contains(out, "order.paid") {
		t.Errorf("list:\n%s", out)
	}
	if out, _ := x.do(0, "", "type", "list", "--shipped"); strings.Count(out, "\n") != 10 {
		t.Errorf("list of the shipped types:\n%s", out)
	}
	if out, _ := x.do(0, "", "type", "show", "order.paid"); strings.TrimSpace(out) != strings.TrimSpace(orderPaid) {
		t.Errorf("show:\n%s", out)
	}
	if out, _ := x.do(0, "", "type", "show", "user.joined_community"); !json.Valid([]byte(out)) {
		t.Errorf("schema:\n%s", out)
	}
	x.do(0, `{"order_id":"o_1"}`, "type", "test", "order.paid")
	if _, complaint := x.do(1, `{"order_id":7}`, "type", "test", "order.paid", "-"); !strings.Contains(complaint, "data.order_id: must be string") {
		t.Errorf("test: %s", complaint)
	}

	x.do(0, "", "endpoint", "add", receiver.URL, "--types", "order.*", "--filter", `{"data":{"status":["paid"]}}`)
	emit := func(code int, data string) (complaint string) {
		t.Helper()
		// The runner reads the types again after a moment.
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			out, err := x.try("emit", "order.paid", "--data", data)
			if err == code || time.Now().After(end) {
				if err != code {
					t.Fatalf("emit %s: exit code %d, want %d: %s", data, err, code, out)
				}
				return out
			}
		}
	}
	emit(0, `{"order_id":"o_77","status":"paid"}`)
	select {
	case body := <-received:
		if !strings.Contains(body, `"event":"order.paid"`) || !strings.Contains(body, `"order_id":"o_77"`) {
			t.Errorf("received %s", body)
		}
	case <-time.After(time.Minute):
		t.Fatal("no webhook")
	}

	write(strings.Replace(orderPaid, `"late"`, `"overdue"`, 1))
	out, complaint := x.do(1, "", "type", "apply", dir)
	if !strings.Contains(out, `! data.status can be "overdue" instead of "late"`) || !strings.Contains(out, "its filter names data.status") || !strings.Contains(complaint, "refused: nothing was changed") {
		t.Errorf("a breaking change:\n%s%s", out, complaint)
	}
	var plan struct {
		Types   []eventtypes.Item `json:"types"`
		Applied bool              `json:"applied"`
	}
	x.json(&plan, "type", "apply", dir, "--force")
	if !plan.Applied || len(plan.Types) != 2 || plan.Types[0].Action != eventtypes.Change || len(plan.Types[0].Endpoints) != 1 {
		t.Errorf("plan %+v", plan)
	}
	emit(0, `{"order_id":"o_78","status":"overdue"}`)

	if _, complaint := x.do(1, "", "type", "deprecate", "order.paid", "--instead", "order.settled"); !strings.Contains(complaint, "order.paid is deprecated in favour of order.settled") {
		t.Errorf("deprecated in favour of nothing: %s", complaint)
	}
	x.do(2, "", "type", "deprecate", "order.paid", "--since", "yesterday")
	if out, _ := x.do(0, "", "type", "deprecate", "order.paid", "--instead", "user.joined_platform", "--since", "2026-11-30"); !strings.Contains(out, "stored; in effect") {
		t.Errorf("deprecate:\n%s", out)
	}
	if out, _ := x.do(0, "", "type", "list"); !strings.Contains(out, "Deprecated since 2026-11-30: use user.joined_platform. ") {
		t.Errorf("list:\n%s", out)
	}
	emit(0, `{"order_id":"o_80","status":"overdue"}`) // as before
	x.do(0, "", "type", "deprecate", "order.paid", "--undo")
	if out, _ := x.do(0, "", "type", "list"); strings.Contains(out, "Deprecated") {
		t.Errorf("list after --undo:\n%s", out)
	}

	if out, _ := x.do(1, "", "type", "remove", "order.paid"); !strings.Contains(out, "remove  order.paid\n      ✗ 1 enabled endpoint subscribes to it") {
		t.Errorf("remove:\n%s", out)
	}
	if out, _ := x.do(0, "", "type", "remove", "order.paid", "--force"); !strings.HasSuffix(out, "nothing was changed yet\n") {
		t.Errorf("remove without --yes:\n%s", out)
	}
	x.do(0, "", "type", "remove", "order.paid", "--force", "--yes")
	if complaint := emit(1, `{"order_id":"o_79"}`); !strings.Contains(complaint, "is not an event type") {
		t.Errorf("a removed type: %s", complaint)
	}
	x.do(2, "", "type", "show", "order.paid")

	write(strings.Replace(orderPaid, `"string"`, `"text"`, 1))
	if _, complaint := x.do(1, "", "type", "diff", file); !strings.Contains(complaint, "order.paid.json:7:18: value must be one of") {
		t.Errorf("a wrong definition: %s", complaint)
	}
	x.do(1, "", "type", "apply", t.TempDir())
	x.do(2, "", "type", "apply")
}

// A type that is applied by the console's API is emitted, filtered and delivered. The console
// asks emit to compile it.
func TestEventTypesByTheConsolesAPI(t *testing.T) {
	t.Parallel()
	x := newTool(t)
	received := make(chan string, 8)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // an incomplete body is reported below
		received <- string(body)
	}))
	t.Cleanup(receiver.Close)
	change := x.consoleAPI("/api/event-types")
	if answer := change(`{"types":[`+strings.Replace(orderPaid, `{"type": "string"}`, `{"type": "string", "pattern": "(?=a)"}`, 1)+`]}`, 422); !strings.Contains(answer, "order.paid: line 7, column 36: '(?=a)' is not valid regex") {
		t.Errorf("a pattern that backtracks: %s", answer)
	}
	if answer := change(`{"types":[`+orderPaid+`,`+strings.Replace(orderPaid2, "data.state", "data.staet", 1)+`]}`, 422); !strings.Contains(answer, "order.paid.v2: line 4, column 19: ") {
		t.Errorf("an expression that gives no such data: %s", answer)
	}
	if answer := change(`{"types":[`+orderPaid+`,`+orderPaid2+`]}`, 200); !strings.Contains(answer, `"applied":true`) {
		t.Errorf("right types: %s", answer)
	}
	x.do(0, "", "endpoint", "add", receiver.URL, "--types", "order.*", "--type-version", "order.paid=1", "--filter", `{"data":{"status":["late"]}}`)
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) { // the runner reads the types again after a moment
		out, code := x.try("emit", "order.paid", "--data", `{"order_id":"o_paid","state":"settled"}`)
		if code == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("emit: %s", out)
		}
	}
	x.do(0, "", "emit", "order.paid", "--data", `{"order_id":"o_late","state":"overdue"}`)
	select {
	case body := <-received:
		if !strings.Contains(body, `"order_id":"o_late"`) || !strings.Contains(body, `"status":"late"`) {
			t.Errorf("received %s", body)
		}
	case <-time.After(patience):
		t.Fatal("no webhook")
	}
	if answer := change(`{"remove":[{"type":"order.paid"}]}`, 409); !strings.Contains(answer, "subscribes to order.*") {
		t.Errorf("a removal: %s", answer)
	}
}

const orderPaid2 = `{
  "title": "order.paid",
  "x-version": 2,
  "x-downgrade": {"status": "data.state == 'settled' ? 'paid' : 'late'"},
  "description": "An order was paid",
  "x-subject": "order_id",
  "type": "object",
  "properties": {
    "order_id": {"type": "string"},
    "state": {"enum": ["settled", "overdue"]}
  },
  "required": ["order_id", "state"],
  "additionalProperties": false,
  "examples": [{"order_id": "o_1", "state": "settled"}]
}
`

// Version 2 of a type is published while the endpoint of version 1 stays as it is.
func TestVersionsOfATypeSideBySide(t *testing.T) {
	t.Parallel()
	x := newTool(t)
	type arrival struct{ path, body string }
	received := make(chan arrival, 8)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // an incomplete body is reported below
		received <- arrival{r.URL.Path, string(body)}
	}))
	t.Cleanup(receiver.Close)
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	x.do(0, "", "type", "apply", write("order.paid.json", orderPaid))
	x.do(0, "", "endpoint", "add", receiver.URL+"/old", "--types", "order.paid")
	write("order.paid.v2.json", orderPaid2)
	if _, complaint := x.do(1, "", "type", "diff", write("wrong.json", strings.Replace(orderPaid2, "data.state ==", "data.state =", 1))); !strings.Contains(complaint, "wrong.json:4:19: x-downgrade: status: column 12 of the expression: ") {
		t.Errorf("a wrong expression: %s", complaint)
	}
	if err := os.Remove(filepath.Join(dir, "wrong.json")); err != nil {
		t.Fatal(err)
	}
	if out, _ := x.do(0, "", "type", "apply", dir); out != "keep    order.paid\nadd     order.paid version 2\nstored; in effect within a minute\n" {
		t.Errorf("apply:\n%s", out)
	}
	if out, _ := x.do(0, "", "type", "list"); !strings.Contains(out, "1-2 ") {
		t.Errorf("list:\n%s", out)
	}
	if out, _ := x.do(0, "", "type", "show", "order.paid"); out != orderPaid2+"\n" && strings.TrimSpace(out) != strings.TrimSpace(orderPaid2) {
		t.Errorf("show:\n%s", out)
	}
	if out, _ := x.do(0, "", "type", "show", "order.paid", "--version", "1"); strings.TrimSpace(out) != strings.TrimSpace(orderPaid) {
		t.Errorf("show version 1:\n%s", out)
	}
	x.do(2, "", "type", "show", "order.paid", "--version", "3")
	x.do(0, `{"order_id":"o_1","state":"settled"}`, "type", "test", "order.paid")
	x.do(1, `{"order_id":"o_1","state":"settled"}`, "type", "test", "order.paid", "--version", "1")
	x.do(0, "", "endpoint", "add", receiver.URL+"/new", "--types", "order.*", "--filter", `{"data":{"state":["settled"]}}`)
	x.do(0, "", "endpoint", "add", receiver.URL+"/pinned", "--type-version", "order.paid=1", "--filter", `{"data":{"status":["paid"]}}`)
	x.do(1, "", "endpoint", "add", receiver.URL+"/pinned", "--type-version", "order.paid=3")

	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) { // the runner reads the types again after a moment
		out, code := x.try("emit", "order.paid", "--data", `{"order_id":"o_7","state":"settled"}`)
		if code == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("emit: %s", out)
		}
	}
	want := map[string]string{"/old": `"data":{"order_id":"o_7","status":"paid"}`, "/new": `"version":2,`, "/pinned": `"data":{"order_id":"o_7","status":"paid"}`}
	for len(want) > 0 {
		select {
		case got := <-received:
			if part, ok := want[got.path]; !ok || !strings.Contains(got.body, part) {
				t.Errorf("%s received %s, want %s", got.path, got.body, part)
			}
			delete(want, got.path)
		case <-time.After(time.Minute):
			t.Fatalf("no webhook for %v", want)
		}
	}
	if out, _ := x.do(1, "", "type", "remove", "order.paid", "--version", "1"); !strings.Contains(out, "remove  order.paid version 1\n      ✗ 2 enabled endpoints get version 1") {
		t.Errorf("remove version 1:\n%s", out)
	}
}

// A deployment can allow types without a definition. Names must still be those of types, and
// types with a definition are checked as before.
func TestTypesWithoutADefinition(t *testing.T) {
	t.Parallel()
	x := newTool(t)
	received := make(chan string, 8)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // an incomplete body is reported below
		received <- string(body)
	}))
	t.Cleanup(receiver.Close)
	x.do(2, "", "type", "undefined", "maybe")
	if out, _ := x.do(0, "", "type", "undefined"); out != "types without a definition are refused\n" {
		t.Errorf("by default: %s", out)
	}
	if _, complaint := x.do(1, "", "emit", "stock.counted", "--data", `{"n":1}`); !strings.Contains(complaint, `"stock.counted" is not an event type`) {
		t.Errorf("refused: %s", complaint)
	}
	if out, _ := x.do(0, "", "type", "undefined", "allow"); out != "types without a definition are allowed; in effect within a minute\n" {
		t.Errorf("allow: %s", out)
	}
	if out, _ := x.do(0, "", "type", "undefined", "allow"); out != "types without a definition are allowed\n" {
		t.Errorf("allow again: %s", out)
	}
	x.do(0, "", "endpoint", "add", receiver.URL, "--types", "stock.*", "--filter", `{"data":{"n":[1]}}`)
	x.do(0, "", "endpoint", "add", receiver.URL, "--types", "stock.moved")
	x.do(1, "", "endpoint", "add", receiver.URL, "--types", "Stock")
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) { // the runner reads the types again after a moment
		out, code := x.try("emit", "stock.counted", "--data", `{"n":1,"what":{"ever":[]}}`)
		if code == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("emit: %s", out)
		}
	}
	select {
	case body := <-received:
		if !strings.Contains(body, `"event":"stock.counted"`) || !strings.Contains(body, `"data":{"n":1,"what":{"ever":[]}}`) {
			t.Errorf("received %s", body)
		}
	case <-time.After(time.Minute):
		t.Fatal("no webhook")
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) { // fan-out stores its counts after it has queued the event
		out, _ := x.do(0, "", "type", "list")
		if regexp.MustCompile(`\nSeen without a definition in the last 24 hours:\nTYPE +EVENTS +LAST SEEN\nstock.counted +1 +20\d\d-\S+0:00Z\n$`).MatchString(out) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("type list: %s", out)
		}
	}
	if out, _ := x.do(0, "", "type", "list", "--shipped"); strings.Contains(out, "stock.counted") {
		t.Errorf("the shipped types: %s", out)
	}
	var setting struct {
		Allowed bool
		Seen    []stats.Type
	}
	if out, _ := x.do(0, "", "type", "undefined", "--json"); json.Unmarshal([]byte(out), &setting) != nil || !setting.Allowed || len(setting.Seen) != 1 || setting.Seen[0].Type != "stock.counted" || setting.Seen[0].Events != 1 {
		t.Errorf("type undefined: %s", out)
	}
	for name, c := range map[string]struct{ eventType, data, says string }{
		"no object":             {"stock.counted", `[1]`, "data: must be object, not array"},
		"a duplicate key":       {"stock.counted", `{"n":1,"n":2}`, "data.n: is a duplicate key"},
		"a reserved name":       {"tidings.counted", `{"n":1}`, "is not an event type"},
		"no name of a type":     {"stock", `{"n":1}`, "is not an event type"},
		"a renamed type":        {"user.welcome_email_sent", `{"user_id":"u"}`, `was replaced by "user.joined_platform"`},
		"one with a definition": {"user.joined_platform", `{"user":"u"}`, "data.user_id: is missing"},
	} {
		if _, complaint := x.do(1, "", "emit", c.eventType, "--data", c.data); !strings.Contains(complaint, c.says) {
			t.Errorf("%s: %s", name, complaint)
		}
	}
	x.do(0, "", "type", "undefined", "refuse")
	if out, _ := x.do(0, "", "type", "undefined"); out != "types without a definition are refused\n" {
		t.Errorf("refused again: %s", out)
	}
}
