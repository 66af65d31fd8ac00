// Package capture has what every event that was derived from a change of a table has,
// whichever rule derived it: an ID that the change always gives, and the keys by which two
// records of one fact are recognised. It is pure: no I/O, no clock, no randomness. Package
// rules decides which change is which event.
package capture

import (
	"errors"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/platform"
)

// Captured is an event and its tenant.
type Captured struct {
	Tenant string
	Event  event.Event
	// OnceKeys are idempotency keys, for an event that can be captured from two records;
	// empty for the others. They are reserved in order, with Reservation. If another
	// event holds one and IsSame, its ID is the event's.
	OnceKeys []string

	recorded time.Time
}

// New returns the event of a change: e with its ID, and with the time of the change if its
// timestamp is missing or no event can have it. rule tells the events of one type apart that
// several rules make of one change; it is empty for the shipped rules, so that their events
// have the IDs that they had before there were others. It fails if the change has no time.
func New(c platform.Change, tenant string, e event.Event, rule string) (Captured, error) {
	recorded := c.At.UTC()
	if !plausible(recorded) {
		return Captured{}, errors.New("the stream record has no time")
	}
	// Sequence numbers are unique within a stream; a recreated table has a new one.
	source := []string{c.Stream, c.ID, c.SequenceNumber, e.Type}
	if rule != "" {
		source = append(source, rule)
	}
	e.ID = event.DerivedID(recorded, strings.Join(source, "\n"))
	if !plausible(e.Timestamp) {
		e.Timestamp = recorded
	}
	return Captured{Tenant: tenant, Event: e, recorded: recorded}, nil
}

// plausible reports whether a time can be an event's timestamp.
func plausible(t time.Time) bool { return t.Year() >= 1970 && t.Year() <= 9999 }
