// Package functions_test runs the binaries that are deployed, as Lambda runs
// them: built for provided.al2023, configured by the environment that the
// template sets, asked through the Runtime API, on a real DynamoDB API.
package functions_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
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
	"github.com/tidings-dev/tidings/pkg/emit/capture"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
	"github.com/tidings-dev/tidings/test/dynamotest"
	"github.com/tidings-dev/tidings/test/lambdaemulator"
	"github.com/tidings-dev/tidings/test/streamtest"
)

// answer is what a function said to an invocation.
type answer struct {
	body    []byte
	failure *local.Failure
}

// runtime is a function's process under a Runtime API.
type runtime struct {
	api   *lambdaemulator.Runtime
	ended chan struct{}
	err   error // how it ended, then
	log   *lockedBuffer
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

// start builds a function as the Makefile does and runs it in its environment.
func start(t *testing.T, folder string, environment map[string]string) *runtime {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "bootstrap")
	build := exec.Command("go", "build", "-trimpath", "-tags", "lambda.norpc", "-ldflags", "-s -w", "-o", binary, "./"+folder)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", folder, err, out)
	}
	api, err := lambdaemulator.OpenRuntime()
	if err != nil {
		t.Fatal(err)
	}
	r := &runtime{api: api, ended: make(chan struct{}), log: &lockedBuffer{}}
	ctx, cancel := context.WithCancel(context.Background())
	c := exec.CommandContext(ctx, binary)
	c.Env = []string{
		"AWS_LAMBDA_RUNTIME_API=" + api.Address, "AWS_LAMBDA_LOG_FORMAT=JSON", "AWS_LAMBDA_LOG_LEVEL=INFO",
		"AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local", "AWS_EC2_METADATA_DISABLED=true",
	}
	for name, value := range environment {
		c.Env = append(c.Env, name+"="+value)
	}
	c.Stdout, c.Stderr = r.log, r.log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		r.err = c.Wait()
		close(r.ended)
	}()
	t.Cleanup(func() {
		cancel()
		<-r.ended
		api.Close()
	})
	return r
}

func (r *runtime) invoke(t *testing.T, payload []byte) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got, err := r.api.Invoke(ctx, payload, r.ended)
	if err != nil {
		t.Fatalf("%v\n%s", err, r.log)
	}
	if !got.Failed {
		return answer{body: got.Body}
	}
	var f local.Failure
	if err := json.Unmarshal(got.Body, &f); err != nil {
		t.Fatalf("the function failed with %s: %v", got.Body, err)
	}
	return answer{failure: &f}
}

// environments are what the template sets for each function, with AWS's
// endpoints turned to this machine.
func environment(stack *samtemplate.Stack, folder, dynamoURL string) map[string]string {
	for _, f := range stack.Functions {
		if f.Folder == folder {
			f.Environment["AWS_ENDPOINT_URL_DYNAMODB"] = dynamoURL
			// Nothing listens there: what needs the queue fails, and says so.
			f.Environment["AWS_ENDPOINT_URL_SQS"] = "http://127.0.0.1:1"
			f.Environment["AWS_MAX_ATTEMPTS"] = "1"
			return f.Environment
		}
	}
	return nil
}

