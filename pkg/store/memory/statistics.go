package memory

import (
	"bytes"
	"context"
	"maps"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// bucket is a part of ten minutes' statistics, and the batch that was added last.
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
		return nil // our own write, repeated
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

// CountDue: see dispatch.DueIndex.
func (s *Store) CountDue(_ context.Context, shard int, after time.Time, limit int) (n int, more bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.due[shard].Ascend(delivery.Due{DueAt: after}, func(d delivery.Due) bool {
		if !d.DueAt.After(after) {
			return true
		}
		more = n == limit
		if !more {
			n++
		}
		return !more
	})
	return n, more, nil
}

// DisabledEndpoints returns those of the endpoints that are out of service, with
// the reason.
func (s *Store) DisabledEndpoints(_ context.Context, list []stats.Endpoint) (map[stats.Endpoint]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	disabled := map[stats.Endpoint]string{}
	for _, e := range list {
		if stored, ok := s.endpoints[e.Tenant][e.ID]; ok && stored.Status == endpoint.Disabled {
			disabled[e] = stored.StatusReason
		}
	}
	return disabled, nil
}

// alerts is the alerts' state.
type alerts struct {
	document []byte
	version  int
	writer   string
}

// ReadAlerts: see alert.Documents.
func (s *Store) ReadAlerts(context.Context) (document []byte, version int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.alerts.document, s.alerts.version, nil
}

// WriteAlerts: see alert.Documents.
func (s *Store) WriteAlerts(_ context.Context, document []byte, was int, writer string) (stored bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.alerts.version != was {
		return s.alerts.version == was+1 && s.alerts.writer == writer, nil // our own write, repeated
	}
	s.alerts = alerts{bytes.Clone(document), was + 1, writer}
	return true, nil
}
