// Package storetest is the conformance suite of the stores. It promises that the
// DynamoDB store and the memory store behave the same, so that results of the
// simulation, which uses the memory store, hold for both.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	closediscussions "github.com/tidings-dev/tidings/functions/close-discussions/handler"
	"github.com/tidings-dev/tidings/pkg/admin"
	"github.com/tidings-dev/tidings/pkg/admin/eventtypes"
	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/delivery/ratelimit"
	"github.com/tidings-dev/tidings/pkg/delivery/retry"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/journal"
	"github.com/tidings-dev/tidings/pkg/ops/alert"
	"github.com/tidings-dev/tidings/pkg/ops/health"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/pkg/systemtest/testreceiver"
)

// Store is what the suite tests: the interfaces that the functions declare.
type Store interface {
	emit.Events
	emit.Keys
	emit.FailedChanges
	emit.Recaptures
	emit.StuckCaptures
	failedChangesReader
	dispatch.Events
	dispatch.Endpoints
	dispatch.Disabler
	dispatch.Deliveries
	dispatch.DueIndex
	dispatch.Replays
	dispatch.Waiting
	dispatch.Breakers
	dispatch.Limits
	dispatch.Journal
	dispatch.Jobs
	dispatch.StoredEvents
	dispatch.Erasures
	dispatch.EventScan
	console.Jobs
	console.Deliveries
	journal.Source
	dispatch.Statistics
	stats.Source
	stats.Days
	closediscussions.Store
	admin.Store
	console.SessionStore
	console.Audit
	console.Discussions
	health.Endpoints
	alert.Documents
	eventtypes.Endpoints
	Platform
	testreceiver.Store
	DeleteValue(ctx context.Context, key string) error
	// ReserveSlots is testsend's.
	ReserveSlots(ctx context.Context, key string, cost time.Duration, now time.Time) (time.Time, error)
}

// start is a time with milliseconds.
var start = time.Date(2026, 1, 29, 12, 34, 56, 789e6, time.UTC)

const lease = 25 * time.Second

// Run runs the suite. open returns an empty store.
func Run(t *testing.T, open func(t *testing.T) Store) {
	t.Run("events", func(t *testing.T) { events(t, open(t)) })
	t.Run("retention", func(t *testing.T) { retention(t, open(t)) })
	t.Run("erased events", func(t *testing.T) { erasedEvents(t, open(t)) })
	t.Run("scans of events", func(t *testing.T) { eventScans(t, open(t)) })
	t.Run("idempotency keys", func(t *testing.T) { keys(t, open(t)) })
	t.Run("claims", func(t *testing.T) { claims(t, open(t)) })
	t.Run("conclusions", func(t *testing.T) { conclusions(t, open(t)) })
	t.Run("skips and replays", func(t *testing.T) { skipsAndReplays(t, open(t)) })
	t.Run("parking and releasing", func(t *testing.T) { parking(t, open(t)) })
	t.Run("circuits", func(t *testing.T) { circuits(t, open(t)) })
	t.Run("rate limits", func(t *testing.T) { limits(t, open(t)) })
	t.Run("due index", func(t *testing.T) { due(t, open(t)) })
	t.Run("queries", func(t *testing.T) { queries(t, open(t)) })
	t.Run("pending deliveries", func(t *testing.T) { pending(t, open(t)) })
	t.Run("bindings and counters", func(t *testing.T) { sessionStore(t, open(t)) })
	t.Run("audit log", func(t *testing.T) { auditLog(t, open(t)) })
	t.Run("endpoints", func(t *testing.T) { endpoints(t, open(t)) })
	RunDiscussions(t, func(t *testing.T) Discussions { return open(t) })
	t.Run("statistics", func(t *testing.T) { statistics(t, open(t)) })
	t.Run("concurrent statistics", func(t *testing.T) { concurrentStatistics(t, open(t)) })
	t.Run("statistics of days", func(t *testing.T) { days(t, open(t)) })
	t.Run("failed changes", func(t *testing.T) { failedChanges(t, open(t)) })
	t.Run("the mark that capture is stuck", func(t *testing.T) { stuckCapture(t, open(t)) })
	t.Run("jobs", func(t *testing.T) { storedJobs(t, open(t)) })
	t.Run("replays of jobs", func(t *testing.T) { replaysOfJobs(t, open(t)) })
	t.Run("the size of a backlog", func(t *testing.T) { backlogCount(t, open(t)) })
	t.Run("journal", func(t *testing.T) { journalItems(t, open(t)) })
	t.Run("documents", func(t *testing.T) { documents(t, open(t)) })
	t.Run("event types", func(t *testing.T) { eventTypes(t, open(t)) })
	t.Run("test runs", func(t *testing.T) { testRuns(t, open(t)) })
	t.Run("sweeps", func(t *testing.T) { sweeps(t, open(t)) })
	t.Run("concurrent workers", func(t *testing.T) { manyWorkers(t, open(t)) })
	t.Run("random operations agree with the pure transitions", func(t *testing.T) { model(t, open(t)) })
}

