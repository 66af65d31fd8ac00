// Package handler builds the console function from its settings and a backend: AWS's
// services in main, local ones in the local runner. Settings has a field for each
// environment variable that the function reads.
package handler

import (
	"log/slog"
	"time"

	"github.com/tidings-dev/tidings/pkg/admin"
	"github.com/tidings-dev/tidings/pkg/aws/functionurl"
	"github.com/tidings-dev/tidings/pkg/aws/lambdamain"
	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/builtin"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
)

// Settings are the function's environment variables.
type Settings struct {
	EventsTable      string `env:"EVENTS_TABLE,required,notEmpty"`
	DeliveriesTable  string `env:"DELIVERIES_TABLE,required,notEmpty"`
	EndpointsTable   string `env:"ENDPOINTS_TABLE,required,notEmpty"`
	ControlTable     string `env:"CONTROL_TABLE,required,notEmpty"`
	PlatformTable    string `env:"PLATFORM_TABLE,required,notEmpty"`
	DispatchFunction string `env:"DISPATCH_FUNCTION,required,notEmpty"`
	TestFunction     string `env:"TEST_FUNCTION,required,notEmpty"`
	builtin.Settings
}

// Tables returns the names of the tables that the function uses.
func (s Settings) Tables() dynamo.Tables {
	return dynamo.Tables{Events: s.EventsTable, Deliveries: s.DeliveriesTable, Endpoints: s.EndpointsTable, Control: s.ControlTable, Platform: s.PlatformTable}
}

// Store is what the function stores.
type Store interface {
	admin.Store
	console.Deliveries
	console.Events
	console.Audit
	console.Breakers
	console.Discussions
	console.SessionStore
	stats.Source
}

// Backend is what the function runs on. All fields but Receiver are required.
type Backend struct {
	Store Store
	// Check refuses an endpoint whose destination is invalid or not allowed.
	Check func(destination.Target) error
	// Dispatch and TestWebhook call the functions of these names.
	Dispatch, TestWebhook console.Invoke
	// Receiver is the local runner's example receiver; nil in a deployment.
	Receiver console.Receiver
	Log      *slog.Logger
}

// New returns the function's handler.
func New(b Backend) lambdamain.Handler {
	known := catalog.Default()
	c := &console.Console{
		Operations: &console.Operations{
			Endpoints:  &admin.Endpoints{Store: b.Store, Types: known.Types(), Check: b.Check, Now: time.Now},
			Deliveries: b.Store, Events: b.Store, Catalog: known, Audit: b.Store, Breakers: b.Store, Discussions: b.Store,
			Statistics: &stats.Reader{Source: b.Store, Now: time.Now},
			Dispatch:   b.Dispatch, TestWebhook: b.TestWebhook, Receiver: b.Receiver, Now: time.Now,
		},
		Sessions: b.Store, Log: b.Log,
	}
	return functionurl.Handler(c.Handler())
}
