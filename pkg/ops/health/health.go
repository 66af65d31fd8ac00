// Package health says how the deployment is: in a word for uptime services, and in
// a report for people, alerts and the console. It promises to cost the same
// whatever the traffic (at most two reads for the word, fewer than ten for the
// report), to answer from a few seconds' memory where it is asked often, and to
// tell strangers nothing but whether it is well.
//
// "Well" is about Tidings, not about those it delivers to: receivers that fail are
// what retries, circuits and alerts are for, and no reason to wake whoever watches
// the uptime.
package health

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
)

const (
	// SilentAfter is how long the dispatcher may leave no sign before the
	// deployment is not well: five sweeps.
	SilentAfter = 5 * time.Minute
	// CacheTime is how long an answer is given again.
	CacheTime = 5 * time.Second
	// maxCircuits is how many circuits a report lists; it counts all.
	maxCircuits = 100
)

// Summaries sums up what happened; *stats.Reader does.
type Summaries interface {
	Summary(ctx context.Context) (stats.Summary, error)
	LastHour(ctx context.Context) (stats.Summary, error)
}

// Circuits is where circuits are listed.
type Circuits interface {
	// ListCircuits returns the circuits that somebody has to look after by then,
	// all of them where by is zero.
	ListCircuits(ctx context.Context, by time.Time) ([]breaker.State, error)
}

// Endpoints is where it shows which endpoints are out of service.
type Endpoints interface {
	// DisabledEndpoints returns those of the list that are, with the reason.
	DisabledEndpoints(ctx context.Context, list []stats.Endpoint) (map[stats.Endpoint]string, error)
}

// Queue is a queue that can be measured.
type Queue interface {
	// Depth counts its messages, approximately.
	Depth(ctx context.Context) (work.Depth, error)
}

// Health reports on a deployment.
type Health struct {
	Statistics Summaries
	Circuits   Circuits
	Endpoints  Endpoints
	// Work is the work queue; DeadWork and DeadStream hold what was given up.
	Work, DeadWork, DeadStream Queue
	Version                    string
	Log                        *slog.Logger
	Now                        func() time.Time
}

// Word is the answer for uptime services.
type Word struct {
	Healthy bool `json:"healthy"`
	// Reasons say why not, one sentence each.
	Reasons []string `json:"reasons,omitempty"`
}

// Report is what GET /report answers. Fields are added, never renamed or removed;
// docs/monitoring.md describes them.
type Report struct {
	At      time.Time `json:"at"`
	Version string    `json:"version"`
	Word
	LastHour    Window       `json:"last_hour"`
	LastDay     Window       `json:"last_24_hours"`
	Pending     Pending      `json:"pending"`
	Queue       QueueReport  `json:"queue"`
	Overdue     Overdue      `json:"overdue"`
	DeadLetters DeadLetters  `json:"dead_letters"`
	Circuits    CircuitsPart `json:"circuits"`
	Disabled    []Disabled   `json:"disabled_endpoints"`
	LastSweep   Sweep        `json:"last_sweep"`
	LastEmitAt  *time.Time   `json:"last_emit_at"`
	LastBatchAt *time.Time   `json:"last_batch_at"`
}

// Window is what happened in a stretch of time.
type Window struct {
	Accepted    int64    `json:"accepted"`     // events
	Queued      int64    `json:"queued"`       // deliveries made of them
	Attempts    int64    `json:"attempts"`     // that ended
	Delivered   int64    `json:"delivered"`    // deliveries
	Failed      int64    `json:"failed"`       // attempts
	Retried     int64    `json:"retried"`      // failed attempts that are tried again
	Dead        int64    `json:"dead"`         // deliveries that became dead letters
	Skipped     int64    `json:"skipped"`      // deliveries settled without an attempt
	SuccessRate *float64 `json:"success_rate"` // delivered of delivered and dead; null for none
	FailureRate *float64 `json:"failure_rate"` // failed of attempts; null for none
	Latency     *Latency `json:"latency"`      // from acceptance to delivery; null for none
}

// Latency is in seconds.
type Latency struct {
	P50 float64 `json:"p50_seconds"`
	P95 float64 `json:"p95_seconds"`
	P99 float64 `json:"p99_seconds"`
}

// Pending is what is not settled yet. Waiting is as of the last sweep.
type Pending struct {
	Total   int  `json:"total"`   // both
	Queued  int  `json:"queued"`  // on the queue, to be taken now
	Waiting int  `json:"waiting"` // for their next attempt
	AtLeast bool `json:"at_least"`
}