// newClaim returns a claim on a new delivery.
func newClaim() delivery.Claim {
	return delivery.Claim{
		Key:    delivery.Key{EndpointID: endpoint.NewID(start), EventID: event.NewID(start)},
		Tenant: "t1", EventType: "user.posted_comment", Accepted: start.Add(-time.Second), ID: "worker 1", Now: start, Lease: lease,
	}
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// refused fails unless err is a refusal for the cause.
func refused(t *testing.T, err error, cause delivery.Cause) *delivery.Refusal {
	t.Helper()
	var r *delivery.Refusal
	if !errors.As(err, &r) || r.Cause != cause {
		t.Fatalf("error = %v, want a refusal: %s", err, cause)
	}
	return r
}

func same(t *testing.T, got, want any) {
	t.Helper()
	// The TTL is kept in seconds.
	toSecond := cmp.FilterPath(func(p cmp.Path) bool { return strings.HasSuffix(p.String(), "ExpiresAt") },
		cmp.Comparer(func(a, b time.Time) bool { return a.Unix() == b.Unix() }))
	if diff := cmp.Diff(want, got, toSecond, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("not as expected (-want +got):\n%s", diff)
	}
}

func events(t *testing.T, s Store) {
	ctx := t.Context()
	for name, body := range map[string]string{
		"plain":           `{"id":"x","n":1}`,
		"beyond ASCII":    `{"t":"Grüße \u2028 <&> 🎟"}`,
		"numbers as said": `{"n":1e21,"m":1.0}`,
		"256 KiB":         `{"t":"` + strings.Repeat("x", event.MaxBodyBytes-8) + `"}`,
	} {
		a := event.Accepted{ID: event.NewID(start), Tenant: "t1", Body: []byte(body), Trace: "Root=1-2-3", Subject: "d_1", OldType: "t.old", Versions: []byte(`[{"version":2},{"version":1,"data":{"é":1e2}}]`), Undefined: name == "plain"}
		if err := s.PutEvent(ctx, a); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		a.ExpiresAt = start.Add(event.Retention(0))
		same(t, must[event.Accepted](t)(s.GetEvent(ctx, a.ID)), a)
		other := a
		other.Body = []byte(`{}`)
		if err := s.PutEvent(ctx, other); !errors.Is(err, event.ErrExists) {
			t.Errorf("%s: put again: %v, want ErrExists", name, err)
		}
		same(t, must[event.Accepted](t)(s.GetEvent(ctx, a.ID)), a)
	}
	if _, err := s.GetEvent(ctx, event.NewID(start)); !errors.Is(err, event.ErrNotFound) {
		t.Errorf("get a missing event: %v, want ErrNotFound", err)
	}
}

func keys(t *testing.T, s Store) {
	ctx, later := t.Context(), time.Now().Add(time.Hour)
	first := event.Reservation{EventID: "a", Digest: "1"}
	same(t, must[event.Reservation](t)(s.ReserveKey(ctx, "t1", "k", first, later)), first)
	same(t, must[event.Reservation](t)(s.ReserveKey(ctx, "t1", "k", event.Reservation{EventID: "b", Digest: "2"}, later)), first)
	// The same key of another tenant is independent.
	other := event.Reservation{EventID: "c", Digest: "3"}
	same(t, must[event.Reservation](t)(s.ReserveKey(ctx, "t2", "k", other, later)), other)
	// An expired key can be reserved again, before TTL deletes it, too.
	must[event.Reservation](t)(s.ReserveKey(ctx, "t1", "old", first, time.Now().Add(-time.Minute)))
	same(t, must[event.Reservation](t)(s.ReserveKey(ctx, "t1", "old", other, later)), other)

	var wins atomic.Int32
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() {
			mine := event.Reservation{EventID: fmt.Sprint("e", i), Digest: "d"}
			got, err := s.ReserveKey(ctx, "t1", "contested", mine, later)
			if err != nil {
				t.Error(err)
			}
			if got == mine {
				wins.Add(1)
			}
		})
	}
	all.Wait()
	if wins.Load() != 1 {
		t.Errorf("%d of 64 bound one key, want 1", wins.Load())
	}
}

func claims(t *testing.T, s Store) {
	ctx := t.Context()
	c := newClaim()
	want, _ := c.Apply(nil)
	same(t, must[delivery.Delivery](t)(s.Claim(ctx, c)), want)
	same(t, must[delivery.Delivery](t)(s.GetDelivery(ctx, c.Key)), want)
	// Repeated after a lost response: it succeeds again and counts once.
	same(t, must[delivery.Delivery](t)(s.Claim(ctx, c)), want)

	other := c
	other.ID = "worker 2"
	_, err := s.Claim(ctx, other)
	if r := refused(t, err, delivery.CauseInFlight); !r.Until.Equal(start.Add(lease)) || r.Attempts != 1 {
		t.Errorf("refusal = %+v, want until the lease's end", r)
	}
	other.Now = start.Add(lease - time.Millisecond)
	_, err = s.Claim(ctx, other)
	refused(t, err, delivery.CauseInFlight)
	// At exactly the end of the lease the delivery can be claimed, whatever the item's attempt count is.
	other.Now = start.Add(lease)
	taken := must[delivery.Delivery](t)(s.Claim(ctx, other))
	if taken.Attempts != 2 || taken.ClaimID != "worker 2" {
		t.Errorf("taken over as %+v", taken)
	}

	gone := newClaim()
	gone.Attempts = 3
	_, err = s.Claim(ctx, gone)
	refused(t, err, delivery.CauseSuperseded)

	if _, err := s.GetDelivery(ctx, gone.Key); !errors.Is(err, delivery.ErrNotFound) {
		t.Errorf("a refused claim left a record: %v", err)
	}
}

