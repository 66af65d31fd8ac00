package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/pkg/admin"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/systemtest"
)

// systemTest returns the deployment to test. receiverURL is the test receiver's URL as
// dispatch can reach it; "" looks it up.
func (a *app) systemTest(ctx context.Context, receiverURL string) (s systemtest.Target, err error) {
	t, err := a.connect(ctx)
	if err != nil {
		return s, err
	}
	if receiverURL == "" {
		receiverURL, err = t.functionURL(ctx, "test-receiver")
		if missing := (*types.ResourceNotFoundException)(nil); errors.As(err, &missing) {
			return s, fmt.Errorf("stack %s has no test receiver: deploy it with the parameter TestReceiver=true", a.stack)
		}
		if err != nil {
			return s, unreachable(err)
		}
	}
	return systemtest.Target{
		Invoke: t.invoke, Deliveries: t.store, ReceiverURL: receiverURL, Now: time.Now,
		Endpoints: &admin.Endpoints{
			Store: t.store, Catalog: t.types(), Now: time.Now,
			// The URL is the deployment's own, and dispatch checks it at every attempt.
			Check: func(destination.Target) error { return nil },
		},
	}, nil
}

func (a *app) smokeCommand() *cobra.Command {
	var o systemtest.SmokeOptions
	var receiverURL string
	c := &cobra.Command{
		Use: "smoke", Short: "Test a deployment: emit an event, wait for its webhook, check the health", Args: args(0, "no arguments"),
		Long: `Test a deployment from end to end: emit one event, wait for the signed webhook at
the deployment's test receiver, check that the delivery is recorded, and wait until
the deployment is healthy. The stack needs the parameter TestReceiver=true; the
local runner has a test receiver.

The event belongs to a tenant of its own, so that no other endpoint gets it. The
endpoint is removed at the end, also after a failure or Ctrl-C.

Exit codes: 0 passed, 1 failed, 2 usage error.`,
		Example: `  tidings smoke
  tidings smoke --stack tidings-staging
  tidings smoke --stack tidings-prod --json`,
		RunE: func(c *cobra.Command, _ []string) error {
			target, err := a.systemTest(c.Context(), receiverURL)
			if err != nil {
				return err
			}
			if !a.json {
				o.Step = a.printStep
			}
			began := time.Now()
			report := target.Smoke(c.Context(), o)
			switch {
			case a.json:
				err = a.printJSON(report)
			case report.OK:
				fmt.Fprintf(a.out, "passed in %s\n", time.Since(began).Round(100*time.Millisecond))
			default:
				fmt.Fprintln(a.out, "failed")
			}
			if err == nil && !report.OK {
				err = errReported
			}
			return err
		},
	}
	f := c.Flags()
	f.DurationVar(&o.ReceiveTime, "receive-time", time.Minute, "maximum time until the webhook arrives")
	f.DurationVar(&o.HealthTime, "health-time", 3*time.Minute, "maximum time until the deployment is healthy; a new one needs its first sweep")
	f.StringVar(&receiverURL, "receiver-url", "", "URL of the test receiver, if dispatch reaches it by another one than the function's")
	return c
}

// printStep prints a step of a smoke test.
func (a *app) printStep(s systemtest.Step) {
	mark, text := paint(lipgloss.NewStyle().Foreground(lipgloss.Green), "✓"), s.Detail
	if !s.OK {
		mark, text = paint(lipgloss.NewStyle().Foreground(lipgloss.Red), "✗"), s.Error
	}
	fmt.Fprintf(a.out, "%s %9s  %-36s %s\n", mark, millis(s.Milliseconds), s.Name, text)
}
