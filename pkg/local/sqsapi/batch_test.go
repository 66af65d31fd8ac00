package sqsapi_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/tidings-dev/tidings/pkg/local/dynamoemulator"
	"github.com/tidings-dev/tidings/pkg/local/sqsapi"
)

// The SDK checks the sums of what it sent, so an answer that it takes is right.
func TestABatchIsSentMessageByMessage(t *testing.T) {
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
		queue := url
		if name == "wrong queue" {
			queue = aws.String(*url + "-not")
		}
		if _, err := client.SendMessageBatch(t.Context(), &sqs.SendMessageBatchInput{QueueUrl: queue, Entries: c.entries}); err == nil || !strings.Contains(err.Error(), c.says) {
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
