package console

import (
	"context"
	"errors"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/testsend"
)

// ---- overview ----------------------------------------------------------------------------------

// Overview is how the whole deployment does: the figures are of all tenants, the
// circuits of the session's own.
type Overview struct {
	At      time.Time `json:"at"`
	Hour    Figures   `json:"hour"`
	Day     Figures   `json:"day"`
	Waiting int       `json:"waiting" doc:"Deliveries that wait for another attempt, as of the last sweep"`
	More    bool      `json:"more_waiting" doc:"The sweep stopped counting: there are more"`
	// QueueAge is how long the most overdue delivery has waited for its turn.
	QueueAge  int64     `json:"queue_age_ms" doc:"How long the most overdue delivery has waited for its turn"`
	LastSweep time.Time `json:"last_sweep_at,omitzero"`
	LastEvent time.Time `json:"last_event_at,omitzero"`
	Circuits  []Circuit `json:"circuits" nullable:"false" doc:"Those that are not closed"`
	Minutes   []Minute  `json:"minutes" nullable:"false" doc:"The last hour"`
}

// Figures are what happened in some stretch of time.
type Figures struct {
	Accepted  int64    `json:"accepted" doc:"Events"`
	Delivered int64    `json:"delivered"`
	Failed    int64    `json:"failed" doc:"Attempts that failed"`
	Retried   int64    `json:"retried" doc:"Of which will be tried again"`
	Dead      int64    `json:"dead" doc:"Deliveries that were given up"`
	Skipped   int64    `json:"skipped"`
	Success   *float64 `json:"success_rate,omitempty" doc:"Share of settled deliveries that were delivered; absent where none was settled"`
	P50       *float64 `json:"p50_ms,omitempty" doc:"Time from acceptance to delivery, estimated"`
	P95       *float64 `json:"p95_ms,omitempty"`
}

// Minute is one minute of a chart.
type Minute struct {
	At        time.Time `json:"at"`
	Delivered int64     `json:"delivered"`
	Failed    int64     `json:"failed"`
}

func figures(c stats.Counts) Figures {
	f := Figures{Accepted: c.Accepted, Delivered: c.Delivered, Failed: c.Failed, Retried: c.Retried, Dead: c.Dead, Skipped: c.Skipped}
	if rate, ok := c.SuccessRate(); ok {
		f.Success = &rate
	}
	for q, into := range map[float64]**float64{.5: &f.P50, .95: &f.P95} {
		if d, ok := c.Latency.Quantile(q); ok {
			ms := float64(d.Microseconds()) / 1000
			*into = &ms
		}
	}
	return f
}

// Overview returns how it goes.
func (o *Operations) Overview(ctx context.Context, who Session) (Overview, error) {
	summary, err := o.Statistics.Summary(ctx)
	if err != nil {
		return Overview{}, err
	}
	series, err := o.Statistics.Series(ctx, time.Hour)
	if err != nil {
		return Overview{}, err
	}
	v := Overview{
		At: summary.At, Hour: figures(summary.Hour), Day: figures(summary.Day), Waiting: summary.Sweep.Retrying, More: summary.Sweep.More,
		LastSweep: summary.Sweep.At, LastEvent: summary.LastEvent, Minutes: []Minute{},
	}
	if oldest := summary.Sweep.OldestDue; !oldest.IsZero() {
		v.QueueAge = max(summary.Sweep.At.Sub(oldest), 0).Milliseconds()
	}
	for _, m := range series {
		v.Minutes = append(v.Minutes, Minute{At: m.At, Delivered: m.Delivered, Failed: m.Failed})
	}
	v.Circuits, err = o.ListCircuits(ctx, who)
	return v, err
}

// ---- circuits ----------------------------------------------------------------------------------

// Circuit is an endpoint's circuit breaker.
type Circuit struct {
	EndpointID   string    `json:"endpoint_id"`
	URL          string    `json:"url,omitempty" doc:"The endpoint's; absent where it is gone"`
	State        string    `json:"state" enum:"open,half-open,draining,closed"`
	Since        time.Time `json:"since,omitzero"`
	FailingSince time.Time `json:"failing_since,omitzero"`
	Failures     int       `json:"failures" doc:"In a row"`
	NextProbe    time.Time `json:"next_probe_at,omitzero"`
	Cause        string    `json:"cause,omitempty" doc:"The latest failure"`
}

