package local

import (
	"context"
	"time"

	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
)

// pacedStatistics maps the times of statistics by a Backend's pace.
type pacedStatistics struct {
	dispatch.Statistics
	pace func(time.Time) time.Time
}

func (p pacedStatistics) AddStatistics(ctx context.Context, b stats.Batch) error {
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

func (p pacedStatistics) NoteSweep(ctx context.Context, s stats.Sweep) error {
	s.At = p.pace(s.At)
	if !s.OldestDue.IsZero() {
		s.OldestDue = p.pace(s.OldestDue)
	}
	return p.Statistics.NoteSweep(ctx, s)
}
