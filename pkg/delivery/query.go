package delivery

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/pkg/event"
)

// Query selects deliveries of one endpoint, newest event first.
type Query struct {
	EndpointID string
	From, To   time.Time // when the event was accepted, inclusive; zero is unbounded
	State      State     // empty: every state
	EventType  string    // empty: every type
	Status     Statuses  // of the latest attempt; zero: any, or none
	Limit      int       // page size; 0 means 100
	// Examine is the maximum number of deliveries read for one page if some of them may
	// not match (Filtered). 0 means no limit: reading continues until the page is full.
	Examine int
	Cursor  string // Next of the previous page; empty for the first
}

// Matches reports whether a delivery has the query's state, event type and status.
func (q Query) Matches(d Delivery) bool {
	return (q.State == "" || d.State == q.State) && (q.EventType == "" || d.EventType == q.EventType) && q.Status.include(d.LastStatus())
}

// Filtered reports whether a store has to read deliveries that do not match.
func (q Query) Filtered() bool {
	return q.State != "" && !q.State.Indexed() || q.EventType != "" || q.Status != Statuses{}
}

// Page is one page of a query's result. Next is empty on the last page; a page that is
// not full, or empty, may still have a Next.
type Page struct {
	Deliveries []Delivery
	Next       string
	Examined   int // number of deliveries read, whether they match or not
}

// Statuses is a range of response statuses, both ends included. The zero value is any.
type Statuses struct{ Min, Max int }

// ParseStatuses parses a status such as 503, or a range such as 500..599. "" is any.
func ParseStatuses(text string) (Statuses, error) {
	if text == "" {
		return Statuses{}, nil
	}
	first, last, isRange := strings.Cut(text, "..")
	if !isRange {
		last = first
	}
	low, errLow := strconv.Atoi(first)
	high, errHigh := strconv.Atoi(last)
	if errLow != nil || errHigh != nil || low < 100 || low > high || high > 599 {
		return Statuses{}, fmt.Errorf("%.40q is neither a status such as 503 nor a range such as 500..599, between 100 and 599", text)
	}
	return Statuses{low, high}, nil
}

func (s Statuses) include(status int) bool {
	return s == Statuses{} || s.Min <= status && status <= s.Max
}

// PageSize is the maximum number of deliveries on a page.
func (q Query) PageSize() int {
	if q.Limit <= 0 {
		return 100
	}
	return q.Limit
}

// CheckRange returns an error if a range of times ends before it begins. A zero time is
// unbounded.
func CheckRange(from, to time.Time) error {
	if from.IsZero() || to.IsZero() || !from.After(to) {
		return nil
	}
	return fmt.Errorf("from (%s) is after to (%s): swap them", from.UTC().Format(time.RFC3339), to.UTC().Format(time.RFC3339))
}

// Bounds returns the smallest and the largest event id that follow the cursor in the
// query's range. It fails if From is after To, and if the cursor is malformed or from
// another query.
func (q Query) Bounds() (first, last string, err error) {
	if err := CheckRange(q.From, q.To); err != nil {
		return "", "", err
	}
	to := q.To
	if to.IsZero() {
		to = time.UnixMilli(1<<48 - 1) // the last instant of a ULID
	}
	first, last = event.IDRange(q.From, to) // a time before 1970, as the zero one, gives the smallest id
	if q.Cursor == "" {
		return first, last, nil
	}
	id, err := base64.RawURLEncoding.DecodeString(q.Cursor)
	before := ""
	if err == nil {
		before, err = event.IDBefore(string(id))
	}
	// A cursor of another query would widen the range of this one.
	if err != nil || before < first || string(id) > last {
		return "", "", fmt.Errorf("invalid cursor %.64q: use a cursor that the same query returned", q.Cursor)
	}
	return first, before, nil
}

// CursorAfter returns the cursor of a page that ends with the event.
func (q Query) CursorAfter(eventID string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(eventID))
}

// CursorEvent returns the event id of a cursor that CursorAfter made.
func CursorEvent(cursor string) (string, error) {
	id, err := base64.RawURLEncoding.DecodeString(cursor)
	if err == nil {
		_, err = event.IDTime(string(id))
	}
	if err != nil {
		return "", fmt.Errorf("invalid cursor %.64q", cursor)
	}
	return string(id), nil
}
