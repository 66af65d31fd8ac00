//go:build brokers

package eventbridgeadapter_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/tidings-dev/tidings/pkg/local/eventbridgeapi"
	"github.com/tidings-dev/tidings/test/brokers"
	"github.com/tidings-dev/tidings/test/destinationtest"
)

// TestRealBrokers: a rule of moto's bus sends what it matches to a queue, as in AWS.
func TestRealBrokers(t *testing.T) {
	server, err := brokers.Moto(t.Context(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	at := aws.String("http://" + server.Address)
	buses := eventbridge.NewFromConfig(config(), func(o *eventbridge.Options) { o.BaseEndpoint = at })
	queues := sqs.NewFromConfig(config(), func(o *sqs.Options) { o.BaseEndpoint = at })
	destinationtest.Run(t, func(t *testing.T) destinationtest.Destination {
		ctx, name := t.Context(), fmt.Sprint("webhooks-", time.Now().UnixNano())
		queue, err := queues.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: &name})
		if err == nil {
			_, err = buses.CreateEventBus(ctx, &eventbridge.CreateEventBusInput{Name: &name})
		}
		if err == nil {
			_, err = buses.PutRule(ctx, &eventbridge.PutRuleInput{Name: &name, EventBusName: &name, EventPattern: aws.String(`{"source":["tidings"]}`)})
		}
		if err == nil {
			_, err = buses.PutTargets(ctx, &eventbridge.PutTargetsInput{Rule: &name, EventBusName: &name, Targets: []types.Target{
				{Id: aws.String("queue"), Arn: aws.String("arn:aws:sqs:us-east-1:123456789012:" + name)}}})
		}
		if err != nil {
			t.Fatal(err)
		}
		d := newDestination(t, server.Address, name, func(ctx context.Context) (e eventbridgeapi.Event, err error) {
			for {
				out, err := queues.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: queue.QueueUrl, WaitTimeSeconds: 1})
				if err != nil {
					return e, err
				}
				for _, m := range out.Messages {
					if _, err := queues.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: queue.QueueUrl, ReceiptHandle: m.ReceiptHandle}); err != nil {
						return e, err
					}
					return e, json.Unmarshal([]byte(aws.ToString(m.Body)), &e)
				}
			}
		})
		d.Connections = 0 // moto closes every connection (HTTP/1.0)
		return d
	})
}
