package stats

import (
	"sync"
	"time"
)

// OtherNames counts what is beyond the names that Names lets through.
const OtherNames = "(other)"

// maxNames bounds the names that a process counts, per bucket. Names are foreign text, and
// the counts are attributes of the bucket's item, which also has the counts of deliveries.
const maxNames = 20

// Names bounds the names under which a process counts what it has not defined itself. The
// zero value is ready. It is safe for concurrent use.
type Names struct {
	mu     sync.Mutex
	bucket time.Time
	names  map[string]bool
}

// Name returns the name under which to count in the bucket of now: the given one, or
// OtherNames if the process counts 20 others in the bucket already.
func (n *Names) Name(name string, now time.Time) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if bucket := Bucket(now); !bucket.Equal(n.bucket) || n.names == nil {
		n.bucket, n.names = bucket, map[string]bool{}
	}
	switch {
	case n.names[name]:
	case len(n.names) < maxNames:
		n.names[name] = true
	default:
		return OtherNames
	}
	return name
}
