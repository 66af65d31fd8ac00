// Package memory keeps everything in memory. It applies the vocabulary's
// transitions under one lock and feeds changes on as DynamoDB streams would, so
// that the whole system can run, be simulated and be measured without a
// database. It promises to behave as dynamostore does: one conformance suite,
// in storetest, holds both to it. What it keeps ends with the process.
package memory

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/events"
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
	waiting    map[string]*btree.Set[string] // the events that wait for an endpoint's circuit
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

type reservation struct {
	event.Reservation
	expires time.Time
}

// New returns an empty store. now is read for the expiry of idempotency keys
// and the times of stream records.
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

func dueBefore(a, b delivery.Due) bool {
	if c := a.DueAt.Compare(b.DueAt); c != 0 {
		return c < 0
	}
	if a.EndpointID != b.EndpointID {
		return a.EndpointID < b.EndpointID
	}
	return a.EventID < b.EventID
}

// PutEvent: see emit.Events.
func (s *Store) PutEvent(_ context.Context, a event.Accepted) error {
	if _, err := event.IDTime(a.ID); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.events[a.ID]; ok {
		return event.ErrExists
	}
	a.Body = slices.Clone(a.Body)
	s.events[a.ID] = a
	s.feeds[dynamoitem.Events].add(eventPut{s.now(), a})
	return nil
}

// eventPut is the change that put an event.
type eventPut struct {
	at    time.Time
	event event.Accepted
}

func (p eventPut) record() events.DynamoDBEventRecord {
	image, size, err := dynamoitem.EventImage(p.event)
	if err != nil {
		panic(err) // only for an id that PutEvent refuses
	}
	return events.DynamoDBEventRecord{
		EventName: string(events.DynamoDBOperationTypeInsert),
		Change: events.DynamoDBStreamRecord{
			ApproximateCreationDateTime: events.SecondsEpochTime{Time: p.at},
			Keys:                        map[string]events.DynamoDBAttributeValue{dynamoitem.EventID: image[dynamoitem.EventID]},
			NewImage:                    image,
			SizeBytes:                   int64(size),
			StreamViewType:              string(events.DynamoDBStreamViewTypeNewImage),
		},
	}
}

// GetEvent: see dispatch.Events.
func (s *Store) GetEvent(_ context.Context, id string) (event.Accepted, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.events[id]
	if !ok {
		return a, event.ErrNotFound
	}
	return a, nil
}

// ReserveKey: see emit.Keys.
func (s *Store) ReserveKey(_ context.Context, tenant, key string, r event.Reservation, expires time.Time) (event.Reservation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := dynamoitem.IdempotencyKey(tenant, key)
	if holds, ok := s.keys[name]; ok && s.now().Before(holds.expires) {
		return holds.Reservation, nil
	}
	s.keys[name] = reservation{r, expires}
	return r, nil
}

// find returns what is stored; save replaces it, and nobody writes to it.
func (s *Store) find(k delivery.Key) *delivery.Delivery {
	if byEvent := s.deliveries[k.EndpointID]; byEvent != nil {
		if d, ok := byEvent.Get(k.EventID); ok {
			return d
		}
	}
	return nil
}

func (s *Store) save(before *delivery.Delivery, d delivery.Delivery) {
	if before != nil && !before.DueAt.IsZero() {
		s.due[d.DueShard()].Delete(delivery.Due{Key: d.Key, DueAt: before.DueAt})
	}
	if !d.DueAt.IsZero() {
		s.due[d.DueShard()].Set(delivery.Due{Key: d.Key, DueAt: d.DueAt})
	}
	if set := s.waiting[d.EndpointID]; set != nil && !d.InBacklog {
		set.Delete(d.EventID)
	} else if d.InBacklog {
		if set == nil {
			set = new(btree.Set[string])
			s.waiting[d.EndpointID] = set
		}
		set.Insert(d.EventID)
	}
	byEvent := s.deliveries[d.EndpointID]
	if byEvent == nil {
		byEvent = new(btree.Map[string, *delivery.Delivery])
		s.deliveries[d.EndpointID] = byEvent
	}
	byEvent.Set(d.EventID, &d)
}

