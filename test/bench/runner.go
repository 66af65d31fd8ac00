package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"
)

// played is what one run of the whole runner measured.
type played struct {
	p50, p95, p99    float64 // ms
	rate             float64 // deliveries a second
	cpu, rss         float64 // µs a delivery; MB
	generator, taker float64 // µs a delivery of the load generator and of the receiver
	database         float64 // µs a delivery of the local DynamoDB
	// MB when all was delivered.
	generatorMB, takerMB, databaseMB float64
}

// quantile of a sorted list.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(q*float64(len(sorted)-1))]
}

// play runs a fresh runner under load. rate 0 is as fast as it goes.
func play(ctx context.Context, o options, memory bool, fan, rate int, span time.Duration, flood int) (p played, err error) {
	to, err := startReceiver()
	if err != nil {
		return p, err
	}
	defer to.stop()
	var urls []string
	for i := range fan {
		urls = append(urls, fmt.Sprintf("%s/ok/%d", to.url, i))
	}
	runner, err := startRunner(ctx, o.binary, memory, everything(urls...))
	if err != nil {
		return p, err
	}
	defer runner.stop()
	// Connections and caches: a second's worth at a fifth of the rate.
	warm, err := runner.load(max(min(rate/5, 100), 20), time.Second, some)
	if err != nil {
		return p, err
	}
	if err := to.wait(warm*fan, 20*time.Second); err != nil {
		return p, err
	}
	if err := to.reset(); err != nil {
		return p, err
	}
	databases := runner.children()
	var mb [4]float64
	sample := func() (u [4]time.Duration, err error) {
		self, err := used(os.Getpid())
		if err != nil {
			return u, err
		}
		own, err := used(runner.note.PID)
		if err != nil {
			return u, err
		}
		receiver, err := used(to.pid)
		if err != nil {
			return u, err
		}
		for _, pid := range databases {
			child, err := used(pid)
			if err != nil {
				return u, err
			}
			u[3] += child.CPU
			mb[3] += child.RSS
		}
		u[0], u[1], u[2] = own.CPU, ownCPU(), receiver.CPU
		mb[1], mb[2] = self.RSS, receiver.RSS
		return u, nil
	}
	peak := watch(runner.note.PID)
	before, err := sample()
	if err != nil {
		return p, err
	}
	began := time.Now()
	n := flood
	if rate > 0 {
		n, err = runner.load(rate, span, some)
	} else {
		err = runner.flood(flood, some)
	}
	if err != nil {
		return p, err
	}
	if err := to.wait(n*fan, 2*time.Minute); err != nil {
		return p, err
	}
	p.rss = peak()
	mb = [4]float64{}
	after, err := sample()
	if err != nil {
		return p, err
	}
	report, err := to.report()
	if err != nil {
		return p, err
	}
	seen := report["ok"]
	slices.Sort(seen.First)
	p.p50, p.p95, p.p99 = quantile(seen.First, 0.5), quantile(seen.First, 0.95), quantile(seen.First, 0.99)
	deliveries := float64(n * fan)
	p.rate = deliveries / seen.Last.Sub(began).Seconds()
	each := func(i int) float64 { return float64((after[i] - before[i]).Microseconds()) / deliveries }
	p.cpu, p.generator, p.taker, p.database = each(0), each(1), each(2), each(3)
	p.generatorMB, p.takerMB, p.databaseMB = mb[1], mb[2], mb[3]
	return p, nil
}

// offered names a load: with what was taken of it where that is less, so that nobody
// takes its latency, which is then the backlog's, for the system's.
func offered(name string, fan, rate int, delivered float64) string {
	if taken := delivered / float64(fan); rate > 0 && taken < 0.97*float64(rate) {
		return fmt.Sprintf("%s: offered, and %s/s taken", name, number(taken))
	}
	return name
}

// watch watches a process's memory until it is asked for the most it saw, in MB.
func watch(pid int) func() float64 {
	stop, peak := make(chan struct{}), make(chan float64)
	go func() {
		most := 0.0
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			if u, err := used(pid); err == nil {
				most = max(most, u.RSS)
			}
			select {
			case <-tick.C:
			case <-stop:
				peak <- most
				return
			}
		}
	}()
	return func() float64 {
		close(stop)
		return <-peak
	}
}

