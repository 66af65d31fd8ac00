package dispatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/filter"
	"github.com/tidings-dev/tidings/pkg/event/journal"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
)

// Missing is the state, in a job's parameters, of an event that the endpoint subscribes to
// today and that has no delivery: the endpoint was disabled or did not exist when the event
// was fanned out, or its message was lost.
const Missing delivery.State = "missing"

// Erased is the state, in a job's counts, of an event that was erased. No job sends it.
const Erased delivery.State = "erased"

// RecoverStates are the states that a recovery can send again.
var RecoverStates = []delivery.State{Missing, delivery.Skipped, delivery.Dead, delivery.Delivered}

const (
	// recoverPage is how many events a step reads.
	recoverPage = 500
	// firstWindow, minWindow and maxWindow are the lengths of the windows of time that a
	// recovery goes through, oldest first.
	firstWindow, minWindow, maxWindow = 10 * time.Minute, time.Second, time.Hour
)

// recovery puts events of a time range into an endpoint's backlog (jobs.Recover and
// jobs.Backfill). It goes through the journal in windows of time, oldest window first.
//
// A step can be repeated: an event that has a delivery by now is not missing any more, and a
// settled delivery is sent again only if it was settled before the job began.
type recovery struct{ d *Dispatcher }

func (r recovery) check(ctx context.Context, j jobs.Job) error {
	if j.EndpointID == "" || j.Parameters.From.IsZero() {
		return errors.New("endpoint_id and from are required")
	}
	if err := checkStates(j, RecoverStates); err != nil {
		return err
	}
	if _, _, err := r.target(ctx, j); err != nil {
		return err
	}
	return r.d.checkFrom(j, r.hasEvents(ctx, j.Tenant))
}

// checkStates reports a state that a kind of job cannot send again.
func checkStates(j jobs.Job, possible []delivery.State) error {
	for _, s := range j.Parameters.States {
		if !slices.Contains(possible, s) {
			return fmt.Errorf("%.64q is not a state that a %s can send; the states are %v", s, j.Kind, possible)
		}
	}
	return nil
}

// target returns the job's endpoint and its subscription.
func (r recovery) target(ctx context.Context, j jobs.Job) (*endpoint.Endpoint, subscription, error) {
	ep, err := r.d.enabled(ctx, j.Tenant, j.EndpointID)
	if err != nil {
		return nil, subscription{}, err
	}
	sub := compile(r.d.Now(), []endpoint.Endpoint{*ep}).subs[0]
	if sub.broken != nil {
		return nil, sub, refusef("the filter of endpoint %s is invalid: %w", ep.ID, sub.broken)
	}
	return ep, sub, nil
}

// window is the cursor of a recovery: the window of time that it works on.
type window struct {
	From time.Time     `json:"from"`
	Span time.Duration `json:"span"`
	// Page is the cursor of the search in the window, newest event first; "" at its beginning.
	Page string `json:"page,omitempty"`
	// Seen is how many events of the window were looked at.
	Seen int `json:"seen,omitempty"`
}

// last is the last millisecond of the window.
func (w window) last(to time.Time) time.Time {
	if end := w.From.Add(w.Span - time.Millisecond); end.Before(to) {
		return end
	}
	return to
}

// next is the window after this one: longer if there was little in this one, else shorter.
func (w window) next() window {
	n := window{From: w.From.Add(w.Span), Span: w.Span}
	switch {
	case w.Seen < recoverPage/4:
		n.Span = min(2*n.Span, maxWindow)
	case w.Seen > 2*recoverPage:
		n.Span = max(n.Span/2, minWindow)
	}
	return n
}

