// Package lambdamain is what the main functions of all Lambda functions share:
// settings from the environment, AWS configuration, logger, garbage collector
// settings and the encoding of answers. It links no AWS client, so that each main
// links only the clients that it uses.
package lambdamain

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	stdlog "log"
	"log/slog"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/caarlos0/env/v11"

	"github.com/tidings-dev/tidings/pkg/aws/awsconfig"
)

// Handler handles one invocation's payload. It implements lambda.Handler directly:
// lambda.NewHandler would decode and encode every payload once more by reflection.
type Handler func(context.Context, json.RawMessage) (any, error)

// Invoke encodes the handler's answer as JSON. It does not escape <, > and &, which
// would only make answers longer.
func (h Handler) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	answer, err := h(ctx, payload)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(answer); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// Parse reads settings from environment variables, by the fields' env tags.
func Parse[T any](environment map[string]string) (T, error) {
	settings, err := env.ParseAsWithOptions[T](env.Options{Environment: environment})
	if err != nil {
		return settings, fmt.Errorf("environment: %w", err)
	}
	return settings, nil
}

// Build builds a function's handler when its process starts. It makes clients but
// connects none, so that a cold start waits for nothing that it may not need.
type Build[T any] func(settings T, access aws.Config, log *slog.Logger) (Handler, error)

// Start builds the handler and serves invocations until Lambda ends the process. If
// building fails, it logs the reason and exits with status 1, which Lambda reports at
// the first invocation.
func Start[T any](build Build[T]) {
	stdlog.SetOutput(&boundedLog{out: os.Stderr, now: time.Now})
	log := lambdacontext.NewLogger()
	if err := build.serve(log, func(h Handler) { lambda.Start(h) }); err != nil {
		log.Error("function cannot start", "error", err.Error())
		os.Exit(1)
	}
}

// serve builds the handler and passes it to start.
func (build Build[T]) serve(log *slog.Logger, start func(Handler)) error {
	if memory, err := strconv.Atoi(os.Getenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")); err == nil {
		SpareCollector(memory)
	}
	handler, err := build.handler(log)
	if err != nil {
		return err
	}
	start(handler)
	return nil
}

func (build Build[T]) handler(log *slog.Logger) (Handler, error) {
	settings, err := Parse[T](env.ToMap(os.Environ()))
	if err != nil {
		return nil, err
	}
	access, err := awsconfig.Load(context.Background(), awsconfig.InFunctions)
	if err != nil {
		return nil, err
	}
	return build(settings, access, log)
}

// SpareCollector makes the garbage collector run less often, since a function pays
// for its memory (in MB) whether it uses it or not: GOGC is 400, and the soft memory
// limit is three quarters of the memory. GOGC and GOMEMLIMIT in the environment take
// precedence.
func SpareCollector(memory int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(memory) << 20 / 4 * 3)
	}
}