// concluded creates a delivery in the state after one attempt.
func concluded(t *testing.T, s Store, state delivery.State) (delivery.Claim, delivery.Delivery) {
	t.Helper()
	c := newClaim()
	claimed := must[delivery.Delivery](t)(s.Claim(t.Context(), c))
	next := conclusion(state).Apply(claimed)
	if err := s.Complete(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	return c, next
}

func conclusion(state delivery.State) delivery.Conclusion {
	k := delivery.Conclusion{State: state, Now: start.Add(time.Second), Attempt: delivery.Attempt{
		Number: 1, At: start, Class: delivery.Answered, Status: 503,
		Timings: delivery.Timings{DNS: time.Millisecond, Connect: 2 * time.Millisecond, TLS: 3 * time.Millisecond, FirstByte: 4 * time.Millisecond, Total: 10 * time.Millisecond},
	}}
	if state != delivery.Delivered {
		k.Reason, k.Snippet = "the receiver answered 503 – später", "Überlastet"
	}
	if state == delivery.Pending {
		k.NextAt, k.DueAt = start.Add(10*time.Second), start.Add(time.Minute)
	}
	return k
}

func conclusions(t *testing.T, s Store) {
	ctx := t.Context()
	for _, state := range []delivery.State{delivery.Delivered, delivery.Dead, delivery.Pending} {
		_, want := concluded(t, s, state)
		same(t, must[delivery.Delivery](t)(s.GetDelivery(ctx, want.Key)), want)
		if err := s.Complete(ctx, want); err != nil {
			t.Errorf("%s: completed again by its own worker: %v", state, err)
		}
	}

	c, _ := concluded(t, s, delivery.Delivered)
	c.ID = "worker 2"
	_, err := s.Claim(ctx, c)
	refused(t, err, delivery.CauseSettled)

	c, _ = concluded(t, s, delivery.Pending)
	c.ID = "worker 2"
	_, err = s.Claim(ctx, c)
	refused(t, err, delivery.CauseSuperseded)
	c.Attempts = 1
	c.Now = start.Add(10*time.Second - time.Millisecond)
	_, err = s.Claim(ctx, c)
	if r := refused(t, err, delivery.CauseEarly); !r.Until.Equal(start.Add(10 * time.Second)) {
		t.Errorf("refusal = %+v, want until the next attempt's time", r)
	}
	c.Now = start.Add(10 * time.Second)
	again := must[delivery.Delivery](t)(s.Claim(ctx, c))
	if again.Attempts != 2 || again.DueAt.IsZero() {
		t.Errorf("second attempt = %+v, want it still in the due index", again)
	}
	done := conclusion(delivery.Delivered)
	done.Attempt.Number = 2
	if err := s.Complete(ctx, done.Apply(again)); err != nil {
		t.Fatal(err)
	}
	if d := must[delivery.Delivery](t)(s.GetDelivery(ctx, c.Key)); !d.DueAt.IsZero() || len(d.History) != 2 {
		t.Errorf("delivered = %+v, want out of the due index, with both attempts", d)
	}

	// Only the worker with the claim can complete.
	slow := newClaim()
	mine := must[delivery.Delivery](t)(s.Claim(ctx, slow))
	slow.ID, slow.Now = "worker 2", start.Add(lease)
	must[delivery.Delivery](t)(s.Claim(ctx, slow))
	if err := s.Complete(ctx, conclusion(delivery.Delivered).Apply(mine)); !errors.Is(err, delivery.ErrFenced) {
		t.Errorf("completed by a worker that lost its claim: %v, want ErrFenced", err)
	}
	if d := must[delivery.Delivery](t)(s.GetDelivery(ctx, slow.Key)); d.State != delivery.InFlight {
		t.Errorf("the fenced write was applied: %+v", d)
	}
	// The claim, the attempt and the state each count: a claim's ID is kept after its end.
	held := must[delivery.Delivery](t)(s.GetDelivery(ctx, slow.Key))
	for name, change := range map[string]func(d *delivery.Delivery){
		"another claim":   func(d *delivery.Delivery) { d.ClaimID = "worker 1" },
		"another attempt": func(d *delivery.Delivery) { d.Attempts = 1 },
	} {
		stale := conclusion(delivery.Delivered).Apply(held)
		change(&stale)
		if err := s.Complete(ctx, stale); !errors.Is(err, delivery.ErrFenced) {
			t.Errorf("completed with %s: %v, want ErrFenced", name, err)
		}
	}
	if err := s.Complete(ctx, conclusion(delivery.Delivered).Apply(held)); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(d *delivery.Delivery){
		"another claim":   func(d *delivery.Delivery) { d.ClaimID = "worker 1" },
		"another attempt": func(d *delivery.Delivery) { d.Attempts = 1 },
		"another verdict": func(d *delivery.Delivery) { d.State = delivery.Dead },
	} {
		stale := conclusion(delivery.Delivered).Apply(held)
		change(&stale)
		if err := s.Complete(ctx, stale); !errors.Is(err, delivery.ErrFenced) {
			t.Errorf("completed again with %s: %v, want ErrFenced", name, err)
		}
	}
	if d := must[delivery.Delivery](t)(s.GetDelivery(ctx, slow.Key)); d.State != delivery.Delivered || d.Attempts != 2 {
		t.Errorf("a fenced write was applied: %+v", d)
	}
	nobody := mine
	nobody.EventID = event.NewID(start)
	if err := s.Complete(ctx, nobody); !errors.Is(err, delivery.ErrFenced) {
		t.Errorf("completed an unclaimed delivery: %v, want ErrFenced", err)
	}
}

func skipsAndReplays(t *testing.T, s Store) {
	ctx := t.Context()
	skip := func(k delivery.Key, at time.Time) error {
		return s.Settle(ctx, delivery.Settle{
			Key: k, Tenant: "t1", EventType: "user.posted_comment", Accepted: start, State: delivery.Skipped, Reason: "the endpoint was removed", Now: at,
		})
	}
	// Deliveries without a record, pending ones, and those of a dead worker.
	fresh := newClaim().Key
	pending, _ := concluded(t, s, delivery.Pending)
	claimed := newClaim()
	must[delivery.Delivery](t)(s.Claim(ctx, claimed))
	refused(t, skip(claimed.Key, start.Add(lease-time.Millisecond)), delivery.CauseInFlight)
	for _, k := range []delivery.Key{fresh, pending.Key, claimed.Key} {
		if err := skip(k, start.Add(lease)); err != nil {
			t.Fatal(err)
		}
		d := must[delivery.Delivery](t)(s.GetDelivery(ctx, k))
		if d.State != delivery.Skipped || !d.DueAt.IsZero() || d.Reason == "" || d.Tenant != "t1" {
			t.Errorf("skipped = %+v", d)
		}
		refused(t, skip(k, start.Add(time.Hour)), delivery.CauseSettled)
	}
	delivered, _ := concluded(t, s, delivery.Delivered)
	refused(t, skip(delivered.Key, start.Add(time.Hour)), delivery.CauseSettled)

	at := start.Add(48 * time.Hour)
	dead, before := concluded(t, s, delivery.Dead)
	for _, k := range []delivery.Key{dead.Key, delivered.Key, fresh} {
		d := must[delivery.Delivery](t)(s.Replay(ctx, delivery.Replay{Key: k, Now: at, DueAt: at.Add(time.Minute)}))
		if d.State != delivery.Pending || d.CountedAttempts() != 0 || !d.Since.Equal(at) || !d.NextAttemptAt.Equal(at) {
			t.Errorf("replayed = %+v", d)
		}
		same(t, must[delivery.Delivery](t)(s.GetDelivery(ctx, k)), d)
	}
	// A replay can wait in the endpoint's backlog.
	skipped := newClaim().Key
	if err := skip(skipped, start.Add(lease)); err != nil {
		t.Fatal(err)
	}
	must[delivery.Delivery](t)(s.Replay(ctx, delivery.Replay{Key: skipped, InBacklog: true, Now: at, DueAt: at.Add(time.Hour)}))
	backlog := must[delivery.Backlog](t)(s.ListBacklog(ctx, skipped.EndpointID, "", 10))
	if len(backlog.Deliveries) != 1 || backlog.Deliveries[0].EventID != skipped.EventID || !backlog.Deliveries[0].InBacklog {
		t.Errorf("the backlog after a replay into it: %+v", backlog)
	}
	_, err := s.Replay(ctx, delivery.Replay{Key: dead.Key, Now: at.Add(time.Second), DueAt: at})
	refused(t, err, delivery.CauseEarly)
	dead.Attempts, dead.ID, dead.Now = before.Attempts, "worker 2", at
	again := must[delivery.Delivery](t)(s.Claim(ctx, dead))
	if again.Attempts != 2 || again.CountedAttempts() != 1 {
		t.Errorf("claimed after a replay: %+v", again)
	}
	_, err = s.Replay(ctx, delivery.Replay{Key: dead.Key, Now: at, DueAt: at})
	refused(t, err, delivery.CauseInFlight)
	if _, err := s.Replay(ctx, delivery.Replay{Key: newClaim().Key, Now: at, DueAt: at}); !errors.Is(err, delivery.ErrNotFound) {
		t.Errorf("replayed a missing delivery: %v", err)
	}
}

func parking(t *testing.T, s Store) {
	ctx := t.Context()
	park := func(c delivery.Claim, waits bool, slot time.Time) (delivery.Delivery, error) {
		return s.Park(ctx, delivery.Park{
			Key: c.Key, Tenant: "t1", EventType: "user.posted_comment", Accepted: c.Accepted, Attempts: c.Attempts,
			InBacklog: waits, Slot: slot, DueAt: start.Add(time.Hour), Reason: "the circuit is open", Now: start,
		})
	}
	endpointID := endpoint.NewID(start)
	var waiting []delivery.Claim
	for i := range 5 {
		c := newClaim()
		c.EndpointID, c.EventID = endpointID, event.NewID(start.Add(time.Duration(i)*time.Minute))
		waiting = append(waiting, c)
	}
	for _, i := range []int{3, 1, 4, 0, 2} { // written in another order than the index has
		d := must[delivery.Delivery](t)(park(waiting[i], true, time.Time{}))
		if d.State != delivery.Pending || !d.InBacklog || d.Attempts != 0 || d.CountedAttempts() != 0 {
			t.Errorf("parked = %+v", d)
		}
		same(t, must[delivery.Delivery](t)(s.GetDelivery(ctx, waiting[i].Key)), d)
	}
	oldest := func() (ids []string) {
		for _, w := range must[delivery.Backlog](t)(s.ListBacklog(ctx, endpointID, "", 3)).Deliveries {
			ids = append(ids, w.EventID)
		}
		return ids
	}
	same(t, oldest(), []string{waiting[0].EventID, waiting[1].EventID, waiting[2].EventID})
	for after, want := range map[string][]int{"": {0, 1, 2}, waiting[0].EventID: {1, 2, 3}, waiting[2].EventID: {3, 4}, waiting[4].EventID: {}} {
		page := must[delivery.Backlog](t)(s.ListBacklog(ctx, endpointID, after, 3))
		var whole []delivery.Delivery
		for _, i := range want {
			whole = append(whole, must[delivery.Delivery](t)(s.GetDelivery(ctx, waiting[i].Key)))
		}
		same(t, page.Deliveries, whole)
		last := ""
		if n := len(want); n > 0 {
			last = waiting[want[n-1]].EventID
		}
		if more := last != "" && last != waiting[4].EventID; page.Last != last || page.More != more {
			t.Errorf("the page after %q ends with %q, more %t; want %q, %t", after, page.Last, page.More, last, more)
		}
	}
	must[delivery.Delivery](t)(s.Claim(ctx, waiting[0]))

	// A claim of a parked delivery, such as the probe, also ends its parking.
	must[delivery.Delivery](t)(s.Claim(ctx, waiting[1]))
	same(t, oldest(), []string{waiting[2].EventID, waiting[3].EventID, waiting[4].EventID})

	// No attempt may begin before its slot.
	slot := start.Add(30 * time.Second)
	limited := newClaim()
	d := must[delivery.Delivery](t)(park(limited, false, slot))
	if d.InBacklog || !d.Slot.Equal(slot) {
		t.Errorf("parked for a slot = %+v", d)
	}
	limited.Now = slot.Add(-time.Millisecond)
	_, err := s.Claim(ctx, limited)
	if r := refused(t, err, delivery.CauseEarly); !r.Until.Equal(slot) || !r.Slot.Equal(slot) {
		t.Errorf("refused = %+v, want until its slot", r)
	}
	limited.Now = slot
	if d = must[delivery.Delivery](t)(s.Claim(ctx, limited)); !d.Slot.IsZero() {
		t.Errorf("claimed = %+v: a slot is used up", d)
	}
	// Settled deliveries, deliveries in flight and later attempts cannot be parked.
	_, err = park(limited, true, time.Time{})
	refused(t, err, delivery.CauseInFlight)
	done, _ := concluded(t, s, delivery.Delivered)
	_, err = park(done, true, time.Time{})
	refused(t, err, delivery.CauseSettled)
	retried, _ := concluded(t, s, delivery.Pending)
	_, err = park(retried, true, time.Time{})
	refused(t, err, delivery.CauseSuperseded)
	retried.Attempts = 1 // and it is not due yet
	for _, slot := range []time.Time{{}, start.Add(time.Second)} {
		_, err = park(retried, slot.IsZero(), slot)
		if r := refused(t, err, delivery.CauseEarly); !r.Until.After(start) {
			t.Errorf("refused until %s", r.Until)
		}
	}
	expired := newClaim()
	expired.Attempts = 2
	_, err = park(expired, true, time.Time{})
	refused(t, err, delivery.CauseSuperseded)
	if got := must[delivery.Backlog](t)(s.ListBacklog(ctx, endpoint.NewID(start), "", 3)); len(got.Deliveries) != 0 || got.Last != "" || got.More {
		t.Errorf("of an endpoint for which nothing waits: %v", got)
	}
}

func circuits(t *testing.T, s Store) {
	ctx := t.Context()
	id := endpoint.NewID(start)
	clean := must[breaker.State](t)(s.GetBreaker(ctx, "t1", id, true))
	same(t, clean, breaker.State{EndpointID: id, Tenant: "t1"})

	// Every field is stored.
	open := breaker.State{
		EndpointID: id, Tenant: "t1", Phase: breaker.Open, Failures: 5, FailingSince: start, FailedAt: start.Add(time.Minute), Cause: "the receiver answered 503",
		Since: start.Add(time.Second), OpenFor: 5 * time.Minute, Until: start.Add(time.Hour), ProbeID: "p", ProbeUntil: start.Add(2 * time.Hour), WriteID: "w",
		SlowUntil: start.Add(4 * time.Second), SlowSince: start.Add(3 * time.Second), WakeAt: start.Add(time.Hour), Drain: breaker.Drain{
			Rate: 40, RateAt: start, Cursor: "a", SentAt: start.Add(time.Second), Mark: "b", MarkAt: start.Add(2 * time.Second), Behind: true,
			KeepUntil: start.Add(3 * time.Second),
		},
	}
	stored := must[breaker.State](t)(s.PutBreaker(ctx, open, start))
	open.Version = 1
	same(t, stored, open)
	same(t, must[breaker.State](t)(s.GetBreaker(ctx, "t1", id, true)), open)
	// A write over an older version fails.
	if _, err := s.PutBreaker(ctx, clean, start); !errors.Is(err, breaker.ErrConflict) {
		t.Errorf("put over a newer one: %v, want ErrConflict", err)
	}

	// Repeating a successful write succeeds; the same change by another worker does not.
	again := open
	again.Version = 0
	same(t, must[breaker.State](t)(s.PutBreaker(ctx, again, start)), open)
	again.WriteID = "another worker's"
	if _, err := s.PutBreaker(ctx, again, start); !errors.Is(err, breaker.ErrConflict) {
		t.Errorf("the same put by another worker: %v, want ErrConflict", err)
	}

	// The index has the circuits that need a wake-up, earliest first.
	other := breaker.State{EndpointID: endpoint.NewID(start), Tenant: "t1", Phase: breaker.Draining, Since: start, WakeAt: start}
	other = must[breaker.State](t)(s.PutBreaker(ctx, other, start))
	failing := breaker.State{EndpointID: endpoint.NewID(start), Tenant: "t1", Failures: 1, FailingSince: start, SlowUntil: start.Add(time.Minute)}
	must[breaker.State](t)(s.PutBreaker(ctx, failing, start))
	same(t, must[[]breaker.State](t)(s.ListCircuits(ctx, time.Time{})), []breaker.State{other, open})
	same(t, must[[]breaker.State](t)(s.ListCircuits(ctx, start)), []breaker.State{other})
	closed := other.Reset()
	must[breaker.State](t)(s.PutBreaker(ctx, closed, start))
	same(t, must[[]breaker.State](t)(s.ListCircuits(ctx, time.Time{})), []breaker.State{open})

	// Only one of many concurrent changes of a version succeeds.
	var wins atomic.Int32
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() {
			mine := open
			mine.ProbeID = fmt.Sprint("probe ", i)
			_, err := s.PutBreaker(ctx, mine, start)
			switch {
			case err == nil:
				wins.Add(1)
			case !errors.Is(err, breaker.ErrConflict):
				t.Error(err)
			}
		})
	}
	all.Wait()
	if wins.Load() != 1 {
		t.Errorf("%d of 64 changed one version, want 1", wins.Load())
	}
}

