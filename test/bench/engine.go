package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"

	dispatchhandler "github.com/tidings-dev/tidings/functions/dispatch/handler"
	"github.com/tidings-dev/tidings/pkg/aws/lambdamain"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/destination/builtin"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/store/memory"
)

// batchSize is how many messages an invocation brings, as in the template.
const batchSize = 10

// pace is a rate with what each delivery cost this process.
type pace struct {
	rate   float64 // a second
	cpu    float64 // µs a delivery
	allocs float64 // a delivery
	bytes  float64 // a delivery
}

// paced measures n deliveries.
func paced(n int, work func() error) (pace, error) {
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu, began := ownCPU(), time.Now()
	if err := work(); err != nil {
		return pace{}, err
	}
	took, spent := time.Since(began), ownCPU()-cpu
	runtime.ReadMemStats(&after)
	return pace{
		rate: float64(n) / took.Seconds(), cpu: float64(spent.Microseconds()) / float64(n),
		allocs: float64(after.Mallocs-before.Mallocs) / float64(n), bytes: float64(after.TotalAlloc-before.TotalAlloc) / float64(n),
	}, nil
}

// measureEngine sets the dispatch handler, on the memory store, beside a loop that
// does nothing but POST the same bodies to the same receiver with as many requests
// under way. The receiver is another process; what is compared is this one's work.
func measureEngine(_ context.Context, r *Report, o options) error {
	to, err := startReceiver()
	if err != nil {
		return err
	}
	defer to.stop()
	percent, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(-1)
	defer func() { // what is measured next is no function
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	}()
	lambdamain.SpareCollector(512) // as in the function, for both
	engine, err := newEngine(to)
	if err != nil {
		return err
	}
	t := r.table("engine", "Engine: the dispatch handler beside a bare POST loop", "batches of 10 under way",
		"bare, POSTs/s", "bare, CPU µs", "engine, deliveries/s", "engine, CPU µs", "rate, ratio", "CPU, ratio", "engine, allocations", "engine, KB allocated")
	t.Notes = []string{"Measured after a thousand deliveries that warm up connections and caches, with the function's garbage collector settings. " +
		"A run in which the receiver did not get every delivery fails."}
	rounds, n := 5, 20_000
	if o.short {
		rounds, n = 3, 5_000
	}
	if _, err := engine.deliver(1, 1_000); err != nil { // connections, caches
		return err
	}
	for _, batches := range []int{1, 4, 10, 100} {
		var bareRate, bareCPU, rate, cpu, rates, cpus, allocs, size []float64
		for range rounds {
			bare, err := engine.bare(batches*batchSize, n)
			if err != nil {
				return err
			}
			full, err := engine.deliver(batches, n)
			if err != nil {
				return err
			}
			bareRate, bareCPU = append(bareRate, bare.rate), append(bareCPU, bare.cpu)
			rate, cpu = append(rate, full.rate), append(cpu, full.cpu)
			rates, cpus = append(rates, full.rate/bare.rate), append(cpus, full.cpu/bare.cpu)
			allocs, size = append(allocs, full.allocs), append(size, full.bytes/1024)
		}
		t.add(fmt.Sprint(batches), of(bareRate...), of(bareCPU...), of(rate...), of(cpu...), of(rates...), of(cpus...), of(allocs...), of(size...))
		fmt.Fprintf(os.Stderr, "  %d batches under way: %s deliveries/s, %s µs, %s of the bare loop's CPU\n", batches, of(rate...), of(cpu...), of(cpus...))
		r.over(0.5, of(rates...).Median, "", fmt.Sprintf("engine, %d × 10 under way: rate, of the bare loop's", batches))
		r.under(2.5, of(cpus...).Median, "", "… CPU a delivery, of the bare loop's")
	}
	if o.profile == "" {
		return nil
	}
	// A run of its own, so that the figures are not the profiler's.
	file, err := os.Create(o.profile)
	if err != nil {
		return err
	}
	if _, err := engine.profiled(10, 3*n, file); err != nil {
		return errors.Join(err, file.Close())
	}
	return file.Close()
}

// engine is the dispatch function as Lambda would call it, on the memory store.
type engine struct {
	receiver *receiver
	handle   lambdamain.Handler
	url      string
	client   *http.Client
	sender   dispatch.Sender
	log      *slog.Logger
	to       endpoint.Endpoint
	again    again
	number   int // of events so far
}

func newEngine(to *receiver) (*engine, error) {
	url := to.url + "/swallow/"
	e := &engine{receiver: to, url: url, client: &http.Client{Timeout: requestTime, Transport: &http.Transport{MaxIdleConns: 2000, MaxIdleConnsPerHost: 2000}}}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	if e.sender, err = builtin.Open(builtin.Loopback, builtin.Clouds{}); err != nil {
		return nil, err
	}
	e.log = slog.New(slog.NewJSONHandler(null, nil))
	now := time.Now()
	e.to = endpoint.Endpoint{
		Tenant: event.DefaultTenant, ID: endpoint.NewID(now), URL: url, EventTypes: []string{"*"}, Status: endpoint.Enabled,
		Secrets: []endpoint.SigningSecret{{Secret: signature.NewSecret()}}, Version: 1, CreatedAt: now, UpdatedAt: now,
	}
	return e, e.renew()
}

// renew begins anew on an empty store: a function has none in its memory, for
// whose records the collector looks again and again.
func (e *engine) renew() error {
	store := memory.New(time.Now)
	e.handle = dispatchhandler.Route(dispatch.New(dispatch.Config{
		Events: store, Endpoints: store, Disabler: store, Deliveries: store, Due: store, Replays: store,
		Statistics: store, Waiting: store, Breakers: store, Limits: store, Journal: store, Jobs: store, Queue: &e.again, Sender: e.sender,
		Log: e.log, CacheTime: dispatch.CacheTime,
	}))
	return store.AddEndpoint(context.Background(), e.to)
}

