package dispatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/filter"
	"github.com/tidings-dev/tidings/pkg/event/journal"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
	"github.com/tidings-dev/tidings/pkg/platform"
)

// StoredEvents are the events that an erasure goes through.
type StoredEvents interface {
	// ScanEvents returns a page of a tenant's events, and misses none that was stored before.
	ScanEvents(ctx context.Context, s event.Scan) (event.ScanPage, error)
	// EraseEvent applies event.Erasure to an event as it was read. It does nothing if the
	// event has expired or is erased.
	EraseEvent(ctx context.Context, a event.Accepted, e event.Erasure) error
}

// Erasures erases deliveries.
type Erasures interface {
	// EraseDelivery applies delivery.Erase. It returns the delivery after it and the state
	// that it had before ("" if there was none), or delivery.ErrNotFound if there is nothing
	// to erase.
	EraseDelivery(ctx context.Context, e delivery.Erase) (after delivery.Delivery, was delivery.State, err error)
}

// KeptChanges are the changes of the platform's table that could not become events.
type KeptChanges interface {
	// ListFailedChanges returns changes without their records.
	ListFailedChanges(ctx context.Context, from time.Time, limit int, cursor string) (platform.FailedChangePage, error)
	// GetFailedChange returns a change with its record, or platform.ErrNoFailedChange.
	GetFailedChange(ctx context.Context, id string) (platform.FailedChange, error)
	RemoveFailedChange(ctx context.Context, id string) error
}

// EventTypes are the event types of the deployment and its tenants.
type EventTypes interface {
	// Of returns the types of a tenant: those of the deployment and its own.
	Of(ctx context.Context, tenant string) (*catalog.Catalog, error)
}

const (
	// eraseSegments is the number of parts of the events, and of an erasure's progress.
	eraseSegments = 64
	// erasePage is how many events a step reads at least, unless none is left or its time is
	// over.
	erasePage = 2000
	// keptPage is how many failed changes a step reads. Each can have 350 KB.
	keptPage = 50
	// eraseAfter is how long an erasure waits before its first event: until fan-out checks
	// the records of all events that were stored before it.
	eraseAfter = lateRecord + 5*time.Second
	// eraseWait is the longest time until an erasure looks again after an attempt under way.
	eraseWait = 5 * time.Second
	// maxLate is how many attempts under way an erasure remembers, in its cursor.
	maxLate = 200
	// minPersonBytes is the shortest id of a person. A shorter text is a mistake: it would be
	// the value of many fields.
	minPersonBytes = 2
	// maxPersonBytes is the longest, as of an actor.
	maxPersonBytes = 256
)

// erasure erases what is stored about a person (jobs.Erase): the failed changes, the events
// with their deliveries, and the subjects and actors in the journal, in this order. A failed
// change that becomes an event meanwhile is thus met as an event.
//
// A step can be repeated, and an erasure that was cancelled or failed is completed by
// another: the deliveries and the journal of an event that is erased already are erased
// again, because the worker may have died before, or their attempts have ended since.
type erasure struct{ d *Dispatcher }

// Parts of an erasure, in their order.
const (
	partChanges = ""
	partEvents  = "events"
	partLate    = "late"
	partJournal = "journal"
)

// erasePlace is the cursor of an erasure.
type erasePlace struct {
	Part string `json:"part"`
	N    int    `json:"n,omitempty"` // segment of the events, or shard of the journal
	Page string `json:"page,omitempty"`
	// Late are deliveries whose attempts were under way. They are marked, so that no other
	// begins, and erased again when it has ended.
	Late []delivery.Key `json:"late,omitempty"`
}

func (r erasure) check(_ context.Context, j jobs.Job) error {
	p := j.Parameters
	switch {
	case r.d.StoredEvents == nil:
		return errors.New("this dispatcher erases nothing")
	case len(p.Subject) < minPersonBytes || len(p.Subject) > maxPersonBytes || !utf8.ValidString(p.Subject):
		return fmt.Errorf("subject: must be the id of a person, as events have it, of %d to %d bytes", minPersonBytes, maxPersonBytes)
	case j.EndpointID != "" || !p.From.IsZero() || len(p.Types)+len(p.States)+len(p.Status) > 0:
		return errors.New("an erasure takes a subject only: it is of all endpoints, times, types and states")
	}
	return nil
}

