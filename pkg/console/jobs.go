package console

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
)

// Job is a job as the console and the CLI show it.
type Job struct {
	ID         string           `json:"id"`
	Kind       jobs.Kind        `json:"kind"`
	EndpointID string           `json:"endpoint_id,omitempty"`
	From       time.Time        `json:"from,omitzero" doc:"The job works on events accepted at or after this time"`
	To         time.Time        `json:"to,omitzero" doc:"The job works on events accepted at or before this time"`
	Types      []string         `json:"types,omitempty"`
	States     []delivery.State `json:"states,omitempty"`
	Status     string           `json:"status,omitempty"`
	Subject    string           `json:"subject,omitempty" doc:"Erasure: the person"`
	DryRun     bool             `json:"dry_run,omitempty" doc:"The job counts, and sends nothing"`
	By         string           `json:"by,omitempty" doc:"Who started it"`
	State      jobs.State       `json:"state" enum:"running,done,cancelled,failed"`
	Reason     string           `json:"reason,omitempty" doc:"Why it failed, who cancelled it, or why its last step is repeated"`
	StartedAt  time.Time        `json:"started_at"`
	UpdatedAt  time.Time        `json:"updated_at"`
	Progress   float64          `json:"progress" doc:"From 0 to 1"`
	Examined   int              `json:"examined" doc:"Number of events that were looked at"`
	Sent       int              `json:"sent" doc:"Number of deliveries that were put into the endpoint's backlog; in a dry run, that would be"`
	Found      map[string]int   `json:"found,omitempty" doc:"Number of events or deliveries that were found, by state"`
	Erased     int              `json:"erased,omitempty" doc:"Erasure: number of events; in a dry run, that would be erased, and so are the next two"`
	Stopped    int              `json:"stopped,omitempty" doc:"Erasure: number of their deliveries that were pending"`
	Removed    int              `json:"removed,omitempty" doc:"Erasure: number of failed changes"`
	Seconds    float64          `json:"seconds" doc:"How long it takes about to send them"`
	Dollars    float64          `json:"dollars" doc:"What it costs about to send them, in US dollars"`
}

// ViewJob converts a job for display; the CLI uses it too. limit is the endpoint's.
func ViewJob(j jobs.Job, limit ratelimit.Limit) Job {
	p := j.Parameters
	v := Job{
		ID: j.ID, Kind: j.Kind, EndpointID: j.EndpointID, From: p.From, To: p.To, Types: p.Types, States: p.States, Status: p.Status, DryRun: j.DryRun, By: j.By,
		State: j.State, Reason: j.Reason, StartedAt: j.StartedAt, UpdatedAt: j.UpdatedAt, Progress: j.Progress, Examined: j.Counts[jobs.Examined], Sent: j.Counts[jobs.Sent],
		Subject: p.Subject, Erased: j.Counts[jobs.Erased], Stopped: j.Counts[jobs.Stopped], Removed: j.Counts[jobs.Removed],
	}
	for name, n := range j.Counts {
		if state, ok := strings.CutPrefix(name, jobs.Found("")); ok {
			if v.Found == nil {
				v.Found = map[string]int{}
			}
			v.Found[state] = n
		}
	}
	takes, dollars := jobs.Estimate(v.Sent, limit)
	if j.Kind == jobs.Stream {
		takes = time.Duration(v.Sent) * time.Second / jobs.StreamRate
	}
	v.Seconds, v.Dollars = takes.Seconds(), dollars
	return v
}

// Running reports whether the job has not ended.
func (j Job) Running() bool { return j.State == jobs.Running }

// Percent is the progress in percent.
func (j Job) Percent() int { return int(j.Progress * 100) }

// Takes is how long it takes about to send them.
func (j Job) Takes() time.Duration {
	return time.Duration(j.Seconds * float64(time.Second)).Round(time.Second)
}

// Erasure reports whether the job erases what is stored about a person.
func (j Job) Erasure() bool { return j.Kind == jobs.Erase }

