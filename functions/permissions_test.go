package functions_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
	"github.com/tidings-dev/tidings/test/dynamotest"
	"github.com/tidings-dev/tidings/test/lambdaemulator"
)

// The functions' binaries run with the environment variables of the template. The test
// records their AWS calls, for every sample in events/ and for the payloads below, and
// compares them with the statements of the functions' roles.
func TestEachPermissionIsNeededAndNoneIsMissing(t *testing.T) {
	t.Parallel()
	client, _ := dynamotest.New(t)
	stage, err := lambdaemulator.Open(t.Context(), "..", "permissions", *client.Options().BaseEndpoint)
	if err != nil {
		t.Fatal(err)
	}
	defer stage.Close()
	addScenarios(t, stage)

	calls := map[string][]lambdaemulator.Call{} // by function
	for _, f := range stage.Stack.Functions {
		function := start(t, f.Folder, stage.Environment(&f))
		stage.AWS.Forget()
		for _, payload := range payloads(t, stage, f) {
			function.invoke(t, payload) // other tests check the responses
		}
		calls[f.Folder] = stage.AWS.Calls()
		if len(calls[f.Folder]) == 0 {
			t.Errorf("%s made no AWS call\n%s", f.Folder, function.log)
		}
		// If a table is encrypted with a customer managed key, DynamoDB uses the key
		// with the caller's permissions (DynamoDB Developer Guide, "Using IAM
		// permissions to encrypt with a customer managed key").
		for _, table := range stage.Stack.Tables {
			if table.KeyARN != "" && slices.ContainsFunc(calls[f.Folder], func(c lambdaemulator.Call) bool { return strings.Contains(c.Resource, "table/"+table.Name) }) {
				for _, action := range []string{"Encrypt", "Decrypt", "GenerateDataKey", "DescribeKey"} {
					calls[f.Folder] = append(calls[f.Folder], lambdaemulator.Call{Action: "kms:" + action, Resource: table.KeyARN})
				}
			}
		}
		// Lambda sends failed batches with the function's role.
		for _, trigger := range f.Streams {
			if trigger.FailureARN != "" {
				calls[f.Folder] = append(calls[f.Folder], lambdaemulator.Call{Action: "sqs:SendMessage", Resource: trigger.FailureARN})
			}
		}
	}
	for _, problem := range checkPermissions(stage.Stack, calls) {
		t.Error(problem)
	}
	if t.Failed() {
		for folder, list := range calls {
			t.Logf("calls of %s:\n  %s", folder, strings.Trim(strings.ReplaceAll(fmt.Sprint(list), ":table/permissions-", " "), "[]"))
		}
		return
	}

	// The check itself: without any one statement it reports a call that is not
	// allowed, and with a superfluous one it reports that nothing needs it.
	statements := 0
	for i := range stage.Stack.Functions {
		f := &stage.Stack.Functions[i]
		if f.Role != "" {
			continue
		}
		all := f.Statements
		for n, s := range all {
			statements++
			f.Statements = slices.Delete(slices.Clone(all), n, n+1)
			found := checkPermissions(stage.Stack, calls)
			if !slices.ContainsFunc(found, func(p string) bool { return strings.Contains(p, "is not allowed") }) {
				t.Errorf("without %s of %s: %q", s.Sid, f.Folder, found)
			}
			if testing.Verbose() && len(found) > 0 {
				t.Logf("without %s: %s", s.Sid, found[0])
			}
		}
		f.Statements = append(slices.Clone(all), samtemplate.Statement{Sid: "Superfluous", Actions: []string{"dynamodb:DeleteTable"}, Resources: []string{"arn:aws:dynamodb:us-east-1:000000000000:table/permissions-Events"}})
		if found := checkPermissions(stage.Stack, calls); len(found) != 2 || !strings.Contains(found[0], "Superfluous") || !strings.Contains(found[1], "Superfluous") {
			t.Errorf("with a superfluous statement of %s: %q", f.Folder, found)
		}
		f.Statements = all
	}
	t.Logf("%d statements of %d functions: each is needed, and none is missing", statements, len(stage.Stack.Functions))
}

