package dispatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/journal"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
)

// EventScan reads all accepted events.
type EventScan interface {
	// ScanRange returns a page of the events that were accepted in a time range. Reading the
	// next page may begin after any event of a page.
	ScanRange(ctx context.Context, q event.RangeScan) (event.RangePage, error)
}

// JobList lists jobs.
type JobList interface {
	ListJobs(ctx context.Context, q jobs.Query) (jobs.Page, error)
}

const (
	// streamSegments is the number of parts in which Events is read. They are the steps of the
	// job's progress: events are in no order of time.
	streamSegments = 16
	// streamSettle is how old an event must be for the job: younger ones may still be on
	// their way through the stream.
	streamSettle = 5 * time.Minute
	// streamBatch is how many events are fanned out together, as in a batch of the stream.
	streamBatch = 100
	// streamGoal is the number of deliveries after which a step ends.
	streamGoal = 1000
	// streamPatience is the number of failures after which a step passes over an event that
	// cannot be fanned out: with the backoff between them, four minutes.
	streamPatience = 7
	// streamTakes is how often a check takes dead letters, up to ten at a time.
	streamTakes = 10
	// letterMargin is how much earlier than its stream record an event may have got its ID.
	letterMargin = time.Hour
)

// Counts of a job of the stream, beside Missing.
const (
	unreadable delivery.State = "unreadable" // the event cannot be decoded, so it has no endpoints
	failed     delivery.State = "failed"     // the event could not be fanned out
)

// streamRedrive fans out the events of all tenants that fan-out never handled: those in
// Events that are not in the journal (jobs.Stream).
//
// A step can be repeated: an event that was fanned out is in the journal, and one that was
// fanned out twice is delivered once, because the second claim is refused.
type streamRedrive struct{ d *Dispatcher }

func (r streamRedrive) check(ctx context.Context, j jobs.Job) error {
	p := j.Parameters
	switch {
	case j.Tenant != event.DefaultTenant:
		return fmt.Errorf("it concerns all tenants, and belongs to the tenant %s", event.DefaultTenant)
	case p.From.IsZero():
		return errors.New("from is required")
	case j.EndpointID != "" || len(p.Types)+len(p.States) > 0 || p.Status != "":
		return errors.New("it concerns all endpoints, types and states: give from and to only")
	}
	running, err := r.d.runningStream(ctx, j.ID)
	if err == nil && running != "" {
		err = fmt.Errorf("job %s is doing it: wait for its end, or cancel it", running)
	}
	return err
}

// runningStream returns a running job of the stream, other than one; "" if there is none.
func (d *Dispatcher) runningStream(ctx context.Context, other string) (id string, err error) {
	keys, err := d.Jobs.DueJobs(ctx, d.Now().Add(jobs.Retention), sweptJobs)
	if err != nil {
		return "", err
	}
	for _, k := range keys {
		if k.Tenant != event.DefaultTenant || k.ID == other {
			continue
		}
		j, err := d.Jobs.GetJob(ctx, k)
		if err != nil && !errors.Is(err, jobs.ErrNotFound) && !errors.Is(err, jobs.ErrUnreadable) {
			return "", err
		}
		if err == nil && j.Kind == jobs.Stream && j.State == jobs.Running {
			return j.ID, nil
		}
	}
	return "", nil
}

// scanPlace is the cursor of a streamRedrive.
type scanPlace struct {
	Segment int    `json:"segment"`
	After   string `json:"after,omitempty"`
}

// lostEvent is an event of a page that is not in the journal.
type lostEvent struct {
	event.Change
	place  int   // in the page
	broken error // why it cannot be decoded
}

