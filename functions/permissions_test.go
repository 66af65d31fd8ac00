package functions_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/deployed"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/dynamoemulator"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
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
	stage, err := lambdaemulator.Open(t.Context(), "..", dynamotest.StackName(t), *client.Options().BaseEndpoint)
	if err != nil {
		t.Fatal(err)
	}
	defer stage.Close()
	addScenarios(t, stage)

	calls := map[string][]samtemplate.Request{} // by function
	for _, f := range stage.Stack.Functions {
		function := start(t, f.Folder, stage.Environment(&f))
		stage.AWS.Forget()
		for _, payload := range payloads(t, stage, f) {
			answer := function.invoke(t, payload) // other tests check the responses
			if f.Folder == "console" {
				checkAnswer(t, payload, answer.body)
			}
		}
		if f.Folder == "emit" {
			failCaptures(t, stage, function)
		}
		calls[f.Folder] = stage.AWS.Calls()
		if len(calls[f.Folder]) == 0 {
			t.Errorf("%s made no AWS call\n%s", f.Folder, function.log)
		}
		// If a table is encrypted with a customer managed key, DynamoDB uses the key
		// with the caller's permissions (DynamoDB Developer Guide, "Using IAM
		// permissions to encrypt with a customer managed key").
		for _, table := range stage.Stack.Tables {
			if table.KeyARN != "" && slices.ContainsFunc(calls[f.Folder], func(c samtemplate.Request) bool { return strings.Contains(c.Resource, "table/"+table.Name) }) {
				for _, action := range []string{"Encrypt", "Decrypt", "GenerateDataKey", "DescribeKey"} {
					calls[f.Folder] = append(calls[f.Folder], samtemplate.Request{Action: "kms:" + action, Resource: table.KeyARN,
						Context: map[string][]string{"kms:ViaService": {"dynamodb." + dynamoemulator.Region + ".amazonaws.com"}}})
				}
			}
		}
		calls[f.Folder] = append(calls[f.Folder], callsOfLambda(f)...)
	}
	for _, problem := range checkPermissions(stage.Stack, calls) {
		t.Error(problem)
	}
	if t.Failed() {
		for folder, list := range calls {
			t.Logf("calls of %s:\n  %s", folder, strings.Trim(strings.ReplaceAll(fmt.Sprint(list), ":table/"+stage.Stack.Name+"-", " "), "[]"))
		}
		return
	}

	// The check itself: without any one statement it reports a call that is not
	// allowed, and with a superfluous one it reports that nothing needs it.
	statements := 0
	for i := range stage.Stack.Functions {
		f := &stage.Stack.Functions[i]
		if !ownsRole(*f) {
			continue
		}
		all := f.Statements
		for n, s := range all {
			statements++
			f.Statements = slices.Delete(slices.Clone(all), n, n+1)
			found := checkRole(stage.Stack, *f, calls)
			if !slices.ContainsFunc(found, func(p string) bool { return strings.Contains(p, "is not allowed") }) {
				t.Errorf("without %s of %s: %q", s.Sid, f.Folder, found)
			}
			if testing.Verbose() && len(found) > 0 {
				t.Logf("without %s: %s", s.Sid, found[0])
			}
		}
		f.Statements = append(slices.Clone(all), samtemplate.Statement{Sid: "Superfluous", Actions: []string{"dynamodb:DeleteTable"}, Resources: []string{"arn:aws:dynamodb:us-east-1:000000000000:table/" + stage.Stack.Name + "-Events"}})
		if found := checkRole(stage.Stack, *f, calls); len(found) != 2 || !strings.Contains(found[0], "Superfluous") || !strings.Contains(found[1], "Superfluous") {
			t.Errorf("with a superfluous statement of %s: %q", f.Folder, found)
		}
		f.Statements = all
	}
	t.Logf("%d statements of %d functions: each is needed, and none is missing", statements, len(stage.Stack.Functions))
}

