package local

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/destination/builtin"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/local/dynamoemulator"
	"github.com/tidings-dev/tidings/pkg/local/loopback"
	"github.com/tidings-dev/tidings/pkg/local/queue"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
	"github.com/tidings-dev/tidings/pkg/ops/alert"
	"github.com/tidings-dev/tidings/pkg/ops/health"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
	"github.com/tidings-dev/tidings/pkg/store/memory"
)

// StackName is the stack name of the local runner.
const StackName = "tidings-local"

// account is the AWS account of the local runner.
const account = "000000000000"

// cacheTime is how long dispatch caches endpoints: short, so that a new endpoint takes
// effect immediately.
const cacheTime = 200 * time.Millisecond

// pauseAfterError is the delay before a failed poller restarts.
const pauseAfterError = time.Second

// Options configure Open.
type Options struct {
	Template string // path of template.yaml
	// StateDir stores the database, the queues and the checkpoints; "" keeps them in
	// memory.
	StateDir string
	// DynamoDB is the URL of a running DynamoDB; "" starts one.
	DynamoDB string
	// Memory uses the memory store instead of a DynamoDB.
	Memory bool
	// Port is the port of the Invoke API; other listeners use the ports after it. 0
	// selects free ports.
	Port int
	Log  *slog.Logger
	// Meter is called with the capacity that each DynamoDB call of a handler consumes.
	Meter dynamo.Meter
	// Metrics receives metrics as log lines; nil drops them.
	Metrics io.Writer
	// Alerts has the URLs for alerts and heartbeats; the zero value sends none. Emails are
	// written to the log.
	Alerts alert.Secret
	// TimeScale speeds up the clock of the sweep, the statistics, the health report
	// and the alerts: with 60, an hourly alert fires after a minute. 0 and 1 are real
	// time. Deployed functions have no such setting.
	TimeScale int
	// XRay is the host:port of an X-Ray daemon; "" disables tracing.
	XRay   string
	Clouds builtin.Clouds
	// Version is the version that the health report gives.
	Version string
	// OwnTables are tables besides those of the template, whose changes emit captures as if
	// they were the parameters CaptureStream1 and so on. They need a DynamoDB.
	OwnTables []OwnTable
	// Receiver is the receiver whose behaviour the console can change; nil for none.
	Receiver console.Receiver
	// DynamoLog receives the output of the started DynamoDB; nil drops it.
	DynamoLog io.Writer
}

// System is a running stack on this machine.
type System struct {
	Stack     *samtemplate.Stack
	InvokeURL string
	SQSURL    string // endpoint of the SQS API for the queues
	// URLs are the function URLs by folder.
	URLs map[string]string
	// DynamoURL is "" on the memory store.
	DynamoURL string
	// Access are the secrets of this run, which callers of the AWS APIs and of the health
	// report need.
	Access Access
	// Store is for operators; the handlers have their own.
	Store Store
	// Queues are by their logical id.
	Queues map[string]*queue.Queue

	options   Options
	functions []*Function
	memory    *memory.Store
	dynamo    *dynamoemulator.Server
	dynamoURL string // of the emulator itself, which has no access control
	db        *dynamodb.Client
	lock      *os.File
	listeners []listener

	gateMu sync.Mutex
	gates  map[string]*gate // by trigger name; see Pause
}

type listener struct {
	net.Listener
	handler http.Handler
}

