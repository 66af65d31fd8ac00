// Package handler builds the test-webhook function from its settings and a backend: AWS's
// services in main, local ones in the local runner. Settings has a field for each
// environment variable that the function reads.
package handler

import (
	"log/slog"
	"time"

	"github.com/tidings-dev/tidings/pkg/aws/lambdamain"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/builtin"
	"github.com/tidings-dev/tidings/pkg/event/deployed"
	"github.com/tidings-dev/tidings/pkg/event/validate"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
	"github.com/tidings-dev/tidings/pkg/testsend"
)

// Settings are the function's environment variables.
type Settings struct {
	EndpointsTable string `env:"ENDPOINTS_TABLE,required,notEmpty"`
	ControlTable   string `env:"CONTROL_TABLE,required,notEmpty"`
	builtin.Settings
}

// Tables returns the names of the tables that the function uses.
func (s Settings) Tables() dynamo.Tables {
	return dynamo.Tables{Endpoints: s.EndpointsTable, Control: s.ControlTable}
}

// Store is what the function stores.
type Store interface {
	deployed.Source
	testsend.Endpoints
	testsend.Limits
}

// Backend is what the function runs on. All fields but CacheTime are required.
type Backend struct {
	Store Store
	// Open opens the destinations for one test, so that no test reuses a connection.
	Open      func() (*destination.Router, error)
	Log       *slog.Logger
	CacheTime time.Duration // how long event types are cached; 0 reads them every time
}

// New returns the function's handler. It opens and closes the destinations once, so
// that invalid settings fail at start and not at the first test.
func New(b Backend) (lambdamain.Handler, error) {
	first, err := b.Open()
	if err != nil {
		return nil, err
	}
	if err := first.Close(); err != nil {
		return nil, err
	}
	types := &deployed.Live{Source: b.Store, CacheTime: b.CacheTime, Now: time.Now, Log: b.Log}
	valid := &validate.Live{Types: types}
	t := &testsend.Tester{
		Catalog: types, Validate: valid.Validate, Endpoints: b.Store, Limits: b.Store,
		Open: func() (testsend.Sender, error) { return b.Open() },
		Log:  b.Log, Now: time.Now,
	}
	return t.Handle, nil
}
