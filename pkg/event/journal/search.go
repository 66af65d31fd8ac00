package journal

import (
	"container/heap"
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/pkg/event"
)

// Source reads a tenant's items.
type Source interface {
	// QueryJournal returns items of a shard, the greatest key first. It may return fewer
	// than there are; more says so.
	QueryJournal(ctx context.Context, r Range) (items []Item, more bool, err error)
}

// Range selects items of a shard by their keys: First <= key < Before.
type Range struct {
	Tenant        string
	Shard         int
	First, Before string
}

// Query is a search for events.
type Query struct {
	Filter
	Tenant string
	Limit  int    // maximum number of events of a page
	Cursor string // Next of the previous page; empty for the first
	// Examine is how many events a page reads at most, once it has one that matches. As
	// long as it has none, it reads 20 times as many.
	Examine int
}

// patience is how many times more a page examines before it is returned empty.
const patience = 20

// Page is a page of events, newest first.
type Page struct {
	Entries []Entry
	// Next is the cursor of the next page; empty on the last page. A page with a Next is
	// empty only if a long search found nothing: Until says how far it got.
	Next     string
	Until    time.Time // the page covers events back to this time; zero on the last page
	Examined int       // number of events that were read
}

// Search returns a page of events. It fails if the cursor is
// malformed. A range that ends before it begins has no events. It reads about 90 bytes per examined event.
func Search(ctx context.Context, from Source, q Query) (Page, error) {
	var page Page
	last := endOfIDs
	if !q.To.IsZero() && q.To.Before(last) {
		last = q.To
	}
	firstID, lastID := event.IDRange(later(q.From, time.UnixMilli(0)), last)
	if q.Cursor != "" {
		before, err := parseCursor(q.Cursor)
		if err != nil {
			return page, err
		}
		lastID = min(lastID, before)
		last, _ = event.IDTime(lastID) // checked by parseCursor
	}
	if firstID > lastID {
		return page, nil
	}
	_, newest := event.IDRange(last, last.Add(span)) // of the items that can hold lastID
	m, err := newMerge(ctx, from, Range{Tenant: q.Tenant, First: firstID, Before: newest + "~"})
	if err != nil {
		return page, err
	}
	covered := ""
	for {
		e, ok, err := m.next(ctx)
		if err != nil {
			return Page{}, err
		}
		if !ok || e.ID < firstID {
			page.Until = time.Time{}
			return page, nil
		}
		if e.ID > lastID {
			continue
		}
		matches := q.Matches(e)
		enough := page.Examined >= q.Examine && (len(page.Entries) > 0 || page.Examined >= patience*q.Examine)
		if enough || matches && len(page.Entries) == q.Limit {
			break // there is more
		}
		if matches {
			page.Entries = append(page.Entries, e)
		}
		covered = e.ID
		page.Examined++
	}
	page.Next = CursorAfter(covered)
	page.Until, _ = event.IDTime(covered)
	return page, nil
}

// CursorAfter returns the cursor that continues a search after one of its events.
func CursorAfter(eventID string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(eventID))
}

// endOfIDs is the last time of a range. An ID can hold times until 1<<48 ms.
var endOfIDs = time.UnixMilli(1 << 47)

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// parseCursor returns the greatest ID after the cursor.
func parseCursor(cursor string) (string, error) {
	id, err := base64.RawURLEncoding.DecodeString(cursor)
	before := ""
	if err == nil {
		before, err = event.IDBefore(string(id))
	}
	if err != nil {
		return "", fmt.Errorf("invalid cursor %.64q: use a cursor that the same search returned", cursor)
	}
	return before, nil
}

// merge returns the events of all shards, newest first, each once.
type merge struct {
	source Source
	shards [Shards]shard
	read   entries // of items that were read and not returned yet
	lastID string  // of the event that was returned last
}

// shard is what is left of one shard.
type shard struct {
	rest  Range
	items []Item // read, not merged yet
	more  bool
}

func newMerge(ctx context.Context, source Source, r Range) (*merge, error) {
	m := &merge{source: source}
	group, ctx := errgroup.WithContext(ctx)
	for n := range m.shards {
		m.shards[n] = shard{rest: r, more: true}
		m.shards[n].rest.Shard = n
		group.Go(func() error { return m.fill(ctx, &m.shards[n]) })
	}
	return m, group.Wait()
}

// fill reads items of a shard, if none is left.
func (m *merge) fill(ctx context.Context, s *shard) error {
	for len(s.items) == 0 && s.more {
		var err error
		if s.items, s.more, err = m.source.QueryJournal(ctx, s.rest); err != nil {
			return err
		}
		if n := len(s.items); n > 0 {
			s.rest.Before = s.items[n-1].Key()
		}
	}
	return nil
}

// next returns the newest event that is left. Once an event is newer than every item that
// is left, no item can hold a newer one, or the same again.
func (m *merge) next(ctx context.Context) (Entry, bool, error) {
	for {
		var newest *shard
		for n := range m.shards {
			s := &m.shards[n]
			if err := m.fill(ctx, s); err != nil {
				return Entry{}, false, err
			}
			if len(s.items) > 0 && (newest == nil || s.items[0].newest() > newest.items[0].newest()) {
				newest = s
			}
		}
		for len(m.read) > 0 && (newest == nil || m.read[0].ID > newest.items[0].newest()) {
			e := heap.Pop(&m.read).(Entry)
			if e.ID != m.lastID {
				m.lastID = e.ID
				return e, true, nil
			}
		}
		if newest == nil {
			return Entry{}, false, nil
		}
		for _, e := range newest.items[0].Entries {
			heap.Push(&m.read, e)
		}
		newest.items = newest.items[1:]
	}
}

// entries is a heap with the newest event first.
type entries []Entry

func (h entries) Len() int           { return len(h) }
func (h entries) Less(a, b int) bool { return strings.Compare(h[a].ID, h[b].ID) > 0 }
func (h entries) Swap(a, b int)      { h[a], h[b] = h[b], h[a] }
func (h *entries) Push(e any)        { *h = append(*h, e.(Entry)) }
func (h *entries) Pop() any {
	old := *h
	e := old[len(old)-1]
	*h = old[:len(old)-1]
	return e
}
