package dispatch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/filter"
)

// endpointCache caches tenants' endpoints with compiled filters. A change to an
// endpoint takes effect after at most keep, and at once for what is matched after update.
// The returned endpoints must not be modified.
type endpointCache struct {
	read Endpoints
	keep time.Duration
	now  func() time.Time

	loading singleflight.Group
	mu      sync.Mutex
	tenants map[string]*tenant
	held    int // tenants and their endpoints
	singles map[string]single
	pruned  time.Time // when expired entries were last removed
}

const (
	// maxSingles bounds the endpoints that are cached one by one; when it is reached, all
	// of them are dropped.
	maxSingles = 10_000
	// maxHeld bounds the tenants and endpoints that are cached by tenant. One tenant may
	// exceed it alone.
	maxHeld = 20_000
)

func newEndpointCache(read Endpoints, keep time.Duration, now func() time.Time) *endpointCache {
	return &endpointCache{read: read, keep: keep, now: now, tenants: map[string]*tenant{}, singles: map[string]single{}}
}

// tenant holds all endpoints of one tenant, read at one time.
type tenant struct {
	at      time.Time
	version int64 // endpoint.List.Version

	byID map[string]*endpoint.Endpoint
	subs []subscription

	mu     sync.Mutex
	byType map[string][]subscription // by event type; filled on first use
}

type single struct {
	at       time.Time
	endpoint *endpoint.Endpoint
	err      error // nil or endpoint.ErrNotFound
}

// subscription is an enabled or paused endpoint with its compiled filter. It is small because
// fan-out goes through all of a tenant's subscriptions for each event.
type subscription struct {
	endpoint *endpoint.Endpoint
	filter   *filter.Pattern // nil matches all
	broken   error           // why the stored filter does not compile
}

// subscribers are the endpoints that an event concerns.
type subscribers struct {
	matching []string      // IDs
	ageLimit time.Duration // the longest of theirs
	// unreadable are the IDs of those whose filter cannot be evaluated on the event, which
	// nests too deeply: trying again would block the event's shard.
	unreadable []string
	// broken are those whose stored filter does not compile. They must not get every
	// event: a filter can keep out what the receiver must not have.
	broken []subscription
}

// subscribers returns the tenant's endpoints, without the disabled ones, that subscribe to
// the event.
func (c *endpointCache) subscribers(ctx context.Context, accepted event.Accepted, e event.Event) (found subscribers, err error) {
	t, err := c.tenant(ctx, accepted.Tenant)
	if err != nil {
		return found, err
	}
	var doc filter.Document
	var unreadable error
	parsed := false
	for _, s := range t.subscribed(e.Type) {
		if s.broken != nil {
			found.broken = append(found.broken, s)
			continue
		}
		if s.filter != nil {
			if !parsed {
				doc, unreadable = filter.Parse(accepted.Body)
				parsed = true
			}
			switch matches, err := s.matches(doc, unreadable, accepted, e.Type); {
			case err != nil:
				found.unreadable = append(found.unreadable, s.endpoint.ID)
				continue
			case !matches:
				continue
			}
		}
		found.matching = append(found.matching, s.endpoint.ID)
		found.ageLimit = max(found.ageLimit, s.endpoint.Retry.AgeLimit())
	}
	return found, nil
}

// matches reports whether the filter matches an event as the endpoint gets it, by either
// name of its type. doc is its parsed body, or unreadable says why there is none; it fails
// if the filter cannot be evaluated.
func (s subscription) matches(doc filter.Document, unreadable error, accepted event.Accepted, eventType string) (bool, error) {
	if s.filter == nil {
		return true, nil
	}
	if len(accepted.Versions) > 0 {
		accepted, unreadable = destination.InVersion(*s.endpoint, accepted, eventType)
		if unreadable == nil {
			doc, unreadable = filter.Parse(accepted.Body)
		}
	}
	if unreadable != nil {
		return false, unreadable
	}
	return s.filter.Matches(doc) || s.matchesOldName(accepted, eventType), nil
}

// matchesOldName reports whether the filter matches the body that the endpoint gets, if
// that has an old name of the event's type.
func (s subscription) matchesOldName(accepted event.Accepted, eventType string) bool {
	name, sent := destination.Named(*s.endpoint, accepted, eventType)
	if name == eventType {
		return false
	}
	doc, err := filter.Parse(sent)
	return err == nil && s.filter.Matches(doc)
}

// update makes sure that a tenant's endpoints, if they are cached, are not older than a
// change that was confirmed before. It costs half a read unit, however many endpoints and
// events there are: the read is eventually consistent, which takes less than a second and
// less than a batch of the stream does. Without it, an endpoint would miss the events of the
// cache time after it was added.
func (c *endpointCache) update(ctx context.Context, name string) error {
	t := c.cached(name)
	if t == nil {
		return nil // the next use reads them
	}
	version, err := c.read.EndpointsVersion(ctx, name)
	if err != nil {
		return fmt.Errorf("endpoints of tenant %s: %w", name, err)
	}
	// Another goroutine can have begun to read before the change. It is waited for, and
	// then they are read again.
	for t.version < version {
		if t, err = c.load(ctx, name, true); err != nil {
			return err
		}
	}
	return nil
}

