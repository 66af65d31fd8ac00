package event

import (
	"cmp"
	"time"
)

// Days of retention: how long an event, and what Tidings notes about it, is kept after it
// was accepted. The deployment has a number of its own (RetentionDays), and a type can have
// another one. Where an event, a delivery or a message has none (0), it is
// DefaultRetentionDays: the number that all had before it could be chosen.
const (
	DefaultRetentionDays = 30
	MaxRetentionDays     = 365
	// minStoredDays is how long an event is stored at least. The stream that fans events out
	// keeps its records for a day; what it loses is found in the table, for another day.
	minStoredDays = 2
	// lateAfter is how much later than the time in its ID an event is stored if it counts as
	// stored late.
	lateAfter = 10 * time.Minute
)

const day = 24 * time.Hour

// Retention returns a number of days as a duration; 0 means DefaultRetentionDays.
func Retention(days int) time.Duration {
	return time.Duration(cmp.Or(days, DefaultRetentionDays)) * day
}

// StoredDays returns for how many days, from the time in its ID, an event is kept that is
// stored now and has a retention of some days. It is 0 if that is DefaultRetentionDays. An
// event that is stored long after its ID was made (a request that was repeated, a change that
// was captured again) is kept as long as one that was stored at once.
func StoredDays(id string, now time.Time, days int) int {
	days = max(cmp.Or(days, DefaultRetentionDays), minStoredDays)
	if made, err := IDTime(id); err == nil && now.Sub(made) > lateAfter {
		days += int((now.Sub(made) + day - 1) / day)
	}
	if days == DefaultRetentionDays {
		return 0
	}
	return days
}

// RetainedUntil returns until when an event is kept, as far as its own retention goes: it
// stays for longer while a delivery needs it. An id that is not an event's has the zero time.
func RetainedUntil(id string, days int) time.Time {
	made, err := IDTime(id)
	if err != nil {
		return time.Time{}
	}
	return made.Add(Retention(days))
}