func (o *Operations) circuit(s breaker.State, urls map[string]string) Circuit {
	return ViewCircuit(s, urls, o.Now())
}

// ViewCircuit shows a circuit, as the tool does, too; urls are endpoints' by their
// ids, as far as they are known.
func ViewCircuit(s breaker.State, urls map[string]string, now time.Time) Circuit {
	return Circuit{
		EndpointID: s.EndpointID, URL: urls[s.EndpointID], State: s.Word(now), Since: s.Since, FailingSince: s.FailingSince,
		Failures: s.Failures, NextProbe: s.Until, Cause: s.Cause,
	}
}

// ListCircuits returns the tenant's circuits that are not closed, or not closed
// for good: what waited is still being let go.
func (o *Operations) ListCircuits(ctx context.Context, who Session) ([]Circuit, error) {
	all, err := o.Breakers.ListCircuits(ctx, time.Time{})
	if err != nil {
		return nil, err
	}
	views := []Circuit{}
	var urls map[string]string
	for _, s := range all {
		if s.Tenant != who.Tenant {
			continue
		}
		if urls == nil {
			list, err := o.Endpoints.Store.ListEndpoints(ctx, who.Tenant)
			if err != nil {
				return nil, err
			}
			urls = map[string]string{}
			for _, e := range list {
				urls[e.ID] = e.URL
			}
		}
		views = append(views, o.circuit(s, urls))
	}
	return views, nil
}

// GetCircuit returns one endpoint's circuit, closed or not.
func (o *Operations) GetCircuit(ctx context.Context, who Session, endpointID string) (Circuit, error) {
	e, err := o.stored(ctx, who, endpointID)
	if err != nil {
		return Circuit{}, err
	}
	s, err := o.Breakers.GetBreaker(ctx, who.Tenant, endpointID, false)
	return o.circuit(s, map[string]string{endpointID: e.URL}), err
}

// CloseCircuit closes a circuit by hand: what waits is sent.
func (o *Operations) CloseCircuit(ctx context.Context, who Session, endpointID string) error {
	return o.change(ctx, who, "circuit.close", endpointID, "", func() (string, error) {
		if _, err := o.stored(ctx, who, endpointID); err != nil {
			return "", err
		}
		var done dispatch.Closed
		if err := o.Dispatch(ctx, dispatch.Command{Action: "close_circuit", Tenant: who.Tenant, EndpointID: endpointID}, &done); err != nil {
			return "", err
		}
		if !done.WasOpen {
			return "", refuse(Conflict, "the circuit of endpoint %s is closed already", endpointID)
		}
		return "", nil
	})
}

// ---- tests -------------------------------------------------------------------------------------

// TestEndpoint sends an endpoint one signed sample now and reports everything that
// happened.
func (o *Operations) TestEndpoint(ctx context.Context, who Session, id, eventType string) (testsend.Report, error) {
	var report testsend.Report
	err := o.change(ctx, who, "endpoint.test", id, eventType, func() (string, error) {
		if _, err := o.stored(ctx, who, id); err != nil {
			return "", err
		}
		if err := o.TestWebhook(ctx, testsend.Request{Tenant: who.Tenant, EndpointID: id, Event: eventType}, &report); err != nil {
			return "", refuse(Conflict, "%s", err)
		}
		return "", nil
	})
	return report, err
}

// ---- discussions -------------------------------------------------------------------------------

// SoonTime is what counts as expiring soon.
const SoonTime = 24 * time.Hour

// Discussion is a discussion as it is shown.
type Discussion struct {
	ID          string    `json:"id"`
	CommunityID string    `json:"community_id,omitempty"`
	Title       string    `json:"title,omitempty"`
	Status      string    `json:"status" enum:"open,closed"`
	ExpiresAt   time.Time `json:"expires_at,omitzero"`
	ExtendedBy  string    `json:"extended_by,omitempty"`
	ClosedAt    time.Time `json:"closed_at,omitzero"`
	ClosedBy    string    `json:"closed_by,omitempty"`
	Reason      string    `json:"reason,omitempty" doc:"Why it was closed: expired, by_hand"`
}

// Soon reports whether it is open and its time is nearly over.
func (d Discussion) Soon() bool { return d.Status == "open" && time.Until(d.ExpiresAt) < SoonTime }