// QueueReport is the work queue.
type QueueReport struct {
	Visible  int `json:"visible"`
	Delayed  int `json:"delayed"`
	InFlight int `json:"in_flight"`
	// AgeSeconds is how long, at least, something has waited while nobody took
	// anything; 0 where the queue is worked on. In whole minutes.
	AgeSeconds int64 `json:"age_seconds"`
}

// Overdue are the deliveries that the last sweep found to be late.
type Overdue struct {
	Count       int        `json:"count"`
	OldestDueAt *time.Time `json:"oldest_due_at"`
	AgeSeconds  int64      `json:"age_seconds"` // of the oldest, at the last sweep
}

// DeadLetters are what was given up.
type DeadLetters struct {
	LastHour    int64 `json:"last_hour"`     // deliveries, as in the windows
	LastDay     int64 `json:"last_24_hours"` // likewise
	WorkQueue   int   `json:"work_queue"`    // messages in the work queue's dead-letter queue
	StreamQueue int   `json:"stream_queue"`  // batches of the Events stream that could not be fanned out
}

// CircuitsPart lists the open circuits.
type CircuitsPart struct {
	Open int       `json:"open"`
	List []Circuit `json:"list"` // at most 100
}

// Circuit is an open circuit.
type Circuit struct {
	Tenant     string     `json:"tenant"`
	EndpointID string     `json:"endpoint_id"`
	OpenSince  time.Time  `json:"open_since"`
	ProbeAt    *time.Time `json:"probe_at"`
	Failures   int        `json:"failures"` // in a row
	Cause      string     `json:"cause"`    // the latest failure, in one sentence
}

// Disabled is an endpoint that was taken out of service within the last day, and
// still is.
type Disabled struct {
	Tenant     string `json:"tenant"`
	EndpointID string `json:"endpoint_id"`
	Reason     string `json:"reason"`
}

// Sweep is the last one.
type Sweep struct {
	At         *time.Time `json:"at"`
	AgeSeconds int64      `json:"age_seconds"` // 0 where there was none
	Done       bool       `json:"done"`        // it went through everything
	Due        int        `json:"due"`
	Queued     int        `json:"queued"`
}

// Word looks whether the deployment is well, by at most two reads.
func (h *Health) Word(ctx context.Context) Word {
	var s stats.Summary
	var depth work.Depth
	var group errgroup.Group
	group.Go(func() (err error) { s, err = h.Statistics.LastHour(ctx); return err })
	group.Go(func() (err error) { depth, err = h.Work.Depth(ctx); return err })
	if err := group.Wait(); err != nil {
		h.Log.ErrorContext(ctx, "health.unreadable", "error", err.Error())
		return Word{Reasons: []string{"the deployment's state cannot be read; its log says why"}}
	}
	return h.word(s, depth)
}

func (h *Health) word(s stats.Summary, depth work.Depth) Word {
	now := h.Now()
	var w Word
	switch silent := now.Sub(s.Sweep.At); {
	case s.Sweep.At.IsZero():
		w.Reasons = append(w.Reasons, "the dispatcher has not swept yet")
	case silent > SilentAfter:
		w.Reasons = append(w.Reasons, "the dispatcher has not swept for "+round(silent))
	}
	if age := stuck(s, depth, now); age > SilentAfter {
		w.Reasons = append(w.Reasons, "nobody has taken anything from the work queue for "+round(age))
	}
	w.Healthy = len(w.Reasons) == 0
	return w
}

// stuck is how long something has been on the queue while nobody took anything.
func stuck(s stats.Summary, depth work.Depth, now time.Time) time.Duration {
	if depth.Visible == 0 || s.IdleSince.IsZero() {
		return 0
	}
	return max(now.Sub(s.IdleSince), 0)
}

// round says a duration for people: 7m, 3h5m.
func round(d time.Duration) string {
	text := d.Round(time.Minute).String()
	return strings.TrimSuffix(text, "0s")
}

