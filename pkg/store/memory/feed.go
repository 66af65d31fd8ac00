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
	waiting int           // readers that wait
	grown   chan struct{} // closed for those when a change is added
}

// change becomes a record when somebody reads it: until then it is small, and
// whoever writes does not wait for it.
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
		// Real sequence numbers are long decimals too, and sort as strings.
		r.Change.SequenceNumber = padded(21, first+i)
		page[i] = r
	}
	return page, nil
}

// padded writes a number with so many digits.
func padded(digits, n int) string {
	var text [32]byte
	for i := range text {
		text[len(text)-1-i] = byte('0' + n%10)
		n /= 10
	}
	return string(text[len(text)-digits:])
}

// read returns up to limit changes that follow the last, and the first one's
// number, as soon as there is one.
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
	n := min(last+1-f.first, len(f.changes))
	if 2*n > len(f.changes) {
		// A copy, so that the forgotten records' memory is given back; not before
		// it is worth it, so that a long backlog is not copied for every batch.
		f.changes = append([]change(nil), f.changes[n:]...)
		f.first += n
	}
}
