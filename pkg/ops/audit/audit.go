// Package audit defines the audit log: one Entry for every change made through the
// console. It does no I/O and reads no clock. An entry is written before its change
// and again when the change has ended, so that no change goes unrecorded; an entry
// that stays Begun was interrupted.
package audit

import (
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/tidings-dev/tidings/pkg/event"
)

// Retention is how long entries are kept.
const Retention = 365 * 24 * time.Hour

// MaxDetailBytes is the most that is kept of what was changed, or of why it failed.
const MaxDetailBytes = 512

// Outcome is what became of a change.
type Outcome string

const (
	Begun  Outcome = "begun"
	Done   Outcome = "done"
	Failed Outcome = "failed"
)

// Entry is one change.
type Entry struct {
	ID      string // ULID; its time part is when the change began
	Tenant  string
	Who     string // the session's name
	Role    string
	Action  string // endpoint.add, delivery.replay, …
	Subject string // the id of what was changed; empty for what has none yet
	Outcome Outcome
	Detail  string // what was changed, or why it failed; never a secret
}

// NewID returns a fresh entry's id.
func NewID(now time.Time) string { return event.NewID(now) }

// At is when the change began, in UTC; the zero time for an id that is none.
func (e Entry) At() time.Time {
	id, err := ulid.ParseStrict(e.ID)
	if err != nil {
		return time.Time{}
	}
	return ulid.Time(id.Time()).UTC()
}

// Clip keeps a detail within its limit, on a rune's edge.
func Clip(detail string) string {
	if len(detail) <= MaxDetailBytes {
		return detail
	}
	keep := MaxDetailBytes
	for keep > 0 && detail[keep]&0xc0 == 0x80 {
		keep--
	}
	return detail[:keep] + "…"
}

// Page is a part of the record, newest first. Next is empty on the last.
type Page struct {
	Entries []Entry
	Next    string
}