func (r erasure) step(ctx context.Context, j jobs.Job) (jobs.Step, error) {
	var at erasePlace
	if j.Cursor != "" {
		if err := json.Unmarshal([]byte(j.Cursor), &at); err != nil {
			return jobs.Step{}, refusef("the cursor is unreadable: %w", err)
		}
	}
	s := jobs.Step{Counts: map[string]int{}}
	var err error
	switch at.Part {
	case partChanges:
		at, err = r.changes(ctx, j, at, &s)
	case partEvents:
		if len(at.Late) < maxLate {
			at, err = r.events(ctx, j, at, &s)
		} else {
			at, err = r.late(ctx, at, &s)
		}
	case partLate:
		if at, err = r.late(ctx, at, &s); err == nil && len(at.Late) == 0 {
			at = erasePlace{Part: partJournal}
		}
	case partJournal:
		at, err = r.journal(ctx, j, at, &s)
	default:
		err = refusef("this version does not know the part %.20q of an erasure", at.Part)
	}
	if err != nil && (j.DryRun || len(s.Counts) == 0) {
		return jobs.Step{}, err
	}
	// What was done before an error is recorded, because it is not counted again. The next
	// step begins with what failed.
	switch at.Part {
	case partEvents:
		s.Progress = share(time.Duration(at.N), eraseSegments+1)
	case partLate, partJournal:
		s.Progress = share(eraseSegments, eraseSegments+1)
	}
	cursor, err := json.Marshal(at)
	s.Cursor = string(cursor)
	return s, err
}

// changes removes failed changes of the tenant whose item has the person's id; with
// Parameters.WithoutTenant, those of no tenant that could be read, too. They can be any
// tenant's.
func (r erasure) changes(ctx context.Context, j jobs.Job, at erasePlace, s *jobs.Step) (next erasePlace, err error) {
	page, err := r.d.Kept.ListFailedChanges(ctx, time.Time{}, keptPage, at.Page)
	if err != nil {
		return at, err
	}
	for _, f := range page.Changes {
		if f.Tenant != j.Tenant && (f.Tenant != "" || !j.Parameters.WithoutTenant) {
			continue
		}
		whole, err := r.d.Kept.GetFailedChange(ctx, f.ID)
		if errors.Is(err, platform.ErrNoFailedChange) {
			continue // it was captured in the meantime
		}
		if err != nil {
			return at, err
		}
		if !itemHas(whole, j.Parameters.Subject) {
			continue
		}
		if !j.DryRun {
			if err := r.d.Kept.RemoveFailedChange(ctx, f.ID); err != nil {
				return at, err
			}
		}
		s.Counts[jobs.Removed]++
	}
	if page.Next == "" {
		if !j.DryRun {
			s.Wait = eraseAfter
		}
		return erasePlace{Part: partEvents}, nil
	}
	at.Page = page.Next
	return at, nil
}

// itemHas reports whether the key or an image of a changed item has a text as a value. The
// rest of the stream's record, such as the operation, says nothing about a person.
func itemHas(f platform.FailedChange, text string) bool {
	var record struct {
		Change struct{ Keys, OldImage, NewImage json.RawMessage } `json:"dynamodb"`
	}
	parts := [][]byte{[]byte(f.Key), f.Record}
	if json.Unmarshal(f.Record, &record) == nil {
		c := record.Change
		parts = [][]byte{[]byte(f.Key), c.Keys, c.OldImage, c.NewImage}
	}
	return slices.ContainsFunc(parts, func(part []byte) bool { return catalog.HasText(part, text) })
}

// endpoints reads the tenant's endpoints.
func (r erasure) endpoints(ctx context.Context, j jobs.Job) (*tenant, error) {
	at := r.d.Now()
	list, err := r.d.Endpoints.ReadEndpoints(ctx, j.Tenant, true)
	if err != nil {
		return nil, err
	}
	return compile(at, list.Endpoints), nil
}