// Open starts DynamoDB, creates the tables and queues, and builds the functions. Nothing
// is delivered before Run.
func Open(ctx context.Context, o Options) (system *System, err error) {
	parsed, err := samtemplate.Load(o.Template)
	if err != nil {
		return nil, err
	}
	s := &System{options: o, Access: newAccess(), Queues: map[string]*queue.Queue{}, URLs: map[string]string{}}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	sampling := "0"
	if o.XRay != "" {
		sampling = "100"
	}
	token := sha256.Sum256([]byte(s.Access.HealthToken))
	parameters := map[string]string{
		"HealthTokenSha256": hex.EncodeToString(token[:]), "AlertSecret": alertSecret(o.Alerts),
		"TraceSampling": sampling, "TestReceiver": "true", "EmitQueue": "true",
		"AllowHttp": strconv.FormatBool(builtin.Loopback.AllowHTTP), "AllowNetworks": builtin.Loopback.AllowNetworks,
	}
	own, err := ownTables(o, parameters)
	if err != nil {
		return nil, err
	}
	s.Stack, err = parsed.Resolve(samtemplate.Context{
		StackName: StackName, Region: dynamoemulator.Region, Account: account, Parameters: parameters,
		QueueURL: func(name string) string { return name },
	})
	if err != nil {
		return nil, err
	}
	s.Stack.Tables = append(s.Stack.Tables, own...)
	if err := s.lockState(); err != nil {
		return nil, err
	}
	if err := s.openStore(ctx); err != nil {
		return nil, err
	}
	if err := s.openQueues(); err != nil {
		return nil, err
	}
	for _, f := range s.Stack.Functions {
		s.functions = append(s.functions, &Function{
			Function: f, ARN: "arn:aws:lambda:" + dynamoemulator.Region + ":" + account + ":function:" + f.Name, Log: s.options.Log, Traced: s.options.XRay != "",
		})
	}
	if s.InvokeURL, err = s.Listen(0, withKey(s.Access.Key, InvokeAPI(s.functions))); err != nil {
		return nil, err
	}
	next := 1
	for _, f := range s.functions {
		if !f.URL {
			continue
		}
		if s.URLs[f.Folder], err = s.Listen(next, FunctionURL(f)); err != nil {
			return nil, err
		}
		next++
	}
	if err := s.listenSQS(); err != nil {
		return nil, err
	}
	return s, s.buildFunctions()
}

func (s *System) openStore(ctx context.Context) error {
	if s.options.Memory {
		s.memory = memory.New(time.Now)
		s.Store = s.memory
		return nil
	}
	s.dynamoURL, s.DynamoURL = s.options.DynamoDB, s.options.DynamoDB
	if s.dynamoURL == "" {
		o := dynamoemulator.Options{Log: s.options.DynamoLog, Hidden: true}
		if s.options.StateDir != "" {
			o.DBPath = filepath.Join(s.options.StateDir, "dynamodb.db")
		}
		var err error
		if s.dynamo, err = dynamoemulator.Start(ctx, o); err != nil {
			return err
		}
		s.dynamoURL = s.dynamo.URL
		api, err := forward(s.dynamoURL)
		if err != nil {
			return err
		}
		if s.DynamoURL, err = s.Listen(dynamoPort, withKey(s.Access.Key, api)); err != nil {
			return err
		}
	}
	s.db = dynamoemulator.Client(s.dynamoURL)
	if err := dynamoemulator.CreateTables(ctx, s.db, s.Stack.Tables); err != nil {
		return err
	}
	s.Store = dynamo.New(s.db, Tables(StackName))
	return nil
}

// Tables returns the table names of a stack.
func Tables(stack string) dynamo.Tables {
	return dynamo.Tables{
		Events: stack + "-" + dynamoitem.Events, Deliveries: stack + "-" + dynamoitem.Deliveries,
		Endpoints: stack + "-" + dynamoitem.Endpoints, Control: stack + "-" + dynamoitem.Control,
		Platform: stack + "-" + dynamoitem.Platform, TestReceiver: stack + "-" + dynamoitem.TestReceiver,
		Discussions: stack + "-" + dynamoitem.Discussions,
	}
}

