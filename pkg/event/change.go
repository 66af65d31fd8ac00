package event

import "time"

// Change is one record of the Events table's stream. Events are immutable, so a
// change is either an insertion or a removal when the event expires.
type Change struct {
	Inserted       bool
	SequenceNumber string
	At             time.Time // when it was written, in seconds; zero if unknown
	Key            string    // the item's key as JSON, for logs
	Event          Accepted  // if Inserted
	Err            error     // why the inserted event could not be read
}