func (r streamRedrive) step(ctx context.Context, j jobs.Job) (jobs.Step, error) {
	var at scanPlace
	if j.Cursor != "" {
		if err := json.Unmarshal([]byte(j.Cursor), &at); err != nil {
			return jobs.Step{}, refusef("the cursor is unreadable: %w", err)
		}
	}
	to := j.StartedAt.Add(-streamSettle)
	if j.Parameters.To.Before(to) {
		to = j.Parameters.To
	}
	if to.Before(j.Parameters.From) {
		return jobs.Step{Done: true}, nil
	}
	page, err := r.d.Scan.ScanRange(ctx, event.RangeScan{Segment: at.Segment, Segments: streamSegments, From: j.Parameters.From, To: to, After: at.After})
	if err != nil {
		return jobs.Step{}, err
	}
	lost, err := r.lost(ctx, page.Events)
	if err != nil {
		return jobs.Step{}, err
	}
	counts, sent, done := map[string]int{}, 0, 0
	for done < len(lost) && (sent < streamGoal || j.DryRun) {
		n := min(len(lost), done+streamBatch)
		queued, err := r.fanOut(ctx, j, lost[done:n], counts)
		if err != nil {
			return jobs.Step{}, err
		}
		sent, done = sent+queued, n
	}
	examined := len(page.Events)
	if at.After = page.Next; done < len(lost) { // the next step begins with what is left
		examined = lost[done-1].place + 1
		at.After = page.Events[examined-1].Event.ID
	} else if page.Next == "" {
		at.Segment++
	}
	counts[jobs.Sent], counts[jobs.Examined] = sent, examined
	cursor, err := json.Marshal(at)
	s := jobs.Step{Cursor: string(cursor), Counts: counts, Progress: float64(at.Segment) / streamSegments, Done: at.Segment == streamSegments}
	if !j.DryRun {
		s.Wait = time.Duration(sent) * time.Second / jobs.StreamRate
	}
	return s, err
}

// lost returns the events of a page that are not in the journal of their tenant.
func (r streamRedrive) lost(ctx context.Context, page []event.Change) (lost []lostEvent, err error) {
	ids := map[string][]string{}
	broken := make([]error, len(page))
	for i, c := range page {
		if _, _, broken[i] = readRecord(c); broken[i] == nil {
			ids[c.Event.Tenant] = append(ids[c.Event.Tenant], c.Event.ID)
		}
	}
	recorded := map[string]map[string]bool{}
	for tenant, list := range ids {
		if recorded[tenant], err = journal.Recorded(ctx, r.d.Journal, tenant, list); err != nil {
			return nil, err
		}
	}
	for i, c := range page {
		if !c.Event.ErasedAt.IsZero() || broken[i] == nil && isPast(c.Event.ID, c.Event.RetentionDays, r.d.Now()) {
			continue // nothing of it is sent; or its items of the journal have expired
		}
		if broken[i] != nil || !recorded[c.Event.Tenant][c.Event.ID] {
			lost = append(lost, lostEvent{c, i, broken[i]})
		}
	}
	return lost, nil
}

// fanOut fans events out; in a dry run it matches them with the endpoints only. It adds to
// the counts, and returns the number of deliveries.
func (r streamRedrive) fanOut(ctx context.Context, j jobs.Job, list []lostEvent, counts map[string]int) (deliveries int, err error) {
	var batch []event.Change
	for _, e := range list {
		if e.broken != nil {
			counts[jobs.Found(unreadable)]++
			continue
		}
		e.At = r.d.Now() // its age counts from now
		batch = append(batch, e.Change)
	}
	if j.DryRun {
		counts[jobs.Found(Missing)] += len(batch)
		return r.match(ctx, batch)
	}
	for len(batch) > 0 {
		queued, handled := r.d.fanOut(ctx, batch)
		deliveries += queued
		counts[jobs.Found(Missing)] += handled
		if handled == len(batch) {
			break
		}
		id := batch[handled].Event.ID
		if j.Failures < streamPatience {
			return 0, fmt.Errorf("event %s could not be fanned out: fanout.failed in the log has the reason", id)
		}
		r.d.Log.ErrorContext(ctx, "job.event_failed", "job_id", j.ID, "event_id", id, "tenant", batch[handled].Event.Tenant)
		counts[jobs.Found(failed)]++
		batch = batch[handled+1:]
	}
	return deliveries, nil
}

