package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/pkg/aws/awsconfig"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/systemtest"
)

func (a *app) loadCommand() *cobra.Command {
	o := systemtest.LoadOptions{}
	var yes bool
	var seconds int
	var receiverURL string
	c := &cobra.Command{
		Use: "load", Short: "Test a deployment under load: emit events at a rate, measure what arrives", Args: args(0, "no arguments"),
		Long: `Test a deployment under load: emit events at a rate, wait for their webhooks at the
deployment's test receiver, and print how many were accepted, received, missing and
duplicated, the latency from acceptance to arrival, and what the events cost on AWS.
The stack needs the parameter TestReceiver=true; the local runner has a test
receiver.

The events belong to a tenant of their own, so that no other endpoint gets them, but
they use the deployment's concurrency and its account's quotas. A stack counts as
production if its tables are protected from deletion (DeletionProtection=true) or
its name has the word prod or production; it is tested only with --yes.

Ctrl-C stops the test, and prints the figures so far.

Exit codes: 0 all events arrived, 1 some did not, or the test was stopped,
2 usage error.`,
		Example: `  tidings load --rate 50 --seconds 60
  tidings load --stack tidings-staging --rate 50 --seconds 60 --json`,
		RunE: func(c *cobra.Command, _ []string) error {
			if o.Rate < 1 || o.Rate > systemtest.MaxRate {
				return usagef("--rate %d: must be 1 to %d events per second", o.Rate, systemtest.MaxRate)
			}
			o.Time = time.Duration(seconds) * time.Second
			if o.Time < time.Second || o.Time > systemtest.MaxTime || o.WaitTime < 0 || o.WaitTime > systemtest.MaxTime {
				return usagef("--seconds must be 1 to %.0f, and --wait-time at most %s", systemtest.MaxTime.Seconds(), systemtest.MaxTime)
			}
			if a.stack != "" && !yes {
				cfg, err := awsconfig.Load(c.Context(), a.limits)
				if err != nil {
					return err
				}
				if err := refuseProduction(c.Context(), dynamodb.NewFromConfig(cfg), a.stack); err != nil {
					return err
				}
			}
			target, err := a.systemTest(c.Context(), receiverURL)
			if err != nil {
				return err
			}
			if !a.json {
				o.Progress = func(r systemtest.LoadReport) { printProgress(a.err, r) }
			}
			report, failed := target.Load(c.Context(), o)
			if report.Run == "" {
				return unreachable(failed)
			}
			if a.json {
				err = a.printJSON(report)
			} else {
				err = a.printLoad(report)
			}
			switch {
			case err != nil:
				return err
			case failed != nil: // it is measured, but something is left behind
				return failed
			case !report.OK():
				return errReported
			}
			return nil
		},
	}
	f := c.Flags()
	f.IntVar(&o.Rate, "rate", 50, fmt.Sprintf("events per second, 1 to %d", systemtest.MaxRate))
	f.IntVar(&seconds, "seconds", 60, fmt.Sprintf("how long to emit events, 1 to %.0f", systemtest.MaxTime.Seconds()))
	f.DurationVar(&o.WaitTime, "wait-time", 2*time.Minute, "maximum time after the last event until all webhooks have arrived")
	f.BoolVar(&yes, "yes", false, "test a production stack, too")
	f.StringVar(&receiverURL, "receiver-url", "", "URL of the test receiver, if dispatch reaches it by another one than the function's")
	return c
}

// production matches names of production stacks.
var production = regexp.MustCompile(`(?i)(^|[^a-z])prod(uction)?([^a-z]|$)`)

// tables is the part of DynamoDB's client that tells whether a table is protected.
type tables interface {
	DescribeTable(context.Context, *dynamodb.DescribeTableInput, ...func(*dynamodb.Options)) (*dynamodb.DescribeTableOutput, error)
}

// refuseProduction returns an error for a production stack.
func refuseProduction(ctx context.Context, db tables, stack string) error {
	if production.MatchString(stack) {
		return fmt.Errorf("%s is a production stack by its name: add --yes to put load on it", stack)
	}
	out, err := db.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: aws.String(local.Tables(stack).Events)})
	if err != nil {
		return fmt.Errorf("find out whether %s is a production stack (--yes skips this): %w", stack, err)
	}
	if out.Table == nil {
		return errors.New("find out whether this is a production stack (--yes skips this): no table in the answer")
	}
	if aws.ToBool(out.Table.DeletionProtectionEnabled) {
		return fmt.Errorf("%s is a production stack, since its tables are protected from deletion: add --yes to put load on it", stack)
	}
	return nil
}

// printProgress overwrites the line with the figures so far.
func printProgress(out io.Writer, r systemtest.LoadReport) {
	fmt.Fprintf(out, "\r%5.0f s  emitted %d  accepted %d  received %d  p95 %s\x1b[K", r.Seconds, r.Emitted, r.Accepted, r.Received, millis(r.Latency.P95))
}

func (a *app) printLoad(r systemtest.LoadReport) error {
	fmt.Fprint(a.err, "\r\x1b[K") // the progress line
	what := fmt.Sprintf("%d events at %d/s in %.1f s", r.Emitted, r.Rate, r.Seconds)
	if r.Interrupted {
		what += ", stopped"
	}
	refused := ""
	if r.Refused > 0 {
		refused = fmt.Sprintf("%d  last error: %s", r.Refused, r.RefusedBecause)
	}
	unexpected := ""
	if r.Unexpected > 0 {
		unexpected = fmt.Sprintf("%d  received although emit had not answered", r.Unexpected)
	}
	return a.fields("run", r.Run, "emitted", what, "refused", refused, "accepted", fmt.Sprint(r.Accepted), "received", fmt.Sprint(r.Received),
		"missing", fmt.Sprint(r.Missing), "duplicated", fmt.Sprint(r.Duplicated), "unexpected", unexpected,
		"latency", fmt.Sprintf("p50 %s  p95 %s  p99 %s  max %s, from acceptance to arrival", millis(r.Latency.P50), millis(r.Latency.P95), millis(r.Latency.P99), millis(r.Latency.Max)),
		"cost on AWS", fmt.Sprintf("$%.4f at list prices", r.Dollars))
}
