// The health function reports how the deployment is doing, and sends alerts. See
// pkg/ops/health and pkg/ops/alert.
package main

import (
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/tidings-dev/tidings/functions/health/handler"
	"github.com/tidings-dev/tidings/pkg/aws/lambdamain"
	"github.com/tidings-dev/tidings/pkg/aws/secrets"
	"github.com/tidings-dev/tidings/pkg/aws/snstopic"
	"github.com/tidings-dev/tidings/pkg/aws/sqsqueue"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
)

// version is set by the build.
var version = "unknown"

func main() { lambdamain.Start(build) }

func build(s handler.Settings, access aws.Config, log *slog.Logger) (lambdamain.Handler, error) {
	queues := sqs.NewFromConfig(access)
	return handler.New(s, handler.Backend{
		Store:       dynamo.New(dynamodb.NewFromConfig(access), s.Tables()),
		Work:        sqsqueue.Gauge{Client: queues, URL: s.WorkQueueURL},
		Slow:        sqsqueue.Gauge{Client: queues, URL: s.SlowQueueURL},
		DeadWork:    sqsqueue.Gauge{Client: queues, URL: s.WorkDeadLetterQueueURL},
		DeadStream:  sqsqueue.Gauge{Client: queues, URL: s.StreamDeadLetterQueueURL},
		DeadCapture: sqsqueue.Gauge{Client: queues, URL: s.CaptureDeadLetterQueueURL},
		Topic:       snstopic.Topic{Client: sns.NewFromConfig(access), ARN: s.AlarmTopicARN},
		Secret:      secrets.Manager{Client: secretsmanager.NewFromConfig(access)}.Secret,
		Version:     version, Log: log, Now: time.Now,
	})
}
