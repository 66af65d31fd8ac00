// The emit function: what happened, into the Events table. See pkg/emit.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/tidings-dev/tidings/pkg/assemble"
)

func main() { lambda.Start(assemble.Deployed(assemble.Emit, nil)) }
