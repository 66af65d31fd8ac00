// Package assemble builds each function from its environment. The
// Lambda binaries and the local runner build the same handlers here; what
// differs is only the Backend under them. It promises that every variable a
// function reads stands in that function's settings, so that the template can
// be checked against them.
package assemble

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/caarlos0/env/v11"

	"github.com/tidings-dev/tidings/pkg/admin"
	"github.com/tidings-dev/tidings/pkg/aws/secrets"
	"github.com/tidings-dev/tidings/pkg/aws/snstopic"
	"github.com/tidings-dev/tidings/pkg/aws/sqsqueue"
	"github.com/tidings-dev/tidings/pkg/aws/xraytracing"
	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/ops/alert"
	"github.com/tidings-dev/tidings/pkg/ops/health"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/ops/tracing"
	"github.com/tidings-dev/tidings/pkg/platform/discussions"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
	"github.com/tidings-dev/tidings/pkg/testsend"
)

// Store is everything the functions keep; dynamostore and memstore each are one.
type Store interface {
	emit.Events
	emit.Keys
	dispatch.Events
	dispatch.Endpoints
	dispatch.Disabler
	dispatch.Deliveries
	dispatch.DueIndex
	dispatch.Replays
	dispatch.Statistics
	stats.Source
	dispatch.Waiting
	dispatch.Breakers
	dispatch.Limits
	discussions.Store
	admin.Store
	console.Notes
	console.Audit
	console.Discussions
	GetDelivery(ctx context.Context, k delivery.Key) (delivery.Delivery, error)
	health.Endpoints
	alert.Documents
}

// Backend is what handlers stand on. A function takes the parts that it needs.
type Backend struct {
	Store func(dynamo.Tables) Store
	Queue func(url string) dispatch.Queue
	// DeadLetters opens the dead-letter queue of a work queue.
	DeadLetters func(url string) dispatch.DeadLetters
	Log         *slog.Logger
	// CacheTime is how long dispatch uses endpoints unread.
	CacheTime    time.Duration
	Destinations Destinations
	// Invoke calls another function of the stack by its name.
	Invoke func(function string) console.Invoke
	// Receiver is the local runner's, for the console to misbehave with; a
	// deployment has none.
	Receiver console.Receiver
	// Depth measures a queue, Topic publishes, Secret reads a secret by its name.
	Depth  func(url string) health.Queue
	Topic  func(arn string) alert.Publisher
	Secret func(ctx context.Context, name string) (string, error)
	// Metrics gets lines of metrics; nil for nobody.
	Metrics io.Writer
	// LogLevel is the least level of lines that are kept; "" is INFO.
	LogLevel string
	// Pace, if not nil, is the time by which statistics, health and alerts count:
	// the local runner can let an hour pass in a minute, to see alerts come and go.
	Pace func(time.Time) time.Time
	// Tracer returns what records so many percent of the traces; nil for none.
	Tracer func(percent int) (Tracer, error)
}

func (b Backend) pace(t time.Time) time.Time {
	if b.Pace == nil {
		return t
	}
	return b.Pace(t)
}

// Tracer records parts of traces.
type Tracer interface {
	emit.Tracer
	dispatch.Tracer
}

// tracer returns the backend's tracer, or the one that records nothing.
func (b Backend) tracer(percent int) (Tracer, error) {
	if b.Tracer == nil || percent == 0 {
		return tracing.None{}, nil
	}
	return b.Tracer(percent)
}

// TracingSettings say how much is traced.
type TracingSettings struct {
	// TraceSampling is the share of the traces that Lambda samples, in percent.
	TraceSampling int `env:"TRACE_SAMPLING" envDefault:"0"`
}

// Destinations opens every protocol that webhooks can take; package destinations
// has it.
type Destinations func(DestinationSettings) (*destination.Registry, error)

// Handle is a function. It is a lambda.Handler, too: what lambda.NewHandler makes
// of a plain function reads every payload twice more, through reflection.
type Handle func(context.Context, json.RawMessage) (any, error)

// Invoke is how Lambda calls the function.
func (h Handle) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	answer, err := h(ctx, payload)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	lines := json.NewEncoder(&out)
	lines.SetEscapeHTML(false)
	if err := lines.Encode(answer); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// Function builds a function from its environment.
type Function func(b Backend, environment map[string]string) (Handle, error)

// Functions returns all there are, by the name of their folder. It is a function
// and not a variable, so that a binary links only what it serves.
func Functions() map[string]Function {
	return map[string]Function{
		"emit":              Emit,
		"dispatch":          Dispatch,
		"test-webhook":      TestWebhook,
		"close-discussions": CloseDiscussions,
		"console":           Console,
		"health":            Health,
	}
}

