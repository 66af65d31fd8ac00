// Package jobs defines stored jobs: work on many deliveries or events that takes longer
// than one invocation. A Job holds its parameters, a cursor and counts; workers advance it
// step by step. The package is the state machine of a job. It does no I/O and reads no
// clock; stores keep a job under its version, so that of two writes one fails.
//
// It promises that at most one worker advances a job at a time (a lease, and a fencing
// version), that a job which was cancelled or has ended takes no further step, and that a
// worker which dies loses at most the record of its last step. A step is then made again
// from the same cursor: each kind of job makes its steps so that this does no harm.
package jobs

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/event"
)

// Kind says what a job does.
type Kind string

const (
	// Recover puts events that an endpoint missed into its backlog.
	Recover Kind = "recover"
	// Backfill is Recover for a new endpoint: the events before it was added.
	Backfill Kind = "backfill"
	// Replay puts settled deliveries of an endpoint into its backlog again.
	Replay Kind = "replay"
	// Erase erases what is stored about a person.
	Erase Kind = "erase"
	// Stream fans out events, of all tenants, that fan-out never handled. It belongs to
	// event.DefaultTenant.
	Stream Kind = "stream"
)

// State is the state of a job.
type State string

const (
	Running   State = "running"
	Done      State = "done"
	Cancelled State = "cancelled"
	Failed    State = "failed" // Job.Reason says why
)

const (
	// LeaseTime is how long a worker holds a job from the beginning of each step. It is
	// longer than an invocation of dispatch can be.
	LeaseTime = 90 * time.Second
	// StuckAfter is how long after the time of its next step the sweep looks after a job
	// whose work item may be lost.
	StuckAfter = 30 * time.Second
	// MaxFailures is the number of steps that may fail one after the other, or whose worker
	// may die, before the job fails. With the backoff between them that takes two hours.
	MaxFailures = 30
	// maxBackoff is the longest wait after a step that failed.
	maxBackoff = 5 * time.Minute
	// Retention is how long a job is kept after its last step.
	Retention = 90 * 24 * time.Hour
	// MaxTypes is the maximum number of event types in Parameters: 20 that a person names,
	// each with the new and the old name of a renamed type.
	MaxTypes = 60
	// StreamRate is how many deliveries per second a Stream job queues at most, so that live
	// events are not stuck behind those of a day.
	StreamRate = 200
	// MaxRunning is the maximum number of jobs of a tenant that run at a time.
	MaxRunning = 100
	// maxReason is the maximum number of bytes of a reason.
	maxReason = 300
)

// ErrNotFound is returned for a job that does not exist.
var ErrNotFound = errors.New("job not found")

// ErrUnreadable is the error of a job whose stored form cannot be decoded.
var ErrUnreadable = errors.New("the stored form of the job cannot be decoded")

// ErrConflict is the error of a write of a job that has changed since it was read.
var ErrConflict = errors.New("the job was changed in the meantime")

// Parameters select what a job works on. Each kind uses those that it needs.
type Parameters struct {
	// From and To limit it to events accepted between them, both included.
	From time.Time `json:"from,omitzero"`
	To   time.Time `json:"to,omitzero"`
	// Types limits it to events of these types, at most MaxTypes.
	Types []string `json:"types,omitempty"`
	// States limits it to deliveries in these states.
	States []delivery.State `json:"states,omitempty"`
	// Status limits it to deliveries whose latest attempt got this response status, or one of
	// a range (delivery.ParseStatuses); "" means any, or none.
	Status string `json:"status,omitempty"`
	// Subject is the person of an erasure: the id by which events name them.
	Subject string `json:"subject,omitempty"`
	// WithoutTenant makes an erasure remove failed changes that have no tenant, too.
	WithoutTenant bool `json:"without_tenant,omitempty"`
}

// Key identifies a job.
type Key struct{ Tenant, ID string }

