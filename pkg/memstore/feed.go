package memstore

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"

	"github.com/aws/aws-lambda-go/events"
)

// feed is a table's stream: one shard, records in the order of the writes.
type feed struct {
	mu      sync.Mutex
	records []events.DynamoDBEventRecord
	first   int           // sequence number of records[0]
	grown   chan struct{} // closed when a record is added
}

func newFeed() *feed { return &feed{first: 1, grown: make(chan struct{})} }

func (f *feed) add(r events.DynamoDBEventRecord) {
	f.mu.Lock()
	defer f.mu.Unlock()
	seq := f.first + len(f.records)
	r.EventID = fmt.Sprintf("%032x", seq)
	r.EventSource = "aws:dynamodb"
	r.EventVersion = "1.1"
	// Real sequence numbers are long decimals too, and sort as strings.
	r.Change.SequenceNumber = fmt.Sprintf("%021d", seq)
	f.records = append(f.records, r)
	close(f.grown)
	f.grown = make(chan struct{})
}

// Records returns up to limit records of a table's stream that follow the
// sequence number after ("" is the beginning), and waits until there is one.
func (s *Store) Records(ctx context.Context, table, after string, limit int) ([]events.DynamoDBEventRecord, error) {
	f := s.feeds[table]
	if f == nil {
		return nil, fmt.Errorf("table %s has no stream", table)
	}
	last := 0
	if after != "" {
		var err error
		if last, err = strconv.Atoi(after); err != nil {
			return nil, fmt.Errorf("sequence number %q is not one of this stream", after)
		}
	}
	for {
		f.mu.Lock()
		from := max(last+1-f.first, 0)
		if from < len(f.records) {
			page := slices.Clone(f.records[from:min(from+limit, len(f.records))])
			f.mu.Unlock()
			return page, nil
		}
		grown := f.grown
		f.mu.Unlock()
		select {
		case <-grown:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Trim forgets the records up to and including a sequence number. A stream on
// AWS does the same after 24 hours.
func (s *Store) Trim(table, upTo string) {
	f := s.feeds[table]
	last, err := strconv.Atoi(upTo)
	if f == nil || err != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n := min(last+1-f.first, len(f.records))
	if 2*n > len(f.records) {
		// A copy, so that the forgotten records' memory is given back; not before
		// it is worth it, so that a long backlog is not copied for every batch.
		f.records = append([]events.DynamoDBEventRecord(nil), f.records[n:]...)
		f.first += n
	}
}
