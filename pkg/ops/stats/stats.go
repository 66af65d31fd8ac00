// Package stats is the vocabulary of what happened lately: counts by the minute, a
// histogram of how long deliveries took, and what is summed up from them. Workers
// count a batch at a time and store it as one Batch; health and console read the
// same Summary. It does no I/O and reads no clock.
//
// The figures are for people and alerts, not for accounting. A batch whose write
// was applied twice is told by its id unless another worker wrote the same bucket
// in between; a batch that could not be written is lost, with a line in the log.
// What became of each delivery stands in its own record, which is exact.
package stats

import (
	"hash/fnv"
	"math"
	"slices"
	"strings"
	"time"
)

const (
	// BucketTime is how much time one stored bucket covers: ten minutes with all
	// their counts stay within a write unit, and a day is 145 buckets.
	BucketTime = 10 * time.Minute
	// Shards is over how many items the writers of a bucket spread. Each takes
	// about 1,000 batches a second.
	Shards = 2
	// Retention is how long buckets are kept: a day, and some.
	Retention = 26 * time.Hour
)

// Counts is what happened in some stretch of time.
type Counts struct {
	Accepted  int64 // events that were fanned out
	Queued    int64 // deliveries that this made
	Attempts  int64 // attempts that ended with a stored verdict
	Delivered int64 // of which the receiver took it
	Failed    int64 // of which not
	Retried   int64 // failed ones that will be tried again
	Dead      int64 // deliveries that became dead letters
	Skipped   int64 // deliveries that were settled without an attempt
	Latency   Histogram
}

// Add returns the sum of both.
func (c Counts) Add(o Counts) Counts {
	c.Accepted += o.Accepted
	c.Queued += o.Queued
	c.Attempts += o.Attempts
	c.Delivered += o.Delivered
	c.Failed += o.Failed
	c.Retried += o.Retried
	c.Dead += o.Dead
	c.Skipped += o.Skipped
	for i, n := range o.Latency {
		c.Latency[i] += n
	}
	return c
}

// SuccessRate is the share of settled deliveries that were delivered; false where
// none was settled.
func (c Counts) SuccessRate() (float64, bool) { return share(c.Delivered, c.Delivered+c.Dead) }

// FailureRate is the share of attempts that failed; false where there was none.
func (c Counts) FailureRate() (float64, bool) { return share(c.Failed, c.Attempts) }

func share(part, whole int64) (float64, bool) {
	if whole <= 0 {
		return 0, false
	}
	return float64(part) / float64(whole), true
}

const (
	// histogramSteps is the number of finite bounds: 7 ms to 68 hours.
	histogramSteps = 26
	// minuteStep is the place of one minute among them, so that what takes longer
	// than a minute can be told exactly.
	minuteStep = 13
)

// Histogram counts durations by bounds that double. The last place is for what
// exceeds them all.
type Histogram [histogramSteps + 1]int64

// Bound is the upper bound of a histogram's place, included; it has none for the last.
func Bound(place int) (time.Duration, bool) {
	if place >= histogramSteps {
		return 0, false
	}
	return time.Duration(math.Ldexp(float64(time.Minute), place-minuteStep)), true
}

// Count adds one duration.
func (h *Histogram) Count(d time.Duration) {
	for i := range histogramSteps {
		if bound, _ := Bound(i); d <= bound {
			h[i]++
			return
		}
	}
	h[histogramSteps]++
}

// Total is how many durations were counted.
func (h Histogram) Total() (n int64) {
	for _, c := range h {
		n += c
	}
	return n
}

// Quantile estimates the duration that the share q of all did not exceed; false
// where none was counted. Within a place, durations are taken as spread evenly on
// the scale of the bounds, so the error is below a factor of two.
func (h Histogram) Quantile(q float64) (time.Duration, bool) {
	total := h.Total()
	if total == 0 {
		return 0, false
	}
	rank := max(q*float64(total), 1)
	var below float64
	for i, n := range h {
		if n == 0 || below+float64(n) < rank {
			below += float64(n)
			continue
		}
		upper, finite := Bound(i)
		if !finite {
			last, _ := Bound(i - 1)
			return last, true
		}
		part := (rank - below) / float64(n)
		if i == 0 {
			return time.Duration(part * float64(upper)), true
		}
		return time.Duration(float64(upper) * math.Exp2(part-1)), true
	}
	last, _ := Bound(histogramSteps - 1)
	return last, true
}

// Batch is what one worker counted in one invocation.
type Batch struct {
	// ID is the batch's own, so that a store which repeats its write counts it once.
	ID string
	At time.Time
	Counts
	// Latencies are from acceptance to delivery, one a delivery.
	Latencies []time.Duration
	// LastEvent is when the newest accepted event of the batch was accepted.
	LastEvent time.Time
	// Worked says that it was a batch of the work queue, whatever came of it.
	Worked bool
	// Disabled are the endpoints that were taken out of service.
	Disabled []Endpoint
}

// Zero reports whether there is nothing to store.
func (b Batch) Zero() bool {
	return b.Counts == Counts{} && len(b.Latencies) == 0 && b.LastEvent.IsZero() && !b.Worked && len(b.Disabled) == 0
}

// Endpoint names an endpoint.
type Endpoint struct{ Tenant, ID string }

func (e Endpoint) String() string { return e.Tenant + "/" + e.ID }

// ParseEndpoint reads what Endpoint.String wrote. Neither a tenant's name nor an id
// holds a slash.
func ParseEndpoint(text string) (Endpoint, bool) {
	tenant, id, ok := strings.Cut(text, "/")
	return Endpoint{tenant, id}, ok && tenant != "" && id != ""
}