// events erases events and their deliveries, from some pages of the table.
func (r erasure) events(ctx context.Context, j jobs.Job, at erasePlace, s *jobs.Step) (next erasePlace, err error) {
	types, err := r.d.Types.Of(ctx, j.Tenant)
	if err != nil {
		return at, err
	}
	endpoints, err := r.endpoints(ctx, j)
	if err != nil {
		return at, err
	}
	began := r.d.Now()
	segment, page := at.N, at.Page // where the step begins
	over := func() bool { return r.d.Now().Sub(began) > jobSlice && (at.N != segment || at.Page != page) }
	for read := 0; read < erasePage && !over(); {
		found, err := r.d.StoredEvents.ScanEvents(ctx, event.Scan{Tenant: j.Tenant, Segment: at.N, Segments: eraseSegments, Cursor: at.Page})
		for i := 0; err == nil && i < len(found.Events); i++ {
			if len(at.Late) >= maxLate || over() {
				return at, nil
			}
			a := found.Events[i]
			var late []delivery.Key
			if late, err = r.event(ctx, j, types, endpoints, a, s); err == nil {
				at.Late = append(at.Late, late...)
				at.Page = a.ID
				s.Counts[jobs.Examined]++
			}
		}
		if err != nil && (at.N != segment || at.Page != page) {
			return at, nil // record what was done; the next step begins with what failed
		}
		if err != nil {
			return at, err
		}
		read += max(len(found.Events), 1)
		if at.Page = found.Next; at.Page != "" {
			continue
		}
		if at.N++; at.N == eraseSegments {
			return erasePlace{Part: partLate, Late: at.Late}, nil
		}
	}
	return at, nil
}

// event erases an event if it is about the person. It returns the deliveries whose attempts
// are under way.
func (r erasure) event(ctx context.Context, j jobs.Job, types *catalog.Catalog, endpoints *tenant, a event.Accepted, s *jobs.Step) (late []delivery.Key, err error) {
	again := !a.ErasedAt.IsZero()
	if !again && !concerns(types, a, j.Parameters.Subject) {
		return nil, nil
	}
	if !again {
		// Before the body is gone, which says who gets it: a work item of an endpoint that has
		// no record yet must find one.
		if _, err := r.deliveries(ctx, j, a, endpoints, s); err != nil {
			return nil, err
		}
		if !j.DryRun {
			if err := r.d.StoredEvents.EraseEvent(ctx, a, event.Erasure{ID: a.ID, By: j.ID, Now: r.d.Now()}); err != nil {
				return nil, err
			}
		}
		s.Counts[jobs.Erased]++
	}
	if j.DryRun {
		return nil, nil
	}
	if !again {
		a.ErasedAt = r.d.Now()
		// Fan-out may have queued it until now, also for an endpoint that was added since.
		if endpoints, err = r.endpoints(ctx, j); err != nil {
			return nil, err
		}
	}
	// After it, because a delivery may have been replayed, or parked, in between.
	if late, err = r.deliveries(ctx, j, a, endpoints, s); err != nil {
		return nil, err
	}
	items, err := journal.Holding(ctx, r.d.Journal, a.Tenant, a.ID)
	if err != nil {
		return nil, err
	}
	return late, r.clear(ctx, j, items, func(e journal.Entry) bool { return e.ID == a.ID })
}

// late erases the deliveries whose attempts were under way, as they end.
func (r erasure) late(ctx context.Context, at erasePlace, s *jobs.Step) (next erasePlace, err error) {
	var rest []delivery.Key
	for _, k := range at.Late {
		after, was, err := r.d.Erasures.EraseDelivery(ctx, delivery.Erase{Key: k, Now: r.d.Now()})
		switch {
		case errors.Is(err, delivery.ErrNotFound): // it has expired
		case err != nil:
			return at, err
		case after.State == delivery.InFlight:
			rest = append(rest, k)
			s.Wait = max(s.Wait, min(after.LeaseUntil.Sub(r.d.Now()), eraseWait)+time.Second)
		case !was.Settled():
			s.Counts[jobs.Stopped]++
		}
	}
	at.Late = rest
	return at, nil
}

