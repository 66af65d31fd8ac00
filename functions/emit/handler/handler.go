// Package handler builds the emit function from its settings and a backend: AWS's
// services in main, local ones in the local runner. Settings has a field for each
// environment variable that the function reads.
package handler

import (
	"log/slog"
	"time"

	"github.com/tidings-dev/tidings/pkg/aws/lambdamain"
	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/event/validate"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
)

// Settings are the function's environment variables.
type Settings struct {
	EventsTable  string `env:"EVENTS_TABLE,required,notEmpty"`
	ControlTable string `env:"CONTROL_TABLE,required,notEmpty"`
	// TraceSampling is the share, in percent, of the traces sampled by Lambda.
	TraceSampling int `env:"TRACE_SAMPLING" envDefault:"0"`
}

// Tables returns the names of the tables that the function uses.
func (s Settings) Tables() dynamo.Tables {
	return dynamo.Tables{Events: s.EventsTable, Control: s.ControlTable}
}

// Store is what the function stores.
type Store interface {
	emit.Events
	emit.Keys
}

// Backend is what the function runs on. All fields are required.
type Backend struct {
	Store  Store
	Tracer emit.Tracer
	Log    *slog.Logger
}

// New returns the function's handler.
func New(b Backend) lambdamain.Handler {
	em := &emit.Emitter{Catalog: validate.Default(), Events: b.Store, Keys: b.Store, Log: b.Log, Now: time.Now, Tracer: b.Tracer}
	return Route(em)
}
