package local

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	closediscussions "github.com/tidings-dev/tidings/functions/close-discussions/handler"
	consolefunction "github.com/tidings-dev/tidings/functions/console/handler"
	dispatchfunction "github.com/tidings-dev/tidings/functions/dispatch/handler"
	emitfunction "github.com/tidings-dev/tidings/functions/emit/handler"
	healthfunction "github.com/tidings-dev/tidings/functions/health/handler"
	testreceiver "github.com/tidings-dev/tidings/functions/test-receiver/handler"
	testwebhook "github.com/tidings-dev/tidings/functions/test-webhook/handler"
	"github.com/tidings-dev/tidings/pkg/aws/lambdamain"
	"github.com/tidings-dev/tidings/pkg/aws/xraytracing"
	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/builtin"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/ops/alert"
	"github.com/tidings-dev/tidings/pkg/ops/health"
	"github.com/tidings-dev/tidings/pkg/ops/metrics"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
)

// Store is a store for all functions and for the operator. Both stores implement it.
type Store interface {
	emitfunction.Store
	dispatchfunction.Store
	dispatch.Statistics
	testwebhook.Store
	testreceiver.Store
	closediscussions.Store
	consolefunction.Store
	healthfunction.Store
	Administration
}

// Backend is what all functions of a stack run on together. A function uses the parts
// that it needs.
type Backend struct {
	Store       func(dynamo.Tables) Store
	Queue       func(url string) dispatch.Queue
	DeadLetters func(url string) dispatch.DeadLetters // by the dead-letter queue's URL
	Letters     func(url string) emit.Letters         // by the URL of the emit queue's; nil for none
	Depth       func(url string) health.Queue
	Topic       func(arn string) alert.Publisher
	Secret      func(ctx context.Context, name string) (string, error)
	Invoke      func(function string) console.Invoke
	Clouds      builtin.Clouds
	Receiver    console.Receiver // nil for none
	Log         *slog.Logger
	Metrics     io.Writer     // nil writes none
	CacheTime   time.Duration // how long endpoints and event types are cached
	XRay        string        // host:port of an X-Ray daemon; empty records no traces
	Version     string
	// Pace maps the time to the one that statistics, health and alerts use, so that an
	// hour can pass in a minute; nil leaves it.
	Pace func(time.Time) time.Time
}

// builder builds one function.
type builder struct {
	settings any // the zero value
	build    func(Backend, map[string]string) (lambdamain.Handler, error)
}

// with makes a builder of a function that builds from parsed settings.
func with[S any](build func(Backend, S) (lambdamain.Handler, error)) builder {
	var zero S
	return builder{zero, func(b Backend, environment map[string]string) (lambdamain.Handler, error) {
		s, err := lambdamain.Parse[S](environment)
		if err != nil {
			return nil, err
		}
		return build(b, s)
	}}
}

