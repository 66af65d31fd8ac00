// Package handler builds the dispatch function from its settings and a backend: AWS's
// services in main, local ones in the local runner. Settings has a field for each
// environment variable that the function reads.
package handler

import (
	"log/slog"
	"time"

	"github.com/tidings-dev/tidings/pkg/aws/lambdamain"
	"github.com/tidings-dev/tidings/pkg/destination/builtin"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/event/deployed"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
)

// Settings are the function's environment variables.
type Settings struct {
	EventsTable              string `env:"EVENTS_TABLE,required,notEmpty"`
	DeliveriesTable          string `env:"DELIVERIES_TABLE,required,notEmpty"`
	EndpointsTable           string `env:"ENDPOINTS_TABLE,required,notEmpty"`
	ControlTable             string `env:"CONTROL_TABLE,required,notEmpty"`
	WorkQueueURL             string `env:"WORK_QUEUE_URL,required,notEmpty"`
	SlowQueueURL             string `env:"SLOW_QUEUE_URL,required,notEmpty"`
	WorkDeadLetterQueueURL   string `env:"WORK_DEAD_QUEUE_URL,required,notEmpty"`
	StreamDeadLetterQueueURL string `env:"STREAM_DEAD_QUEUE_URL,required,notEmpty"`
	StackName                string `env:"STACK_NAME,required,notEmpty"` // dimension of the metrics
	// Metrics is all, or alarms for only those that alarms look at.
	Metrics string `env:"METRICS" envDefault:"alarms"`
	// TraceSampling is the share, in percent, of the traces sampled by Lambda.
	TraceSampling int `env:"TRACE_SAMPLING" envDefault:"0"`
	// RetentionDays is how many days events are kept whose type has no retention of its own.
	RetentionDays int `env:"RETENTION_DAYS" envDefault:"30"`
	builtin.Settings
}

// Tables returns the names of the tables that the function uses.
func (s Settings) Tables() dynamo.Tables {
	return dynamo.Tables{Events: s.EventsTable, Deliveries: s.DeliveriesTable, Endpoints: s.EndpointsTable, Control: s.ControlTable}
}

// Store is what the function stores, besides statistics.
type Store interface {
	dispatch.Events
	dispatch.Endpoints
	dispatch.Disabler
	dispatch.Deliveries
	dispatch.DueIndex
	dispatch.Replays
	dispatch.Waiting
	dispatch.Breakers
	dispatch.Limits
	dispatch.Journal
	dispatch.Jobs
	dispatch.StoredEvents
	dispatch.Erasures
	dispatch.KeptChanges
	deployed.Source
	dispatch.JobList
	dispatch.EventScan
}

// Backend is what the function runs on. All fields but CacheTime and RetentionDays are
// required.
type Backend struct {
	Store             Store
	Statistics        dispatch.Statistics
	Queue             dispatch.Queue
	SlowQueue         dispatch.Queue
	DeadLetters       dispatch.DeadLetters
	StreamDeadLetters dispatch.DeadLetters
	Sender            dispatch.Sender
	Tracer            dispatch.Tracer
	Log               *slog.Logger
	CacheTime         time.Duration // how long endpoints are cached; 0 reads them every time
	RetentionDays     int           // the setting of this name; 0 means its default
}

// New returns the function's handler.
func New(b Backend) lambdamain.Handler {
	d := dispatch.New(dispatch.Config{
		Events: b.Store, Endpoints: b.Store, Disabler: b.Store, Deliveries: b.Store, Due: b.Store,
		Replays: b.Store, Waiting: b.Store, Breakers: b.Store, Limits: b.Store, Journal: b.Store, Jobs: b.Store, JobList: b.Store, Scan: b.Store, StoredEvents: b.Store, Erasures: b.Store, Kept: b.Store,
		Types: &deployed.Live{Source: b.Store, Now: time.Now, Log: b.Log}, Statistics: b.Statistics, Queue: b.Queue,
		SlowQueue: b.SlowQueue, DeadLetters: b.DeadLetters, StreamDeadLetters: b.StreamDeadLetters, Sender: b.Sender, Tracer: b.Tracer, Log: b.Log, CacheTime: b.CacheTime,
		RetentionDays: b.RetentionDays,
	})
	return Route(d)
}
