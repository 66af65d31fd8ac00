// Package sqsqueue puts work items on an SQS standard queue. Each carries its
// endpoint as the message group, so that SQS's fair queues hand out a quiet
// endpoint's items before a noisy one's backlog. It promises that an item it has
// not reported as failed is on the queue, and that no item comes before its
// delay is over.
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
	// batchSize is the most that SQS takes in one request.
	batchSize = 10
	// parallel bounds the requests under way in one Send.
	parallel = 8
	// tries is how often a batch's throttled entries are sent. The SDK retries
	// whole requests by itself, but not the entries that failed inside one.
	tries = 3
)

// Client is the part of *sqs.Client that the queue uses.
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

// Send puts the items on the queue, ten a request. It returns nil when all are
// there, else one entry an item, nil for those that are.
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

// sendBatch sends up to ten items and notes the errors of those that failed.
func (q *Queue) sendBatch(ctx context.Context, items []work.Item, errs []error) {
	waiting := make([]int, len(items)) // positions of the items to be sent
	for i := range items {
		waiting[i] = i
	}
	for try := 1; len(waiting) > 0 && try <= tries; try++ {
		entries := make([]types.SendMessageBatchRequestEntry, len(waiting))
		for i, position := range waiting {
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
			for _, position := range waiting {
				errs[position] = fmt.Errorf("send to the work queue: %w", err)
			}
			return
		}
		waiting = waiting[:0]
		for _, failed := range out.Failed {
			var position int
			if _, err := fmt.Sscan(aws.ToString(failed.Id), &position); err != nil || position < 0 || position >= len(items) {
				continue // SQS answers with the ids it was given
			}
			errs[position] = fmt.Errorf("send to the work queue: %s: %s", aws.ToString(failed.Code), aws.ToString(failed.Message))
			if !failed.SenderFault {
				waiting = append(waiting, position)
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

// seconds rounds up: an item may be late by a second, never early.
func seconds(d time.Duration) int32 {
	return int32((min(max(d, 0), work.MaxDelay) + time.Second - 1) / time.Second)
}

// AttributesClient is the part of *sqs.Client that a Gauge uses.
type AttributesClient interface {
	GetQueueAttributes(context.Context, *sqs.GetQueueAttributesInput, ...func(*sqs.Options)) (*sqs.GetQueueAttributesOutput, error)
}

// Gauge measures one SQS queue.
type Gauge struct {
	Client AttributesClient
	URL    string
}

// Depth counts the queue's messages, as SQS does: approximately.
func (g Gauge) Depth(ctx context.Context) (work.Depth, error) {
	out, err := g.Client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &g.URL, AttributeNames: []types.QueueAttributeName{
		types.QueueAttributeNameApproximateNumberOfMessages,
		types.QueueAttributeNameApproximateNumberOfMessagesDelayed,
		types.QueueAttributeNameApproximateNumberOfMessagesNotVisible,
	}})
	if err != nil {
		return work.Depth{}, fmt.Errorf("count the messages of a queue: %w", err)
	}
	var d work.Depth
	for name, into := range map[types.QueueAttributeName]*int{
		types.QueueAttributeNameApproximateNumberOfMessages:           &d.Visible,
		types.QueueAttributeNameApproximateNumberOfMessagesDelayed:    &d.Delayed,
		types.QueueAttributeNameApproximateNumberOfMessagesNotVisible: &d.InFlight,
	} {
		if *into, err = strconv.Atoi(out.Attributes[string(name)]); err != nil {
			return work.Depth{}, fmt.Errorf("count the messages of a queue: %s is %q", name, out.Attributes[string(name)])
		}
	}
	return d, nil
}
