package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
	"github.com/tidings-dev/tidings/pkg/event/journal"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/store/memory"
)

// stumblingTables are an erasure's tables, of whose calls one fails for a minute, without
// having done anything.
type stumblingTables struct {
	*memory.Store
	mu     sync.Mutex
	fails  int       // which one: 1 is the first, 0 none
	calls  int       // so far
	what   string    // the call that fails
	until  time.Time // when it works again
	failed int       // how often it has failed
}

func (s *stumblingTables) stumble(what string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls++; s.calls == s.fails {
		s.what, s.until = what, time.Now().Add(time.Minute)
	}
	if what != s.what || !time.Now().Before(s.until) {
		return nil
	}
	s.failed++
	return errors.New("throttled")
}

func (s *stumblingTables) ListFailedChanges(ctx context.Context, from time.Time, limit int, cursor string) (platform.FailedChangePage, error) {
	if err := s.stumble("ListFailedChanges"); err != nil {
		return platform.FailedChangePage{}, err
	}
	return s.Store.ListFailedChanges(ctx, from, 2, cursor) // two pages
}

func (s *stumblingTables) GetFailedChange(ctx context.Context, id string) (platform.FailedChange, error) {
	if err := s.stumble("GetFailedChange"); err != nil {
		return platform.FailedChange{}, err
	}
	return s.Store.GetFailedChange(ctx, id)
}

func (s *stumblingTables) RemoveFailedChange(ctx context.Context, id string) error {
	if err := s.stumble("RemoveFailedChange"); err != nil {
		return err
	}
	return s.Store.RemoveFailedChange(ctx, id)
}

func (s *stumblingTables) Of(context.Context, string) (*catalog.Catalog, error) {
	return catalog.Default(), s.stumble("Of")
}

func (s *stumblingTables) ReadEndpoints(ctx context.Context, tenant string, consistent bool) (endpoint.List, error) {
	if consistent { // those of a cache are others'
		if err := s.stumble("ReadEndpoints"); err != nil {
			return endpoint.List{}, err
		}
	}
	return s.Store.ReadEndpoints(ctx, tenant, consistent)
}

func (s *stumblingTables) ScanEvents(ctx context.Context, q event.Scan) (event.ScanPage, error) {
	if err := s.stumble("ScanEvents"); err != nil {
		return event.ScanPage{}, err
	}
	return s.Store.ScanEvents(ctx, q)
}

func (s *stumblingTables) EraseEvent(ctx context.Context, a event.Accepted, e event.Erasure) error {
	if err := s.stumble("EraseEvent"); err != nil {
		return err
	}
	return s.Store.EraseEvent(ctx, a, e)
}

func (s *stumblingTables) EraseDelivery(ctx context.Context, e delivery.Erase) (delivery.Delivery, delivery.State, error) {
	if err := s.stumble("EraseDelivery"); err != nil {
		return delivery.Delivery{}, "", err
	}
	return s.Store.EraseDelivery(ctx, e)
}

func (s *stumblingTables) QueryJournal(ctx context.Context, r journal.Range) ([]journal.Item, bool, error) {
	if err := s.stumble("QueryJournal"); err != nil {
		return nil, false, err
	}
	return s.Store.QueryJournal(ctx, r)
}

func (s *stumblingTables) PutJournal(ctx context.Context, i journal.Item) error {
	if err := s.stumble("PutJournal"); err != nil {
		return err
	}
	return s.Store.PutJournal(ctx, i)
}

func (s *stumblingTables) GetDelivery(ctx context.Context, k delivery.Key) (delivery.Delivery, error) {
	if err := s.stumble("GetDelivery"); err != nil {
		return delivery.Delivery{}, err
	}
	return s.Store.GetDelivery(ctx, k)
}

// stored returns everything about the events and the failed changes that is stored.
func (w *world) stored(e endpoint.Endpoint, all []event.Accepted) (text string) {
	w.t.Helper()
	for _, a := range all {
		held, err := w.store.GetEvent(w.t.Context(), a.ID)
		d, missing := w.store.GetDelivery(w.t.Context(), delivery.Key{EndpointID: e.ID, EventID: a.ID})
		text += fmt.Sprintf("%+v %v %+v %v %s\n", held, err, d, missing, w.journaled(a.ID))
	}
	changes, err := w.store.ListFailedChanges(w.t.Context(), time.Time{}, 0, "")
	return text + fmt.Sprintf("%+v %v", changes, err)
}

