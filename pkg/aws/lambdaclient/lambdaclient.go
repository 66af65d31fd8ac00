// Package lambdaclient invokes other functions of the stack through the Lambda API. It
// returns a function's own error with the function's message and nothing added; errors
// of the call itself name the function.
package lambdaclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/lambda"
)

// Client is the part of *lambda.Client that this package uses.
type Client interface {
	Invoke(context.Context, *lambda.InvokeInput, ...func(*lambda.Options)) (*lambda.InvokeOutput, error)
}

// Function returns a func that invokes one function synchronously, with the payload as
// JSON, and decodes the response into a pointer.
func Function(client Client, name string) func(ctx context.Context, payload, response any) error {
	return func(ctx context.Context, payload, response any) error {
		text, err := json.Marshal(payload)
		if err != nil {
			return err
		}
		out, err := client.Invoke(ctx, &lambda.InvokeInput{FunctionName: &name, Payload: text})
		if err != nil {
			return fmt.Errorf("invoke function %s: %w", name, err)
		}
		if out.FunctionError != nil {
			var failure struct {
				Message string `json:"errorMessage"`
			}
			if json.Unmarshal(out.Payload, &failure) == nil && failure.Message != "" {
				return errors.New(failure.Message)
			}
			return fmt.Errorf("function %s failed without a message", name)
		}
		if err := json.Unmarshal(out.Payload, response); err != nil {
			return fmt.Errorf("decode the response of function %s: %w", name, err)
		}
		return nil
	}
}
