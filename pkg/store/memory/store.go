// Package memory is a store in memory. It applies the transitions of package delivery
// and its neighbours under one lock and publishes changes like DynamoDB streams, so
// that the whole system can run, be simulated and be measured without a database. It
// promises to behave like store/dynamo: the conformance suite test/storetest checks
// both. Its contents are lost when the process ends.
package memory

import (
	"sync"
	"time"

	"github.com/tidwall/btree"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/delivery/breaker"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/ops/audit"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// Store is the memory store. It is safe for concurrent use.
type Store struct {
	now func() time.Time

	mu         sync.Mutex
	events     map[string]event.Accepted
	deliveries map[string]*btree.Map[string, *delivery.Delivery] // by endpoint, then by event
	due        [delivery.DueShards]*btree.BTreeG[delivery.Due]
	endpoints  map[string]map[string]endpoint.Endpoint // by tenant, then by id
	keys       map[string]reservation
	waiting    map[string]*btree.Set[string] // by endpoint: the events in its backlog
	breakers   map[string]breaker.State      // by endpoint
	slots      map[string]time.Time          // by endpoint: a rate limit's theoretical arrival time
	bound      map[string]bound
	audit      map[string]*btree.Map[string, audit.Entry] // by tenant
	feeds      map[string]*feed
	platform   platformTable
	statistics map[string]bucket // by the key of their item
	sweep      stats.Sweep
	alerts     alerts
}

// New returns an empty store. It calls now for the expiry of idempotency keys and for
// the times of stream records.
func New(now func() time.Time) *Store {
	s := &Store{
		now:        now,
		events:     map[string]event.Accepted{},
		deliveries: map[string]*btree.Map[string, *delivery.Delivery]{},
		endpoints:  map[string]map[string]endpoint.Endpoint{},
		keys:       map[string]reservation{},
		waiting:    map[string]*btree.Set[string]{},
		breakers:   map[string]breaker.State{},
		slots:      map[string]time.Time{},
		feeds:      map[string]*feed{dynamoitem.Events: newFeed(), dynamoitem.Platform: newFeed()},
		platform:   newPlatformTable(),
		bound:      map[string]bound{},
		audit:      map[string]*btree.Map[string, audit.Entry]{},
	}
	for i := range s.due {
		s.due[i] = btree.NewBTreeGOptions(dueBefore, btree.Options{NoLocks: true})
	}
	return s
}
