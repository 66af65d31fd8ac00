// Package handler builds the close-discussions function from its settings and a backend: AWS's
// services in main, local ones in the local runner. Settings has a field for each
// environment variable that the function reads.
package handler

import (
	"log/slog"
	"time"

	"github.com/tidings-dev/tidings/pkg/aws/lambdamain"
	"github.com/tidings-dev/tidings/pkg/platform/discussions"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
)

// Settings are the function's environment variables.
type Settings struct {
	PlatformTable    string `env:"PLATFORM_TABLE,required,notEmpty"`
	DiscussionsTable string `env:"DISCUSSIONS_TABLE,required,notEmpty"`
}

// Tables returns the names of the tables that the function uses.
func (s Settings) Tables() dynamo.Tables {
	return dynamo.Tables{Platform: s.PlatformTable, Discussions: s.DiscussionsTable}
}

// Store is what the function stores.
type Store = discussions.Store

// Backend is what the function runs on. All fields are required.
type Backend struct {
	Store Store
	Log   *slog.Logger
}

// New returns the function's handler.
func New(b Backend) lambdamain.Handler {
	closer := &discussions.Closer{Store: b.Store, Log: b.Log, Now: time.Now}
	return closer.Handle
}
