//go:build brokers

package pubsubadapter_test

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/adapter/adaptertest"
	"github.com/tidings-dev/tidings/pkg/realbrokers"
)

func TestRealPubSubEmulator(t *testing.T) {
	server, err := realbrokers.PubSub(t.Context(), io.Discard)
	if errors.Is(err, realbrokers.ErrNotHere) {
		t.Skip(err) // pstest, Google's own too, has run in the default tests
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	adaptertest.Run(t, func(t *testing.T) adaptertest.Destination {
		d := destination(t, server.Address)
		d.Within = 200 * time.Millisecond
		return d
	})
}
