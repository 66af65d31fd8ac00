//go:build cloud || brokers

package builtin_test

import (
	"context"
	"io"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	pubsub "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/builtin"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/test/brokers"
	"github.com/tidings-dev/tidings/test/destinationtest"
)

// cloudTime bounds a delivery and its receipt.
const cloudTime = 30 * time.Second

// TestCloudQueue delivers to the SQS queue that `tools/cloud/aws-test-queue` created, as
// dispatch does, and receives and verifies the message.
func TestCloudQueue(t *testing.T) {
	queue := os.Getenv("TIDINGS_TEST_QUEUE")
	if queue == "" {
		t.Skip("set TIDINGS_TEST_QUEUE to the sqs:// URL that tools/cloud/aws-test-queue prints")
	}
	deliverToQueue(t, queue, os.Getenv("TIDINGS_TEST_ROLE"))
}

// TestRealCloudQueueTest runs the test of the AWS queue against moto.
func TestRealCloudQueueTest(t *testing.T) {
	server, err := brokers.Moto(t.Context(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	t.Setenv("AWS_ENDPOINT_URL", "http://"+server.Address)
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "a secret")
	client := sqs.NewFromConfig(awsConfig(t, "us-east-1"))
	if _, err := client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("webhooks-test")}); err != nil {
		t.Fatal(err)
	}
	deliverToQueue(t, "sqs://webhooks-test?region=us-east-1", "")
}

func awsConfig(t *testing.T, region string) aws.Config {
	t.Helper()
	c, err := config.LoadDefaultConfig(t.Context(), config.WithRegion(region))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// deliverToQueue sends a message to the queue of an endpoint's URL. role may be empty.
func deliverToQueue(t *testing.T, queue, role string) {
	at, err := url.Parse(queue)
	if err != nil {
		t.Fatal(err)
	}
	name := at.Host
	if path := strings.Trim(at.Path, "/"); path != "" {
		name = path // sqs://account/name
	}
	access := awsConfig(t, at.Query().Get("region"))
	m, secret := deliver(t, access, destination.Target{Tenant: "default", ID: "ep_test", URL: queue, RoleARN: role})

	ctx, cancel := context.WithTimeout(t.Context(), cloudTime)
	defer cancel()
	client := sqs.NewFromConfig(access)
	found, err := client.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &name})
	if err != nil {
		t.Fatal(err)
	}
	for {
		out, err := client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: found.QueueUrl, WaitTimeSeconds: 5, MessageAttributeNames: []string{"All"}})
		if err != nil {
			t.Fatalf("the message has not arrived: %v", err)
		}
		for _, r := range out.Messages {
			if _, err := client.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: found.QueueUrl, ReceiptHandle: r.ReceiptHandle}); err != nil {
				t.Fatal(err)
			}
			got := destinationtest.Received{Body: []byte(aws.ToString(r.Body)), Attributes: map[string]string{}}
			for name, a := range r.MessageAttributes {
				got.Attributes[name] = aws.ToString(a.StringValue)
			}
			if got.Attributes[signature.HeaderID] != m.EventID {
				continue // left by an earlier run
			}
			destinationtest.CheckReceived(t, secret, m, m.Attributes(""), got)
			return
		}
	}
}

// TestCloudTopic delivers to the Pub/Sub topic that `tools/cloud/gcp-test-topic` created,
// as dispatch does, and receives and verifies the message.
func TestCloudTopic(t *testing.T) {
	topic, subscription := os.Getenv("TIDINGS_TEST_TOPIC"), os.Getenv("TIDINGS_TEST_SUBSCRIPTION")
	if topic == "" || subscription == "" {
		t.Skip("set TIDINGS_TEST_TOPIC and TIDINGS_TEST_SUBSCRIPTION to what tools/cloud/gcp-test-topic prints")
	}
	deliverToTopic(t, pubsubClient(t, subscription), topic, subscription)
}

// TestRealCloudTopicTest runs the test of the Google topic against Google's own server
// for tests.
func TestRealCloudTopicTest(t *testing.T) {
	server := pstest.NewServer()
	t.Cleanup(func() { _ = server.Close() })
	t.Setenv("PUBSUB_EMULATOR_HOST", server.Addr)
	const topic, subscription = "projects/tidings-test/topics/webhooks-test", "projects/tidings-test/subscriptions/webhooks-test"
	client := pubsubClient(t, subscription)
	if _, err := client.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{Name: topic}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.SubscriptionAdminClient.CreateSubscription(t.Context(), &pubsubpb.Subscription{Name: subscription, Topic: topic}); err != nil {
		t.Fatal(err)
	}
	deliverToTopic(t, client, "pubsub://tidings-test/webhooks-test", subscription)
}

// pubsubClient returns a client for the project of a subscription.
func pubsubClient(t *testing.T, subscription string) *pubsub.Client {
	t.Helper()
	project, _, _ := strings.Cut(strings.TrimPrefix(subscription, "projects/"), "/")
	client, err := pubsub.NewClient(t.Context(), project)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// deliverToTopic sends a message to the topic of an endpoint's URL.
func deliverToTopic(t *testing.T, client *pubsub.Client, topic, subscription string) {
	m, secret := deliver(t, aws.Config{}, destination.Target{Tenant: "default", ID: "ep_test", URL: topic})
	ctx, cancel := context.WithTimeout(t.Context(), cloudTime)
	defer cancel()
	for {
		got, err := client.SubscriptionAdminClient.Pull(ctx, &pubsubpb.PullRequest{Subscription: subscription, MaxMessages: 10})
		if err != nil {
			t.Fatalf("the message has not arrived: %v", err)
		}
		for _, r := range got.ReceivedMessages {
			if err := client.SubscriptionAdminClient.Acknowledge(ctx, &pubsubpb.AcknowledgeRequest{Subscription: subscription, AckIds: []string{r.AckId}}); err != nil {
				t.Fatal(err)
			}
			if r.Message.Attributes[signature.HeaderID] != m.EventID {
				continue // left by an earlier run
			}
			destinationtest.CheckReceived(t, secret, m, m.Attributes(""), destinationtest.Received{Body: r.Message.Data, Attributes: r.Message.Attributes})
			return
		}
	}
}

// deliver makes one attempt with the adapters of the deployed functions.
func deliver(t *testing.T, access aws.Config, target destination.Target) (destination.Message, signature.Secret) {
	t.Helper()
	router, err := builtin.Open(builtin.Settings{GoogleProvider: os.Getenv("GOOGLE_PROVIDER")}, builtin.Deployed(access))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = router.Close() })
	secret := signature.NewSecret()
	m := destinationtest.Message(secret, "cloud test")
	ctx, cancel := context.WithTimeout(t.Context(), cloudTime)
	defer cancel()
	if o := router.Deliver(ctx, target, m); o.Class != delivery.Success {
		t.Fatalf("the delivery failed: %+v", o)
	}
	return m, secret
}
