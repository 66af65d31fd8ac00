// Package snstopic publishes to an SNS topic, from where people get email and systems
// whatever they have subscribed. It promises that what it has not reported as
// failed is with SNS.
package snstopic

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/sns"
)

// Client is the part of *sns.Client that is used.
type Client interface {
	Publish(context.Context, *sns.PublishInput, ...func(*sns.Options)) (*sns.PublishOutput, error)
}

// Topic is one topic.
type Topic struct {
	Client Client
	ARN    string
}

// Publish sends a text. The subject is ASCII, at most 100 characters, without line
// breaks (Amazon SNS API Reference, "Publish").
func (t Topic) Publish(ctx context.Context, subject, text string) error {
	if _, err := t.Client.Publish(ctx, &sns.PublishInput{TopicArn: &t.ARN, Subject: &subject, Message: &text}); err != nil {
		return fmt.Errorf("publish to %s: %w", t.ARN, err)
	}
	return nil
}
