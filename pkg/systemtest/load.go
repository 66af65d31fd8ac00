package systemtest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/pkg/ops/cost"
	"github.com/tidings-dev/tidings/pkg/systemtest/testrun"
)

// Limits of a load test.
const (
	MaxRate = 500 // events per second: what one process sends, and one partition of the test receiver's table stores
	MaxTime = time.Hour
)

const (
	// progressTime is the time between two looks at what has arrived.
	progressTime = time.Second
	// graceTime is how long an interrupted test waits for what is on its way.
	graceTime = 5 * time.Second
	// emitTime limits one call of emit.
	emitTime = 30 * time.Second
)

// LoadOptions describe a load test.
type LoadOptions struct {
	Rate int           // events per second, 1 to MaxRate
	Time time.Duration // how long to emit, up to MaxTime
	// WaitTime is the maximum time after the last event until all have arrived.
	WaitTime time.Duration
	// Progress is called every second with the figures so far; nil ignores them.
	Progress func(LoadReport)
}

// LoadReport is the result of a load test.
type LoadReport struct {
	Run     string  `json:"run"`
	Rate    int     `json:"rate"`
	Seconds float64 `json:"seconds"` // how long events were emitted
	Emitted int     `json:"emitted"` // calls of emit that have ended
	// Refused are the calls that failed, and RefusedBecause is the last one's error.
	Refused        int    `json:"refused"`
	RefusedBecause string `json:"refused_because,omitempty"`
	testrun.Figures
	// Dollars is what the accepted events cost on AWS, at the list prices and with the
	// usage in package cost.
	Dollars     float64 `json:"dollars"`
	Interrupted bool    `json:"interrupted"` // the test ended before its time
}

// OK reports whether the test was completed and every event was accepted and received.
// A duplicate is no failure: deliveries are at least once.
func (r LoadReport) OK() bool {
	return !r.Interrupted && r.Refused == 0 && r.Missing == 0 && r.Accepted > 0
}

// Load emits events at a rate and waits until they have arrived at the test receiver. If
// ctx ends, it stops emitting, and reports what was emitted so far. It returns an error
// with an empty report if it could not measure, and with a report if it could not remove
// what it made.
func (t Target) Load(ctx context.Context, o LoadOptions) (report LoadReport, err error) {
	if o.Rate < 1 || o.Rate > MaxRate || o.Time < time.Second || o.Time > MaxTime || o.WaitTime < 0 || o.WaitTime > MaxTime {
		return report, errors.New("the rate, the time or the wait time of the load test is out of range")
	}
	r := t.newRun()
	l := load{run: r, options: o, arrived: map[string]testrun.Received{}}
	defer func() { err = errors.Join(err, r.cleanUp(ctx)) }()
	if err := r.open(ctx, o.Time+o.WaitTime+time.Hour); err != nil {
		return report, err
	}
	if err := r.subscribe(ctx); err != nil {
		return report, err
	}
	return l.measure(ctx)
}

// load is a load test that is under way.
type load struct {
	*run
	options LoadOptions

	mu       sync.Mutex
	accepted []string
	refused  int
	because  string
	took     time.Duration // how long events were emitted; 0 while they are

	arrived map[string]testrun.Received // by event
}

func (l *load) measure(ctx context.Context) (LoadReport, error) {
	// A call that has begun ends, also after an interruption: the event may be accepted.
	calls := context.WithoutCancel(ctx)
	began := t0(l.Now)
	emitted := make(chan struct{})
	go func() {
		defer close(emitted)
		AtRate(ctx, l.options.Rate, int(l.options.Time.Seconds()*float64(l.options.Rate)), func(n int) { l.emitOne(calls, n) })
		l.mu.Lock()
		l.took = began()
		l.mu.Unlock()
	}()
	var end <-chan time.Time // when to wait no longer
	sending, interrupt := emitted, ctx.Done()
	for tick := time.NewTicker(progressTime); ; {
		select {
		case <-tick.C:
		case <-sending:
			sending = nil
			if end == nil {
				end = time.After(l.options.WaitTime)
			}
		case <-interrupt:
			interrupt, end = nil, time.After(graceTime)
		case <-end:
			tick.Stop()
			<-emitted
			return l.last(calls, ctx.Err() != nil)
		}
		if err := l.look(calls); err != nil && ctx.Err() == nil {
			tick.Stop()
			return LoadReport{}, err
		}
		report := l.report(began())
		if l.options.Progress != nil {
			l.options.Progress(report)
		}
		if sending == nil && report.Missing == 0 {
			tick.Stop()
			return l.last(calls, ctx.Err() != nil)
		}
	}
}

// t0 returns a function that returns the time since now.
func t0(now func() time.Time) func() time.Duration {
	began := now()
	return func() time.Duration { return now().Sub(began) }
}

func (l *load) emitOne(ctx context.Context, n int) {
	ctx, cancel := context.WithTimeout(ctx, emitTime)
	defer cancel()
	id, err := l.emit(ctx, n)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.refused++
		l.because = err.Error()
		return
	}
	l.accepted = append(l.accepted, id)
}

// look reads what has arrived since the first event that is missing.
func (l *load) look(ctx context.Context) error {
	l.mu.Lock()
	first := "" // event ids are ordered by time
	for _, id := range l.accepted {
		if _, ok := l.arrived[id]; !ok && (first == "" || id < first) {
			first = id
		}
	}
	none := first == ""
	l.mu.Unlock()
	if none {
		return nil
	}
	return l.read(ctx, first)
}

// read reads what has arrived, from an event on.
func (l *load) read(ctx context.Context, from string) error {
	all, err := l.arrivals(ctx, from)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, r := range testrun.Collect(all) {
		l.arrived[id] = r
	}
	return nil
}

// last reads everything once more, to see all duplicates, and reports.
func (l *load) last(ctx context.Context, interrupted bool) (LoadReport, error) {
	if err := l.read(ctx, ""); err != nil {
		return LoadReport{}, err
	}
	report := l.report(l.took)
	report.Interrupted = interrupted
	return report, nil
}

func (l *load) report(took time.Duration) LoadReport {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.took > 0 {
		took = l.took
	}
	u := cost.Measured
	u.RetriedShare = 0 // the test receiver answers every webhook with success
	return LoadReport{
		Run: l.id, Rate: l.options.Rate, Seconds: took.Seconds(), Emitted: len(l.accepted) + l.refused,
		Refused: l.refused, RefusedBecause: l.because, Figures: testrun.Evaluate(l.accepted, l.arrived),
		Dollars: cost.Total(cost.ForLoad(float64(len(l.accepted)), float64(l.options.Rate), u, cost.List)),
	}
}
