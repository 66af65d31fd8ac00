package sqsqueue

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// SendClient is the part of *sqs.Client that Letters uses.
type SendClient interface {
	SendMessage(context.Context, *sqs.SendMessageInput, ...func(*sqs.Options)) (*sqs.SendMessageOutput, error)
}

// Letters is a dead-letter queue to which a consumer sends itself what it refuses, so
// that this is not received again and again before SQS moves it.
type Letters struct {
	Client SendClient
	URL    string
}

// Keep implements emit.Letters. What it is about becomes attributes of the message; none
// may be empty.
func (l Letters) Keep(ctx context.Context, body string, about map[string]string) error {
	attributes := map[string]types.MessageAttributeValue{}
	for name, value := range about {
		attributes[name] = types.MessageAttributeValue{DataType: aws.String("String"), StringValue: aws.String(value)}
	}
	_, err := l.Client.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &l.URL, MessageBody: &body, MessageAttributes: attributes})
	if err != nil {
		return fmt.Errorf("send to the dead-letter queue: %w", err)
	}
	return nil
}