func limits(t *testing.T, s Store) {
	ctx := t.Context()
	limit := ratelimit.Limit{PerMinute: 600, Burst: 10}
	id := endpoint.NewID(start)
	// Concurrent reservations are adjacent; none is lost or given twice.
	var mu sync.Mutex
	var slots []time.Time
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			after, err := s.ReserveSlots(ctx, id, limit.Cost(3), start)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			slots = append(slots, limit.Slots(after, 3, start)...)
			mu.Unlock()
		})
	}
	all.Wait()
	slices.SortFunc(slots, time.Time.Compare)
	for i, slot := range slots {
		window := slot.Sub(start)
		if most := 10 + int(window*600/time.Minute); i+1 > most {
			t.Fatalf("%d slots within %s; at most %d may begin", i+1, window, most)
		}
	}
	if last := slots[len(slots)-1].Sub(start); last > 9*time.Second {
		t.Errorf("the last of 96 slots is after %s; at 10 a second it should be after about 8.6s", last)
	}
	// After a pause the burst is available again, and no more than it.
	later := start.Add(time.Hour)
	after := must[time.Time](t)(s.ReserveSlots(ctx, id, limit.Cost(20), later))
	at := limit.Slots(after, 20, later)
	if immediate := slices.IndexFunc(at, func(slot time.Time) bool { return slot.After(later) }); immediate < 7 || immediate > 10 {
		t.Errorf("%d of 20 may begin at once after a pause, want up to the burst of 10", immediate)
	}
	// A reservation that reaches too far is refused, and changes nothing.
	refused := limit.Reserve(1, later, later.Add(-time.Second))
	from, ok, err := s.Reserve(ctx, id, refused)
	if err != nil || ok || !from.Equal(after) {
		t.Errorf("reserved too far ahead: from %s, %t, %v; want refused from %s", from, ok, err, after)
	}
	far := limit.Reserve(2, later, later.Add(time.Hour))
	for _, want := range []time.Time{after.Add(limit.Cost(2)), after.Add(limit.Cost(4))} {
		if at, ok, err := s.Reserve(ctx, id, far); err != nil || !ok || !at.Equal(want) {
			t.Errorf("reserved %s, %t, %v; want %s", at, ok, err, want)
		}
	}
	fresh := endpoint.NewID(start)
	if at, ok, err := s.Reserve(ctx, fresh, far); err != nil || !ok || !at.Equal(later.Add(limit.Cost(2))) {
		t.Errorf("reserved for the first time: %s, %t, %v", at, ok, err)
	}
	// A time from before the limit was used by these rules is ignored.
	must[time.Time](t)(s.ReserveSlots(ctx, fresh, 100*time.Hour, later))
	if at, ok, err := s.Reserve(ctx, fresh, far); err != nil || !ok || !at.Equal(later.Add(limit.Cost(2))) {
		t.Errorf("reserved after a time in days: %s, %t, %v", at, ok, err)
	}
	after = after.Add(limit.Cost(4)) // by both reservations

	// A returned slot is available for the next reservation.
	if back := must[time.Time](t)(s.ReserveSlots(ctx, id, -limit.Cost(1), later)); !back.Equal(after.Add(-limit.Cost(1))) {
		t.Errorf("given back: %s, want %s", back, after.Add(-limit.Cost(1)))
	}
	if again := must[time.Time](t)(s.ReserveSlots(ctx, id, limit.Cost(1), later)); !again.Equal(after) {
		t.Errorf("reserved again: %s, want %s", again, after)
	}
}

