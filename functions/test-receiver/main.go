// The test-receiver function receives the webhooks of `tidings smoke` and `tidings
// load`. See pkg/systemtest/testreceiver.
package main

import (
	"log/slog"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/tidings-dev/tidings/functions/test-receiver/handler"
	"github.com/tidings-dev/tidings/pkg/aws/lambdamain"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
)

func main() { lambdamain.Start(build) }

func build(s handler.Settings, access aws.Config, log *slog.Logger) (lambdamain.Handler, error) {
	return handler.New(handler.Backend{Store: dynamo.New(dynamodb.NewFromConfig(access), s.Tables()), Log: log}), nil
}
