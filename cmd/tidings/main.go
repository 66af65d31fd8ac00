// Command tidings is the operator's tool and the local runner: it adds
// endpoints, emits events, looks at deliveries and replays them, on a runner on
// this machine or on a stack in AWS.
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

// usageError is a mistake in the command's words.
type usageError struct{ error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// app is what all commands share.
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
		return exitFailed // the report has said it
	}
	fmt.Fprintln(errOut, "tidings:", err)
	if errors.As(err, new(usageError)) {
		fmt.Fprintln(errOut, "tidings: `tidings --help` and `tidings COMMAND --help` say how")
		return exitUsage
	}
	return exitFailed
}

func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "tidings",
		Short: "Deliver a community platform's events as signed webhooks",
		Long: `Tidings delivers a community platform's events as signed webhooks.

Without --stack, commands talk to the runner that "tidings local" started in this
folder; with it, to a deployed stack, with the AWS credentials of the environment.

Exit codes: 0 done, 1 failed, 2 the command's words are wrong.`,
		Version: version, SilenceErrors: true, SilenceUsage: true,
		RunE: func(c *cobra.Command, args []string) error { return c.Help() },
	}
	flags := root.PersistentFlags()
	flags.BoolVar(&a.json, "json", false, "print JSON for programs")
	flags.StringVar(&a.stack, "stack", "", "a deployed stack's name; without it, the local runner")
	flags.StringVar(&a.stateDir, "state-dir", ".tidings", "where the local runner keeps its state")
	flags.StringVar(&a.tenant, "tenant", event.DefaultTenant, "whose endpoints and events")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(a.localCommand(), a.endpointCommand(), a.emitCommand(), a.deliveryCommand(), a.circuitCommand(), a.redriveCommand(), a.eventsCommand(), a.testCommand(),
		a.consoleCommand(), a.playCommand())
	return root
}

// args checks the number of a command's arguments.
func args(n int, names string) cobra.PositionalArgs {
	return func(c *cobra.Command, given []string) error {
		if len(given) != n {
			return usage("%s takes %s", c.CommandPath(), names)
		}
		return nil
	}
}

// target is what commands talk to.
type target struct {
	store  *dynamo.Store
	lambda *lambda.Client
	prefix string            // of the functions' names
	urls   map[string]string // function URLs, by function; of a local runner
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
	note, err := local.ReadNote(a.stateDir)
	if err != nil {
		return nil, fmt.Errorf("no local runner has left a note in %s: start one here with `make run`, or name a deployed stack with --stack", a.stateDir)
	}
	if note.DynamoURL == "" {
		return nil, errors.New("the local runner keeps everything in its own memory (--memory); this command needs one on DynamoDB")
	}
	return &target{
		store:  dynamo.New(dynamoemulator.Client(note.DynamoURL), local.Tables(note.Stack)),
		lambda: lambda.NewFromConfig(dynamoemulator.Config(), func(o *lambda.Options) { o.BaseEndpoint = aws.String(note.InvokeURL) }),
		prefix: note.Stack + "-", urls: note.URLs,
	}, nil
}

// invoke calls a function and reads its answer.
func (t *target) invoke(ctx context.Context, function string, payload, answer any) error {
	// An event's data keeps its spelling: json.Marshal would write < as \u003c.
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

// unreachable says a refused connection in plain words.
func unreachable(err error) error {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return errors.New("the local runner does not answer: start it with `make run`")
	}
	return err
}
