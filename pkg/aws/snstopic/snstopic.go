// Package snstopic publishes to an Amazon SNS topic. It promises that SNS has accepted
// a message if Publish returns nil.
package snstopic

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/sns"
)

// Client is the part of *sns.Client that this package uses.
type Client interface {
	Publish(context.Context, *sns.PublishInput, ...func(*sns.Options)) (*sns.PublishOutput, error)
}

// Topic is one topic.
type Topic struct {
	Client Client
	ARN    string
}

// Publish publishes a text. The subject must be ASCII, at most 100 characters, without
// line breaks (Amazon SNS API Reference, "Publish").
func (t Topic) Publish(ctx context.Context, subject, text string) error {
	if _, err := t.Client.Publish(ctx, &sns.PublishInput{TopicArn: &t.ARN, Subject: &subject, Message: &text}); err != nil {
		return fmt.Errorf("publish to %s: %w", t.ARN, err)
	}
	return nil
}
