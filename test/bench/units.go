package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/tidings-dev/tidings/pkg/aws/sqsqueue"
	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/emit/capture"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/validate"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/dynamoemulator"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
	"github.com/tidings-dev/tidings/pkg/ops/cost"
	"github.com/tidings-dev/tidings/pkg/ops/metrics"
	"github.com/tidings-dev/tidings/pkg/ops/tracing"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
	"github.com/tidings-dev/tidings/test/streamtest"
)

// tight is the limit of the endpoints that are rate-limited.
var tight = ratelimit.Limit{PerMinute: 6000}

// Units is what one event made AWS count. They are exact: the same code gives the
// same units on every machine.
type Units struct {
	Writes     float64 `json:"write_units"`            // of the event's own items, their indexes included
	Reads      float64 `json:"read_units"`             //
	Requests   float64 `json:"dynamodb_requests"`      // all, those of the statistics included
	Statistics float64 `json:"statistics_write_units"` // what its batches wrote, once a batch
	SQS        float64 `json:"sqs_requests"`           // sends, receives and deletes, as SQS bills them
	Refused    float64 `json:"refused_writes"`         // conditions that failed; billed as writes, and counted there too

	Emits    float64 `json:"emit_runs"`    // invocations
	Captures float64 `json:"capture_runs"` // of emit, too, by the platform's stream
	FanOuts  float64 `json:"fan_out_runs"` //
	Delivers float64 `json:"deliver_runs"` //
	Sending  float64 `json:"sending_runs"` // of those that deliver, the ones that wait for a receiver
	Attempts float64 `json:"attempts"`     //
	Sent     float64 `json:"sent_bytes"`   // of all attempts' requests on the wire, but for TLS and packets

	LogLines   float64 `json:"log_lines"`         // at the default level, those of the metrics included
	LogBytes   float64 `json:"log_bytes"`         // of all of them, with what CloudWatch counts beside each; without Lambda's own
	AttemptLog float64 `json:"attempt_log_bytes"` // of those, of the attempts' lines
}

// unitsFile holds what is expected, and is compared exactly: a rise is a
// regression, and a fall should be kept.
const unitsFile = "test/bench/units.json"

// outcomes are the lives of a delivery that are counted.
var outcomes = []string{"first try", "one retry", "ten retries", "rate-limited", "circuit open"}

var fans = []int{1, 3, 20}

// bodies are the sizes that receivers get, in bytes.
var bodies = []int{512, 4096, 65536}

// wholeKilobyte is the largest body whose event is an item of one kilobyte, which
// is one write unit: what "an event of 1 KB" means to DynamoDB.
const wholeKilobyte = 876

func kilobytes(n int) string { return number(float64(n)/1024) + " KB" }

// mix names one line of the table.
func mix(outcome string, fan, body int, busy bool) string {
	batches := "one at a time"
	if busy {
		batches = "100 at a time"
	}
	endpoints := "1 endpoint"
	if fan > 1 {
		endpoints = fmt.Sprint(fan, " endpoints")
	}
	return fmt.Sprintf("%s, %s, %s, %s", outcome, endpoints, kilobytes(body), batches)
}

// mixes are what is counted.
func mixes() (list []counted) {
	for _, outcome := range outcomes {
		for _, fan := range fans {
			for _, body := range bodies {
				for _, busy := range []bool{false, true} {
					if busy && (strings.HasSuffix(outcome, "retries") || outcome == "one retry" || fan > 1 || body > 4096) {
						continue // a hundred failures at once open the circuit; the rest tells nothing new
					}
					list = append(list, counted{outcome, fan, body, busy})
				}
			}
		}
	}
	kilobyte := counted{"first try", 1, wholeKilobyte, false}
	return append(list, kilobyte, kilobyte.together(), captured)
}

// captured are events that come from the platform's own table, by its stream.
var captured = counted{outcome: "captured, first try", fan: 1, body: wholeKilobyte, busy: true}

// together is the same mix, a hundred at a time.
func (c counted) together() counted {
	c.busy = true
	return c
}

// counted is one mix.
type counted struct {
	outcome   string
	fan, body int
	busy      bool
}

func (c counted) String() string { return mix(c.outcome, c.fan, c.body, c.busy) }

