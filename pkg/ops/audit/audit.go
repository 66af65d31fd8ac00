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

// MaxDetailBytes is the maximum length of an entry's detail.
const MaxDetailBytes = 512

// Outcome is the state of a change.
type Outcome string

const (
	Begun  Outcome = "begun"
	Done   Outcome = "done"
	Failed Outcome = "failed"
)

// Entry is one change.
type Entry struct {
	ID      string  `json:"id"` // ULID; its time is the start of the change
	Tenant  string  `json:"-"`
	Who     string  `json:"who"` // the session's name
	Role    string  `json:"role"`
	Action  string  `json:"action"`            // endpoint.add, delivery.replay, …
	Subject string  `json:"subject,omitempty"` // id of the changed object; empty while it has none
	Outcome Outcome `json:"outcome" enum:"begun,done,failed"`
	Detail  string  `json:"detail,omitempty"` // what was changed, or why it failed; never a secret
}

// NewID returns the id of an entry for a change that starts now.
func NewID(now time.Time) string { return event.NewID(now) }

// At returns the start of the change in UTC, or the zero time if the id is invalid.
func (e Entry) At() time.Time {
	id, err := ulid.ParseStrict(e.ID)
	if err != nil {
		return time.Time{}
	}
	return ulid.Time(id.Time()).UTC()
}

// Clip shortens a detail to MaxDetailBytes without cutting a UTF-8 character.
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

// Page is a page of the audit log, newest first. Next is empty on the last page.
type Page struct {
	Entries []Entry
	Next    string
}
