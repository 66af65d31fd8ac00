package dispatch_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/journal"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
)

// manyTenants has endpoints for every tenant.
type manyTenants struct {
	each int // endpoints of a tenant
	read atomic.Int64
}

func (m *manyTenants) EndpointsVersion(context.Context, string) (int64, error) { return 0, nil }

func (m *manyTenants) ReadEndpoints(_ context.Context, tenant string, _ bool) (endpoint.List, error) {
	m.read.Add(1)
	list := make([]endpoint.Endpoint, m.each)
	for i := range list {
		list[i] = endpoint.Endpoint{Tenant: tenant, ID: fmt.Sprint(tenant, "/", i), Status: endpoint.Disabled}
	}
	return endpoint.List{Endpoints: list}, nil
}

func (m *manyTenants) GetEndpoint(_ context.Context, tenant, id string) (endpoint.Endpoint, error) {
	return endpoint.Endpoint{Tenant: tenant, ID: id, Status: endpoint.Enabled}, nil
}

// noQueue takes nothing.
type noQueue struct{}

func (noQueue) Send(context.Context, []work.Item) []error { return nil }

// The cache of tenants' endpoints is bounded, by age and by number.
func TestTheEndpointCacheOfManyTenantsIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("reads the endpoints of 100,000 tenants")
	}
	id := event.NewID(time.Now())
	body, err := event.Event{ID: id, Type: "user.posted_comment", Timestamp: time.Now(), Data: json.RawMessage(comment)}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		tenants, each int
		step          time.Duration // between two events
		limit         int64         // bytes
	}{
		"all within the cache time": {200_000, 0, 0, 16 << 20},
		"with endpoints":            {30_000, 3, 0, 16 << 20},
		"slowly":                    {30_000, 0, dispatch.CacheTime / 100, 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && c.tenants > 100_000 {
				t.Skip("takes a second")
			}
			tenants, store, now := c.tenants, &manyTenants{each: c.each}, time.Now()
			w := newWorld(t, func(config *dispatch.Config) {
				config.Endpoints, config.Queue, config.Now = store, noQueue{}, func() time.Time { return now }
				config.Statistics, config.Journal = noStatistics{config.Statistics}, noJournal{}
			})
			before := heap()
			for n := range tenants {
				now = now.Add(c.step)
				w.FanOut(t.Context(), []event.Change{{Inserted: true, SequenceNumber: "1", Event: event.Accepted{ID: id, Tenant: fmt.Sprint("tenant-", n), Body: body}}})
			}
			if grown := heap() - before; grown > c.limit {
				t.Errorf("%d tenants take %d KB", tenants, grown>>10)
			}
			if got := store.read.Load(); got != int64(tenants) {
				t.Errorf("%d reads", got)
			}
			// What was just used is still cached.
			last := fmt.Sprint("tenant-", tenants-1)
			w.FanOut(t.Context(), []event.Change{{Inserted: true, SequenceNumber: "1", Event: event.Accepted{ID: id, Tenant: last, Body: body}}})
			if got := store.read.Load(); got != int64(tenants) {
				t.Errorf("the last tenant was read again")
			}
			runtime.KeepAlive(w)
		})
	}
}

// noStatistics stores no counts.
type noStatistics struct{ dispatch.Statistics }

func (noStatistics) AddStatistics(context.Context, stats.Batch) error { return nil }

// noJournal keeps nothing.
type noJournal struct{ journal.Source }

func (noJournal) PutJournal(context.Context, journal.Item) error { return nil }

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// readsOfLists counts how often endpoints and their version are read.
type readsOfLists struct {
	dispatch.Endpoints
	lists, versions int
}

func (r *readsOfLists) ReadEndpoints(ctx context.Context, tenant string, consistent bool) (endpoint.List, error) {
	r.lists++
	return r.Endpoints.ReadEndpoints(ctx, tenant, consistent)
}

func (r *readsOfLists) EndpointsVersion(ctx context.Context, tenant string) (int64, error) {
	r.versions++
	return r.Endpoints.EndpointsVersion(ctx, tenant)
}

// An event that is accepted after a change of an endpoint was confirmed is matched with the
// endpoint as it is then, although endpoints are cached.
func TestAnEventDoesNotMissAnEndpointThatWasJustChanged(t *testing.T) {
	for name, change := range map[string]func(w *world, e endpoint.Endpoint) error{
		"added": func(w *world, e endpoint.Endpoint) error {
			e.ID = endpoint.NewID(time.Now())
			e.Status, e.EventTypes, e.Filter = endpoint.Enabled, []string{"*"}, nil
			return w.store.AddEndpoint(w.t.Context(), e)
		},
		"enabled": func(w *world, e endpoint.Endpoint) error {
			e.Status = endpoint.Enabled
			_, err := w.store.UpdateEndpoint(w.t.Context(), e)
			return err
		},
		"subscribed to the type": func(w *world, e endpoint.Endpoint) error {
			e.Status, e.EventTypes = endpoint.Enabled, []string{"*"}
			_, err := w.store.UpdateEndpoint(w.t.Context(), e)
			return err
		},
		"unfiltered": func(w *world, e endpoint.Endpoint) error {
			e.Status, e.Filter = endpoint.Enabled, nil
			_, err := w.store.UpdateEndpoint(w.t.Context(), e)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reads := &readsOfLists{}
				w := newWorld(t, func(c *dispatch.Config) { reads.Endpoints, c.Endpoints = c.Endpoints, reads })
				e := w.endpoint(func(e *endpoint.Endpoint) {
					switch name {
					case "subscribed to the type":
						e.EventTypes = []string{"user.joined_platform"}
					case "unfiltered":
						e.Filter = json.RawMessage(`{"data":{"discussion_id":["another"]}}`)
					default:
						e.Status = endpoint.Disabled
					}
				})
				w.fanOutNothing()
				time.Sleep(time.Second)
				w.fanOutNothing()
				if reads.lists != 1 || reads.versions != 1 {
					t.Errorf("two batches within a second read %d lists and %d versions, want one each", reads.lists, reads.versions)
				}
				if err := change(w, e); err != nil {
					t.Fatal(err)
				}
				w.fannedOut() // fails if nothing is queued
			})
		})
	}
}

// If the version cannot be read, the batch is delivered again from that event on.
func TestFanOutReportsTheRecordWhoseVersionCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := &noVersion{}
		w := newWorld(t, func(c *dispatch.Config) { broken.Endpoints, c.Endpoints = c.Endpoints, broken })
		w.endpoint()
		w.fannedOut() // caches the endpoints
		_, record := w.event("user.posted_comment", comment)
		if failed := w.FanOut(t.Context(), []event.Change{record}); len(failed) != 1 || failed[0] != record.SequenceNumber {
			t.Errorf("failed = %v, want the record %s", failed, record.SequenceNumber)
		}
	})
}

// noVersion is a store that cannot read the version of a list.
type noVersion struct{ dispatch.Endpoints }

func (noVersion) EndpointsVersion(context.Context, string) (int64, error) {
	return 0, errors.New("throttled")
}
