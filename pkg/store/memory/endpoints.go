package memory

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// clone returns a copy that shares no mutable data with e.
func clone(e endpoint.Endpoint) endpoint.Endpoint {
	e.EventTypes, e.Filter, e.Secrets = slices.Clone(e.EventTypes), slices.Clone(e.Filter), slices.Clone(e.Secrets)
	return e
}

// sameItem reports whether storing e would change nothing, as for a repeated write.
func sameItem(stored, e endpoint.Endpoint) bool {
	return reflect.DeepEqual(dynamoitem.EncodeEndpoint(stored), dynamoitem.EncodeEndpoint(e))
}

// AddEndpoint stores a new endpoint; endpoint.ErrConflict if another has its id.
func (s *Store) AddEndpoint(_ context.Context, e endpoint.Endpoint) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.endpoints[e.Tenant] == nil {
		s.endpoints[e.Tenant] = map[string]endpoint.Endpoint{}
	}
	if stored, ok := s.endpoints[e.Tenant][e.ID]; ok && !sameItem(stored, e) {
		return endpoint.ErrConflict
	}
	s.endpoints[e.Tenant][e.ID] = clone(e)
	s.versions[e.Tenant]++
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
	if before.Version != was && !sameItem(before, e) {
		return e, endpoint.ErrConflict
	}
	s.endpoints[e.Tenant][e.ID] = clone(e)
	s.versions[e.Tenant]++
	return e, nil
}

// RemoveEndpoint deletes an endpoint; endpoint.ErrNotFound if there is none.
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

// ListEndpoints returns the endpoints of a tenant, in the order of creation.
func (s *Store) ListEndpoints(ctx context.Context, tenant string) ([]endpoint.Endpoint, error) {
	list, err := s.ReadEndpoints(ctx, tenant, false)
	return list.Endpoints, err
}

// EndpointsVersion: see dispatch.Endpoints.
func (s *Store) EndpointsVersion(_ context.Context, tenant string) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.versions[tenant], nil
}

// ReadEndpoints: see dispatch.Endpoints.
func (s *Store) ReadEndpoints(_ context.Context, tenant string, _ bool) (endpoint.List, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]endpoint.Endpoint, 0, len(s.endpoints[tenant]))
	for _, e := range s.endpoints[tenant] {
		list = append(list, clone(e))
	}
	slices.SortFunc(list, func(a, b endpoint.Endpoint) int { return strings.Compare(a.ID, b.ID) })
	return endpoint.List{Endpoints: list, Version: s.versions[tenant]}, nil
}

// EachEndpoint: see eventtypes.Endpoints.
func (s *Store) EachEndpoint(_ context.Context, do func([]endpoint.Endpoint) error) error {
	s.mu.Lock()
	var all []endpoint.Endpoint
	for _, tenant := range s.endpoints {
		for _, e := range tenant {
			all = append(all, clone(e))
		}
	}
	s.mu.Unlock()
	if len(all) == 0 {
		return nil
	}
	return do(all)
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

// DisabledEndpoints returns the endpoints of the list that are disabled, with the reason.
func (s *Store) DisabledEndpoints(_ context.Context, list []stats.Endpoint) (map[stats.Endpoint]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	disabled := map[stats.Endpoint]string{}
	for _, e := range list {
		if stored, ok := s.endpoints[e.Tenant][e.ID]; ok && stored.Status == endpoint.Disabled {
			disabled[e] = stored.StatusReason
		}
	}
	return disabled, nil
}
