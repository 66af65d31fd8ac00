// Package sqsqueue sends work items to an SQS standard queue. The endpoint is the
// message group, so that SQS fair queues deliver the items of other endpoints ahead of
// one endpoint's backlog. It promises that an item without an error is on the queue,
// and that no item is received before its delay has passed.
package sqsqueue

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/tidings-dev/tidings/pkg/delivery/work"
)

const (
	batchSize = 10 // maximum of SQS per request
	parallel  = 8  // concurrent requests of one Send
	// tries is how often an entry is sent. The SDK retries failed requests, but not
	// failed entries of a successful request.
	tries = 3
)

// Client is the part of *sqs.Client that Queue uses.
type Client interface {
	SendMessageBatch(context.Context, *sqs.SendMessageBatchInput, ...func(*sqs.Options)) (*sqs.SendMessageBatchOutput, error)
}

// Queue is one SQS queue. It is safe for concurrent use.
type Queue struct {
	client Client
	url    string
}

// New returns the queue at the URL.
func New(client Client, url string) *Queue { return &Queue{client: client, url: url} }

// Send sends the items in batches. It returns nil if all were sent, otherwise one
// error per item, nil for each item that was sent.
func (q *Queue) Send(ctx context.Context, items []work.Item) []error {
	errs := make([]error, len(items))
	var batches sync.WaitGroup
	slots := make(chan struct{}, parallel)
	for from := 0; from < len(items); from += batchSize {
		to := min(from+batchSize, len(items))
		slots <- struct{}{}
		batches.Go(func() {
			q.sendBatch(ctx, items[from:to], errs[from:to])
			<-slots
		})
	}
	batches.Wait()
	for _, err := range errs {
		if err != nil {
			return errs
		}
	}
	return nil
}

// sendBatch sends one batch and sets the errors of the items that failed.
func (q *Queue) sendBatch(ctx context.Context, items []work.Item, errs []error) {
	pending := make([]int, len(items)) // indexes of the items to send
	for i := range items {
		pending[i] = i
	}
	for try := 1; len(pending) > 0 && try <= tries; try++ {
		entries := make([]types.SendMessageBatchRequestEntry, len(pending))
		for i, position := range pending {
			item := items[position]
			entries[i] = types.SendMessageBatchRequestEntry{
				Id:             aws.String(fmt.Sprint(position)),
				MessageBody:    aws.String(item.Encode()),
				MessageGroupId: aws.String(item.Group()),
				DelaySeconds:   seconds(item.Delay),
			}
		}
		out, err := q.client.SendMessageBatch(ctx, &sqs.SendMessageBatchInput{QueueUrl: &q.url, Entries: entries})
		if err != nil {
			for _, position := range pending {
				errs[position] = fmt.Errorf("send to the work queue: %w", err)
			}
			return
		}
		pending = pending[:0]
		for _, failed := range out.Failed {
			var position int
			if _, err := fmt.Sscan(aws.ToString(failed.Id), &position); err != nil || position < 0 || position >= len(items) {
				continue // SQS returns only the ids of the request
			}
			errs[position] = fmt.Errorf("send to the work queue: %s: %s", aws.ToString(failed.Code), aws.ToString(failed.Message))
			if !failed.SenderFault {
				pending = append(pending, position)
			}
		}
		for _, sent := range out.Successful {
			var position int
			if _, err := fmt.Sscan(aws.ToString(sent.Id), &position); err == nil && position >= 0 && position < len(items) {
				errs[position] = nil
			}
		}
	}
}

// seconds rounds up, so that no item is early.
func seconds(d time.Duration) int32 {
	return int32((min(max(d, 0), work.MaxDelay) + time.Second - 1) / time.Second)
}

// AttributesClient is the part of *sqs.Client that a Gauge uses.
type AttributesClient interface {
	GetQueueAttributes(context.Context, *sqs.GetQueueAttributesInput, ...func(*sqs.Options)) (*sqs.GetQueueAttributesOutput, error)
}

// Gauge counts the messages of one SQS queue.
type Gauge struct {
	Client AttributesClient
	URL    string
}

// Depth returns the approximate number of messages.
func (g Gauge) Depth(ctx context.Context) (work.Depth, error) {
	out, err := g.Client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &g.URL, AttributeNames: []types.QueueAttributeName{
		types.QueueAttributeNameApproximateNumberOfMessages,
		types.QueueAttributeNameApproximateNumberOfMessagesDelayed,
		types.QueueAttributeNameApproximateNumberOfMessagesNotVisible,
	}})
	if err != nil {
		return work.Depth{}, fmt.Errorf("read the queue's attributes: %w", err)
	}
	var d work.Depth
	for name, into := range map[types.QueueAttributeName]*int{
		types.QueueAttributeNameApproximateNumberOfMessages:           &d.Visible,
		types.QueueAttributeNameApproximateNumberOfMessagesDelayed:    &d.Delayed,
		types.QueueAttributeNameApproximateNumberOfMessagesNotVisible: &d.InFlight,
	} {
		if *into, err = strconv.Atoi(out.Attributes[string(name)]); err != nil {
			return work.Depth{}, fmt.Errorf("queue attribute %s is %q, want a number", name, out.Attributes[string(name)])
		}
	}
	return d, nil
}