func due(t *testing.T, s Store) {
	ctx := t.Context()
	want := map[delivery.Key]bool{}
	for range 120 {
		c, _ := concluded(t, s, delivery.Pending) // due a minute after start
		want[c.Key] = true
	}
	concluded(t, s, delivery.Delivered) // never due
	read := func(before time.Time) (found []delivery.Due) {
		for shard := range delivery.DueShards {
			cursor, last := "", time.Time{}
			for {
				page, next, err := s.Due(ctx, shard, before, cursor, 3)
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range page {
					if d.DueShard() != shard || d.DueAt.Before(last) {
						t.Errorf("shard %d gave %+v after %s", shard, d, last)
					}
					last = d.DueAt
				}
				found = append(found, page...)
				if next == "" {
					break
				}
				cursor = next
			}
		}
		return found
	}
	if early := read(start.Add(time.Minute - time.Millisecond)); len(early) != 0 {
		t.Errorf("%d deliveries are due before their time", len(early))
	}
	found := read(start.Add(time.Minute))
	for _, d := range found {
		if !want[d.Key] {
			t.Errorf("%s is due twice, or should not be due", d.Key)
		}
		delete(want, d.Key)
	}
	if len(want) != 0 {
		t.Errorf("%d deliveries are missing from the index", len(want))
	}
	// Only one of two changes of a due time succeeds.
	one, later := found[0], start.Add(time.Hour)
	moved := must[delivery.Delivery](t)(s.Postpone(ctx, one, later))
	if !moved.DueAt.Equal(later) || moved.State != delivery.Pending {
		t.Errorf("postponed = %+v", moved)
	}
	if _, err := s.Postpone(ctx, one, later.Add(time.Hour)); !errors.Is(err, delivery.ErrFenced) {
		t.Errorf("postponed twice: %v, want ErrFenced", err)
	}
	if left := len(read(start.Add(time.Minute))); left != len(found)-1 {
		t.Errorf("%d are due after one of %d was postponed", left, len(found))
	}
	if _, err := s.Postpone(ctx, delivery.Due{Key: newClaim().Key, DueAt: start}, later); !errors.Is(err, delivery.ErrFenced) {
		t.Errorf("postponed a missing delivery: %v, want ErrFenced", err)
	}
	if _, _, err := s.Due(ctx, 0, start, "no cursor", 3); err == nil {
		t.Error("a malformed cursor is accepted")
	}
}