// measureRunner plays the whole runner: emit by HTTP, the stream, the queue,
// dispatch, the receiver.
func measureRunner(ctx context.Context, r *Report, o options) error {
	t := r.table("runner", "Whole runner: `tidings local` as a process, load generator and receiver on the same cores", "load",
		"p50 ms", "p95 ms", "p99 ms", "deliveries/s", "runner, CPU µs a delivery", "runner, MB", "generator, CPU µs", "receiver, CPU µs", "database, CPU µs", "generator, MB", "receiver, MB", "database, MB")
	t.Notes = []string{"Latency is measured from the time at which an event is due to be emitted until the receiver's answer, so it includes the generator, `emit` and the stream. CPU is per delivery. " +
		"Where the load exceeds the capacity, the row says so, and its latency is that of the backlog. Memory is the peak, with all events and deliveries of the run in it. Flat out: requests with lists of 100 events. " +
		"Each run has its own process and a second of slow warm-up that is not counted. A missing or duplicate delivery fails the run. The local DynamoDB is an emulator: its flat-out row shows the emulator's capacity, not DynamoDB's."}
	span, rounds, flood := 5*time.Second, 3, 30_000
	if o.short {
		span, rounds, flood = 2*time.Second, 1, 6_000
	}
	// Beyond what it takes, time brings nothing but a longer backlog.
	const most, beyond = 5000, 2 * time.Second
	line := func(name string, memory bool, fan, rate, flood int) (c struct{ p50, p95, p99, rate, cpu, rss Cell }, err error) {
		var all [12][]float64
		span := span
		if fan*rate > most {
			span = beyond
		}
		for range rounds {
			p, err := play(ctx, o, memory, fan, rate, span, flood)
			if err != nil {
				return c, fmt.Errorf("%s: %w", name, err)
			}
			for i, v := range []float64{p.p50, p.p95, p.p99, p.rate, p.cpu, p.rss, p.generator, p.taker, p.database, p.generatorMB, p.takerMB, p.databaseMB} {
				all[i] = append(all[i], v)
			}
		}
		cells := make([]Cell, len(all))
		for i, samples := range all {
			cells[i] = of(samples...)
		}
		name = offered(name, fan, rate, cells[3].Median)
		t.add(name, cells...)
		fmt.Fprintf(os.Stderr, "  %s: p95 %s ms, %s/s, %s µs, %s MB\n", name, cells[1], cells[3], cells[4], cells[5])
		c.p50, c.p95, c.p99, c.rate, c.cpu, c.rss = cells[0], cells[1], cells[2], cells[3], cells[4], cells[5]
		return c, nil
	}
	limits := map[int]float64{500: 50, 1000: 60, 1500: 90}
	for _, rate := range []int{50, 200, 500, 1000, 1500} {
		c, err := line(fmt.Sprintf("memory store, %d events/s, 1 endpoint", rate), true, 1, rate, 0)
		if err != nil {
			return err
		}
		if limit := limits[rate]; limit > 0 {
			r.under(limit, c.p95.Median, "ms", fmt.Sprintf("whole runner at %d events/s: p95", rate))
		}
		if rate == 1000 {
			r.under(90, c.rss.Median, "MB", "… memory of our process")
		}
	}
	c, err := line("memory store, flat out, 1 endpoint", true, 1, 0, flood)
	if err != nil {
		return err
	}
	r.over(5000, c.rate.Median, "deliveries/s", "whole runner flat out")
	r.under(300, c.cpu.Median, "µs", "… CPU of our process a delivery")
	for _, rate := range []int{50, 200, 1000} {
		if _, err := line(fmt.Sprintf("memory store, %d events/s, 10 endpoints", rate), true, 10, rate, 0); err != nil {
			return err
		}
	}
	if _, err := line("memory store, flat out, 10 endpoints", true, 10, 0, flood/5); err != nil {
		return err
	}
	c, err = line("local DynamoDB (an emulator), 50 events/s, 1 endpoint", false, 1, 50, 0)
	if err != nil {
		return err
	}
	r.under(500, c.p95.Median, "ms", "whole runner on the local DynamoDB at 50 events/s: p95")
	if _, err := line("local DynamoDB, 10 events/s, 10 endpoints", false, 10, 10, 0); err != nil {
		return err
	}
	if _, err := line("local DynamoDB, flat out, 1 endpoint", false, 1, 0, max(flood/30, 200)); err != nil {
		return err
	}
	return nil
}
