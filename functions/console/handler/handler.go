// Package handler builds the console function from its settings and a backend: AWS's
// services in main, local ones in the local runner. Settings has a field for each
// environment variable that the function reads.
package handler

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/pkg/admin"
	"github.com/tidings-dev/tidings/pkg/admin/capturerules"
	"github.com/tidings-dev/tidings/pkg/admin/eventtypes"
	"github.com/tidings-dev/tidings/pkg/aws/functionurl"
	"github.com/tidings-dev/tidings/pkg/aws/lambdamain"
	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/builtin"
	"github.com/tidings-dev/tidings/pkg/event/deployed"
	"github.com/tidings-dev/tidings/pkg/event/journal"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/platform/remote"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
)

// Settings are the function's environment variables.
type Settings struct {
	EventsTable      string `env:"EVENTS_TABLE,required,notEmpty"`
	DeliveriesTable  string `env:"DELIVERIES_TABLE,required,notEmpty"`
	EndpointsTable   string `env:"ENDPOINTS_TABLE,required,notEmpty"`
	ControlTable     string `env:"CONTROL_TABLE,required,notEmpty"`
	PlatformTable    string `env:"PLATFORM_TABLE,required,notEmpty"`
	DiscussionsTable string `env:"DISCUSSIONS_TABLE,required,notEmpty"`
	DispatchFunction string `env:"DISPATCH_FUNCTION,required,notEmpty"`
	TestFunction     string `env:"TEST_FUNCTION,required,notEmpty"`
	EmitFunction     string `env:"EMIT_FUNCTION,required,notEmpty"`
	// CloseEveryMinutes is how often expired discussions are closed; 0 turns it off.
	CloseEveryMinutes int `env:"CLOSE_EVERY_MINUTES" envDefault:"0"`
	// DiscussionsURL is the endpoint of a platform that keeps its discussions elsewhere; empty
	// if they are in PlatformTable. DiscussionsSecret is the name of the secret that signs the
	// requests to it.
	DiscussionsURL    string `env:"DISCUSSIONS_URL"`
	DiscussionsSecret string `env:"DISCUSSIONS_SECRET"`
	// SourceAddresses are the addresses from which webhooks are sent, which the console
	// publishes.
	SourceAddresses console.SourceAddresses `env:"SOURCE_ADDRESSES"`
	// PublicCatalog shows the catalog of event types without a session.
	PublicCatalog bool `env:"PUBLIC_CATALOG" envDefault:"false"`
	// RetentionDays is how many days events are kept whose type has no retention of its own.
	RetentionDays int `env:"RETENTION_DAYS" envDefault:"30"`
	builtin.Settings
	stats.Targets
}

// Tables returns the names of the tables that the function uses.
func (s Settings) Tables() dynamo.Tables {
	return dynamo.Tables{
		Events: s.EventsTable, Deliveries: s.DeliveriesTable, Endpoints: s.EndpointsTable, Control: s.ControlTable,
		Platform: s.PlatformTable, Discussions: s.DiscussionsTable,
	}
}

// Store is what the function stores.
type Store interface {
	admin.Store
	deployed.Store
	eventtypes.Endpoints
	console.Deliveries
	console.Events
	journal.Source
	console.Jobs
	console.Audit
	console.Breakers
	console.Discussions
	console.FailedChanges
	console.SessionStore
	stats.Source
	stats.Days
}

// Backend is what the function runs on. All fields but Receiver are required.
type Backend struct {
	Store Store
	// Check refuses an endpoint whose destination is invalid or not allowed.
	Check func(destination.Target) error
	// Dispatch, TestWebhook and Emit call the functions of these names.
	Dispatch, TestWebhook, Emit console.Invoke
	// Secret reads a secret by its name.
	Secret func(ctx context.Context, name string) (string, error)
	// Receiver is the local runner's example receiver; nil in a deployment.
	Receiver console.Receiver
	Log      *slog.Logger
	// CacheTime is how long event types are cached; 0 reads them every time.
	CacheTime time.Duration
}

// New returns the function's handler.
func New(s Settings, b Backend) lambdamain.Handler {
	reader := &stats.Reader{Source: b.Store, Now: time.Now}
	types := &deployed.Live{Source: b.Store, CacheTime: b.CacheTime, Now: time.Now, Log: b.Log}
	var discussions console.Discussions = b.Store
	if s.DiscussionsURL != "" {
		discussions = &remote.Client{URL: s.DiscussionsURL, Secret: cachedSecret(b.Secret, s.DiscussionsSecret), Now: time.Now}
	}
	c := &console.Console{
		Operations: &console.Operations{
			Endpoints:  &admin.Endpoints{Store: b.Store, Catalog: types, Check: b.Check, Now: time.Now},
			Deliveries: b.Store, Events: b.Store, Journal: b.Store, Jobs: b.Store, Audit: b.Store, Breakers: b.Store, Discussions: discussions, FailedChanges: b.Store,
			Rules:      &capturerules.Manager{Store: b.Store, Check: capturerules.Remote(b.Emit), Now: time.Now},
			Types:      &eventtypes.Manager{Store: b.Store, Endpoints: b.Store, Check: eventtypes.Remote(b.Emit), Now: time.Now},
			Statistics: reader, History: &stats.History{Reader: reader, Days: b.Store, Now: time.Now}, Targets: s.Targets,
			Dispatch: b.Dispatch, TestWebhook: b.TestWebhook, Emit: b.Emit, Receiver: b.Receiver, Now: time.Now, RetentionDays: s.RetentionDays,
		},
		Sessions: b.Store, CloseEvery: time.Duration(s.CloseEveryMinutes) * time.Minute, SourceAddresses: s.SourceAddresses,
		PublicCatalog: s.PublicCatalog, Log: b.Log,
	}
	return functionurl.Handler(c.Handler())
}

// cachedSecret reads and parses a signing secret once. A new one takes effect with the
// next version of the function.
func cachedSecret(read func(context.Context, string) (string, error), name string) func(context.Context) (signature.Secret, error) {
	var mu sync.Mutex
	var secret signature.Secret
	return func(ctx context.Context) (signature.Secret, error) {
		mu.Lock()
		defer mu.Unlock()
		if !secret.IsZero() {
			return secret, nil
		}
		text, err := read(ctx, name)
		if err != nil {
			return signature.Secret{}, fmt.Errorf("read the secret %s: %w", name, err)
		}
		var stored struct {
			SigningSecret string `json:"signing_secret"`
		}
		err = json.Unmarshal([]byte(text), &stored)
		parsed, malformed := signature.ParseSecret(stored.SigningSecret)
		if err != nil || malformed != nil {
			return signature.Secret{}, fmt.Errorf("the secret %s is not a signing secret: set DiscussionsSecret to whsec_ and base64", name)
		}
		secret = parsed
		return secret, nil
	}
}
