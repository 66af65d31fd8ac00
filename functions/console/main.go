// The console function: the page from which people run Tidings. See pkg/console.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/aws"
	lambdaapi "github.com/aws/aws-sdk-go-v2/service/lambda"

	"github.com/tidings-dev/tidings/pkg/assemble"
	"github.com/tidings-dev/tidings/pkg/aws/lambdaclient"
	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/destination/builtin"
)

func main() { lambda.Start(assemble.Deployed(assemble.Console, builtin.Deployed, calls)) }

// calls lets the console call the stack's other functions.
func calls(c aws.Config, b *assemble.Backend) {
	client := lambdaapi.NewFromConfig(c)
	b.Invoke = func(name string) console.Invoke { return lambdaclient.Function(client, name) }
}