// Whatever call of a table fails for a minute, the erasure does it again, not too often: it
// ends, and has erased and counted the same. One of the attempts is of a worker that died. A
// dry run counts the same and changes nothing.
func TestAnErasureRepeatsWhatFailed(t *testing.T) {
	clean := map[bool]map[string]int{}
	// run erases while a call fails, and returns how many calls there were.
	run := func(t *testing.T, dry bool, fails int) (calls int) {
		synctest.Test(t, func(t *testing.T) {
			tables := &stumblingTables{}
			w := newWorld(t, func(c *dispatch.Config) {
				tables.Store = c.Jobs.(*memory.Store)
				c.StoredEvents, c.Erasures, c.Kept, c.Types, c.Journal, c.Endpoints, c.Deliveries = tables, tables, tables, tables, tables, tables, tables
			})
			e := w.endpoint()
			time.Sleep(time.Minute)
			var all []event.Accepted
			for range 2 {
				events, records := w.about()
				w.fanOut(records...)
				all = append(all, events...)
			}
			for n := range 3 {
				f := platform.FailedChange{ID: fmt.Sprintf("01KG4VZS4NCPSXFR1K7QEWBC9%d", n), Tenant: event.DefaultTenant, Key: `{"pk":{"S":"u_1042"}}`, Reason: "x", FirstSeen: time.Now()}
				if _, err := w.store.KeepFailedChange(t.Context(), f); err != nil {
					t.Fatal(err)
				}
			}
			w.receiver.answer = func(context.Context, destination.Message) delivery.Outcome {
				return delivery.Outcome{Class: delivery.Answered, Status: 503, Error: "busy", RetryAfter: 24 * time.Hour}
			}
			items := w.queue.take()
			w.deliver(items[:3]...) // they wait for a retry
			w.queue.take()
			accepted, err := event.IDTime(items[5].EventID)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.store.Claim(t.Context(), delivery.Claim{
				Key: delivery.Key{EndpointID: e.ID, EventID: items[5].EventID}, Tenant: e.Tenant, EventType: "user.flagged_comment", Accepted: accepted,
				ID: "of a worker that died", Now: time.Now(), Lease: 90 * time.Second,
			}); err != nil {
				t.Fatal(err)
			}
			before := w.stored(e, all)
			tables.calls, tables.fails = 0, fails
			j := w.erase(dry)
			calls = tables.calls
			if clean[dry] == nil {
				clean[dry] = j.Counts
			}
			left, err := w.store.ListFailedChanges(t.Context(), time.Time{}, 0, "")
			if j.State != jobs.Done || err != nil || len(left.Changes) != 0 != dry || !maps.Equal(j.Counts, clean[dry]) {
				t.Errorf("call %d, %s, fails: %+v, want %v; %d failed changes left, %v", fails, tables.what, j, clean[dry], len(left.Changes), err)
			}
			if tables.failed > 12 {
				t.Errorf("call %d, %s, is repeated %d times in a minute", fails, tables.what, tables.failed)
			}
			if j.Counts[jobs.Erased] != len(all) {
				t.Errorf("%d events are counted, want %d", j.Counts[jobs.Erased], len(all))
			}
			switch {
			case !dry:
				w.wantErased([]endpoint.Endpoint{e}, all)
			case w.stored(e, all) != before:
				t.Errorf("the dry run changed something: %s\nit was: %s", w.stored(e, all), before)
			}
		})
		return calls
	}
	for _, dry := range []bool{false, true} {
		calls := run(t, dry, 0)
		if counts := clean[dry]; counts[jobs.Removed] != 3 || counts[jobs.Stopped] != 4 || calls < 50 || calls > 400 {
			t.Fatalf("dry run %t: %v in %d calls", dry, counts, calls)
		}
		for fails := 1; fails <= calls && !t.Failed(); fails++ {
			run(t, dry, fails)
		}
	}
}
