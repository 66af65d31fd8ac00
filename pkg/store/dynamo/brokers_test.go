//go:build brokers

package dynamo_test

import (
	"io"
	"testing"

	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/dynamoemulator"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
	"github.com/tidings-dev/tidings/test/brokers"
	"github.com/tidings-dev/tidings/test/dynamotest"
	"github.com/tidings-dev/tidings/test/storetest"
)

// moto is another implementation of DynamoDB's API than the one of the default tests.
func TestRealMoto(t *testing.T) {
	server, err := brokers.Moto(t.Context(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	client := dynamoemulator.Client("http://" + server.Address)
	stack := func(t *testing.T) string {
		stack := dynamotest.Stack(t, t.Name())
		if err := dynamoemulator.CreateTables(t.Context(), client, stack.Tables); err != nil {
			t.Fatal(err)
		}
		return stack.Name
	}
	storetest.Run(t, func(t *testing.T) storetest.Store {
		return dynamo.New(client, local.Tables(stack(t)))
	})

	// moto 5.2 passes the conformance suite if it gets one request at a time: it does not
	// lock between a condition and its write. The other known difference from AWS is
	// asserted, so that we notice when it is fixed:
	t.Run("known difference: write units are wrong", func(t *testing.T) {
		if m := firstAttempt(t, client, stack(t)); m.writes == 3 {
			t.Error("moto counts the 3 write units of a first attempt now; remove this test")
		} else {
			t.Logf("moto reports %g write units for a first attempt; AWS counts 3", m.writes)
		}
	})
}
