package emit

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/platform"
)

const (
	// noKind counts the items without a kind.
	noKind = "(none)"
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

// unknownKinds counts the changes of the platform's table whose kind is unknown; nil if
// there are none.
func (em *Emitter) unknownKinds(changes []platform.Change) map[string]int64 {
	var kinds map[string]int64
	now := em.Now()
	for _, c := range changes {
		image := imageOf(c)
		if image == nil || c.ByTTL || image.Kind().IsKnown() || !em.isPlatform(c) {
			continue
		}
		if kinds == nil {
			kinds = map[string]int64{}
		}
		kinds[em.kinds.Name(recordKind(image.Text("kind")), now)]++
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