func (s *System) openQueues() error {
	open := func(q samtemplate.Queue, dead *queue.Queue) error {
		c := queue.Config{Name: q.Name, Visibility: q.Visibility, MaxReceives: q.MaxReceives, Dead: dead}
		// In memory, the deliveries of the messages are lost with the process.
		if s.options.StateDir != "" && !s.options.Memory {
			c.Journal = filepath.Join(s.options.StateDir, q.Name+".queue")
		}
		opened, err := queue.Open(c)
		if err != nil {
			return err
		}
		s.Queues[q.LogicalID] = opened
		return nil
	}
	for _, q := range s.Stack.Queues {
		if q.DeadARN == "" {
			if err := open(q, nil); err != nil {
				return err
			}
		}
	}
	for _, q := range s.Stack.Queues {
		if q.DeadARN != "" {
			if err := open(q, s.queueByARN(q.DeadARN)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *System) queueByURL(url string) *queue.Queue {
	for _, q := range s.Stack.Queues {
		if q.URL == url {
			return s.Queues[q.LogicalID]
		}
	}
	return nil
}

func (s *System) queueByARN(arn string) *queue.Queue {
	for _, q := range s.Stack.Queues {
		if q.ARN == arn {
			return s.Queues[q.LogicalID]
		}
	}
	return nil
}

func (s *System) buildFunctions() error {
	backend := Backend{
		Store: func(t dynamo.Tables) Store {
			if s.memory != nil {
				return s.memory
			}
			var options []dynamo.Option
			if s.options.Meter != nil {
				options = append(options, dynamo.WithMeter(s.options.Meter))
			}
			return dynamo.New(s.db, t, options...)
		},
		Queue:       func(url string) dispatch.Queue { return s.queueByURL(url) },
		DeadLetters: func(url string) dispatch.DeadLetters { return s.queueByURL(url) },
		Letters:     func(url string) emit.Letters { return s.queueByURL(url) },
		Depth:       func(url string) health.Queue { return s.queueByURL(url) },
		Topic:       func(string) alert.Publisher { return logTopic{s.options.Log} },
		Secret:      s.secret,
		Invoke: func(name string) console.Invoke {
			return func(ctx context.Context, payload, answer any) error {
				f := findFunction(s.functions, name)
				if f == nil {
					return fmt.Errorf("there is no function %s", name)
				}
				return f.call(ctx, payload, answer)
			}
		},
		Clouds: s.options.Clouds, Receiver: s.options.Receiver, Log: s.options.Log, Metrics: s.options.Metrics,
		CacheTime: cacheTime, XRay: s.options.XRay, Version: s.options.Version, Pace: s.pace(),
	}
	for _, f := range s.functions {
		if _, ok := f.Environment["CONSOLE_URL"]; ok {
			f.Environment["CONSOLE_URL"] = s.URLs["console"] + "/" // AWS's host is not known here
		}
		handler, err := backend.Build(f.Folder, f.Environment)
		if err != nil {
			return err
		}
		f.Handle = handler
	}
	return nil
}

// dynamoPort is the port of DynamoDB, counted from the first one.
const dynamoPort = 9

// Listen adds a handler for Run to serve, n ports after the first one, and returns its
// URL. It refuses requests from pages of other origins.
func (s *System) Listen(n int, handler http.Handler) (string, error) {
	port := 0
	if s.options.Port != 0 {
		port = s.options.Port + n
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return "", fmt.Errorf("port %d is not available; choose another with --port: %w", port, err)
	}
	s.listeners = append(s.listeners, listener{l, loopback.Only(handler)})
	return "http://" + l.Addr().String(), nil
}

// Run processes events until ctx is done, then waits for running invocations.
func (s *System) Run(ctx context.Context) error {
	group, groupCtx := errgroup.WithContext(ctx)
	for _, l := range s.listeners {
		server := &http.Server{Handler: l.handler, ReadHeaderTimeout: 10 * time.Second}
		group.Go(func() error {
			if err := server.Serve(l.Listener); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
		group.Go(func() error {
			<-groupCtx.Done()
			stop, cancel := context.WithTimeout(context.WithoutCancel(groupCtx), 5*time.Second)
			defer cancel()
			// A client's connection that never had a request counts as busy for five seconds.
			if err := server.Shutdown(stop); !errors.Is(err, context.DeadlineExceeded) {
				return err
			}
			return server.Close()
		})
	}
	if s.dynamo != nil {
		group.Go(func() error {
			select {
			case <-s.dynamo.Ended():
				return errors.New("the local DynamoDB exited; restart the runner, accepted events are not lost")
			case <-groupCtx.Done():
				return nil
			}
		})
	}
	for _, f := range s.functions {
		for _, t := range f.Streams {
			run, err := s.stream(f, t)
			if err != nil {
				return err
			}
			group.Go(func() error { return s.keep(groupCtx, "stream of "+f.Folder, run) })
		}
		for _, t := range f.Queues {
			q := s.queueByARN(t.QueueARN)
			if q == nil {
				return fmt.Errorf("function %s: trigger %s: the queue is not in the template", f.Folder, t.Name)
			}
			mapping := &QueueMapping{Function: f, Queue: q, Trigger: t, Region: dynamoemulator.Region, gate: s.gate(strings.TrimPrefix(q.Name(), StackName+"-"))}
			group.Go(func() error { return s.keep(groupCtx, "queue of "+f.Folder, mapping.Run) })
		}
		for _, schedule := range f.Schedules {
			if s.options.TimeScale > 1 {
				schedule.Every /= time.Duration(s.options.TimeScale)
			}
			held := s.gate(strings.TrimPrefix(schedule.Name, StackName+"-"))
			group.Go(func() error { return runSchedule(groupCtx, f, schedule, held) })
		}
	}
	return group.Wait()
}

// keep restarts a poller after an error.
func (s *System) keep(ctx context.Context, what string, run func(context.Context) error) error {
	for {
		err := run(ctx)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		s.options.Log.Error("poller failed", "what", what, "error", err.Error())
		select {
		case <-time.After(pauseAfterError):
		case <-ctx.Done():
			return nil
		}
	}
}

// stream returns the poller of a stream trigger.
func (s *System) stream(f *Function, t samtemplate.StreamTrigger) (func(context.Context) error, error) {
	i := slices.IndexFunc(s.Stack.Tables, func(table samtemplate.Table) bool { return table.StreamARN == t.StreamARN && t.StreamARN != "" })
	if i < 0 {
		return nil, fmt.Errorf("function %s: trigger %s: no table in the template has the stream", f.Folder, t.Name)
	}
	table := s.Stack.Tables[i]
	mapping := func(shard Shard, after string) *StreamMapping {
		return &StreamMapping{Function: f, Shard: shard, Trigger: t, Failures: s.queueByARN(t.FailureARN), After: after}
	}
	if s.memory != nil {
		// The memory store uses table names without the stack name.
		name := table.Name[len(StackName)+1:]
		return mapping(MemoryShard{Store: s.memory, Table: name, ARN: table.StreamARN}, "").Run, nil
	}
	path := ""
	if s.options.StateDir != "" {
		path = filepath.Join(s.options.StateDir, fmt.Sprintf("%s.%s.checkpoint", f.Folder, t.Name))
	}
	checkpoints, err := OpenCheckpoints(path)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		stream := &DynamoStream{DB: s.db, Streams: dynamoemulator.Streams(s.dynamoURL), Table: table.Name, Checkpoints: checkpoints, Mapping: mapping}
		return stream.Run(ctx)
	}, nil
}

// Close stops everything that Open started.
func (s *System) Close() {
	for _, l := range s.listeners {
		_ = l.Close() // fails if Run has closed it
	}
	for _, q := range s.Queues {
		_ = q.Close()
	}
	if s.dynamo != nil {
		s.dynamo.Stop()
	}
	if s.lock != nil {
		_ = s.lock.Close()
	}
}

// lockState prevents two runners from sharing a state directory.
func (s *System) lockState() error {
	if s.options.StateDir == "" {
		return nil
	}
	if err := OpenStateDir(s.options.StateDir); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(s.options.StateDir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if err := lockFile(lock); err != nil {
		_ = lock.Close()
		return fmt.Errorf("another runner uses %s: stop it, or choose another directory with --state-dir", s.options.StateDir)
	}
	s.lock = lock
	return nil
}

// RunnerInfo tells the CLI how to reach a running system.
type RunnerInfo struct {
	Stack     string            `json:"stack"`
	InvokeURL string            `json:"invoke_url"`
	URLs      map[string]string `json:"urls"` // function URLs, by function
	DynamoURL string            `json:"dynamodb_url"`
	SQSURL    string            `json:"sqs_url"`
	Receiver  string            `json:"receiver_url,omitempty"`
	PID       int               `json:"pid"`
	Access
}

// RunnerInfoFile is its file name in the state directory.
const RunnerInfoFile = "local.json"

// WriteRunnerInfo writes RunnerInfoFile to the state directory.
func (s *System) WriteRunnerInfo(receiver string) error {
	text, err := json.MarshalIndent(RunnerInfo{
		Stack: StackName, InvokeURL: s.InvokeURL, URLs: s.URLs, DynamoURL: s.DynamoURL, SQSURL: s.SQSURL, Receiver: receiver, PID: os.Getpid(),
		Access: s.Access,
	}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.options.StateDir, RunnerInfoFile), append(text, '\n'), 0o600)
}

// ReadRunnerInfo reads RunnerInfoFile from a state directory.
func ReadRunnerInfo(stateDir string) (RunnerInfo, error) {
	var n RunnerInfo
	text, err := os.ReadFile(filepath.Join(stateDir, RunnerInfoFile))
	if err != nil {
		return n, err
	}
	return n, json.Unmarshal(text, &n)
}
