package handler

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/tidings-dev/tidings/pkg/aws/lambdaevent"
	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/store/dynamoitem"
)

// Route returns the Lambda function: fan-out for the stream of the Events table,
// delivery for the work queue, and commands for the schedule and direct invocations.
func Route(d *dispatch.Dispatcher) func(context.Context, json.RawMessage) (any, error) {
	return func(ctx context.Context, payload json.RawMessage) (any, error) {
		kind, err := lambdaevent.Of(payload)
		if err != nil {
			return nil, err
		}
		switch kind {
		case lambdaevent.Stream:
			batch, err := dynamoitem.ReadEvents(payload)
			if err != nil {
				return nil, err
			}
			return lambdaevent.Failed(d.FanOut(ctx, batch)), nil
		case lambdaevent.Queue:
			batch, err := lambdaevent.ReadQueue(payload)
			if err != nil {
				return nil, err
			}
			return lambdaevent.Failed(d.Deliver(ctx, batch)), nil
		case lambdaevent.Direct:
			var c dispatch.Command
			if err := json.Unmarshal(payload, &c); err != nil {
				return nil, fmt.Errorf("command: %w", err)
			}
			return d.Run(ctx, c)
		}
		return nil, fmt.Errorf("dispatch does not serve a %s", kind)
	}
}
