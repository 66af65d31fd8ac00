package handler

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/aws/aws-lambda-go/lambdacontext"

	"github.com/tidings-dev/tidings/pkg/admin/capturerules"
	"github.com/tidings-dev/tidings/pkg/admin/capturerules/compile"
	"github.com/tidings-dev/tidings/pkg/admin/eventtypes"
	typecompile "github.com/tidings-dev/tidings/pkg/admin/eventtypes/compile"
	"github.com/tidings-dev/tidings/pkg/aws/functionurl"
	"github.com/tidings-dev/tidings/pkg/aws/lambdaevent"
	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// Route returns the Lambda function: capture for the stream of the platform's table,
// requests for the emit queue, HTTP for the function URL, and by direct invocation events, {"action":"recapture",
// "ids":[…]}, or for the console {"action":"check_rules","files":[{"path":…,"text":…}]} or
// {"action":"check_types","types":[{"text":…}]}.
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
		case lambdaevent.Queue:
			messages, err := lambdaevent.ReadQueue(payload)
			if err != nil {
				return nil, err
			}
			return lambdaevent.Failed(em.Receive(ctx, messages)), nil
		case lambdaevent.Direct:
			if c, ok, err := readCommand(payload); ok {
				if err != nil {
					return nil, err
				}
				return c.run(ctx, em)
			}
			return em.Invoke(ctx, payload)
		}
		return nil, fmt.Errorf("emit does not serve a %s", kind)
	}
}

// command is what emit does besides storing events.
type command struct {
	Action string                  `json:"action"`
	IDs    []string                `json:"ids"`   // for recapture
	Files  []capturerules.File     `json:"files"` // for check_rules
	Types  []eventtypes.Definition `json:"types"` // for check_types
}

// The actions of commands.
const (
	recapture  = "recapture"
	checkRules = "check_rules"
	checkTypes = "check_types"
)

// readCommand reads a command. ok is false if the payload has no action, as events do not.
func readCommand(payload []byte) (c command, ok bool, err error) {
	if !bytes.Contains(payload, []byte(`"action"`)) { // so that large lists are not parsed twice
		return c, false, nil
	}
	if err := json.Unmarshal(payload, &c); c.Action == "" {
		return c, false, nil // emit says what is wrong with it
	} else if err != nil {
		return c, true, &emit.Error{Code: emit.MalformedJSON, Message: "command: " + err.Error()}
	}
	if c.Action != recapture && c.Action != checkRules && c.Action != checkTypes {
		return c, true, &emit.Error{Code: emit.InvalidField, Field: "action", Message: fmt.Sprintf("action %.64q is unknown; there are %s, %s and %s", c.Action, recapture, checkRules, checkTypes)}
	}
	return c, true, nil
}

func (c command) run(ctx context.Context, em *emit.Emitter) (any, error) {
	switch c.Action {
	case checkRules:
		list, err := compile.Check(ctx, c.Files)
		if errors.Is(err, capturerules.ErrWrong) {
			return capturerules.Checked{Problems: err.Error()}, nil
		}
		return capturerules.Checked{Rules: list}, err
	case checkTypes:
		answer := eventtypes.Checked{Problems: []eventtypes.Problem{}}
		err := typecompile.Check(ctx, c.Types)
		var wrong *eventtypes.WrongError
		if errors.As(err, &wrong) {
			answer.Problems, err = wrong.Problems, nil
		}
		return answer, err
	}
	results, err := em.Recapture(ctx, c.IDs, dynamoitem.ReadChange)
	return map[string][]emit.Recaptured{"results": results}, err
}
