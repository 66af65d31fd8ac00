// Package brokers runs stand-ins for SQS, EventBridge, Pub/Sub and Kafka in the process, each with one
// destination and a consumer, so that a developer can see an event arrive over every
// protocol without installing anything. Messages are kept in memory. Kafka requires a
// login, as real clusters do.
package brokers

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"time"

	pubsub "cloud.google.com/go/pubsub/v2/apiv1"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl/scram"
	"github.com/twmb/franz-go/pkg/kfake"
	"golang.org/x/sync/errgroup"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tidings-dev/tidings/pkg/local/eventbridgeapi"
	"github.com/tidings-dev/tidings/pkg/local/loopback"
	"github.com/tidings-dev/tidings/pkg/local/sqsapi"
)

const (
	queueName    = "webhooks"
	busName      = "webhooks"
	project      = "tidings-local"
	topicName    = "webhooks"
	subscription = "projects/" + project + "/subscriptions/webhooks"
	topic        = "projects/" + project + "/topics/" + topicName
	username     = "tidings"
	mechanism    = "SCRAM-SHA-512"
	partitions   = 3
)

// Message is a message that a consumer received.
type Message struct {
	Protocol   string // sqs, eventbridge, pubsub or kafka
	Body       []byte
	Attributes map[string]string
}

// Destination is an endpoint for one of the brokers.
type Destination struct {
	URL         string
	Credentials string // name of the secret, see Secret
	Ordered     bool
}

// Brokers are the running brokers.
type Brokers struct {
	// SQS and EventBridge are the URLs of these APIs. PubSub and Kafka are host:port.
	SQS, EventBridge, PubSub, Kafka string

	password string
	sqs      *http.Server
	bridge   *http.Server
	buses    *eventbridgeapi.Service
	pubsub   *pstest.Server
	kafka    *kfake.Cluster
}

// Start starts the brokers on four consecutive ports of the loopback interface; with 0, on
// free ports.
func Start(ctx context.Context, port int) (b *Brokers, err error) {
	b = &Brokers{password: rand.Text()}
	defer func() {
		if err != nil {
			b.Close()
		}
	}()
	at := func(n int) string {
		if port == 0 {
			return "127.0.0.1:0"
		}
		return fmt.Sprintf("127.0.0.1:%d", port+n)
	}
	if b.sqs, b.SQS, err = serve(at(0), sqsapi.New(queueName)); err != nil {
		return b, fmt.Errorf("the local SQS: %w", err)
	}
	b.buses = eventbridgeapi.New(busName)
	if b.bridge, b.EventBridge, err = serve(at(3), b.buses); err != nil {
		return b, fmt.Errorf("the local EventBridge: %w", err)
	}

	if err := free(at(1)); err != nil { // pstest panics if the port is in use
		return b, fmt.Errorf("the local Pub/Sub: %w", err)
	}
	b.pubsub = pstest.NewServerWithAddress(at(1))
	b.PubSub = b.pubsub.Addr
	if err := b.prepareTopic(ctx); err != nil {
		return b, fmt.Errorf("the local Pub/Sub: %w", err)
	}

	b.kafka, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, topicName), kfake.EnableSASL(),
		kfake.Superuser(mechanism, username, b.password),
		kfake.ListenFn(func(network, _ string) (net.Listener, error) { return net.Listen(network, at(2)) }))
	if err != nil {
		return b, fmt.Errorf("the local Kafka: %w", err)
	}
	b.Kafka = b.kafka.ListenAddrs()[0]
	return b, nil
}

// serve serves an API on an address until the server is closed.
func serve(address string, api http.Handler) (server *http.Server, url string, err error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, "", err
	}
	server = &http.Server{Handler: loopback.Only(api), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }() // until Close
	return server, "http://" + listener.Addr().String(), nil
}

func free(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	return l.Close()
}

func (b *Brokers) googleOptions() []option.ClientOption {
	return []option.ClientOption{
		option.WithEndpoint(b.PubSub), option.WithoutAuthentication(), option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
	}
}

func (b *Brokers) prepareTopic(ctx context.Context) error {
	topics, err := pubsub.NewTopicAdminClient(ctx, b.googleOptions()...)
	if err != nil {
		return err
	}
	defer topics.Close()
	if _, err := topics.CreateTopic(ctx, &pubsubpb.Topic{Name: topic}); err != nil {
		return err
	}
	subscriptions, err := pubsub.NewSubscriptionAdminClient(ctx, b.googleOptions()...)
	if err != nil {
		return err
	}
	defer subscriptions.Close()
	_, err = subscriptions.CreateSubscription(ctx, &pubsubpb.Subscription{Name: subscription, Topic: topic, EnableMessageOrdering: true})
	return err
}

