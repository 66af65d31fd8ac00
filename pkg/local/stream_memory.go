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
	ARN   string // of the stream, which names the table
}

// Read implements Shard.
func (s MemoryShard) Read(ctx context.Context, after string, limit int) ([]events.DynamoDBEventRecord, error) {
	records, err := s.Store.Records(ctx, s.Table, after, limit)
	for n := range records {
		records[n].EventSourceArn = s.ARN
	}
	return records, err
}

// Done implements Shard.
func (s MemoryShard) Done(upTo string) error {
	s.Store.Trim(s.Table, upTo)
	return nil
}
