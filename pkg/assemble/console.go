package assemble

import (
	"time"

	"github.com/tidings-dev/tidings/pkg/admin"
	"github.com/tidings-dev/tidings/pkg/aws/functionurl"
	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
)

// ConsoleSettings is the console's environment.
type ConsoleSettings struct {
	EventsTable      string `env:"EVENTS_TABLE,required,notEmpty"`
	DeliveriesTable  string `env:"DELIVERIES_TABLE,required,notEmpty"`
	EndpointsTable   string `env:"ENDPOINTS_TABLE,required,notEmpty"`
	ControlTable     string `env:"CONTROL_TABLE,required,notEmpty"`
	PlatformTable    string `env:"PLATFORM_TABLE,required,notEmpty"`
	DispatchFunction string `env:"DISPATCH_FUNCTION,required,notEmpty"`
	TestFunction     string `env:"TEST_FUNCTION,required,notEmpty"`
	DestinationSettings
}

// Console builds the console function.
func Console(b Backend, environment map[string]string) (Handle, error) {
	s, err := parse[ConsoleSettings](environment)
	if err != nil {
		return nil, err
	}
	protocols, err := b.Destinations(s.DestinationSettings)
	if err != nil {
		return nil, err
	}
	store := b.Store(dynamo.Tables{Events: s.EventsTable, Deliveries: s.DeliveriesTable, Endpoints: s.EndpointsTable, Control: s.ControlTable, Platform: s.PlatformTable})
	known := catalog.Default()
	c := &console.Console{
		Operations: &console.Operations{
			Endpoints:  &admin.Endpoints{Store: store, Types: known.Types(), Check: protocols.Check, Now: time.Now},
			Deliveries: store, Events: store, Catalog: known, Audit: store,
			Breakers: store, Discussions: store, Statistics: &stats.Reader{Source: store, Now: time.Now},
			Dispatch: b.Invoke(s.DispatchFunction), TestWebhook: b.Invoke(s.TestFunction), Receiver: b.Receiver, Now: time.Now,
		},
		Notes: store, Log: b.Log,
	}
	return functionurl.Handler(c.Handler()), nil
}
