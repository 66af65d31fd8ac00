package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

var shop = filepath.Join("..", "..", "examples", "shop")

// newShop returns a runner with two tables of the shop, and a receiver of its events.
func newShop(t *testing.T) (x *tool, put func(table string, item dynamoitem.Item), received <-chan string) {
	t.Helper()
	var tables []local.OwnTable
	for _, text := range []string{"Orders=order_id", "Returns=order_id"} {
		table, err := local.ParseOwnTable(text)
		if err != nil {
			t.Fatal(err)
		}
		tables = append(tables, table)
	}
	x = newTool(t, func(o *local.Options) { o.OwnTables = tables })
	info, err := local.ReadRunnerInfo(x.dir)
	if err != nil {
		t.Fatal(err)
	}
	db := info.DynamoDB()
	put = func(table string, item dynamoitem.Item) {
		t.Helper()
		if _, err := db.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &table, Item: item}); err != nil {
			t.Fatal(err)
		}
	}
	bodies := make(chan string, 100)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // an incomplete body fails the test
		bodies <- string(body)
	}))
	t.Cleanup(receiver.Close)
	x.do(0, "", "type", "apply", filepath.Join(shop, "types"))
	x.do(0, "", "endpoint", "add", receiver.URL, "--types", "order.*")
	return x, put, bodies
}

func order(id, status string) dynamoitem.Item {
	return dynamoitem.Item{
		"order_id": dynamoitem.S(id), "status": dynamoitem.S(status), "currency": dynamoitem.S("EUR"),
		"total": dynamoitem.N(42), "items": dynamoitem.N(1),
	}
}

