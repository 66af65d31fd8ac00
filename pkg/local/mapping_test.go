package local_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/queue"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
)

func function(handler any) *local.Function {
	return &local.Function{
		Function: samtemplate.Function{Folder: "f", Name: "stack-f", Timeout: 10 * time.Second}, ARN: "arn:aws:lambda:us-east-1:000000000000:function:stack-f",
		Handle: handler, Log: slog.New(slog.DiscardHandler),
	}
}

// shard is a stream that the test has written.
type shard struct {
	mu      sync.Mutex
	records []events.DynamoDBEventRecord
	done    string
	reads   int
}

func newShard(n int) *shard {
	s := &shard{}
	for i := 1; i <= n; i++ {
		s.records = append(s.records, events.DynamoDBEventRecord{EventName: "INSERT", Change: events.DynamoDBStreamRecord{
			SequenceNumber: fmt.Sprintf("%03d", i), ApproximateCreationDateTime: events.SecondsEpochTime{Time: time.Now()},
		}})
	}
	return s
}

func (s *shard) Read(_ context.Context, after string, limit int) ([]events.DynamoDBEventRecord, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	for i, r := range s.records {
		if r.Change.SequenceNumber > after {
			return s.records[i:min(i+limit, len(s.records))], nil
		}
	}
	return nil, local.ErrShardEnd
}

func (s *shard) Done(upTo string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = upTo
	return nil
}

// fails answers a batch by what the test says of each record.
type fails struct {
	mu  sync.Mutex
	got []string                     // every record handed over, in order
	bad func(seq string, n int) bool // n counts how often the record has come
	// whole fails the invocation instead of reporting the record.
	whole bool
	seen  map[string]int
}

func (f *fails) handle(_ context.Context, batch events.DynamoDBEvent) (events.DynamoDBEventResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seen == nil {
		f.seen = map[string]int{}
	}
	var response events.DynamoDBEventResponse
	for _, r := range batch.Records {
		seq := r.Change.SequenceNumber
		f.seen[seq]++
		if f.bad != nil && f.bad(seq, f.seen[seq]) {
			if f.whole {
				return response, errors.New("failed")
			}
			response.BatchItemFailures = append(response.BatchItemFailures, events.DynamoDBBatchItemFailure{ItemIdentifier: seq})
			return response, nil
		}
		f.got = append(f.got, seq)
	}
	return response, nil
}

func TestAStreamIsHandedOverInOrderAndAtLeastOnce(t *testing.T) {
	for name, c := range map[string]struct {
		bad      func(string, int) bool
		whole    bool
		trigger  samtemplate.StreamTrigger
		lost     []string // given up
		exactly  bool     // no record twice
		slowerBy time.Duration
	}{
		"without failures":          {exactly: true},
		"a record that fails twice": {bad: func(s string, n int) bool { return s == "007" && n <= 2 }, exactly: true},
		"a batch that fails whole":  {bad: func(s string, n int) bool { return s == "007" && n <= 2 }, whole: true},
		"poison": {bad: func(s string, _ int) bool { return s == "007" }, trigger: samtemplate.StreamTrigger{MaxRetries: 3},
			lost: []string{"007"}, exactly: true},
		"poison that fails its batch": {bad: func(s string, _ int) bool { return s == "007" }, whole: true,
			trigger: samtemplate.StreamTrigger{MaxRetries: 3, Bisect: true}, lost: []string{"007"}},
		"poison that grows too old": {bad: func(s string, _ int) bool { return s == "007" }, trigger: samtemplate.StreamTrigger{MaxRetries: -1, MaxAge: time.Minute},
			lost: []string{"007"}, exactly: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fails{bad: c.bad, whole: c.whole}
				s := newShard(23)
				failures, err := queue.Open(queue.Config{Name: "failures", Visibility: time.Minute})
				if err != nil {
					t.Fatal(err)
				}
				trigger := c.trigger
				trigger.BatchSize, trigger.ReportsItems = 10, true
				if trigger.MaxRetries == 0 {
					trigger.MaxRetries = -1
				}
				m := &local.StreamMapping{Function: function(f.handle), Shard: s, Trigger: trigger, Failures: failures}
				if err := m.Run(t.Context()); err != nil {
					t.Fatal(err)
				}
				var want []string
				for _, r := range s.records {
					if !slices.Contains(c.lost, r.Change.SequenceNumber) {
						want = append(want, r.Change.SequenceNumber)
					}
				}
				got := f.got
				if !c.exactly {
					got = slices.Compact(slices.Sorted(slices.Values(got)))
				}
				if !slices.Equal(got, want) {
					t.Errorf("got %v, want %v", got, want)
				}
				if s.done != "023" {
					t.Errorf("checkpoint = %s", s.done)
				}
				if n := failures.Stats().Visible; n != len(c.lost) {
					t.Errorf("%d given up, want %d", n, len(c.lost))
				}
			})
		})
	}
}

func TestAStreamGoesOnFromItsCheckpoint(t *testing.T) {
	f := &fails{}
	m := &local.StreamMapping{Function: function(f.handle), Shard: newShard(5), Trigger: samtemplate.StreamTrigger{BatchSize: 10, MaxRetries: -1}, After: "003"}
	if err := m.Run(t.Context()); err != nil || !slices.Equal(f.got, []string{"004", "005"}) {
		t.Errorf("got %v, %v", f.got, err)
	}
}

