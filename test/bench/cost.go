package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	dispatchhandler "github.com/tidings-dev/tidings/functions/dispatch/handler"
	emithandler "github.com/tidings-dev/tidings/functions/emit/handler"
	"github.com/tidings-dev/tidings/pkg/aws/lambdamain"
	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination/builtin"
	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/ops/cost"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
)

// Round trips to AWS's services from a function in their region, which no machine
// but AWS's can measure: medians that AWS's users see.
const (
	dynamoLatency = 5 * time.Millisecond
	sqsLatency    = 10 * time.Millisecond
)

// vCPU is the share of a processor that a function of 512 MB gets: one has 1,769 MB
// ("Configuring Lambda function memory").
const vCPU = 512.0 / 1769

// durations are seconds of an invocation, besides waiting for a receiver.
type durations struct{ emit, capture, fanOut, deliver Cell }

// measureDurations runs the real handlers against DynamoDB's API, its and SQS's
// latency put in for AWS's, and a receiver that answers at once. What this process
// computes meanwhile takes longer by the share of a processor that a function has.
func measureDurations(ctx context.Context, rounds int) (one, ten durations, err error) {
	server, _, err := database(ctx)
	if err != nil {
		return one, ten, err
	}
	defer server.Stop()
	to, err := startReceiver()
	if err != nil {
		return one, ten, err
	}
	defer to.stop()
	for _, n := range []int{1, 10} {
		var emits, captures, fanOuts, delivers []float64
		timed := func(into *[]float64, calls int, work func() error) error {
			cpu, began := ownCPU(), time.Now()
			err := work()
			took, spent := time.Since(began), ownCPU()-cpu
			*into = append(*into, (took.Seconds()+spent.Seconds()*(1/vCPU-1))/float64(calls))
			return err
		}
		p, tenant, err := livePipeline(ctx, server.Client(), to.url, n)
		if err != nil {
			return one, ten, err
		}
		fannedOut := func(list []events.DynamoDBEventRecord) error {
			payload, err := json.Marshal(events.DynamoDBEvent{Records: list})
			if err != nil {
				return err
			}
			return timed(&fanOuts, 1, func() error { return p.handled(ctx, payload) })
		}
		for range rounds {
			if n == 1 {
				p.dispatch = p.dispatcher() // nothing is cached where events come one at a time
			}
			var list []events.DynamoDBEventRecord
			err := timed(&emits, n, func() (err error) {
				list, err = p.emitted(ctx, tenant, n)
				return err
			})
			if err != nil {
				return one, ten, err
			}
			if err := fannedOut(list); err != nil {
				return one, ten, err
			}
			batch, err := p.sqs.receive()
			if err != nil {
				return one, ten, err
			}
			if len(batch.Records) != n {
				return one, ten, fmt.Errorf("%d events made %d messages", n, len(batch.Records))
			}
			payload, err := json.Marshal(batch)
			if err != nil {
				return one, ten, err
			}
			if n == 1 {
				p.dispatch = p.dispatcher()
			}
			if err := timed(&delivers, 1, func() error { return p.handled(ctx, payload) }); err != nil {
				return one, ten, err
			}
		}
		for range rounds / 3 {
			records, err := p.changes(invocation(ctx), tenant, n*n, 500) // a hundred, where there are many
			if err != nil {
				return one, ten, err
			}
			payload, err := json.Marshal(events.DynamoDBEvent{Records: records})
			if err != nil {
				return one, ten, err
			}
			err = timed(&captures, 1, func() error {
				_, err := lambdamain.Handler(emithandler.Route(p.emitter)).Invoke(invocation(ctx), payload)
				return err
			})
			if err != nil {
				return one, ten, err
			}
		}
		// A batch of the stream has a hundred events, where there are many.
		if n > 1 {
			fanOuts = nil
			for range rounds / 3 {
				list, err := p.emitted(ctx, tenant, n*n)
				if err != nil {
					return one, ten, err
				}
				if err := fannedOut(list); err != nil {
					return one, ten, err
				}
				for range n {
					if _, err := p.sqs.receive(); err != nil { // the messages are not delivered
						return one, ten, err
					}
				}
			}
		}
		if err := p.log.trouble(""); err != nil {
			return one, ten, err
		}
		d := durations{of(emits...), of(captures...), of(fanOuts...), of(delivers...)}
		if n == 1 {
			one = d
		} else {
			ten = d
		}
	}
	return one, ten, nil
}

