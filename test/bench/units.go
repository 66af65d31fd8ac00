package main

import (
	"context"
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

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/local/dynamoemulator"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
	"github.com/tidings-dev/tidings/pkg/ops/cost"
	"github.com/tidings-dev/tidings/pkg/signature"
)

// tight is the limit of the endpoints that are rate-limited.
var tight = ratelimit.Limit{PerMinute: 6000}

// Units is what one event made AWS count. They are exact: the same code gives the
// same units on every machine.
type Units struct {
	Writes     float64 `json:"write_units"`            // of the event's own items, their indexes included
	Reads      float64 `json:"read_units"`             //
	Requests   float64 `json:"dynamodb_requests"`      // all, those of the statistics and the journal included
	Statistics float64 `json:"statistics_write_units"` // what its batches wrote, once a batch
	Journal    float64 `json:"journal_write_units"`    // of the list of events, once a batch
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
const wholeKilobyte = 866

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
	t := r.table("units", "What AWS counts for one event", "event", "DynamoDB write units", "read units", "requests", "statistics write units", "journal write units", "SQS requests", "invocations")
	t.Notes = []string{"Exact, from ConsumedCapacity of the local DynamoDB, indexes included. One at a time: all caches have expired, each batch " +
		"holds one message, and all endpoints have the same outcome. 100 at a time: each event is emitted by its own request, and batches are full. Captured: batches of the platform's stream are full, too. The figures of an event include all its endpoints. " +
		"An event with a body of " + kilobytes(wholeKilobyte) + " is stored as an item of 1 KB."}
	b := r.table("bytes", "What one event writes to the log and sends", "event", "attempts", "log lines", "log bytes", "attempt log bytes", "bytes sent")
	b.Notes = []string{"The functions' log at the default level, with the lines of metrics and the " + fmt.Sprint(cost.LineBytes) + " bytes that CloudWatch adds to each line; without Lambda's own lines. " +
		"Bytes sent are those that the receiver's connections got over HTTP/1.1, headers included; HTTP/2 sends less."}
	for number, m := range mixes() {
		u, err := countUnits(ctx, server.Client(), receiver, number, m)
		if err != nil {
			return nil, fmt.Errorf("units, %s: %w", m, err)
		}
		measured[m.String()] = u
		t.add(m.String(), of(u.Writes), of(u.Reads), of(u.Requests), of(u.Statistics), of(u.Journal), of(u.SQS), of(u.runs()))
		if m.fan == 1 {
			b.add(m.String(), of(u.Attempts), of(u.LogLines), of(u.LogBytes), of(u.AttemptLog), of(u.Sent))
		}
	}
	one, three, busy := measured[mix("first try", 1, wholeKilobyte, false)], measured[mix("first try", 3, 512, false)], measured[mix("first try", 1, wholeKilobyte, true)]
	r.atMost(3, one.Writes, "", "write units per event of 1 KB, one endpoint, first try, one at a time, without statistics and journal")
	r.atMost(1, one.Journal, "", "… write units of the journal, one at a time")
	r.atMost(0.1, busy.Journal, "", "… write units of the journal, full batches")
	r.atMost(1, one.Reads, "", "… read units, one at a time")
	r.atMost(0.5, busy.SQS, "", "… SQS requests, full batches")
	r.atMost(2, (three.Writes-one.Writes)/2, "", "… write units per additional endpoint")
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

// countUnits plays one mix from acceptance to the last verdict.
func countUnits(ctx context.Context, db *dynamodb.Client, receiver *wire, number int, m counted) (Units, error) {
	ctx = invocation(ctx)
	p := newPipeline(db, receiver)
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
		case "circuit open":
			e.Breaker = breaker.Policy{FailingFor: time.Millisecond}
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
			// Others have used up the burst and the next fifteen seconds: there is still a slot.
			if _, err := p.store.ReserveSlots(ctx, tight.Key(id), 20*time.Second, p.time()); err != nil {
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