// again counts what is queued again, which nothing is where all deliveries succeed.
type again struct{ items atomic.Int64 }

// Send counts.
func (a *again) Send(_ context.Context, items []work.Item) []error {
	a.items.Add(int64(len(items)))
	return nil
}

// body is a fresh event's.
func (e *engine) body() (id string, body []byte, err error) {
	e.number++
	now := time.Now()
	id = event.NewID(now)
	body, err = event.Event{
		ID: id, Type: "user.posted_comment", Timestamp: now, ActorUserID: "u_1042",
		Data: json.RawMessage(fmt.Sprintf(`{"discussion_id":"d_1","comment_id":"m_%d","comment_text":%q}`, e.number, commentText)),
	}.Encode()
	return id, body, err
}

// payloads are what Lambda would invoke the function with; they are delivered from
// an empty store.
func (e *engine) payloads(n int) ([][]byte, error) {
	if err := e.renew(); err != nil {
		return nil, err
	}
	var list [][]byte
	for range n / batchSize {
		var batch events.SQSEvent
		for i := range batchSize {
			id, body, err := e.body()
			if err != nil {
				return nil, err
			}
			item := work.Item{Tenant: e.to.Tenant, EndpointID: e.to.ID, EventID: id, EventType: "user.posted_comment", Body: body}
			batch.Records = append(batch.Records, events.SQSMessage{
				MessageId: fmt.Sprintf("059f36b4-87a3-44ab-83d2-661975830a7%d", i), ReceiptHandle: "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a" + id, Body: item.Encode(),
				Md5OfBody: "e4e68fb7bd0e697a0ae8f1bb342846b3", EventSource: "aws:sqs", EventSourceARN: "arn:aws:sqs:us-east-1:123456789012:work", AWSRegion: "us-east-1",
				Attributes: map[string]string{
					"ApproximateReceiveCount": "1", "SentTimestamp": "1769690096000", "SenderId": "AIDAIENQZJOLO23YVJ4VO",
					"ApproximateFirstReceiveTimestamp": "1769690096001", "MessageGroupId": e.to.ID,
				},
			})
		}
		payload, err := json.Marshal(batch)
		if err != nil {
			return nil, err
		}
		list = append(list, payload)
	}
	return list, nil
}

// deliver makes n deliveries with so many invocations under way.
func (e *engine) deliver(batches, n int) (pace, error) {
	payloads, err := e.payloads(n)
	if err != nil {
		return pace{}, err
	}
	return e.invoke(batches, n, payloads)
}

// profiled is deliver with a CPU profile of the deliveries alone.
func (e *engine) profiled(batches, n int, profile io.Writer) (pace, error) {
	payloads, err := e.payloads(n)
	if err != nil {
		return pace{}, err
	}
	if err := pprof.StartCPUProfile(profile); err != nil {
		return pace{}, err
	}
	defer pprof.StopCPUProfile()
	return e.invoke(batches, n, payloads)
}

// invoke invokes the function with payloads of n deliveries in all.
func (e *engine) invoke(batches, n int, payloads [][]byte) (pace, error) {
	var next atomic.Int64
	before, err := e.receiver.swallowed()
	if err != nil {
		return pace{}, err
	}
	p, err := paced(n, func() error {
		return together(batches, func() error {
			handler := lambda.NewHandler(e.handle)
			for {
				i := int(next.Add(1)) - 1
				if i >= len(payloads) {
					return nil
				}
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				answer, err := handler.Invoke(ctx, payloads[i])
				cancel()
				if err != nil {
					return err
				}
				if failed := e.again.items.Load(); failed > 0 || bytes.Contains(answer, []byte("itemIdentifier")) {
					return fmt.Errorf("deliveries failed: %d are to be tried again; %s", failed, answer)
				}
			}
		})
	})
	if err != nil {
		return pace{}, err
	}
	after, err := e.receiver.swallowed()
	if err == nil && after-before != n {
		err = fmt.Errorf("the receiver got %d of %d deliveries", after-before, n)
	}
	return p, err
}

// bare posts n bodies with so many requests under way, and does nothing else.
func (e *engine) bare(requests, n int) (pace, error) {
	var bodies [][]byte
	for range n {
		_, body, err := e.body()
		if err != nil {
			return pace{}, err
		}
		bodies = append(bodies, body)
	}
	secret := e.to.Secrets[0].Secret
	signed := signature.Sign([]signature.Secret{secret}, "msg", time.Now(), bodies[0])
	stamp := strconv.FormatInt(time.Now().Unix(), 10)
	var next atomic.Int64
	return paced(n, func() error {
		return together(requests, func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return nil
				}
				request, err := http.NewRequest(http.MethodPost, e.url, bytes.NewReader(bodies[i]))
				if err != nil {
					return err
				}
				request.Header.Set("Content-Type", "application/json")
				request.Header.Set("Webhook-Id", "01KBENCH00000000000000000")
				request.Header.Set("Webhook-Timestamp", stamp)
				request.Header.Set("Webhook-Signature", signed)
				response, err := e.client.Do(request)
				if err != nil {
					return err
				}
				_, err = io.Copy(io.Discard, response.Body)
				if err != nil {
					return err
				}
				if err := response.Body.Close(); err != nil {
					return err
				}
				if response.StatusCode != http.StatusNoContent {
					return fmt.Errorf("the receiver answered %d", response.StatusCode)
				}
			}
		})
	})
}

// together runs n of a kind side by side and returns the first error.
func together(n int, work func() error) error {
	errs := make(chan error, n)
	var running sync.WaitGroup
	for range n {
		running.Go(func() { errs <- work() })
	}
	running.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
