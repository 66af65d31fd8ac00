package stats

import (
	"context"
	"crypto/rand"
	"time"
)

// WriteTime is the timeout for storing a batch's counts. It is short because the batch's
// messages or records are acknowledged afterwards.
const WriteTime = 2 * time.Second

// Sink stores batches. Both stores implement it.
type Sink interface {
	// AddStatistics adds the batch to its minute. It does nothing if the last batch
	// added had the same ID.
	AddStatistics(ctx context.Context, b Batch) error
}

// Write gives a batch its ID and its time and stores it, unless it is zero. The counts
// should be stored even if the invocation runs out of time: ctx's end does not end the
// write, which takes at most WriteTime.
func Write(ctx context.Context, to Sink, b Batch, now time.Time) error {
	if b.Zero() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), WriteTime)
	defer cancel()
	b.ID, b.At = rand.Text()[:12], now
	return to.AddStatistics(ctx, b)
}
