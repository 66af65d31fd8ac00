// The dispatch function fans events out to endpoints, delivers them, sweeps and
// replays. See pkg/dispatch.
package main

import (
	"log/slog"
	"os"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/tidings-dev/tidings/functions/dispatch/handler"
	"github.com/tidings-dev/tidings/pkg/aws/lambdamain"
	"github.com/tidings-dev/tidings/pkg/aws/sqsqueue"
	"github.com/tidings-dev/tidings/pkg/aws/xraytracing"
	"github.com/tidings-dev/tidings/pkg/destination/builtin"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/ops/metrics"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
)

func main() { lambdamain.Start(build) }

func build(s handler.Settings, access aws.Config, log *slog.Logger) (lambdamain.Handler, error) {
	sender, err := builtin.Open(s.Settings, builtin.Deployed(access))
	if err != nil {
		return nil, err
	}
	tracer, err := xraytracing.Open(os.Getenv("AWS_XRAY_DAEMON_ADDRESS"), s.TraceSampling)
	if err != nil {
		return nil, err
	}
	store, queues := dynamo.New(dynamodb.NewFromConfig(access), s.Tables()), sqs.NewFromConfig(access)
	return handler.New(handler.Backend{
		Store:             store,
		Statistics:        metrics.Writer{Next: store, Out: os.Stdout, Stack: s.StackName, All: s.Metrics == "all", Level: os.Getenv("AWS_LAMBDA_LOG_LEVEL")},
		Queue:             sqsqueue.New(queues, s.WorkQueueURL),
		SlowQueue:         sqsqueue.New(queues, s.SlowQueueURL),
		DeadLetters:       sqsqueue.NewDeadLetters(queues, s.WorkDeadLetterQueueURL),
		StreamDeadLetters: sqsqueue.NewDeadLetters(queues, s.StreamDeadLetterQueueURL),
		Sender:            sender, Tracer: tracer, Log: log, CacheTime: dispatch.CacheTime, RetentionDays: s.RetentionDays,
	}), nil
}