// Rules take effect while the deployment runs. A change that should become an event and
// cannot is kept, and becomes one when the rule is mended and it is captured again.
func TestARuleIsMendedAndTheChangeCapturedAgain(t *testing.T) {
	t.Parallel()
	x, put, received := newShop(t)
	file := filepath.Join(t.TempDir(), "orders.yaml")
	text, err := os.ReadFile(filepath.Join(shop, "rules", "orders.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(string(text))
	x.do(0, "", "capture", "apply", file)
	put("Orders", order("o_1", "placed")) // without a customer, which the rule needs
	var failed []struct {
		ID        string `json:"id"`
		EventType string `json:"event_type"`
		Reason    string `json:"reason"`
	}
	eventually(t, "the change is kept", func() bool {
		x.json(&failed, "capture", "list")
		return len(failed) == 1
	})
	if !strings.Contains(failed[0].Reason, "order.placed (orders:9)") {
		t.Errorf("reason %q", failed[0].Reason)
	}
	if out, _ := x.try("capture", "redrive", failed[0].ID); !strings.Contains(out, "0 captured, 1 failed again") {
		t.Errorf("redriven before the rule is mended:\n%s", out)
	}
	mended := strings.ReplaceAll(string(text), "      customer_id: id(new.customer.id)\n", "")
	write(strings.ReplaceAll(mended, "  actor: new.customer.id\n", ""))
	if out, _ := x.do(0, "", "capture", "apply", file); !strings.Contains(out, "-      customer_id: id(new.customer.id)") || !strings.HasSuffix(out, "in effect within a minute\n") {
		t.Errorf("apply:\n%s", out)
	}
	eventually(t, "the change is captured by the mended rule", func() bool {
		out, _ := x.try("capture", "redrive", failed[0].ID)
		return strings.Contains(out, "1 captured, 0 failed again")
	})
	select {
	case body := <-received:
		if !strings.Contains(body, `"event":"order.placed"`) || !strings.Contains(body, `"order_id":"o_1"`) || strings.Contains(body, "customer") {
			t.Errorf("received %s", body)
		}
	case <-time.After(patience):
		t.Fatal("no webhook")
	}
	if out, _ := x.do(0, "", "capture", "list"); out != "no failed changes\n" {
		t.Errorf("failed changes:\n%s", out)
	}
}

// Several tables are captured at once, each by its own rules; a rule without a table is for
// all of them.
func TestEachTableHasItsOwnCaptureRules(t *testing.T) {
	t.Parallel()
	x, put, received := newShop(t)
	dir := t.TempDir()
	for name, text := range map[string]string{
		"orders":  "rules:\n  - {event: order.placed, table: Orders, when: change == 'insert', data: &DATA}\n",
		"returns": "rules:\n  - {event: order.paid, table: 'Ret*', when: change == 'insert', data: &DATA}\n",
		"all":     "rules:\n  - {event: order.shipped, when: change == 'insert' && new.status == 'both', data: &DATA}\n",
	} {
		text = strings.Replace(text, "&DATA", "{order_id: new.order_id, total: new.total, currency: new.currency, tracking: table}", 1)
		if name != "all" {
			text = strings.Replace(text, ", tracking: table", "", 1)
		}
		if err := os.WriteFile(filepath.Join(dir, name+".yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	x.do(0, "", "capture", "apply", dir)
	put("Orders", order("o_1", "both"))
	put("Returns", order("o_2", "both"))
	got := map[string]bool{}
	for range 4 {
		select {
		case body := <-received:
			var e struct {
				Event string
				Data  struct {
					OrderID  string `json:"order_id"`
					Tracking string
				}
			}
			if err := json.Unmarshal([]byte(body), &e); err != nil {
				t.Fatal(err)
			}
			got[strings.TrimSpace(e.Event+" "+e.Data.OrderID+" "+e.Data.Tracking)] = true
		case <-time.After(patience):
			t.Fatalf("only %v", got)
		}
	}
	for _, want := range []string{"order.placed o_1", "order.paid o_2", "order.shipped o_1 Orders", "order.shipped o_2 Returns"} {
		if !got[want] {
			t.Errorf("no %s in %v", want, got)
		}
	}
}

func TestCaptureRulesAreAppliedListedAndRemoved(t *testing.T) {
	t.Parallel()
	x, put, received := newShop(t)
	folder := filepath.Join(shop, "rules")
	if out, _ := x.do(0, "", "capture", "apply", folder, "--dry-run"); out != "add     orders  order.paid, order.placed, order.shipped\nnothing was changed yet\n" {
		t.Errorf("dry run:\n%s", out)
	}
	if out, _ := x.do(0, "", "capture", "apply", folder); !strings.HasSuffix(out, "stored; in effect within a minute\n") {
		t.Errorf("apply:\n%s", out)
	}
	if out, _ := x.do(0, "", "capture", "apply", folder); out != "keep    orders  order.paid, order.placed, order.shipped\n" {
		t.Errorf("apply again:\n%s", out)
	}
	var plan struct {
		Files   []struct{ File, Action string } `json:"files"`
		Applied bool                            `json:"applied"`
	}
	x.json(&plan, "capture", "apply", folder)
	if !plan.Applied || len(plan.Files) != 1 || plan.Files[0].Action != "keep" {
		t.Errorf("plan %+v", plan)
	}
	var list []ruleFile
	x.json(&list, "capture", "rules")
	if len(list) != 2 || list[0].File != "shipped" || len(list[0].Events) != 9 || !list[0].On || list[1].File != "orders" || len(list[1].Events) != 3 {
		t.Errorf("rules %+v", list)
	}
	text, err := os.ReadFile(filepath.Join(folder, "orders.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if out, _ := x.do(0, "", "capture", "rules", "orders"); out != string(text) {
		t.Errorf("rules orders:\n%s", out)
	}
	x.do(2, "", "capture", "rules", "none")

	if out, complaint := x.do(1, "", "type", "remove", "order.paid", "--yes"); !strings.Contains(out, "1 enabled endpoint subscribes to it, and the capture rules orders publish it") {
		t.Errorf("a type in use is removed:\n%s%s", out, complaint)
	}

	wrong := filepath.Join(t.TempDir(), "wrong.yaml")
	if err := os.WriteFile(wrong, []byte(strings.Replace(string(text), "order.paid", "order.payed", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, complaint := x.do(1, "", "capture", "apply", wrong); !strings.Contains(complaint, wrong+":18:12: ") || !strings.Contains(complaint, "order.payed") {
		t.Errorf("an unknown type: %s", complaint)
	}
	x.do(2, "", "capture", "apply")
	x.do(1, "", "capture", "apply", t.TempDir())

	if out, _ := x.do(0, "", "capture", "remove-rules", "orders", "shipped"); !strings.HasSuffix(out, "nothing was changed yet\n") {
		t.Errorf("remove-rules without --yes:\n%s", out)
	}
	x.do(0, "", "capture", "remove-rules", "orders", "shipped", "--yes")
	x.json(&list, "capture", "rules")
	if len(list) != 1 || list[0].On {
		t.Errorf("rules after the removal %+v", list)
	}
	x.do(0, "", "capture", "apply", folder, "--shipped")
	complete := order("o_1", "placed")
	complete["customer"] = &types.AttributeValueMemberM{Value: dynamoitem.Item{"id": dynamoitem.S("c_1")}}
	put("Orders", complete)
	select {
	case body := <-received:
		if !strings.Contains(body, `"event":"order.placed"`) || !strings.Contains(body, `"actor_user_id":"c_1"`) {
			t.Errorf("received %s", body)
		}
	case <-time.After(patience):
		t.Fatal("no webhook")
	}
}

// consoleAPI returns a function that posts a body to a path of the console's API, as an
// operator, and returns the answer, which must have a status.
func (x *tool) consoleAPI(path string) func(body string, status int) string {
	x.t.Helper()
	info, err := local.ReadRunnerInfo(x.dir)
	if err != nil {
		x.t.Fatal(err)
	}
	token, _ := x.do(0, "", "console", "login", "--token", "--role", "operator")
	return func(body string, status int) string {
		x.t.Helper()
		request, err := http.NewRequestWithContext(x.t.Context(), http.MethodPost, info.URLs["console"]+path, strings.NewReader(body))
		if err != nil {
			x.t.Fatal(err)
		}
		request.Header.Set("X-Tidings-Session", strings.TrimSpace(token))
		request.Header.Set("Content-Type", "application/json")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			x.t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != status {
			x.t.Fatalf("%s: status %d, want %d: %s, %v", body, response.StatusCode, status, text, err)
		}
		return string(text)
	}
}

// The console changes rules by its API. It asks emit to compile them.
func TestTheConsoleChangesCaptureRules(t *testing.T) {
	t.Parallel()
	x := newTool(t)
	change := x.consoleAPI("/api/capture-rules")
	file := func(event, when string) string {
		text, err := json.Marshal("rules:\n  - event: " + event + "\n    when: " + when + "\n    data:\n      user_id: id(new.user_id)\n")
		if err != nil {
			t.Fatal(err)
		}
		return `{"files":[{"name":"own","text":` + string(text) + `}]}`
	}
	if answer := change(file("user.joined_platform", `change == "inser`), 422); !strings.Contains(answer, "own:3:") {
		t.Errorf("a wrong expression: %s", answer)
	}
	if answer := change(file("user.left_platform", `change == "remove"`), 422); !strings.Contains(answer, "own:2:12: ") {
		t.Errorf("an unknown type: %s", answer)
	}
	if answer := change(file("user.joined_platform", `change == "insert" && new.kind == "guest"`), 200); !strings.Contains(answer, `"applied":true`) {
		t.Errorf("right rules: %s", answer)
	}
	var list []ruleFile
	x.json(&list, "capture", "rules")
	if len(list) != 2 || list[1].File != "own" {
		t.Errorf("rules %+v", list)
	}
}

// Rules are tested on a stream's records without a deployment.
func TestCaptureRulesAreTestedOffline(t *testing.T) {
	t.Parallel()
	x := &tool{t, t.TempDir()}
	rules, records, definitions := filepath.Join(shop, "rules"), filepath.Join(shop, "records.json"), filepath.Join(shop, "types")
	out, _ := x.do(0, "", "capture", "test", rules, records, "--types", definitions)
	for _, line := range []string{
		`record 1: insert of {"order_id":{"S":"o_1001"}} in Orders`, `order.placed                 event (`, `record 3: modify of `, `order.shipped                no match (`,
		`"event":"order.paid"`, `"total":42.50`, `"payment":"card"`,
	} {
		if !strings.Contains(out, line) {
			t.Errorf("%q is missing:\n%s", line, out)
		}
	}
	if strings.Count(out, "→") != 2 {
		t.Errorf("not two events:\n%s", out)
	}
	text, err := os.ReadFile(records)
	if err != nil {
		t.Fatal(err)
	}
	var batch struct{ Records []json.RawMessage }
	if err := json.Unmarshal(text, &batch); err != nil {
		t.Fatal(err)
	}
	if out, _ := x.do(0, string(batch.Records[0]), "capture", "test", rules, "-", "--types", definitions); strings.Count(out, "→") != 1 {
		t.Errorf("one record on the standard input:\n%s", out)
	}
	var list []tested
	broken := strings.Replace(string(batch.Records[0]), `"customer": { "M": { "id": { "S": "c_7" } } },`, "", 1)
	out, _ = x.do(1, broken, "capture", "test", rules, "-", "--types", definitions, "--json")
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 1 || len(list[0].Events) != 0 || !strings.HasPrefix(list[0].Rules[0].Outcome, "fails: ") {
		t.Errorf("a record without a customer: %+v, %v", list, err)
	}
	if _, complaint := x.do(1, "", "capture", "test", rules, records); !strings.Contains(complaint, "--types names files of other types") {
		t.Errorf("without the types: %s", complaint)
	}
	if _, complaint := x.do(1, `{"order_id":"o_1"}`, "capture", "test", rules, "-", "--types", definitions); !strings.Contains(complaint, "there is no record of a DynamoDB stream in it") {
		t.Errorf("what is no record: %s", complaint)
	}
	if out, _ := x.do(0, "", "capture", "test", "shipped", filepath.Join("..", "..", "events", "emit-platform-stream.json")); !strings.Contains(out, `"event":"user.joined_community"`) {
		t.Errorf("the shipped rules:\n%s", out)
	}
	x.do(2, "", "capture", "test", rules)
}

// An event passes the test exactly if emit stores it.
func TestCaptureTestChecksAsEmitDoes(t *testing.T) {
	t.Parallel()
	x := &tool{t, t.TempDir()}
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	// Version 2 has an amount instead of a total, which cannot be made of the amount "odd".
	const typeOf = `{"title":"bill.sent","description":"A bill was sent","x-subject":"id","x-version":%s"type":"object",
		"properties":{"id":{"type":"string"},"%s":{"type":"string"}},"required":["id","%[2]s"],"additionalProperties":false,"examples":[{"id":"b","%[2]s":"100"}]}`
	definitions := filepath.Join(dir, "types")
	if err := os.Mkdir(definitions, 0o700); err != nil {
		t.Fatal(err)
	}
	write("types/1.json", fmt.Sprintf(typeOf, `1,`, "total"))
	write("types/2.json", fmt.Sprintf(typeOf, `2,"x-downgrade":{"amount":null,"total":"data.amount == 'odd' ? dyn(1) : dyn(data.amount)"},"x-upgrade":{"total":null,"amount":"data.total + ' EUR'"},`, "amount"))
	rules := write("rules.yaml", `rules:
  - event: bill.sent
    when: change == "insert"
    tenant: new.tenant
    actor: new.actor
    data:
      id: new.id
      total?: new.total
      amount?: new.amount
  - event: bill.sent
    when: change == "insert" && new.twice == true
    data: {id: id(new.other), amount: "string(100)"}
`)
	for name, c := range map[string]struct {
		attributes string
		events     int
		outcome    string // of the first rule
	}{
		"the newest version":                 {`"amount":{"S":"200"}`, 1, "event"},
		"the version before, upgraded":       {`"total":{"S":"3"}`, 1, "event"},
		"a downgrade that fails":             {`"amount":{"S":"odd"}`, 0, "fails: bill.sent: version 1 cannot be made"},
		"no version":                         {`"amount":{"N":"5"}`, 0, "fails: bill.sent"},
		"an actor with white space":          {`"amount":{"S":"200"},"actor":{"S":"u "}`, 0, "fails: actor_user_id: "},
		"a tenant that is none":              {`"amount":{"S":"200"},"tenant":{"S":"a b"}`, 0, "fails: tenant: "},
		"a subject with white space":         {`"amount":{"S":"200"},"id":{"S":"b "}`, 0, "fails: bill.sent: data.id: "},
		"two events":                         {`"amount":{"S":"200"},"twice":{"BOOL":true},"other":{"S":"c"}`, 2, "event"},
		"another rule fails":                 {`"amount":{"S":"200"},"twice":{"BOOL":true}`, 0, "event, but none is stored: a rule fails"},
		"the first of two events is refused": {`"amount":{"S":"odd"},"twice":{"BOOL":true},"other":{"S":"c"}`, 0, "fails: bill.sent: version 1"},
	} {
		attributes := c.attributes
		for name, value := range map[string]string{"id": `"b"`, "tenant": `"acme"`, "actor": `"u"`} {
			if !strings.Contains(attributes, `"`+name+`":`) {
				attributes += `,"` + name + `":{"S":` + value + `}`
			}
		}
		record := `{"eventID":"1","eventName":"INSERT","eventSourceARN":"arn:aws:dynamodb:r:1:table/Bills/stream/x","dynamodb":{
			"ApproximateCreationDateTime":1796040000,"SequenceNumber":"1","Keys":{"id":{"S":"b"}},"NewImage":{` + attributes + `}}}`
		code := 0
		if c.events == 0 {
			code = 1
		}
		out, _ := x.do(code, record, "capture", "test", rules, "-", "--types", definitions, "--json")
		var list []tested
		if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 1 {
			t.Fatalf("%s: %s, %v", name, out, err)
		}
		if len(list[0].Events) != c.events || !strings.HasPrefix(list[0].Rules[0].Outcome, c.outcome) {
			t.Errorf("%s: %d events, %+v", name, len(list[0].Events), list[0].Rules)
		}
		if c.events > 0 && !strings.Contains(string(list[0].Events[0]), `"amount"`) {
			t.Errorf("%s: not the newest version: %s", name, list[0].Events[0])
		}
	}
}