// NewJob selects what a job sends again.
type NewJob struct {
	Kind       jobs.Kind        `json:"kind" enum:"recover,backfill,replay,stream" doc:"recover: what an endpoint missed; backfill: the past, for a new endpoint; replay: settled deliveries; stream: events of all tenants that fan-out never handled (operator role, tenant default)"`
	EndpointID string           `json:"endpoint_id,omitempty" required:"false" maxLength:"64" doc:"Needed, unless it is a job of the stream"`
	From       time.Time        `json:"from,omitempty" required:"false" doc:"Events accepted at or after this time; needed unless it is a replay"`
	To         time.Time        `json:"to,omitempty" required:"false" doc:"Events accepted at or before this time; now if absent"`
	Types      []string         `json:"types,omitempty" required:"false" nullable:"false" maxItems:"20" doc:"Only events of these types"`
	States     []delivery.State `json:"states,omitempty" required:"false" nullable:"false" maxItems:"4" doc:"missing (not in a replay), skipped, dead or delivered; if absent, dead in a replay, else missing"`
	Status     string           `json:"status,omitempty" required:"false" maxLength:"8" doc:"Replay: only deliveries whose latest attempt got this response status, such as 503, or one of a range, such as 500..599"`
	DryRun     bool             `json:"dry_run,omitempty" required:"false" doc:"Count, and send nothing"`
}

// detail describes the job for the audit log.
func (n NewJob) detail() string {
	parts := []string{jobTitle(n.Kind, n.EndpointID)}
	if !n.From.IsZero() {
		parts = append(parts, "from "+n.From.UTC().Format(time.RFC3339))
	}
	if !n.To.IsZero() {
		parts = append(parts, "to "+n.To.UTC().Format(time.RFC3339))
	}
	if len(n.Types) > 0 {
		parts = append(parts, fmt.Sprintf("types %v", n.Types))
	}
	if len(n.States) > 0 {
		parts = append(parts, fmt.Sprintf("states %v", n.States))
	}
	if n.Status != "" {
		parts = append(parts, "status "+n.Status)
	}
	if n.DryRun {
		parts = append(parts, "dry run")
	}
	return strings.Join(parts, ", ")
}

// jobTitle says what a job is, for the audit log.
func jobTitle(kind jobs.Kind, endpointID string) string {
	if endpointID == "" {
		return string(kind)
	}
	return fmt.Sprintf("%s of %s", kind, endpointID)
}

// JobPage is a page of jobs, newest first.
type JobPage struct {
	Jobs []Job  `json:"jobs" nullable:"false"`
	Next string `json:"next,omitempty" doc:"Cursor of the next page; absent on the last page"`
}

// Running reports whether a job of the page has not ended.
func (p JobPage) Running() bool { return slices.ContainsFunc(p.Jobs, Job.Running) }

// ListJobs returns a page of the tenant's jobs.
func (o *Operations) ListJobs(ctx context.Context, who Session, limit int, cursor string) (JobPage, error) {
	of := list{tenant: who.Tenant, name: "jobs"}
	place, err := o.openCursor(ctx, of, cursor)
	if err != nil {
		return JobPage{}, err
	}
	found, err := o.Jobs.ListJobs(ctx, jobs.Query{Tenant: who.Tenant, Limit: limit, Cursor: place})
	if err != nil {
		return JobPage{}, err
	}
	endpoints, err := o.Endpoints.Store.ListEndpoints(ctx, who.Tenant)
	if err != nil {
		return JobPage{}, err
	}
	limits := map[string]ratelimit.Limit{}
	for _, e := range endpoints {
		limits[e.ID] = e.Limit
	}
	page := JobPage{Jobs: []Job{}}
	for _, j := range found.Jobs {
		page.Jobs = append(page.Jobs, ViewJob(j, limits[j.EndpointID]))
	}
	page.Next, err = o.sealCursor(ctx, of, found.Next)
	return page, err
}

// GetJob returns a job of the tenant.
func (o *Operations) GetJob(ctx context.Context, who Session, id string) (Job, error) {
	j, err := jobs.Job{}, jobs.ErrNotFound
	if jobs.IsID(id) {
		j, err = o.Jobs.GetJob(ctx, jobs.Key{Tenant: who.Tenant, ID: id})
	}
	if errors.Is(err, jobs.ErrNotFound) {
		return Job{}, errorf(NotFound, "job %.64s not found", id)
	}
	if err != nil {
		return Job{}, err
	}
	return o.viewJob(ctx, who, j)
}

func (o *Operations) viewJob(ctx context.Context, who Session, j jobs.Job) (Job, error) {
	if j.EndpointID == "" {
		return ViewJob(j, ratelimit.Limit{}), nil
	}
	e, err := o.Endpoints.Store.GetEndpoint(ctx, who.Tenant, j.EndpointID)
	if err = explain(j.EndpointID, err); err != nil && !isKind(err, NotFound) { // a deleted endpoint has no limit
		return Job{}, err
	}
	return ViewJob(j, e.Limit), nil
}

func isKind(err error, kind Kind) bool {
	var known *Error
	return errors.As(err, &known) && known.Kind == kind
}