// database is a local DynamoDB with the template's tables.
func database(ctx context.Context) (*dynamoemulator.Server, *samtemplate.Stack, error) {
	stack, err := resolved()
	if err != nil {
		return nil, nil, err
	}
	server, err := dynamoemulator.Start(ctx, dynamoemulator.Options{})
	if err != nil {
		return nil, nil, err
	}
	if err := dynamoemulator.CreateTables(ctx, server.Client(), stack.Tables); err != nil {
		server.Stop()
		return nil, nil, err
	}
	return server, stack, nil
}

const templateFile = "template.yaml"

// measureUnits counts the units of every mix on a real local DynamoDB.
func measureUnits(ctx context.Context, r *Report) (map[string]Units, error) {
	server, stack, err := database(ctx)
	if err != nil {
		return nil, err
	}
	defer server.Stop()
	receiver, err := openWire()
	if err != nil {
		return nil, err
	}
	defer receiver.Close()
	measured := map[string]Units{}
	// First, while nothing is stored.
	if err := countIdle(ctx, server.Client(), stack, measured); err != nil {
		return nil, fmt.Errorf("units of an idle deployment: %w", err)
	}
	t := r.table("units", "What AWS counts for one event", "event", "DynamoDB write units", "read units", "requests", "of statistics: write units", "SQS requests", "invocations")
	t.Notes = []string{"From ConsumedCapacity of the local DynamoDB, indexes included; exact. One at a time: everything that is cached has expired, each batch " +
		"holds one message; all endpoints share the outcome. 100 at a time: each event emitted by its own request, batches are full; captured: batches of the platform's stream are full, too. The figures of an event include all its endpoints'. " +
		"An event whose body has " + kilobytes(wholeKilobyte) + " is stored as an item of 1 KB."}
	b := r.table("bytes", "What one event writes to the log and sends", "event", "attempts", "log lines", "log bytes", "of attempts' lines", "bytes sent")
	b.Notes = []string{"Counted as the functions write them at the default level, the lines of metrics and " + fmt.Sprint(cost.LineBytes) + " bytes that CloudWatch adds to each included; without Lambda's own. " +
		"Sent is what came over the receiver's connections, headers included, by HTTP/1.1; HTTP/2 sends less."}
	for number, m := range mixes() {
		u, err := countUnits(ctx, server.Client(), receiver, number, m)
		if err != nil {
			return nil, fmt.Errorf("units, %s: %w", m, err)
		}
		measured[m.String()] = u
		t.add(m.String(), of(u.Writes), of(u.Reads), of(u.Requests), of(u.Statistics), of(u.SQS), of(u.runs()))
		if m.fan == 1 {
			b.add(m.String(), of(u.Attempts), of(u.LogLines), of(u.LogBytes), of(u.AttemptLog), of(u.Sent))
		}
	}
	one, three, busy := measured[mix("first try", 1, wholeKilobyte, false)], measured[mix("first try", 3, 512, false)], measured[mix("first try", 1, wholeKilobyte, true)]
	r.atMost(3, one.Writes, "", "write units of an event of 1 KB, one endpoint, first try, one at a time; its batches' statistics are a column of their own")
	r.atMost(1, one.Reads, "", "… read units, one at a time")
	r.atMost(0.5, busy.SQS, "", "… SQS requests, in full batches")
	r.atMost(2, (three.Writes-one.Writes)/2, "", "… write units of each further endpoint")
	return measured, nil
}

// checkUnits compares what was measured with what is expected.
func checkUnits(measured map[string]Units, update bool) error {
	if update {
		text, err := json.MarshalIndent(measured, "", " ")
		if err != nil {
			return err
		}
		return os.WriteFile(unitsFile, append(text, '\n'), 0o644)
	}
	expected, err := expectedUnits()
	if err != nil {
		return err
	}
	if wrong := differences(measured, expected); len(wrong) > 0 {
		return fmt.Errorf("units differ from %s; if that is what was wanted, `go run ./test/bench -quick -update` writes it anew:\n%s", unitsFile, strings.Join(wrong, "\n"))
	}
	return nil
}

