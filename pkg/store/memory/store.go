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
	"github.com/tidings-dev/tidings/pkg/event/journal"
	"github.com/tidings-dev/tidings/pkg/ops/audit"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
	"github.com/tidings-dev/tidings/pkg/systemtest/testrun"
)

// Store is the memory store. It is safe for concurrent use.
type Store struct {
	now func() time.Time

	mu         sync.Mutex
	events     map[string]event.Accepted
	deliveries map[string]*btree.Map[string, *delivery.Delivery] // by endpoint, then by event
	due        [delivery.DueShards]*btree.BTreeG[delivery.Due]
	endpoints  map[string]map[string]endpoint.Endpoint // by tenant, then by id
	listed     map[listedPartition]*btree.Set[string]  // the events of deliveries whose state is indexed
	versions   map[string]int64                        // by tenant: of its list of endpoints
	keys       map[string]reservation
	waiting    map[string]*btree.Set[string]               // by endpoint: the events in its backlog
	breakers   map[string]breaker.State                    // by endpoint
	journal    map[string]*btree.Map[string, journal.Item] // by partition
	slots      map[string]time.Time                        // by endpoint: a rate limit's theoretical arrival time
	bound      map[string]bound
	audit      map[string]*btree.Map[string, audit.Entry] // by tenant
	feeds      map[string]*feed
	platform   platformTable
	statistics map[string]bucket    // by the key of their item
	days       map[string]stats.Day // by the key of their item
	sweep      stats.Sweep
	documents  map[string]document
	failed     failedChanges
	testRuns   testRuns
	jobs       map[string]*btree.Map[string, jobs.Job] // by tenant
}

// New returns an empty store. It calls now for the expiry of idempotency keys and for
// the times of stream records.
func New(now func() time.Time) *Store {
	s := &Store{
		now:        now,
		events:     map[string]event.Accepted{},
		documents:  map[string]document{},
		deliveries: map[string]*btree.Map[string, *delivery.Delivery]{},
		endpoints:  map[string]map[string]endpoint.Endpoint{},
		listed:     map[listedPartition]*btree.Set[string]{},
		versions:   map[string]int64{},
		keys:       map[string]reservation{},
		waiting:    map[string]*btree.Set[string]{},
		breakers:   map[string]breaker.State{},
		slots:      map[string]time.Time{},
		journal:    map[string]*btree.Map[string, journal.Item]{},
		feeds:      map[string]*feed{dynamoitem.Events: newFeed(), dynamoitem.Platform: newFeed()},
		platform:   newPlatformTable(),
		bound:      map[string]bound{},
		audit:      map[string]*btree.Map[string, audit.Entry]{},
		jobs:       map[string]*btree.Map[string, jobs.Job]{},
		testRuns:   testRuns{open: map[string]testrun.Run{}, arrivals: map[string]*btree.Map[string, testrun.Arrival]{}},
	}
	for i := range s.due {
		s.due[i] = btree.NewBTreeGOptions(dueBefore, btree.Options{NoLocks: true})
	}
	return s
}
