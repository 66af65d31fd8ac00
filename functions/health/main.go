// The health function: how the deployment is, and alerts. See pkg/health and
// pkg/alert.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/tidings-dev/tidings/pkg/assemble"
)

func main() { lambda.Start(assemble.Deployed(assemble.Health, nil)) }