// expectedUnits reads what the repository expects.
func expectedUnits() (expected map[string]Units, err error) {
	text, err := os.ReadFile(unitsFile)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &expected); err != nil {
		return nil, fmt.Errorf("%s: %w", unitsFile, err)
	}
	return expected, nil
}

// differences says, mix by mix, which figures rose and which fell.
func differences(measured, expected map[string]Units) (wrong []string) {
	for name := range maps.Keys(expected) {
		if _, ok := measured[name]; !ok {
			wrong = append(wrong, name+": is expected and was not measured")
		}
	}
	for name, got := range measured {
		want, ok := expected[name]
		if !ok {
			wrong = append(wrong, name+": was measured and is not expected")
			continue
		}
		gots, wants := reflect.ValueOf(got), reflect.ValueOf(want)
		for i := range gots.NumField() {
			g, w := gots.Field(i).Float(), wants.Field(i).Float()
			verb := "fell"
			if g > w {
				verb = "ROSE"
			}
			if g != w {
				field, _, _ := strings.Cut(gots.Type().Field(i).Tag.Get("json"), ",")
				wrong = append(wrong, fmt.Sprintf("%s: %s %s from %v to %v", name, field, verb, w, g))
			}
		}
	}
	slices.Sort(wrong)
	return wrong
}

