package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/pkg/ops/alert"
)

func (a *app) alertCommand() *cobra.Command {
	c := &cobra.Command{Use: "alert", Short: "Test the channels of alerts"}
	c.AddCommand(a.alertTest())
	return c
}

func (a *app) alertTest() *cobra.Command {
	return &cobra.Command{
		Use: "test", Short: "Send a test message to Slack and email, and call the heartbeat URL",
		Long: `Send a test message to every configured channel (Slack, email) and call the
heartbeat URL, now and whatever the state of the deployment. The message says that
it is a test. "sent" means that the service accepted the message; AWS sends email
only to addresses that have confirmed their subscription.

Exit codes: 0 every channel accepted it, 1 a channel did not, 2 usage error.`,
		Args: args(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			t, err := a.connectFunctions(c.Context())
			if err != nil {
				return err
			}
			var list []alert.Tested
			if err := t.invoke(c.Context(), "health", map[string]any{"action": "test_alerts"}, &list); err != nil {
				return err
			}
			if a.json {
				err = a.printJSON(list)
			} else {
				err = a.table("CHANNEL\tRESULT", func(row func(...any)) {
					for _, channel := range list {
						result := "sent"
						if !channel.Sent {
							result = "not sent: " + channel.Error
						}
						row(channel.Channel, result)
					}
				})
			}
			if err != nil {
				return err
			}
			for _, channel := range list {
				if !channel.Sent {
					return errReported
				}
			}
			if len(list) == 1 && !a.json {
				fmt.Fprintln(a.out, "Slack and heartbeat are off: docs/monitoring.md says how to set them up.")
			}
			return nil
		},
	}
}