// DiscussionPage is a part of the discussions.
type DiscussionPage struct {
	Discussions []Discussion `json:"discussions" nullable:"false"`
	Next        string       `json:"next,omitempty"`
}

func viewDiscussion(d platform.Discussion) Discussion {
	return Discussion{
		ID: d.ID, CommunityID: d.CommunityID, Title: d.Title, Status: string(d.Status), ExpiresAt: d.ExpiresAt,
		ExtendedBy: d.ExtendedBy, ClosedAt: d.ClosedAt, ClosedBy: d.ClosedBy, Reason: string(d.Reason),
	}
}

// ListDiscussions returns a page of the tenant's discussions: open, expiring
// within SoonTime, or closed.
func (o *Operations) ListDiscussions(ctx context.Context, who Session, view, cursor string, limit int) (DiscussionPage, error) {
	q := platform.Query{Tenant: who.Tenant, View: platform.View(view), Cursor: cursor, Limit: min(limit, platform.MaxPage)}
	if q.View == platform.ViewExpiring {
		q.Until = o.Now().Add(SoonTime)
	}
	if err := q.Check(); err != nil {
		return DiscussionPage{}, refuse(Invalid, "%s", err)
	}
	found, err := o.Discussions.ListDiscussions(ctx, q)
	if err != nil {
		if cursor != "" {
			return DiscussionPage{}, refuse(Invalid, "this page can't be had; begin at the first")
		}
		return DiscussionPage{}, err
	}
	page := DiscussionPage{Discussions: []Discussion{}, Next: found.Next}
	for _, d := range found.Discussions {
		page.Discussions = append(page.Discussions, viewDiscussion(d))
	}
	return page, nil
}

// GetDiscussion returns one discussion.
func (o *Operations) GetDiscussion(ctx context.Context, who Session, id string) (Discussion, error) {
	d, err := o.Discussions.GetDiscussion(ctx, who.Tenant, id)
	return viewDiscussion(d), discussionError(id, err)
}

func discussionError(id string, err error) error {
	switch {
	case errors.Is(err, platform.ErrNotFound):
		return refuse(NotFound, "there is no discussion %s", id)
	case errors.Is(err, platform.ErrClosed), errors.Is(err, platform.ErrNotLater):
		return refuse(Conflict, "%s", err)
	}
	return err
}

// MaxExtension is how far ahead a discussion's end may lie.
const MaxExtension = 366 * 24 * time.Hour

// ExtendDiscussion moves an open discussion's end later. The platform's stream
// then tells everybody (discussion.extended).
func (o *Operations) ExtendDiscussion(ctx context.Context, who Session, id string, to time.Time) (Discussion, error) {
	var d platform.Discussion
	err := o.change(ctx, who, "discussion.extend", id, "to "+to.UTC().Format(time.RFC3339), func() (string, error) {
		now := o.Now()
		if !to.After(now) || to.After(now.Add(MaxExtension)) {
			return "", refuse(Invalid, "a discussion can be extended to a time between now and a year from now")
		}
		var err error
		d, err = o.Discussions.ExtendDiscussion(ctx, platform.Extension{Tenant: who.Tenant, ID: id, To: to.UTC().Truncate(time.Millisecond), By: who.Name, At: now})
		return "", discussionError(id, err)
	})
	return viewDiscussion(d), err
}

// CloseDiscussion closes an open discussion before its time.
func (o *Operations) CloseDiscussion(ctx context.Context, who Session, id string) (Discussion, error) {
	var d platform.Discussion
	err := o.change(ctx, who, "discussion.close", id, "", func() (_ string, err error) {
		d, err = o.Discussions.CloseDiscussion(ctx, platform.Closing{Tenant: who.Tenant, ID: id, Reason: platform.ByHand, By: who.Name, At: o.Now()})
		return "", discussionError(id, err)
	})
	return viewDiscussion(d), err
}

// extended is when an extension by days ends: from the end that there is, or
// from now where that is past.
func extended(d Discussion, days int, now time.Time) (time.Time, error) {
	if days < 1 || days > 365 {
		return time.Time{}, refuse(Invalid, "a discussion can be extended by 1 to 365 days")
	}
	from := d.ExpiresAt
	if from.Before(now) {
		from = now
	}
	return from.Add(time.Duration(days) * 24 * time.Hour), nil
}
