package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambdacontext"

	"github.com/tidings-dev/tidings/pkg/aws/sqsqueue"
	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/emit/capture/rules"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/validate"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/ops/metrics"
	"github.com/tidings-dev/tidings/pkg/ops/tracing"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
	"github.com/tidings-dev/tidings/test/streamtest"
)

// pipeline takes events from emit to the last verdict on a virtual clock: the real
// functions, a real DynamoDB API, and batches formed by hand, so that the counts do
// not depend on the machine's speed.
type pipeline struct {
	meter    *meter
	log      *ledger
	store    *dynamo.Store
	emitter  *emit.Emitter
	dispatch *dispatch.Dispatcher
	sqs      *countedSQS
	receiver *wire
	answer   func(endpointID string) delivery.Outcome
	live     bool // time passes by itself

	mu      sync.Mutex
	now     time.Time
	changed int   // records of the platform's stream so far
	runs    Units // of which only the invocations and the attempts are kept here
	unsent  error // what a request that was to be counted came to instead
}

func (p *pipeline) time() time.Time {
	if p.live {
		return time.Now()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

func (p *pipeline) pass(d time.Duration) {
	p.mu.Lock()
	p.now = p.now.Add(d)
	p.mu.Unlock()
}

// Deliver sends, and then answers as it was told, after the same time always.
func (p *pipeline) Deliver(ctx context.Context, t destination.Target, m destination.Message) delivery.Outcome {
	err := p.receiver.send(ctx, t, m)
	p.mu.Lock()
	p.runs.Attempts++
	p.unsent = errors.Join(p.unsent, err)
	p.mu.Unlock()
	o := p.answer(t.ID)
	o.Timings = delivery.Timings{DNS: 12 * time.Millisecond, Connect: 23 * time.Millisecond, TLS: 34 * time.Millisecond, FirstByte: 145 * time.Millisecond, Total: 214 * time.Millisecond}
	return o
}

func newPipeline(db dynamo.Client, receiver *wire) *pipeline {
	p := &pipeline{now: time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC), meter: &meter{Client: db}, log: &ledger{}, receiver: receiver}
	p.sqs = newCountedSQS(p.time)
	p.store = dynamo.New(p.meter, local.Tables(local.StackName))
	p.emitter = &emit.Emitter{
		Catalog: validate.Default(), Events: p.store, Keys: p.store, Failed: p.store, Stuck: p.store,
		Statistics: metrics.Writer{Next: p.store, Out: p.log, Stack: local.StackName, All: true}, Log: p.log.logger(), Now: p.time,
	}
	p.dispatch = p.dispatcher()
	return p
}

// dispatcher is a dispatch function that knows nothing yet.
func (p *pipeline) dispatcher() *dispatch.Dispatcher {
	return dispatch.New(dispatch.Config{
		Events: p.store, Endpoints: p.store, Disabler: p.store, Deliveries: p.store, Due: p.store, Replays: p.store,
		Statistics: metrics.Writer{Next: p.store, Out: p.log, Stack: local.StackName, All: true}, // the dearer setting
		Waiting:    p.store, Breakers: p.store, Limits: p.store, Journal: p.store, Jobs: p.store, Queue: sqsqueue.New(p.sqs, "work"), Sender: p, Log: p.log.logger(),
		CacheTime: dispatch.CacheTime, Now: p.time, Random: func() float64 { return 0.5 },
	})
}

func success() delivery.Outcome { return delivery.Outcome{Class: delivery.Success, Status: 204} }
func failure() delivery.Outcome {
	return delivery.Outcome{Class: delivery.Answered, Status: 503, Error: "the receiver answered 503 Service Unavailable"}
}

// take returns what was counted since the last time.
func (p *pipeline) take() Units {
	u := p.meter.take()
	lines, size, attempts := p.log.take()
	u.LogLines, u.LogBytes, u.AttemptLog, u.Sent = float64(lines), float64(size), float64(attempts), float64(p.receiver.take())
	u.SQS = float64(p.sqs.take())
	p.mu.Lock()
	defer p.mu.Unlock()
	u.Emits, u.Captures, u.FanOuts, u.Delivers, u.Sending, u.Attempts = p.runs.Emits, p.runs.Captures, p.runs.FanOuts, p.runs.Delivers, p.runs.Sending, p.runs.Attempts
	p.runs = Units{}
	return u
}

// accept has n events accepted whose bodies are of exactly so many bytes.
func (p *pipeline) accept(ctx context.Context, tenant string, n, body int) ([]event.Accepted, error) {
	data := func(text int) json.RawMessage {
		return json.RawMessage(`{"discussion_id":"d_1","comment_id":"m_1","comment_text":"` + strings.Repeat("x", text) + `"}`)
	}
	request, _ := lambdacontext.FromContext(ctx)
	ctx = emit.WithRequestID(ctx, request.AwsRequestID) // as the emit function does
	empty, err := event.Event{
		ID: event.NewID(p.time()), Type: "user.posted_comment", Timestamp: p.time(), ActorUserID: "u_1042", Data: data(0),
		RequestID: request.AwsRequestID, TraceID: tracing.ID(tracing.FromContext(ctx)),
	}.Encode()
	if err != nil {
		return nil, err
	}
	p.meter.put = nil
	ctx = emit.WithRequestID(ctx, request.AwsRequestID)
	for range n {
		p.runs.Emits++
		result := p.emitter.Emit(ctx, emit.Request{Tenant: tenant, Event: "user.posted_comment", ActorUserID: "u_1042", Data: data(body - len(empty))})
		if result.Error != nil {
			return nil, result.Error
		}
	}
	return p.accepted(body)
}

// accepted are the events that were put, whose bodies must be of so many bytes.
func (p *pipeline) accepted(body int) (list []event.Accepted, err error) {
	for _, item := range p.meter.put {
		a, err := dynamoitem.DecodeEvent(item)
		if err != nil {
			return nil, err
		}
		if len(a.Body) != body {
			return nil, fmt.Errorf("the body has %d bytes, want %d", len(a.Body), body)
		}
		if size := dynamoitem.Size(item); body == wholeKilobyte && (size > 1024 || size < 1000) {
			return nil, fmt.Errorf("an event of %d bytes is an item of %d, want a kilobyte", body, size)
		}
		list = append(list, a)
	}
	return list, nil
}

// capture has n events captured, whose bodies are of exactly so many bytes.
func (p *pipeline) capture(ctx context.Context, tenant string, n, body int) ([]event.Accepted, error) {
	one, err := p.changes(ctx, tenant, 1, 0)
	if err != nil {
		return nil, err
	}
	list, err := rules.Shipped().Events(streamtest.Changes(one...)[0])
	if err != nil || len(list) != 1 {
		return nil, fmt.Errorf("a comment is %d events (%w)", len(list), err)
	}
	list[0].Event.TraceID = tracing.ID(tracing.FromContext(ctx))
	empty, err := list[0].Event.Encode()
	if err != nil {
		return nil, err
	}
	records, err := p.changes(ctx, tenant, n, body-len(empty))
	if err != nil {
		return nil, err
	}
	request, _ := lambdacontext.FromContext(ctx)
	p.meter.put = nil
	p.runs.Captures++
	if failed := p.emitter.Capture(emit.WithRequestID(ctx, request.AwsRequestID), streamtest.Changes(records...)); len(failed) > 0 {
		return nil, errors.New("capturing failed")
	}
	return p.accepted(body)
}

// changes are n records of the platform's stream, each a comment of so many letters.
func (p *pipeline) changes(ctx context.Context, tenant string, n, text int) (records []events.DynamoDBEventRecord, err error) {
	request, _ := lambdacontext.FromContext(ctx)
	for i := range n {
		p.changed++
		comment := platform.Comment{
			Common: platform.Common{Tenant: tenant, RequestID: request.AwsRequestID, CreatedAt: p.time(), UpdatedAt: p.time()},
			ID:     fmt.Sprintf("m_%06d", p.changed), DiscussionID: "d_1", UserID: "u_1042", Text: strings.Repeat("x", text),
		}
		record := recordOf(dynamoitem.EncodeRecord(comment), i)
		record.Change.Keys = dynamoitem.Image(dynamoitem.PlatformKey(comment.Key()))
		record.EventID = fmt.Sprintf("%032x", sha256.Sum256(fmt.Append(nil, tenant, p.changed)))[:32]
		record.Change.ApproximateCreationDateTime = events.SecondsEpochTime{Time: p.time()}
		records = append(records, record)
	}
	return records, nil
}

// open opens the endpoints' circuits by letters that no retry can help.
func (p *pipeline) open(ctx context.Context, tenant string, ids []string) error {
	p.answer = func(string) delivery.Outcome {
		o := failure()
		o.Permanent = true // nothing shall wait but what is counted
		return o
	}
	for range breaker.DefaultFailures {
		p.pass(time.Second) // failures at one instant open nothing
		events, err := p.accept(ctx, tenant, 1, 512)
		if err != nil {
			return err
		}
		if err := p.fanOut(ctx, events); err != nil {
			return err
		}
		if err := p.deliver(ctx); err != nil {
			return err
		}
	}
	for _, id := range ids {
		if s, err := p.store.GetBreaker(ctx, tenant, id, true); err != nil || s.Phase != breaker.Open {
			return fmt.Errorf("the circuit is %q, want it open (%w)", s.Phase, err)
		}
	}
	p.answer = func(string) delivery.Outcome { return success() }
	return nil
}

// run takes events to their last verdicts.
func (p *pipeline) run(ctx context.Context, list []event.Accepted) error {
	if err := p.fanOut(ctx, list); err != nil {
		return err
	}
	for {
		if err := p.deliver(ctx); err != nil {
			return err
		}
		next := p.sqs.queue.Next()
		if next.IsZero() {
			return nil
		}
		p.pass(max(next.Sub(p.time()), 0))
	}
}

// fanOut hands a batch of the stream to dispatch.
func (p *pipeline) fanOut(ctx context.Context, list []event.Accepted) error {
	var records []events.DynamoDBEventRecord
	for i, a := range list {
		item, err := dynamoitem.EncodeEvent(a)
		if err != nil {
			return err
		}
		records = append(records, recordOf(item, i))
	}
	p.runs.FanOuts++
	if failed := p.dispatch.FanOut(ctx, streamtest.Events(records...)); len(failed) > 0 {
		return errors.New("fan out failed")
	}
	return nil
}

// recordOf is the n-th record of a stream, of an item that was put.
func recordOf(item dynamoitem.Item, n int) events.DynamoDBEventRecord {
	return events.DynamoDBEventRecord{
		EventName: string(events.DynamoDBOperationTypeInsert), EventSource: "aws:dynamodb",
		Change: events.DynamoDBStreamRecord{NewImage: dynamoitem.Image(item), SequenceNumber: fmt.Sprint(n)},
	}
}

// deliver hands out what the queue has now, in batches of ten.
func (p *pipeline) deliver(ctx context.Context) error {
	for {
		batch, err := p.sqs.receive()
		if err != nil || len(batch.Records) == 0 {
			return err
		}
		payload, err := json.Marshal(batch)
		if err != nil {
			return err
		}
		before := p.runs.Attempts
		if err := p.handled(ctx, payload); err != nil {
			return err
		}
		p.runs.Delivers++
		if p.runs.Attempts > before {
			p.runs.Sending++
		}
	}
}
