// Package stats defines the statistics of a deployment: counts per minute, a
// histogram of latencies, and summaries of both. Workers count one Batch per
// invocation and store it; health and console read the same Summary. It does no I/O
// and reads no clock.
//
// The figures are approximate, for people and alerts, and not for accounting. A batch
// whose write was applied twice is recognised by its ID, unless another worker wrote
// the same bucket in between. A batch that cannot be stored is lost and logged. The
// exact state of a delivery is in its own record.
package stats

import (
	"cmp"
	"hash/fnv"
	"math"
	"slices"
	"strings"
	"time"
)

const (
	// BucketTime is the period of one stored bucket: ten minutes of counts fit in one
	// write unit, and a day is 145 buckets.
	BucketTime = 10 * time.Minute
	// Shards is the number of items per bucket, to spread writes. Each accepts about
	// 1,000 batches per second.
	Shards = 2
	// Retention is how long buckets are kept: until 26 hours after the end of their
	// day at least, so that the day can be summed up late.
	Retention = 50 * time.Hour
)

// Counts counts what happened in a period of time.
type Counts struct {
	Accepted  int64 // events that were fanned out
	Queued    int64 // deliveries created by fan-out
	Attempts  int64 // attempts whose verdict was stored
	Delivered int64 // attempts that succeeded
	Failed    int64 // attempts that failed
	Retried   int64 // failed attempts that will be retried
	Dead      int64 // deliveries that became dead letters
	Skipped   int64 // deliveries that were skipped
	// Captured counts the changes of the platform's table that became an event,
	// CaptureFailed those that should have and could not.
	Captured, CaptureFailed int64
	Latency                 Histogram
}

// Add returns the sum of c and o.
func (c Counts) Add(o Counts) Counts {
	c.Accepted += o.Accepted
	c.Queued += o.Queued
	c.Attempts += o.Attempts
	c.Delivered += o.Delivered
	c.Failed += o.Failed
	c.Retried += o.Retried
	c.Dead += o.Dead
	c.Skipped += o.Skipped
	c.Captured += o.Captured
	c.CaptureFailed += o.CaptureFailed
	for i, n := range o.Latency {
		c.Latency[i] += n
	}
	return c
}

// SuccessRate returns delivered / (delivered + dead); false if there are none.
func (c Counts) SuccessRate() (float64, bool) { return share(c.Delivered, c.Delivered+c.Dead) }

// CaptureRate returns captured / (captured + failed to capture); false if there are none.
func (c Counts) CaptureRate() (float64, bool) { return share(c.Captured, c.Captured+c.CaptureFailed) }

// FailureRate returns failed / attempts; false if there are none.
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
	// minuteStep is the index of the bound of one minute, so that the number of
	// deliveries that took longer than a minute is exact.
	minuteStep = 13
)

// Histogram counts durations in bins whose bounds double. The last bin has no bound.
type Histogram [histogramSteps + 1]int64

// Bound returns the upper bound of a bin, inclusive; false for the last bin.
func Bound(bin int) (time.Duration, bool) {
	if bin >= histogramSteps {
		return 0, false
	}
	return time.Duration(math.Ldexp(float64(time.Minute), bin-minuteStep)), true
}

// Count counts one duration.
func (h *Histogram) Count(d time.Duration) {
	for i := range histogramSteps {
		if bound, _ := Bound(i); d <= bound {
			h[i]++
			return
		}
	}
	h[histogramSteps]++
}

// Total returns the number of durations counted.
func (h Histogram) Total() (n int64) {
	for _, c := range h {
		n += c
	}
	return n
}

// Quantile estimates the q-quantile; false if no duration was counted. It interpolates
// on the logarithmic scale of the bounds, so the error is below a factor of two.
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

// Batch holds the counts of one invocation of a worker.
type Batch struct {
	// ID is unique, so that a store that repeats the write counts the batch once.
	ID string
	At time.Time
	Counts
	// Latencies are the times from acceptance to delivery, one per delivery.
	Latencies []time.Duration
	// LastEvent is when the newest event of the batch was accepted.
	LastEvent time.Time
	// Worked is set for a batch of the work queue, whatever the results.
	Worked bool
	// Disabled are the endpoints that were disabled.
	Disabled []Endpoint
	// UnknownKinds counts the changes of the platform's table whose kind Tidings does
	// not know, by kind. The caller bounds the number of kinds.
	UnknownKinds map[string]int64
	// UndefinedTypes counts the events whose type has no definition, by type. The caller
	// bounds the number of types, with Names.
	UndefinedTypes map[string]int64
}

