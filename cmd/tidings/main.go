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
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/pkg/aws/awsconfig"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/local"
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

// app holds the global flags and the streams that all commands share. What is printed
// goes through a screen.
type app struct {
	out, err io.Writer
	in       io.Reader
	json     bool
	stack    string
	stateDir string
	tenant   string
	limits   awsconfig.Limits // of requests to AWS and the local runner
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run runs one command line and returns its exit code.
func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	return (&app{in: in, out: out, err: errOut, limits: awsconfig.InCommands}).run(ctx, args)
}

func (a *app) run(ctx context.Context, args []string) int {
	a.out, a.err = newScreen(a.out), newScreen(a.err)
	root := a.command()
	root.SetArgs(args)
	root.SetOut(a.out)
	root.SetErr(a.err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if errors.Is(err, errReported) {
		return exitFailed // the printed report is the error message
	}
	fmt.Fprintln(a.err, "tidings:", err)
	if errors.As(err, new(usageError)) {
		fmt.Fprintln(a.err, "tidings: run `tidings COMMAND --help` for usage")
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
	root.AddCommand(a.localCommand(), a.endpointCommand(), a.emitCommand(), a.deliveryCommand(), a.circuitCommand(), a.redriveCommand(), a.captureCommand(), a.eventCommand(), a.explainCommand(), a.recoverCommand(), a.eraseCommand(), a.jobCommand(), a.typeCommand(), a.testCommand(),
		a.consoleCommand(), a.playCommand(), a.smokeCommand(), a.loadCommand(), a.statusCommand(), a.alertCommand(), a.doctorCommand())
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
	store  *dynamo.Store // nil from connectFunctions if the local runner has none
	db     *dynamodb.Client
	tables dynamo.Tables
	lambda *lambda.Client
	config aws.Config        // of AWS; zero for the local runner
	prefix string            // prefix of the function names
	urls   map[string]string // function URLs by function; nil for a deployed stack
}

// connect connects to the functions and the store.
func (a *app) connect(ctx context.Context) (*target, error) {
	t, err := a.connectFunctions(ctx)
	if err == nil && t.store == nil {
		return nil, errors.New("the local runner uses the in-memory store (--memory); this command needs a runner with DynamoDB")
	}
	return t, err
}

// connectFunctions is connect for commands that use the functions only.
func (a *app) connectFunctions(ctx context.Context) (*target, error) {
	if a.stack != "" {
		cfg, err := awsconfig.Load(ctx, a.limits)
		if err != nil {
			return nil, err
		}
		t := &target{lambda: lambda.NewFromConfig(cfg), config: cfg, prefix: a.stack + "-"}
		t.use(dynamodb.NewFromConfig(cfg), local.Tables(a.stack))
		return t, nil
	}
	info, err := local.ReadRunnerInfo(a.stateDir)
	if err != nil {
		return nil, fmt.Errorf("no local runner found in %s: start one with `make run`, or name a deployed stack with --stack", a.stateDir)
	}
	cfg := info.Config()
	a.limits.Apply(&cfg)
	t := &target{
		lambda: lambda.NewFromConfig(cfg, func(o *lambda.Options) { o.BaseEndpoint = aws.String(info.InvokeURL) }),
		prefix: info.Stack + "-", urls: info.URLs,
	}
	if info.DynamoURL != "" {
		t.use(dynamodb.NewFromConfig(cfg, func(o *dynamodb.Options) { o.BaseEndpoint = &info.DynamoURL }), local.Tables(info.Stack))
	}
	return t, nil
}

// use makes the tables the target's store.
func (t *target) use(db *dynamodb.Client, tables dynamo.Tables) {
	t.db, t.tables, t.store = db, tables, dynamo.New(db, tables)
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
