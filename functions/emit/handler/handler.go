// Package handler builds the emit function from its settings and a backend: AWS's
// services in main, local ones in the local runner. Settings has a field for each
// environment variable that the function reads.
package handler

import (
	"log/slog"
	"time"

	"github.com/tidings-dev/tidings/pkg/aws/lambdamain"
	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/emit/capture/live"
	"github.com/tidings-dev/tidings/pkg/event/deployed"
	"github.com/tidings-dev/tidings/pkg/event/validate"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
)

// Settings are the function's environment variables.
type Settings struct {
	EventsTable     string `env:"EVENTS_TABLE,required,notEmpty"`
	DeliveriesTable string `env:"DELIVERIES_TABLE,required,notEmpty"` // of the failed changes
	ControlTable    string `env:"CONTROL_TABLE,required,notEmpty"`
	// PlatformTable is the table of the community platform, one of those that are captured.
	PlatformTable string `env:"PLATFORM_TABLE,required,notEmpty"`
	// DiscussionsTable is the index of the discussions in the platform's table.
	DiscussionsTable string `env:"DISCUSSIONS_TABLE,required,notEmpty"`
	StackName        string `env:"STACK_NAME,required,notEmpty"` // dimension of the metrics
	// Metrics is all, or alarms for only those that alarms look at.
	Metrics string `env:"METRICS" envDefault:"alarms"`
	// TraceSampling is the share, in percent, of the traces sampled by Lambda.
	TraceSampling int `env:"TRACE_SAMPLING" envDefault:"0"`
	// RetentionDays is how many days events are kept whose type has no retention of its own.
	RetentionDays int `env:"RETENTION_DAYS" envDefault:"30"`
	// DeadLetterQueueURL is where refused messages of the emit queue go; empty without one.
	DeadLetterQueueURL string `env:"EMIT_DEAD_LETTER_QUEUE_URL"`
}

// Tables returns the names of the tables that the function uses.
func (s Settings) Tables() dynamo.Tables {
	return dynamo.Tables{Events: s.EventsTable, Deliveries: s.DeliveriesTable, Control: s.ControlTable, Discussions: s.DiscussionsTable}
}

// Store is what the function stores.
type Store interface {
	deployed.Source
	emit.Events
	emit.Keys
	emit.FailedChanges
	emit.Recaptures
	emit.StuckCaptures
	emit.Discussions
}

// Backend is what the function runs on. All fields but CacheTime and Letters are required.
type Backend struct {
	Store      Store
	Statistics stats.Sink
	Tracer     emit.Tracer
	Log        *slog.Logger
	// PlatformTable is its name; only its changes are the shipped rules' and its discussions
	// indexed. Empty means every captured table.
	PlatformTable string
	CacheTime     time.Duration // how long event types and capture rules are cached; 0 reads them every time
	// RetentionDays is the setting of this name; 0 means its default.
	RetentionDays int
	// Letters is the dead-letter queue of the emit queue; nil without one.
	Letters emit.Letters
}

// New returns the function's handler.
func New(b Backend) lambdamain.Handler {
	types := &deployed.Live{Source: b.Store, CacheTime: b.CacheTime, Now: time.Now, Log: b.Log}
	em := &emit.Emitter{
		Catalog: &validate.Live{Types: types}, PlatformTable: b.PlatformTable, Rules: &live.Rules{Source: types, Log: b.Log, PlatformTable: b.PlatformTable}, Events: b.Store, Keys: b.Store, Discussions: b.Store, Failed: b.Store, Kept: b.Store, Stuck: b.Store, Statistics: b.Statistics,
		Log: b.Log, Now: time.Now, Tracer: b.Tracer, RetentionDays: b.RetentionDays, Letters: b.Letters,
	}
	return Route(em)
}
