package health

import (
	"context"
	"time"

	"github.com/tidings-dev/tidings/pkg/delivery/work"
)

// SampleTime is how long a sampled depth is kept.
const SampleTime = 5 * time.Minute

// Sampled returns a Health that reads the depths of the slow queue and of the dead-letter
// queues only every SampleTime. It is for evaluations that run every minute, because each
// read is a paid request.
func (h *Health) Sampled() *Health {
	sampled := *h
	for _, q := range []*Queue{&sampled.Slow, &sampled.DeadWork, &sampled.DeadStream, &sampled.DeadCapture} {
		*q = sample{&cached[work.Depth]{read: (*q).Depth, now: h.Now, keep: SampleTime}}
	}
	return &sampled
}

// sample is a queue whose depth is cached.
type sample struct{ depth *cached[work.Depth] }

// Depth implements Queue.
func (s sample) Depth(ctx context.Context) (work.Depth, error) { return s.depth.get(ctx) }