// StartJob starts a job. A dry run needs the admin role too, because it costs as many reads.
func (o *Operations) StartJob(ctx context.Context, who Session, n NewJob) (Job, error) {
	possible := dispatch.RecoverStates
	if n.Kind == jobs.Replay {
		possible = dispatch.ReplayStates
	} else if n.From.IsZero() && (n.Kind != jobs.Stream || operatesAll(who)) {
		return Job{}, errorf(Invalid, "from is missing: name the time from which on to %s", n.Kind)
	}
	if err := delivery.CheckRange(n.From, n.To); err != nil {
		return Job{}, errorf(Invalid, "%s", err)
	}
	if _, err := delivery.ParseStatuses(n.Status); err != nil {
		return Job{}, errorf(Invalid, "status: %s", err)
	}
	for _, s := range n.States {
		if !slices.Contains(possible, s) {
			return Job{}, errorf(Invalid, "%.64q is not a state that a %s can send; the states are %v", s, n.Kind, possible)
		}
	}
	var err error
	if n.Types, err = o.storedTypes(ctx, who, n.Types); err != nil {
		return Job{}, err
	}
	if n.Kind == jobs.Stream {
		return o.startStream(ctx, who, n)
	}
	if who.Role.changes() && !endpoint.IsID(n.EndpointID) { // not written to the audit log
		return Job{}, explain(n.EndpointID, endpoint.ErrNotFound)
	}
	id := jobs.NewID(o.Now())
	started, err := change(ctx, o, who, "job.start", &id, n.detail(), func() (j jobs.Job, err error) {
		e, err := o.loadEndpoint(ctx, who, n.EndpointID)
		if err != nil {
			return j, explain(n.EndpointID, err)
		}
		if e.Status == endpoint.Disabled {
			return j, errorf(Conflict, "endpoint %s is disabled: enable it first", n.EndpointID)
		}
		newest, err := o.Jobs.ListJobs(ctx, jobs.Query{Tenant: who.Tenant, Limit: jobs.MaxRunning})
		if err != nil {
			return j, err
		}
		if !slices.ContainsFunc(newest.Jobs, func(j jobs.Job) bool { return j.State != jobs.Running }) && len(newest.Jobs) == jobs.MaxRunning {
			return j, errorf(Conflict, "%d jobs are running: wait for one, or cancel one", jobs.MaxRunning)
		}
		err = o.Dispatch(ctx, dispatch.Command{
			Action: "start_job", Kind: n.Kind, JobID: id, By: who.Name, Tenant: who.Tenant, EndpointID: n.EndpointID,
			From: n.From, To: n.To, Types: n.Types, States: n.States, Status: n.Status, DryRun: n.DryRun,
		}, &j)
		return j, err
	})
	if err != nil {
		return Job{}, err
	}
	return o.viewJob(ctx, who, started)
}

// operatesAll reports whether a session may start a job that concerns all tenants.
func operatesAll(who Session) bool { return who.Role == Operator && who.Tenant == event.DefaultTenant }

// startStream starts a job that fans out the events of all tenants that fan-out never
// handled.
func (o *Operations) startStream(ctx context.Context, who Session, n NewJob) (Job, error) {
	if !operatesAll(who) {
		return Job{}, errorf(Forbidden, "a job of the stream concerns all tenants: log in with --role operator, to the tenant %s", event.DefaultTenant)
	}
	if n.EndpointID != "" || len(n.Types)+len(n.States) > 0 || n.Status != "" {
		return Job{}, errorf(Invalid, "a job of the stream concerns all endpoints, types and states: give from and to only")
	}
	id := jobs.NewID(o.Now())
	started, err := change(ctx, o, who, "job.start", &id, n.detail(), func() (j jobs.Job, err error) {
		newest, err := o.Jobs.ListJobs(ctx, jobs.Query{Tenant: who.Tenant, Limit: jobs.MaxRunning})
		if err != nil {
			return j, err
		}
		for _, one := range newest.Jobs {
			if one.Kind == jobs.Stream && one.State == jobs.Running {
				return j, errorf(Conflict, "job %s is doing it: wait for its end, or cancel it", one.ID)
			}
		}
		err = o.Dispatch(ctx, dispatch.Command{
			Action: "start_job", Kind: n.Kind, JobID: id, By: who.Name, Tenant: who.Tenant, From: n.From, To: n.To, DryRun: n.DryRun,
		}, &j)
		return j, err
	})
	if err != nil {
		return Job{}, err
	}
	return o.viewJob(ctx, who, started)
}

