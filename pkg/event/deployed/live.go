package deployed

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/tidings-dev/tidings/pkg/event/catalog"
)

// CacheTime is how long a deployment's functions use the event types before they ask
// whether they changed.
const CacheTime = time.Minute

// Live is the event types of a deployment as they are now, or were a moment ago. It is
// safe for concurrent use.
type Live struct {
	Source Source
	// CacheTime is how long the types are used before they are read again; 0 asks every
	// time whether they changed.
	CacheTime time.Duration
	Now       func() time.Time
	Log       *slog.Logger

	mu       sync.Mutex
	revision int
	current  *catalog.Catalog // nil before the first read
	checked  time.Time
	reading  singleflight.Group
}

// Current returns the event types. If they cannot be read again, it returns the last ones;
// it fails only if there are none.
func (l *Live) Current(ctx context.Context) (*catalog.Catalog, error) {
	l.mu.Lock()
	current, age := l.current, l.Now().Sub(l.checked)
	l.mu.Unlock()
	if current != nil && age < l.CacheTime {
		return current, nil
	}
	read, err, _ := l.reading.Do("", func() (any, error) { return l.read(ctx) })
	if err != nil {
		return nil, err
	}
	return read.(*catalog.Catalog), nil
}

func (l *Live) read(ctx context.Context) (*catalog.Catalog, error) {
	l.mu.Lock()
	revision, current := l.revision, l.current
	l.mu.Unlock()
	known := revision
	if current == nil {
		known = -1
	}
	set, err := Read(ctx, l.Source, known)
	next := current
	if err == nil && set.Revision != known {
		next, err = set.Catalog()
	}
	if err != nil {
		if current == nil {
			return nil, fmt.Errorf("event types: %w", err)
		}
		l.Log.WarnContext(ctx, "event_types.stale", "revision", revision, "error", err.Error())
		set.Revision, next = revision, current
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.revision, l.current, l.checked = set.Revision, next, l.Now()
	return next, nil
}