// callsOfLambda returns what Lambda itself calls with a function's role (AWS Lambda
// Developer Guide, on execution roles and event source mappings).
func callsOfLambda(f samtemplate.Function) (calls []samtemplate.Request) {
	add := func(resource string, actions ...string) {
		for _, a := range actions {
			calls = append(calls, samtemplate.Request{Action: a, Resource: resource})
		}
	}
	add("arn:aws:logs:"+dynamoemulator.Region+":"+lambdaemulator.Account+":log-group:/aws/lambda/"+f.Name+":log-stream:x", "logs:CreateLogStream", "logs:PutLogEvents")
	for _, trigger := range f.Streams {
		add(trigger.StreamARN, "dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator")
		add("*", "dynamodb:ListStreams")
		if trigger.FailureARN != "" {
			add(trigger.FailureARN, "sqs:SendMessage")
		}
	}
	for _, trigger := range f.Queues {
		add(trigger.QueueARN, "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes")
	}
	return calls
}

// ownsRole reports whether a function's role is not that of another function.
func ownsRole(f samtemplate.Function) bool { return strings.HasSuffix(f.Role, "-"+f.LogicalID+"Role") }

// checkPermissions returns the calls that no statement allows and the parts of statements that no
// call needs.
func checkPermissions(stack *samtemplate.Stack, calls map[string][]samtemplate.Request) (problems []string) {
	for _, owner := range stack.Functions {
		if ownsRole(owner) {
			problems = append(problems, checkRole(stack, owner, calls)...)
		}
	}
	return problems
}

// checkRole does the same for the role of one function.
func checkRole(stack *samtemplate.Stack, owner samtemplate.Function, calls map[string][]samtemplate.Request) (problems []string) {
	needed := map[string]bool{} // "sid action" and "sid resource"
	for _, f := range stack.Functions {
		if f.Role != owner.Role {
			continue
		}
		for _, c := range calls[f.Folder] {
			if c.Action == "sts:GetCallerIdentity" {
				continue // needs no permission
			}
			allowed := false
			for _, s := range owner.Statements {
				if !s.Allows(c) {
					continue
				}
				allowed = true
				for _, a := range s.Actions {
					if (samtemplate.Statement{Actions: []string{a}, Resources: s.Resources}).Allows(c.WithoutContext()) {
						needed[s.Sid+" "+a] = true
					}
				}
				for _, r := range s.Resources {
					if (samtemplate.Statement{Actions: s.Actions, Resources: []string{r}}).Allows(c.WithoutContext()) {
						needed[s.Sid+" "+r] = true
					}
				}
				for _, leading := range s.Conditions["ForAllValues:StringLike"]["dynamodb:LeadingKeys"] {
					one := samtemplate.Statement{Actions: s.Actions, Resources: s.Resources, Conditions: map[string]map[string][]string{
						"ForAllValues:StringLike": {"dynamodb:LeadingKeys": {leading}}}}
					if one.Allows(c) || len(c.Context["dynamodb:LeadingKeys"]) > 1 {
						needed[s.Sid+" "+leading] = true
					}
				}
			}
			if !allowed {
				problems = append(problems, fmt.Sprintf("%s: %s is not allowed by any statement of %s", f.Folder, c, owner.LogicalID))
			}
		}
	}
	for _, s := range owner.Statements {
		for _, part := range slices.Concat(s.Actions, s.Resources, s.Conditions["ForAllValues:StringLike"]["dynamodb:LeadingKeys"]) {
			if !needed[s.Sid+" "+part] {
				problems = append(problems, fmt.Sprintf("%s, statement %s: no call needs %s: remove it, or add a payload that needs it to this test", owner.LogicalID, s.Sid, part))
			}
		}
	}
	return problems
}

const slowEndpoint = "ep_01KG4VZS4NCPSXFR1K831Q4SB1"

// endpoints lists endpoints of a stack besides the sample one, each for other calls of
// dispatch. What they refer to has the stack's name.
func endpoints(stack string) map[string]endpoint.Endpoint {
	queue := stack + "-webhooks-orders?region=us-east-1"
	return map[string]endpoint.Endpoint{
		"ep_gone":    {URL: "/410"},
		"ep_fails":   {URL: "/500"},
		"ep_missed":  {URL: "/200"}, // no work items: it recovers what it missed
		"ep_queue":   {URL: "sqs://" + queue},
		"ep_bus":     {URL: "eventbridge://" + stack + "-webhooks-orders?region=us-east-1"},
		"ep_role":    {URL: "sqs://" + lambdaemulator.Account + "/" + queue, RoleARN: "arn:aws:iam::" + lambdaemulator.Account + ":role/" + stack + "-webhooks-crm"},
		"ep_kafka":   {URL: "kafka://127.0.0.1:1/topic?sasl=scram-sha-512", Credentials: stack + "/default/kafka"},
		slowEndpoint: {URL: "/200"},
		"ep_limits":  {URL: "/200"},
	}
}

