//go:build rig

package deploy_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/test/checkout"
	"github.com/tidings-dev/tidings/test/ministack"
)

const (
	// The stacks of samconfig.toml.
	environment = "staging"
	stackName   = "tidings-staging"
	secondStack = "tidings"
	prodStack   = "tidings-prod"
	// alertSecret has characters that are special in a shell.
	alertSecret = "ops/alerts+a=b@c"
)

// Bearer tokens of the health report, and their SHA-256.
var (
	firstToken  = [2]string{"first", "a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e"}
	secondToken = [2]string{"second", "16367aacb67a4a017c8da8ab95682ccb390863780f7114dda0a0e0c55644c7c4"}
)

// TestDeploy deploys the template to an emulator of AWS with `sam deploy` and uses the stack
// as its users do: with the CLI, the function URLs, the platform's table and the
// schedules. It changes parameters and code, deploys a stack beside it whose console needs
// no AWS credentials, deletes that, and deploys it again over what remains.
func TestDeploy(t *testing.T) {
	root, err := checkout.Path()
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	began := time.Now()
	step := func(name string, do func()) { t.Helper(); step(t, name, do) }
	emulator := start(t, root, work)
	step("each edit of the template for the emulator is still needed", func() { expectGaps(t, emulator) })
	built := filepath.Join(work, "built")
	step("sam build", func() {
		if err := emulator.Build(t.Context(), built); err != nil {
			t.Fatal(err)
		}
	})

	first := &stack{t: t, emulator: emulator, root: root, name: stackName}
	receiver := newReceiver(t)
	parameters := map[string]string{
		"AllowHttp": "true", "AllowNetworks": "127.0.0.0/8", "CloseEveryMinutes": "1", "HealthTokenSha256": firstToken[1],
		"AlarmEmail": "ops@example.com", "AlertSecret": alertSecret, "AlertPending": "200", "HealthAccess": "NONE",
	}
	step("sam deploy", func() {
		_, err := secretsmanager.NewFromConfig(emulator.Access()).CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{
			Name: aws.String(alertSecret), SecretString: aws.String(`{"slack_webhook_url":"` + receiver.url + `/slack"}`),
		})
		if err != nil {
			t.Fatal(err)
		}
		first.deploy(built, environment, parameters)
	})
	first.use(receiver)

	parameters = changed(parameters, map[string]string{
		"HealthTokenSha256": secondToken[1], "LogLevel": "WARN", "SystemLogLevel": "INFO", "TraceSampling": "100", "AllowNetworks": "127.0.0.0/8,10.0.0.0/8",
		"GoogleProvider": "projects/1/locations/global/workloadIdentityPools/tidings/providers/aws", "CloseEveryMinutes": "2", "AlertPending": "300",
	})
	step("sam deploy with changed parameters and code", func() {
		before := first.live("dispatch")
		copyWith(t, built, filepath.Join(work, "changed"), changeBinary)
		first.deploy(filepath.Join(work, "changed"), environment, parameters)
		if after := first.live("dispatch"); aws.ToString(after.CodeSha256) == aws.ToString(before.CodeSha256) {
			t.Errorf("live has version %s with the old code", aws.ToString(after.Version))
		}
	})
	step("every function's live version has the new values", func() { first.expectNewValues() })

	beside := &stack{t: t, emulator: emulator, root: root, name: secondStack}
	beside.besides(first, receiver, built)
	fmt.Printf("%6.1f s  all\n", time.Since(began).Seconds())
}

// start starts the emulator.
func start(t *testing.T, root, work string) (emulator *ministack.Emulator) {
	t.Helper()
	step(t, "start the emulator", func() {
		var err error
		if emulator, err = ministack.Start(t.Context(), root, work); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(emulator.Stop)
	})
	return emulator
}