// move applies a transition to a delivery under the lock.
func (s *Store) updateDelivery(k delivery.Key, apply func(*delivery.Delivery) (delivery.Delivery, *delivery.Refusal)) (delivery.Delivery, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.find(k)
	after, refused := apply(before)
	if refused != nil {
		return after, refused
	}
	s.save(before, after)
	return after, nil
}

// Claim: see dispatch.Deliveries.
func (s *Store) Claim(_ context.Context, c delivery.Claim) (delivery.Delivery, error) {
	return s.updateDelivery(c.Key, c.Apply)
}

// Complete: see dispatch.Deliveries.
func (s *Store) Complete(_ context.Context, d delivery.Delivery) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.find(d.Key)
	if before == nil || before.ClaimID != d.ClaimID || before.Attempts != d.Attempts {
		return delivery.ErrFenced
	}
	if before.State != delivery.InFlight {
		if before.State == d.State {
			return nil // our own write, repeated
		}
		return delivery.ErrFenced
	}
	s.save(before, d)
	return nil
}

// Replay: see dispatch.Replays.
func (s *Store) Replay(_ context.Context, r delivery.Replay) (delivery.Delivery, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.find(r.Key)
	if before == nil {
		return delivery.Delivery{}, delivery.ErrNotFound
	}
	after, refused := r.Apply(*before)
	if refused != nil {
		return after, refused
	}
	s.save(before, after)
	return after, nil
}

// Due: see dispatch.DueIndex.
func (s *Store) Due(_ context.Context, shard int, before time.Time, cursor string, limit int) ([]delivery.Due, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var from delivery.Due
	if cursor != "" {
		var err error
		if from, err = decodeDue(cursor); err != nil {
			return nil, "", err
		}
	}
	var page []delivery.Due
	next := ""
	s.due[shard].Ascend(from, func(d delivery.Due) bool {
		if d.DueAt.After(before) {
			return false
		}
		if cursor != "" && !dueBefore(from, d) {
			return true // the page before ended with it
		}
		if len(page) == limit {
			next = encodeDue(page[len(page)-1])
			return false
		}
		page = append(page, d)
		return true
	})
	return page, next, nil
}

func encodeDue(d delivery.Due) string {
	return fmt.Sprintf("%d/%s/%s", d.DueAt.UnixNano(), d.EndpointID, d.EventID)
}

func decodeDue(cursor string) (d delivery.Due, err error) {
	parts := strings.SplitN(cursor, "/", 3)
	var nanos int64
	if len(parts) == 3 {
		nanos, err = strconv.ParseInt(parts[0], 10, 64)
	}
	if len(parts) != 3 || err != nil {
		return d, fmt.Errorf("cursor %.64q is not one that a page ended with", cursor)
	}
	return delivery.Due{Key: delivery.Key{EndpointID: parts[1], EventID: parts[2]}, DueAt: time.Unix(0, nanos).UTC()}, nil
}

// Postpone: see dispatch.DueIndex.
func (s *Store) Postpone(_ context.Context, due delivery.Due, to time.Time) (delivery.Delivery, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.find(due.Key)
	if before == nil || before.DueAt.IsZero() || !before.DueAt.Equal(due.DueAt) {
		return delivery.Delivery{}, delivery.ErrFenced
	}
	after := *before
	after.DueAt = to
	s.save(before, after)
	return after, nil
}

// GetDelivery returns one delivery, or delivery.ErrNotFound.
func (s *Store) GetDelivery(_ context.Context, k delivery.Key) (delivery.Delivery, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.find(k); d != nil {
		return *d, nil
	}
	return delivery.Delivery{}, delivery.ErrNotFound
}