// Destinations are the settings of an endpoint for each broker.
func (b *Brokers) Destinations(tenant string) []Destination {
	return []Destination{
		{URL: "sqs://" + sqsapi.Account + "/" + queueName + "?region=us-east-1"},
		{URL: "eventbridge://" + busName + "?region=us-east-1"},
		{URL: "pubsub://" + project + "/" + topicName, Ordered: true},
		{URL: "kafka://" + b.Kafka + "/" + topicName + "?sasl=scram-sha-512", Credentials: "tidings/" + tenant + "/local-kafka"},
	}
}

// Secret returns the Kafka login for any name: there is only one.
func (b *Brokers) Secret(context.Context, string) (string, error) {
	text, err := json.Marshal(map[string]string{"username": username, "password": b.password})
	return string(text), err
}

// Close stops the brokers.
func (b *Brokers) Close() {
	if b.sqs != nil {
		_ = b.sqs.Close()
	}
	if b.bridge != nil {
		_ = b.bridge.Close()
	}
	if b.pubsub != nil {
		_ = b.pubsub.Close()
	}
	if b.kafka != nil {
		b.kafka.Close()
	}
}

// Consume calls hand with every message that arrives, from several goroutines, until ctx
// ends.
func (b *Brokers) Consume(ctx context.Context, hand func(Message)) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return ended(ctx, b.consumeSQS(ctx, hand)) })
	group.Go(func() error { return ended(ctx, b.consumeEventBridge(ctx, hand)) })
	group.Go(func() error { return ended(ctx, b.consumePubSub(ctx, hand)) })
	for p := range partitions {
		group.Go(func() error { return ended(ctx, b.consumeKafka(ctx, p, hand)) })
	}
	return group.Wait()
}

// ended returns nil for the error of a consumer whose context has ended.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (b *Brokers) consumeSQS(ctx context.Context, hand func(Message)) error {
	client := sqs.New(sqs.Options{Region: "us-east-1", BaseEndpoint: &b.SQS, Credentials: credentials.NewStaticCredentialsProvider("local", "local", "")})
	queue := aws.String(b.SQS + "/" + sqsapi.Account + "/" + queueName)
	for {
		out, err := client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: queue, WaitTimeSeconds: 20, MaxNumberOfMessages: 10, MessageAttributeNames: []string{"All"}})
		if err != nil {
			return fmt.Errorf("the local SQS: %w", err)
		}
		for _, m := range out.Messages {
			got := Message{Protocol: "sqs", Body: []byte(aws.ToString(m.Body)), Attributes: map[string]string{}}
			for name, a := range m.MessageAttributes {
				got.Attributes[name] = aws.ToString(a.StringValue)
			}
			hand(got)
			if _, err := client.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: queue, ReceiptHandle: m.ReceiptHandle}); err != nil {
				return fmt.Errorf("the local SQS: %w", err)
			}
		}
	}
}

// consumeEventBridge gets events as a rule's target does: there are no attributes, and no
// signature.
func (b *Brokers) consumeEventBridge(ctx context.Context, hand func(Message)) error {
	for {
		e, err := b.buses.Receive(ctx, busName)
		if err != nil {
			return err
		}
		hand(Message{Protocol: "eventbridge", Body: e.Detail})
	}
}

func (b *Brokers) consumePubSub(ctx context.Context, hand func(Message)) error {
	client, err := pubsub.NewSubscriptionAdminClient(ctx, b.googleOptions()...)
	if err != nil {
		return fmt.Errorf("the local Pub/Sub: %w", err)
	}
	defer client.Close()
	for {
		out, err := client.Pull(ctx, &pubsubpb.PullRequest{Subscription: subscription, MaxMessages: 10})
		if err != nil {
			return fmt.Errorf("the local Pub/Sub: %w", err)
		}
		for _, m := range out.ReceivedMessages {
			hand(Message{Protocol: "pubsub", Body: m.Message.Data, Attributes: m.Message.Attributes})
			if err := client.Acknowledge(ctx, &pubsubpb.AcknowledgeRequest{Subscription: subscription, AckIds: []string{m.AckId}}); err != nil {
				return fmt.Errorf("the local Pub/Sub: %w", err)
			}
		}
	}
}

func (b *Brokers) consumeKafka(ctx context.Context, partition int, hand func(Message)) error {
	login, err := scram.Mechanism(scram.SHA512, username, b.password)
	if err != nil {
		return err
	}
	reader := kafka.NewReader(kafka.ReaderConfig{
		Brokers: []string{b.Kafka}, Topic: topicName, Partition: partition, MaxWait: time.Second,
		Dialer: &kafka.Dialer{Timeout: 5 * time.Second, SASLMechanism: login},
	})
	defer reader.Close()
	for {
		m, err := reader.ReadMessage(ctx)
		if err != nil {
			return fmt.Errorf("the local Kafka: %w", err)
		}
		got := Message{Protocol: "kafka", Body: m.Value, Attributes: map[string]string{}}
		for _, h := range m.Headers {
			got.Attributes[h.Key] = string(h.Value)
		}
		hand(got)
	}
}
