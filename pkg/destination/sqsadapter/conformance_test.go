package sqsadapter_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/sqsadapter"
	"github.com/tidings-dev/tidings/pkg/local/sqsapi"
	"github.com/tidings-dev/tidings/test/destinationtest"
)

func config() aws.Config {
	return aws.Config{Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("AKIATEST", "a secret", "")}
}

var queues atomic.Int64

// newDestination creates a queue in the SQS at the address.
func newDestination(t *testing.T, address, suffix string, attributes map[string]string) destinationtest.Destination {
	t.Helper()
	gate := destinationtest.NewGate(t, address)
	direct := sqs.NewFromConfig(config(), func(o *sqs.Options) { o.BaseEndpoint = aws.String("http://" + address) })
	name := fmt.Sprintf("webhooks-%d-%d%s", time.Now().UnixNano(), queues.Add(1), suffix)
	made, err := direct.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name, Attributes: attributes})
	if err != nil {
		t.Fatal(err)
	}
	at, err := url.Parse(aws.ToString(made.QueueUrl))
	if err != nil {
		t.Fatal(err)
	}
	account := at.Path[1 : len(at.Path)-len(name)-1]
	target := func(queue string) destination.Target {
		return destination.Target{Tenant: "t", ID: "e", URL: "sqs://" + account + "/" + queue + "?region=us-east-1"}
	}
	clock := &destinationtest.Clock{}
	return destinationtest.Destination{
		Kind:        sqsadapter.Kind(sqsadapter.Options{Config: config, Endpoint: "http://" + gate.Address, Now: clock.Now}),
		Clock:       clock,
		Target:      target(name),
		Missing:     target("missing" + suffix),
		Gate:        gate,
		Keyed:       false, // SQS does not allow the suite's subject as a group id; see TestFIFO
		TooLarge:    1100 * 1024,
		Connections: 50,
		Receive: func(ctx context.Context) (destinationtest.Received, error) {
			for {
				out, err := direct.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
					QueueUrl: made.QueueUrl, WaitTimeSeconds: 1, MessageAttributeNames: []string{"All"},
					MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
				})
				if err != nil {
					return destinationtest.Received{}, err
				}
				for _, m := range out.Messages {
					if _, err := direct.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: made.QueueUrl, ReceiptHandle: m.ReceiptHandle}); err != nil {
						return destinationtest.Received{}, err
					}
					got := destinationtest.Received{Body: []byte(aws.ToString(m.Body)), Attributes: map[string]string{}, Key: m.Attributes["MessageGroupId"]}
					for name, a := range m.MessageAttributes {
						got.Attributes[name] = aws.ToString(a.StringValue)
					}
					return got, nil
				}
				if ctx.Err() != nil {
					return destinationtest.Received{}, errors.New("nothing arrived")
				}
			}
		},
	}
}

func TestConformance(t *testing.T) {
	server := httptest.NewServer(sqsapi.New())
	t.Cleanup(server.Close)
	for kind, suffix := range map[string]string{"standard": "", "fifo": ".fifo"} {
		t.Run(kind, func(t *testing.T) {
			destinationtest.Run(t, func(t *testing.T) destinationtest.Destination {
				d := newDestination(t, server.Listener.Addr().String(), suffix, nil)
				d.Within = 50 * time.Millisecond
				return d
			})
		})
	}
}