// concerns reports whether an event is about a person.
func concerns(types *catalog.Catalog, a event.Accepted, person string) bool {
	e, err := event.Decode(a.Body)
	if err != nil {
		return catalog.HasText(a.Body, person)
	}
	if a.Subject == person || e.ActorUserID == person || types.Concerns(e.Type, e.Version, e.Data, person) {
		return true
	}
	versions, err := event.DecodeVersions(a.Versions)
	if err != nil {
		return catalog.HasText(a.Versions, person)
	}
	return slices.ContainsFunc(versions, func(v event.Version) bool {
		return v.Data != nil && types.Concerns(e.Type, v.Number, v.Data, person)
	})
}

// deliveries erases the deliveries of an event, and returns those whose attempts are under
// way. In a dry run it only counts.
func (r erasure) deliveries(ctx context.Context, j jobs.Job, a event.Accepted, endpoints *tenant, s *jobs.Step) (late []delivery.Key, err error) {
	e, _ := event.Decode(a.Body) // the zero value matches no endpoint
	at, err := event.IDTime(a.ID)
	if err != nil {
		return nil, err
	}
	getsIt := map[string]bool{}
	if a.ErasedAt.IsZero() {
		doc, unreadable := filter.Parse(a.Body)
		for _, sub := range endpoints.subs {
			matches, err := sub.matches(doc, unreadable, a, e.Type)
			getsIt[sub.endpoint.ID] = sub.endpoint.Subscribes(e.Type) && sub.broken == nil && err == nil && matches
		}
	}
	now := r.d.Now()
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(recoverWorkers)
	for id, ep := range endpoints.byID {
		erase := delivery.Erase{
			Key: delivery.Key{EndpointID: id, EventID: a.ID}, Tenant: a.Tenant, EventType: e.Type, Accepted: at, RetentionDays: a.RetentionDays, Now: now,
			Create: getsIt[id] || maybeGotIt(ep, at, a.ErasedAt),
		}
		group.Go(func() error {
			after, was, err := r.erase(ctx, j, erase)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(err, delivery.ErrNotFound):
			case err != nil:
				return err
			case after.State == delivery.InFlight && !j.DryRun:
				late = append(late, erase.Key)
			case !was.Settled() && was != "":
				s.Counts[jobs.Stopped]++
			}
			return nil
		})
	}
	err = group.Wait()
	return late, err
}

// maybeGotIt reports whether an endpoint, whose settings were different, can have matched an
// event whose ID was made at a time: perhaps long before it was stored, so the endpoint may
// have been added in between. What was added after fan-out learnt of the erasure got nothing.
func maybeGotIt(ep *endpoint.Endpoint, made, erased time.Time) bool {
	return ep.UpdatedAt.After(made.Add(-CacheTime)) && (erased.IsZero() || ep.CreatedAt.Before(erased.Add(eraseAfter)))
}

// erase erases a delivery. In a dry run it only reads it.
func (r erasure) erase(ctx context.Context, j jobs.Job, e delivery.Erase) (after delivery.Delivery, was delivery.State, err error) {
	if !j.DryRun {
		return r.d.Erasures.EraseDelivery(ctx, e)
	}
	held, err := r.d.Deliveries.GetDelivery(ctx, e.Key)
	return held, held.State, err
}

// journal clears the subjects and actors of the person's events: also of those that were
// fanned out after they were erased.
func (r erasure) journal(ctx context.Context, j jobs.Job, at erasePlace, s *jobs.Step) (next erasePlace, err error) {
	items, page, err := journal.Pages(ctx, r.d.Journal, j.Tenant, at.N, at.Page)
	if err == nil {
		err = r.clear(ctx, j, items, func(e journal.Entry) bool { return e.Names(j.Parameters.Subject) })
	}
	if err != nil {
		return at, err
	}
	if at.Page = page; page == "" {
		at.N++
		s.Done = at.N == journal.Shards
	}
	return at, nil
}

// clear clears entries of the journal.
func (r erasure) clear(ctx context.Context, j jobs.Job, items []journal.Item, selected func(journal.Entry) bool) error {
	for _, i := range items {
		cleared, changed := i.Clear(selected)
		if !changed || j.DryRun {
			continue
		}
		if err := r.d.Journal.PutJournal(ctx, cleared); err != nil {
			return err
		}
	}
	return nil
}
