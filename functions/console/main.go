// The console function is the web page and the API with which operators run Tidings.
// See pkg/console.
package main

import (
	"log/slog"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tidings-dev/tidings/functions/console/handler"
	"github.com/tidings-dev/tidings/pkg/aws/lambdaclient"
	"github.com/tidings-dev/tidings/pkg/aws/lambdamain"
	"github.com/tidings-dev/tidings/pkg/aws/secrets"
	"github.com/tidings-dev/tidings/pkg/destination/builtin"
	"github.com/tidings-dev/tidings/pkg/event/deployed"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
)

func main() { lambdamain.Start(build) }

func build(s handler.Settings, access aws.Config, log *slog.Logger) (lambdamain.Handler, error) {
	destinations, err := builtin.Open(s.Settings, builtin.Deployed(access))
	if err != nil {
		return nil, err
	}
	functions := lambda.NewFromConfig(access)
	return handler.New(s, handler.Backend{
		Store:       dynamo.New(dynamodb.NewFromConfig(access), s.Tables()),
		Check:       destinations.Check,
		Dispatch:    lambdaclient.Function(functions, s.DispatchFunction),
		TestWebhook: lambdaclient.Function(functions, s.TestFunction),
		Emit:        lambdaclient.Function(functions, s.EmitFunction),
		Secret:      secrets.Manager{Client: secretsmanager.NewFromConfig(access)}.Secret,
		Log:         log,
		CacheTime:   deployed.CacheTime,
	}), nil
}
