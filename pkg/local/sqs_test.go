package local_test

import (
	"maps"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/tidings-dev/tidings/pkg/aws/sqsqueue"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/receiver"
	"github.com/tidings-dev/tidings/pkg/local/sqsapi"
)

func TestTheDeployedQueueClientWorksWithTheRunnersQueues(t *testing.T) {
	w := newWorld(t, local.Options{Memory: true}, receiver.Behaviour{})
	client := sqs.NewFromConfig(w.Access.Config(), func(o *sqs.Options) { o.BaseEndpoint = &w.SQSURL })
	url := w.SQSURL + "/" + sqsapi.Account + "/" + w.Queues["WorkDeadLetterQueue"].Name()
	if errs := sqsqueue.New(client, url).Send(t.Context(), []work.Item{{Tenant: "t", EndpointID: "e", EventID: "v"}}); errs != nil {
		t.Fatal(errs)
	}
	if d, err := w.Queues["WorkDeadLetterQueue"].Depth(t.Context()); err != nil || d.Visible != 1 {
		t.Errorf("depth %+v, %v", d, err)
	}
	letters, err := sqsqueue.NewDeadLetters(client, url).Take(t.Context())
	if err != nil || len(letters) != 1 {
		t.Errorf("took %+v, %v", letters, err)
	}
}

// With `aws sqs send-message`, a producer's message becomes an event, and one that can
// never be accepted a letter with the reason.
func TestTheRunnerEmitsWhatIsSentToTheEmitQueue(t *testing.T) {
	w := newWorld(t, local.Options{Memory: true}, receiver.Behaviour{})
	client := sqs.NewFromConfig(w.Access.Config(), func(o *sqs.Options) { o.BaseEndpoint = &w.SQSURL })
	url := func(id string) *string {
		return aws.String(w.SQSURL + "/" + sqsapi.Account + "/" + w.Queues[id].Name())
	}
	event := `{"event":"user.joined_community","actor_user_id":"u_1","data":{"community_id":"c_7","community_name":"Gophers"}}`
	refused := `{"event":"user.unheard_of","data":{}}`
	for _, body := range []string{event, "[" + event + "," + refused + "]", refused} {
		if _, err := client.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: url("EmitQueueRequests"), MessageBody: &body}); err != nil {
			t.Fatal(err)
		}
	}
	letters := map[string]string{}
	for len(letters) < 2 {
		got, err := client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: url("EmitDeadLetterQueue"), WaitTimeSeconds: 20, MaxNumberOfMessages: 10, MessageAttributeNames: []string{"All"}})
		if err != nil || len(got.Messages) == 0 {
			t.Fatalf("the dead-letter queue has %v, then nothing in twenty seconds, error %v", letters, err)
		}
		for _, m := range got.Messages {
			letters[*m.Body] = *m.MessageAttributes["code"].StringValue
		}
	}
	if want := map[string]string{refused: "unknown_event_type", "[" + refused + "]": "unknown_event_type"}; !maps.Equal(letters, want) {
		t.Errorf("letters %v, want %v", letters, want)
	}
}

// The deployed client of the dead-letter queue works as the runner's does.
func TestTheDeployedClientKeepsLetters(t *testing.T) {
	w := newWorld(t, local.Options{Memory: true}, receiver.Behaviour{})
	client := sqs.NewFromConfig(w.Access.Config(), func(o *sqs.Options) { o.BaseEndpoint = &w.SQSURL })
	url := w.SQSURL + "/" + sqsapi.Account + "/" + w.Queues["EmitDeadLetterQueue"].Name()
	if err := (sqsqueue.Letters{Client: client, URL: url}).Keep(t.Context(), "body", map[string]string{"code": "too_large"}); err != nil {
		t.Fatal(err)
	}
	got, err := w.Queues["EmitDeadLetterQueue"].Poll(1, time.Minute)
	if err != nil || len(got) != 1 || got[0].Body != "body" || got[0].Attributes["code"].StringValue != "too_large" {
		t.Errorf("%+v, %v", got, err)
	}
	if err := (sqsqueue.Letters{Client: client, URL: url + "-missing"}).Keep(t.Context(), "body", nil); err == nil {
		t.Error("a queue that does not exist keeps it")
	}
}
