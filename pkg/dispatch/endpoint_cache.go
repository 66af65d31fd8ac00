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

// endpointCache keeps tenants' endpoints for a short while, compiled for matching.
// A change to an endpoint takes effect when its tenant's entry is older than
// the cache's time, at most. Nobody writes to an endpoint that it returns.
type endpointCache struct {
	read Endpoints
	keep time.Duration
	now  func() time.Time

	loading singleflight.Group
	mu      sync.Mutex
	tenants map[string]*tenant
	singles map[string]single
}

// maxSingles bounds the endpoints kept one by one; past it, all are dropped.
const maxSingles = 10_000

func newEndpointCache(read Endpoints, keep time.Duration, now func() time.Time) *endpointCache {
	return &endpointCache{read: read, keep: keep, now: now, tenants: map[string]*tenant{}, singles: map[string]single{}}
}

// tenant is all endpoints of one tenant at one time.
type tenant struct {
	at   time.Time
	byID map[string]*endpoint.Endpoint
	subs []subscription

	mu     sync.Mutex
	byType map[string][]subscription // what subscribes to a type; filled as types come
}

type single struct {
	at       time.Time
	endpoint *endpoint.Endpoint
	err      error // nil or endpoint.ErrNotFound
}

// subscription is an enabled endpoint with its compiled filter. It is small: each
// event goes through all of a tenant's.
type subscription struct {
	endpoint *endpoint.Endpoint
	filter   *filter.Pattern // nil matches all
}

// subscribers returns the ids of the tenant's enabled endpoints that want the
// event. An endpoint whose stored filter no longer compiles gets everything:
// too much can be filtered by the receiver, too little can't be got back.
func (r *endpointCache) subscribers(ctx context.Context, tenantName string, e event.Event, body []byte) ([]string, error) {
	t, err := r.tenant(ctx, tenantName)
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

func (r *endpointCache) tenant(ctx context.Context, name string) (*tenant, error) {
	r.mu.Lock()
	t := r.tenants[name]
	r.mu.Unlock()
	if t != nil && r.now().Sub(t.at) < r.keep {
		return t, nil
	}
	loaded, err, _ := r.loading.Do(name, func() (any, error) {
		at := r.now()
		list, err := r.read.ListEndpoints(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("endpoints of tenant %s: %w", name, err)
		}
		t := compile(at, list)
		r.mu.Lock()
		r.tenants[name] = t
		r.mu.Unlock()
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
			// Filters are compiled when an endpoint is added; see subscribers for
			// one that fails here.
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

// get returns one endpoint, from the tenant's entry where there is a fresh one.
func (r *endpointCache) get(ctx context.Context, tenantName, id string) (*endpoint.Endpoint, error) {
	now := r.now()
	r.mu.Lock()
	t, s := r.tenants[tenantName], r.singles[id]
	r.mu.Unlock()
	if t != nil && now.Sub(t.at) < r.keep {
		if e, ok := t.byID[id]; ok {
			return e, nil
		}
	}
	if !s.at.IsZero() && now.Sub(s.at) < r.keep {
		return s.endpoint, s.err
	}
	return r.fresh(ctx, tenantName, id)
}

// fresh reads one endpoint past the cache.
func (r *endpointCache) fresh(ctx context.Context, tenantName, id string) (*endpoint.Endpoint, error) {
	at := r.now()
	e, err := r.read.GetEndpoint(ctx, tenantName, id)
	if err != nil && !errors.Is(err, endpoint.ErrNotFound) {
		return nil, fmt.Errorf("endpoint %s: %w", id, err)
	}
	r.mu.Lock()
	if len(r.singles) >= maxSingles {
		clear(r.singles)
	}
	r.singles[id] = single{at: at, endpoint: &e, err: err}
	r.mu.Unlock()
	return &e, err
}

// forget drops what is kept of a tenant, because this worker changed it.
func (r *endpointCache) forget(tenantName, id string) {
	r.mu.Lock()
	delete(r.tenants, tenantName)
	delete(r.singles, id)
	r.mu.Unlock()
}
