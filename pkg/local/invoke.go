// Package local runs the deployed functions on one machine: the same handlers,
// called with the events that Lambda would call them with. Triggers and schedules
// come from the template. It promises Lambda's own rules of delivery, as far as
// handlers can tell: streams in order and at least once, with the checkpoint at
// the first failure; queue messages hidden while they are worked on; functions
// ended at their timeout; a panic that ends one invocation and nothing else.
package local

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambda/messages"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/google/uuid"

	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
	"github.com/tidings-dev/tidings/pkg/ops/tracing"
)

// Function is a handler with what the template says of it.
type Function struct {
	samtemplate.Function
	ARN string
	// Handle is what lambda.NewHandler takes.
	Handle any
	Log    *slog.Logger
	// Traced says that invocations' traces are sampled.
	Traced bool

	mu   sync.Mutex
	idle []lambda.Handler
}

// environment returns a handler that serves nobody else. As on Lambda, an
// execution environment works on one invocation at a time: aws-lambda-go writes
// every answer of a handler into one buffer.
func (f *Function) environment() lambda.Handler {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.idle); n > 0 {
		h := f.idle[n-1]
		f.idle = f.idle[:n-1]
		return h
	}
	return lambda.NewHandler(f.Handle)
}

func (f *Function) rest(h lambda.Handler) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.idle = append(f.idle, h)
}

// Failure is what Lambda answers when a function fails.
type Failure struct {
	Message string `json:"errorMessage"`
	Type    string `json:"errorType"`
}

func (f *Failure) Error() string { return f.Message }

// trace returns the header of an invocation's trace, as Lambda makes one: that of
// the caller goes on, whoever has none gets a fresh one.
func (f *Function) trace(ctx context.Context) string {
	h, ok := tracing.Parse(tracing.FromContext(ctx))
	if !ok {
		h.Root = "1-" + digits(8, uint64(time.Now().Unix())) + "-" + digits(8, rand.Uint64()) + digits(16, rand.Uint64())
		h.Sampled = f.Traced
	}
	h.Parent = digits(16, rand.Uint64()) // the segment that Lambda itself would record
	return h.String()
}

// digits returns the last n hexadecimal digits of a number.
func digits(n int, of uint64) string {
	var text [16]byte
	for i := range text {
		text[i] = "0123456789abcdef"[of>>(60-4*i)&0xf]
	}
	return string(text[len(text)-n:])
}

// Invoke calls the handler as Lambda does. A function that fails, panics or runs
// past its timeout gives a *Failure.
func (f *Function) Invoke(ctx context.Context, payload []byte) (answer []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, f.Timeout)
	defer cancel()
	id := uuid.NewString()
	ctx = tracing.WithHeader(ctx, f.trace(ctx))
	ctx = lambdacontext.NewContext(ctx, &lambdacontext.LambdaContext{AwsRequestID: id, InvokedFunctionArn: f.ARN})
	defer func() {
		if p := recover(); p != nil {
			f.Log.Error("function panicked", "function", f.Folder, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			answer, err = nil, &Failure{Message: fmt.Sprint(p), Type: "Runtime.Panic"}
		}
	}()
	environment := f.environment()
	answer, err = environment.Invoke(ctx, payload)
	answer = bytes.Clone(answer)
	f.rest(environment) // after a panic, its environment is not used again
	switch failed := err.(type) {
	case nil:
	case messages.InvokeResponse_Error:
		err = &Failure{Message: failed.Message, Type: failed.Type}
	default:
		err = &Failure{Message: failed.Error(), Type: fmt.Sprintf("%T", failed)}
	}
	if ctx.Err() == context.DeadlineExceeded {
		err = &Failure{Message: fmt.Sprintf("%s %s Task timed out after %.2f seconds", time.Now().UTC().Format(time.RFC3339), id, f.Timeout.Seconds()), Type: "Sandbox.Timedout"}
	}
	return answer, err
}

// call marshals an event, invokes the function and reads its answer.
func (f *Function) call(ctx context.Context, event, answer any) error {
	payload, err := json.Marshal(event)
	if err != nil {
		return fmt.Errorf("event for %s: %w", f.Folder, err)
	}
	return f.hand(ctx, payload, answer)
}

// hand invokes the function with a payload and reads its answer.
func (f *Function) hand(ctx context.Context, payload []byte, answer any) error {
	text, err := f.Invoke(ctx, payload)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("answer of %s: %w", f.Folder, err)
	}
	return nil
}
