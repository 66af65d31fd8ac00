package local

import (
	"context"
	"time"

	emitfunction "github.com/tidings-dev/tidings/functions/emit/handler"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/ops/stats"
	"github.com/tidings-dev/tidings/pkg/platform"
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

// pacedCapture maps the times of the mark that capture is stuck by a Backend's pace.
type pacedCapture struct {
	emitfunction.Store
	pace func(time.Time) time.Time
}

func (p pacedCapture) MarkStuckCapture(ctx context.Context, mark platform.StuckCapture) error {
	mark.Since, mark.FailedAt, mark.ChangeAt = p.pace(mark.Since), p.pace(mark.FailedAt), p.pace(mark.ChangeAt)
	return p.Store.MarkStuckCapture(ctx, mark)
}
