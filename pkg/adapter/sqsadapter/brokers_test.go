//go:build brokers

package sqsadapter_test

import (
	"context"
	"io"
	"testing"

	"github.com/tidings-dev/tidings/pkg/adapter/adaptertest"
	"github.com/tidings-dev/tidings/pkg/realbrokers"
)

func TestRealBrokers(t *testing.T) {
	for name, start := range map[string]func(context.Context, io.Writer) (*realbrokers.Server, error){
		"ElasticMQ": realbrokers.ElasticMQ,
		"moto":      realbrokers.Moto,
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
					adaptertest.Run(t, func(t *testing.T) adaptertest.Destination {
						d := destination(t, server.Address, queue.suffix, queue.attributes)
						if name == "moto" {
							d.Connections = 0 // its server speaks HTTP/1.0
						}
						return d
					})
				})
			}
		})
	}
}
