package console

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/filter"
	"github.com/tidings-dev/tidings/pkg/event/journal"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
)

// subscription is what an endpoint wants of the events.
type subscription struct {
	endpoint endpoint.Endpoint
	filter   *filter.Pattern // nil matches all
}

// subscriptionOf fails if the endpoint's filter is invalid.
func subscriptionOf(ep endpoint.Endpoint) (subscription, error) {
	s := subscription{endpoint: ep}
	if len(ep.Filter) == 0 {
		return s, nil
	}
	var err error
	s.filter, err = filter.Compile(ep.Filter)
	return s, err
}

// mismatch returns why the filter does not match an event, by either name of its type; ""
// if it does.
func (s subscription) mismatch(accepted event.Accepted, eventType string) string {
	if s.filter == nil {
		return ""
	}
	accepted, err := destination.InVersion(s.endpoint, accepted, eventType)
	if err != nil {
		return err.Error()
	}
	doc, err := filter.Parse(accepted.Body)
	if err != nil {
		return err.Error()
	}
	if s.filter.Matches(doc) {
		return ""
	}
	if name, body := destination.Named(s.endpoint, accepted, eventType); name != eventType {
		if sent, err := filter.Parse(body); err == nil && s.filter.Matches(sent) {
			return ""
		}
	}
	return s.filter.Mismatch(doc)
}

// Backfill is what sending an endpoint the past would do.
type Backfill struct {
	From     time.Time `json:"from" doc:"Events accepted at or after this time are counted"`
	To       time.Time `json:"to"`
	Until    time.Time `json:"until,omitzero" doc:"Present if there are more events than one request counts: the figures are of those accepted at or after this time"`
	Examined int       `json:"examined" doc:"How many events were looked at"`
	Events   int       `json:"events" doc:"How many events the endpoint subscribes to and its filter matches"`
	Seconds  float64   `json:"seconds" doc:"How long it takes about to send them"`
	Dollars  float64   `json:"dollars" doc:"What it costs about to send them, in US dollars"`
}

// Takes is how long it takes about to send them.
func (b Backfill) Takes() time.Duration {
	return time.Duration(b.Seconds * float64(time.Second)).Round(time.Second)
}

const (
	// countPage is how many events are read at once.
	countPage = 2000
	// maxCounted is how many events one request of the console counts; maxMatched is how
	// many if each has to be read for the filter.
	maxCounted, maxMatched = 400_000, 4000
)

// EstimateBackfill says what adding an endpoint with a backfill would send. It adds
// nothing. It needs the admin role, because it costs as many reads as a search.
func (o *Operations) EstimateBackfill(ctx context.Context, who Session, s NewEndpoint) (Backfill, error) {
	if !who.Role.changes() {
		return Backfill{}, forbidden()
	}
	span, err := jobs.ParseSpan(s.Backfill)
	if err == nil && span == 0 {
		err = errors.New("is missing: name how far back to count, such as 14d")
	}
	if err != nil {
		return Backfill{}, &Error{Kind: Invalid, Message: "invalid backfill: " + err.Error(), Fields: []FieldError{{"backfill", err.Error()}}}
	}
	ep := endpoint.Endpoint{Tenant: who.Tenant}
	if err := errors.Join(s.apply(&ep), o.Endpoints.Validate(ctx, ep)); err != nil {
		return Backfill{}, invalidSettings(err)
	}
	most := maxCounted
	if len(ep.Filter) > 0 {
		most = maxMatched
	}
	now := o.Now()
	return CountBackfill(ctx, o.Journal, o.Events, ep, now.Add(-span), now, func(b Backfill) bool { return b.Examined < most })
}

// CountBackfill counts the events of a range of time that an endpoint would get, the newest
// first. After each page it asks whether to go on; the CLI, which reads the tables
// itself, counts all.
func CountBackfill(ctx context.Context, from journal.Source, events Events, ep endpoint.Endpoint, first, last time.Time, goOn func(Backfill) bool) (Backfill, error) {
	b := Backfill{From: first, To: last}
	sub, err := subscriptionOf(ep)
	if err != nil {
		return b, fmt.Errorf("filter: %w", err)
	}
	q := journal.Query{Tenant: ep.Tenant, Filter: journal.Filter{From: first, To: last}, Limit: countPage, Examine: countPage}
	for {
		page, err := journal.Search(ctx, from, q)
		if err != nil {
			return b, err
		}
		n, err := sub.count(ctx, events, page.Entries)
		if err != nil {
			return b, err
		}
		b.Events, b.Examined = b.Events+n, b.Examined+page.Examined
		takes, dollars := jobs.Estimate(b.Events, ep.Limit)
		b.Seconds, b.Dollars = takes.Seconds(), dollars
		if q.Cursor = page.Next; q.Cursor == "" {
			b.Until = time.Time{}
			return b, nil
		}
		if b.Until = page.Until; !goOn(b) {
			return b, nil
		}
	}
}

// count returns how many events of a page the endpoint would get.
func (s subscription) count(ctx context.Context, events Events, page []journal.Entry) (int, error) {
	var n atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for _, e := range page {
		if !s.endpoint.Subscribes(e.Type) {
			continue
		}
		if s.filter == nil {
			n.Add(1)
			continue
		}
		group.Go(func() error {
			accepted, err := events.GetEvent(ctx, e.ID)
			switch {
			case errors.Is(err, event.ErrNotFound): // it has expired
			case err != nil:
				return fmt.Errorf("event %s: %w", e.ID, err)
			case s.mismatch(accepted, e.Type) == "":
				n.Add(1)
			}
			return nil
		})
	}
	err := group.Wait()
	return int(n.Load()), err
}

// Text says it in a sentence.
func (b Backfill) Text() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%d of %d events match", b.Events, b.Examined)
	if b.Until.IsZero() {
		fmt.Fprintf(&text, "; sending them takes about %s and costs about $%.2f", b.Takes(), b.Dollars)
	} else {
		fmt.Fprintf(&text, " since %s, and there are more before; sending these takes about %s and costs about $%.2f",
			b.Until.UTC().Format(time.RFC3339), b.Takes(), b.Dollars)
	}
	return text.String()
}
