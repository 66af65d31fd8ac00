// Package functions_test runs the functions' binaries as Lambda runs them: built with
// the flags of a deployment, configured by the environment variables of the template,
// invoked through the Runtime API, with a local DynamoDB.
package functions_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/emit/capture/rules"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
	"github.com/tidings-dev/tidings/pkg/ops/health"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
	"github.com/tidings-dev/tidings/test/dynamotest"
	"github.com/tidings-dev/tidings/test/lambdaemulator"
	"github.com/tidings-dev/tidings/test/streamtest"
)

// response is a function's response to an invocation.
type response struct {
	body    []byte
	failure *local.Failure
}

// process is a function's process, which invokes it through a Runtime API.
type process struct {
	api    *lambdaemulator.Runtime
	exited chan struct{}
	err    error // from Wait; read it after exited is closed
	log    *lockedBuffer
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// version is what the build stamps into the binaries.
const version = "v0.0.0-test"

// binaries builds each function, by folder, at most once per run of the tests.
var binaries = map[string]func() (string, error){}

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "tidings-functions-")
		if err != nil {
			panic(err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		mains, err := filepath.Glob("*/main.go")
		if err != nil || len(mains) == 0 {
			panic(fmt.Sprint("no functions found: ", err))
		}
		for _, main := range mains {
			folder := filepath.Dir(main)
			binaries[folder] = sync.OnceValues(func() (string, error) { return build(folder, filepath.Join(dir, folder)) })
		}
		return m.Run()
	}())
}

// build builds a function with the flags of the Makefile, for this machine.
func build(folder, binary string) (string, error) {
	command := exec.Command("go", "build", "-trimpath", "-tags", "lambda.norpc", "-ldflags", "-s -w -X main.version="+version, "-o", binary, "./"+folder)
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", folder, err, out)
	}
	return binary, nil
}

// start runs a function's binary with environment variables until the test ends.
func start(t *testing.T, folder string, environment map[string]string) *process {
	t.Helper()
	if testing.Short() {
		t.Skip("builds a function")
	}
	binary, err := binaries[folder]()
	if err != nil {
		t.Fatal(err)
	}
	api, err := lambdaemulator.OpenRuntime()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{api: api, exited: make(chan struct{}), log: &lockedBuffer{}}
	ctx, cancel := context.WithCancel(context.Background())
	c := exec.CommandContext(ctx, binary)
	c.Env = []string{
		"AWS_LAMBDA_RUNTIME_API=" + api.Address, "AWS_LAMBDA_LOG_FORMAT=JSON", "AWS_LAMBDA_LOG_LEVEL=INFO",
		"AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local", "AWS_EC2_METADATA_DISABLED=true",
	}
	for name, value := range environment {
		c.Env = append(c.Env, name+"="+value)
	}
	c.Stdout, c.Stderr = p.log, p.log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = c.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		cancel()
		<-p.exited
		api.Close()
	})
	return p
}

func (p *process) invoke(t *testing.T, payload []byte) response {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got, err := p.api.Invoke(ctx, payload, p.exited)
	if err != nil {
		t.Fatalf("%v\n%s", err, p.log)
	}
	if !got.Failed {
		return response{body: got.Body}
	}
	var f local.Failure
	if err := json.Unmarshal(got.Body, &f); err != nil {
		t.Fatalf("decode the function's error %s: %v", got.Body, err)
	}
	return response{failure: &f}
}

// environment returns the environment variables that the template sets for a function,
// with AWS's endpoints replaced by local ones.
func environment(stack *samtemplate.Stack, folder, dynamoURL string) map[string]string {
	for _, f := range stack.Functions {
		if f.Folder == folder {
			f.Environment["AWS_ENDPOINT_URL_DYNAMODB"] = dynamoURL
			// Nothing listens there, so requests to the queue fail.
			f.Environment["AWS_ENDPOINT_URL_SQS"] = "http://127.0.0.1:1"
			f.Environment["AWS_MAX_ATTEMPTS"] = "1"
			return f.Environment
		}
	}
	return nil
}