// Zero reports whether the batch has nothing to store.
func (b Batch) Zero() bool {
	return b.Counts == Counts{} && len(b.Latencies) == 0 && b.LastEvent.IsZero() && !b.Worked && len(b.Disabled) == 0 && len(b.UnknownKinds) == 0 && len(b.UndefinedTypes) == 0
}

// Endpoint identifies an endpoint.
type Endpoint struct{ Tenant, ID string }

func (e Endpoint) String() string { return e.Tenant + "/" + e.ID }

// ParseEndpoint parses the result of Endpoint.String. Neither a tenant nor an ID
// contains a slash.
func ParseEndpoint(text string) (Endpoint, bool) {
	tenant, id, ok := strings.Cut(text, "/")
	return Endpoint{tenant, id}, ok && tenant != "" && id != ""
}

// Totals returns the counts including the histogram of the latencies.
func (b Batch) Totals() Counts {
	c := b.Counts
	for _, l := range b.Latencies {
		c.Latency.Count(l)
	}
	return c
}

// Shard returns the shard of its bucket that the batch is added to.
func (b Batch) Shard() int {
	h := fnv.New32a()
	h.Write([]byte(b.ID))
	return int(h.Sum32() % Shards)
}

// Bucket returns the start of the bucket that contains t.
func Bucket(t time.Time) time.Time { return t.UTC().Truncate(BucketTime) }

// Buckets returns the starts of all buckets that overlap [from, to], oldest first.
func Buckets(from, to time.Time) []time.Time {
	var list []time.Time
	for b := Bucket(from); !b.After(to); b = b.Add(BucketTime) {
		list = append(list, b)
	}
	return list
}

// Minute holds the counts of the minute that starts at At.
type Minute struct {
	At time.Time
	Counts
}

// Sweep is the result of the last sweep.
type Sweep struct {
	At     time.Time // when it started
	Done   bool      // it processed everything that was due
	Due    int       // deliveries that were due, or will be before the next sweep
	Queued int       // deliveries that it queued
	// Overdue counts the deliveries that an earlier sweep should have queued.
	// OldestDue is the earliest of their due times; zero if there are none.
	Overdue   int
	OldestDue time.Time
	// Retrying counts the deliveries scheduled for a later attempt. More is set if
	// it stopped counting.
	Retrying int
	More     bool
}

// Record holds the stored statistics of a period of time.
type Record struct {
	Minutes []Minute // oldest first; minutes without counts are omitted
	// LastEvent is when the newest event was accepted, LastBatch when the last batch
	// of the work queue ended.
	LastEvent time.Time
	LastBatch time.Time
	Sweep     Sweep // zero before the first sweep
	// Disabled are the endpoints that were disabled, sorted.
	Disabled []Endpoint
	// UnknownKinds is the sum of the batches' counts; nil if there are none.
	UnknownKinds map[string]int64
	// UndefinedTypes are the types without a definition, by their events; nil if there are none.
	UndefinedTypes map[string]Seen
}

// Seen says how often something was seen, and in which bucket of ten minutes last.
type Seen struct {
	Count int64
	Last  time.Time // the start of the bucket
}

// Sum returns the sum of the minutes that start in [from, to).
func (r Record) Sum(from, to time.Time) Counts {
	var sum Counts
	for _, m := range r.Minutes {
		if !m.At.Before(from) && m.At.Before(to) {
			sum = sum.Add(m.Counts)
		}
	}
	return sum
}

// Series returns one Minute for each minute in [from, to), including empty ones, for
// charts.
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

