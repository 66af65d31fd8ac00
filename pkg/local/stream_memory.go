package local

import (
	"context"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tidings-dev/tidings/pkg/store/memory"
)

// MemoryShard is the stream of a table in the memory store: a single shard that
// never closes.
type MemoryShard struct {
	Store *memory.Store
	Table string
}

// Read implements Shard.
func (s MemoryShard) Read(ctx context.Context, after string, limit int) ([]events.DynamoDBEventRecord, error) {
	return s.Store.Records(ctx, s.Table, after, limit)
}

// Done implements Shard.
func (s MemoryShard) Done(upTo string) error {
	s.Store.Trim(s.Table, upTo)
	return nil
}
