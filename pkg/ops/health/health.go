// Package health reports whether the deployment works: a public status for uptime
// services, and a detailed report for operators, alerts and the console. It promises
// a constant cost, whatever the traffic (at most three reads for the status, a
// dozen for the report), answers from a short-lived cache, and a public status that
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
	"github.com/tidings-dev/tidings/pkg/platform"
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
	// maxKinds is the maximum number of unknown kinds that a report lists.
	maxKinds = 20
	// MaxDays is the maximum number of days that GET /report/days answers.
	MaxDays = 30
)

// Summaries provides summaries of the statistics, as *stats.Reader does.
type Summaries interface {
	Summary(ctx context.Context) (stats.Summary, error)
	LastHour(ctx context.Context) (stats.Summary, error)
}

// History keeps the statistics of the last days, as *stats.History does.
type History interface {
	Record(ctx context.Context, openCircuits int) error
	Last(ctx context.Context, n int) ([]stats.Day, error)
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

// Captures says how the capture of changes of the platform's table is doing.
type Captures interface {
	// CountFailedChanges counts the changes that could not become an event and were not
	// captured again. more means that there are more than n. It makes one read.
	CountFailedChanges(ctx context.Context) (n int, more bool, err error)
	// ReadStuckCapture returns the mark that capture is stuck, which may be an old one.
	ReadStuckCapture(ctx context.Context) (platform.StuckCapture, error)
}

// Queue is a queue whose depth can be read.
type Queue interface {
	// Depth returns the approximate number of its messages.
	Depth(ctx context.Context) (work.Depth, error)
}

// Health reports on a deployment.
type Health struct {
	Statistics Summaries
	History    History
	Circuits   Circuits
	Endpoints  Endpoints
	Captures   Captures
	// Work is the work queue and Slow the slow queue; DeadWork, DeadStream and DeadCapture
	// are the dead-letter queues of these two, of the Events stream and of the platform
	// table's stream.
	Work, Slow, DeadWork, DeadStream, DeadCapture Queue
	// Targets are the targets of the report's metrics.
	Targets stats.Targets
	Version string
	Log     *slog.Logger
	Now     func() time.Time
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
	// Metrics are the deployment's five metrics of the last 24 hours, with their targets.
	Metrics     []stats.Metric `json:"metrics"`
	LastHour    Window         `json:"last_hour"`
	LastDay     Window         `json:"last_24_hours"`
	Pending     Pending        `json:"pending"`
	Queue       QueueReport    `json:"queue"`
	SlowQueue   SlowQueue      `json:"slow_queue"`
	Overdue     Overdue        `json:"overdue"`
	DeadLetters DeadLetters    `json:"dead_letters"`
	Capture     CapturePart    `json:"capture"`
	Circuits    CircuitsPart   `json:"circuits"`
	Disabled    []Disabled     `json:"disabled_endpoints"`
	LastSweep   Sweep          `json:"last_sweep"`
	LastEmitAt  *time.Time     `json:"last_emit_at"`
	LastBatchAt *time.Time     `json:"last_batch_at"`
}

// Window counts what happened in a period of time.
type Window struct {
	Accepted  int64 `json:"accepted"`  // events
	Queued    int64 `json:"queued"`    // deliveries created for them
	Attempts  int64 `json:"attempts"`  // attempts that ended
	Delivered int64 `json:"delivered"` // deliveries
	// FailedDeliveries counts deliveries that were given up: they became dead letters.
	// It equals Dead. FailedAttempts counts attempts, most of which are retried; it
	// equals Failed, which is kept for its readers.
	FailedDeliveries int64    `json:"failed_deliveries"`
	FailedAttempts   int64    `json:"failed_attempts"`
	Failed           int64    `json:"failed"`         // attempts that failed
	Retried          int64    `json:"retried"`        // failed attempts that will be retried
	Dead             int64    `json:"dead"`           // deliveries that became dead letters
	Skipped          int64    `json:"skipped"`        // deliveries that were skipped
	SuccessRate      *float64 `json:"success_rate"`   // delivered / (delivered + dead); null if there are none
	FailureRate      *float64 `json:"failure_rate"`   // failed / attempts; null if there are none
	Captured         int64    `json:"captured"`       // changes of the platform's table that became an event
	CaptureFailed    int64    `json:"capture_failed"` // changes that should have become an event and could not
	CaptureRate      *float64 `json:"capture_rate"`   // captured / (captured + capture_failed), rounded down; null if there are none
	Latency          *Latency `json:"latency"`        // from acceptance to delivery; null if nothing was delivered
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
	Queued  int  `json:"queued"`   // visible on the work queue or on the slow queue
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

// SlowQueue is the state of the queue of endpoints that answer slowly.
type SlowQueue struct {
	Visible  int `json:"visible"`
	Delayed  int `json:"delayed"`
	InFlight int `json:"in_flight"`
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
	WorkQueue   int   `json:"work_queue"`    // messages in the dead-letter queue of the work queue and of the slow queue
	StreamQueue int   `json:"stream_queue"`  // batches of the Events stream that could not be fanned out
	// CaptureQueue counts the changes of the platform's table that could not be captured
	// for 24 hours.
	CaptureQueue int `json:"capture_queue"`
}

// CapturePart says how capture is doing. Counts and rates are in the windows.
type CapturePart struct {
	// FailedChanges counts the kept changes that could not become an event and were not
	// captured again.
	FailedChanges int  `json:"failed_changes"`
	AtLeast       bool `json:"at_least"` // there are more
	// UnknownKinds are the kinds that Tidings does not know, of the changes of the last 24
	// hours: those with the most changes first, at most 20.
	UnknownKinds []stats.Kind  `json:"unknown_kinds"`
	Stuck        *StuckCapture `json:"stuck"` // null unless a change cannot be stored
}

// StuckCapture describes the change at which capture fails.
type StuckCapture struct {
	Since      time.Time `json:"since"`       // when it first failed
	AgeSeconds int64     `json:"age_seconds"` // since then
	// ChangeAgeSeconds is the age of the change, which is the oldest that is not captured.
	ChangeAgeSeconds int64  `json:"change_age_seconds"`
	SequenceNumber   string `json:"sequence_number"`
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

// Status checks whether the deployment is healthy, with at most three reads.
func (h *Health) Status(ctx context.Context) Status {
	var s stats.Summary
	var depth work.Depth
	var stuck platform.StuckCapture
	var group errgroup.Group
	group.Go(func() (err error) { stuck, err = h.Captures.ReadStuckCapture(ctx); return err })
	group.Go(func() (err error) { s, err = h.Statistics.LastHour(ctx); return err })
	group.Go(func() (err error) { depth, err = h.Work.Depth(ctx); return err })
	if err := group.Wait(); err != nil {
		h.Log.ErrorContext(ctx, "health.read_failed", "error", err.Error())
		return Status{Reasons: []string{unreadable}}
	}
	return h.status(s, depth, stuck)
}

// unreadable does not contain the error, because the status is public.
const unreadable = "the deployment's state cannot be read; see health.read_failed in the log of the health function"

func (h *Health) status(s stats.Summary, depth work.Depth, stuck platform.StuckCapture) Status {
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
	if is := stuckCapture(stuck, now); is != nil && is.AgeSeconds > seconds(SilentAfter) {
		status.Reasons = append(status.Reasons, fmt.Sprintf("capture has failed at one change of the platform's table for %s, and later changes wait for it",
			round(time.Duration(is.AgeSeconds)*time.Second)))
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

// stuckCapture returns the part of the report about a mark; nil if it is an old one.
func stuckCapture(mark platform.StuckCapture, now time.Time) *StuckCapture {
	if !mark.Continues(now) {
		return nil
	}
	return &StuckCapture{
		Since: mark.Since.UTC(), AgeSeconds: seconds(now.Sub(mark.Since)), ChangeAgeSeconds: seconds(now.Sub(mark.ChangeAt)), SequenceNumber: mark.SequenceNumber,
	}
}

// round formats a duration in minutes: 7m, 3h5m.
func round(d time.Duration) string {
	text := d.Round(time.Minute).String()
	return strings.TrimSuffix(text, "0s")
}

// Report makes the full report, with a dozen reads at most.
func (h *Health) Report(ctx context.Context) (Report, error) {
	var s stats.Summary
	var disabled map[stats.Endpoint]string
	var circuits []breaker.State
	var depth, slow, deadWork, deadStream, deadCapture work.Depth
	var capture CapturePart
	var stuck platform.StuckCapture
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
	group.Go(func() (err error) {
		capture.FailedChanges, capture.AtLeast, err = h.Captures.CountFailedChanges(groupCtx)
		return err
	})
	group.Go(func() (err error) { stuck, err = h.Captures.ReadStuckCapture(groupCtx); return err })
	for _, q := range []struct {
		of   Queue
		into *work.Depth
		name string
	}{{h.Work, &depth, "work queue"}, {h.Slow, &slow, "slow queue"}, {h.DeadWork, &deadWork, "work queue's dead-letter queue"}, {h.DeadStream, &deadStream, "stream's dead-letter queue"}, {h.DeadCapture, &deadCapture, "captured stream's dead-letter queue"}} {
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
	kinds := s.Kinds()
	capture.UnknownKinds, capture.Stuck = kinds[:min(len(kinds), maxKinds)], stuckCapture(stuck, now)
	r := Report{
		At: now.UTC().Truncate(time.Millisecond), Version: h.Version, Status: h.status(s, depth, stuck),
		LastHour: windowOf(s.Hour), LastDay: windowOf(s.Day),
		Pending: Pending{
			Total: depth.Visible + slow.Visible + s.Sweep.Retrying, Queued: depth.Visible + slow.Visible, Waiting: s.Sweep.Retrying, AtLeast: s.Sweep.More,
		},
		Queue: QueueReport{
			Visible: depth.Visible, Delayed: depth.Delayed, InFlight: depth.InFlight, AgeSeconds: seconds(stuckFor(s, depth, now)),
		},
		SlowQueue: SlowQueue(slow),
		Overdue:   Overdue{Count: s.Sweep.Overdue, OldestDueAt: timeOrNil(s.Sweep.OldestDue)},
		DeadLetters: DeadLetters{
			LastHour: s.Hour.Dead, LastDay: s.Day.Dead, WorkQueue: deadWork.Visible + deadWork.InFlight, StreamQueue: deadStream.Visible + deadStream.InFlight,
			CaptureQueue: deadCapture.Visible + deadCapture.InFlight,
		},
		Capture:    capture,
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
	r.Metrics = h.Targets.Now(s, r.Circuits.Open)
	for e, reason := range disabled {
		r.Disabled = append(r.Disabled, Disabled{Tenant: e.Tenant, EndpointID: e.ID, Reason: reason})
	}
	slices.SortFunc(r.Disabled, func(a, b Disabled) int {
		return strings.Compare(a.Tenant+"/"+a.EndpointID, b.Tenant+"/"+b.EndpointID)
	})
	return r, nil
}

// Evaluated makes a report and records its figures for the day. A day that cannot be
// recorded is logged and recorded by the next call.
func (h *Health) Evaluated(ctx context.Context) (Report, error) {
	r, err := h.Report(ctx)
	if err != nil {
		return r, err
	}
	if err := h.History.Record(ctx, r.Circuits.Open); err != nil {
		h.Log.WarnContext(ctx, "health.day_not_recorded", "error", err.Error())
	}
	return r, nil
}

// DaysReport is what GET /report/days answers: the metrics of the last days, the newest
// first. Fields are added, never renamed or removed.
type DaysReport struct {
	At   time.Time          `json:"at"`
	Days []stats.DayMetrics `json:"days"`
}

// DaysReport returns the metrics of the last n days, today included, with a few reads.
// n is at least 1 and at most MaxDays; the default, for 0, is MaxDays.
func (h *Health) DaysReport(ctx context.Context, n int) (DaysReport, error) {
	if n == 0 {
		n = MaxDays
	}
	if n < 1 || n > MaxDays {
		return DaysReport{}, fmt.Errorf("days is %d: ask for 1 to %d days", n, MaxDays)
	}
	list, err := h.History.Last(ctx, n)
	return DaysReport{At: h.Now().UTC().Truncate(time.Millisecond), Days: h.Targets.Days(list)}, err
}

func windowOf(c stats.Counts) Window {
	w := Window{
		Accepted: c.Accepted, Queued: c.Queued, Attempts: c.Attempts, Delivered: c.Delivered,
		FailedDeliveries: c.Dead, FailedAttempts: c.Failed,
		Failed: c.Failed, Retried: c.Retried, Dead: c.Dead, Skipped: c.Skipped, Captured: c.Captured, CaptureFailed: c.CaptureFailed,
	}
	w.SuccessRate, w.FailureRate = rate(c.SuccessRate()), rate(c.FailureRate())
	if all := c.Captured + c.CaptureFailed; all > 0 {
		captured := float64(c.Captured*1e4/all) / 1e4 // rounded down, so that 1 means all
		w.CaptureRate = &captured
	}
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