func event(t *testing.T, name string) []byte {
	t.Helper()
	payload, err := os.ReadFile(filepath.Join("..", "events", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return payload
}

func TestEmitAsDeployed(t *testing.T) {
	client, stack := dynamotest.New(t)
	f := start(t, "emit", environment(stack, "emit", *client.Options().BaseEndpoint))
	store := dynamo.New(client, local.Tables(stack.Name))
	files, err := filepath.Glob(filepath.Join("..", "events", "emit-*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		a := f.invoke(t, event(t, name))
		if a.failure != nil {
			t.Errorf("%s: %s", name, a.failure.Message)
			continue
		}
		var one emit.Result
		if err := json.Unmarshal(a.body, &one); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		switch name {
		case "emit-list":
			if strings.Count(string(a.body), `"id"`) != 2 {
				t.Errorf("%s: %s", name, a.body)
			}
		case "emit-platform-stream":
			if string(a.body) != `{"batchItemFailures":[]}` {
				t.Errorf("%s: %s", name, a.body)
			}
			// The id is derived from the stream's record, so it is known.
			var batch events.DynamoDBEvent
			if err := json.Unmarshal(event(t, name), &batch); err != nil {
				t.Fatal(err)
			}
			list, err := capture.Events(streamtest.Changes(batch.Records...)[0])
			if err != nil || len(list) != 1 {
				t.Fatalf("%s means %+v, %v", name, list, err)
			}
			if _, err := store.GetEvent(t.Context(), list[0].Event.ID); err != nil {
				t.Errorf("%s is not stored: %v", name, err)
			}
		case "emit-function-url":
			if !strings.Contains(string(a.body), `"statusCode":202`) {
				t.Errorf("%s: %s", name, a.body)
			}
		default:
			if _, err := store.GetEvent(t.Context(), one.ID); err != nil {
				t.Errorf("%s was answered %s, and is not stored: %v", name, a.body, err)
			}
		}
	}
	if a := f.invoke(t, []byte(`{"event":"user.joined_community","data":{}}`)); a.failure == nil || !strings.Contains(a.failure.Message, "data.community_id: is missing") {
		t.Errorf("a refusal: %+v", a)
	}
	// The log comes through a pipe, so a line can arrive after the answer.
	refused := func() bool { return strings.Contains(f.log.String(), `"message":"event.refused"`) }
	for end := time.Now().Add(10 * time.Second); !refused() && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if !refused() {
		t.Errorf("the log is not Lambda's JSON:\n%s", f.log)
	}
}

func TestDispatchAsDeployed(t *testing.T) {
	client, stack := dynamotest.New(t)
	f := start(t, "dispatch", environment(stack, "dispatch", *client.Options().BaseEndpoint))
	store := dynamo.New(client, local.Tables(stack.Name))
	for name, want := range map[string]string{
		"dispatch-stream": `{"batchItemFailures":`, // nobody subscribed: nothing to queue, nothing failed
		"dispatch-sweep":  `{"due":0,"queued":0,"done":true}`,
		"dispatch-sqs":    `{"batchItemFailures":`,
	} {
		a := f.invoke(t, event(t, name))
		if a.failure != nil || !strings.HasPrefix(string(a.body), want) || strings.Contains(string(a.body), "itemIdentifier") {
			t.Errorf("%s: %s, %+v", name, a.body, a.failure)
		}
	}
	// The sample message's endpoint does not exist here.
	d, err := store.GetDelivery(t.Context(), delivery.Key{EndpointID: "ep_01KG4VZS4NCPSXFR1K831Q4SB0", EventID: "01KG4VZS4NCPSXFR1K7QEWBC9B"})
	if err != nil || d.State != delivery.Skipped {
		t.Errorf("delivery = %+v, %v; want it skipped", d, err)
	}
	for name, says := range map[string]string{"dispatch-replay": "has no endpoint", "dispatch-replay-dead": "has no endpoint"} {
		if a := f.invoke(t, event(t, name)); a.failure == nil || !strings.Contains(a.failure.Message, says) {
			t.Errorf("%s: %s, %+v", name, a.body, a.failure)
		}
	}
}

func TestAFunctionWithoutItsEnvironmentSaysWhatIsMissing(t *testing.T) {
	f := start(t, "dispatch", map[string]string{"EVENTS_TABLE": "e"})
	<-f.ended
	var exit *exec.ExitError
	if !errors.As(f.err, &exit) || !strings.Contains(f.log.String(), "DELIVERIES_TABLE") {
		t.Errorf("ended with %v\n%s", f.err, f.log)
	}
}
