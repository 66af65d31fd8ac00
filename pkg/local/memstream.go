package local

import (
	"context"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tidings-dev/tidings/pkg/store/memory"
)

// MemoryShard is the stream of a table of the memory store: one shard that
// never ends.
type MemoryShard struct {
	Store *memory.Store
	Table string
}

// Read: see Shard.
func (s MemoryShard) Read(ctx context.Context, after string, limit int) ([]events.DynamoDBEventRecord, error) {
	return s.Store.Records(ctx, s.Table, after, limit)
}

// Done: see Shard.
func (s MemoryShard) Done(upTo string) error {
	s.Store.Trim(s.Table, upTo)
	return nil
}
