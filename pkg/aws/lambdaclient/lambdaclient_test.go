package lambdaclient_test

import (
	"context"
	"errors"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"github.com/tidings-dev/tidings/pkg/aws/lambdaclient"
)

// client responds to each invocation with the same output or error.
type client struct {
	output lambda.InvokeOutput
	err    error
	sent   *lambda.InvokeInput
}

func (c *client) Invoke(_ context.Context, in *lambda.InvokeInput, _ ...func(*lambda.Options)) (*lambda.InvokeOutput, error) {
	c.sent = in
	return &c.output, c.err
}

func TestFunctionDecodesTheResponse(t *testing.T) {
	c := &client{output: lambda.InvokeOutput{Payload: []byte(`{"queued":3}`)}}
	var got struct{ Queued int }
	if err := lambdaclient.Function(c, "dispatch")(t.Context(), map[string]string{"action": "sweep"}, &got); err != nil || got.Queued != 3 {
		t.Errorf("response %+v, error %v", got, err)
	}
	if *c.sent.FunctionName != "dispatch" || string(c.sent.Payload) != `{"action":"sweep"}` {
		t.Errorf("invoked %s with %s", *c.sent.FunctionName, c.sent.Payload)
	}
}

func TestErrors(t *testing.T) {
	for name, c := range map[string]struct {
		client client
		want   string
	}{
		"the call fails":                       {client{err: errors.New("throttled")}, "invoke function dispatch: throttled"},
		"the function returns an error":        {client{output: lambda.InvokeOutput{FunctionError: aws.String("Unhandled"), Payload: []byte(`{"errorMessage":"endpoint ep_1 does not exist"}`)}}, "endpoint ep_1 does not exist"},
		"the function fails without a message": {client{output: lambda.InvokeOutput{FunctionError: aws.String("Unhandled")}}, "function dispatch failed without a message"},
		"the response is not JSON":             {client{output: lambda.InvokeOutput{Payload: []byte(`{`)}}, "decode the response of function dispatch: unexpected end of JSON input"},
	} {
		t.Run(name, func(t *testing.T) {
			var got any
			if err := lambdaclient.Function(&c.client, "dispatch")(t.Context(), nil, &got); err == nil || err.Error() != c.want {
				t.Errorf("error %v, want %s", err, c.want)
			}
		})
	}
}
