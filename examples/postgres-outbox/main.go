// Command postgres-outbox relays the rows of a PostgreSQL outbox table to Tidings'
// emit function. Each committed row becomes exactly one event, even after crashes: the
// relay marks a row as sent after emit has accepted it, and the row's id is the
// idempotency key. Several relays can run concurrently. It can also close expired
// discussions on a schedule, and serve the endpoint with which Tidings' console lists,
// extends and closes them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"github.com/tidings-dev/tidings/pkg/aws/lambdaclient"
	"github.com/tidings-dev/tidings/pkg/platform/remote"
	"github.com/tidings-dev/tidings/pkg/signature"
)

func main() {
	database := flag.String("database", os.Getenv("DATABASE_URL"), "URL of the PostgreSQL database")
	function := flag.String("function", "tidings-emit:live", "name of the emit function; set AWS_ENDPOINT_URL_LAMBDA for a local runner")
	source := flag.String("source", "outbox", "prefix of the idempotency keys; use a different one for each database")
	closeEvery := flag.Duration("close-every", 0, "how often to close expired discussions; 0 if pg_cron does it")
	serve := flag.String("serve", "", "address to serve the console's endpoint for discussions on, such as 127.0.0.1:8090; it needs DISCUSSIONS_SECRET (whsec_…), and TLS in front of it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewJSONHandler(os.Stdout, nil))
	if err := operate(ctx, *database, *serve, os.Getenv("DISCUSSIONS_SECRET"), *closeEvery, log); err != nil {
		log.Error("discussions are not served", "error", err.Error())
		os.Exit(1)
	}
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

// operate closes expired discussions and serves the console's endpoint in the background,
// whichever is asked for.
func operate(ctx context.Context, database, address, secret string, closeEvery time.Duration, log *slog.Logger) error {
	store := Discussions{Database: database}
	if closeEvery > 0 {
		go func() {
			for tick := time.NewTicker(closeEvery); ; {
				if n, err := store.CloseExpired(ctx); err != nil {
					log.Error("discussions.not_closed", "error", err.Error())
				} else if n > 0 {
					log.Info("discussions.closed", "closed", n)
				}
				select {
				case <-tick.C:
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	if address == "" {
		return nil
	}
	key, err := signature.ParseSecret(secret)
	if err != nil {
		return errors.New("DISCUSSIONS_SECRET is not a signing secret (whsec_ and base64); it is the value in the stack's DiscussionsSecret")
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: &remote.Handler{
		Store: store, Secret: key, Now: time.Now, Failed: func(err error) { log.Error("discussions.failed", "error", err.Error()) },
	}}
	go func() {
		<-ctx.Done()
		_ = server.Close() // the process ends
	}()
	go func() { _ = server.Serve(listener) }() // ends with Close
	return nil
}