// builders are by the function's folder. They do what the functions' mains do, on a
// Backend instead of AWS.
var builders = map[string]builder{
	"emit": with(func(b Backend, s emitfunction.Settings) (lambdamain.Handler, error) {
		tracer, err := xraytracing.Open(b.XRay, s.TraceSampling)
		if err != nil {
			return nil, err
		}
		store := b.Store(s.Tables())
		var letters emit.Letters
		if b.Letters != nil && s.DeadLetterQueueURL != "" {
			letters = b.Letters(s.DeadLetterQueueURL)
		}
		return emitfunction.New(emitfunction.Backend{
			Store: b.pacedEmit(store), Statistics: b.statistics(store, s.StackName), Tracer: tracer, Log: b.Log, CacheTime: b.CacheTime, PlatformTable: s.PlatformTable, Letters: letters,
		}), nil
	}),
	"dispatch": with(func(b Backend, s dispatchfunction.Settings) (lambdamain.Handler, error) {
		sender, err := builtin.Open(s.Settings, b.Clouds)
		if err != nil {
			return nil, err
		}
		tracer, err := xraytracing.Open(b.XRay, s.TraceSampling)
		if err != nil {
			return nil, err
		}
		store := b.Store(s.Tables())
		return dispatchfunction.New(dispatchfunction.Backend{
			Store: store, Statistics: b.statistics(store, s.StackName), Queue: b.Queue(s.WorkQueueURL), SlowQueue: b.Queue(s.SlowQueueURL),
			DeadLetters: b.DeadLetters(s.WorkDeadLetterQueueURL), StreamDeadLetters: b.DeadLetters(s.StreamDeadLetterQueueURL), Sender: sender, Tracer: tracer, Log: b.Log, CacheTime: b.CacheTime,
		}), nil
	}),
	"test-webhook": with(func(b Backend, s testwebhook.Settings) (lambdamain.Handler, error) {
		open := func() (*destination.Router, error) { return builtin.Open(s.Settings, b.Clouds) }
		return testwebhook.New(testwebhook.Backend{Store: b.Store(s.Tables()), Open: open, Log: b.Log, CacheTime: b.CacheTime})
	}),
	"test-receiver": with(func(b Backend, s testreceiver.Settings) (lambdamain.Handler, error) {
		return testreceiver.New(testreceiver.Backend{Store: b.Store(s.Tables()), Log: b.Log}), nil
	}),
	"close-discussions": with(func(b Backend, s closediscussions.Settings) (lambdamain.Handler, error) {
		return closediscussions.New(closediscussions.Backend{Store: b.Store(s.Tables()), Log: b.Log}), nil
	}),
	"console": with(func(b Backend, s consolefunction.Settings) (lambdamain.Handler, error) {
		destinations, err := builtin.Open(s.Settings, b.Clouds)
		if err != nil {
			return nil, err
		}
		return consolefunction.New(s, consolefunction.Backend{
			Store: b.Store(s.Tables()), Check: destinations.Check, Dispatch: b.Invoke(s.DispatchFunction),
			TestWebhook: b.Invoke(s.TestFunction), Emit: b.Invoke(s.EmitFunction), Secret: b.Secret, Receiver: b.Receiver, Log: b.Log, CacheTime: b.CacheTime,
		}), nil
	}),
	"health": with(func(b Backend, s healthfunction.Settings) (lambdamain.Handler, error) {
		return healthfunction.New(s, healthfunction.Backend{
			Store: b.Store(s.Tables()), Work: b.Depth(s.WorkQueueURL), Slow: b.Depth(s.SlowQueueURL), DeadWork: b.Depth(s.WorkDeadLetterQueueURL),
			DeadStream: b.Depth(s.StreamDeadLetterQueueURL), DeadCapture: b.Depth(s.CaptureDeadLetterQueueURL), Topic: b.Topic(s.AlarmTopicARN), Secret: b.Secret,
			Version: b.Version, Log: b.Log, Now: func() time.Time { return b.paced(time.Now()) },
		})
	}),
}

// Settings returns, by the function's folder, the zero value of the struct into which
// its environment is parsed.
func Settings() map[string]any {
	all := map[string]any{}
	for folder, b := range builders {
		all[folder] = b.settings
	}
	return all
}

// Build builds the function of that folder from its environment.
func (b Backend) Build(folder string, environment map[string]string) (lambdamain.Handler, error) {
	f, ok := builders[folder]
	if !ok {
		return nil, fmt.Errorf("function %s: unknown; the functions are %s", folder, strings.Join(slices.Sorted(maps.Keys(builders)), ", "))
	}
	handler, err := f.build(b, environment)
	if err != nil {
		return nil, fmt.Errorf("function %s: %w", folder, err)
	}
	return handler, nil
}

func (b Backend) paced(t time.Time) time.Time {
	if b.Pace == nil {
		return t
	}
	return b.Pace(t)
}

// pacedEmit returns the store of emit: the times of the mark that capture is stuck are
// paced, because the health report compares them.
func (b Backend) pacedEmit(s emitfunction.Store) emitfunction.Store {
	if b.Pace == nil {
		return s
	}
	return pacedCapture{s, b.Pace}
}

// statistics is where emit's and dispatch's counts go: with paced times, through the metrics,
// into the store.
func (b Backend) statistics(s dispatch.Statistics, stack string) dispatch.Statistics {
	if b.Metrics != nil {
		s = metrics.Writer{Next: s, Out: b.Metrics, Stack: stack, All: true}
	}
	if b.Pace != nil {
		s = pacedStatistics{s, b.Pace}
	}
	return s
}