func queries(t *testing.T, s Store) {
	ctx := t.Context()
	var all []delivery.Delivery
	id := endpoint.NewID(start)
	for i := range 25 {
		at := start.Add(time.Duration(i) * time.Minute)
		c := newClaim()
		c.EndpointID, c.EventID, c.Now = id, event.NewID(at), at
		if i%5 == 0 {
			c.EventType = "discussion.extended"
		}
		d := must[delivery.Delivery](t)(s.Claim(ctx, c))
		state := delivery.Delivered
		if i%3 == 0 {
			state = delivery.Dead
		}
		d = conclusion(state).Apply(d)
		if err := s.Complete(ctx, d); err != nil {
			t.Fatal(err)
		}
		all = append(all, d)
	}
	concluded(t, s, delivery.Dead) // of another endpoint
	slices.Reverse(all)            // newest first
	for name, c := range map[string]struct {
		q    delivery.Query
		want func(i int, d delivery.Delivery) bool // i counts from the newest
	}{
		"everything":           {delivery.Query{}, func(int, delivery.Delivery) bool { return true }},
		"one state":            {delivery.Query{State: delivery.Dead}, func(_ int, d delivery.Delivery) bool { return d.State == delivery.Dead }},
		"a state nobody is in": {delivery.Query{State: delivery.Skipped}, func(int, delivery.Delivery) bool { return false }},
		"a time range, both ends included": {delivery.Query{From: start.Add(5 * time.Minute), To: start.Add(10 * time.Minute)},
			func(i int, _ delivery.Delivery) bool { n := 24 - i; return n >= 5 && n <= 10 }},
		"one type": {delivery.Query{EventType: "discussion.extended"}, func(i int, d delivery.Delivery) bool { return (24-i)%5 == 0 }},
		"a type and a state, few looked at for a page": {delivery.Query{EventType: "discussion.extended", State: delivery.Dead, Examine: 7},
			func(i int, d delivery.Delivery) bool { return (24-i)%15 == 0 }},
		"a state nobody is in, few looked at for a page": {delivery.Query{State: delivery.Skipped, Examine: 3}, func(int, delivery.Delivery) bool { return false }},
		"everything, few looked at for a page":           {delivery.Query{Examine: 3}, func(int, delivery.Delivery) bool { return true }},
		"a status, few looked at for a page":             {delivery.Query{Status: delivery.Statuses{Min: 500, Max: 599}, Examine: 7}, func(int, delivery.Delivery) bool { return true }},
		"a status that nobody answered":                  {delivery.Query{Status: delivery.Statuses{Min: 400, Max: 499}}, func(int, delivery.Delivery) bool { return false }},
		"a state and a status":                           {delivery.Query{State: delivery.Dead, Status: delivery.Statuses{Min: 503, Max: 503}}, func(_ int, d delivery.Delivery) bool { return d.State == delivery.Dead }},
		"a state within a time range": {delivery.Query{State: delivery.Dead, From: start.Add(5 * time.Minute), To: start.Add(12 * time.Minute)},
			func(i int, d delivery.Delivery) bool {
				n := 24 - i
				return d.State == delivery.Dead && n >= 5 && n <= 12
			}},
		"an open range": {delivery.Query{From: start.Add(20 * time.Minute)}, func(i int, _ delivery.Delivery) bool { return 24-i >= 20 }},
	} {
		for _, limit := range []int{1, 4, 25, 0} {
			var want, got []delivery.Delivery
			for i, d := range all {
				if c.want(i, d) {
					want = append(want, d)
				}
			}
			q := c.q
			q.EndpointID, q.Limit = id, limit
			for pages := 1; ; pages++ {
				page := must[delivery.Page](t)(s.QueryDeliveries(ctx, q))
				if q.Examine > 0 && q.State == delivery.Skipped && page.Next != "" && pages > len(all)/q.Examine {
					t.Fatalf("%s: page %d of %d deliveries, though each may look at %d", name, pages, len(all), q.Examine)
				}
				if len(page.Deliveries) > q.PageSize() {
					t.Errorf("%s: a page of %d, limit %d", name, len(page.Deliveries), limit)
				}
				got = append(got, page.Deliveries...)
				if page.Next == "" {
					break
				}
				q.Cursor = page.Next
			}
			same(t, got, want)
		}
	}
	dead := must[delivery.Page](t)(s.QueryDeliveries(ctx, delivery.Query{EndpointID: id, State: delivery.Dead, Limit: 4}))
	if dead.Examined != 5 {
		t.Errorf("%d deliveries were read for a page of four dead letters, want 5: only those that are dead", dead.Examined)
	}
	backwards := delivery.Query{EndpointID: id, From: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), To: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)}
	if _, err := s.QueryDeliveries(ctx, backwards); err == nil || !strings.Contains(err.Error(), "from (2030-01-01T00:00:00Z) is after to (2020-01-01T00:00:00Z)") {
		t.Errorf("a range that ends before it begins: %v", err)
	}
	if _, err := s.QueryDeliveries(ctx, delivery.Query{EndpointID: id, Cursor: "no cursor"}); err == nil {
		t.Error("a malformed cursor is accepted")
	}
}

