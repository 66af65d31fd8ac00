// Package local runs the deployed functions on one machine, with the triggers and
// schedules of the template. Handlers get the same events as on Lambda, with the same
// guarantees: streams in order and at least once, with the checkpoint at the first
// failure; queue messages invisible while they are processed; a timeout per function; a
// panic that fails one invocation only.
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

// Function is a handler with its settings from the template.
type Function struct {
	samtemplate.Function
	ARN string
	// Handle is a handler function for lambda.NewHandler.
	Handle any
	Log    *slog.Logger
	// Traced samples the traces of invocations.
	Traced bool

	mu   sync.Mutex
	idle []lambda.Handler
}

// acquire returns an idle or new handler. As in Lambda's execution environments, a
// handler runs one invocation at a time: aws-lambda-go writes all its responses to one
// buffer.
func (f *Function) acquire() lambda.Handler {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.idle); n > 0 {
		h := f.idle[n-1]
		f.idle = f.idle[:n-1]
		return h
	}
	return lambda.NewHandler(f.Handle)
}

func (f *Function) release(h lambda.Handler) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.idle = append(f.idle, h)
}

// Failure is Lambda's response for a failed function.
type Failure struct {
	Message string `json:"errorMessage"`
	Type    string `json:"errorType"`
}

func (f *Failure) Error() string { return f.Message }

// trace returns an invocation's X-Ray header, as Lambda does: the caller's trace, or a
// new one.
func (f *Function) trace(ctx context.Context) string {
	h, ok := tracing.Parse(tracing.FromContext(ctx))
	if !ok {
		h.Root = "1-" + digits(8, uint64(time.Now().Unix())) + "-" + digits(8, rand.Uint64()) + digits(16, rand.Uint64())
		h.Sampled = f.Traced
	}
	h.Parent = digits(16, rand.Uint64()) // the segment that Lambda would record
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

// Invoke calls the handler as Lambda does. It returns a *Failure if the function returns
// an error, panics or exceeds its timeout.
func (f *Function) Invoke(ctx context.Context, payload []byte) (response []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, f.Timeout)
	defer cancel()
	id := uuid.NewString()
	ctx = tracing.WithHeader(ctx, f.trace(ctx))
	ctx = lambdacontext.NewContext(ctx, &lambdacontext.LambdaContext{AwsRequestID: id, InvokedFunctionArn: f.ARN})
	defer func() {
		if p := recover(); p != nil {
			f.Log.Error("function panicked", "function", f.Folder, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			response, err = nil, &Failure{Message: fmt.Sprint(p), Type: "Runtime.Panic"}
		}
	}()
	environment := f.acquire()
	response, err = environment.Invoke(ctx, payload)
	response = bytes.Clone(response)
	f.release(environment) // a handler that panicked is not reused
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
	return response, err
}

// call invokes the function with an event and decodes its response.
func (f *Function) call(ctx context.Context, event, response any) error {
	payload, err := json.Marshal(event)
	if err != nil {
		return fmt.Errorf("encode the event for %s: %w", f.Folder, err)
	}
	return f.callRaw(ctx, payload, response)
}

// callRaw is call with an encoded payload.
func (f *Function) callRaw(ctx context.Context, payload []byte, response any) error {
	text, err := f.Invoke(ctx, payload)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, response); err != nil {
		return fmt.Errorf("decode the response of %s: %w", f.Folder, err)
	}
	return nil
}
