package sqsqueue_test

import (
	"fmt"
	"net/http/httptest"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/tidings-dev/tidings/pkg/aws/sqsqueue"
	"github.com/tidings-dev/tidings/pkg/local/sqsapi"
)

func TestDeadLetters(t *testing.T) {
	server := httptest.NewServer(sqsapi.New("work-dead"))
	t.Cleanup(server.Close)
	client := sqs.New(sqs.Options{Region: "us-east-1", BaseEndpoint: &server.URL, Credentials: aws.NewCredentialsCache(credentials.NewStaticCredentialsProvider("a", "b", ""))})
	url := server.URL + "/" + sqsapi.Account + "/work-dead"
	for i := range 12 {
		if _, err := client.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: aws.String(fmt.Sprint("letter ", i))}); err != nil {
			t.Fatal(err)
		}
	}
	dead := sqsqueue.NewDeadLetters(client, url)
	first, err := dead.Take(t.Context())
	if err != nil || len(first) != 10 {
		t.Fatalf("took %d, %v; want 10, the maximum of SQS", len(first), err)
	}
	second, err := dead.Take(t.Context())
	if err != nil || len(second) != 2 {
		t.Fatalf("second Take: %d, %v; want 2", len(second), err)
	}
	found := map[string]bool{}
	for _, letter := range append(first, second...) {
		found[letter.Body] = true
	}
	if len(found) != 12 {
		t.Errorf("%d different letters, want 12", len(found))
	}
	if err := dead.Remove(t.Context(), append(first, second...)); err != nil {
		t.Fatal(err)
	}
	if rest, err := dead.Take(t.Context()); err != nil || len(rest) != 0 {
		t.Errorf("after Remove: %v, %v", rest, err)
	}
	gone := sqsqueue.NewDeadLetters(client, server.URL+"/"+sqsapi.Account+"/nowhere")
	if _, err := gone.Take(t.Context()); err == nil {
		t.Error("a missing queue returns no error")
	}
	if err := gone.Remove(t.Context(), first); err == nil {
		t.Error("letters are removed from a missing queue")
	}
}
