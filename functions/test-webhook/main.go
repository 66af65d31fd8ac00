// The test-webhook function: one signed sample, sent now. See pkg/testwebhook.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/tidings-dev/tidings/pkg/assemble"
	"github.com/tidings-dev/tidings/pkg/destinations"
)

func main() { lambda.Start(assemble.Deployed(assemble.TestWebhook, destinations.Deployed)) }
