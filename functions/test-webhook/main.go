// The test-webhook function sends one signed sample event and reports what happened.
// See pkg/testsend.
package main

import (
	"log/slog"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/tidings-dev/tidings/functions/test-webhook/handler"
	"github.com/tidings-dev/tidings/pkg/aws/lambdamain"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/destination/builtin"
	"github.com/tidings-dev/tidings/pkg/event/deployed"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
)

func main() { lambdamain.Start(build) }

func build(s handler.Settings, access aws.Config, log *slog.Logger) (lambdamain.Handler, error) {
	return handler.New(handler.Backend{
		Store: dynamo.New(dynamodb.NewFromConfig(access), s.Tables()),
		Open:  func() (*destination.Router, error) { return builtin.Open(s.Settings, builtin.Deployed(access)) },
		Log:   log, CacheTime: deployed.CacheTime,
	})
}
