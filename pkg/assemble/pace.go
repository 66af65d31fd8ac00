package assemble

import (
	"context"
	"time"

	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/ops/metrics"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
)

// statistics is where dispatch's counts go: by the backend's pace, past the metrics,
// into the store.
func (b Backend) statistics(s dispatch.Statistics, stack string) dispatch.Statistics {
	if b.Metrics != nil {
		s = metrics.Writer{Next: s, Out: b.Metrics, Stack: stack, Level: b.LogLevel}
	}
	if b.Pace != nil {
		s = &pacedStatistics{s, b.Pace}
	}
	return s
}

// pacedStatistics counts by another pace; nothing but statistics goes by it.
type pacedStatistics struct {
	dispatch.Statistics
	pace func(time.Time) time.Time
}

func (p *pacedStatistics) AddStatistics(ctx context.Context, b stats.Batch) error {
	latencies := make([]time.Duration, len(b.Latencies))
	for i, l := range b.Latencies {
		latencies[i] = p.pace(b.At).Sub(p.pace(b.At.Add(-l)))
	}
	b.At, b.Latencies = p.pace(b.At), latencies
	if !b.LastEvent.IsZero() {
		b.LastEvent = p.pace(b.LastEvent)
	}
	return p.Statistics.AddStatistics(ctx, b)
}

func (p *pacedStatistics) NoteSweep(ctx context.Context, s stats.Sweep) error {
	s.At = p.pace(s.At)
	if !s.OldestDue.IsZero() {
		s.OldestDue = p.pace(s.OldestDue)
	}
	return p.Statistics.NoteSweep(ctx, s)
}