// match returns how many deliveries the events have.
func (r streamRedrive) match(ctx context.Context, batch []event.Change) (deliveries int, err error) {
	for _, c := range batch {
		accepted, e, err := readRecord(c)
		if err != nil {
			return 0, err
		}
		found, err := r.d.endpoints.subscribers(ctx, accepted, e)
		if err != nil {
			return 0, err
		}
		deliveries += len(found.matching)
	}
	return deliveries, nil
}

// checkStreamLetters looks for dead letters of the Events stream: batches that were not
// fanned out for a day. It starts a job for the time of those that no job has covered, one
// at a time, and removes the letters that a job has covered to its end.
func (d *Dispatcher) checkStreamLetters(ctx context.Context) error {
	if d.StreamDeadLetters == nil {
		return nil
	}
	var letters []streamLetter
	for range streamTakes {
		taken, err := d.StreamDeadLetters.Take(ctx)
		if err != nil {
			return err
		}
		if len(taken) == 0 {
			break
		}
		for _, one := range taken {
			if l, err := readLetter(one); err == nil {
				letters = append(letters, l)
			} else {
				d.Log.WarnContext(ctx, "stream_letters.unreadable", "error", err.Error())
			}
		}
	}
	if len(letters) == 0 {
		return nil
	}
	done, err := d.doneStreams(ctx, letters)
	if err != nil {
		return err
	}
	var from, to time.Time
	var covered []work.Letter
	for _, l := range letters {
		if l.coveredBy(done) {
			covered = append(covered, l.Letter)
			continue
		}
		if from.IsZero() || l.from.Before(from) {
			from = l.from
		}
		if l.to.After(to) {
			to = l.to
		}
	}
	if err := d.StreamDeadLetters.Remove(ctx, covered); err != nil {
		return err
	}
	if len(covered) == len(letters) {
		return nil
	}
	running, err := d.runningStream(ctx, "")
	if err != nil || running != "" {
		return err
	}
	_, err = d.StartJob(ctx, Command{Kind: jobs.Stream, From: from, To: to, By: "the sweep: the stream has dead letters"})
	return err
}

// streamLetter is a dead letter of the Events stream, with the time of its events.
type streamLetter struct {
	work.Letter
	from, to time.Time
}

// readLetter reads what Lambda sends about a batch that it has given up.
func readLetter(l work.Letter) (streamLetter, error) {
	var body struct {
		Batch struct {
			First time.Time `json:"approximateArrivalOfFirstRecord"`
			Last  time.Time `json:"approximateArrivalOfLastRecord"`
		} `json:"DDBStreamBatchInfo"`
	}
	if err := json.Unmarshal([]byte(l.Body), &body); err != nil {
		return streamLetter{}, fmt.Errorf("a dead letter of the stream: %w", err)
	}
	first, last := body.Batch.First, body.Batch.Last
	if first.IsZero() || last.Before(first) {
		return streamLetter{}, errors.New("a dead letter of the stream has no DDBStreamBatchInfo with the times of its records")
	}
	return streamLetter{l, first.Add(-letterMargin), last.Add(time.Minute)}, nil
}

// coveredBy reports whether one of the jobs has looked at all events of the letter.
func (l streamLetter) coveredBy(done []jobs.Job) bool {
	for _, j := range done {
		until := j.StartedAt.Add(-streamSettle)
		if j.Parameters.To.Before(until) {
			until = j.Parameters.To
		}
		if !j.Parameters.From.After(l.from) && !until.Before(l.to) {
			return true
		}
	}
	return false
}

// doneStreams returns the jobs of the stream that have fanned out all that they found,
// since the events of the oldest letter.
func (d *Dispatcher) doneStreams(ctx context.Context, letters []streamLetter) (done []jobs.Job, err error) {
	oldest := letters[0].to
	for _, l := range letters {
		if l.to.Before(oldest) {
			oldest = l.to
		}
	}
	for q := (jobs.Query{Tenant: event.DefaultTenant}); ; {
		page, err := d.JobList.ListJobs(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, j := range page.Jobs {
			if j.StartedAt.Before(oldest) {
				return done, nil
			}
			if j.Kind == jobs.Stream && !j.DryRun && j.State == jobs.Done && j.Counts[jobs.Found(failed)] == 0 {
				done = append(done, j)
			}
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			return done, nil
		}
	}
}
