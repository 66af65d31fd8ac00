// Package functions_test runs the binaries that are deployed, as Lambda runs
// them: built for provided.al2023, configured by the environment that the
// template sets, asked through the Runtime API, on a real DynamoDB API.
package functions_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tidings-dev/tidings/pkg/capture"
	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/dynamostore"
	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/localdynamo/dynamotest"
	"github.com/tidings-dev/tidings/pkg/template"
)

// answer is what a function said to an invocation.
type answer struct {
	body    []byte
	failure *local.Failure
}

// runtime is the Lambda Runtime API (AWS Lambda Developer Guide, "Using the
// Lambda runtime API"), as much of it as a function's binary uses.
type runtime struct {
	payloads chan []byte
	answers  chan answer
	ended    chan error
	log      *lockedBuffer
}

func (r *runtime) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	const base = "/2018-06-01/runtime/"
	switch path := strings.TrimPrefix(request.URL.Path, base); {
	case path == "invocation/next":
		select {
		case payload := <-r.payloads:
			w.Header().Set("Lambda-Runtime-Aws-Request-Id", "7c1a2f0e-0000-4000-8000-000000000001")
			w.Header().Set("Lambda-Runtime-Deadline-Ms", fmt.Sprint(time.Now().Add(time.Minute).UnixMilli()))
			w.Header().Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:123456789012:function:f")
			_, _ = w.Write(payload)
		case <-request.Context().Done():
		}
	case strings.HasSuffix(path, "/response"):
		body, _ := io.ReadAll(request.Body)
		w.WriteHeader(http.StatusAccepted)
		r.answers <- answer{body: body}
	case strings.HasSuffix(path, "/error"):
		var f local.Failure
		_ = json.NewDecoder(request.Body).Decode(&f)
		w.WriteHeader(http.StatusAccepted)
		r.answers <- answer{failure: &f}
	default:
		w.WriteHeader(http.StatusNotFound)
	}
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
	r := &runtime{payloads: make(chan []byte), answers: make(chan answer, 1), ended: make(chan error, 1), log: &lockedBuffer{}}
	server := httptest.NewServer(r)
	ctx, cancel := context.WithCancel(context.Background())
	c := exec.CommandContext(ctx, binary)
	c.Env = []string{
		"AWS_LAMBDA_RUNTIME_API=" + strings.TrimPrefix(server.URL, "http://"), "AWS_LAMBDA_LOG_FORMAT=JSON", "AWS_LAMBDA_LOG_LEVEL=INFO",
		"AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local", "AWS_EC2_METADATA_DISABLED=true",
	}
	for name, value := range environment {
		c.Env = append(c.Env, name+"="+value)
	}
	c.Stdout, c.Stderr = r.log, r.log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { r.ended <- c.Wait() }()
	t.Cleanup(func() {
		cancel()
		<-r.ended
		server.CloseClientConnections()
		server.Close()
	})
	return r
}

func (r *runtime) invoke(t *testing.T, payload []byte) answer {
	t.Helper()
	timeout := time.After(time.Minute)
	select {
	case r.payloads <- payload:
	case err := <-r.ended:
		r.ended <- err
		t.Fatalf("the function has ended: %v\n%s", err, r.log)
	case <-timeout:
		t.Fatalf("the function does not ask for work\n%s", r.log)
	}
	select {
	case a := <-r.answers:
		return a
	case <-timeout:
		t.Fatalf("the function does not answer\n%s", r.log)
		return answer{}
	}
}

// environments are what the template sets for each function, with AWS's
// endpoints turned to this machine.
func environment(stack *template.Stack, folder, dynamoURL string) map[string]string {
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
	store := dynamostore.New(client, local.Tables(stack.Name))
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
			if string(a.body) != `{"batchItemFailures":null}` && string(a.body) != `{"batchItemFailures":[]}` {
				t.Errorf("%s: %s", name, a.body)
			}
			// The id is derived from the stream's record, so it is known.
			var batch events.DynamoDBEvent
			if err := json.Unmarshal(event(t, name), &batch); err != nil {
				t.Fatal(err)
			}
			list, err := capture.Events(batch.Records[0])
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
	if !strings.Contains(f.log.String(), `"message":"event.accepted"`) {
		t.Errorf("the log is not Lambda's JSON:\n%s", f.log)
	}
}

func TestDispatchAsDeployed(t *testing.T) {
	client, stack := dynamotest.New(t)
	f := start(t, "dispatch", environment(stack, "dispatch", *client.Options().BaseEndpoint))
	store := dynamostore.New(client, local.Tables(stack.Name))
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
	err := <-f.ended
	f.ended <- err
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !strings.Contains(f.log.String(), "DELIVERIES_TABLE") {
		t.Errorf("ended with %v\n%s", err, f.log)
	}
}
