//go:build brokers

package pubsubadapter_test

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/test/brokers"
	"github.com/tidings-dev/tidings/test/destinationtest"
)

func TestRealPubSubEmulator(t *testing.T) {
	server, err := brokers.PubSub(t.Context(), io.Discard)
	if errors.Is(err, brokers.ErrNotHere) {
		t.Skip(err) // the default tests use pstest, Google's fake
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	destinationtest.Run(t, func(t *testing.T) destinationtest.Destination {
		d := newDestination(t, server.Address)
		d.Within = 200 * time.Millisecond
		return d
	})
}
