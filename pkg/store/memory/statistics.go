package memory

import (
	"context"
	"maps"
	"time"

	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// bucket is a shard of the statistics of ten minutes, with the id of the last batch.
type bucket struct {
	stats.Record
	at      time.Time
	batchID string
}

// AddStatistics: see dispatch.Statistics.
func (s *Store) AddStatistics(_ context.Context, b stats.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.statistics == nil {
		s.statistics = map[string]bucket{}
	}
	key := dynamoitem.StatisticsKey(stats.Bucket(b.At), b.Shard())
	held := s.statistics[key]
	if held.batchID == b.ID {
		return nil // the same write, repeated
	}
	held.batchID, held.at = b.ID, b.At
	if c := b.Totals(); c != (stats.Counts{}) {
		minute := stats.Minute{At: b.At.UTC().Truncate(time.Minute), Counts: c}
		held.Record = stats.Merge(held.Record, stats.Record{Minutes: []stats.Minute{minute}})
	}
	if !b.LastEvent.IsZero() {
		held.LastEvent = b.LastEvent.UTC()
	}
	held.Disabled = stats.Merge(held.Record, stats.Record{Disabled: b.Disabled}).Disabled
	held.UnknownKinds = stats.Merge(held.Record, stats.Record{UnknownKinds: b.UnknownKinds}).UnknownKinds
	for name, n := range b.UndefinedTypes {
		seen := map[string]stats.Seen{name: {Count: n, Last: stats.Bucket(b.At)}}
		held.UndefinedTypes = stats.Merge(held.Record, stats.Record{UndefinedTypes: seen}).UndefinedTypes
	}
	if b.Worked {
		held.LastBatch = b.At.UTC()
	}
	s.statistics[key] = held
	if len(s.statistics) > 2*stats.Shards*int(stats.Retention/stats.BucketTime) {
		maps.DeleteFunc(s.statistics, func(_ string, old bucket) bool { return b.At.Sub(old.at) > stats.Retention })
	}
	return nil
}

// NoteSweep: see dispatch.Statistics.
func (s *Store) NoteSweep(_ context.Context, sweep stats.Sweep) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep = sweep
	return nil
}

// ReadStatistics: see stats.Source.
func (s *Store) ReadStatistics(_ context.Context, buckets []time.Time) (map[time.Time]stats.Record, stats.Sweep, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	records := map[time.Time]stats.Record{}
	for _, b := range buckets {
		for shard := range stats.Shards {
			records[b] = stats.Merge(records[b], s.statistics[dynamoitem.StatisticsKey(b, shard)].Record)
		}
	}
	return records, s.sweep, nil
}

// ReadDays: see stats.Days.
func (s *Store) ReadDays(_ context.Context, dates []time.Time) (map[time.Time]stats.Day, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	days := map[time.Time]stats.Day{}
	for _, date := range dates {
		if d, ok := s.days[dynamoitem.DayKey(date)]; ok {
			days[d.Date] = d
		}
	}
	return days, nil
}

// PutDay: see stats.Days.
func (s *Store) PutDay(_ context.Context, d stats.Day, was time.Time) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := dynamoitem.DayKey(d.Date)
	if held := s.days[key].At; !held.Equal(was) && !held.Equal(d.At) {
		return false, nil
	}
	if s.days == nil {
		s.days = map[string]stats.Day{}
	}
	s.days[key] = d
	maps.DeleteFunc(s.days, func(_ string, old stats.Day) bool { return d.Date.Sub(old.Date) > stats.DayRetention })
	return true, nil
}
