package platform

import (
	"errors"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/pkg/event"
)

// ErrNoFailedChange means that there is no failed change with the ID: it expired, or it
// was captured again.
var ErrNoFailedChange = errors.New("there is no failed change with this ID; it was captured again, or it is older than the retention (RetentionDays)")

// FailedChange is a change that should have become an event and could not. It is kept
// until it is captured again. Record contains the platform's data.
type FailedChange struct {
	ID             string    // derived from the change, so it is the same if the change is delivered again; IDs sort by time
	Tenant         string    // empty if it cannot be read
	Key            string    // the item's key, as JSON
	Kind           string    // the item's kind, as it is written there
	Operation      Operation // what happened to the item
	EventType      string    // the event that the change should have become; empty if unknown
	Reason         string    // why it could not; contains no values of the record
	Stream         string
	SequenceNumber string
	At             time.Time // when the change was made
	FirstSeen      time.Time
	LastTried      time.Time
	Attempts       int
	// Record is the stream's record as JSON, with both images. It is nil in lists, and
	// if the record is larger than MaxKeptRecord.
	Record []byte
	// RecordBytes is the size of the stream's record.
	RecordBytes int
	// RetentionDays is how many days it is kept; 0 means event.DefaultRetentionDays. It is the
	// deployment's: the type of the event may be unknown.
	RetentionDays int
}

// MaxKeptRecord is the maximum size of a record that is kept, in bytes: DynamoDB's limit
// for an item less the other attributes.
const MaxKeptRecord = 350 << 10

// Kept reports whether the record was small enough to be kept with the failed change.
func (f FailedChange) Kept() bool { return f.RecordBytes <= MaxKeptRecord }

// FailedChangeID returns the ID of the change's FailedChange.
func (c Change) FailedChangeID() string {
	at := c.At
	if at.Year() < 1970 || at.Year() > 9999 {
		at = time.Unix(0, 0) // it cannot be in an ID
	}
	return event.DerivedID(at, strings.Join([]string{c.Stream, c.ID, c.SequenceNumber}, "\n"))
}

// FailedChangePage is a page of a list of failed changes, newest first. Next is empty on
// the last page.
type FailedChangePage struct {
	Changes []FailedChange
	Next    string
}

// StuckCapture says that capture cannot proceed past a change. Its zero value says that
// capture is not stuck.
type StuckCapture struct {
	Since          time.Time // when the first attempt failed
	FailedAt       time.Time // when the latest attempt failed
	ChangeAt       time.Time // when the change was made
	SequenceNumber string    // of the change in its stream
}

// StuckFresh is how long a failed attempt counts. The stream tries again within a minute;
// a mark that is older was left behind by a process that ended.
const StuckFresh = 10 * time.Minute

// Continues reports whether a mark is recent, so that a failure at the time belongs to it.
func (s StuckCapture) Continues(at time.Time) bool {
	return !s.FailedAt.IsZero() && at.Sub(s.FailedAt) < StuckFresh
}

// IsKnown reports whether the kind is one of this package's.
func (k Kind) IsKnown() bool {
	switch k {
	case KindUser, KindMembership, KindRegistration, KindComment, KindFlag, KindReferral, KindDiscussion:
		return true
	}
	return false
}