// Report looks at everything, by fewer than ten reads.
func (h *Health) Report(ctx context.Context) (Report, error) {
	var s stats.Summary
	var disabled map[stats.Endpoint]string
	var circuits []breaker.State
	var depth, deadWork, deadStream work.Depth
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		if s, err = h.Statistics.Summary(groupCtx); err != nil || len(s.Disabled) == 0 {
			return err
		}
		disabled, err = h.Endpoints.DisabledEndpoints(groupCtx, s.Disabled)
		return err
	})
	group.Go(func() (err error) {
		circuits, err = h.Circuits.ListCircuits(groupCtx, time.Time{})
		return err
	})
	for _, q := range []struct {
		of   Queue
		into *work.Depth
		name string
	}{{h.Work, &depth, "work queue"}, {h.DeadWork, &deadWork, "work queue's dead letters"}, {h.DeadStream, &deadStream, "stream's dead letters"}} {
		group.Go(func() (err error) {
			if *q.into, err = q.of.Depth(groupCtx); err != nil {
				return fmt.Errorf("depth of the %s: %w", q.name, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return Report{}, err
	}
	now := h.Now()
	r := Report{
		At: now.UTC().Truncate(time.Millisecond), Version: h.Version, Word: h.word(s, depth),
		LastHour: windowOf(s.Hour), LastDay: windowOf(s.Day),
		Pending: Pending{
			Total: depth.Visible + s.Sweep.Retrying, Queued: depth.Visible, Waiting: s.Sweep.Retrying, AtLeast: s.Sweep.More,
		},
		Queue: QueueReport{
			Visible: depth.Visible, Delayed: depth.Delayed, InFlight: depth.InFlight, AgeSeconds: seconds(stuck(s, depth, now)),
		},
		Overdue: Overdue{Count: s.Sweep.Overdue, OldestDueAt: moment(s.Sweep.OldestDue)},
		DeadLetters: DeadLetters{
			LastHour: s.Hour.Dead, LastDay: s.Day.Dead, WorkQueue: deadWork.Visible + deadWork.InFlight, StreamQueue: deadStream.Visible + deadStream.InFlight,
		},
		Circuits:   CircuitsPart{List: []Circuit{}},
		Disabled:   []Disabled{},
		LastSweep:  Sweep{At: moment(s.Sweep.At), Done: s.Sweep.Done, Due: s.Sweep.Due, Queued: s.Sweep.Queued},
		LastEmitAt: moment(s.LastEvent), LastBatchAt: moment(s.LastBatch),
	}
	if !s.Sweep.At.IsZero() {
		r.LastSweep.AgeSeconds = seconds(now.Sub(s.Sweep.At))
	}
	if !s.Sweep.OldestDue.IsZero() {
		r.Overdue.AgeSeconds = seconds(s.Sweep.At.Sub(s.Sweep.OldestDue))
	}
	for _, c := range circuits {
		if c.Phase != breaker.Open {
			continue
		}
		r.Circuits.Open++
		if len(r.Circuits.List) < maxCircuits {
			r.Circuits.List = append(r.Circuits.List, Circuit{
				Tenant: c.Tenant, EndpointID: c.EndpointID, OpenSince: c.Since.UTC(), ProbeAt: moment(c.Until), Failures: c.Failures, Cause: c.Cause,
			})
		}
	}
	for e, reason := range disabled {
		r.Disabled = append(r.Disabled, Disabled{Tenant: e.Tenant, EndpointID: e.ID, Reason: reason})
	}
	slices.SortFunc(r.Disabled, func(a, b Disabled) int {
		return strings.Compare(a.Tenant+"/"+a.EndpointID, b.Tenant+"/"+b.EndpointID)
	})
	return r, nil
}

func windowOf(c stats.Counts) Window {
	w := Window{
		Accepted: c.Accepted, Queued: c.Queued, Attempts: c.Attempts, Delivered: c.Delivered,
		Failed: c.Failed, Retried: c.Retried, Dead: c.Dead, Skipped: c.Skipped,
	}
	w.SuccessRate, w.FailureRate = rate(c.SuccessRate()), rate(c.FailureRate())
	if p50, ok := c.Latency.Quantile(0.5); ok {
		p95, _ := c.Latency.Quantile(0.95)
		p99, _ := c.Latency.Quantile(0.99)
		w.Latency = &Latency{P50: fine(p50), P95: fine(p95), P99: fine(p99)}
	}
	return w
}

// rate is to four digits; null where there is none.
func rate(r float64, ok bool) *float64 {
	if !ok {
		return nil
	}
	r = math.Round(r*1e4) / 1e4
	return &r
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// fine is in seconds, to the millisecond.
func fine(d time.Duration) float64 { return d.Round(time.Millisecond).Seconds() }