// addScenarios stores what the payloads refer to.
func addScenarios(t *testing.T, stage *lambdaemulator.Deployment) {
	t.Helper()
	stage.AWS.Secrets[stage.Stack.Name+"/default/kafka"] = `{"username":"u","password":"p"}`
	stage.AWS.AddQueue(stage.Stack.Name + "-webhooks-orders")
	for id, e := range endpoints(stage.Stack.Name) {
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
	// An event type of the deployment's own, and one of the tenant's.
	var types deployed.Set
	added, err := catalog.Parse([]byte(`{"title":"order.paid","description":"An order was paid","type":"object","examples":[{}]}`))
	if err == nil {
		types, err = deployed.Write(t.Context(), stage.Store(), deployed.Set{Types: []catalog.Type{added}}, "op", "w", time.Now())
	}
	if err == nil {
		added, err = catalog.Parse([]byte(`{"title":"parcel.lost","description":"A parcel was lost","type":"object","examples":[{}]}`))
	}
	if err == nil {
		_, err = deployed.WriteTenant(t.Context(), stage.Store(), types, "default", []catalog.Type{added}, "op", "x", time.Now())
	}
	if err != nil {
		t.Fatal(err)
	}
	// A person to erase, for dispatch.
	person := event.Event{ID: event.NewID(time.Now()), Type: "user.joined_platform", Timestamp: time.Now(), Data: []byte(`{"user_id":"u_erased"}`)}
	body, err := person.Encode()
	if err == nil {
		err = stage.Store().PutEvent(t.Context(), event.Accepted{ID: person.ID, Tenant: "default", Body: body, Subject: "u_erased"})
	}
	if err == nil {
		_, err = stage.Store().KeepFailedChange(t.Context(), platform.FailedChange{
			ID: person.ID, Reason: "x", FirstSeen: time.Now(), LastTried: time.Now(), Attempts: 1,
			// Emit cannot capture it.
			Record: ofStack(stage.Stack.Name, []byte(`{"eventID":"1","eventName":"INSERT","eventSource":"aws:dynamodb","eventSourceARN":"`+platformStream+`","dynamodb":{"NewImage":{"kind":{"S":"comment"},"user_id":{"S":"u_erased"}}}}`)),
		})
	}
	if err == nil {
		var j jobs.Job
		j, err = jobs.New(jobs.Job{ID: erasing, Tenant: "default", Kind: jobs.Erase, Parameters: jobs.Parameters{Subject: "u_erased"}, Cursor: `{"part":"events"}`}, time.Now())
		if err == nil {
			_, err = stage.Store().PutJob(t.Context(), j)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	// An open circuit, behind which deliveries wait.
	circuit := breaker.State{EndpointID: "ep_fails", Tenant: "default"}
	for i := range 2 * breaker.DefaultFailures {
		circuit, _ = circuit.RecordFailure(breaker.Policy{}, "", "the receiver answered 500", time.Now().Add(time.Duration(i-2*breaker.DefaultFailures)*3*time.Second))
	}
	if _, err := stage.Store().PutBreaker(t.Context(), circuit, time.Now()); err != nil || circuit.Phase != breaker.Open {
		t.Fatalf("the circuit is %q, %v", circuit.Phase, err)
	}
	// A dead letter of the stream.
	letter := `{"DDBStreamBatchInfo":{"approximateArrivalOfFirstRecord":"2025-06-01T12:00:00Z","approximateArrivalOfLastRecord":"2025-06-01T13:00:00Z"}}`
	for _, q := range stage.Stack.Queues {
		if q.LogicalID == "StreamDeadLetterQueue" {
			client := sqs.NewFromConfig(dynamoemulator.Config(), func(o *sqs.Options) { o.BaseEndpoint = &stage.URL })
			if _, err := client.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &q.URL, MessageBody: &letter}); err != nil {
				t.Fatal(err)
			}
			stage.AWS.Forget()
		}
	}
	// An indexed discussion whose record is gone, for close-discussions and the console.
	for id, end := range map[string]time.Duration{"d_gone": -time.Hour, "d_gone_too": time.Hour} {
		d := platform.Discussion{Common: platform.Common{Tenant: "default"}, ID: id, Status: platform.Open, ExpiresAt: time.Now().Add(end)}
		if err := stage.Store().PutRecord(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		if err := stage.Store().DeleteRecord(t.Context(), d.Key()); err != nil {
			t.Fatal(err)
		}
	}
	// An expired discussion that is not indexed, for close-discussions.
	d := platform.Discussion{ID: "d_1", Status: platform.Open, ExpiresAt: time.Now().Add(-time.Hour)}
	if _, err := stage.DB.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String(local.Tables(stage.Stack.Name).Platform), Item: dynamoitem.EncodeRecord(d)}); err != nil {
		t.Fatal(err)
	}
}

