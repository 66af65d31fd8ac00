package sqsapi_test

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/tidings-dev/tidings/pkg/local/dynamoemulator"
	"github.com/tidings-dev/tidings/pkg/local/queue"
	"github.com/tidings-dev/tidings/pkg/local/sqsapi"
)

// The SDK verifies the checksums in the response.
func TestABatchReportsTheMessagesThatAreRefused(t *testing.T) {
	server := httptest.NewServer(sqsapi.New("work"))
	defer server.Close()
	client := sqs.NewFromConfig(dynamoemulator.Config(), func(o *sqs.Options) { o.BaseEndpoint = &server.URL })
	url := aws.String(server.URL + "/" + sqsapi.Account + "/work")
	entry := func(id, body string) types.SendMessageBatchRequestEntry {
		return types.SendMessageBatchRequestEntry{Id: &id, MessageBody: &body}
	}
	out, err := client.SendMessageBatch(t.Context(), &sqs.SendMessageBatchInput{QueueUrl: url, Entries: []types.SendMessageBatchRequestEntry{
		entry("a", "first"), entry("b", "\x01"), entry("c", "third"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Successful) != 2 || len(out.Failed) != 1 || *out.Failed[0].Id != "b" || *out.Failed[0].Code != "InvalidMessageContents" {
		t.Errorf("sent %+v, refused %+v", out.Successful, out.Failed)
	}
	got, err := client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: url, MaxNumberOfMessages: 10})
	if err != nil || len(got.Messages) != 2 || *got.Messages[1].Body != "third" {
		t.Errorf("received %+v, %v", got, err)
	}
	for name, c := range map[string]struct {
		entries []types.SendMessageBatchRequestEntry
		says    string
	}{
		"no message":  {[]types.SendMessageBatchRequestEntry{}, "EmptyBatchRequest"},
		"one id":      {[]types.SendMessageBatchRequestEntry{entry("a", "1"), entry("a", "2")}, "BatchEntryIdsNotDistinct"},
		"too large":   {[]types.SendMessageBatchRequestEntry{entry("a", strings.Repeat("x", 600_000)), entry("b", strings.Repeat("x", 600_000))}, "BatchRequestTooLong"},
		"eleven":      {make11(entry), "TooManyEntriesInBatchRequest"},
		"wrong queue": {[]types.SendMessageBatchRequestEntry{entry("a", "1")}, "NonExistentQueue"},
	} {
		to := url
		if name == "wrong queue" {
			to = aws.String(*url + "-not")
		}
		if _, err := client.SendMessageBatch(t.Context(), &sqs.SendMessageBatchInput{QueueUrl: to, Entries: c.entries}); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %s", name, err, c.says)
		}
	}
}

func make11(entry func(id, body string) types.SendMessageBatchRequestEntry) (list []types.SendMessageBatchRequestEntry) {
	for i := range 11 {
		list = append(list, entry(string(rune('a'+i)), "x"))
	}
	return list
}

// The queue of the local runner behaves the same through the SQS API.
func TestAServedQueueIsReadThroughTheAPI(t *testing.T) {
	dead, err := queue.Open(queue.Config{Name: "dead", Visibility: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	work, err := queue.Open(queue.Config{Name: "work", Visibility: time.Minute, MaxReceives: 1, Dead: dead})
	if err != nil {
		t.Fatal(err)
	}
	service := sqsapi.New()
	service.Serve(work)
	service.Serve(dead)
	server := httptest.NewServer(service)
	defer server.Close()
	client := sqs.NewFromConfig(dynamoemulator.Config(), func(o *sqs.Options) { o.BaseEndpoint = &server.URL })
	listed, err := client.ListQueues(t.Context(), &sqs.ListQueuesInput{})
	if err != nil || len(listed.QueueUrls) != 2 {
		t.Fatalf("queues %+v, %v", listed, err)
	}
	deadURL, workURL := &listed.QueueUrls[0], &listed.QueueUrls[1]
	_, err = client.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: workURL, MessageBody: aws.String("a"), MessageAttributes: map[string]types.MessageAttributeValue{
		"kind": {DataType: aws.String("String"), StringValue: aws.String("test")},
	}})
	if err != nil {
		t.Fatal(err)
	}
	receive := func(url *string, wait int32) []types.Message {
		t.Helper()
		out, err := client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: url, WaitTimeSeconds: wait})
		if err != nil {
			t.Fatal(err)
		}
		return out.Messages
	}
	got := receive(workURL, 0)
	if len(got) != 1 || got[0].Attributes["ApproximateReceiveCount"] != "1" {
		t.Fatalf("received %+v", got)
	}
	if again := receive(workURL, 1); len(again) != 0 {
		t.Errorf("received a message in flight: %+v", again)
	}
	if _, err := client.ChangeMessageVisibility(t.Context(), &sqs.ChangeMessageVisibilityInput{QueueUrl: workURL, ReceiptHandle: got[0].ReceiptHandle}); err != nil {
		t.Fatal(err)
	}
	if again := receive(workURL, 0); len(again) != 0 {
		t.Errorf("received more than MaxReceives times: %+v", again)
	}
	got = receive(deadURL, 0)
	if len(got) != 1 || *got[0].Body != "a" || *got[0].MessageAttributes["kind"].StringValue != "test" {
		t.Errorf("the dead-letter queue has %+v", got)
	}
	if _, err := client.DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: deadURL, ReceiptHandle: got[0].ReceiptHandle}); err != nil {
		t.Fatal(err)
	}
	if s := dead.Stats(); s != (queue.Stats{}) {
		t.Errorf("left after the deletion: %+v", s)
	}
}
