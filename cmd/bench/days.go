package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// day is a load with some endpoints that misbehave.
type day struct {
	name string
	urls func(base string) []string
	// on is the path of those endpoints whose latency is asked for.
	on     string
	needed func(events int) int // deliveries that will be answered with success at the first try, at least
}

// measureDays plays bad days beside a good one and asks the healthy endpoints.
func measureDays(_ context.Context, r *Report, o options) error {
	good := func(base string) []string { return []string{base + "/ok/1", base + "/ok/2"} }
	days := []day{
		{"a good day: 2 endpoints", good, "ok", func(n int) int { return 2 * n }},
		{"10 % of a third endpoint's events fail once", func(base string) []string { return append(good(base), base+"/tenth/1") }, "ok", func(n int) int { return 2 * n }},
		{"a third endpoint never answers", func(base string) []string { return append(good(base), base+"/hang/1") }, "ok", func(n int) int { return 2 * n }},
	}
	t := r.table("days", "Bad days: 50 events/s for 20 s to the whole runner on the memory store, the two healthy endpoints' latency", "day",
		"p50 ms", "p95 ms", "p99 ms", "p95, of the good day's")
	t.Notes = []string{"The endpoint that never answers holds each attempt for ten seconds, until its circuit opens: up to 500 are under way by then."}
	span, rounds := 20*time.Second, 2
	if o.short {
		span, rounds = 12*time.Second, 1
	}
	var goodP50, goodP95 float64
	for n, d := range days {
		var p50, p95, p99, ratio []float64
		for range rounds {
			lat, err := playDay(o, d, span)
			if err != nil {
				return fmt.Errorf("%s: %w", d.name, err)
			}
			p50, p95, p99 = append(p50, quantile(lat, 0.5)), append(p95, quantile(lat, 0.95)), append(p99, quantile(lat, 0.99))
		}
		if n == 0 {
			goodP50, goodP95 = of(p50...).Median, of(p95...).Median
		}
		for _, v := range p95 {
			ratio = append(ratio, v/goodP95)
		}
		t.add(d.name, of(p50...), of(p95...), of(p99...), of(ratio...))
		switch n {
		case 1:
			r.atMost(1.2, of(ratio...).Median, "", "10 % failing: the healthy endpoints' p95, of a good day's")
		case 2:
			r.atMost(2, of(p50...).Median/goodP50, "", "an endpoint that hangs: the others' p50, of a good day's")
		}
	}
	return nil
}

func playDay(o options, d day, span time.Duration) ([]float64, error) {
	to, err := startReceiver()
	if err != nil {
		return nil, err
	}
	defer to.stop()
	runner, err := startRunner(o.binary, true, d.urls(to.url))
	if err != nil {
		return nil, err
	}
	defer runner.stop()
	if _, err := runner.load(20, time.Second); err != nil {
		return nil, err
	}
	if err := to.wait(d.needed(20), 30*time.Second); err != nil {
		return nil, err
	}
	if err := to.reset(); err != nil {
		return nil, err
	}
	n, err := runner.load(50, span)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		report, err := to.report()
		if err != nil {
			return nil, err
		}
		if seen := report[d.on]; seen != nil && len(seen.First) >= d.needed(n) {
			slices.Sort(seen.First)
			return seen.First, nil
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("the healthy endpoints did not get their %d deliveries in a minute", d.needed(n))
		}
	}
}
