// Package lambdaclient calls other functions of the stack through the Lambda API. It
// promises to tell a function's own refusal, in the function's words, from a call
// that did not get through.
package lambdaclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/lambda"
)

// Client is the part of *lambda.Client that calls.
type Client interface {
	Invoke(context.Context, *lambda.InvokeInput, ...func(*lambda.Options)) (*lambda.InvokeOutput, error)
}

// Function returns a call of one function: it sends the payload as JSON, waits,
// and reads the answer into what it is given.
func Function(client Client, name string) func(ctx context.Context, payload, answer any) error {
	return func(ctx context.Context, payload, answer any) error {
		text, err := json.Marshal(payload)
		if err != nil {
			return err
		}
		out, err := client.Invoke(ctx, &lambda.InvokeInput{FunctionName: &name, Payload: text})
		if err != nil {
			return fmt.Errorf("call function %s: %w", name, err)
		}
		if out.FunctionError != nil {
			var failure struct {
				Message string `json:"errorMessage"`
			}
			if json.Unmarshal(out.Payload, &failure) == nil && failure.Message != "" {
				return errors.New(failure.Message)
			}
			return fmt.Errorf("function %s failed", name)
		}
		if err := json.Unmarshal(out.Payload, answer); err != nil {
			return fmt.Errorf("answer of function %s: %w", name, err)
		}
		return nil
	}
}