// Settings returns, by the function's name, the zero value of the struct that its
// environment is parsed into; the template's tests read its tags.
func Settings() map[string]any {
	return map[string]any{
		"emit":              EmitSettings{},
		"dispatch":          DispatchSettings{},
		"test-webhook":      TestWebhookSettings{},
		"close-discussions": CloseDiscussionsSettings{},
		"console":           ConsoleSettings{},
		"health":            HealthSettings{},
	}
}

// EmitSettings is emit's environment.
type EmitSettings struct {
	EventsTable  string `env:"EVENTS_TABLE,required,notEmpty"`
	ControlTable string `env:"CONTROL_TABLE,required,notEmpty"`
	TracingSettings
}

// Emit builds the emit function.
func Emit(b Backend, environment map[string]string) (Handle, error) {
	s, err := parse[EmitSettings](environment)
	if err != nil {
		return nil, err
	}
	tracer, err := b.tracer(s.TraceSampling)
	if err != nil {
		return nil, err
	}
	store := b.Store(dynamo.Tables{Events: s.EventsTable, Control: s.ControlTable})
	em := &emit.Emitter{Catalog: catalog.Default(), Events: store, Keys: store, Log: b.Log, Now: time.Now, Tracer: tracer}
	return em.Handle, nil
}

// CloseDiscussionsSettings is close-discussions' environment.
type CloseDiscussionsSettings struct {
	PlatformTable string `env:"PLATFORM_TABLE,required,notEmpty"`
}

// CloseDiscussions builds the close-discussions function.
func CloseDiscussions(b Backend, environment map[string]string) (Handle, error) {
	s, err := parse[CloseDiscussionsSettings](environment)
	if err != nil {
		return nil, err
	}
	closer := &discussions.Closer{Store: b.Store(dynamo.Tables{Platform: s.PlatformTable}), Log: b.Log, Now: time.Now}
	return closer.Handle, nil
}

// DispatchSettings is dispatch's environment.
type DispatchSettings struct {
	EventsTable     string `env:"EVENTS_TABLE,required,notEmpty"`
	DeliveriesTable string `env:"DELIVERIES_TABLE,required,notEmpty"`
	EndpointsTable  string `env:"ENDPOINTS_TABLE,required,notEmpty"`
	ControlTable    string `env:"CONTROL_TABLE,required,notEmpty"`
	WorkQueueURL    string `env:"WORK_QUEUE_URL,required,notEmpty"`
	WorkDeadURL     string `env:"WORK_DEAD_QUEUE_URL,required,notEmpty"`
	StackName       string `env:"STACK_NAME,required,notEmpty"`
	DestinationSettings
	TracingSettings
}

// DestinationSettings say where webhooks may go.
type DestinationSettings struct {
	AllowHTTP     bool   `env:"ALLOW_HTTP"`
	AllowNetworks string `env:"ALLOW_NETWORKS"` // comma separated CIDRs
	// GoogleCredentials is a workload identity federation's configuration, as JSON.
	GoogleCredentials string `env:"GOOGLE_CREDENTIALS"`
}

// ThisMachine allows receivers on the machine itself: they have no certificate
// and no public address. It is for the local runner.
var ThisMachine = DestinationSettings{AllowHTTP: true, AllowNetworks: "127.0.0.0/8,::1/128"}

// Dispatch builds the dispatch function.
func Dispatch(b Backend, environment map[string]string) (Handle, error) {
	s, err := parse[DispatchSettings](environment)
	if err != nil {
		return nil, err
	}
	sender, err := b.Destinations(s.DestinationSettings)
	if err != nil {
		return nil, err
	}
	tracer, err := b.tracer(s.TraceSampling)
	if err != nil {
		return nil, err
	}
	store := b.Store(dynamo.Tables{Events: s.EventsTable, Deliveries: s.DeliveriesTable, Endpoints: s.EndpointsTable, Control: s.ControlTable})
	d := dispatch.New(dispatch.Config{
		Catalog: catalog.Default(), Events: store, Endpoints: store, Disabler: store, Deliveries: store,
		Due: store, Replays: store, Statistics: b.statistics(store, s.StackName), Waiting: store, Breakers: store, Limits: store,
		Queue: b.Queue(s.WorkQueueURL), DeadLetters: b.DeadLetters(s.WorkDeadURL), Sender: sender, Log: b.Log, Tracer: tracer, CacheTime: b.CacheTime,
	})
	return d.Handle, nil
}