// plant is the whole way of an event with a clock of its own: real functions, a
// real DynamoDB API, and batches formed by hand, so that nothing depends on the
// machine's speed.
type plant struct {
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

func (p *plant) time() time.Time {
	if p.live {
		return time.Now()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

func (p *plant) pass(d time.Duration) {
	p.mu.Lock()
	p.now = p.now.Add(d)
	p.mu.Unlock()
}

// Deliver sends, and then answers as it was told, after the same time always.
func (p *plant) Deliver(ctx context.Context, t destination.Target, m destination.Message) delivery.Outcome {
	err := p.receiver.send(ctx, t, m)
	p.mu.Lock()
	p.runs.Attempts++
	p.unsent = errors.Join(p.unsent, err)
	p.mu.Unlock()
	o := p.answer(t.ID)
	o.Timings = delivery.Timings{DNS: 12 * time.Millisecond, Connect: 23 * time.Millisecond, TLS: 34 * time.Millisecond, FirstByte: 145 * time.Millisecond, Total: 214 * time.Millisecond}
	return o
}

func newPlant(db dynamo.Client, receiver *wire) *plant {
	p := &plant{now: time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC), sqs: &countedSQS{}, meter: &meter{Client: db}, log: &ledger{}, receiver: receiver}
	p.sqs.now = p.time
	p.store = dynamo.New(p.meter, local.Tables(local.StackName))
	p.emitter = &emit.Emitter{Catalog: validate.Default(), Events: p.store, Keys: p.store, Log: p.log.logger(), Now: p.time}
	p.dispatch = p.dispatcher()
	return p
}

// dispatcher is a dispatch function that knows nothing yet.
func (p *plant) dispatcher() *dispatch.Dispatcher {
	return dispatch.New(dispatch.Config{
		Catalog: catalog.Default(), Events: p.store, Endpoints: p.store, Disabler: p.store, Deliveries: p.store, Due: p.store, Replays: p.store,
		Statistics: metrics.Writer{Next: p.store, Out: p.log, Stack: local.StackName},
		Waiting:    p.store, Breakers: p.store, Limits: p.store, Queue: sqsqueue.New(p.sqs, "work"), Sender: p, Log: p.log.logger(),
		CacheTime: dispatch.CacheTime, Now: p.time, Random: func() float64 { return 0.5 },
	})
}

func success() delivery.Outcome { return delivery.Outcome{Class: delivery.Success, Status: 204} }
func failure() delivery.Outcome {
	return delivery.Outcome{Class: delivery.Answered, Status: 503, Error: "the receiver answered 503 Service Unavailable"}
}

// take returns what was counted since the last time.
func (p *plant) take() Units {
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

// countUnits plays one mix from acceptance to the last verdict.
func countUnits(ctx context.Context, db *dynamodb.Client, receiver *wire, number int, m counted) (Units, error) {
	ctx = invocation(ctx)
	p := newPlant(db, receiver)
	tenant := fmt.Sprintf("tenant%03d", number)
	var ids []string
	for range m.fan {
		e := endpoint.Endpoint{
			Tenant: tenant, ID: endpoint.NewID(p.time()), URL: "https://" + host + "/webhooks", EventTypes: []string{"*"}, Status: endpoint.Enabled,
			Secrets: []endpoint.SigningSecret{{Secret: signature.NewSecret()}}, Version: 1, CreatedAt: p.time(), UpdatedAt: p.time(),
		}
		switch m.outcome {
		case "one retry", "ten retries":
			e.Breaker = breaker.Policy{Failures: 100} // what an open circuit costs is counted by itself
		case "rate-limited":
			e.Limit = tight
		}
		if err := p.store.AddEndpoint(ctx, e); err != nil {
			return Units{}, err
		}
		ids = append(ids, e.ID)
	}
	p.answer = func(string) delivery.Outcome { return success() }
	n := 1
	if m.busy {
		n = 100
	}
	p.take()
	accept := p.accept
	if m == captured {
		accept = p.capture
	}
	events, err := accept(ctx, tenant, n, m.body)
	if err != nil {
		return Units{}, err
	}
	accepted := p.take()
	failures := map[string]int{"one retry": 1, "ten retries": 10}[m.outcome]
	switch m.outcome {
	case "one retry", "ten retries":
		var mu sync.Mutex
		tries := map[string]int{}
		p.answer = func(id string) delivery.Outcome {
			mu.Lock()
			defer mu.Unlock()
			if tries[id]++; tries[id] <= failures*n {
				return failure()
			}
			return success()
		}
	case "circuit open":
		if err := p.open(ctx, tenant, ids); err != nil {
			return Units{}, err
		}
	case "rate-limited":
		for _, id := range ids {
			// Others have used up the burst and the next ten seconds.
			if _, err := p.store.ReserveSlots(ctx, tight.Key(id), 60*time.Second, p.time()); err != nil {
				return Units{}, err
			}
		}
	}
	p.take()
	if err := p.run(ctx, events); err != nil {
		return Units{}, err
	}
	u := p.take().plus(accepted)
	for _, e := range events {
		for _, id := range ids {
			d, err := p.store.GetDelivery(ctx, delivery.Key{EndpointID: id, EventID: e.ID})
			if err != nil {
				return Units{}, err
			}
			if want := failures + 1; d.State != delivery.Delivered || d.Attempts != want {
				return Units{}, fmt.Errorf("a delivery is %s after %d attempts, want delivered after %d", d.State, d.Attempts, want)
			}
		}
	}
	wanted := ""
	if m.outcome == "circuit open" {
		wanted = "circuit.opened"
	}
	return u.each(float64(n)), errors.Join(p.unsent, p.log.trouble(wanted))
}

// runs are all invocations.
func (u Units) runs() float64 { return u.Emits + u.Captures + u.FanOuts + u.Delivers }

// plus adds figure by figure.
func (u Units) plus(o Units) Units {
	sum, more := reflect.ValueOf(&u).Elem(), reflect.ValueOf(o)
	for i := range sum.NumField() {
		sum.Field(i).SetFloat(sum.Field(i).Float() + more.Field(i).Float())
	}
	return u
}

// each is the n-th part, figure by figure.
func (u Units) each(n float64) Units {
	part := reflect.ValueOf(&u).Elem()
	for i := range part.NumField() {
		part.Field(i).SetFloat(part.Field(i).Float() / n)
	}
	return u
}

// accept has n events accepted whose bodies are of exactly so many bytes.
func (p *plant) accept(ctx context.Context, tenant string, n, body int) ([]event.Accepted, error) {
	data := func(text int) json.RawMessage {
		return json.RawMessage(`{"discussion_id":"d_1","comment_id":"m_1","comment_text":"` + strings.Repeat("x", text) + `"}`)
	}
	request, _ := lambdacontext.FromContext(ctx)
	empty, err := event.Event{
		ID: event.NewID(p.time()), Type: "user.posted_comment", Timestamp: p.time(), ActorUserID: "u_1042", Data: data(0),
		RequestID: request.AwsRequestID, TraceID: tracing.ID(tracing.FromContext(ctx)),
	}.Encode()
	if err != nil {
		return nil, err
	}
	p.meter.put = nil
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
func (p *plant) accepted(body int) (list []event.Accepted, err error) {
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
func (p *plant) capture(ctx context.Context, tenant string, n, body int) ([]event.Accepted, error) {
	one, err := p.changes(ctx, tenant, 1, 0)
	if err != nil {
		return nil, err
	}
	list, err := capture.Events(streamtest.Changes(one...)[0])
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
func (p *plant) changes(ctx context.Context, tenant string, n, text int) (records []events.DynamoDBEventRecord, err error) {
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
func (p *plant) open(ctx context.Context, tenant string, ids []string) error {
	p.answer = func(string) delivery.Outcome {
		o := failure()
		o.Permanent = true // nothing shall wait but what is counted
		return o
	}
	for range breaker.DefaultFailures {
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
func (p *plant) run(ctx context.Context, list []event.Accepted) error {
	if err := p.fanOut(ctx, list); err != nil {
		return err
	}
	for {
		if err := p.deliver(ctx); err != nil {
			return err
		}
		next := p.sqs.next()
		if next.IsZero() {
			return nil
		}
		p.pass(max(next.Sub(p.time()), 0))
	}
}

// fanOut hands a batch of the stream to dispatch.
func (p *plant) fanOut(ctx context.Context, list []event.Accepted) error {
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
func (p *plant) deliver(ctx context.Context) error {
	for {
		batch := p.sqs.receive()
		if len(batch.Records) == 0 {
			return nil
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

// countedSQS is a queue that counts its requests as SQS bills them: one for each
// 64 KB of a request.
type countedSQS struct {
	now     func() time.Time
	latency time.Duration // of a send

	mu       sync.Mutex
	requests int
	waiting  []queued
}

type queued struct {
	at   time.Time
	body string
}

func billed(bytes int) int { return max(1, (bytes+64*1024-1)/(64*1024)) }

// take returns the requests since the last time.
func (q *countedSQS) take() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := q.requests
	q.requests = 0
	return n
}

// SendMessageBatch takes a batch.
func (q *countedSQS) SendMessageBatch(_ context.Context, in *sqs.SendMessageBatchInput, _ ...func(*sqs.Options)) (*sqs.SendMessageBatchOutput, error) {
	time.Sleep(q.latency)
	q.mu.Lock()
	defer q.mu.Unlock()
	size := 0
	out := &sqs.SendMessageBatchOutput{}
	for _, e := range in.Entries {
		size += len(aws.ToString(e.MessageBody))
		at := q.now().Add(time.Duration(e.DelaySeconds) * time.Second)
		// A worker waits the last second out by its own clock, which this one is not.
		if item, err := work.Decode(aws.ToString(e.MessageBody)); err == nil && item.Slot.After(at) {
			at = item.Slot
		}
		q.waiting = append(q.waiting, queued{at, aws.ToString(e.MessageBody)})
		out.Successful = append(out.Successful, sqstypes.SendMessageBatchResultEntry{Id: e.Id})
	}
	q.requests += billed(size)
	return out, nil
}

// receive returns up to ten messages; receiving and deleting them are a request each.
func (q *countedSQS) receive() events.SQSEvent {
	q.mu.Lock()
	defer q.mu.Unlock()
	var batch events.SQSEvent
	size := 0
	now := q.now()
	q.waiting = slices.DeleteFunc(q.waiting, func(m queued) bool {
		if len(batch.Records) == 10 || m.at.After(now) {
			return false
		}
		size += len(m.body)
		batch.Records = append(batch.Records, events.SQSMessage{MessageId: fmt.Sprint(len(batch.Records)), EventSource: "aws:sqs", Body: m.body, Attributes: map[string]string{"ApproximateReceiveCount": "1"}})
		return true
	})
	if len(batch.Records) > 0 {
		q.requests += billed(size) + 1
	}
	return batch
}

// next is when the next message can be had; zero when there is none.
func (q *countedSQS) next() (at time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, m := range q.waiting {
		if at.IsZero() || m.at.Before(at) {
			at = m.at
		}
	}
	return at
}

// meter counts what a store's calls consume.
type meter struct {
	dynamo.Client

	mu    sync.Mutex
	units Units
	put   []dynamoitem.Item // into Events
}

func (m *meter) take() Units {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := m.units
	m.units = Units{}
	return u
}

// note counts a call. Statistics are those items of Control that no event owns.
func (m *meter) note(write, statistics bool, c *types.ConsumedCapacity, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.units.Requests++
	units := 0.0
	if c != nil {
		units = aws.ToFloat64(c.CapacityUnits)
	}
	var refused *types.ConditionalCheckFailedException
	if errors.As(err, &refused) {
		m.units.Refused++
		units = float64(max(1, (dynamoitem.Size(refused.Item)+1023)/1024))
	}
	switch {
	case !write:
		m.units.Reads += units
	case statistics:
		m.units.Statistics += units
	default:
		m.units.Writes += units
	}
}

func isStatistics(item dynamoitem.Item) bool {
	key, ok := item[dynamoitem.Key].(*types.AttributeValueMemberS)
	return ok && (strings.HasPrefix(key.Value, "stats#") || key.Value == dynamoitem.SweepKey)
}

// GetItem, PutItem, UpdateItem, DeleteItem, Query and BatchGetItem count and pass on.
func (m *meter) GetItem(ctx context.Context, in *dynamodb.GetItemInput, o ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error) {
	in.ReturnConsumedCapacity = types.ReturnConsumedCapacityTotal
	out, err := m.Client.GetItem(ctx, in, o...)
	if err != nil {
		return out, err
	}
	m.note(false, false, out.ConsumedCapacity, err)
	return out, nil
}

func (m *meter) PutItem(ctx context.Context, in *dynamodb.PutItemInput, o ...func(*dynamodb.Options)) (*dynamodb.PutItemOutput, error) {
	in.ReturnConsumedCapacity = types.ReturnConsumedCapacityTotal
	out, err := m.Client.PutItem(ctx, in, o...)
	var c *types.ConsumedCapacity
	if out != nil {
		c = out.ConsumedCapacity
	}
	m.note(true, isStatistics(in.Item), c, err)
	if err == nil && strings.HasSuffix(aws.ToString(in.TableName), "-"+dynamoitem.Events) {
		m.mu.Lock()
		m.put = append(m.put, in.Item)
		m.mu.Unlock()
	}
	return out, err
}

func (m *meter) UpdateItem(ctx context.Context, in *dynamodb.UpdateItemInput, o ...func(*dynamodb.Options)) (*dynamodb.UpdateItemOutput, error) {
	in.ReturnConsumedCapacity = types.ReturnConsumedCapacityTotal
	out, err := m.Client.UpdateItem(ctx, in, o...)
	var c *types.ConsumedCapacity
	if out != nil {
		c = out.ConsumedCapacity
	}
	m.note(true, isStatistics(in.Key), c, err)
	return out, err
}

func (m *meter) DeleteItem(ctx context.Context, in *dynamodb.DeleteItemInput, o ...func(*dynamodb.Options)) (*dynamodb.DeleteItemOutput, error) {
	in.ReturnConsumedCapacity = types.ReturnConsumedCapacityTotal
	out, err := m.Client.DeleteItem(ctx, in, o...)
	var c *types.ConsumedCapacity
	if out != nil {
		c = out.ConsumedCapacity
	}
	m.note(true, false, c, err)
	return out, err
}

func (m *meter) Query(ctx context.Context, in *dynamodb.QueryInput, o ...func(*dynamodb.Options)) (*dynamodb.QueryOutput, error) {
	in.ReturnConsumedCapacity = types.ReturnConsumedCapacityTotal
	out, err := m.Client.Query(ctx, in, o...)
	if err != nil {
		return out, err
	}
	m.note(false, false, out.ConsumedCapacity, err)
	return out, nil
}

func (m *meter) BatchGetItem(ctx context.Context, in *dynamodb.BatchGetItemInput, o ...func(*dynamodb.Options)) (*dynamodb.BatchGetItemOutput, error) {
	in.ReturnConsumedCapacity = types.ReturnConsumedCapacityTotal
	out, err := m.Client.BatchGetItem(ctx, in, o...)
	if err != nil {
		return out, err
	}
	for _, c := range out.ConsumedCapacity {
		m.note(false, false, &c, nil)
	}
	return out, nil
}