func (c *endpointCache) tenant(ctx context.Context, name string) (*tenant, error) {
	if t := c.cached(name); t != nil {
		return t, nil
	}
	return c.load(ctx, name, false)
}

// cached returns a tenant that was read within keep, or nil.
func (c *endpointCache) cached(name string) *tenant {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.tenants[name]; t != nil && c.now().Sub(t.at) < c.keep {
		return t
	}
	return nil
}

func (c *endpointCache) load(ctx context.Context, name string, consistent bool) (*tenant, error) {
	loaded, err, _ := c.loading.Do(fmt.Sprint(consistent, name), func() (any, error) {
		at := c.now()
		list, err := c.read.ReadEndpoints(ctx, name, consistent)
		if err != nil {
			return nil, fmt.Errorf("endpoints of tenant %s: %w", name, err)
		}
		t := compile(at, list.Endpoints)
		t.version = list.Version
		c.mu.Lock()
		c.hold(name, t)
		c.mu.Unlock()
		return t, nil
	})
	if err != nil {
		return nil, err
	}
	return loaded.(*tenant), nil
}

// hold caches a tenant, within the bounds on age and number. c.mu is locked.
func (c *endpointCache) hold(name string, t *tenant) {
	if now := c.now(); now.Sub(c.pruned) >= c.keep {
		c.pruned = now
		for other, old := range c.tenants {
			if now.Sub(old.at) >= c.keep {
				c.drop(other)
			}
		}
		for id, old := range c.singles {
			if now.Sub(old.at) >= c.keep {
				delete(c.singles, id)
			}
		}
	}
	c.drop(name)
	for other := range c.tenants { // in random order
		if c.held+t.size() <= maxHeld {
			break
		}
		c.drop(other)
	}
	c.tenants[name] = t
	c.held += t.size()
}

// drop removes a tenant from the cache. c.mu is locked.
func (c *endpointCache) drop(name string) {
	if t := c.tenants[name]; t != nil {
		delete(c.tenants, name)
		c.held -= t.size()
	}
}

func (t *tenant) size() int { return 1 + len(t.byID) }

func compile(at time.Time, list []endpoint.Endpoint) *tenant {
	t := &tenant{at: at, byID: make(map[string]*endpoint.Endpoint, len(list)), byType: map[string][]subscription{}}
	for i := range list {
		e := &list[i]
		t.byID[e.ID] = e
		if e.Status == endpoint.Disabled {
			continue
		}
		s := subscription{endpoint: e}
		if len(e.Filter) > 0 {
			s.filter, s.broken = filter.Compile(e.Filter)
		}
		t.subs = append(t.subs, s)
	}
	return t
}

func (t *tenant) subscribed(eventType string) []subscription {
	t.mu.Lock()
	defer t.mu.Unlock()
	list, ok := t.byType[eventType]
	if !ok {
		for _, s := range t.subs {
			if s.endpoint.Subscribes(eventType) {
				list = append(list, s)
			}
		}
		t.byType[eventType] = list
	}
	return list
}

// get returns one endpoint, from the cache if it is recent enough.
func (c *endpointCache) get(ctx context.Context, tenantName, id string) (*endpoint.Endpoint, error) {
	now := c.now()
	c.mu.Lock()
	t, s := c.tenants[tenantName], c.singles[id]
	c.mu.Unlock()
	if t != nil && now.Sub(t.at) < c.keep {
		if e, ok := t.byID[id]; ok {
			return e, nil
		}
	}
	if !s.at.IsZero() && now.Sub(s.at) < c.keep {
		return s.endpoint, s.err
	}
	return c.fresh(ctx, tenantName, id)
}

// fresh reads one endpoint from the store, and caches it.
func (c *endpointCache) fresh(ctx context.Context, tenantName, id string) (*endpoint.Endpoint, error) {
	at := c.now()
	e, err := c.read.GetEndpoint(ctx, tenantName, id)
	if err != nil && !errors.Is(err, endpoint.ErrNotFound) {
		return nil, fmt.Errorf("endpoint %s: %w", id, err)
	}
	c.mu.Lock()
	if len(c.singles) >= maxSingles {
		clear(c.singles)
	}
	c.singles[id] = single{at: at, endpoint: &e, err: err}
	c.mu.Unlock()
	return &e, err
}

// forget drops a tenant and an endpoint from the cache after this worker changed them.
func (c *endpointCache) forget(tenantName, id string) {
	c.mu.Lock()
	c.drop(tenantName)
	delete(c.singles, id)
	c.mu.Unlock()
}
