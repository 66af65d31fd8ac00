package journal

import (
	"context"
	"slices"

	"github.com/tidings-dev/tidings/pkg/event"
)

// Clear returns the item without the subjects and actors of the events that are selected.
// Its key stays the same. ok is false if there is nothing to clear.
func (i Item) Clear(selected func(Entry) bool) (cleared Item, ok bool) {
	i.Entries = slices.Clone(i.Entries)
	for n, e := range i.Entries {
		if e.Subject+e.Actor != "" && selected(e) {
			i.Entries[n].Subject, i.Entries[n].Actor, ok = "", "", true
		}
	}
	return i, ok
}

// Names reports whether an event's subject or actor is a text.
func (e Entry) Names(text string) bool {
	return text != "" && (e.Subject == clip(text) || e.Actor == clip(text))
}

// Holding returns the items that have an event: more than one if its batch was recorded
// again in another form.
func Holding(ctx context.Context, from Source, tenant, eventID string) (items []Item, err error) {
	at, err := event.IDTime(eventID)
	if err != nil {
		return nil, err
	}
	_, newest := event.IDRange(at, at.Add(span)) // of the items that can hold it
	for shard := range Shards {
		r := Range{Tenant: tenant, Shard: shard, First: eventID, Before: newest + "~"}
		for more := true; more; {
			var page []Item
			if page, more, err = from.QueryJournal(ctx, r); err != nil {
				return nil, err
			}
			for _, i := range page {
				r.Before = i.Key()
				if slices.ContainsFunc(i.Entries, func(e Entry) bool { return e.ID == eventID }) {
					items = append(items, i)
				}
			}
		}
	}
	return items, nil
}

// Pages goes through a shard's items a page at a time, the newest first. cursor is empty on
// the first page, and next on the last one.
func Pages(ctx context.Context, from Source, tenant string, shard int, cursor string) (items []Item, next string, err error) {
	if cursor == "" {
		cursor = "~" // after every key
	}
	items, more, err := from.QueryJournal(ctx, Range{Tenant: tenant, Shard: shard, Before: cursor})
	if err != nil || !more || len(items) == 0 {
		return items, "", err
	}
	return items, items[len(items)-1].Key(), nil
}
