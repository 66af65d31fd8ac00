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

// Live is the event types and capture rules of a deployment as they are now, or were a
// moment ago. It is safe for concurrent use.
type Live struct {
	Source Source
	// CacheTime is how long the types are used before they are read again; 0 asks every
	// time whether they changed.
	CacheTime time.Duration
	Now       func() time.Time
	Log       *slog.Logger

	mu       sync.Mutex
	revision int
	now      Both // without types before the first read
	checked  time.Time
	reading  singleflight.Group
}

// Current returns the event types. If they cannot be read again, it returns the last ones;
// it fails only if there are none.
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
	l.mu.Lock()
	now, age := l.now, l.Now().Sub(l.checked)
	l.mu.Unlock()
	if now.Types != nil && age < l.CacheTime {
		return now, nil
	}
	read, err, _ := l.reading.Do("", func() (any, error) { return l.read(ctx) })
	if err != nil {
		return Both{}, err
	}
	return read.(Both), nil
}

func (l *Live) read(ctx context.Context) (Both, error) {
	l.mu.Lock()
	revision, was := l.revision, l.now
	l.mu.Unlock()
	known := revision
	if was.Types == nil {
		known = -1
	}
	set, err := Read(ctx, l.Source, known)
	next := was
	if err == nil && set.Revision != known {
		next.Rules = set.Rules
		next.Types, err = set.Catalog()
	}
	if err != nil {
		if was.Types == nil {
			return Both{}, fmt.Errorf("event types: %w", err)
		}
		l.Log.WarnContext(ctx, "event_types.stale", "revision", revision, "error", err.Error())
		set.Revision, next = revision, was
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.revision, l.now, l.checked = set.Revision, next, l.Now()
	return next, nil
}
