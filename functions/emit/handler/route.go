package handler

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/aws/aws-lambda-go/lambdacontext"

	"github.com/tidings-dev/tidings/pkg/aws/functionurl"
	"github.com/tidings-dev/tidings/pkg/aws/lambdaevent"
	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// Route returns the Lambda function: capture for the stream of the platform's table,
// HTTP for the function URL, and events by direct invocation.
func Route(em *emit.Emitter) func(context.Context, json.RawMessage) (any, error) {
	serve := functionurl.Handler(em)
	return func(ctx context.Context, payload json.RawMessage) (any, error) {
		kind, err := lambdaevent.Of(payload)
		if err != nil {
			return nil, &emit.Error{Code: emit.MalformedJSON, Message: err.Error()}
		}
		if lc, ok := lambdacontext.FromContext(ctx); ok {
			ctx = emit.WithRequestID(ctx, lc.AwsRequestID)
		}
		switch kind {
		case lambdaevent.FunctionURL:
			return serve(ctx, payload)
		case lambdaevent.Stream:
			batch, err := dynamoitem.ReadChanges(payload)
			if err != nil {
				return nil, err
			}
			return lambdaevent.Failed(em.Capture(ctx, batch)), nil
		case lambdaevent.Direct:
			return em.Invoke(ctx, payload)
		}
		return nil, fmt.Errorf("emit does not serve a %s", kind)
	}
}
