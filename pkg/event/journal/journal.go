// Package journal records which events fan-out handled, so that people can list and
// search events: one packed item for each batch and tenant, not one item per event. It
// promises that Search finds every recorded event that matches, each once, newest first,
// also if a batch was recorded twice. It does no I/O; stores keep the items.
package journal

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/pkg/event"
)

const (
	// Shards is the number of partitions of a tenant's items. Each accepts about 1,000
	// write units per second: 1,000 events that come alone, 10,000 in full batches.
	Shards = 4
	// span is how far apart the events of one item can be. It bounds what a reader reads
	// beyond a time range.
	span = 10 * time.Second
	// maxItemBytes is the size at which a new item is begun.
	maxItemBytes = 32 << 10
	// maxText is the maximum number of bytes of a subject or an actor; longer ones are cut.
	maxText = 256
)

// Entry is an event in the journal.
type Entry struct {
	ID      string
	Type    string
	Subject string // what the event is about, by its type; cut to 256 bytes
	Actor   string // who caused it; cut to 256 bytes
	// Endpoints is how many endpoints matched when the event was fanned out.
	Endpoints int
}

// Item is what a store keeps: some events of one tenant, oldest first.
type Item struct {
	Tenant  string
	Entries []Entry
	// RetentionDays is that of each of the events; 0 means event.DefaultRetentionDays. Events
	// of different retention are in different items: subjects and actors of a type that is
	// kept for days must not stay for a year because they came with others.
	RetentionDays int
}

// Pack distributes the events of one batch and tenant over items.
func Pack(tenant string, entries []Entry) []Item {
	entries = slices.Clone(entries)
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.ID, b.ID) })
	entries = slices.CompactFunc(entries, func(a, b Entry) bool { return a.ID == b.ID })
	var items []Item
	var begun time.Time
	size := 0
	for _, e := range entries {
		e.Subject, e.Actor = clip(e.Subject), clip(e.Actor)
		at, _ := event.IDTime(e.ID) // fan-out passes over other IDs
		bytes := len(e.ID) + len(e.Type) + len(e.Subject) + len(e.Actor) + 20
		if len(items) == 0 || at.Sub(begun) > span || size+bytes > maxItemBytes {
			items, begun, size = append(items, Item{Tenant: tenant}), at, 0
		}
		last := &items[len(items)-1]
		last.Entries = append(last.Entries, e)
		size += bytes
	}
	return items
}

// clip cuts a text at a character.
func clip(text string) string {
	if len(text) <= maxText {
		return text
	}
	return strings.ToValidUTF8(text[:maxText], "")
}

// Key orders the items of a shard by their newest event. A batch that is recorded again
// replaces itself. A part of it, which the stream delivers again after an error, does not.
func (i Item) Key() string {
	h := fnv.New64a()
	for _, e := range i.Entries {
		h.Write([]byte(e.ID))
	}
	return i.newest() + "#" + strconv.FormatUint(h.Sum64(), 36)
}

// Shard returns the partition of an item.
func (i Item) Shard() int {
	h := fnv.New32a()
	h.Write([]byte(i.newest()))
	return int(h.Sum32() % Shards)
}

// newest is the ID of the newest event.
func (i Item) newest() string { return i.Entries[len(i.Entries)-1].ID }

// Encode returns the entries as JSON: a list of [id, type, subject, actor, endpoints].
func (i Item) Encode() (string, error) {
	rows := make([][5]any, len(i.Entries))
	for n, e := range i.Entries {
		rows[n] = [5]any{e.ID, e.Type, e.Subject, e.Actor, e.Endpoints}
	}
	text, err := json.Marshal(rows)
	return string(text), err
}

// Decode reads what Encode returned.
func Decode(tenant, text string) (Item, error) {
	var rows [][5]json.RawMessage
	item := Item{Tenant: tenant}
	if err := json.Unmarshal([]byte(text), &rows); err != nil {
		return item, fmt.Errorf("journal: %w", err)
	}
	if len(rows) == 0 {
		return item, fmt.Errorf("journal: an item without events")
	}
	item.Entries = make([]Entry, len(rows))
	for n, row := range rows {
		e := &item.Entries[n]
		for place, into := range []any{&e.ID, &e.Type, &e.Subject, &e.Actor, &e.Endpoints} {
			if err := json.Unmarshal(row[place], into); err != nil {
				return item, fmt.Errorf("journal: event %d, value %d: %w", n, place, err)
			}
		}
		if _, err := event.IDTime(e.ID); err != nil {
			return item, fmt.Errorf("journal: %w", err)
		}
	}
	return item, nil
}

// Filter selects events. Empty fields match all.
type Filter struct {
	From, To time.Time // when the event was accepted, both included
	Types    []string
	// ID is an event's ID, or its last characters, as the console shows them.
	ID      string
	Subject string
	Actor   string
	// Text matches any of ID, subject and actor.
	Text string
}

// Matches reports whether an event is selected, apart from its time.
func (f Filter) Matches(e Entry) bool {
	is := func(want, got string) bool { return want == "" || clip(want) == got }
	return (len(f.Types) == 0 || slices.Contains(f.Types, e.Type)) && endsWith(e.ID, f.ID) && is(f.Subject, e.Subject) && is(f.Actor, e.Actor) &&
		(f.Text == "" || endsWith(e.ID, f.Text) && len(f.Text) >= 4 || clip(f.Text) == e.Subject || clip(f.Text) == e.Actor)
}

// endsWith compares the last characters of an ID, in any case, as ULIDs do.
func endsWith(id, last string) bool {
	return len(last) <= len(id) && strings.EqualFold(id[len(id)-len(last):], last)
}
