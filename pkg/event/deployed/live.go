package deployed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/sync/singleflight"

	"github.com/tidings-dev/tidings/pkg/event/catalog"
)

// CacheTime is how long a deployment's functions use the event types before they ask
// whether they changed.
const CacheTime = time.Minute

// MaxKeptBytes is the maximum memory that a Live keeps types of tenants in, by
// catalog.Type.Memory: those of 170 tenants with 20 types of ten fields each. The types of the
// tenant that has not used them for the longest time go first. Those that were used last stay
// even if they are larger: a tenant's can take about 100 times its definitions (MaxTenantBytes).
const MaxKeptBytes = 64 << 20

// Live is the event types and capture rules of a deployment, and the types of its tenants,
// as they are now, or were a moment ago. It is safe for concurrent use.
type Live struct {
	Source Source
	// CacheTime is how long the types are used before they are read again; 0 asks every
	// time whether they changed.
	CacheTime time.Duration
	Now       func() time.Time
	Log       *slog.Logger

	mu      sync.Mutex
	now     state
	checked time.Time
	reading singleflight.Group
	kept    tenantCache
}

// state is what the store had at one revision.
type state struct {
	Both     // without types before the first read
	revision int
	parts    []string // keys of the parts that Both was read from
	tenants  map[string]ownTypes
	stale    error // why the last read failed; nil if the state is what is stored
}

// Current returns the event types of the deployment. If they cannot be read again, it
// returns the last ones; it fails only if there are none.
func (l *Live) Current(ctx context.Context) (*catalog.Catalog, error) {
	now, err := l.Both(ctx)
	return now.Types, err
}

// Both is the event types and the capture rules of one moment.
type Both struct {
	Types *catalog.Catalog
	Rules Rules
}

// Both returns the event types as Current does, with the capture rules.
func (l *Live) Both(ctx context.Context) (Both, error) {
	now, err := l.state(ctx)
	return now.Both, err
}

// Of returns the event types of a tenant: those of the deployment and its own. For a tenant
// without types of its own, it reads and keeps nothing more than Current. If the tenant's
// types cannot be read again, it returns the last ones if it still has them, and an error
// otherwise: an *UnreadableError if reading again cannot help.
func (l *Live) Of(ctx context.Context, tenant string) (*catalog.Catalog, error) {
	now, err := l.state(ctx)
	for try := 1; err == nil; try++ {
		at, ok := now.tenants[tenant]
		if !ok {
			return now.Types, nil
		}
		if known := l.keptOf(tenant, at, now.Types); known != nil {
			return known, nil
		}
		read, failed, _ := l.reading.Do(at.prefix(tenant), func() (any, error) { return l.readTenant(ctx, now, tenant) })
		switch {
		case failed == nil:
			return catalog.Over(now.Types, read.(*catalog.Catalog)), nil
		case errors.Is(failed, ErrConflict) && try < maxReads: // what is known is older than what is stored
			now, err = l.again(ctx)
		case errors.Is(failed, ErrConflict) && now.stale == nil:
			return l.lastOf(ctx, tenant, now, &UnreadableError{tenant, errors.New("a part is missing")})
		default:
			return l.lastOf(ctx, tenant, now, failed)
		}
	}
	return nil, err
}

// keptOf returns the kept types of a tenant, if they are those that are stored.
func (l *Live) keptOf(tenant string, at ownTypes, base *catalog.Catalog) *catalog.Catalog {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.kept.get(tenant)
	if k == nil || k.at != at && !l.Now().Before(k.until) {
		return nil
	}
	return catalog.Over(base, k.own)
}

// readTenant reads the types of a tenant's own and keeps them.
func (l *Live) readTenant(ctx context.Context, now state, tenant string) (*catalog.Catalog, error) {
	types, err := ReadTenant(ctx, l.Source, Set{tenants: now.tenants}, tenant)
	if err != nil {
		return nil, err
	}
	own, err := catalog.New(types)
	if err != nil {
		return nil, &UnreadableError{tenant, err}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept.put(tenant, &tenantTypes{at: now.tenants[tenant], own: own, bytes: memory(types)})
	return own, nil
}

// lastOf returns the last types of a tenant whose types could not be read, and uses them as
// long as those of the deployment; the error if there are none.
func (l *Live) lastOf(ctx context.Context, tenant string, now state, err error) (*catalog.Catalog, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.kept.get(tenant)
	if k == nil {
		return nil, err
	}
	l.Log.WarnContext(ctx, "event_types.stale", "revision", now.revision, "tenant", tenant, "error", err.Error())
	k.until = l.Now().Add(l.CacheTime)
	return catalog.Over(now.Types, k.own), nil
}

func (l *Live) state(ctx context.Context) (state, error) {
	l.mu.Lock()
	now, age := l.now, l.Now().Sub(l.checked)
	l.mu.Unlock()
	if now.Types != nil && age < l.CacheTime {
		return now, nil
	}
	return l.again(ctx)
}

// again reads what changed.
func (l *Live) again(ctx context.Context) (state, error) {
	read, err, _ := l.reading.Do("", func() (any, error) { return l.read(ctx) })
	if err != nil {
		return state{}, err
	}
	return read.(state), nil
}

func (l *Live) read(ctx context.Context) (state, error) {
	l.mu.Lock()
	was := l.now
	l.mu.Unlock()
	known := was.revision
	if was.Types == nil {
		known = -1
	}
	next := was
	next.stale = nil
	set, parts, err := read(ctx, l.Source, known, was.parts)
	switch {
	case err != nil || set.Revision == known:
	case len(parts) > 0 && slices.Equal(parts, was.parts): // only tenants changed
		next.revision, next.tenants = set.Revision, set.tenants
	default:
		next = state{revision: set.Revision, parts: parts, tenants: set.tenants}
		next.Rules = set.Rules
		next.Types, err = set.Catalog()
	}
	if err != nil {
		if was.Types == nil {
			return state{}, fmt.Errorf("event types: %w", err)
		}
		l.Log.WarnContext(ctx, "event_types.stale", "revision", was.revision, "error", err.Error())
		next = was
		next.stale = err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now, l.checked = next, l.Now()
	return next, nil
}

// tenantTypes are the types of one tenant that a Live keeps.
type tenantTypes struct {
	at    ownTypes
	own   *catalog.Catalog // without those of the deployment, which would stay as long as they do
	bytes int              // of memory, with the compiled schemas
	until time.Time        // used until then although others are stored, which could not be read
}

// memory estimates the bytes of memory that types take.
func memory(types []catalog.Type) (size int) {
	for _, t := range types {
		size += t.Memory()
	}
	return size
}

// tenantCache keeps types of tenants up to MaxKeptBytes. The zero value is ready to use.
type tenantCache struct {
	list  *simplelru.LRU[string, *tenantTypes]
	bytes int
}

func (c *tenantCache) get(tenant string) *tenantTypes {
	if c.list == nil {
		return nil
	}
	k, _ := c.list.Get(tenant)
	return k
}

func (c *tenantCache) put(tenant string, k *tenantTypes) {
	if c.list == nil {
		list, err := simplelru.NewLRU(MaxTenants, func(_ string, k *tenantTypes) { c.bytes -= k.bytes })
		if err != nil {
			panic(err) // only for a size below 1
		}
		c.list = list
	}
	c.list.Remove(tenant)
	c.list.Add(tenant, k)
	for c.bytes += k.bytes; c.bytes > MaxKeptBytes && c.list.Len() > 1; {
		c.list.RemoveOldest()
	}
}