// checkPermissions returns the calls that no statement allows and the parts of statements that no
// call needs.
func checkPermissions(stack *samtemplate.Stack, calls map[string][]lambdaemulator.Call) (problems []string) {
	for _, owner := range stack.Functions {
		if owner.Role != "" {
			continue // it has another function's role
		}
		needed := map[string]bool{} // "sid action" and "sid resource"
		for _, f := range stack.Functions {
			if f.LogicalID != owner.LogicalID && !strings.HasSuffix(f.Role, "-"+owner.LogicalID+"Role") {
				continue
			}
			for _, c := range calls[f.Folder] {
				if c.Action == "sts:GetCallerIdentity" {
					continue // needs no permission
				}
				allowed := false
				for _, s := range owner.Statements {
					if !s.Allows(c.Action, c.Resource) {
						continue
					}
					allowed = true
					for _, a := range s.Actions {
						if (samtemplate.Statement{Actions: []string{a}, Resources: s.Resources}).Allows(c.Action, c.Resource) {
							needed[s.Sid+" "+a] = true
						}
					}
					for _, r := range s.Resources {
						if (samtemplate.Statement{Actions: s.Actions, Resources: []string{r}}).Allows(c.Action, c.Resource) {
							needed[s.Sid+" "+r] = true
						}
					}
				}
				if !allowed {
					problems = append(problems, fmt.Sprintf("%s: %s is not allowed by any statement of %s", f.Folder, c, owner.LogicalID))
				}
			}
		}
		for _, s := range owner.Statements {
			for _, part := range slices.Concat(s.Actions, s.Resources) {
				if !needed[s.Sid+" "+part] {
					problems = append(problems, fmt.Sprintf("%s, statement %s: no call needs %s: remove it, or add a payload that needs it to this test", owner.LogicalID, s.Sid, part))
				}
			}
		}
	}
	return problems
}

// endpoints lists endpoints besides the sample one, each for other calls of dispatch.
var endpoints = map[string]endpoint.Endpoint{
	"ep_gone":   {URL: "/410"},
	"ep_fails":  {URL: "/500"},
	"ep_queue":  {URL: "sqs://webhooks-orders?region=us-east-1"},
	"ep_role":   {URL: "sqs://" + lambdaemulator.Account + "/webhooks-orders?region=us-east-1", RoleARN: "arn:aws:iam::" + lambdaemulator.Account + ":role/webhooks-crm"},
	"ep_kafka":  {URL: "kafka://127.0.0.1:1/topic?sasl=scram-sha-512", Credentials: "tidings/default/kafka"},
	"ep_slow":   {URL: "/200"},
	"ep_limits": {URL: "/200"},
}

// addScenarios stores what the payloads refer to.
func addScenarios(t *testing.T, stage *lambdaemulator.Deployment) {
	t.Helper()
	stage.AWS.Secrets["tidings/default/kafka"] = `{"username":"u","password":"p"}`
	stage.AWS.AddQueue("webhooks-orders")
	for id, e := range endpoints {
		e.ID = id
		if strings.HasPrefix(e.URL, "/") {
			e.URL = stage.Receiver + e.URL
		}
		e.Retry = lambdaemulator.ForEver
		if id == "ep_limits" {
			e.Limit.PerMinute, e.Limit.Burst = 1, 1
		}
		if err := stage.Add(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	// An expired discussion, for close-discussions.
	d := platform.Discussion{ID: "d_1", Status: platform.Open, ExpiresAt: time.Now().Add(-time.Hour)}
	if _, err := stage.DB.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String(local.Tables(stage.Stack.Name).Platform), Item: dynamoitem.EncodeRecord(d)}); err != nil {
		t.Fatal(err)
	}
}

// payloads returns a function's samples and further payloads.
func payloads(t *testing.T, stage *lambdaemulator.Deployment, f samtemplate.Function) (list [][]byte) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "events", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		if of := stage.Stack.ForSample(name); of != nil && of.Folder == f.Folder {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, text)
		}
	}
	if f.Folder == "console" {
		return append(list, consoleRequests(t, stage)...)
	}
	if f.Folder != "dispatch" && f.Folder != "test-webhook" {
		return list
	}
	for _, id := range []string{"ep_queue", "ep_role", "ep_kafka", "ep_gone", "ep_fails", "ep_limits"} {
		if f.Folder == "test-webhook" {
			list = append(list, []byte(`{"endpoint_id":"`+id+`"}`))
			continue
		}
		list = append(list, batch(t, id, lambdaemulator.SampleEvent, lambdaemulator.DueEvent))
	}
	if f.Folder == "dispatch" {
		// Five failures open the circuit breaker; an operator closes it.
		for range 6 {
			list = append(list, batch(t, "ep_fails", lambdaemulator.DeadEvent, lambdaemulator.SampleEvent, lambdaemulator.DueEvent))
		}
		list = append(list, []byte(`{"action":"close_circuit","tenant":"default","endpoint_id":"ep_fails"}`))
		// Drain the backlog of the circuit breaker.
		list = append(list, messages(t, work.Item{Tenant: "default", EndpointID: "ep_fails", Wake: true}))
	}
	return list
}

