package dispatch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/filter"
)

// endpointCache caches tenants' endpoints with compiled filters. A change to an
// endpoint takes effect after at most keep. The returned endpoints must not be modified.
type endpointCache struct {
	read Endpoints
	keep time.Duration
	now  func() time.Time

	loading singleflight.Group
	mu      sync.Mutex
	tenants map[string]*tenant
	singles map[string]single
}

// maxSingles bounds the endpoints that are cached one by one; when it is reached, all
// of them are dropped.
const maxSingles = 10_000

func newEndpointCache(read Endpoints, keep time.Duration, now func() time.Time) *endpointCache {
	return &endpointCache{read: read, keep: keep, now: now, tenants: map[string]*tenant{}, singles: map[string]single{}}
}

// tenant holds all endpoints of one tenant, read at one time.
type tenant struct {
	at   time.Time
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

// subscription is an enabled endpoint with its compiled filter. It is small because
// fan-out goes through all of a tenant's subscriptions for each event.
type subscription struct {
	endpoint *endpoint.Endpoint
	filter   *filter.Pattern // nil matches all
}

// subscribers returns the IDs of the tenant's enabled endpoints that match the event.
// An endpoint whose stored filter does not compile gets every event: its receiver can
// drop what it does not need, but could not recover what was not sent.
func (c *endpointCache) subscribers(ctx context.Context, tenantName string, e event.Event, body []byte) ([]string, error) {
	t, err := c.tenant(ctx, tenantName)
	if err != nil {
		return nil, err
	}
	var ids []string
	var doc filter.Document
	parsed := false
	for _, s := range t.subscribed(e.Type) {
		if s.filter != nil {
			if !parsed {
				if doc, err = filter.Parse(body); err != nil {
					return nil, fmt.Errorf("event %s: %w", e.ID, err)
				}
				parsed = true
			}
			if !s.filter.Matches(doc) {
				continue
			}
		}
		ids = append(ids, s.endpoint.ID)
	}
	return ids, nil
}

func (c *endpointCache) tenant(ctx context.Context, name string) (*tenant, error) {
	c.mu.Lock()
	t := c.tenants[name]
	c.mu.Unlock()
	if t != nil && c.now().Sub(t.at) < c.keep {
		return t, nil
	}
	loaded, err, _ := c.loading.Do(name, func() (any, error) {
		at := c.now()
		list, err := c.read.ListEndpoints(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("endpoints of tenant %s: %w", name, err)
		}
		t := compile(at, list)
		c.mu.Lock()
		c.tenants[name] = t
		c.mu.Unlock()
		return t, nil
	})
	if err != nil {
		return nil, err
	}
	return loaded.(*tenant), nil
}

func compile(at time.Time, list []endpoint.Endpoint) *tenant {
	t := &tenant{at: at, byID: make(map[string]*endpoint.Endpoint, len(list)), byType: map[string][]subscription{}}
	for i := range list {
		e := &list[i]
		t.byID[e.ID] = e
		if e.Status != endpoint.Enabled {
			continue
		}
		s := subscription{endpoint: e}
		if len(e.Filter) > 0 {
			// On an error, filter stays nil and matches everything; see subscribers.
			s.filter, _ = filter.Compile(e.Filter)
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
	delete(c.tenants, tenantName)
	delete(c.singles, id)
	c.mu.Unlock()
}
