// Package health reports whether the deployment works: a public status for uptime
// services, and a detailed report for operators, alerts and the console. It promises
// a constant cost, whatever the traffic (at most two reads for the status, fewer than
// ten for the report), answers from a short-lived cache, and a public status that
// reveals nothing but whether the deployment is healthy.
//
// A deployment is healthy if Tidings itself works. Failing receivers do not make it
// unhealthy; retries, circuit breakers and alerts handle them.
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
	// SilentAfter is the time without a sweep, or without a message taken from a queue
	// that is not empty, after which the deployment is unhealthy.
	SilentAfter = 5 * time.Minute
	// CacheTime is how long an answer is cached.
	CacheTime = 5 * time.Second
	// maxCircuits is the maximum number of circuit breakers that a report lists. It
	// counts all of them.
	maxCircuits = 100
)

// Summaries provides summaries of the statistics, as *stats.Reader does.
type Summaries interface {
	Summary(ctx context.Context) (stats.Summary, error)
	LastHour(ctx context.Context) (stats.Summary, error)
}

// Circuits lists circuit breakers.
type Circuits interface {
	// ListCircuits returns the circuit breakers that need attention before the time
	// by; all that are not closed if by is zero.
	ListCircuits(ctx context.Context, by time.Time) ([]breaker.State, error)
}

// Endpoints looks up disabled endpoints.
type Endpoints interface {
	// DisabledEndpoints returns the endpoints of the list that are disabled, with the reason.
	DisabledEndpoints(ctx context.Context, list []stats.Endpoint) (map[stats.Endpoint]string, error)
}

// Queue is a queue whose depth can be read.
type Queue interface {
	// Depth returns the approximate number of its messages.
	Depth(ctx context.Context) (work.Depth, error)
}

// Health reports on a deployment.
type Health struct {
	Statistics Summaries
	Circuits   Circuits
	Endpoints  Endpoints
	// Work is the work queue; DeadWork and DeadStream are the dead-letter queues of
	// the work queue and of the Events stream.
	Work, DeadWork, DeadStream Queue
	Version                    string
	Log                        *slog.Logger
	Now                        func() time.Time
}

// Status is the public answer for uptime services.
type Status struct {
	Healthy bool `json:"healthy"`
	// Reasons are why the deployment is unhealthy, one sentence each.
	Reasons []string `json:"reasons,omitempty"`
}

