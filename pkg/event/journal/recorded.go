package journal

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/pkg/event"
)

// recordedReads bounds the concurrent reads of Recorded.
const recordedReads = 32

// nearItem is how far the newest event of an item mostly is from each of its events: a
// batch is full in less, or its events come alone.
const nearItem = time.Second

// Recorded returns which of a tenant's events, given by their IDs, are in the journal. It
// reads the items of a second after each event and, if they do not have it, of the ten
// seconds in which an item with it can be.
func Recorded(ctx context.Context, from Source, tenant string, ids []string) (map[string]bool, error) {
	left := slices.Compact(slices.Sorted(slices.Values(ids)))
	found := make(map[string]bool, len(ids))
	var mu sync.Mutex
	for _, ahead := range []time.Duration{nearItem, span} {
		left = slices.DeleteFunc(left, func(id string) bool { return found[id] })
		runs, err := splitRuns(left, ahead)
		if err != nil {
			return nil, err
		}
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(recordedReads)
		for _, r := range runs {
			for shard := range Shards {
				r := Range{Tenant: tenant, Shard: shard, First: r.First, Before: r.Before}
				group.Go(func() error {
					for {
						items, more, err := from.QueryJournal(ctx, r)
						if err != nil {
							return err
						}
						mu.Lock()
						for _, i := range items {
							for _, e := range i.Entries {
								found[e.ID] = true
							}
						}
						mu.Unlock()
						if !more || len(items) == 0 {
							return nil
						}
						r.Before = items[len(items)-1].Key()
					}
				})
			}
		}
		if err := group.Wait(); err != nil {
			return nil, err
		}
	}
	recorded := make(map[string]bool, len(ids))
	for _, id := range ids {
		recorded[id] = found[id]
	}
	return recorded, nil
}

// splitRuns returns the ranges of keys in which items with the events, oldest first, can be
// whose newest event is up to ahead later. Ranges that overlap become one.
func splitRuns(ids []string, ahead time.Duration) (runs []Range, err error) {
	var last time.Time
	for _, id := range ids {
		at, err := event.IDTime(id)
		if err != nil {
			return nil, err
		}
		_, end := event.IDRange(at, at.Add(ahead))
		if len(runs) == 0 || at.Sub(last) > ahead {
			runs = append(runs, Range{First: id})
		}
		runs[len(runs)-1].Before, last = end+"~", at
	}
	return runs, nil
}