// CancelJob ends a job of the tenant. What it has put into a backlog stays there.
func (o *Operations) CancelJob(ctx context.Context, who Session, id string) (Job, error) {
	if !who.Role.changes() {
		return Job{}, forbidden()
	}
	j, err := o.GetJob(ctx, who, id)
	if err != nil {
		return Job{}, err
	}
	if !j.Running() {
		return Job{}, errorf(Conflict, "the job has ended already: it is %s", j.State)
	}
	cancelled, err := change(ctx, o, who, "job.cancel", &id, jobTitle(j.Kind, cmp.Or(j.EndpointID, j.Subject)), func() (j jobs.Job, err error) {
		return j, o.Dispatch(ctx, dispatch.Command{Action: "cancel_job", JobID: id, By: who.Name, Tenant: who.Tenant}, &j)
	})
	if err != nil {
		return Job{}, err
	}
	return o.viewJob(ctx, who, cancelled)
}

func (c *Console) listJobs(r *http.Request, who Session) (page, error) {
	found, err := c.Operations.ListJobs(r.Context(), who, defaultPage, r.URL.Query().Get("cursor"))
	return page{Template: "jobs", Title: "Jobs", Nav: "jobs", Path: r.URL.RequestURI(), Data: found}, err
}

func (c *Console) showJob(r *http.Request, who Session) (page, error) {
	j, err := c.Operations.GetJob(r.Context(), who, r.PathValue("id"))
	return page{Template: "job", Title: "Job", Nav: "jobs", Path: jobPath(j), Data: j}, err
}

func jobPath(j Job) string { return "/jobs/" + url.PathEscape(j.ID) }

// recoverMissed handles the form of the endpoint's page: it starts a dry run, from whose
// page the recovery itself is started.
func (c *Console) recoverMissed(r *http.Request, who Session) (page, error) {
	span, ok := c.lookBack(r)
	if !ok {
		return page{}, errorf(Invalid, "choose how far back to look")
	}
	now := c.Operations.Now()
	n := NewJob{Kind: jobs.Recover, EndpointID: r.PathValue("id"), From: now.Add(-span), To: now, DryRun: true}
	for _, s := range r.PostForm["state"] {
		n.States = append(n.States, delivery.State(s))
	}
	j, err := c.Operations.StartJob(r.Context(), who, n)
	return page{Redirect: jobPath(j)}, err
}

// recoverStream handles the form of the list of jobs: it starts a dry run, from whose page
// the job itself is started.
func (c *Console) recoverStream(r *http.Request, who Session) (page, error) {
	span, ok := c.lookBack(r)
	if !ok {
		return page{}, errorf(Invalid, "choose how far back to look")
	}
	now := c.Operations.Now()
	j, err := c.Operations.StartJob(r.Context(), who, NewJob{Kind: jobs.Stream, From: now.Add(-span), To: now, DryRun: true})
	return page{Redirect: jobPath(j)}, err
}

// span is a range of a form: how far to look back.
type span struct {
	Value, Text string
	length      time.Duration
}

// spans are the ranges that the forms offer: no longer than events are kept.
func (o *Operations) spans() []span {
	days := o.retentionDays(catalog.Type{})
	all, text := event.Retention(days), fmt.Sprintf("%d days", days)
	if days == 1 {
		text = "day"
	}
	list := slices.DeleteFunc([]span{
		{"1h", "hour", time.Hour}, {"24h", "24 hours", 24 * time.Hour}, {"72h", "72 hours", 72 * time.Hour}, {"7d", "7 days", 7 * 24 * time.Hour},
	}, func(s span) bool { return s.length >= all })
	return append(list, span{fmt.Sprintf("%dd", days), text, all})
}

// lookBack returns the range that a form has chosen.
func (c *Console) lookBack(r *http.Request) (time.Duration, bool) {
	for _, s := range c.Operations.spans() {
		if s.Value == r.PostForm.Get("since") {
			return s.length, true
		}
	}
	return 0, false
}

// sendCounted starts the job that a dry run has counted: with the same range, although time
// has passed.
func (c *Console) sendCounted(r *http.Request, who Session) (page, error) {
	dry, err := c.Operations.GetJob(r.Context(), who, r.PathValue("id"))
	if err != nil {
		return page{}, err
	}
	if !dry.DryRun || dry.Running() {
		return page{}, errorf(Conflict, "only what a dry run has counted to its end can be sent")
	}
	if dry.Erasure() {
		j, err := c.Operations.StartErasure(r.Context(), who, NewErasure{Subject: dry.Subject})
		return page{Redirect: jobPath(j)}, err
	}
	j, err := c.Operations.StartJob(r.Context(), who, NewJob{
		Kind: dry.Kind, EndpointID: dry.EndpointID, From: dry.From, To: dry.To, Types: dry.Types, States: dry.States, Status: dry.Status,
	})
	return page{Redirect: jobPath(j)}, err
}
