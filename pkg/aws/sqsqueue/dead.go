package sqsqueue

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/tidings-dev/tidings/pkg/delivery/work"
)

// DeadClient is the part of *sqs.Client that DeadLetters uses.
type DeadClient interface {
	ReceiveMessage(context.Context, *sqs.ReceiveMessageInput, ...func(*sqs.Options)) (*sqs.ReceiveMessageOutput, error)
	DeleteMessage(context.Context, *sqs.DeleteMessageInput, ...func(*sqs.Options)) (*sqs.DeleteMessageOutput, error)
}

// deadWait is the wait time of Take in seconds. Without one, SQS queries only some of
// its servers (short polling) and may miss messages.
const deadWait = 2

// DeadLetters is the dead-letter queue of a work queue.
type DeadLetters struct {
	client DeadClient
	url    string
}

// NewDeadLetters returns the dead-letter queue at the URL.
func NewDeadLetters(client DeadClient, url string) *DeadLetters {
	return &DeadLetters{client: client, url: url}
}

// Take implements dispatch.DeadLetters.
func (d *DeadLetters) Take(ctx context.Context) ([]work.Letter, error) {
	out, err := d.client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: &d.url, MaxNumberOfMessages: batchSize, WaitTimeSeconds: deadWait})
	if err != nil {
		return nil, fmt.Errorf("receive from the dead-letter queue: %w", err)
	}
	letters := make([]work.Letter, len(out.Messages))
	for i, m := range out.Messages {
		letters[i] = work.Letter{Body: aws.ToString(m.Body), Receipt: aws.ToString(m.ReceiptHandle)}
	}
	return letters, nil
}

// Remove implements dispatch.DeadLetters.
func (d *DeadLetters) Remove(ctx context.Context, taken []work.Letter) error {
	for _, letter := range taken {
		if _, err := d.client.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &d.url, ReceiptHandle: &letter.Receipt}); err != nil {
			return fmt.Errorf("delete from the dead-letter queue: %w", err)
		}
	}
	return nil
}
