package pubsubadapter_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	pubsub "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/pubsubadapter"
	"github.com/tidings-dev/tidings/test/destinationtest"
)

var topics atomic.Int64

// newDestination creates a topic and a subscription in the Pub/Sub at the address.
func newDestination(t *testing.T, address string) destinationtest.Destination {
	t.Helper()
	gate := destinationtest.NewGate(t, address)
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	client, err := pubsub.NewClient(context.Background(), "tidings-test", option.WithGRPCConn(conn), option.WithTelemetryDisabled())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	name := fmt.Sprintf("events-%d-%d", time.Now().UnixNano(), topics.Add(1))
	topic := "projects/tidings-test/topics/" + name
	if _, err := client.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{Name: topic}); err != nil {
		t.Fatal(err)
	}
	subscription := "projects/tidings-test/subscriptions/" + name
	if _, err := client.SubscriptionAdminClient.CreateSubscription(t.Context(), &pubsubpb.Subscription{
		Name: subscription, Topic: topic, AckDeadlineSeconds: 60, EnableMessageOrdering: true,
	}); err != nil {
		t.Fatal(err)
	}
	clock := &destinationtest.Clock{}
	return destinationtest.Destination{
		Kind:    pubsubadapter.Kind(pubsubadapter.Options{Emulator: gate.Address, Now: clock.Now}),
		Clock:   clock,
		Target:  destination.Target{Tenant: "t", ID: "e", URL: "pubsub://tidings-test/" + name, Ordered: true},
		Missing: destination.Target{Tenant: "t", ID: "m", URL: "pubsub://tidings-test/missing"},
		Gate:    gate,
		Keyed:   true, CloudEventPrefix: "ce-",
		TooLarge:    10_000_000,
		Connections: 1,
		Receive: func(ctx context.Context) (destinationtest.Received, error) {
			for ctx.Err() == nil {
				got, err := client.SubscriptionAdminClient.Pull(ctx, &pubsubpb.PullRequest{Subscription: subscription, MaxMessages: 1})
				if err != nil {
					return destinationtest.Received{}, err
				}
				for _, m := range got.ReceivedMessages {
					if err := client.SubscriptionAdminClient.Acknowledge(ctx, &pubsubpb.AcknowledgeRequest{Subscription: subscription, AckIds: []string{m.AckId}}); err != nil {
						return destinationtest.Received{}, err
					}
					return destinationtest.Received{Body: m.Message.Data, Attributes: m.Message.Attributes, Key: m.Message.OrderingKey}, nil
				}
			}
			return destinationtest.Received{}, errors.New("nothing arrived")
		},
	}
}

func TestConformance(t *testing.T) {
	destinationtest.Run(t, func(t *testing.T) destinationtest.Destination {
		server := pstest.NewServer()
		t.Cleanup(func() { _ = server.Close() })
		d := newDestination(t, server.Addr)
		d.Within = 50 * time.Millisecond
		return d
	})
}