// payloads returns a function's samples and further payloads.
func payloads(t *testing.T, stage *lambdaemulator.Deployment, f samtemplate.Function) (list [][]byte) {
	t.Helper()
	if f.Folder == "dispatch" {
		// Fan out what the stream lost. The sample redrive then removes the dead letter.
		list = append(list, []byte(`{"action":"start_job","kind":"stream","job_id":"job_01KG4VZS4NCPSXFR1K831Q4SB8","from":"2025-06-01T00:00:00Z","to":"2025-06-02T00:00:00Z"}`))
		list = append(list, messages(t, work.Item{Tenant: "default", JobID: "job_01KG4VZS4NCPSXFR1K831Q4SB8"}))
	}
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
			list = append(list, ofStack(stage.Stack.Name, text))
		}
	}
	if f.Folder == "emit" {
		list = append(list, ofStack(stage.Stack.Name, discussionChanges(t)), refusedRequest(t))
	}
	if f.Folder == "console" {
		return append(list, consoleRequests(t, stage)...)
	}
	if f.Folder != "dispatch" && f.Folder != "test-webhook" {
		return list
	}
	for _, id := range []string{"ep_queue", "ep_bus", "ep_role", "ep_kafka", "ep_gone", "ep_fails", "ep_limits"} {
		if f.Folder == "test-webhook" {
			list = append(list, []byte(`{"endpoint_id":"`+id+`"}`))
			continue
		}
		list = append(list, batch(t, id, lambdaemulator.SampleEvent, lambdaemulator.DueEvent))
	}
	if f.Folder == "dispatch" {
		// It waits for its slot on the queue of slow endpoints.
		list = append(list, messages(t, work.Item{Tenant: "default", EndpointID: "ep_limits", EventID: lambdaemulator.DeadEvent, Slow: true}))
		// The circuit breaker is open; an operator closes it.
		list = append(list, batch(t, "ep_fails", lambdaemulator.DeadEvent, lambdaemulator.SampleEvent, lambdaemulator.DueEvent))
		list = append(list, []byte(`{"action":"close_circuit","tenant":"default","endpoint_id":"ep_fails"}`))
		// Put what an endpoint missed into its backlog, and drain that.
		list = append(list, []byte(`{"action":"start_job","kind":"recover","job_id":"job_01KG4VZS4NCPSXFR1K831Q4SB5","tenant":"default","endpoint_id":"ep_missed","from":"2026-01-29T00:00:00Z","to":"2026-01-30T00:00:00Z"}`))
		list = append(list, messages(t, work.Item{Tenant: "default", JobID: "job_01KG4VZS4NCPSXFR1K831Q4SB5"}))
		list = append(list, []byte(`{"action":"start_job","kind":"replay","job_id":"job_01KG4VZS4NCPSXFR1K831Q4SB6","tenant":"default","endpoint_id":"ep_missed","states":["delivered"]}`))
		list = append(list, []byte(`{"action":"start_job","kind":"replay","job_id":"job_01KG4VZS4NCPSXFR1K831Q4SB7","tenant":"default","endpoint_id":"ep_missed"}`))
		list = append(list, messages(t, work.Item{Tenant: "default", JobID: "job_01KG4VZS4NCPSXFR1K831Q4SB7"}))
		list = append(list, []byte(`{"action":"cancel_job","job_id":"job_01KG4VZS4NCPSXFR1K831Q4SB6","tenant":"default","by":"ada"}`))
		list = append(list, messages(t, work.Item{Tenant: "default", EndpointID: "ep_missed", Wake: true}))
		// Erase a person, about whom there are an event and a failed change.
		list = append(list, []byte(`{"action":"start_job","kind":"erase","job_id":"job_01KG4VZS4NCPSXFR1K831Q4SB9","tenant":"default","subject":"u_erased","without_tenant":true}`))
		list = append(list, messages(t, work.Item{Tenant: "default", JobID: "job_01KG4VZS4NCPSXFR1K831Q4SB9"}))
		// One that is past its wait for the fan-outs under way.
		list = append(list, messages(t, work.Item{Tenant: "default", JobID: erasing}))
	}
	return list
}

