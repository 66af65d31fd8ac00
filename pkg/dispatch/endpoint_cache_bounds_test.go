package dispatch

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/pkg/endpoint"
)

// sized has tenants with a number of endpoints, and counts the reads.
type sized struct {
	sizes   map[string]int
	err     error
	lists   int
	singles int
}

func (s *sized) EndpointsVersion(context.Context, string) (int64, error) { return 0, s.err }

func (s *sized) ReadEndpoints(_ context.Context, tenant string, _ bool) (endpoint.List, error) {
	s.lists++
	list := make([]endpoint.Endpoint, s.sizes[tenant])
	for i := range list {
		list[i] = endpoint.Endpoint{Tenant: tenant, ID: fmt.Sprintf("%s-%d", tenant, i), Status: endpoint.Enabled}
	}
	return endpoint.List{Endpoints: list}, s.err
}

func (s *sized) GetEndpoint(_ context.Context, tenant, id string) (endpoint.Endpoint, error) {
	s.singles++
	if s.err != nil {
		return endpoint.Endpoint{}, s.err
	}
	return endpoint.Endpoint{Tenant: tenant, ID: id}, nil
}

const cacheKeep = time.Minute

// cacheOf returns a cache with a clock that the test sets.
func cacheOf(sizes map[string]int) (*endpointCache, *sized, *time.Time) {
	now, store := time.Unix(1_000_000, 0), &sized{sizes: sizes}
	return newEndpointCache(store, cacheKeep, func() time.Time { return now }), store, &now
}

func (c *endpointCache) fillWith(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := c.tenant(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	held := 0
	for _, one := range c.tenants {
		held += one.size()
	}
	if held != c.held || held > maxHeld && len(c.tenants) > 1 {
		t.Fatalf("after %v: %d tenants with %d entries, counted as %d", names, len(c.tenants), held, c.held)
	}
}

func TestTheEndpointCacheHoldsWhatFits(t *testing.T) {
	for name, c := range map[string]struct {
		sizes map[string]int
		load  []string
		want  int // tenants
	}{
		"all fit":                    {map[string]int{"a": 6000, "b": 6000, "c": 6000}, []string{"a", "b", "c"}, 3},
		"all fit exactly":            {map[string]int{"a": 9999, "b": 9999}, []string{"a", "b"}, 2},
		"one too many":               {map[string]int{"a": 9999, "b": 10_000}, []string{"a", "b"}, 1},
		"the fourth does not fit":    {map[string]int{"a": 6000, "b": 6000, "c": 6000, "d": 6000}, []string{"a", "b", "c", "d"}, 3},
		"a tenant that exceeds it":   {map[string]int{"a": 6000, "b": 30_000}, []string{"a", "b"}, 1},
		"and then others":            {map[string]int{"a": 30_000, "b": 1, "c": 1}, []string{"a", "b", "c"}, 2},
		"the same, from the cache":   {map[string]int{"a": 6000}, []string{"a", "a", "a"}, 1},
		"a tenant without endpoints": {nil, []string{"a"}, 1},
	} {
		cache, store, _ := cacheOf(c.sizes)
		cache.fillWith(t, c.load...)
		if len(cache.tenants) != c.want {
			t.Errorf("%s: %d tenants are held, want %d", name, len(cache.tenants), c.want)
		}
		if name == "the same, from the cache" && store.lists != 1 {
			t.Errorf("%s: read %d times", name, store.lists)
		}
	}
}

// Expired entries are removed, at most once in the time for which entries are kept.
func TestExpiredEndpointsLeaveTheCache(t *testing.T) {
	cache, store, now := cacheOf(map[string]int{"a": 3, "b": 4})
	ctx, start := t.Context(), *now
	if _, err := cache.get(ctx, "x", "single"); err != nil {
		t.Fatal(err)
	}
	cache.fillWith(t, "a")
	*now = start.Add(time.Nanosecond)
	cache.fillWith(t, "b")
	*now = start.Add(cacheKeep - 1)
	cache.fillWith(t, "c", "a")
	if len(cache.tenants) != 3 || len(cache.singles) != 1 || store.lists != 3 {
		t.Errorf("before their time: %d tenants, %d endpoints, %d reads", len(cache.tenants), len(cache.singles), store.lists)
	}
	*now = start.Add(cacheKeep)
	cache.fillWith(t, "d")
	if cache.tenants["a"] != nil || cache.tenants["b"] == nil || len(cache.singles) != 0 {
		t.Errorf("at their time: %d tenants, %d endpoints", len(cache.tenants), len(cache.singles))
	}
	*now = start.Add(cacheKeep + 2)
	cache.fillWith(t, "e")
	if cache.tenants["b"] == nil {
		t.Error("removed again at once")
	}
	cache.fillWith(t, "b") // it has expired, and is read again
	if store.lists != 6 {
		t.Errorf("%d reads, want 6", store.lists)
	}
}

func TestSingleEndpointsAreBounded(t *testing.T) {
	cache, store, now := cacheOf(map[string]int{"a": 1})
	get := func(tenant, id string) {
		t.Helper()
		if e, err := cache.get(t.Context(), tenant, id); err != nil || e.ID != id {
			t.Fatalf("%+v, %v", e, err)
		}
	}
	for i := range maxSingles {
		get("x", fmt.Sprint(i))
	}
	if get("x", "0"); len(cache.singles) != maxSingles || store.singles != maxSingles {
		t.Errorf("%d endpoints are held after %d reads", len(cache.singles), store.singles)
	}
	if get("x", "one more"); len(cache.singles) != 1 {
		t.Errorf("%d endpoints are held", len(cache.singles))
	}
	// One of a tenant whose list is cached needs no read.
	cache.fillWith(t, "a")
	before := store.singles
	if get("a", "a-0"); store.singles != before {
		t.Error("it is read although the tenant's list has it")
	}
	// What was forgotten is read again.
	get("x", "one more")
	cache.forget("a", "one more")
	get("x", "one more")
	if get("a", "a-0"); store.singles != before+2 || cache.held != 0 {
		t.Errorf("%d reads after both were forgotten, %d entries held", store.singles-before, cache.held)
	}
	// And so is what has expired.
	*now = now.Add(cacheKeep)
	if get("a", "a-0"); store.singles != before+3 {
		t.Errorf("%d reads", store.singles-before)
	}
}

// That an endpoint does not exist is cached; that it could not be read is not.
func TestAMissingEndpointIsCached(t *testing.T) {
	away := errors.New("the table does not answer")
	for err, reads := range map[error]int{endpoint.ErrNotFound: 1, away: 2} {
		cache, store, _ := cacheOf(nil)
		store.err = err
		for range 2 {
			if _, got := cache.get(t.Context(), "x", "id"); !errors.Is(got, err) {
				t.Errorf("%v, want %v", got, err)
			}
		}
		if store.singles != reads {
			t.Errorf("%v: %d reads, want %d", err, store.singles, reads)
		}
	}
}
