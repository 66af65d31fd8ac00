// The test-webhook function: one signed sample, sent now. See pkg/testsend.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/tidings-dev/tidings/pkg/assemble"
	"github.com/tidings-dev/tidings/pkg/destination/builtin"
)

func main() { lambda.Start(assemble.Deployed(assemble.TestWebhook, builtin.Deployed)) }