func (r recovery) step(ctx context.Context, j jobs.Job) (jobs.Step, error) {
	ep, sub, err := r.target(ctx, j)
	if err != nil {
		return jobs.Step{}, err
	}
	p := j.Parameters
	w := window{From: p.From, Span: firstWindow}
	if j.Cursor != "" {
		if err := json.Unmarshal([]byte(j.Cursor), &w); err != nil {
			return jobs.Step{}, refusef("the cursor is unreadable: %w", err)
		}
	}
	room, wait, err := r.d.roomFor(ctx, j, ep)
	if err != nil || room == 0 {
		return jobs.Step{Cursor: j.Cursor, Progress: j.Progress, Wait: wait}, err
	}
	page, err := journal.Search(ctx, r.d.Journal, journal.Query{
		Tenant: ep.Tenant, Filter: journal.Filter{From: w.From, To: w.last(p.To), Types: p.Types}, Limit: recoverPage, Examine: recoverPage, Cursor: w.Page,
	})
	if err != nil {
		return jobs.Step{}, err
	}
	list, err := r.candidates(ctx, ep, sub, page.Entries, j)
	if err != nil {
		return jobs.Step{}, err
	}
	sent, err := r.d.refill(ctx, j, ep, list, room)
	if err != nil {
		return jobs.Step{}, err
	}
	counts := map[string]int{jobs.Sent: sent.sent, jobs.Examined: page.Examined}
	if sent.rest < len(list) { // the backlog is full: the next step begins with what is left
		page.Next = journal.CursorAfter(list[sent.rest-1].key.EventID)
		counts[jobs.Examined] = sent.rest
	}
	for _, c := range list[:sent.rest] {
		if c.state != "" {
			counts[jobs.Found(c.state)]++
		}
	}
	w.Seen += counts[jobs.Examined]
	if w.Page = page.Next; w.Page == "" {
		w = w.next()
	}
	cursor, err := json.Marshal(w)
	return jobs.Step{
		Cursor: string(cursor), Counts: counts, Done: w.From.After(p.To), Progress: share(w.From.Sub(p.From), p.To.Sub(p.From)),
	}, err
}

// share is a part of the whole, to a tenth of a percent.
func share(part, whole time.Duration) float64 {
	if whole <= 0 {
		return 0
	}
	return float64(part*1000/whole) / 1000
}

// candidates looks the events of a page up among the endpoint's deliveries.
func (r recovery) candidates(ctx context.Context, ep *endpoint.Endpoint, sub subscription, page []journal.Entry, j jobs.Job) ([]candidate, error) {
	held, err := r.deliveries(ctx, ep.ID, page)
	if err != nil {
		return nil, err
	}
	states := j.Parameters.States
	if len(states) == 0 {
		states = []delivery.State{Missing}
	}
	list := make([]candidate, len(page))
	for i, e := range page {
		c := candidate{key: delivery.Key{EndpointID: ep.ID, EventID: e.ID}, eventType: e.Type}
		d, found := held[e.ID]
		switch {
		case found && !d.ErasedAt.IsZero():
			c.state = Erased
		case found:
			c.state, c.waiting = d.State, d.InBacklog
			c.wanted = slices.Contains(states, d.State) && d.UpdatedAt.Before(j.StartedAt)
		case ep.Subscribes(e.Type):
			c.state, c.wanted = Missing, slices.Contains(states, Missing)
			c.matches = func(ctx context.Context) (unsent, error) { return r.matches(ctx, sub, e) }
		}
		list[i] = c
	}
	return list, nil
}

// deliveries returns the endpoint's deliveries of the events of a page, newest first.
// Reading the range costs a tenth of a read for each.
func (r recovery) deliveries(ctx context.Context, endpointID string, page []journal.Entry) (map[string]delivery.Delivery, error) {
	if len(page) == 0 {
		return nil, nil
	}
	newest, err := event.IDTime(page[0].ID)
	if err != nil {
		return nil, err
	}
	oldest, err := event.IDTime(page[len(page)-1].ID)
	if err != nil {
		return nil, err
	}
	asked := make(map[string]bool, len(page))
	for _, e := range page {
		asked[e.ID] = true
	}
	held := make(map[string]delivery.Delivery, len(page))
	for q := (delivery.Query{EndpointID: endpointID, From: oldest, To: newest, Limit: recoverPage}); ; {
		found, err := r.d.Replays.QueryDeliveries(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, d := range found.Deliveries {
			if asked[d.EventID] {
				held[d.EventID] = d
			}
		}
		if q.Cursor = found.Next; q.Cursor == "" {
			return held, nil
		}
	}
}

// matches returns Missing if the endpoint's filter matches an event, Erased if the event was
// erased, and else "".
func (r recovery) matches(ctx context.Context, sub subscription, e journal.Entry) (unsent, error) {
	accepted, err := r.d.Events.GetEvent(ctx, e.ID)
	if errors.Is(err, event.ErrNotFound) {
		return unsent{}, nil // it has expired
	}
	if err != nil {
		return unsent{}, fmt.Errorf("event %s: %w", e.ID, err)
	}
	if !accepted.ErasedAt.IsZero() {
		return unsent{state: Erased}, nil
	}
	if isPast(e.ID, accepted.RetentionDays, r.d.Now()) {
		return unsent{}, nil // another endpoint needs it; the delivery to this one may be gone
	}
	if sub.filter != nil {
		doc, unreadable := filter.Parse(accepted.Body)
		// Fan-out skips what nests too deeply for a filter.
		if matches, err := sub.matches(doc, unreadable, accepted, e.Type); err != nil || !matches {
			return unsent{}, nil
		}
	}
	return unsent{Missing, accepted.RetentionDays}, nil
}
