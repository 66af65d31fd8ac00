//go:build brokers

package sqsadapter_test

import (
	"context"
	"io"
	"testing"

	"github.com/tidings-dev/tidings/test/brokers"
	"github.com/tidings-dev/tidings/test/destinationtest"
)

func TestRealBrokers(t *testing.T) {
	for name, start := range map[string]func(context.Context, io.Writer) (*brokers.Server, error){
		"ElasticMQ": brokers.ElasticMQ,
		"moto":      brokers.Moto,
	} {
		t.Run(name, func(t *testing.T) {
			server, err := start(t.Context(), io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(server.Stop)
			for kind, queue := range map[string]struct {
				suffix     string
				attributes map[string]string
			}{
				"standard": {"", nil},
				"fifo":     {".fifo", map[string]string{"FifoQueue": "true"}},
			} {
				t.Run(kind, func(t *testing.T) {
					destinationtest.Run(t, func(t *testing.T) destinationtest.Destination {
						d := newDestination(t, server.Address, queue.suffix, queue.attributes)
						if name == "moto" {
							d.Connections = 0 // moto closes every connection (HTTP/1.0)
						}
						return d
					})
				})
			}
		})
	}
}