// Totals are the counts with the latencies counted in.
func (b Batch) Totals() Counts {
	c := b.Counts
	for _, l := range b.Latencies {
		c.Latency.Count(l)
	}
	return c
}

// Shard is the part of its bucket that the batch is added to.
func (b Batch) Shard() int {
	h := fnv.New32a()
	h.Write([]byte(b.ID))
	return int(h.Sum32() % Shards)
}

// Bucket is the beginning of the bucket that a time falls into.
func Bucket(t time.Time) time.Time { return t.UTC().Truncate(BucketTime) }

// Buckets are the beginnings of all buckets with a part in [from, to], oldest first.
func Buckets(from, to time.Time) []time.Time {
	var list []time.Time
	for b := Bucket(from); !b.After(to); b = b.Add(BucketTime) {
		list = append(list, b)
	}
	return list
}

// Minute is what happened in the minute that began at At.
type Minute struct {
	At time.Time
	Counts
}

// Sweep is what the last sweep saw.
type Sweep struct {
	At     time.Time // when it began
	Done   bool      // it went through everything
	Due    int       // deliveries that were due, or will be before the next
	Queued int       // of which it queued so many
	// Overdue counts those that should have been looked after before this sweep,
	// and OldestDue is the earliest of their due times; zero where there is none.
	Overdue   int
	OldestDue time.Time
	// Retrying counts the deliveries that wait for another attempt, as far as it
	// counted: More says that there are more.
	Retrying int
	More     bool
}

// Record is what a store has of a stretch of time.
type Record struct {
	Minutes []Minute // oldest first; a minute without anything is left out
	// LastEvent is when the newest event of it was accepted, LastBatch when the
	// last batch of the work queue was done.
	LastEvent time.Time
	LastBatch time.Time
	Sweep     Sweep // zero before the first
	// Disabled are the endpoints that were taken out of service, in order.
	Disabled []Endpoint
}

// Sum adds up the minutes that began in [from, to).
func (r Record) Sum(from, to time.Time) Counts {
	var sum Counts
	for _, m := range r.Minutes {
		if !m.At.Before(from) && m.At.Before(to) {
			sum = sum.Add(m.Counts)
		}
	}
	return sum
}

// Series returns one Minute for each minute in [from, to), empty ones included, as
// a chart wants them.
func (r Record) Series(from, to time.Time) []Minute {
	var list []Minute
	next := 0
	for at := from.UTC().Truncate(time.Minute); at.Before(to); at = at.Add(time.Minute) {
		for next < len(r.Minutes) && r.Minutes[next].At.Before(at) {
			next++
		}
		m := Minute{At: at}
		if next < len(r.Minutes) && r.Minutes[next].At.Equal(at) {
			m = r.Minutes[next]
		}
		list = append(list, m)
	}
	return list
}

// Summary is the last hour and the last day.
type Summary struct {
	At        time.Time
	Hour, Day Counts
	LastEvent time.Time // zero if none within the day
	LastBatch time.Time
	Sweep     Sweep
	// Disabled are the endpoints that were taken out of service within the day.
	// Some may be in service again.
	Disabled []Endpoint
	// IdleSince is when deliveries were first queued, in whole minutes, since the
	// last batch was worked on; zero where there are none. If the queue holds
	// something, it is since then that nobody takes it.
	IdleSince time.Time
}

// window is the length of time that ends with the minute that now falls into, which is under way: the last
// hour is 59 whole minutes and what there is of this one.
func window(now time.Time, length time.Duration) (from, to time.Time) {
	to = now.UTC().Truncate(time.Minute).Add(time.Minute)
	return to.Add(-length), to
}

// Summarize sums up what is known at now.
func Summarize(r Record, now time.Time) Summary {
	s := Summary{At: now, LastEvent: r.LastEvent, LastBatch: r.LastBatch, Sweep: r.Sweep, Disabled: r.Disabled}
	s.Hour = r.Sum(window(now, time.Hour))
	s.Day = r.Sum(window(now, 24*time.Hour))
	for _, m := range r.Minutes {
		if m.Queued > 0 && m.At.After(r.LastBatch) {
			s.IdleSince = m.At
			break
		}
	}
	return s
}

// Merge puts parts of a record together: shards of a bucket, buckets of a day.
func Merge(parts ...Record) Record {
	var r Record
	byMinute := map[int64]Counts{}
	for _, p := range parts {
		for _, m := range p.Minutes {
			byMinute[m.At.Unix()] = byMinute[m.At.Unix()].Add(m.Counts)
		}
		if p.LastEvent.After(r.LastEvent) {
			r.LastEvent = p.LastEvent
		}
		if p.LastBatch.After(r.LastBatch) {
			r.LastBatch = p.LastBatch
		}
		if p.Sweep.At.After(r.Sweep.At) {
			r.Sweep = p.Sweep
		}
		r.Disabled = append(r.Disabled, p.Disabled...)
	}
	slices.SortFunc(r.Disabled, func(a, b Endpoint) int { return strings.Compare(a.String(), b.String()) })
	r.Disabled = slices.Compact(r.Disabled)
	for at, c := range byMinute {
		r.Minutes = append(r.Minutes, Minute{At: time.Unix(at, 0).UTC(), Counts: c})
	}
	slices.SortFunc(r.Minutes, func(a, b Minute) int { return a.At.Compare(b.At) })
	return r
}
