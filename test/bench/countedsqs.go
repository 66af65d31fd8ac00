package main

import (
	"context"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/tidings-dev/tidings/pkg/delivery/work"
	"github.com/tidings-dev/tidings/pkg/local/queue"
)

// countedSQS is the local queue behind sqsqueue's client, with the requests counted
// as SQS bills them: one for each 64 KB of a request.
type countedSQS struct {
	queue    *queue.Queue
	now      func() time.Time
	latency  time.Duration // of a send
	requests atomic.Int64
}

func newCountedSQS(now func() time.Time) *countedSQS {
	q, err := queue.Open(queue.Config{Name: "work", Visibility: time.Minute, Now: now})
	if err != nil {
		panic(err) // only a journal can fail
	}
	return &countedSQS{queue: q, now: now}
}

func billed(bytes int) int64 { return max(1, int64(bytes+64*1024-1)/(64*1024)) }

// take returns the requests since the last time.
func (q *countedSQS) take() int64 { return q.requests.Swap(0) }

// SendMessageBatch implements sqsqueue.Client.
func (q *countedSQS) SendMessageBatch(_ context.Context, in *sqs.SendMessageBatchInput, _ ...func(*sqs.Options)) (*sqs.SendMessageBatchOutput, error) {
	time.Sleep(q.latency)
	size := 0
	out := &sqs.SendMessageBatchOutput{}
	for _, e := range in.Entries {
		body, delay := aws.ToString(e.MessageBody), time.Duration(e.DelaySeconds)*time.Second
		size += len(body)
		// A worker waits for the rest of the second on its own clock, which is not the
		// bench's. Those of a backlog really wait, because they share a batch.
		if item, err := work.Decode(body); err == nil && !item.Backlog {
			delay = max(delay, item.Slot.Sub(q.now()))
		}
		if _, err := q.queue.Put(body, aws.ToString(e.MessageGroupId), delay); err != nil {
			return nil, err
		}
		out.Successful = append(out.Successful, types.SendMessageBatchResultEntry{Id: e.Id})
	}
	q.requests.Add(billed(size))
	return out, nil
}

// receive returns up to ten messages and deletes them: a request each.
func (q *countedSQS) receive() (batch events.SQSEvent, err error) {
	got, err := q.queue.Poll(10, time.Minute)
	size := 0
	for i, m := range got {
		size += len(m.Body)
		batch.Records = append(batch.Records, events.SQSMessage{
			MessageId: strconv.Itoa(i), EventSource: "aws:sqs", Body: m.Body, Attributes: map[string]string{"ApproximateReceiveCount": "1"},
		})
		if err := q.queue.Delete(m.Receipt); err != nil {
			return batch, err
		}
	}
	if len(got) > 0 {
		q.requests.Add(billed(size) + 1)
	}
	return batch, err
}

// Depth implements health.Queue; it is a request, too.
func (q *countedSQS) Depth(ctx context.Context) (work.Depth, error) {
	q.requests.Add(1)
	return q.queue.Depth(ctx)
}
