package stats

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Source is where statistics are read; both stores are one.
type Source interface {
	// ReadStatistics returns what is known of the buckets that begin at the times
	// given, by that time, and the last sweep. It makes one read for each 100 items,
	// of which a bucket has Shards: the traffic does not matter.
	ReadStatistics(ctx context.Context, buckets []time.Time) (map[time.Time]Record, Sweep, error)
}

// closedAfter is how long after its end a bucket may still be written: a batch is
// stored at the time that it says, give or take the retries.
const closedAfter = 2 * time.Minute

// Reader reads summaries. It remembers what lies so far back that nobody writes it
// any more, so reading again costs one read; the first time costs three. It is safe
// for concurrent use.
type Reader struct {
	Source Source
	Now    func() time.Time

	mu     sync.Mutex
	closed map[time.Time]Record
}

// Read returns the record from a time on.
func (r *Reader) Read(ctx context.Context, from time.Time) (Record, error) {
	now := r.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	var parts []Record
	var ask []time.Time
	for _, b := range Buckets(from, now) {
		if known, ok := r.closed[b]; ok {
			parts = append(parts, known)
		} else {
			ask = append(ask, b)
		}
	}
	read, sweep, err := r.Source.ReadStatistics(ctx, ask)
	if err != nil {
		return Record{}, fmt.Errorf("statistics: %w", err)
	}
	if r.closed == nil {
		r.closed = map[time.Time]Record{}
	}
	for _, b := range ask {
		parts = append(parts, read[b])
		if now.After(b.Add(BucketTime + closedAfter)) {
			r.closed[b] = read[b]
		}
	}
	for b := range r.closed {
		if now.Sub(b) > Retention {
			delete(r.closed, b)
		}
	}
	return Merge(append(parts, Record{Sweep: sweep})...), nil
}

// Summary returns the last hour and the last day.
func (r *Reader) Summary(ctx context.Context) (Summary, error) {
	return r.summary(ctx, 24*time.Hour)
}

// LastHour returns a Summary that knows nothing of what was before the last hour,
// by one read.
func (r *Reader) LastHour(ctx context.Context) (Summary, error) {
	return r.summary(ctx, time.Hour)
}

func (r *Reader) summary(ctx context.Context, length time.Duration) (Summary, error) {
	now := r.Now()
	from, _ := window(now, length)
	record, err := r.Read(ctx, from)
	if err != nil {
		return Summary{}, err
	}
	return Summarize(record, now), nil
}

// Series returns the last length of time, minute by minute, the one under way included.
func (r *Reader) Series(ctx context.Context, length time.Duration) ([]Minute, error) {
	from, to := window(r.Now(), length)
	record, err := r.Read(ctx, from)
	if err != nil {
		return nil, err
	}
	return record.Series(from, to), nil
}