// Summary summarizes the last hour and the last 24 hours.
type Summary struct {
	At        time.Time
	Hour, Day Counts
	LastEvent time.Time // zero if there was none in 24 hours
	LastBatch time.Time
	Sweep     Sweep
	// Disabled are the endpoints that were disabled within 24 hours. Some may have been
	// enabled again.
	Disabled []Endpoint
	// UnknownKinds counts the changes of unknown kinds in the last 24 hours, in buckets of
	// ten minutes; nil if there were none. UndefinedTypes does so for the events whose type
	// has no definition.
	UnknownKinds   map[string]int64
	UndefinedTypes map[string]Seen
	// IdleSince is the minute in which a delivery was first queued after the last
	// batch; zero if none was. If the queue is not empty, no worker has taken a
	// message since then.
	IdleSince time.Time
}

// window returns the period that ends with the current minute: the last hour is the
// current minute and the 59 before it.
func window(now time.Time, length time.Duration) (from, to time.Time) {
	to = now.UTC().Truncate(time.Minute).Add(time.Minute)
	return to.Add(-length), to
}

// Summarize returns the summary of a record at a time.
func Summarize(r Record, now time.Time) Summary {
	s := Summary{At: now, LastEvent: r.LastEvent, LastBatch: r.LastBatch, Sweep: r.Sweep, Disabled: r.Disabled, UnknownKinds: r.UnknownKinds, UndefinedTypes: r.UndefinedTypes}
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

// Kind counts the changes of a kind that Tidings does not know.
type Kind struct {
	Kind    string `json:"kind"`
	Changes int64  `json:"changes"`
}

// Kinds returns the unknown kinds, those with the most changes first.
func (s Summary) Kinds() []Kind {
	list := make([]Kind, 0, len(s.UnknownKinds))
	for kind, n := range s.UnknownKinds {
		list = append(list, Kind{kind, n})
	}
	slices.SortFunc(list, func(a, b Kind) int {
		return cmp.Or(cmp.Compare(b.Changes, a.Changes), strings.Compare(a.Kind, b.Kind))
	})
	return list
}

// maxTypes is how many types without a definition Types returns by name.
const maxTypes = 50

// Type counts the events of a type without a definition.
type Type struct {
	Type   string    `json:"type"`
	Events int64     `json:"events"`
	Last   time.Time `json:"last_seen_at" doc:"The start of the ten minutes in which it was last seen"`
}

// Types returns the types without a definition, those with the most events first; allows says
// whether one still has none. What is beyond 50 names is in one entry, OtherNames.
func (s Summary) Types(allows func(name string) bool) []Type {
	list := make([]Type, 0, len(s.UndefinedTypes))
	others := Type{Type: OtherNames}
	add := func(seen Seen) {
		others.Events += seen.Count
		if seen.Last.After(others.Last) {
			others.Last = seen.Last
		}
	}
	for name, seen := range s.UndefinedTypes {
		switch {
		case name == OtherNames:
			add(seen)
		case allows(name):
			list = append(list, Type{name, seen.Count, seen.Last})
		}
	}
	slices.SortFunc(list, func(a, b Type) int {
		return cmp.Or(cmp.Compare(b.Events, a.Events), strings.Compare(a.Type, b.Type))
	})
	for _, t := range list[min(len(list), maxTypes):] {
		add(Seen{t.Events, t.Last})
	}
	list = list[:min(len(list), maxTypes)]
	if others.Events > 0 {
		list = append(list, others)
	}
	return list
}

// Merge merges records, such as the shards of a bucket or the buckets of a day.
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
		for kind, n := range p.UnknownKinds {
			if r.UnknownKinds == nil {
				r.UnknownKinds = map[string]int64{}
			}
			r.UnknownKinds[kind] += n
		}
		for name, seen := range p.UndefinedTypes {
			if r.UndefinedTypes == nil {
				r.UndefinedTypes = map[string]Seen{}
			}
			if last := r.UndefinedTypes[name].Last; last.After(seen.Last) {
				seen.Last = last
			}
			seen.Count += r.UndefinedTypes[name].Count
			r.UndefinedTypes[name] = seen
		}
	}
	slices.SortFunc(r.Disabled, func(a, b Endpoint) int { return strings.Compare(a.String(), b.String()) })
	r.Disabled = slices.Compact(r.Disabled)
	for at, c := range byMinute {
		r.Minutes = append(r.Minutes, Minute{At: time.Unix(at, 0).UTC(), Counts: c})
	}
	slices.SortFunc(r.Minutes, func(a, b Minute) int { return a.At.Compare(b.At) })
	return r
}
