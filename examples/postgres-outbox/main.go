// Command postgres-outbox relays the rows of a PostgreSQL outbox table to Tidings'
// emit function. Each committed row becomes exactly one event, even after crashes: the
// relay marks a row as sent after emit has accepted it, and the row's id is the
// idempotency key. Several relays can run concurrently.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"github.com/tidings-dev/tidings/pkg/aws/lambdaclient"
)

func main() {
	database := flag.String("database", os.Getenv("DATABASE_URL"), "URL of the PostgreSQL database")
	function := flag.String("function", "tidings-emit:live", "name of the emit function; set AWS_ENDPOINT_URL_LAMBDA for a local runner")
	source := flag.String("source", "outbox", "prefix of the idempotency keys; use a different one for each database")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewJSONHandler(os.Stdout, nil))
	if err := run(ctx, *database, *function, *source, log); err != nil && !errors.Is(err, context.Canceled) {
		log.Error("relay stopped", "error", err.Error())
		os.Exit(1)
	}
}

func run(ctx context.Context, database, function, source string, log *slog.Logger) error {
	if database == "" {
		return errors.New("no database: pass --database or set DATABASE_URL")
	}
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return fmt.Errorf("AWS configuration: %w", err)
	}
	call := lambdaclient.Function(lambda.NewFromConfig(cfg), function)
	relay := &Relay{Database: database, Source: source, Log: log, Emit: func(ctx context.Context, list []Event) ([]Result, error) {
		var answer struct{ Results []Result }
		err := call(ctx, map[string][]Event{"events": list}, &answer)
		return answer.Results, err
	}}
	return relay.Run(ctx)
}
