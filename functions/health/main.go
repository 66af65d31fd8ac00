// The health function: how the deployment is, and alerts. See pkg/ops/health and
// pkg/ops/alert.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/tidings-dev/tidings/pkg/assemble"
)

func main() { lambda.Start(assemble.Deployed(assemble.Health, nil)) }
