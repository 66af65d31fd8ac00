// Package handler builds the test-receiver function from its settings and a backend:
// AWS's services in main, local ones in the local runner. Settings has a field for each
// environment variable that the function reads.
package handler

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/tidings-dev/tidings/pkg/aws/functionurl"
	"github.com/tidings-dev/tidings/pkg/aws/lambdaevent"
	"github.com/tidings-dev/tidings/pkg/aws/lambdamain"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
	"github.com/tidings-dev/tidings/pkg/systemtest/testreceiver"
)

// Settings are the function's environment variables.
type Settings struct {
	TestReceiverTable string `env:"TEST_RECEIVER_TABLE,required,notEmpty"`
}

// Tables returns the names of the tables that the function uses.
func (s Settings) Tables() dynamo.Tables { return dynamo.Tables{TestReceiver: s.TestReceiverTable} }

// Store is what the function stores.
type Store = testreceiver.Store

// Backend is what the function runs on. All fields are required.
type Backend struct {
	Store Store
	Log   *slog.Logger
}

// New returns the function's handler.
func New(b Backend) lambdamain.Handler {
	r := &testreceiver.Receiver{Store: b.Store, Log: b.Log, Now: time.Now}
	serve := functionurl.Handler(r)
	return func(ctx context.Context, payload json.RawMessage) (any, error) {
		kind, err := lambdaevent.Of(payload)
		if err != nil {
			return nil, err
		}
		switch kind {
		case lambdaevent.FunctionURL:
			return serve(ctx, payload)
		case lambdaevent.Direct:
			return r.Handle(ctx, payload)
		}
		return nil, fmt.Errorf("test-receiver does not serve a %s", kind)
	}
}
