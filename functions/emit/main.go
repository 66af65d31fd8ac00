// The emit function accepts events: it validates them and writes them to the Events
// table. See pkg/emit.
package main

import (
	"log/slog"
	"os"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/tidings-dev/tidings/functions/emit/handler"
	"github.com/tidings-dev/tidings/pkg/aws/lambdamain"
	"github.com/tidings-dev/tidings/pkg/aws/sqsqueue"
	"github.com/tidings-dev/tidings/pkg/aws/xraytracing"
	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/event/deployed"
	"github.com/tidings-dev/tidings/pkg/ops/metrics"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
)

func main() { lambdamain.Start(build) }

func build(s handler.Settings, access aws.Config, log *slog.Logger) (lambdamain.Handler, error) {
	tracer, err := xraytracing.Open(os.Getenv("AWS_XRAY_DAEMON_ADDRESS"), s.TraceSampling)
	if err != nil {
		return nil, err
	}
	store := dynamo.New(dynamodb.NewFromConfig(access), s.Tables())
	var letters emit.Letters
	if s.DeadLetterQueueURL != "" {
		letters = sqsqueue.Letters{Client: sqs.NewFromConfig(access), URL: s.DeadLetterQueueURL}
	}
	return handler.New(handler.Backend{
		Store:      store,
		Statistics: metrics.Writer{Next: store, Out: os.Stdout, Stack: s.StackName, All: s.Metrics == "all", Level: os.Getenv("AWS_LAMBDA_LOG_LEVEL")},
		Tracer:     tracer, Log: log, CacheTime: deployed.CacheTime, RetentionDays: s.RetentionDays, PlatformTable: s.PlatformTable, Letters: letters,
	}), nil
}
