// The close-discussions function: closes discussions whose time is over. See
// pkg/platform/discussions.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/tidings-dev/tidings/pkg/assemble"
)

func main() { lambda.Start(assemble.Deployed(assemble.CloseDiscussions, nil)) }
