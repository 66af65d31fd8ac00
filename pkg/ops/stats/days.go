package stats

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	// dayTime is the length of a day; days are UTC and have no leap seconds.
	dayTime = 24 * time.Hour
	// DayRetention is how long a day is kept: the last 30 and some to spare.
	DayRetention = 40 * dayTime
	// recordEvery is how often today's counts are stored at most.
	recordEvery = BucketTime
)

// Day holds the counts of one day.
type Day struct {
	Date time.Time // midnight UTC
	Counts
	// OpenCircuits is the largest number of circuit breakers that were open at one time.
	OpenCircuits int
	// At is when the counts were summed up; zero if nothing is known about the day.
	At time.Time
	// Complete is set when the day is over and no count can follow.
	Complete bool
}

// Midnight returns the start of the day that contains t, in UTC.
func Midnight(t time.Time) time.Time { return t.UTC().Truncate(dayTime) }

// Days stores days. Both stores implement it.
type Days interface {
	// ReadDays returns those of the given days that are stored, by their date. It
	// makes one read for up to 100.
	ReadDays(ctx context.Context, dates []time.Time) (map[time.Time]Day, error)
	// PutDay stores a day if the stored one is still the one summed up at was (zero:
	// none), and reports whether it did. A repeated write is harmless.
	PutDay(ctx context.Context, d Day, was time.Time) (stored bool, err error)
}

// History keeps the counts of the last 30 days. A day is summed up from its buckets and
// replaces what was stored, so that nothing is counted twice. It is safe for concurrent
// use, also by several processes.
type History struct {
	Reader *Reader
	Days   Days
	Now    func() time.Time

	mu       sync.Mutex
	stored   map[time.Time]Day // as this process knows them
	recorded time.Time         // when Record last summed up
}

// Record stores today's counts and completes the days before. Call it every minute
// with the number of open circuit breakers. It sums up every ten minutes, or when more
// circuit breakers are open than today before, and writes only what has changed. Days
// stay correct if it is not called for up to 24 hours, because buckets are kept for
// Retention.
func (h *History) Record(ctx context.Context, open int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.Now()
	today := Midnight(now)
	if known, ok := h.stored[today]; ok && open <= known.OpenCircuits && now.Sub(h.recorded) < recordEvery {
		return nil
	}
	dates, err := h.unfinished(ctx, now)
	if err != nil {
		return err
	}
	record, err := h.Reader.Read(ctx, dates[0])
	if err != nil {
		return err
	}
	for _, date := range dates {
		was := h.stored[date]
		next := Day{Date: date, Counts: record.Sum(date, date.Add(dayTime)), OpenCircuits: was.OpenCircuits, At: now, Complete: now.After(date.Add(dayTime + closedAfter))}
		if date.Equal(today) {
			next.OpenCircuits = max(next.OpenCircuits, open)
		} else if was.At.IsZero() && next.Counts == (Counts{}) {
			continue // before the deployment's first day
		}
		if !was.At.IsZero() && next.Counts == was.Counts && next.OpenCircuits == was.OpenCircuits && next.Complete == was.Complete {
			continue
		}
		stored, err := h.Days.PutDay(ctx, next, was.At)
		if err != nil {
			return fmt.Errorf("store the statistics of %s: %w", date.Format(time.DateOnly), err)
		}
		if stored {
			h.stored[date] = next
		} else {
			delete(h.stored, date) // another process was faster; the next call reads its day
		}
	}
	h.recorded = now
	return nil
}

// unfinished returns the days that may still change, oldest first; today is the last.
// It reads the stored days that this process does not know.
func (h *History) unfinished(ctx context.Context, now time.Time) ([]time.Time, error) {
	var dates, unknown []time.Time
	for date := Midnight(now); now.Sub(date) <= Retention; date = date.Add(-dayTime) {
		dates = append([]time.Time{date}, dates...)
		if _, ok := h.stored[date]; !ok {
			unknown = append(unknown, date)
		}
	}
	if len(unknown) > 0 {
		read, err := h.Days.ReadDays(ctx, unknown)
		if err != nil {
			return nil, err
		}
		known := map[time.Time]Day{}
		for _, date := range dates {
			if d, ok := h.stored[date]; ok {
				known[date] = d
			} else {
				known[date] = read[date]
			}
		}
		h.stored = known
	}
	for len(dates) > 1 && h.stored[dates[0]].Complete {
		dates = dates[1:]
	}
	return dates, nil
}

// Last returns the last n days, the newest first. Today's counts are current, those of
// the days before as stored.
func (h *History) Last(ctx context.Context, n int) ([]Day, error) {
	today := Midnight(h.Now())
	var dates []time.Time
	for i := range n {
		dates = append(dates, today.Add(-time.Duration(i)*dayTime))
	}
	stored, err := h.Days.ReadDays(ctx, dates)
	if err != nil {
		return nil, err
	}
	record, err := h.Reader.Read(ctx, today)
	if err != nil {
		return nil, err
	}
	var list []Day
	for _, date := range dates {
		d := stored[date]
		d.Date = date
		if date.Equal(today) {
			d.Counts, d.At = record.Sum(today, today.Add(dayTime)), h.Now()
		}
		list = append(list, d)
	}
	return list, nil
}

// DayMetrics are the metrics of one day.
type DayMetrics struct {
	Date     string   `json:"date" format:"date" doc:"UTC"`
	Complete bool     `json:"complete" doc:"The day is over and all of it was counted"`
	Metrics  []Metric `json:"metrics" nullable:"false"`
}

// Days returns the metrics of days. Those of a day that nothing is known about have no
// data.
func (t Targets) Days(list []Day) []DayMetrics {
	out := []DayMetrics{}
	for _, d := range list {
		metrics := t.undefined()
		if !d.At.IsZero() {
			metrics = t.Metrics(d.Counts, d.OpenCircuits)
		}
		out = append(out, DayMetrics{Date: d.Date.Format(time.DateOnly), Complete: d.Complete, Metrics: metrics})
	}
	return out
}