// TestWebhookSettings is test-webhook's environment.
type TestWebhookSettings struct {
	EndpointsTable string `env:"ENDPOINTS_TABLE,required,notEmpty"`
	ControlTable   string `env:"CONTROL_TABLE,required,notEmpty"`
	DestinationSettings
}

// TestWebhook builds the test-webhook function.
func TestWebhook(b Backend, environment map[string]string) (Handle, error) {
	s, err := parse[TestWebhookSettings](environment)
	if err != nil {
		return nil, err
	}
	// What cannot be opened is found out now, not at the first test.
	first, err := b.Destinations(s.DestinationSettings)
	if err != nil {
		return nil, err
	}
	if err := first.Close(); err != nil {
		return nil, err
	}
	store := b.Store(dynamo.Tables{Endpoints: s.EndpointsTable, Control: s.ControlTable})
	t := &testsend.Tester{
		Catalog: catalog.Default(), Endpoints: store, Limits: store,
		Open: func() (testsend.Sender, error) { return b.Destinations(s.DestinationSettings) },
		Log:  b.Log, Now: time.Now,
	}
	return t.Handle, nil
}

func parse[T any](environment map[string]string) (T, error) {
	settings, err := env.ParseAsWithOptions[T](env.Options{Environment: environment})
	if err != nil {
		return settings, fmt.Errorf("environment: %w", err)
	}
	return settings, nil
}

// Deployed builds a function on AWS from the process's environment. It ends the
// process where that can't work: Lambda then reports the reason at deployment's
// first invocation. Clients are made, but nothing is connected before it is used.
// destinations is for a function that delivers; nil for one that does not. more add
// to the backend what few functions need.
func Deployed(build Function, destinations func(aws.Config, map[string]string) Destinations, more ...func(aws.Config, *Backend)) lambda.Handler {
	log := lambdacontext.NewLogger()
	handle, err := deployed(build, destinations, log, more)
	if err != nil {
		log.Error("function cannot start", "error", err.Error())
		os.Exit(1)
	}
	return lambda.NewHandler(handle)
}

// SpareCollector lets the collector run seldom, because a function's memory is paid
// for whether it is used or not: when the heap has grown fivefold, and in time
// before the memory, in MB, is full. GOGC and GOMEMLIMIT, where they are set, say
// otherwise.
func SpareCollector(memory int, environment map[string]string) {
	if environment["GOGC"] == "" {
		debug.SetGCPercent(400)
	}
	if environment["GOMEMLIMIT"] == "" {
		debug.SetMemoryLimit(int64(memory) << 20 / 4 * 3)
	}
}

func deployed(build Function, destinations func(aws.Config, map[string]string) Destinations, log *slog.Logger, more []func(aws.Config, *Backend)) (Handle, error) {
	access, err := config.LoadDefaultConfig(context.Background())
	if err != nil {
		return nil, fmt.Errorf("AWS configuration: %w", err)
	}
	environment := map[string]string{}
	for _, pair := range os.Environ() {
		name, value, _ := strings.Cut(pair, "=")
		environment[name] = value
	}
	if memory, err := strconv.Atoi(environment["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]); err == nil {
		SpareCollector(memory, environment)
	}
	b := Backend{
		Store:       func(t dynamo.Tables) Store { return dynamo.New(dynamodb.NewFromConfig(access), t) },
		Queue:       func(url string) dispatch.Queue { return sqsqueue.New(sqs.NewFromConfig(access), url) },
		DeadLetters: func(url string) dispatch.DeadLetters { return sqsqueue.NewDeadLetters(sqs.NewFromConfig(access), url) },
		Log:         log,
		CacheTime:   dispatch.CacheTime,
		Metrics:     os.Stdout,
		LogLevel:    environment["AWS_LAMBDA_LOG_LEVEL"],
		Depth:       func(url string) health.Queue { return sqsqueue.Gauge{Client: sqs.NewFromConfig(access), URL: url} },
		Topic:       func(arn string) alert.Publisher { return snstopic.Topic{Client: sns.NewFromConfig(access), ARN: arn} },
		Secret: func(ctx context.Context, name string) (string, error) {
			return secrets.Manager{Client: secretsmanager.NewFromConfig(access)}.Secret(ctx, name)
		},
	}
	// Lambda says where its daemon listens, where tracing is on.
	if daemon := environment["AWS_XRAY_DAEMON_ADDRESS"]; daemon != "" {
		b.Tracer = func(percent int) (Tracer, error) { return xraytracing.New(daemon, percent) }
	}
	if destinations != nil {
		b.Destinations = destinations(access, environment)
	}
	for _, add := range more {
		add(access, &b)
	}
	return build(b, environment)
}