// livePipeline is a pipeline in real time, as far from DynamoDB and SQS as a function is,
// with an endpoint that answers at once.
func livePipeline(ctx context.Context, db *dynamodb.Client, url string, n int) (*pipeline, string, error) {
	registry, err := builtin.Open(builtin.Loopback, builtin.Clouds{})
	if err != nil {
		return nil, "", err
	}
	p := newPipeline(distant{db, dynamoLatency}, &wire{registry: registry, url: url + "/swallow/"})
	p.live, p.sqs.latency = true, sqsLatency
	p.answer = func(string) delivery.Outcome { return success() }
	e := endpoint.Endpoint{
		Tenant: fmt.Sprintf("timed%d", n), ID: endpoint.NewID(p.time()), URL: "https://" + host + "/webhooks", EventTypes: []string{"*"}, Status: endpoint.Enabled,
		Secrets: []endpoint.SigningSecret{{Secret: signature.NewSecret()}}, Version: 1, CreatedAt: p.time(), UpdatedAt: p.time(),
	}
	return p, e.Tenant, p.store.AddEndpoint(ctx, e)
}

// emitted has n events emitted, each by an invocation of its own, and returns their
// records of the stream.
func (p *pipeline) emitted(ctx context.Context, tenant string, n int) (records []events.DynamoDBEventRecord, err error) {
	p.meter.put = nil
	for i := range n {
		payload, err := json.Marshal(emit.Request{Tenant: tenant, Event: "user.posted_comment", ActorUserID: "u_1042",
			Data: json.RawMessage(fmt.Sprintf(`{"discussion_id":"d_1","comment_id":"m_%d","comment_text":%q}`, i, commentText))})
		if err != nil {
			return nil, err
		}
		if _, err := lambdamain.Handler(emithandler.Route(p.emitter)).Invoke(invocation(ctx), payload); err != nil {
			return nil, err
		}
	}
	for i, item := range p.meter.put {
		records = append(records, recordOf(item, i))
	}
	return records, nil
}

// handled has dispatch handle a payload.
func (p *pipeline) handled(ctx context.Context, payload []byte) error {
	answer, err := lambdamain.Handler(dispatchhandler.Route(p.dispatch)).Invoke(invocation(ctx), payload)
	if err == nil && bytes.Contains(answer, []byte("itemIdentifier")) {
		return fmt.Errorf("a part of a batch failed: %s (%w)", answer, p.log.trouble(""))
	}
	return errors.Join(err, p.unsent)
}

// distant is a DynamoDB that answers after a round trip, and not before.
type distant struct {
	dynamo.Client
	trip time.Duration
}

// rest waits until a call that began then has taken its time.
func rest(began time.Time, trip time.Duration) { time.Sleep(trip - time.Since(began)) }

// GetItem, PutItem, UpdateItem, DeleteItem, Query and BatchGetItem take their time.
func (d distant) GetItem(ctx context.Context, in *dynamodb.GetItemInput, o ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error) {
	defer rest(time.Now(), d.trip)
	return d.Client.GetItem(ctx, in, o...)
}

func (d distant) PutItem(ctx context.Context, in *dynamodb.PutItemInput, o ...func(*dynamodb.Options)) (*dynamodb.PutItemOutput, error) {
	defer rest(time.Now(), d.trip)
	return d.Client.PutItem(ctx, in, o...)
}

func (d distant) UpdateItem(ctx context.Context, in *dynamodb.UpdateItemInput, o ...func(*dynamodb.Options)) (*dynamodb.UpdateItemOutput, error) {
	defer rest(time.Now(), d.trip)
	return d.Client.UpdateItem(ctx, in, o...)
}

func (d distant) DeleteItem(ctx context.Context, in *dynamodb.DeleteItemInput, o ...func(*dynamodb.Options)) (*dynamodb.DeleteItemOutput, error) {
	defer rest(time.Now(), d.trip)
	return d.Client.DeleteItem(ctx, in, o...)
}

func (d distant) Query(ctx context.Context, in *dynamodb.QueryInput, o ...func(*dynamodb.Options)) (*dynamodb.QueryOutput, error) {
	defer rest(time.Now(), d.trip)
	return d.Client.Query(ctx, in, o...)
}

func (d distant) BatchGetItem(ctx context.Context, in *dynamodb.BatchGetItemInput, o ...func(*dynamodb.Options)) (*dynamodb.BatchGetItemOutput, error) {
	defer rest(time.Now(), d.trip)
	return d.Client.BatchGetItem(ctx, in, o...)
}

