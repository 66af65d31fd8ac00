package eventbridgeadapter_test

import (
	"context"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/eventbridgeadapter"
	"github.com/tidings-dev/tidings/pkg/local/eventbridgeapi"
	"github.com/tidings-dev/tidings/test/destinationtest"
)

func config() aws.Config {
	return aws.Config{Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("AKIATEST", "a secret", "")}
}

// newDestination returns a bus of the EventBridge at an address; receive waits for its next
// event.
func newDestination(t *testing.T, address, bus string, receive func(context.Context) (eventbridgeapi.Event, error)) destinationtest.Destination {
	t.Helper()
	gate := destinationtest.NewGate(t, address)
	clock := &destinationtest.Clock{}
	return destinationtest.Destination{
		Kind:        eventbridgeadapter.Kind(eventbridgeadapter.Options{Config: config, Endpoint: "http://" + gate.Address, Now: clock.Now}),
		Clock:       clock,
		Target:      destination.Target{Tenant: "t", ID: "e", URL: "eventbridge://" + bus + "?region=us-east-1"},
		Missing:     destination.Target{Tenant: "t", ID: "e", URL: "eventbridge://missing?region=us-east-1"},
		Gate:        gate,
		ValueOnly:   true,
		TooLarge:    1 << 20,
		Connections: 50,
		Receive: func(ctx context.Context) (destinationtest.Received, error) {
			e, err := receive(ctx)
			if err == nil && e.Source != eventbridgeadapter.Source {
				t.Errorf("source %q", e.Source)
			}
			return destinationtest.Received{Body: e.Detail, Attributes: map[string]string{destination.AttributeEventType: e.DetailType}}, err
		},
	}
}

func TestConformance(t *testing.T) {
	destinationtest.Run(t, func(t *testing.T) destinationtest.Destination {
		service := eventbridgeapi.New("webhooks")
		server := httptest.NewServer(service)
		t.Cleanup(server.Close)
		d := newDestination(t, server.Listener.Addr().String(), "webhooks", func(ctx context.Context) (eventbridgeapi.Event, error) { return service.Receive(ctx, "webhooks") })
		d.Within = 50 * time.Millisecond
		return d
	})
}