// copyWith copies what was built, and changes dispatch's binary in the copy.
func copyWith(t *testing.T, built, folder string, change func(t *testing.T, binary string)) {
	t.Helper()
	if err := os.CopyFS(folder, os.DirFS(built)); err != nil {
		t.Fatal(err)
	}
	change(t, filepath.Join(folder, "DispatchFunction", "bootstrap"))
}

// changeBinary makes a binary another one that does the same: a program ends where its
// headers say.
func changeBinary(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString("another version")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// functions are those of a stack with a test receiver.
var functions = []string{"emit", "dispatch", "test-webhook", "close-discussions", "console", "health", "test-receiver"}

// expectNewValues checks that each function's live version has the configuration that was
// deployed last, whatever it is, and that single values have arrived.
func (s *stack) expectNewValues() {
	s.t.Helper()
	client := lambda.NewFromConfig(s.emulator.Access())
	for _, function := range functions {
		live := s.live(function)
		newest, err := client.GetFunctionConfiguration(s.t.Context(), &lambda.GetFunctionConfigurationInput{FunctionName: aws.String(s.name + "-" + function)})
		if err != nil {
			s.t.Fatal(err)
		}
		for what, values := range map[string][2]any{
			"environment": {live.Environment, newest.Environment}, "log levels": {live.LoggingConfig, newest.LoggingConfig},
			"tracing": {live.TracingConfig, newest.TracingConfig}, "code": {aws.ToString(live.CodeSha256), aws.ToString(newest.CodeSha256)},
		} {
			got, _ := json.Marshal(values[0])
			want, _ := json.Marshal(values[1])
			if string(got) != string(want) {
				s.t.Errorf("%s of the live version %s of %s:\n%s\ndeployed was\n%s", what, aws.ToString(live.Version), function, got, want)
			}
		}
	}
	for function, variables := range map[string]map[string]string{
		"health":       {"ALERT_PENDING": "300", "HEALTH_TOKEN_SHA256": secondToken[1], "ALERT_SECRET": alertSecret, "ALERT_VOLUME": "20"},
		"dispatch":     {"ALLOW_NETWORKS": "127.0.0.0/8,10.0.0.0/8", "TRACE_SAMPLING": "100"},
		"test-webhook": {"GOOGLE_PROVIDER": "projects/1/locations/global/workloadIdentityPools/tidings/providers/aws"},
		"console":      {"CLOSE_EVERY_MINUTES": "2"},
	} {
		for name, want := range variables {
			if got := s.live(function).Environment.Variables[name]; got != want {
				s.t.Errorf("%s of %s is %q, want %q", name, function, got, want)
			}
		}
	}
	s.expectReport(firstToken[0], http.StatusUnauthorized)
	s.expectReport(secondToken[0], http.StatusOK)
}

// expectReport asks for the health report with a bearer token.
func (s *stack) expectReport(token string, status int) {
	s.t.Helper()
	if got, body := s.call(false, "health", http.MethodGet, "/report", "", map[string]string{"Authorization": "Bearer " + token}); got != status {
		s.t.Errorf("the health report with the token %q: %d %s", token, got, body)
	}
}

// use uses a new stack for everything that it is for.
func (s *stack) use(receiver *receiver) {
	s.t.Helper()
	began := time.Now()
	step := func(name string, do func()) { s.t.Helper(); step(s.t, name, do) }
	db := dynamodb.NewFromConfig(s.emulator.Access())
	put := func(item map[string]types.AttributeValue) {
		s.t.Helper()
		if _, err := db.PutItem(s.t.Context(), &dynamodb.PutItemInput{TableName: aws.String(s.name + "-Platform"), Item: item}); err != nil {
			s.t.Fatal(err)
		}
	}
	text := func(v string) types.AttributeValue { return &types.AttributeValueMemberS{Value: v} }
	number := func(n int64) types.AttributeValue { return &types.AttributeValueMemberN{Value: fmt.Sprint(n)} }
	sample := func(name string) string {
		s.t.Helper()
		body, err := os.ReadFile(filepath.Join(s.root, "events", name+".json"))
		if err != nil {
			s.t.Fatal(err)
		}
		return string(body)
	}
	emit := func(name string) { s.tidings(nil, "emit", "--file", filepath.Join("events", name+".json")) }
	invoke := func(payload string) {
		s.t.Helper()
		out, err := lambda.NewFromConfig(s.emulator.Access()).Invoke(s.t.Context(), &lambda.InvokeInput{FunctionName: aws.String(s.name + "-emit:live"), Payload: []byte(payload)})
		if err != nil || out.FunctionError != nil {
			s.t.Fatalf("%v %s", err, out.Payload)
		}
	}
	state := func(endpoint, state string) bool {
		var list []console.Delivery
		s.tidings(&list, "delivery", "list", "--endpoint", endpoint)
		return slices.ContainsFunc(list, func(d console.Delivery) bool { return string(d.State) == state })
	}

	step("the health URL answers 503 before the first sweep, to everybody", func() {
		// On a slow machine the schedule may have been first.
		if status, body := s.call(false, "health", http.MethodGet, "/", "", nil); status != http.StatusServiceUnavailable && !s.swept() {
			s.t.Errorf("%d %s", status, body)
		}
		s.expectReport("wrong", http.StatusUnauthorized)
		s.expectReport(firstToken[0], http.StatusOK)
	})
	// All of them before the first event: dispatch keeps the list of endpoints for a while.
	var all, breaking, dead string
	step("add endpoints by the CLI with --stack", func() {
		all = s.endpoint(receiver, "/all")
		s.endpoint(receiver, "/retry", "--types", "user.flagged_comment", "--max-delay", "1s")
		s.endpoint(receiver, "/limited", "--types", "user.referred_user", "--rate-per-minute", "30", "--burst", "1")
		breaking = s.endpoint(receiver, "/circuit", "--types", "user.posted_comment", "--max-delay", "1s", "--breaker-failures", "2", "--breaker-open-for", "10m")
		dead = s.endpoint(receiver, "/dead", "--types", "user.joined_platform", "--max-attempts", "1")
		for path, status := range map[string]int{"/retry": http.StatusServiceUnavailable, "/circuit": http.StatusInternalServerError, "/dead": http.StatusInternalServerError} {
			receiver.answer(path, status)
		}
	})
	token := strings.TrimSpace(s.tidings(nil, "console", "login", "--token", "--role", "operator"))
	api := func(method, path, body string) (int, []byte) {
		s.t.Helper()
		return s.call(true, "console", method, path, body, map[string]string{"X-Tidings-Session": token})
	}
	step("add an endpoint by the console's URL; an unsigned request is refused", func() {
		body := `{"url":"` + receiver.url + `/console","event_types":["user.joined_community"]}`
		status, out := api(http.MethodPost, "/api/endpoints", body)
		var added console.WithSecret
		if err := json.Unmarshal(out, &added); status >= 300 || err != nil {
			s.t.Fatalf("%d %s", status, out)
		}
		receiver.know("/console", added.Secret)
		if status, out := s.call(false, "console", http.MethodGet, "/", "", nil); status != http.StatusForbidden {
			s.t.Errorf("unsigned: %d %s", status, out)
		}
	})
	step("emit by the CLI, by Invoke, and by the signed function URL; unsigned is refused", func() {
		emit("emit-user-joined-community")
		invoke(sample("emit-user-registered-event"))
		if status, out := s.call(true, "emit", http.MethodPost, "/", sample("emit-user-cancelled-registration"), nil); status >= 300 {
			s.t.Errorf("signed: %d %s", status, out)
		}
		if status, out := s.call(false, "emit", http.MethodPost, "/", sample("emit-user-cancelled-registration"), nil); status != http.StatusForbidden {
			s.t.Errorf("unsigned: %d %s", status, out)
		}
	})
	step("receive and verify each webhook, once", func() {
		for _, event := range []string{"user.joined_community", "user.registered_event", "user.cancelled_registration"} {
			s.delivered(receiver, "/all", event, 1)
		}
		s.delivered(receiver, "/console", "user.joined_community", 1)
		if ids := receiver.ids("/all", ""); len(ids) != 3 {
			s.t.Errorf("three events have the ids %q", ids)
		}
	})
	step("put a discussion that has ended into the platform's table, for the schedule", func() {
		now := time.Now()
		put(map[string]types.AttributeValue{
			"pk": text("DISCUSSION#d_1"), "sk": text("META"), "kind": text("discussion"), "discussion_id": text("d_1"), "community_id": text("c_7"), "status": text("open"),
			"expires_at": number(now.Add(-time.Second).UnixMilli()), "expiring_shard": number(1), "created_at": number(now.Add(-time.Hour).UnixMilli()),
		})
	})
	step("capture an event from the platform's table", func() {
		n := len(receiver.ids("/console", "user.joined_community"))
		put(map[string]types.AttributeValue{
			"pk": text("USER#u_2"), "sk": text("MEMBER#c_7"), "kind": text("membership"), "user_id": text("u_2"), "community_id": text("c_7"),
			"community_name": text("Gophers Berlin"), "created_at": number(time.Now().UnixMilli()),
		})
		s.delivered(receiver, "/console", "user.joined_community", n+1)
	})
	step("keep a change that cannot become an event", func() {
		put(map[string]types.AttributeValue{"pk": text("USER#u_3"), "sk": text("MEMBER#c_7"), "kind": text("membership"), "community_id": text("c_7"), "created_at": number(time.Now().UnixMilli())})
		s.until("a failed change", func() bool { return strings.Contains(s.tidings(nil, "capture", "list", "--json"), "USER#u_3") })
	})
	step("retry after 503s", func() {
		emit("emit-user-flagged-comment")
		s.until("two attempts", func() bool { return len(receiver.requests("/retry", "")) >= 2 })
		receiver.answer("/retry", http.StatusNoContent)
		s.delivered(receiver, "/retry", "user.flagged_comment", 1)
	})
	step("hold a rate limit of one in two seconds", func() {
		began := time.Now() // a slow machine may delay the first request, but bring none too early
		invoke(`{"events":[` + strings.Repeat(sample("emit-user-referred-user")+",", 3) + sample("emit-user-referred-user") + `]}`)
		s.delivered(receiver, "/limited", "user.referred_user", 4)
		if took := receiver.requests("/limited", "")[3].at.Sub(began); took < 5*time.Second {
			s.t.Errorf("four events came within %s", took) // it is six
		}
	})
	step("open a circuit, close it, deliver", func() {
		emit("emit-user-posted-comment")
		s.until("an open circuit", func() bool { return strings.Contains(s.tidings(nil, "circuit", "list"), breaking) })
		receiver.answer("/circuit", http.StatusNoContent)
		s.tidings(nil, "circuit", "close", breaking)
		s.delivered(receiver, "/circuit", "user.posted_comment", 1)
	})
	step("a dead letter", func() {
		emit("emit-user-joined-platform")
		s.until("dead", func() bool { return state(dead, "dead") })
	})
	step("tidings doctor: what the stack lacks for production", func() {
		out, complaint, code := s.run("", "doctor")
		if code != 1 || strings.Count(string(out), "\n") != 7 || !strings.Contains(string(out), "UrlConcurrency") || !strings.Contains(string(out), "✓ Slack and heartbeat") {
			s.t.Errorf("it exits with %d\n%s%s", code, out, complaint)
		}
	})
	step("tidings test: a signed sample, delivered by test-webhook", func() {
		s.tidings(nil, "test", all)
		if got := receiver.requests("/all", ""); !got[len(got)-1].verified {
			s.t.Error("the sample's signature is wrong")
		}
	})
	step("tidings alert test: a message in Slack", func() {
		s.tidings(nil, "alert", "test")
		s.until("a message in Slack", func() bool { return len(receiver.requests("/slack", "")) > 0 })
	})
	step("the schedule closes the discussion", func() { s.delivered(receiver, "/all", "discussion.auto_closed", 1) })
	step("the health URL answers 200 after the first sweep", func() {
		s.until("healthy", func() bool {
			status, _ := s.call(false, "health", http.MethodGet, "/", "", nil)
			return status == http.StatusOK
		})
	})
	step("the schedule sends an alert about the dead letter to Slack", func() {
		s.until("an alert", func() bool {
			return slices.ContainsFunc(receiver.requests("/slack", ""), func(q request) bool { return strings.Contains(q.body, "dead letter") })
		})
	})
	step("replay the dead letter", func() {
		receiver.answer("/dead", http.StatusNoContent)
		s.tidings(nil, "delivery", "replay", "--endpoint", dead, "--yes")
		s.delivered(receiver, "/dead", "user.joined_platform", 1)
	})
	step("redrive a message of the dead-letter queue", func() {
		queues := sqs.NewFromConfig(s.emulator.Access())
		queue, err := queues.GetQueueUrl(s.t.Context(), &sqs.GetQueueUrlInput{QueueName: aws.String(s.name + "-work-dead")})
		if err != nil {
			s.t.Fatal(err)
		}
		item := fmt.Sprintf(`{"tenant":"default","endpoint_id":%q,"event_id":%q,"attempts":0}`, dead, receiver.requests("/dead", "")[0].id)
		// A sweep, once in ten minutes, may take the message before the command does.
		s.until("a message redriven by the command", func() bool {
			if _, err := queues.SendMessage(s.t.Context(), &sqs.SendMessageInput{QueueUrl: queue.QueueUrl, MessageBody: &item, MessageGroupId: &dead}); err != nil {
				s.t.Fatal(err)
			}
			return !strings.HasPrefix(s.tidings(nil, "redrive"), "0 ")
		})
	})
	step("every GET of the console's API", func() { s.everyGet(api, all, receiver.requests("/all", "")[0].id) })
	fmt.Printf("%6.1f s  from the deployment to here\n", time.Since(began).Seconds())
}

// everyGet calls each GET operation that the console's OpenAPI document names.
func (s *stack) everyGet(api func(method, path, body string) (int, []byte), endpoint, event string) {
	s.t.Helper()
	get := func(path string) []byte {
		s.t.Helper()
		status, body := api(http.MethodGet, path, "")
		if status != http.StatusOK {
			s.t.Errorf("GET %s: %d %s", path, status, body)
		}
		return body
	}
	var document struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal(get(console.OpenAPIPath), &document); err != nil {
		s.t.Fatal(err)
	}
	var failed struct {
		Changes []struct {
			ID string `json:"id"`
		} `json:"changes"`
	}
	if err := json.Unmarshal(get("/api/failed-changes"), &failed); err != nil || len(failed.Changes) == 0 {
		s.t.Fatalf("no failed changes (%v)", err)
	}
	var known struct {
		Jobs []struct {
			ID string `json:"id"`
		} `json:"jobs"`
	}
	if err := json.Unmarshal(get("/api/jobs"), &known); err != nil || len(known.Jobs) == 0 {
		s.t.Fatalf("no jobs, although deliveries were replayed (%v)", err)
	}
	asked := 0
	for path, operations := range document.Paths {
		if operations["get"] == nil {
			continue
		}
		ids := endpoint
		switch {
		case strings.HasPrefix(path, "/api/discussions/"):
			ids = "d_1"
		case strings.HasPrefix(path, "/api/failed-changes/"):
			ids = failed.Changes[0].ID
		case strings.HasPrefix(path, "/api/jobs/"):
			ids = known.Jobs[0].ID
		}
		get(strings.NewReplacer("{id}", ids, "{endpoint}", endpoint, "{event}", event, "{type}", "user.joined_platform").Replace(path))
		asked++
	}
	if asked < 15 {
		s.t.Errorf("only %d operations were asked for", asked)
	}
}