// Report is what GET /report answers. Fields are added, never renamed or removed;
// docs/monitoring.md describes them.
type Report struct {
	At      time.Time `json:"at"`
	Version string    `json:"version"`
	Status
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

// Window counts what happened in a period of time.
type Window struct {
	Accepted    int64    `json:"accepted"`     // events
	Queued      int64    `json:"queued"`       // deliveries created for them
	Attempts    int64    `json:"attempts"`     // attempts that ended
	Delivered   int64    `json:"delivered"`    // deliveries
	Failed      int64    `json:"failed"`       // attempts
	Retried     int64    `json:"retried"`      // failed attempts that will be retried
	Dead        int64    `json:"dead"`         // deliveries that became dead letters
	Skipped     int64    `json:"skipped"`      // deliveries that were skipped
	SuccessRate *float64 `json:"success_rate"` // delivered / (delivered + dead); null if there are none
	FailureRate *float64 `json:"failure_rate"` // failed / attempts; null if there are none
	Latency     *Latency `json:"latency"`      // from acceptance to delivery; null if nothing was delivered
}

// Latency holds percentiles in seconds.
type Latency struct {
	P50 float64 `json:"p50_seconds"`
	P95 float64 `json:"p95_seconds"`
	P99 float64 `json:"p99_seconds"`
}

// Pending counts the deliveries that are not settled. Waiting is as of the last sweep.
type Pending struct {
	Total   int  `json:"total"`    // queued + waiting
	Queued  int  `json:"queued"`   // visible on the work queue
	Waiting int  `json:"waiting"`  // scheduled for a later attempt
	AtLeast bool `json:"at_least"` // the sweep stopped counting: there are more
}

// QueueReport is the state of the work queue.
type QueueReport struct {
	Visible  int `json:"visible"`
	Delayed  int `json:"delayed"`
	InFlight int `json:"in_flight"`
	// AgeSeconds is the minimum time for which messages have been visible while no
	// worker took any, in whole minutes; 0 while workers take messages.
	AgeSeconds int64 `json:"age_seconds"`
}

// Overdue counts the deliveries that the last sweep found to be late.
type Overdue struct {
	Count       int        `json:"count"`
	OldestDueAt *time.Time `json:"oldest_due_at"`
	AgeSeconds  int64      `json:"age_seconds"` // how late the oldest was, at the last sweep
}

// DeadLetters counts dead deliveries and the messages in the dead-letter queues.
type DeadLetters struct {
	LastHour    int64 `json:"last_hour"`     // dead deliveries, as in the windows
	LastDay     int64 `json:"last_24_hours"` // dead deliveries
	WorkQueue   int   `json:"work_queue"`    // messages in the work queue's dead-letter queue
	StreamQueue int   `json:"stream_queue"`  // batches of the Events stream that could not be fanned out
}

// CircuitsPart lists the open circuit breakers.
type CircuitsPart struct {
	Open int       `json:"open"`
	List []Circuit `json:"list"` // at most 100 of them
}

// Circuit is an open circuit breaker.
type Circuit struct {
	Tenant     string     `json:"tenant"`
	EndpointID string     `json:"endpoint_id"`
	OpenSince  time.Time  `json:"open_since"`
	ProbeAt    *time.Time `json:"probe_at"`
	Failures   int        `json:"failures"` // consecutive
	Cause      string     `json:"cause"`    // the last error, in one sentence
}

// Disabled is an endpoint that was disabled within the last 24 hours and still is.
type Disabled struct {
	Tenant     string `json:"tenant"`
	EndpointID string `json:"endpoint_id"`
	Reason     string `json:"reason"`
}

// Sweep describes the last sweep.
type Sweep struct {
	At         *time.Time `json:"at"`
	AgeSeconds int64      `json:"age_seconds"` // 0 if there was none
	Done       bool       `json:"done"`        // it processed everything that was due
	Due        int        `json:"due"`
	Queued     int        `json:"queued"`
}

// Status checks whether the deployment is healthy, with at most two reads.
func (h *Health) Status(ctx context.Context) Status {
	var s stats.Summary
	var depth work.Depth
	var group errgroup.Group
	group.Go(func() (err error) { s, err = h.Statistics.LastHour(ctx); return err })
	group.Go(func() (err error) { depth, err = h.Work.Depth(ctx); return err })
	if err := group.Wait(); err != nil {
		h.Log.ErrorContext(ctx, "health.read_failed", "error", err.Error())
		return Status{Reasons: []string{unreadable}}
	}
	return h.status(s, depth)
}

// unreadable does not contain the error, because the status is public.
const unreadable = "the deployment's state cannot be read; see health.read_failed in the log of the health function"

func (h *Health) status(s stats.Summary, depth work.Depth) Status {
	now := h.Now()
	var status Status
	switch silent := now.Sub(s.Sweep.At); {
	case s.Sweep.At.IsZero():
		status.Reasons = append(status.Reasons, "no sweep has run yet")
	case silent > SilentAfter:
		status.Reasons = append(status.Reasons, fmt.Sprintf("no sweep has run for %s (expected every minute)", round(silent)))
	}
	if age := stuckFor(s, depth, now); age > SilentAfter {
		status.Reasons = append(status.Reasons, fmt.Sprintf("no message was taken from the work queue for %s, and it is not empty", round(age)))
	}
	status.Healthy = len(status.Reasons) == 0
	return status
}

// stuckFor returns how long messages have been visible while no worker took any.
func stuckFor(s stats.Summary, depth work.Depth, now time.Time) time.Duration {
	if depth.Visible == 0 || s.IdleSince.IsZero() {
		return 0
	}
	return max(now.Sub(s.IdleSince), 0)
}

// round formats a duration in minutes: 7m, 3h5m.
func round(d time.Duration) string {
	text := d.Round(time.Minute).String()
	return strings.TrimSuffix(text, "0s")
}

// Report makes the full report, with fewer than ten reads.
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
	}{{h.Work, &depth, "work queue"}, {h.DeadWork, &deadWork, "work queue's dead-letter queue"}, {h.DeadStream, &deadStream, "stream's dead-letter queue"}} {
		group.Go(func() (err error) {
			if *q.into, err = q.of.Depth(groupCtx); err != nil {
				return fmt.Errorf("read the depth of the %s: %w", q.name, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return Report{}, err
	}
	now := h.Now()
	r := Report{
		At: now.UTC().Truncate(time.Millisecond), Version: h.Version, Status: h.status(s, depth),
		LastHour: windowOf(s.Hour), LastDay: windowOf(s.Day),
		Pending: Pending{
			Total: depth.Visible + s.Sweep.Retrying, Queued: depth.Visible, Waiting: s.Sweep.Retrying, AtLeast: s.Sweep.More,
		},
		Queue: QueueReport{
			Visible: depth.Visible, Delayed: depth.Delayed, InFlight: depth.InFlight, AgeSeconds: seconds(stuckFor(s, depth, now)),
		},
		Overdue: Overdue{Count: s.Sweep.Overdue, OldestDueAt: timeOrNil(s.Sweep.OldestDue)},
		DeadLetters: DeadLetters{
			LastHour: s.Hour.Dead, LastDay: s.Day.Dead, WorkQueue: deadWork.Visible + deadWork.InFlight, StreamQueue: deadStream.Visible + deadStream.InFlight,
		},
		Circuits:   CircuitsPart{List: []Circuit{}},
		Disabled:   []Disabled{},
		LastSweep:  Sweep{At: timeOrNil(s.Sweep.At), Done: s.Sweep.Done, Due: s.Sweep.Due, Queued: s.Sweep.Queued},
		LastEmitAt: timeOrNil(s.LastEvent), LastBatchAt: timeOrNil(s.LastBatch),
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
				Tenant: c.Tenant, EndpointID: c.EndpointID, OpenSince: c.Since.UTC(), ProbeAt: timeOrNil(c.Until), Failures: c.Failures, Cause: c.Cause,
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
		w.Latency = &Latency{P50: roundedSeconds(p50), P95: roundedSeconds(p95), P99: roundedSeconds(p99)}
	}
	return w
}

// rate rounds to four digits; nil if there is none.
func rate(r float64, ok bool) *float64 {
	if !ok {
		return nil
	}
	r = math.Round(r*1e4) / 1e4
	return &r
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// roundedSeconds returns seconds, rounded to the millisecond.
func roundedSeconds(d time.Duration) float64 { return d.Round(time.Millisecond).Seconds() }
