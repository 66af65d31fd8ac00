package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
	"github.com/tidings-dev/tidings/pkg/signature"
)

// measureRecover sends a new endpoint the events of the past, beside live traffic.
func measureRecover(ctx context.Context, r *Report, o options) error {
	n, alone := 100_000, 20*time.Second
	if o.short {
		n, alone = 5_000, 5*time.Second
	}
	t := r.table("recover", "Recover: a new endpoint is sent "+thousands(n)+" events of the past, beside two healthy endpoints at 50 events/s", "on the memory store",
		"s", "deliveries/s", "p50 ms of the others, alone", "p95 ms, alone", "p50 ms, during it", "p95 ms, during it", "process MB before", "peak MB during it")
	t.Notes = []string{"Generator and system are one process; the receiver is another, and answers at once. A drain begins with 50 deliveries a second and doubles as long as the receiver answers well. " +
		"The peak includes the deliveries that are stored meanwhile, because the store is in memory. What DynamoDB counts for one is in [cost.md](cost.md)."}
	to, err := startReceiver()
	if err != nil {
		return err
	}
	defer to.stop()
	system, err := local.Open(ctx, local.Options{Template: templateFile, Memory: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- system.Run(running) }()
	defer func() {
		stop()
		<-ended
		system.Close()
	}()
	s := &stage{to: to, runner: &runner{
		note:   local.RunnerInfo{PID: os.Getpid(), InvokeURL: system.InvokeURL, URLs: system.URLs, Stack: local.StackName, Access: system.Access},
		client: &http.Client{Timeout: requestTime, Transport: &http.Transport{MaxIdleConnsPerHost: 256}},
	}}
	add := func(path, discussion string) (endpoint.Endpoint, error) {
		e := endpoint.Endpoint{
			Tenant: event.DefaultTenant, ID: endpoint.NewID(time.Now()), URL: to.url + path, EventTypes: []string{"*"}, Filter: about(discussion), Status: endpoint.Enabled,
			Secrets: []endpoint.SigningSecret{{Secret: signature.NewSecret()}}, CreatedAt: time.Now(), UpdatedAt: time.Now(),
		}
		return e, system.Store.AddEndpoint(ctx, e)
	}
	for i := range 2 {
		if _, err := add(fmt.Sprintf("/ok/%d", i), "live"); err != nil {
			return err
		}
	}
	fmt.Fprintf(os.Stderr, "  emitting %s events …\n", thousands(n))
	began := time.Now()
	if err := s.runner.flood(n, func(int) string { return "past" }); err != nil {
		return err
	}
	live, healthy := func(int) string { return "live" }, func(n int) int { return 2 * n }
	if _, err := s.spell(2*time.Second, live, healthy); err != nil { // connections and caches
		return err
	}
	good, err := s.spell(alone, live, healthy)
	if err != nil {
		return err
	}
	e, err := add("/past", "past")
	if err != nil {
		return err
	}
	command := dispatch.Command{Action: "start_job", Kind: jobs.Backfill, EndpointID: e.ID, From: began.Add(-time.Minute), By: "bench"}
	before, err := used(os.Getpid())
	if err != nil {
		return err
	}
	peak := watch(os.Getpid())
	if err := to.reset(); err != nil {
		return err
	}
	began = time.Now()
	job, err := startJob(ctx, system, command)
	if err != nil {
		return err
	}
	for sent := 0; ; {
		more, err := s.runner.load(dayRate, 5*time.Second, live)
		if err != nil {
			return err
		}
		sent += more
		var count int
		if err := to.get("/count", &count); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "  %s of %s after %.0f s\n", thousands(max(count-2*sent, 0)), thousands(n), time.Since(began).Seconds())
		if count >= n+2*sent {
			break
		}
		if time.Since(began) > 30*time.Minute {
			return fmt.Errorf("%d of %d recovered after %s: %s", count-2*sent, n, time.Since(began), job)
		}
	}
	most := peak()
	report, err := to.report()
	if err != nil {
		return err
	}
	past := report["past"]
	if past == nil || len(past.First)+len(past.Again) != n {
		return fmt.Errorf("the endpoint got %+v, want %d events", past, n)
	}
	took := past.Last.Sub(began).Seconds()
	during := spellOf(report["ok"].First)
	t.add("backfill of "+thousands(n), of(took), of(float64(n)/took), of(good.p50), of(good.p95), of(during.p50), of(during.p95), of(before.RSS), of(most))
	// Below two milliseconds, the machine's own noise is larger than any ratio.
	r.atMost(3, during.p95/max(good.p95, 2), "", "a backfill: p95 of the other endpoints, relative to alone (or to 2 ms)")
	if !o.short {
		r.over(100, float64(n)/took, "deliveries/s", "… rate")
	}
	return nil
}

// startJob starts a job and returns its ID.
func startJob(ctx context.Context, system *local.System, command dispatch.Command) (string, error) {
	payload, err := json.Marshal(command)
	if err != nil {
		return "", err
	}
	client := lambda.NewFromConfig(system.Access.Config(), func(o *lambda.Options) { o.BaseEndpoint = aws.String(system.InvokeURL) })
	out, err := client.Invoke(ctx, &lambda.InvokeInput{FunctionName: aws.String(local.StackName + "-dispatch:" + samtemplate.Alias), Payload: payload})
	if err != nil {
		return "", err
	}
	if out.FunctionError != nil {
		return "", errors.New(string(out.Payload))
	}
	return string(out.Payload), nil
}
