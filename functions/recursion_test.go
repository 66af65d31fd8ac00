package functions_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"testing"

	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/test/dynamotest"
	"github.com/tidings-dev/tidings/test/lambdaemulator"
)

// loopLimit is how many times a message may pass through the same function before Lambda
// stops the chain ("Use Lambda recursive loop detection to prevent infinite loops").
const loopLimit = 16

var lineage = regexp.MustCompile(`;Lineage=1:[0-9a-f]+:([0-9]+)`)

// A delivery to a receiver that is down for days is a chain of messages from dispatch to
// its own queue. Lambda counts its rounds in the trace header, which AWS's SDK passes on
// from the invocation to the message, and stops the function in a loop.
func TestRetriesAreNotStoppedAsALoop(t *testing.T) {
	t.Parallel()
	client, _ := dynamotest.New(t)
	stage, err := lambdaemulator.Open(t.Context(), "..", "recursion", *client.Options().BaseEndpoint)
	if err != nil {
		t.Fatal(err)
	}
	defer stage.Close()
	const failing = "ep_01KG4VZS4NCPSXFR1K831Q4SB9"
	e := endpoint.Endpoint{ID: failing, URL: stage.Receiver + "/" + strconv.Itoa(http.StatusServiceUnavailable), Retry: lambdaemulator.ForEver}
	if err := stage.Add(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	f := stage.Function("dispatch")
	environment := stage.Environment(f)
	environment["AWS_LAMBDA_FUNCTION_NAME"] = f.Name // Lambda sets it, and the SDK asks for it
	dispatch := start(t, "dispatch", environment)

	body := fmt.Sprintf(`{"tenant":"default","endpoint_id":%q,"event_id":%q,"attempts":0}`, failing, lambdaemulator.SampleEvent)
	for round := 0; round <= 2*loopLimit; round++ {
		if round > loopLimit && f.RecursiveLoop != "Allow" {
			t.Fatalf("Lambda stops the chain after %d rounds and moves the message to the dead-letter queue: RecursiveLoop is %q", round-1, f.RecursiveLoop)
		}
		dispatch.api.Trace = fmt.Sprintf("Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=0;Lineage=1:fc3b4ff1:%d", round)
		stage.AWS.Sent()
		if got := dispatch.invoke(t, queueBatch(t, body)); got.failure != nil || string(got.body) != `{"batchItemFailures":[]}` {
			t.Fatalf("round %d: %s %v", round, got.body, got.failure)
		}
		sent := stage.AWS.Sent()
		if len(sent) != 1 {
			t.Fatalf("round %d: dispatch sends %d messages, want the next round's\n%s", round, len(sent), dispatch.log)
		}
		if m := lineage.FindStringSubmatch(sent[0].Trace); m == nil || m[1] != strconv.Itoa(round) {
			t.Fatalf("round %d: the message has the trace header %q: Lambda would not see a chain, and this test would prove nothing", round, sent[0].Trace)
		}
		body = sent[0].Body
	}
}

// queueBatch returns the event of a work queue with one message.
func queueBatch(t *testing.T, body string) []byte {
	t.Helper()
	var batch map[string][]map[string]any
	if err := json.Unmarshal(sample(t, "dispatch-sqs"), &batch); err != nil {
		t.Fatal(err)
	}
	batch["Records"][0]["body"] = body
	payload, err := json.Marshal(batch)
	if err != nil {
		t.Fatal(err)
	}
	return payload
}
