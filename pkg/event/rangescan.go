package event

import "time"

// RangeScan selects a page of all accepted events, of every tenant, in no order of time.
type RangeScan struct {
	// Segment is the part of the table that is read, from 0 to Segments-1.
	Segment, Segments int
	From, To          time.Time // when the event was accepted, both included
	// After is the ID of the event after which the page begins; "" for the first.
	After string
}

// RangePage is a page of a segment. It may be empty although there are more events.
type RangePage struct {
	// Events have their ID also if they could not be read.
	Events []Change
	Next   string // After of the next page; "" on the last
}
