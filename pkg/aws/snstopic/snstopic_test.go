package snstopic_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/sns"

	"github.com/tidings-dev/tidings/pkg/aws/snstopic"
)

type client func(*sns.PublishInput) error

func (f client) Publish(_ context.Context, in *sns.PublishInput, _ ...func(*sns.Options)) (*sns.PublishOutput, error) {
	return &sns.PublishOutput{}, f(in)
}

func TestPublishSendsToTheTopic(t *testing.T) {
	var got *sns.PublishInput
	topic := snstopic.Topic{ARN: "arn:aws:sns:eu-central-1:123456789012:alarms", Client: client(func(in *sns.PublishInput) error {
		got = in
		return nil
	})}
	if err := topic.Publish(t.Context(), "subject", "text"); err != nil {
		t.Fatal(err)
	}
	if *got.TopicArn != topic.ARN || *got.Subject != "subject" || *got.Message != "text" {
		t.Errorf("published %v", got)
	}
}

func TestAFailedPublishNamesTheTopicAndKeepsTheCause(t *testing.T) {
	cause := errors.New("not authorized")
	topic := snstopic.Topic{ARN: "arn:x", Client: client(func(*sns.PublishInput) error { return cause })}
	if err := topic.Publish(t.Context(), "s", "t"); !errors.Is(err, cause) || !strings.Contains(err.Error(), "arn:x") {
		t.Errorf("error %v", err)
	}
}