// sample reads a payload of events/.
func sample(t *testing.T, name string) []byte {
	t.Helper()
	payload, err := os.ReadFile(filepath.Join("..", "events", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return payload
}

// ofStack makes records of the platform's table those of a stack's.
func ofStack(stack string, payload []byte) []byte {
	return bytes.ReplaceAll(payload, []byte("table/tidings-Platform/"), []byte("table/"+local.Tables(stack).Platform+"/"))
}

func TestEmitAcceptsEverySample(t *testing.T) {
	t.Parallel()
	client, stack := dynamotest.New(t)
	f := start(t, "emit", environment(stack, "emit", *client.Options().BaseEndpoint))
	store := dynamo.New(client, local.Tables(stack.Name))
	files, err := filepath.Glob(filepath.Join("..", "events", "emit-*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		payload := ofStack(stack.Name, sample(t, name))
		got := f.invoke(t, payload)
		if got.failure != nil {
			t.Errorf("%s: %s", name, got.failure.Message)
			continue
		}
		var result emit.Result
		if err := json.Unmarshal(got.body, &result); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		switch name {
		case "emit-list":
			if strings.Count(string(got.body), `"id"`) != 2 {
				t.Errorf("%s: %s", name, got.body)
			}
		case "emit-queue":
			if string(got.body) != `{"batchItemFailures":[]}` {
				t.Errorf("%s: %s", name, got.body)
			}
		case "emit-platform-stream":
			if string(got.body) != `{"batchItemFailures":[]}` {
				t.Errorf("%s: %s", name, got.body)
			}
			// The event's id is derived from the stream record.
			var batch events.DynamoDBEvent
			if err := json.Unmarshal(payload, &batch); err != nil {
				t.Fatal(err)
			}
			list, err := rules.Shipped().Events(streamtest.Changes(batch.Records...)[0])
			if err != nil || len(list) != 1 {
				t.Fatalf("%s: captured %+v, error %v; want one event", name, list, err)
			}
			if _, err := store.GetEvent(t.Context(), list[0].Event.ID); err != nil {
				t.Errorf("%s: the event is not stored: %v", name, err)
			}
		case "emit-recapture":
			if !strings.Contains(string(got.body), platform.ErrNoFailedChange.Error()) {
				t.Errorf("%s: %s", name, got.body)
			}
		case "emit-check-rules":
			if string(got.body) != `{"rules":[[{"event":"order.paid","line":2,"column":12}]]}` {
				t.Errorf("%s: %s", name, got.body)
			}
		case "emit-check-types":
			if !strings.Contains(string(got.body), `{"problems":[{"at":1,"type":"order.paid","line":15,"column":5,`) {
				t.Errorf("%s: %s", name, got.body)
			}
		case "emit-function-url":
			if !strings.Contains(string(got.body), `"statusCode":202`) {
				t.Errorf("%s: %s", name, got.body)
			}
		default:
			if _, err := store.GetEvent(t.Context(), result.ID); err != nil {
				t.Errorf("%s: response %s, but the event is not stored: %v", name, got.body, err)
			}
		}
	}
	got := f.invoke(t, []byte(`{"event":"user.joined_community","data":{}}`))
	if got.failure == nil || !strings.Contains(got.failure.Message, "data.community_id: is missing") {
		t.Errorf("an event without its required data: %+v", got)
	}
	// The log comes through a pipe, so a line can arrive after the response.
	logged := func() bool { return strings.Contains(f.log.String(), `"message":"event.refused"`) }
	for end := time.Now().Add(time.Minute); !logged() && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if !logged() {
		t.Errorf("event.refused is not in the log as JSON:\n%s", f.log)
	}
}

func TestDispatchHandlesEverySample(t *testing.T) {
	t.Parallel()
	client, stack := dynamotest.New(t)
	f := start(t, "dispatch", environment(stack, "dispatch", *client.Options().BaseEndpoint))
	store := dynamo.New(client, local.Tables(stack.Name))
	for name, prefix := range map[string]string{
		"dispatch-stream": `{"batchItemFailures":`, // no endpoint subscribes, so nothing is queued and nothing fails
		"dispatch-sweep":  `{"due":0,"queued":0,"done":true}`,
		"dispatch-sqs":    `{"batchItemFailures":`,
	} {
		got := f.invoke(t, sample(t, name))
		if got.failure != nil || !strings.HasPrefix(string(got.body), prefix) || strings.Contains(string(got.body), "itemIdentifier") {
			t.Errorf("%s: %s, %+v", name, got.body, got.failure)
		}
	}
	// dispatch-sqs names an endpoint that does not exist.
	d, err := store.GetDelivery(t.Context(), delivery.Key{EndpointID: "ep_01KG4VZS4NCPSXFR1K831Q4SB0", EventID: "01KG4VZS4NCPSXFR1K7QEWBC9B"})
	if err != nil || d.State != delivery.Skipped {
		t.Errorf("delivery = %+v, error %v; want it skipped", d, err)
	}
	for _, name := range []string{"dispatch-replay", "dispatch-replay-dead"} {
		if got := f.invoke(t, sample(t, name)); got.failure == nil || !strings.Contains(got.failure.Message, "has no endpoint") {
			t.Errorf("%s: %s, %+v", name, got.body, got.failure)
		}
	}
}

func TestHealthReportsTheVersionOfTheBuild(t *testing.T) {
	t.Parallel()
	client, _ := dynamotest.New(t)
	stage, err := lambdaemulator.Open(t.Context(), "..", dynamotest.StackName(t), *client.Options().BaseEndpoint)
	if err != nil {
		t.Fatal(err)
	}
	defer stage.Close()
	f := start(t, "health", stage.Environment(stage.Function("health")))
	var report health.Report
	got := f.invoke(t, []byte(`{"action":"report"}`))
	if err := json.Unmarshal(got.body, &report); err != nil || report.Version != version {
		t.Errorf("version %q, want %q: %s, %+v", report.Version, version, got.body, got.failure)
	}
}

func TestAMissingEnvironmentVariableIsNamedInTheLog(t *testing.T) {
	t.Parallel()
	f := start(t, "dispatch", map[string]string{"EVENTS_TABLE": "e"})
	<-f.exited
	var exit *exec.ExitError
	if !errors.As(f.err, &exit) || !strings.Contains(f.log.String(), "DELIVERIES_TABLE") {
		t.Errorf("exited with %v\n%s", f.err, f.log)
	}
}
