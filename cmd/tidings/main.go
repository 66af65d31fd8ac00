// Command tidings is the operator's CLI and the local runner. It manages
// endpoints, publishes events, and lists and replays deliveries, on a local runner
// or on a stack deployed in AWS.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/dynamoemulator"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
	"github.com/tidings-dev/tidings/pkg/store/dynamo"
)

// version is set by the build.
var version = "unknown"

// Exit codes.
const (
	exitFailed = 1
	exitUsage  = 2
)

// usageError is a mistake in the command line; it exits with code 2.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// app holds the global flags and the streams that all commands share.
type app struct {
	out, err io.Writer
	in       io.Reader
	json     bool
	stack    string
	stateDir string
	tenant   string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run runs one command line and returns its exit code.
func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	a := &app{in: in, out: out, err: errOut}
	root := a.command()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if errors.Is(err, errNotDelivered) {
		return exitFailed // the printed report is the error message
	}
	fmt.Fprintln(errOut, "tidings:", err)
	if errors.As(err, new(usageError)) {
		fmt.Fprintln(errOut, "tidings: run `tidings COMMAND --help` for usage")
		return exitUsage
	}
	return exitFailed
}

func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "tidings",
		Short: "Deliver a community platform's events as signed webhooks",
		Long: `Tidings delivers a community platform's events as signed webhooks.

Without --stack, commands use the local runner that "tidings local" started in the
current directory. With --stack, they use a deployed stack and the AWS credentials
of the environment.

Exit codes: 0 success, 1 failure, 2 usage error.`,
		Version: version, SilenceErrors: true, SilenceUsage: true,
		RunE: func(c *cobra.Command, args []string) error { return c.Help() },
	}
	flags := root.PersistentFlags()
	flags.BoolVar(&a.json, "json", false, "print JSON instead of text")
	flags.StringVar(&a.stack, "stack", "", "name of a deployed stack (default: the local runner)")
	flags.StringVar(&a.stateDir, "state-dir", ".tidings", "directory for the local runner's state")
	flags.StringVar(&a.tenant, "tenant", event.DefaultTenant, "tenant that owns the endpoints and events")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(a.localCommand(), a.endpointCommand(), a.emitCommand(), a.deliveryCommand(), a.circuitCommand(), a.redriveCommand(), a.eventsCommand(), a.testCommand(),
		a.consoleCommand(), a.playCommand())
	return root
}

// args requires exactly n positional arguments; names describes them in the error.
func args(n int, names string) cobra.PositionalArgs {
	return func(c *cobra.Command, given []string) error {
		if len(given) != n {
			return usagef("%s takes %s", c.CommandPath(), names)
		}
		return nil
	}
}

// target is the local runner or the deployed stack that a command talks to.
type target struct {
	store  *dynamo.Store
	lambda *lambda.Client
	prefix string            // prefix of the function names
	urls   map[string]string // function URLs by function; nil for a deployed stack
}

func (a *app) connect(ctx context.Context) (*target, error) {
	if a.stack != "" {
		cfg, err := config.LoadDefaultConfig(ctx)
		if err != nil {
			return nil, fmt.Errorf("AWS configuration: %w", err)
		}
		return &target{
			store: dynamo.New(dynamodb.NewFromConfig(cfg), local.Tables(a.stack)), lambda: lambda.NewFromConfig(cfg), prefix: a.stack + "-",
		}, nil
	}
	info, err := local.ReadRunnerInfo(a.stateDir)
	if err != nil {
		return nil, fmt.Errorf("no local runner found in %s: start one with `make run`, or name a deployed stack with --stack", a.stateDir)
	}
	if info.DynamoURL == "" {
		return nil, errors.New("the local runner uses the in-memory store (--memory); this command needs a runner with DynamoDB")
	}
	return &target{
		store:  dynamo.New(dynamoemulator.Client(info.DynamoURL), local.Tables(info.Stack)),
		lambda: lambda.NewFromConfig(dynamoemulator.Config(), func(o *lambda.Options) { o.BaseEndpoint = aws.String(info.InvokeURL) }),
		prefix: info.Stack + "-", urls: info.URLs,
	}, nil
}

// invoke calls a function and decodes its response into answer.
func (t *target) invoke(ctx context.Context, function string, payload, answer any) error {
	// json.Marshal would change event data: it escapes < as \u003c.
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(payload); err != nil {
		return err
	}
	out, err := t.lambda.Invoke(ctx, &lambda.InvokeInput{FunctionName: aws.String(t.prefix + function + ":" + samtemplate.Alias), Payload: text.Bytes()})
	if err != nil {
		return unreachable(err)
	}
	if out.FunctionError != nil {
		var failure local.Failure
		if json.Unmarshal(out.Payload, &failure) == nil && failure.Message != "" {
			return errors.New(failure.Message)
		}
		return fmt.Errorf("function %s failed", function)
	}
	return json.Unmarshal(out.Payload, answer)
}

// unreachable replaces a refused connection with how to start the runner.
func unreachable(err error) error {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return errors.New("the local runner is not running: start it with `make run`")
	}
	return err
}