// consoleRequests returns requests to the console: a login by link, and an admin's calls
// of the API.
func consoleRequests(t *testing.T, stage *lambdaemulator.Deployment) (list [][]byte) {
	t.Helper()
	admin := console.Invitation{Name: "ada", Role: console.Admin, Tenant: "default"}
	link, err := console.Invite(t.Context(), stage.Store(), admin, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	session, err := console.Token(t.Context(), stage.Store(), admin, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"d_1", "d_2"} {
		d := platform.Discussion{Common: platform.Common{Tenant: "default"}, ID: id, Status: platform.Open, ExpiresAt: time.Now().Add(time.Hour)}
		if err := stage.Store().PutRecord(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	sample, event := "/api/endpoints/"+lambdaemulator.SampleEndpoint, lambdaemulator.SampleEndpoint+"/"+lambdaemulator.DeadEvent
	for _, r := range []struct{ method, path, body string }{
		{"POST", "/login", strings.TrimPrefix(link, "/login?")},
		{"GET", "/api/endpoints", ""},
		{"GET", sample, ""},
		{"POST", "/api/endpoints", `{"url":"` + stage.Receiver + `/200","event_types":["*"]}`},
		{"POST", sample + "/disable", ""},
		{"POST", sample + "/enable", ""},
		{"DELETE", "/api/endpoints/ep_slow", ""},
		{"GET", "/api/deliveries?endpoint=" + lambdaemulator.SampleEndpoint, ""},
		{"GET", "/api/deliveries/" + event, ""},
		{"GET", "/api/events/" + lambdaemulator.SampleEvent, ""},
		{"GET", "/api/audit", ""},
		{"GET", "/api/overview", ""},
		{"GET", "/api/circuits", ""},
		{"POST", "/api/circuits/" + lambdaemulator.SampleEndpoint + "/close", ""},
		{"POST", sample + "/test", ""},
		{"GET", "/api/discussions", ""},
		{"GET", "/api/discussions/d_1", ""},
		{"POST", "/api/discussions/d_1/extend", `{"to":"` + time.Now().Add(48*time.Hour).UTC().Format(time.RFC3339) + `"}`},
		{"POST", "/api/discussions/d_2/close", ""},
		{"GET", "/api/discussions?view=closed", ""},
		{"POST", "/api/replays", `{"deliveries":[{"endpoint_id":"` + lambdaemulator.SampleEndpoint + `","event_id":"` + lambdaemulator.DeadEvent + `"}]}`},
	} {
		path, query, _ := strings.Cut(r.path, "?")
		headers := map[string]string{"x-tidings-session": session, "host": "abcdefghijklmnop.lambda-url.us-east-1.on.aws", "content-type": "application/json"}
		if r.path == "/login" {
			headers["content-type"] = "application/x-www-form-urlencoded"
			delete(headers, "x-tidings-session")
		}
		text, err := json.Marshal(map[string]any{
			"version": "2.0", "rawPath": path, "rawQueryString": query, "headers": headers, "body": r.body,
			"requestContext": map[string]any{"http": map[string]string{"method": r.method, "path": path, "sourceIp": "192.0.2.10"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, text)
	}
	return list
}

// batch returns a batch of work queue messages for an endpoint.
func batch(t *testing.T, endpointID string, eventIDs ...string) []byte {
	t.Helper()
	var items []work.Item
	for _, id := range eventIDs {
		items = append(items, work.Item{Tenant: "default", EndpointID: endpointID, EventID: id})
	}
	return messages(t, items...)
}

// messages returns a batch of work queue messages.
func messages(t *testing.T, items ...work.Item) []byte {
	t.Helper()
	var records []map[string]any
	for i, item := range items {
		records = append(records, map[string]any{
			"messageId": fmt.Sprint(i), "body": item.Encode(), "eventSource": "aws:sqs",
			"attributes": map[string]string{"ApproximateReceiveCount": "1", "SentTimestamp": fmt.Sprint(time.Now().UnixMilli())},
		})
	}
	text, err := json.Marshal(map[string]any{"Records": records})
	if err != nil {
		t.Fatal(err)
	}
	return text
}
