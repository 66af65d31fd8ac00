package stats

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Source reads stored statistics. Both stores implement it.
type Source interface {
	// ReadStatistics returns the buckets that start at the given times, and the last
	// sweep. It makes one read per 100 items (a bucket has Shards items), whatever the
	// traffic.
	ReadStatistics(ctx context.Context, buckets []time.Time) (map[time.Time]Record, Sweep, error)
}

// closedAfter is how long after its end a bucket can still be written, because of
// retried writes.
const closedAfter = 2 * time.Minute

// Reader reads summaries. It caches buckets that can no longer change: the first
// summary costs three reads, later ones cost one. It is safe for concurrent use.
type Reader struct {
	Source Source
	Now    func() time.Time

	mu     sync.Mutex
	closed map[time.Time]Record
}

// Read returns the record since from.
func (r *Reader) Read(ctx context.Context, from time.Time) (Record, error) {
	now := r.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	var parts []Record
	var missing []time.Time
	for _, b := range Buckets(from, now) {
		if known, ok := r.closed[b]; ok {
			parts = append(parts, known)
		} else {
			missing = append(missing, b)
		}
	}
	read, sweep, err := r.Source.ReadStatistics(ctx, missing)
	if err != nil {
		return Record{}, fmt.Errorf("read statistics: %w", err)
	}
	if r.closed == nil {
		r.closed = map[time.Time]Record{}
	}
	for _, b := range missing {
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

// Summary returns the summary of the last hour and the last 24 hours.
func (r *Reader) Summary(ctx context.Context) (Summary, error) {
	return r.summary(ctx, 24*time.Hour)
}

// LastHour returns a Summary of the last hour only, with one read.
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

// Series returns the minutes of the given period, up to and including the current one.
func (r *Reader) Series(ctx context.Context, length time.Duration) ([]Minute, error) {
	from, to := window(r.Now(), length)
	record, err := r.Read(ctx, from)
	if err != nil {
		return nil, err
	}
	return record.Series(from, to), nil
}