func endpoints(t *testing.T, s Store) {
	ctx := t.Context()
	e := endpoint.Endpoint{
		Tenant: "t1", ID: endpoint.NewID(start), URL: "https://example.com/ä?x=1", Description: "CRM", EventTypes: []string{"user.*", "discussion.extended"},
		Filter:  []byte(`{"data":{"status":["success"]}}`),
		Secrets: []endpoint.SigningSecret{{Secret: signature.NewSecret()}, {Secret: signature.NewEd25519(), ExpiresAt: start.Add(time.Hour)}},
		RoleARN: "arn:aws:iam::123456789012:role/tidings", Credentials: "tidings/t1/kafka", Ordered: true, Traceparent: true, OldNames: true, TypeVersions: map[string]int{"order.paid": 2},
		Shape: endpoint.Shape{Format: endpoint.FormatCloudEvents, Thin: true, Include: []string{"data.a"}, Exclude: []string{"data.ü"}, Method: "PUT", ContentType: "text/plain"},
		Auth: &endpoint.Auth{
			Headers: []endpoint.AuthHeader{{Name: "X-Team", Value: endpoint.NewSecret("crm <&>")}}, Basic: &endpoint.BasicAuth{User: "ü", Password: endpoint.NewSecret("pässword \"1\"")},
			Bearer: endpoint.NewSecret("t"), APIKey: &endpoint.AuthHeader{Name: "X-Api-Key", Value: endpoint.NewSecret("k")},
			OAuth2:            &endpoint.OAuth2{TokenURL: "https://login.example.com/token", ClientID: "c", ClientSecret: endpoint.NewSecret("s"), Scopes: []string{"a", "b"}, Audience: "crm", SecretInBody: true},
			ClientCertificate: "tidings/t1/crm",
		},
		Timeout: 5 * time.Second, Retry: retry.Policy{MaxAttempts: 3, MaxAge: time.Hour, MaxDelay: time.Minute},
		Status: endpoint.Enabled, Version: 1, CreatedAt: start, UpdatedAt: start,
	}
	equal := func(got, want endpoint.Endpoint) {
		t.Helper()
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b signature.Secret) bool { return a.Reveal() == b.Reveal() }),
			cmp.Comparer(func(a, b endpoint.Secret) bool { return a.Reveal() == b.Reveal() })); diff != "" {
			t.Errorf("not as expected (-want +got):\n%s", diff)
		}
	}
	if err := s.AddEndpoint(ctx, e); err != nil {
		t.Fatal(err)
	}
	if err := s.AddEndpoint(ctx, e); err != nil {
		t.Errorf("the same write, repeated after a lost response: %v", err)
	}
	taken := e
	taken.URL = "https://example.com/another"
	if err := s.AddEndpoint(ctx, taken); !errors.Is(err, endpoint.ErrConflict) {
		t.Errorf("another endpoint under its id: %v", err)
	}
	equal(must[endpoint.Endpoint](t)(s.GetEndpoint(ctx, "t1", e.ID)), e)
	if _, err := s.GetEndpoint(ctx, "t2", e.ID); !errors.Is(err, endpoint.ErrNotFound) {
		t.Errorf("another tenant reads it: %v", err)
	}

	edited := e
	edited.Description = "CRM 2"
	edited = must[endpoint.Endpoint](t)(s.UpdateEndpoint(ctx, edited))
	if edited.Version != 2 {
		t.Errorf("version = %d", edited.Version)
	}
	again := edited
	again.Version = 1
	if got := must[endpoint.Endpoint](t)(s.UpdateEndpoint(ctx, again)); got.Version != 2 {
		t.Errorf("the same edit, repeated after a lost response, makes version %d", got.Version)
	}
	if _, err := s.UpdateEndpoint(ctx, e); !errors.Is(err, endpoint.ErrConflict) {
		t.Errorf("an edit of an older version succeeds: %v", err)
	}
	equal(must[endpoint.Endpoint](t)(s.GetEndpoint(ctx, "t1", e.ID)), edited)

	for range 2 { // the second time it is disabled already
		if err := s.DisableEndpoint(ctx, "t1", e.ID, "410", start.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if d := must[endpoint.Endpoint](t)(s.GetEndpoint(ctx, "t1", e.ID)); d.Status != endpoint.Disabled || d.StatusReason != "410" || d.Version != 3 {
		t.Errorf("disabled = %+v", d)
	}
	if err := s.DisableEndpoint(ctx, "t1", "ep_nobody", "410", start); err != nil {
		t.Errorf("disabling a deleted endpoint: %v", err)
	}

	// The version of the list grows with what can make an endpoint match more events.
	version := func() int64 {
		t.Helper()
		list := must[endpoint.List](t)(s.ReadEndpoints(ctx, "t1", true))
		if v := must[int64](t)(s.EndpointsVersion(ctx, "t1")); v != list.Version {
			t.Errorf("the version of the list is %d, and the list has %d", v, list.Version)
		}
		return list.Version
	}
	before := version()
	second := e
	second.ID = endpoint.NewID(start.Add(time.Second))
	if err := s.AddEndpoint(ctx, second); err != nil {
		t.Fatal(err)
	}
	added := version()
	second = must[endpoint.Endpoint](t)(s.UpdateEndpoint(ctx, second))
	if updated := version(); before >= added || added >= updated {
		t.Errorf("versions %d, %d and %d before and after an endpoint was added, and updated; they must grow", before, added, updated)
	}
	if v := must[int64](t)(s.EndpointsVersion(ctx, "t2")); v != 0 {
		t.Errorf("version %d of a tenant without endpoints", v)
	}
	if list := must[endpoint.List](t)(s.ReadEndpoints(ctx, "t1", true)); len(list.Endpoints) != 2 || list.Endpoints[1].ID != second.ID {
		t.Errorf("list = %v", list)
	}
	if list := must[[]endpoint.Endpoint](t)(s.ListEndpoints(ctx, "t1")); len(list) != 2 || list[1].ID != second.ID {
		t.Errorf("list = %v", list)
	}
	if list := must[[]endpoint.Endpoint](t)(s.ListEndpoints(ctx, "t2")); len(list) != 0 {
		t.Errorf("another tenant's list = %v", list)
	}
	other := e
	other.Tenant, other.ID = "t2", endpoint.NewID(start.Add(2*time.Second))
	if err := s.AddEndpoint(ctx, other); err != nil {
		t.Fatal(err)
	}
	var all []string
	if err := s.EachEndpoint(ctx, func(some []endpoint.Endpoint) error {
		for _, e := range some {
			all = append(all, e.Tenant+" "+e.ID)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	if want := []string{"t1 " + e.ID, "t1 " + second.ID, "t2 " + other.ID}; !slices.Equal(all, want) {
		t.Errorf("the endpoints of all tenants are %v, want %v", all, want)
	}
	stop := errors.New("enough")
	if err := s.EachEndpoint(ctx, func([]endpoint.Endpoint) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("error %v, want the one of do", err)
	}
	if err := s.RemoveEndpoint(ctx, "t2", other.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveEndpoint(ctx, "t1", e.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveEndpoint(ctx, "t1", e.ID); !errors.Is(err, endpoint.ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
	if _, err := s.UpdateEndpoint(ctx, edited); !errors.Is(err, endpoint.ErrNotFound) {
		t.Errorf("an edit restores a deleted endpoint: %v", err)
	}
}

func manyWorkers(t *testing.T, s Store) {
	const workers = 64
	race := func(what string, c delivery.Claim) {
		t.Helper()
		var wins atomic.Int32
		var all sync.WaitGroup
		for i := range workers {
			all.Go(func() {
				mine := c
				mine.ID = fmt.Sprintf("%s %d", what, i)
				_, err := s.Claim(t.Context(), mine)
				var r *delivery.Refusal
				switch {
				case err == nil:
					wins.Add(1)
				case !errors.As(err, &r) || r.Cause != delivery.CauseInFlight:
					t.Errorf("%s: %v", what, err)
				}
			})
		}
		all.Wait()
		if wins.Load() != 1 {
			t.Errorf("%s: %d of %d workers won, want 1", what, wins.Load(), workers)
		}
	}
	c := newClaim()
	race("first attempt", c)
	c.Now = start.Add(lease)
	race("take-over", c)
	retried, _ := concluded(t, s, delivery.Pending)
	retried.Attempts, retried.Now = 1, start.Add(time.Minute)
	race("second attempt", retried)
	if d := must[delivery.Delivery](t)(s.GetDelivery(t.Context(), c.Key)); d.Attempts != 2 {
		t.Errorf("%d attempts began, want 2", d.Attempts)
	}
}

// model applies random operations to the store and, with the pure transitions, to a
// plain value, and compares every result.
func model(t *testing.T, s Store) {
	rapid.Check(t, func(r *rapid.T) {
		ctx := context.Background()
		key := newClaim().Key
		var want *delivery.Delivery
		var claims []delivery.Delivery // that workers believe to have
		now := start
		answer := func(what string, got delivery.Delivery, err error, after delivery.Delivery, refusal *delivery.Refusal) {
			var saw *delivery.Refusal
			if err != nil && !errors.As(err, &saw) {
				r.Fatalf("%s: %v", what, err)
			}
			if diff := cmp.Diff(refusal, saw); diff != "" {
				r.Fatalf("%s: refusal (-want +got):\n%s", what, diff)
			}
			if refusal == nil {
				want = &after
			}
		}
		for range rapid.IntRange(1, 12).Draw(r, "moves") {
			now = now.Add(time.Duration(rapid.IntRange(0, 40).Draw(r, "seconds")) * time.Second)
			switch rapid.SampledFrom([]string{"claim", "complete", "settle", "park", "replay", "erase"}).Draw(r, "move") {
			case "claim":
				c := delivery.Claim{Key: key, Tenant: "t1", EventType: "x", Accepted: start, ID: rapid.SampledFrom([]string{"a", "b"}).Draw(r, "worker"), Now: now, Lease: lease,
					Attempts: rapid.IntRange(0, 4).Draw(r, "believed")}
				after, refusal := c.Apply(want)
				got, err := s.Claim(ctx, c)
				answer("claim", got, err, after, refusal)
				if refusal == nil {
					claims = append(claims, got)
				}
			case "complete":
				if len(claims) == 0 {
					continue
				}
				held := rapid.SampledFrom(claims).Draw(r, "claim")
				k := conclusion(rapid.SampledFrom([]delivery.State{delivery.Delivered, delivery.Pending, delivery.Dead}).Draw(r, "verdict"))
				k.Now, k.Attempt.Number, k.NextAt, k.DueAt = now, held.Attempts, now.Add(10*time.Second), now.Add(time.Minute)
				after := k.Apply(held)
				after.ErasedAt = want.ErasedAt // an attempt that is under way is only marked
				err := s.Complete(ctx, after)
				holds := want.State == delivery.InFlight && want.ClaimID == held.ClaimID && want.Attempts == held.Attempts
				repeated := want.ClaimID == held.ClaimID && want.Attempts == held.Attempts && want.State == after.State
				switch {
				case holds && err == nil:
					want = &after
				case holds, repeated && err != nil, !repeated && !errors.Is(err, delivery.ErrFenced):
					r.Fatalf("complete: %v; the store holds %+v", err, want)
				}
			case "settle":
				k := delivery.Settle{Key: key, Tenant: "t1", Accepted: start, Reason: "gone", Now: now,
					EventType: rapid.SampledFrom([]string{"", "x"}).Draw(r, "type"),
					State:     rapid.SampledFrom([]delivery.State{delivery.Skipped, delivery.Dead}).Draw(r, "end")}
				if rapid.Bool().Draw(r, "by age") {
					k.SinceBefore = now.Add(-time.Minute)
				}
				after, refusal := k.Apply(want)
				answer("settle", after, s.Settle(ctx, k), after, refusal)
			case "park":
				k := delivery.Park{Key: key, Tenant: "t1", EventType: "x", Accepted: start, Reason: "waits", Now: now,
					Attempts: rapid.IntRange(0, 4).Draw(r, "believed"), DueAt: now.Add(time.Hour), InBacklog: rapid.Bool().Draw(r, "for the circuit")}
				if !k.InBacklog {
					k.Slot = now.Add(time.Minute)
				}
				after, refusal := k.Apply(want)
				got, err := s.Park(ctx, k)
				answer("park", got, err, after, refusal)
			case "erase":
				k := delivery.Erase{Key: key, Tenant: "t1", EventType: "x", Accepted: start, Create: rapid.Bool().Draw(r, "create"), Now: now}
				after, ok := k.Apply(want)
				got, was, err := s.EraseDelivery(ctx, k)
				if ok != (err == nil) || !ok && !errors.Is(err, delivery.ErrNotFound) || want != nil && was != want.State || want == nil && was != "" {
					r.Fatalf("erase: was %q, %v; the store holds %+v", was, err, want)
				}
				got.ExpiresAt = after.ExpiresAt // it is kept in seconds
				if ok {
					want = &after
					if diff := cmp.Diff(after, got, cmpopts.EquateEmpty()); diff != "" {
						r.Fatalf("erase (-want +got):\n%s", diff)
					}
				}
			case "replay":
				if want == nil {
					continue
				}
				k := delivery.Replay{Key: key, Now: now, DueAt: now.Add(time.Minute)}
				after, refusal := k.Apply(*want)
				got, err := s.Replay(ctx, k)
				answer("replay", got, err, after, refusal)
			}
			if want == nil {
				continue
			}
			got, err := s.GetDelivery(ctx, key)
			if err != nil {
				r.Fatal(err)
			}
			for _, state := range delivery.States {
				page, err := s.QueryDeliveries(ctx, delivery.Query{EndpointID: key.EndpointID, State: state})
				if err != nil || (len(page.Deliveries) == 1) != (state == want.State) {
					r.Fatalf("%d deliveries that are %s, while the only one is %s; %v", len(page.Deliveries), state, want.State, err)
				}
			}
			// A claim's retention is in seconds on both sides.
			got.ExpiresAt = want.ExpiresAt
			if diff := cmp.Diff(*want, got, cmpopts.EquateEmpty()); diff != "" {
				r.Fatalf("the store differs from the transitions (-want +got):\n%s", diff)
			}
		}
	})
}
