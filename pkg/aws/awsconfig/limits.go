// Package awsconfig loads the AWS configuration of the functions and of the CLI. It
// promises that each try of a request to AWS ends within a limit, also that of a request for
// credentials: the SDK itself has no timeout.
package awsconfig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/smithy-go/middleware"
)

// Limits bound each try of a request to AWS. Without one, a connection that died without a
// FIN would hold an invocation until Lambda kills it, and the CLI for ever.
type Limits struct {
	Services map[string]time.Duration // by service ID
	Others   time.Duration
	// LongPoll replaces the limits for receiving from a queue, which waits up to 20 s.
	LongPoll time.Duration
}

// InFunctions leave time for two tries and a verdict within an invocation. A function that
// invokes another one waits as long as that may run.
var InFunctions = Limits{
	Services: map[string]time.Duration{"DynamoDB": 3 * time.Second, "Lambda": 2 * time.Minute},
	Others:   5 * time.Second,
	LongPoll: 25 * time.Second,
}

// InCommands are the limits of the CLI, whose network may be slow. The longest of the
// functions that it invokes may run for two minutes.
var InCommands = Limits{
	Services: map[string]time.Duration{"Lambda": 130 * time.Second},
	Others:   10 * time.Second,
	LongPoll: 30 * time.Second,
}

// Load returns the configuration of the environment, with the limits.
func Load(ctx context.Context, l Limits) (aws.Config, error) {
	// The clients that ask for credentials are made here, from these options.
	access, err := config.LoadDefaultConfig(ctx, config.WithAPIOptions([]func(*middleware.Stack) error{l.limit(func() {})}))
	if err != nil {
		return aws.Config{}, fmt.Errorf("AWS configuration: %w", err)
	}
	access.APIOptions = nil // Apply adds the limit, with the clients' own connections
	l.Apply(&access)
	return access, nil
}

// Apply makes all clients of the configuration keep the limits. After a timeout, idle
// connections are closed: what dropped one may have dropped all.
func (l Limits) Apply(access *aws.Config) {
	client, ok := access.HTTPClient.(*awshttp.BuildableClient) // has the roots of AWS_CA_BUNDLE
	if !ok {
		client = awshttp.NewBuildableClient()
	}
	transport := client.GetTransport()
	access.HTTPClient = HTTPClient(transport)
	access.APIOptions = append(access.APIOptions, l.limit(transport.CloseIdleConnections))
}

// limit returns the API option that ends each try. It calls suspect after a timeout.
func (l Limits) limit(suspect func()) func(*middleware.Stack) error {
	limit := middleware.FinalizeMiddlewareFunc("TidingsLimit", func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
		service, operation := awsmiddleware.GetServiceID(ctx), awsmiddleware.GetOperationName(ctx)
		try, cancel := context.WithTimeout(ctx, l.of(service, operation))
		defer cancel()
		out, metadata, err := next.HandleFinalize(try, in)
		if err != nil && try.Err() != nil && ctx.Err() == nil {
			suspect()
			// Not wrapped: the SDK does not repeat what looks canceled.
			err = timeoutError{service, operation, l.of(service, operation)}
		}
		return out, metadata, err
	})
	return func(stack *middleware.Stack) error {
		return stack.Finalize.Insert(limit, "Retry", middleware.After)
	}
}

// HTTPClient returns the client for requests to AWS. It follows no redirect.
func HTTPClient(transport http.RoundTripper) *http.Client {
	return &http.Client{
		Transport:     careful{transport},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// careful refuses 101 responses: the body of one is the connection, which does not end with
// the context.
//
// It also hides that the SDK's request body can write itself. The SDK closes that body when
// the response arrives. If net/http then checks for more body, the body's WriteTo returns
// io.EOF as an error, net/http closes the connection, and a response of more than 4 KB
// cannot be read: "use of closed network connection" (aws/aws-sdk-go-v2#2737). Its Read
// returns io.EOF as the end.
type careful struct{ next http.RoundTripper }

func (c careful) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil && r.Body != http.NoBody {
		r = r.WithContext(r.Context()) // a RoundTripper must not change the request
		r.Body = struct{ io.ReadCloser }{r.Body}
	}
	response, err := c.next.RoundTrip(r)
	if err == nil && response.StatusCode == http.StatusSwitchingProtocols {
		_ = response.Body.Close()
		return nil, errors.New("the server switched to another protocol (101)")
	}
	return response, err
}

func (l Limits) of(service, operation string) time.Duration {
	if service == "SQS" && operation == "ReceiveMessage" {
		return l.LongPoll
	}
	if limit, ok := l.Services[service]; ok {
		return limit
	}
	return l.Others
}

// timeoutError is a try that took too long. The SDK repeats it, except for an invocation:
// that may still be running, and would run twice.
type timeoutError struct {
	service, operation string
	limit              time.Duration
}

func (e timeoutError) Error() string {
	return fmt.Sprintf("%s %s: no response within %s", e.service, e.operation, e.limit)
}
func (timeoutError) Timeout() bool         { return true }
func (e timeoutError) CanceledError() bool { return e.service == "Lambda" }
