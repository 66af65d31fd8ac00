package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	lambdatypes "github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
)

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Check what a deployed stack lacks for production", Args: args(0, "no arguments"),
		Long: `Check a deployed stack for what production needs: tables that are protected from
deletion and have point-in-time recovery, a key of its own for the signing secrets,
somebody who receives the alarms, a limit for each public URL, and the account's quota
of concurrent executions. If webhooks are sent from a VPC, it also checks that their
source addresses are published. It changes nothing.

Exit codes: 0 nothing is missing, 1 something is or could not be checked, 2 usage error.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if a.stack == "" {
				return usagef("tidings doctor needs --stack: the local runner is not for production")
			}
			t, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			d, err := t.examine(c.Context())
			if err != nil {
				return err
			}
			checks := d.checks()
			if a.json {
				err = a.printJSON(checks)
			} else {
				for _, one := range checks {
					mark := "✓"
					if !one.OK {
						mark = "✗"
					}
					fmt.Fprintf(a.out, "%s %s: %s\n", mark, one.Name, one.Detail)
				}
			}
			if err == nil && slices.ContainsFunc(checks, func(one check) bool { return !one.OK }) {
				return errReported
			}
			return err
		},
	}
}

// check is one line of the report.
type check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"` // what was found, and what to do about it
}

// deploymentFacts is what AWS says about a stack, as far as production depends on it.
type deploymentFacts struct {
	Unprotected, WithoutRecovery []string // tables
	OwnKey                       bool     // the endpoints' secrets have a key of the customer
	Recipients                   int      // confirmed subscriptions of the alarm topic
	AlertSecret                  string   // of health; "" without Slack and heartbeat
	Unlimited                    []string // functions with a public URL and no reserved concurrency
	Quota                        int      // concurrent executions of the account
	InVPC                        bool     // webhooks are sent from a VPC
	SourceAddresses              string   // that the console publishes
}

// wantedQuota is Lambda's usual quota; new accounts can have 10.
const wantedQuota = 1000

// checks decides what is missing.
func (f deploymentFacts) checks() []check {
	list := func(name string, missing []string, good, bad string) check {
		if len(missing) == 0 {
			return check{name, true, good}
		}
		return check{name, false, strings.Join(missing, ", ") + ": " + bad}
	}
	simple := func(name string, ok bool, good, bad string) check {
		if ok {
			return check{name, true, good}
		}
		return check{name, false, bad}
	}
	checks := []check{
		list("deletion protection", f.Unprotected, "on for all tables", "deploy with DeletionProtection=true"),
		list("point-in-time recovery", f.WithoutRecovery, "on for all tables", "off, although the template turns it on: deploy again"),
		simple("key of the signing secrets", f.OwnKey, "a key of your own", "the key that AWS manages, whose policy you cannot change: deploy with SecretsKeyArn=create, for $1 a month, or the ARN of a key"),
		simple("recipient of alarms", f.Recipients > 0, fmt.Sprintf("%d confirmed", f.Recipients), "nobody: deploy with AlarmEmail, and confirm the email that AWS sends, or subscribe to the topic"),
		simple("Slack and heartbeat", f.AlertSecret != "", "URLs in the secret "+f.AlertSecret, "off: deploy with AlertSecret (docs/monitoring.md)"),
		list("limits of public URLs", f.Unlimited, "reserved concurrency", "can use up the account's concurrency: deploy with UrlConcurrency=10"),
		simple("quota of concurrent executions", f.Quota >= wantedQuota, fmt.Sprint(f.Quota), fmt.Sprintf("%d: request %d in Service Quotas, which is free", f.Quota, wantedQuota)),
	}
	if f.InVPC {
		checks = append(checks, simple("source addresses", f.SourceAddresses != "", f.SourceAddresses, "webhooks are sent from a VPC, and the console publishes no addresses of it: deploy with SourceAddresses (docs/deploying.md)"))
	}
	return checks
}

// urlFunctions are the functions whose URLs people call.
var urlFunctions = []string{"console", "health", "test-webhook"}

// examine asks AWS about the stack.
func (t *target) examine(ctx context.Context) (f deploymentFacts, err error) {
	tables, keys := t.tables, map[string]string{}
	for _, name := range []string{tables.Events, tables.Deliveries, tables.Endpoints, tables.Control, tables.Platform, tables.Discussions} {
		out, err := t.db.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &name})
		if err != nil {
			return f, fmt.Errorf("table %s: %w", name, err)
		}
		if sse := out.Table.SSEDescription; sse != nil {
			keys[name] = aws.ToString(sse.KMSMasterKeyArn)
		}
		if !aws.ToBool(out.Table.DeletionProtectionEnabled) {
			f.Unprotected = append(f.Unprotected, name)
		}
		backups, err := t.db.DescribeContinuousBackups(ctx, &dynamodb.DescribeContinuousBackupsInput{TableName: &name})
		if err != nil {
			return f, fmt.Errorf("backups of %s: %w", name, err)
		}
		if d := backups.ContinuousBackupsDescription; d == nil || d.PointInTimeRecoveryDescription == nil || d.PointInTimeRecoveryDescription.PointInTimeRecoveryStatus != types.PointInTimeRecoveryStatusEnabled {
			f.WithoutRecovery = append(f.WithoutRecovery, name)
		}
	}
	// The other tables have the key that AWS manages.
	f.OwnKey = keys[tables.Endpoints] != keys[tables.Events]
	live := map[string]*lambda.GetFunctionConfigurationOutput{}
	for _, function := range []string{"health", "dispatch", "console"} {
		out, err := t.lambda.GetFunctionConfiguration(ctx, &lambda.GetFunctionConfigurationInput{FunctionName: aws.String(t.prefix + function), Qualifier: aws.String(samtemplate.Alias)})
		if err != nil {
			return f, fmt.Errorf("configuration of %s: %w", function, err)
		}
		if out.Environment == nil {
			out.Environment = &lambdatypes.EnvironmentResponse{}
		}
		live[function] = out
	}
	variables := live["health"].Environment.Variables
	f.AlertSecret = variables["ALERT_SECRET"]
	f.SourceAddresses = live["console"].Environment.Variables["SOURCE_ADDRESSES"]
	if vpc := live["dispatch"].VpcConfig; vpc != nil {
		f.InVPC = len(vpc.SubnetIds) > 0
	}
	pages := sns.NewListSubscriptionsByTopicPaginator(sns.NewFromConfig(t.config), &sns.ListSubscriptionsByTopicInput{TopicArn: aws.String(variables["ALARM_TOPIC_ARN"])})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return f, fmt.Errorf("subscriptions of the alarm topic: %w", err)
		}
		for _, s := range page.Subscriptions {
			if strings.HasPrefix(aws.ToString(s.SubscriptionArn), "arn:") { // not PendingConfirmation
				f.Recipients++
			}
		}
	}
	for _, function := range urlFunctions {
		out, err := t.lambda.GetFunctionConcurrency(ctx, &lambda.GetFunctionConcurrencyInput{FunctionName: aws.String(t.prefix + function)})
		if err != nil {
			return f, fmt.Errorf("concurrency of %s: %w", function, err)
		}
		if out.ReservedConcurrentExecutions == nil {
			f.Unlimited = append(f.Unlimited, t.prefix+function)
		}
	}
	account, err := t.lambda.GetAccountSettings(ctx, &lambda.GetAccountSettingsInput{})
	if err != nil {
		return f, fmt.Errorf("settings of the account: %w", err)
	}
	if account.AccountLimit != nil {
		f.Quota = int(account.AccountLimit.ConcurrentExecutions)
	}
	return f, nil
}
