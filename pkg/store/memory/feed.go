package memory

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
	changes []change
	first   int           // sequence number of changes[0]
	waiting int           // number of waiting readers
	grown   chan struct{} // closed when a change is added
}

// change is encoded as a stream record when it is read, so that it takes less memory and
// writes are faster.
type change interface {
	record() events.DynamoDBEventRecord
}

func newFeed() *feed { return &feed{first: 1, grown: make(chan struct{})} }

func (f *feed) add(c change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changes = append(f.changes, c)
	if f.waiting > 0 {
		close(f.grown)
		f.grown = make(chan struct{})
	}
}

// Records returns up to limit records of a table's stream that follow the sequence
// number after ("" for the beginning). It waits until there is at least one.
func (s *Store) Records(ctx context.Context, table, after string, limit int) ([]events.DynamoDBEventRecord, error) {
	f := s.feeds[table]
	if f == nil {
		return nil, fmt.Errorf("table %s has no stream", table)
	}
	last := 0
	if after != "" {
		var err error
		if last, err = strconv.Atoi(after); err != nil {
			return nil, fmt.Errorf("invalid sequence number %.64q", after)
		}
	}
	first, changes, err := f.read(ctx, last, limit)
	if err != nil {
		return nil, err
	}
	page := make([]events.DynamoDBEventRecord, len(changes))
	for i, c := range changes {
		r := c.record()
		r.EventID = padded(32, first+i)
		r.EventSource = "aws:dynamodb"
		r.EventVersion = "1.1"
		// As on AWS, sequence numbers are long decimals that sort as strings.
		r.Change.SequenceNumber = padded(21, first+i)
		page[i] = r
	}
	return page, nil
}

// padded formats a number with leading zeros, without an allocation by fmt.
func padded(digits, n int) string {
	var text [32]byte
	for i := range text {
		text[len(text)-1-i] = byte('0' + n%10)
		n /= 10
	}
	return string(text[len(text)-digits:])
}

// read returns up to limit changes after sequence number last, and the sequence number of
// the first. It waits until there is at least one.
func (f *feed) read(ctx context.Context, last, limit int) (first int, changes []change, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		from := max(last+1-f.first, 0)
		if from < len(f.changes) {
			return f.first + from, slices.Clone(f.changes[from:min(from+limit, len(f.changes))]), nil
		}
		grown := f.grown
		f.waiting++
		f.mu.Unlock()
		select {
		case <-grown:
		case <-ctx.Done():
			err = ctx.Err()
		}
		f.mu.Lock()
		f.waiting--
		if err != nil {
			return 0, nil, err
		}
	}
}

// Trim discards the records up to and including a sequence number. On AWS, a stream
// discards them after 24 hours.
func (s *Store) Trim(table, upTo string) {
	f := s.feeds[table]
	last, err := strconv.Atoi(upTo)
	if f == nil || err != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n := min(last+1-f.first, len(f.changes))
	if 2*n > len(f.changes) {
		// The copy frees the memory of the discarded records. It is made for half of
		// them or more, so that a long feed is not copied for every batch.
		f.changes = append([]change(nil), f.changes[n:]...)
		f.first += n
	}
}