// QueryDeliveries: see dispatch.Replays.
func (s *Store) QueryDeliveries(_ context.Context, q delivery.Query) (delivery.Page, error) {
	first, last, err := q.Bounds()
	if err != nil {
		return delivery.Page{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var page delivery.Page
	byEvent := s.deliveries[q.EndpointID]
	if byEvent == nil {
		return page, nil
	}
	filtered, examined, before := q.State != "" || q.EventType != "", 0, ""
	byEvent.Descend(last, func(id string, d *delivery.Delivery) bool {
		if id < first {
			return false
		}
		if filtered && q.Examine > 0 && examined == q.Examine {
			page.Next = q.CursorAfter(before)
			return false
		}
		examined, before = examined+1, id
		if !q.Matches(*d) {
			return true
		}
		if len(page.Deliveries) == q.PageSize() {
			page.Next = q.CursorAfter(page.Deliveries[len(page.Deliveries)-1].EventID)
			return false
		}
		page.Deliveries = append(page.Deliveries, *d)
		return true
	})
	return page, nil
}

// clone shares nothing with e that either side could change.
func clone(e endpoint.Endpoint) endpoint.Endpoint {
	e.EventTypes, e.Filter, e.Secrets = slices.Clone(e.EventTypes), slices.Clone(e.Filter), slices.Clone(e.Secrets)
	return e
}

// written tells whether storing e again would change nothing: it is a write
// whose answer was lost, repeated.
func written(stored, e endpoint.Endpoint) bool {
	return reflect.DeepEqual(dynamoitem.EncodeEndpoint(stored), dynamoitem.EncodeEndpoint(e))
}

// AddEndpoint stores a new endpoint; endpoint.ErrConflict if another has its id.
func (s *Store) AddEndpoint(_ context.Context, e endpoint.Endpoint) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.endpoints[e.Tenant] == nil {
		s.endpoints[e.Tenant] = map[string]endpoint.Endpoint{}
	}
	if stored, ok := s.endpoints[e.Tenant][e.ID]; ok && !written(stored, e) {
		return endpoint.ErrConflict
	}
	s.endpoints[e.Tenant][e.ID] = clone(e)
	return nil
}

// UpdateEndpoint stores an endpoint that was read with e.Version and returns it
// with its new version; endpoint.ErrConflict if another change came between.
func (s *Store) UpdateEndpoint(_ context.Context, e endpoint.Endpoint) (endpoint.Endpoint, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, ok := s.endpoints[e.Tenant][e.ID]
	if !ok {
		return e, endpoint.ErrNotFound
	}
	was := e.Version
	e.Version++
	if before.Version != was && !written(before, e) {
		return e, endpoint.ErrConflict
	}
	s.endpoints[e.Tenant][e.ID] = clone(e)
	return e, nil
}

// RemoveEndpoint forgets an endpoint; endpoint.ErrNotFound if there is none.
func (s *Store) RemoveEndpoint(_ context.Context, tenant, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.endpoints[tenant][id]; !ok {
		return endpoint.ErrNotFound
	}
	delete(s.endpoints[tenant], id)
	return nil
}

// GetEndpoint: see dispatch.Endpoints.
func (s *Store) GetEndpoint(_ context.Context, tenant, id string) (endpoint.Endpoint, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.endpoints[tenant][id]
	if !ok {
		return e, endpoint.ErrNotFound
	}
	return clone(e), nil
}

// ListEndpoints: see dispatch.Endpoints. They come in the order of their ids,
// which is the order in which they were added.
func (s *Store) ListEndpoints(_ context.Context, tenant string) ([]endpoint.Endpoint, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]endpoint.Endpoint, 0, len(s.endpoints[tenant]))
	for _, e := range s.endpoints[tenant] {
		list = append(list, clone(e))
	}
	slices.SortFunc(list, func(a, b endpoint.Endpoint) int { return strings.Compare(a.ID, b.ID) })
	return list, nil
}

// DisableEndpoint: see dispatch.Disabler.
func (s *Store) DisableEndpoint(_ context.Context, tenant, id, reason string, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.endpoints[tenant][id]
	if !ok || e.Status == endpoint.Disabled {
		return nil
	}
	e.Status, e.StatusReason, e.UpdatedAt = endpoint.Disabled, reason, now
	e.Version++
	s.endpoints[tenant][id] = e
	return nil
}
