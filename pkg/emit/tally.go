package emit

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/platform"
)

const (
	// maxKinds bounds the number of unknown kinds that a process counts by name, per bucket
	// of the statistics. Kinds are foreign text, and the counts are attributes of the
	// bucket's item, which also has the counts of deliveries.
	maxKinds = 20
	// otherKinds counts the kinds beyond maxKinds, noKind the items without a kind.
	otherKinds = "(other)"
	noKind     = "(none)"
	// maxKindBytes bounds the name of a kind.
	maxKindBytes = 64
)

// captureTally counts what happened in a batch of changes.
type captureTally struct {
	mu                            sync.Mutex
	events, duplicates, malformed int
	changes, failures             int64            // counted once, even if the batch is delivered again
	kinds                         map[string]int64 // unknown ones
}

// stored counts the events of a change. A change whose events were all stored before is
// not counted again.
func (t *captureTally) stored(r captureResult) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.events += r.stored
	t.duplicates += r.duplicates
	if r.stored > 0 {
		t.changes++
	}
}

// kept counts a failed change.
func (t *captureTally) kept(isNew bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.malformed++
	if isNew {
		t.failures++
	}
}

// kindNames are the unknown kinds that a process counts by name.
type kindNames struct {
	mu     sync.Mutex
	bucket time.Time
	names  map[string]bool
}

// count counts the changes of unknown kinds; nil if there are none. hasKinds reports whether
// a change is one of a table that should have the platform's kinds.
func (k *kindNames) count(changes []platform.Change, hasKinds func(platform.Change) bool, now time.Time) map[string]int64 {
	var kinds map[string]int64
	k.mu.Lock()
	defer k.mu.Unlock()
	if bucket := stats.Bucket(now); !bucket.Equal(k.bucket) || k.names == nil {
		k.bucket, k.names = bucket, map[string]bool{}
	}
	for _, c := range changes {
		image := imageOf(c)
		if image == nil || c.ByTTL || image.Kind().IsKnown() || !hasKinds(c) {
			continue
		}
		name := recordKind(image.Text("kind"))
		switch {
		case k.names[name]:
		case len(k.names) < maxKinds:
			k.names[name] = true
		default:
			name = otherKinds
		}
		if kinds == nil {
			kinds = map[string]int64{}
		}
		kinds[name]++
	}
	return kinds
}

// recordKind shortens a kind for counts and lists.
func recordKind(kind string) string {
	if kind == "" {
		return noKind
	}
	return strings.ToValidUTF8(kind[:min(len(kind), maxKindBytes)], "")
}

// countCapture stores the counts of a batch in one write, if there are any.
func (em *Emitter) countCapture(ctx context.Context, t *captureTally) {
	b := stats.Batch{Counts: stats.Counts{Captured: t.changes, CaptureFailed: t.failures}, UnknownKinds: t.kinds}
	if err := stats.Write(ctx, em.Statistics, b, em.Now()); err != nil {
		em.Log.WarnContext(ctx, "statistics.not_stored", "captured", t.changes, "capture_failed", t.failures, "error", err.Error())
	}
}

// stuckMark remembers the mark that this process has set.
type stuckMark struct {
	mu     sync.Mutex
	number string // sequence number; empty if there is none
}

// markStuck marks capture as stuck if the batch failed at the record first, and removes
// this process's mark if the batch got past the marked record. Other processes' marks
// end by themselves after platform.StuckFresh.
func (em *Emitter) markStuck(ctx context.Context, batch []platform.Change, first int) {
	em.stuck.mu.Lock()
	defer em.stuck.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stats.WriteTime)
	defer cancel()
	if first < len(batch) {
		now, change := em.Now(), batch[first]
		mark := platform.StuckCapture{Since: now, FailedAt: now, ChangeAt: change.At, SequenceNumber: change.SequenceNumber}
		if err := em.Stuck.MarkStuckCapture(ctx, mark); err != nil {
			em.Log.WarnContext(ctx, "capture.not_marked", "sequence_number", mark.SequenceNumber, "error", err.Error())
		}
		em.stuck.number = mark.SequenceNumber
		return
	}
	if number := em.stuck.number; number != "" && slices.ContainsFunc(batch, func(c platform.Change) bool { return c.SequenceNumber == number }) {
		if err := em.Stuck.ClearStuckCapture(ctx, number); err != nil {
			em.Log.WarnContext(ctx, "capture.not_marked", "sequence_number", number, "error", err.Error())
			return // the mark ends by itself
		}
		em.stuck.number = ""
	}
}