// erasing is the ID of an erasure that empties events.
const erasing = "job_01KG4VZS4NCPSXFR1K831Q4SC0"

// platformStream is the stream of the platform's table, before ofStack.
const platformStream = "arn:aws:dynamodb:us-east-1:123456789012:table/tidings-Platform/stream/2026-01-29T00:00:00.000"

// failCaptures makes emit keep a change that cannot become an event, capture kept changes
// again, and mark that it is stuck.
func failCaptures(t *testing.T, stage *lambdaemulator.Deployment, emit *process) {
	t.Helper()
	record := func(number int, attributes string) string {
		return fmt.Sprintf(`{"eventID":"%d","eventName":"INSERT","eventSource":"aws:dynamodb","eventSourceARN":"`+platformStream+`","dynamodb":{
			"ApproximateCreationDateTime":1769690096,"SequenceNumber":"%d","Keys":{"pk":{"S":"%d"}},
			"NewImage":{"kind":{"S":"comment"},"comment_id":{"S":"m"},"user_id":{"S":"u"},"comment_text":{"S":"t"}%s}}}`, number, number, number, attributes)
	}
	batch := func(record string) []byte {
		return ofStack(stage.Stack.Name, []byte(`{"Records":[`+record+`]}`))
	}
	whole := `,"discussion_id":{"S":"d"}`
	emit.invoke(t, batch(record(1, "")))
	kept := platform.FailedChange{
		ID: "01KG4VZS4NCPSXFR1K7QEWBC9Z", Reason: "a rule that was mended", FirstSeen: time.Now(), LastTried: time.Now(), Attempts: 1, Record: ofStack(stage.Stack.Name, []byte(record(2, whole))),
	}
	if _, err := stage.Store().KeepFailedChange(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	page, err := stage.Store().ListFailedChanges(t.Context(), time.Time{}, 0, "")
	if err != nil || len(page.Changes) < 2 {
		t.Fatalf("%d failed changes are kept, error %v", len(page.Changes), err)
	}
	for _, f := range page.Changes {
		emit.invoke(t, fmt.Appendf(nil, `{"action":"recapture","ids":[%q]}`, f.ID))
	}
	events := "arn:aws:dynamodb:us-east-1:" + lambdaemulator.Account + ":table/" + local.Tables(stage.Stack.Name).Events
	stage.AWS.Deny(lambdaemulator.Call{Action: "dynamodb:PutItem", Resource: events})
	emit.invoke(t, batch(record(3, whole)))
	stage.AWS.Deny()
	emit.invoke(t, batch(record(3, whole)))
}

// discussionChanges returns a batch of the stream of the platform's table: a discussion is
// written, and deleted.
func discussionChanges(t *testing.T) []byte {
	t.Helper()
	d := platform.Discussion{ID: "d_stream", Status: platform.Open, ExpiresAt: time.Now().Add(time.Hour)}
	image := dynamoitem.Image(dynamoitem.EncodeRecord(d))
	change := func(name string, number int, before, after map[string]events.DynamoDBAttributeValue) events.DynamoDBEventRecord {
		return events.DynamoDBEventRecord{EventID: fmt.Sprint(number), EventName: name, EventSource: "aws:dynamodb", EventSourceArn: platformStream, Change: events.DynamoDBStreamRecord{
			ApproximateCreationDateTime: events.SecondsEpochTime{Time: time.Now()}, SequenceNumber: fmt.Sprint(number),
			Keys: dynamoitem.Image(dynamoitem.PlatformKey(d.Key())), OldImage: before, NewImage: after,
		}}
	}
	payload, err := json.Marshal(events.DynamoDBEvent{Records: []events.DynamoDBEventRecord{change("INSERT", 1, nil, image), change("REMOVE", 2, image, nil)}})
	if err != nil {
		t.Fatal(err)
	}
	return payload
}

// refusedRequest returns a batch of the emit queue with a message that is refused.
func refusedRequest(t *testing.T) []byte {
	t.Helper()
	payload, err := json.Marshal(events.SQSEvent{Records: []events.SQSMessage{{MessageId: "m", EventSource: "aws:sqs", Body: `{"event":"user.unheard_of","data":{}}`}}})
	if err != nil {
		t.Fatal(err)
	}
	return payload
}

// consoleRequests returns requests to the console: a login by link, and an admin's calls
// of the API.
func consoleRequests(t *testing.T, stage *lambdaemulator.Deployment) (list [][]byte) {
	t.Helper()
	admin := console.Invitation{Name: "ada", Role: console.Operator, Tenant: "default"}
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
	failed := platform.FailedChange{ID: "01KG4VZS4NCPSXFR1K7QEWBC9Y", Reason: "a rule that was mended", FirstSeen: time.Now(), LastTried: time.Now(), Attempts: 1}
	if _, err := stage.Store().KeepFailedChange(t.Context(), failed); err != nil {
		t.Fatal(err)
	}
	running, err := jobs.New(jobs.Job{ID: jobs.NewID(time.Now()), Tenant: "default", Kind: jobs.Recover, EndpointID: lambdaemulator.SampleEndpoint}, time.Now())
	if err == nil {
		running, err = stage.Store().PutJob(t.Context(), running)
	}
	if err != nil {
		t.Fatal(err)
	}
	sample, event := "/api/endpoints/"+lambdaemulator.SampleEndpoint, lambdaemulator.SampleEndpoint+"/"+lambdaemulator.DeadEvent
	for _, r := range []struct{ method, path, body string }{
		{"POST", "/login", strings.TrimPrefix(link, "/login?")},
		{"GET", "/api/session", ""},
		{"GET", "/api/metrics", ""},
		{"GET", "/api/event-types", ""},
		{"GET", "/api/source-addresses", ""},
		{"GET", "/api/capture-rules", ""},
		{"POST", "/api/capture-rules", `{"remove":["shipped"]}`},
		{"POST", "/api/capture-rules", `{"shipped":true}`},
		{"GET", "/api/event-types/user.posted_comment", ""},
		{"POST", "/api/event-types", `{"remove":[{"type":"user.referred_user"}],"force":true}`},

		{"PUT", "/api/undefined-event-types", `{"allowed":false}`},
		{"GET", "/api/endpoints", ""},
		{"GET", sample, ""},
		{"PUT", sample, `{"url":"` + stage.Receiver + `/200","event_types":["*"],"version":1,"max_age":"300h"}`},
		{"POST", sample + "/rotate-secret", ""},
		{"POST", "/api/endpoint-checks", `{"url":"https://example.com/"}`},
		{"POST", "/api/backfill-estimates", `{"url":"https://example.com/","backfill":"30d","filter":{"data":{"status":["success"]}}}`},
		{"GET", "/api/deliveries/" + event + "/request", ""},
		{"GET", "/api/failed-changes/" + failed.ID, ""},
		{"POST", "/api/endpoints", `{"url":"` + stage.Receiver + `/200","event_types":["*"]}`},
		{"POST", sample + "/pause", ""},
		{"POST", sample + "/resume", ""},
		{"POST", sample + "/disable", ""},
		{"POST", sample + "/enable", ""},
		{"POST", "/api/erasures", `{"subject":"u_erased","dry_run":true}`},
		{"POST", "/api/jobs", `{"kind":"recover","endpoint_id":"` + lambdaemulator.SampleEndpoint + `","from":"2026-01-01T00:00:00Z","dry_run":true}`},
		{"GET", "/api/jobs", ""},
		{"GET", "/api/jobs/" + running.ID, ""},
		{"POST", "/api/jobs/" + running.ID + "/cancel", ""},
		{"DELETE", "/api/endpoints/" + slowEndpoint, ""},
		{"GET", "/api/deliveries?endpoint=" + lambdaemulator.SampleEndpoint, ""},
		{"GET", "/api/deliveries?state=dead", ""},
		{"GET", "/api/deliveries?state=pending", ""},
		{"GET", "/api/deliveries/" + event, ""},
		{"GET", "/api/events/" + lambdaemulator.SampleEvent, ""},
		{"GET", "/api/events?type=user.posted_comment&limit=1", ""},
		{"GET", "/api/audit", ""},
		{"GET", "/api/failed-changes", ""},
		{"POST", "/api/failed-changes/" + failed.ID + "/redrive", ""},
		{"GET", "/api/overview", ""},
		{"GET", "/api/circuits", ""},
		{"GET", "/api/circuits/" + lambdaemulator.SampleEndpoint, ""},
		{"POST", "/api/circuits/" + lambdaemulator.SampleEndpoint + "/close", ""},
		{"POST", sample + "/test", ""},
		{"GET", "/api/discussions", ""},
		{"GET", "/api/discussions/d_1", ""},
		{"POST", "/api/discussions/d_1/extend", `{"to":"` + time.Now().Add(48*time.Hour).UTC().Format(time.RFC3339) + `"}`},
		{"POST", "/api/discussions/d_2/close", ""},
		{"POST", "/api/discussions/d_gone_too/close", ""},
		{"GET", "/api/discussions?view=closed", ""},
		{"POST", "/api/replays", `{"deliveries":[{"endpoint_id":"` + lambdaemulator.SampleEndpoint + `","event_id":"` + lambdaemulator.DeadEvent + `"}]}`},
		{"GET", console.OpenAPIPath, ""},
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

// checkAnswer checks that a request to the console did not fail, which it does without a
// permission, and that the requests before it cover every operation of the OpenAPI
// document, if that was asked for.
func checkAnswer(t *testing.T, payload, answer []byte) {
	t.Helper()
	var request events.LambdaFunctionURLRequest
	var response events.LambdaFunctionURLResponse
	if err := errors.Join(json.Unmarshal(payload, &request), json.Unmarshal(answer, &response)); err != nil {
		t.Fatal(err)
	}
	what := request.RequestContext.HTTP.Method + " " + request.RawPath
	// The stage does not run the functions that the console invokes.
	invokes := strings.HasSuffix(request.RawPath, "/redrive") || what == "POST /api/jobs" || what == "POST /api/erasures" || strings.HasSuffix(request.RawPath, "/cancel") || strings.HasPrefix(request.RawPath, "/api/circuits/") && strings.HasSuffix(request.RawPath, "/close")
	if response.StatusCode >= 500 && !invokes {
		t.Errorf("%s: %d %.300s", what, response.StatusCode, response.Body)
	}
	asked[what] = true
	if request.RawPath != console.OpenAPIPath {
		return
	}
	var doc struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal([]byte(response.Body), &doc); err != nil || len(doc.Paths) < 15 {
		t.Fatalf("%d paths, %v: %.200s", len(doc.Paths), err, response.Body)
	}
	for path, methods := range doc.Paths {
		pattern := regexp.MustCompile("^" + regexp.MustCompile(`\\\{[a-z]+\\\}`).ReplaceAllString(regexp.QuoteMeta(path), "[^/]+") + "$")
		for method := range methods {
			if !slices.ContainsFunc(slices.Collect(maps.Keys(asked)), func(a string) bool {
				m, p, _ := strings.Cut(a, " ")
				return m == strings.ToUpper(method) && pattern.MatchString(p)
			}) {
				t.Errorf("%s %s is not called: its permissions are not tested", strings.ToUpper(method), path)
			}
		}
	}
}

// asked are the requests to the console so far.
var asked = map[string]bool{}

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
