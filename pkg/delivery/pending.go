package delivery

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// PendingQuery selects the pending deliveries of endpoints, newest event first, then by
// endpoint. They are found in their endpoint's backlog and among the retries that are due
// in time, so what it reads does not depend on the number of other deliveries.
type PendingQuery struct {
	Endpoints []string
	From, To  time.Time // when the event was accepted, inclusive; zero is unbounded
	Limit     int
	After     Key // the last delivery of the previous page; zero for the first
	// DueBy is until when a retry can be due, and MaxDue how many of each shard of the due
	// index are read, whatever their endpoint.
	DueBy  time.Time
	MaxDue int
}

// PendingPage is a page of pending deliveries. It can be short, because a delivery that is
// claimed before it is read is left out.
type PendingPage struct {
	Deliveries []Delivery
	Last       Key // After of the next page; zero on the last page
	// Partial reports that more retries are due than the query may read: the page is not to
	// be used.
	Partial bool
}

// Bounds returns the smallest and the largest event ID of the query's range.
func (q PendingQuery) Bounds() (first, last string, err error) {
	first, last, err = Query{From: q.From, To: q.To}.Bounds()
	if err == nil && q.After.EventID != "" {
		last = min(last, q.After.EventID)
	}
	return first, last, err
}

// newestFirst is the order of a page.
func newestFirst(a, b Key) int {
	return cmp.Or(strings.Compare(b.EventID, a.EventID), strings.Compare(a.EndpointID, b.EndpointID))
}

// Page returns the keys of the next page among those that were found, and whether there are
// more. Of each endpoint's backlog, the newest Limit+2 from Bounds on must be found.
func (q PendingQuery) Page(found []Key) (page []Key, more bool, err error) {
	first, last, err := q.Bounds()
	if err != nil {
		return nil, false, err
	}
	for _, k := range found {
		in := k.EventID >= first && k.EventID <= last && slices.Contains(q.Endpoints, k.EndpointID)
		if in && (q.After.EventID == "" || newestFirst(k, q.After) > 0) {
			page = append(page, k)
		}
	}
	slices.SortFunc(page, newestFirst)
	page = slices.Compact(page)
	if len(page) > q.Limit {
		return page[:q.Limit], true, nil
	}
	return page, false, nil
}
