package handler

import (
	"bytes"
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
// HTTP for the function URL, and events or {"action":"recapture","ids":[…]} by direct
// invocation.
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
			if ids, ok, err := recapture(payload); ok {
				if err != nil {
					return nil, err
				}
				results, err := em.Recapture(ctx, ids, dynamoitem.ReadChange)
				return map[string][]emit.Recaptured{"results": results}, err
			}
			return em.Invoke(ctx, payload)
		}
		return nil, fmt.Errorf("emit does not serve a %s", kind)
	}
}

// recapture reads the command to capture failed changes again. ok is false if the payload
// has no action, as events do not.
func recapture(payload []byte) (ids []string, ok bool, err error) {
	if !bytes.Contains(payload, []byte(`"action"`)) { // so that large lists are not parsed twice
		return nil, false, nil
	}
	var command struct {
		Action string   `json:"action"`
		IDs    []string `json:"ids"`
	}
	if err := json.Unmarshal(payload, &command); command.Action == "" {
		return nil, false, nil // emit says what is wrong with it
	} else if err != nil {
		return nil, true, &emit.Error{Code: emit.MalformedJSON, Message: "command: " + err.Error()}
	}
	if command.Action != "recapture" {
		return nil, true, &emit.Error{Code: emit.InvalidField, Field: "action", Message: fmt.Sprintf("action %.64q is unknown; the only one is recapture", command.Action)}
	}
	return command.IDs, true, nil
}
