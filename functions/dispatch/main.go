// The dispatch function: fan out, deliver, sweep and replay. See pkg/dispatch.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/tidings-dev/tidings/pkg/assemble"
	"github.com/tidings-dev/tidings/pkg/destination/builtin"
)

func main() { lambda.Start(assemble.Deployed(assemble.Dispatch, builtin.Deployed)) }
