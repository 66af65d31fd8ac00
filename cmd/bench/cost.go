package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
)

// List prices of us-east-1 in dollars, as AWS's price pages had them in November
// 2025: on demand, the first and dearest step, no free tier.
const (
	priceDate      = "2025-11, us-east-1"
	writeUnits     = 0.625   // a million
	readUnits      = 0.125   // a million
	sqsRequests    = 0.40    // a million
	invocations    = 0.20    // a million
	gigabyteSecond = 13.3334 // a million, arm64
	logGigabyte    = 0.50    // taken in
	outGigabyte    = 0.09    // to the internet
	schedulerCalls = 1.00    // a million
	alarmMonth     = 0.10
	keyMonth       = 1.00
	dashboardMonth = 3.00
	metricMonth    = 0.30
)

// What a delivery takes besides its units.
const (
	memory       = 0.512 // GB of a function
	answerTime   = 0.2   // s, of a receiver
	ownTime      = 0.02  // s of an invocation besides: ten times what a batch of ten costs here
	logBytes     = 700.0 // its line, and its share of the others
	requestBytes = 1500.0
)

// million is what a million events of one endpoint cost, from their units.
func million(u Units, perBatch, attempts float64) (lines [5]float64, total float64) {
	lines[0] = (u.Writes+u.Statistics)*writeUnits + u.Reads*readUnits
	lines[1] = u.SQS * sqsRequests
	runs := 1 + 1/perBatch + attempts/perBatch // emit, fan out, deliver
	seconds := ownTime + ownTime/perBatch + attempts/perBatch*(answerTime+ownTime)
	lines[2] = runs*invocations + seconds*memory*gigabyteSecond
	lines[3] = attempts * logBytes / 1e3 * logGigabyte
	lines[4] = attempts * requestBytes / 1e3 * outGigabyte
	for _, l := range lines {
		total += l
	}
	return lines, total
}

// measureCost puts prices to the units that the repository expects.
func measureCost(_ context.Context, r *Report, _ options) error {
	text, err := os.ReadFile(unitsFile)
	if err != nil {
		return err
	}
	var units map[string]Units
	if err := json.Unmarshal(text, &units); err != nil {
		return fmt.Errorf("%s: %w", unitsFile, err)
	}
	t := r.table("cost", "Dollars a million events to one endpoint, list prices of "+priceDate, "events",
		"DynamoDB $", "SQS $", "Lambda $", "logs $", "transfer $", "all in $")
	t.Notes = []string{"Units are the measured ones; a receiver answers in 200 ms, a function has 512 MB, a delivery logs 700 bytes and sends 1.5 KB. " +
		"No free tier, no storage (a million events of 1 KB kept for 30 days are about $0.80), no discount."}
	for _, outcome := range outcomes {
		for _, busy := range []bool{true, false} {
			name := mix(outcome, 1, 512, busy)
			u, ok := units[name]
			if !ok {
				continue
			}
			perBatch, attempts := 1.0, 1.0
			if busy {
				perBatch = batchSize
			}
			switch outcome {
			case "one retry":
				attempts = 2
			case "ten retries":
				attempts = 11
			}
			lines, total := million(u, perBatch, attempts)
			t.add(name, of(lines[0]), of(lines[1]), of(lines[2]), of(lines[3]), of(lines[4]), of(total))
			if outcome == "first try" && busy {
				r.under(3, lines[0]+lines[1]+lines[2], "$", "a million first-try deliveries, full batches: DynamoDB, SQS, Lambda")
				r.under(3, total, "$", "… logs and transfer included")
			}
		}
	}
	// What a deployment costs that nobody uses.
	const minutes = 30 * 24 * 60.0
	i := r.table("idle", "Dollars a month of an idle deployment, list prices of "+priceDate, "what", "a month", "$")
	ours := 0.0
	add := func(what, much string, dollars float64, own bool) {
		i.add(what, Cell{Text: much}, of(dollars))
		if own {
			ours += dollars
		}
	}
	add("sweep, health: invocations and 20 ms each", "86,400", 2*minutes/1e6*(invocations+ownTime*memory*gigabyteSecond), true)
	add("the schedules that call them", "86,400", 2*minutes/1e6*schedulerCalls, true)
	add("sweep: reads of 16 index shards and of the circuits", "34 units a minute", 34*minutes/1e6*readUnits, true)
	add("sweep: its note", "1 unit a minute", minutes/1e6*writeUnits, true)
	add("Lambda polling the queue: five pollers, 20 s each", "648,000", 5*minutes*3/1e6*sqsRequests, true)
	add("CloudWatch alarms beyond the ten that are free, each", "1", alarmMonth, false)
	add("a customer-managed KMS key for the secrets", "1", keyMonth, false)
	add("a CloudWatch dashboard beyond the three that are free", "1", dashboardMonth, false)
	add("a custom metric beyond the ten that are free, each", "1", metricMonth, false)
	i.Notes = []string{"The first five are what the running system does. SQS's and Lambda's million free requests a month, which do not expire, cover the pollers and the invocations; they are not deducted. " +
		"The key, alarms, dashboard and metrics are standing charges of AWS's own, whatever the traffic."}
	r.under(1, ours, "$ a month", "idle: what the running system does (without the key, alarms, dashboard)")
	return nil
}