func TestAStreamsFilterKeepsRecordsOut(t *testing.T) {
	f := &fails{}
	s := newShard(4)
	s.records[1].EventName = "REMOVE"
	m := &local.StreamMapping{Function: function(f.handle), Shard: s, Trigger: samtemplate.StreamTrigger{
		BatchSize: 10, MaxRetries: -1, Filters: []json.RawMessage{json.RawMessage(`{"eventName":["INSERT"]}`)},
	}}
	if err := m.Run(t.Context()); err != nil || !slices.Equal(f.got, []string{"001", "003", "004"}) || s.done != "004" {
		t.Errorf("got %v, %v; checkpoint %s", f.got, err, s.done)
	}
}

func TestAQueuesMessagesComeBackOnlyWhenTheyFailed(t *testing.T) {
	for name, c := range map[string]struct {
		handle func(n int, batch events.SQSEvent) (events.SQSEventResponse, error) // n counts invocations
		calls  int
	}{
		"all good": {func(int, events.SQSEvent) (events.SQSEventResponse, error) { return events.SQSEventResponse{}, nil }, 1},
		"one fails once": {func(n int, b events.SQSEvent) (events.SQSEventResponse, error) {
			var r events.SQSEventResponse
			if n == 1 {
				r.BatchItemFailures = []events.SQSBatchItemFailure{{ItemIdentifier: b.Records[2].MessageId}}
			} else if len(b.Records) != 1 || b.Records[0].Body != "2" || b.Records[0].Attributes["ApproximateReceiveCount"] != "2" {
				return r, fmt.Errorf("came back: %+v", b.Records)
			}
			return r, nil
		}, 2},
		"the invocation fails once": {func(n int, b events.SQSEvent) (events.SQSEventResponse, error) {
			if n == 1 {
				return events.SQSEventResponse{}, errors.New("failed")
			}
			return events.SQSEventResponse{}, nil
		}, 2},
		"the invocation panics once": {func(n int, b events.SQSEvent) (events.SQSEventResponse, error) {
			if n == 1 {
				panic("at the disco")
			}
			return events.SQSEventResponse{}, nil
		}, 2},
		"the invocation takes too long once": {func(n int, b events.SQSEvent) (events.SQSEventResponse, error) {
			if n == 1 {
				time.Sleep(11 * time.Second)
			}
			return events.SQSEventResponse{}, nil
		}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q, err := queue.Open(queue.Config{Visibility: time.Minute})
				if err != nil {
					t.Fatal(err)
				}
				for i := range 5 {
					if _, err := q.Put(fmt.Sprint(i), "g", 0); err != nil {
						t.Fatal(err)
					}
				}
				var calls atomic.Int32
				f := function(func(_ context.Context, b events.SQSEvent) (events.SQSEventResponse, error) {
					return c.handle(int(calls.Add(1)), b)
				})
				ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
				defer cancel()
				m := &local.QueueMapping{Function: f, Queue: q, Trigger: samtemplate.QueueTrigger{BatchSize: 10, ReportsItems: true}}
				if err := m.Run(ctx); err != nil {
					t.Fatal(err)
				}
				if s := q.Stats(); int(calls.Load()) != c.calls || s != (queue.Stats{}) {
					t.Errorf("%d invocations, left %+v; want %d and nothing", calls.Load(), s, c.calls)
				}
			})
		})
	}
}

func TestAQueueIsWorkedOnByManyAtOnceButNotMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, err := queue.Open(queue.Config{Visibility: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			if _, err := q.Put(fmt.Sprint(i), "g", 0); err != nil {
				t.Fatal(err)
			}
		}
		var mu sync.Mutex
		running, most := 0, 0
		f := function(func(context.Context, events.SQSEvent) (events.SQSEventResponse, error) {
			mu.Lock()
			running++
			most = max(most, running)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			running--
			mu.Unlock()
			return events.SQSEventResponse{}, nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		m := &local.QueueMapping{Function: f, Queue: q, Trigger: samtemplate.QueueTrigger{BatchSize: 10, MaxConcurrency: 3}}
		if err := m.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if most != 3 || q.Stats() != (queue.Stats{}) {
			t.Errorf("%d at once, left %+v", most, q.Stats())
		}
	})
}

func TestAScheduleFiresAtOnceAndThenEveryPeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var at []time.Duration
		f := function(func(_ context.Context, in json.RawMessage) (any, error) {
			if string(in) != `{"action":"sweep"}` {
				t.Errorf("input = %s", in)
			}
			at = append(at, time.Since(began))
			return nil, errors.New("failures are logged, and do not end it")
		})
		ctx, cancel := context.WithTimeout(t.Context(), 150*time.Second)
		defer cancel()
		if err := local.RunSchedule(ctx, f, samtemplate.Schedule{Every: time.Minute, Input: json.RawMessage(`{"action":"sweep"}`)}); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(at, []time.Duration{0, time.Minute, 2 * time.Minute}) {
			t.Errorf("fired at %v", at)
		}
	})
}
