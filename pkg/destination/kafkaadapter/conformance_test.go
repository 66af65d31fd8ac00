package kafkaadapter_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/guard"
	"github.com/tidings-dev/tidings/pkg/destination/kafkaadapter"
	"github.com/tidings-dev/tidings/test/destinationtest"
)

// loopback returns a guard that allows brokers on this machine.
func loopback() *guard.Guard {
	return guard.New(guard.Options{AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
}

// behind is a listener that reports the gate's address, so that the broker advertises
// it.
type behind struct {
	net.Listener
	gate net.Addr
}

func (b behind) Addr() net.Addr { return b.gate }

// cluster starts a broker whose connections all pass through a gate.
func cluster(t *testing.T, options ...kfake.Opt) (*kfake.Cluster, *destinationtest.Gate) {
	t.Helper()
	var gate *destinationtest.Gate
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(partitions, topic), kfake.ListenFn(func(network, _ string) (net.Listener, error) {
		l, err := net.Listen(network, "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		gate = destinationtest.NewGate(t, l.Addr().String())
		front, err := net.ResolveTCPAddr("tcp", gate.Address)
		return behind{l, front}, err
	})}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, gate
}

const (
	topic      = "events"
	partitions = 3
)

// receive returns a function that returns the next record of any partition, from the
// beginning of the topic.
func receive(t *testing.T, broker, topic string, partitions int) func(context.Context) (destinationtest.Received, error) {
	t.Helper()
	inbox := make(chan kafka.Message, 1000)
	ctx, cancel := context.WithCancel(context.Background())
	var readers []*kafka.Reader
	for p := range partitions {
		r := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{broker}, Topic: topic, Partition: p, MaxWait: 50 * time.Millisecond})
		readers = append(readers, r)
		go func() {
			for {
				m, err := r.ReadMessage(ctx)
				if err != nil {
					return
				}
				inbox <- m
			}
		}()
	}
	t.Cleanup(func() {
		cancel()
		for _, r := range readers {
			_ = r.Close()
		}
	})
	return func(ctx context.Context) (destinationtest.Received, error) {
		select {
		case m := <-inbox:
			got := destinationtest.Received{Body: m.Value, Key: string(m.Key), Attributes: map[string]string{}}
			for _, h := range m.Headers {
				got.Attributes[h.Key] = string(h.Value)
			}
			return got, nil
		case <-ctx.Done():
			return destinationtest.Received{}, errors.New("nothing arrived")
		}
	}
}

// newDestination returns a destination for a topic of the cluster behind the gate.
func newDestination(t *testing.T, gate *destinationtest.Gate, topic string) destinationtest.Destination {
	var get func(context.Context) (destinationtest.Received, error)
	url := "kafka://" + gate.Address + "/"
	clock := &destinationtest.Clock{}
	return destinationtest.Destination{
		Kind:    kafkaadapter.Kind(kafkaadapter.Options{Guard: loopback(), Now: clock.Now}),
		Clock:   clock,
		Target:  destination.Target{Tenant: "t", ID: "e", URL: url + topic},
		Missing: destination.Target{Tenant: "t", ID: "m", URL: url + "missing"},
		Gate:    gate,
		Keyed:   true, CloudEventPrefix: "ce_",
		TooLarge:    1100 * 1024, // max.message.bytes is 1 MiB + 12 bytes by default
		Connections: 16,
		Within:      50 * time.Millisecond,
		Receive: func(ctx context.Context) (destinationtest.Received, error) {
			if get == nil { // opened late, because its connections count too
				get = receive(t, gate.Address, topic, partitions)
			}
			return get(ctx)
		},
	}
}

func TestConformance(t *testing.T) {
	destinationtest.Run(t, func(t *testing.T) destinationtest.Destination {
		_, gate := cluster(t)
		return newDestination(t, gate, topic)
	})
}