// event is what AWS counts for one event of a mix, w for each invocation.
func (d durations) event(u Units, w cost.Observability) cost.Count {
	runs := u.runs()
	return cost.Count{
		WriteUnits: u.Writes + u.Statistics + u.Journal, ReadUnits: u.Reads, SQSRequests: u.SQS, Runs: runs,
		Seconds:   u.Emits*d.emit.Median + u.Captures*d.capture.Median + u.FanOuts*d.fanOut.Median + u.Delivers*d.deliver.Median + u.Sending*cost.ReceiverSeconds,
		LogBytes:  u.LogBytes + runs*w.LogBytes,
		Traces:    runs * w.Traced,
		SentBytes: u.Sent + u.Attempts*cost.PacketBytes + u.Sending*cost.HandshakeBytes,
	}
}

// measureCost puts prices to the units that the repository expects, and to the
// durations that it measures.
func measureCost(ctx context.Context, r *Report, o options) error {
	units, err := expectedUnits()
	if err != nil {
		return err
	}
	stack, err := resolved()
	if err != nil {
		return err
	}
	watched := watchedOf(stack)
	rounds := 30
	if o.short {
		rounds = 10
	}
	one, ten, err := measureDurations(ctx, rounds)
	if err != nil {
		return err
	}
	prices := cost.List
	dated := prices.Date + ", " + prices.Region
	ms := func(c Cell) Cell { return c.times(1000) }
	d := r.table("durations", "How long an invocation takes, besides waiting for a receiver", "events", "emit, ms", "capture, ms", "fan out, ms", "deliver, ms")
	d.add("one at a time, nothing cached", ms(one.emit), ms(one.capture), ms(one.fanOut), ms(one.deliver))
	d.add("together: 1 emitted, 100 captured, 100 fanned out, 10 delivered", ms(ten.emit), ms(ten.capture), ms(ten.fanOut), ms(ten.deliver))
	d.Notes = []string{fmt.Sprintf("The real handlers on this machine. The latency of AWS's services is assumed: %s for DynamoDB and %s for SQS. "+
		"Computing time is multiplied by 1,769/512, because a function with 512 MB gets that share of a processor. The receiver answers at once, without TLS.", dynamoLatency, sqsLatency)}

	var names []string
	for _, l := range (cost.Count{}).Lines(prices) {
		names = append(names, l.Name+" $")
	}
	t := r.table("cost", "Dollars a million events to one endpoint, list prices of "+dated, "events", append(names, "all in $")...)
	t.Notes = []string{fmt.Sprintf("Counts, bytes and durations are the measured ones. A receiver answers in %g ms; a function has 512 MB. Logs include Lambda's own log lines (%g bytes per invocation). "+
		"Transfer includes a TLS handshake per invocation (%d bytes) and packet headers (%d bytes per attempt). By default nothing is traced (TraceSampling). "+
		"Not included: free tier, storage (a million events of 1 KB kept for 30 days are about $0.80), cold starts, discounts.", cost.ReceiverSeconds*1000, watched.LogBytes, cost.HandshakeBytes, cost.PacketBytes)}
	for _, m := range mixes() {
		if m.fan != 1 || m.body > 1024 {
			continue
		}
		u, ok := units[m.String()]
		if !ok {
			return fmt.Errorf("%s has no %q", unitsFile, m)
		}
		took := one
		if m.busy {
			took = ten
		}
		lines := took.event(u, watched).Times(1e6).Lines(prices)
		var cells []Cell
		for _, l := range lines {
			cells = append(cells, of(l.Dollars))
		}
		t.add(m.String(), append(cells, of(cost.Total(lines)))...)
		switch {
		case m == captured:
			r.under(3, cost.Total(lines), "$", "… captured from the platform's stream instead, all in: "+dearest(lines))
		case m.outcome == "first try" && m.busy && m.body == wholeKilobyte:
			r.under(3, lines[0].Dollars+lines[1].Dollars+lines[2].Dollars, "$", "a million first tries at 1 KB, each emitted by its own request, full batches: DynamoDB, SQS, Lambda")
			r.under(3, cost.Total(lines), "$", "… all in: "+dearest(lines))
		}
	}
	return idleCost(r, stack, units)
}

// dearest says what a bill is made of, the largest part first.
func dearest(lines []cost.Line) string {
	sorted := slices.SortedFunc(slices.Values(lines), func(a, b cost.Line) int { return int(1e6 * (b.Dollars - a.Dollars)) })
	var parts []string
	for _, l := range sorted {
		parts = append(parts, l.Name+" "+number(l.Dollars))
	}
	return strings.Join(parts, ", ")
}