// Job is a stored job. Its times have a resolution of a millisecond.
type Job struct {
	ID         string     `json:"id"` // job_ and a ULID
	Tenant     string     `json:"-"`
	Kind       Kind       `json:"kind"`
	EndpointID string     `json:"endpoint_id,omitempty"` // "" for a job that concerns no single endpoint
	Parameters Parameters `json:"parameters,omitzero"`
	// DryRun makes the job count what it would do, and change nothing.
	DryRun bool   `json:"dry_run,omitempty"`
	By     string `json:"by,omitempty"` // who started it

	State     State     `json:"state"`
	Reason    string    `json:"reason,omitempty"` // why it failed, who cancelled it, or why its last step failed
	StartedAt time.Time `json:"started_at"`
	UpdatedAt time.Time `json:"updated_at"`

	// Cursor is where the next step begins, in a form that only the kind knows; "" at first.
	Cursor string `json:"cursor,omitempty"`
	// Progress is the share of the job's range that is done, from 0 to 1.
	Progress float64 `json:"progress,omitempty"`
	// Counts are the job's results so far. What a worker did that died before it recorded its
	// step is missing in them.
	Counts map[string]int `json:"counts,omitempty"`

	// Failures is the number of steps that were begun since the last one that succeeded.
	Failures   int       `json:"failures,omitempty"`
	NextAt     time.Time `json:"next_at,omitzero"`     // no step begins earlier
	Lease      string    `json:"lease,omitempty"`      // of the worker that advances the job; "" if none does
	LeaseUntil time.Time `json:"lease_until,omitzero"` // another worker may then take over
	// Version grows with each write. Stores set it.
	Version int `json:"-"`
}

// Counts of several kinds.
const (
	// Examined is the number of events or deliveries that were looked at.
	Examined = "examined"
	// Sent is the number of deliveries that were put into the backlog; in a dry run, that
	// would be.
	Sent = "sent"
	// Erased is the number of events that an erasure has erased, Stopped that of their
	// deliveries that were not settled, and Removed that of failed changes; in a dry run, that
	// it would.
	Erased  = "erased"
	Stopped = "stopped"
	Removed = "removed"
)

// Found is the name of the count of what was found in a state.
func Found(s delivery.State) string { return "found " + string(s) }

// Query selects a page of a tenant's jobs, newest first.
type Query struct {
	Tenant string
	Limit  int    // 0 means 100
	Cursor string // Next of the previous page
}

// Page is a page of jobs. Next is empty on the last page.
type Page struct {
	Jobs []Job
	Next string
}

const idPrefix = "job_"

// NewID returns a new job's ID.
func NewID(now time.Time) string { return idPrefix + event.NewID(now) }

// IsID reports whether a text has the form of a job's ID.
func IsID(text string) bool {
	id, ok := strings.CutPrefix(text, idPrefix)
	return ok && event.IsID(id)
}

// New returns a job that starts now. It fails if the range of times is empty or a limit is
// exceeded.
func New(j Job, now time.Time) (Job, error) {
	p := j.Parameters
	if err := delivery.CheckRange(p.From, p.To); err != nil {
		return j, err
	}
	if _, err := delivery.ParseStatuses(p.Status); err != nil {
		return j, fmt.Errorf("status: %w", err)
	}
	if !IsID(j.ID) {
		return j, fmt.Errorf("%.64q is not the id of a job", j.ID)
	}
	if len(p.Types) > MaxTypes {
		return j, fmt.Errorf("%d event types; at most %d are possible", len(p.Types), MaxTypes)
	}
	j.By = clip(j.By)
	j.State, j.StartedAt, j.UpdatedAt, j.NextAt = Running, now, now, now
	return j, nil
}

// MaxSpan is the longest time that a backfill may go back.
const MaxSpan = 366 * 24 * time.Hour

// ParseSpan parses how far a job goes back: days such as 14d, or a duration such as 36h, up
// to MaxSpan. "" is 0.
func ParseSpan(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	span, err := time.ParseDuration(text)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n int
		n, err = strconv.Atoi(days)
		span = time.Duration(min(max(n, 0), 1000)) * 24 * time.Hour
	}
	if err != nil || span <= 0 || span > MaxSpan {
		return 0, fmt.Errorf("%.40q is neither a number of days such as 14d nor a duration such as 36h, up to 366d", text)
	}
	return span, nil
}

// CheckAt is when the sweep looks after the job, unless a step is recorded before; zero if
// the job has ended.
func (j Job) CheckAt() time.Time {
	switch {
	case j.State != Running:
		return time.Time{}
	case j.Lease != "":
		return j.LeaseUntil
	}
	return j.NextAt.Add(StuckAfter)
}

// Take gives the job to a worker for LeaseTime; the worker has it if next.Lease is its own.
// changed is false if the job has ended, another worker holds it, or its next step is not
// due. A job whose steps failed too often, or whose workers died, fails instead.
func (j Job) Take(lease string, now time.Time) (next Job, changed bool) {
	if j.State != Running || now.Before(j.NextAt) || j.Lease != "" && now.Before(j.LeaseUntil) {
		return j, false
	}
	j.Lease, j.LeaseUntil = lease, now.Add(LeaseTime)
	j.Failures++ // until a step succeeds: its worker may die
	j.UpdatedAt = now
	if j.Failures > MaxFailures {
		if j.Reason == "" {
			j.Reason = "its worker died or ran out of time again and again"
		}
		return j.end(Failed, j.Reason, now), true
	}
	return j, true
}

// Step is the result of a step.
type Step struct {
	Cursor   string         // where the next step begins
	Progress float64        // of the job, with this step
	Counts   map[string]int // of this step
	Done     bool           // nothing is left
	// Wait is the least time until the next step, for example because the endpoint's backlog
	// is full. The worker then releases the job.
	Wait time.Duration
}

// Record stores a step of the worker that holds the lease, and renews the lease or, with
// release, gives it up. ok is false if the lease is another worker's. The step of a job
// that was cancelled meanwhile is recorded too, and is its last.
func (j Job) Record(lease string, s Step, release bool, now time.Time) (next Job, ok bool) {
	if !j.heldBy(lease) {
		return j, false
	}
	j.Cursor, j.Progress = s.Cursor, min(max(s.Progress, 0), 1)
	j.Counts = maps.Clone(j.Counts)
	for name, n := range s.Counts {
		if j.Counts == nil {
			j.Counts = map[string]int{}
		}
		j.Counts[name] += n
	}
	j.UpdatedAt = now
	if j.State != Running {
		return j.release(), true
	}
	j.Failures, j.Reason = 0, ""
	j.NextAt, j.LeaseUntil = now.Add(s.Wait), now.Add(LeaseTime)
	switch {
	case s.Done:
		j = j.end(Done, "", now)
		j.Progress = 1
	case release:
		j = j.release()
	}
	return j, true
}

// Fail records that a step of the worker that holds the lease failed, and gives the lease
// up. The step is repeated after a backoff, unless the failure is final or was the last of
// MaxFailures. ok is false if the lease is another worker's.
func (j Job) Fail(lease, reason string, final bool, now time.Time) (next Job, ok bool) {
	if !j.heldBy(lease) {
		return j, false
	}
	j.UpdatedAt = now
	switch {
	case j.State != Running:
		return j.release(), true
	case final || j.Failures >= MaxFailures:
		return j.end(Failed, reason, now), true
	}
	j.Reason = clip(reason)
	j.NextAt = now.Add(min(time.Second<<min(j.Failures, 10), maxBackoff))
	return j.release(), true
}

// Cancel ends a running job. Its worker notices when it records its step. ok is false if
// the job has ended already.
func (j Job) Cancel(by string, now time.Time) (next Job, ok bool) {
	if j.State != Running {
		return j, false
	}
	lease := j.Lease // the step that is under way may still be recorded
	j = j.end(Cancelled, "cancelled by "+by, now)
	j.Lease = lease
	return j, true
}

// Unreadable returns the job that replaces one that cannot be decoded, of which j has the
// key and the version: it has failed.
func (j Job) Unreadable(cause error, now time.Time) Job {
	return Job{ID: j.ID, Tenant: j.Tenant, Version: j.Version, StartedAt: now}.end(Failed, cause.Error(), now)
}

func (j Job) heldBy(lease string) bool { return lease != "" && j.Lease == lease }

func (j Job) release() Job {
	j.Lease, j.LeaseUntil = "", time.Time{}
	return j
}

func (j Job) end(s State, reason string, now time.Time) Job {
	j.State, j.Reason, j.UpdatedAt, j.NextAt = s, clip(reason), now, time.Time{}
	return j.release()
}

func clip(text string) string {
	if len(text) <= maxReason {
		return text
	}
	return strings.ToValidUTF8(text[:maxReason], "") + "…"
}

// CountNames returns the names of a job's counts: examined and sent first, then what was
// found.
func (j Job) CountNames() []string {
	names := slices.Sorted(maps.Keys(j.Counts))
	rank := func(name string) int { return max(slices.Index([]string{"", Sent, Examined}, name), 0) }
	slices.SortStableFunc(names, func(a, b string) int { return rank(b) - rank(a) })
	return names
}
