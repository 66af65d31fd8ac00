package awsconfig_test

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go/middleware"

	"github.com/tidings-dev/tidings/pkg/aws/awsconfig"
)

func limited(url string, l awsconfig.Limits) aws.Config {
	access := aws.Config{
		Region: "us-east-1", BaseEndpoint: &url, Credentials: credentials.NewStaticCredentialsProvider("k", "s", ""),
		Retryer: func() aws.Retryer {
			return retry.NewStandard(func(o *retry.StandardOptions) {
				o.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 0, nil })
			})
		},
	}
	l.Apply(&access)
	return access
}

// patient returns a context that ends only if a limit does not hold, however busy the
// machine is.
func patient(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// hangs answers requests except the first ones, which it reads and leaves.
func hangs(t *testing.T, first int32) (url string, requests *atomic.Int32) {
	t.Helper()
	requests = new(atomic.Int32)
	over := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) <= first {
			select {
			case <-over:
			case <-r.Context().Done():
			}
			return
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		_, _ = w.Write([]byte("{}"))
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(over) })
	return server.URL, requests
}

func TestAHungRequestIsRepeated(t *testing.T) {
	t.Parallel()
	url, requests := hangs(t, 1)
	limits := awsconfig.Limits{Services: map[string]time.Duration{"DynamoDB": 2 * time.Second}, Others: time.Minute}
	if _, err := dynamodb.NewFromConfig(limited(url, limits)).ListTables(t.Context(), nil); err != nil || requests.Load() < 2 {
		t.Errorf("%v after %d requests, want success with another request", err, requests.Load())
	}
}

func TestAServiceThatHangsDoesNotHoldTheInvocation(t *testing.T) {
	t.Parallel()
	url, requests := hangs(t, 100)
	ctx := patient(t)
	_, err := dynamodb.NewFromConfig(limited(url, awsconfig.Limits{Others: 100 * time.Millisecond})).ListTables(ctx, nil)
	if err == nil || ctx.Err() != nil || requests.Load() > 3 {
		t.Errorf("%v after %d requests", err, requests.Load())
	}
}

// A server that drips its answer is as bad as one that sends none.
func TestAnEndlessAnswerIsBounded(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			_, _ = w.Write([]byte(" "))
			_ = http.NewResponseController(w).Flush()
			time.Sleep(5 * time.Millisecond) // how slow the server is
		}
	}))
	defer server.Close()
	ctx := patient(t)
	if _, err := dynamodb.NewFromConfig(limited(server.URL, awsconfig.Limits{Others: 100 * time.Millisecond})).ListTables(ctx, nil); err == nil || ctx.Err() != nil {
		t.Error(err)
	}
}

func TestALongPollMayWait(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(200 * time.Millisecond) // the poll
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		_, _ = w.Write([]byte("{}"))
	}))
	defer server.Close()
	limits := awsconfig.Limits{Others: 50 * time.Millisecond, LongPoll: time.Minute}
	if _, err := sqs.NewFromConfig(limited(server.URL, limits)).ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: aws.String(server.URL + "/1/q")}); err != nil {
		t.Error(err)
	}
}

// An invocation's own deadline is reported as such, and not repeated.
func TestTheInvocationsDeadlineIsNotALimit(t *testing.T) {
	t.Parallel()
	url, requests := hangs(t, 100)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := dynamodb.NewFromConfig(limited(url, awsconfig.Limits{Others: time.Minute})).ListTables(ctx, nil)
	if !errors.Is(err, context.DeadlineExceeded) || requests.Load() > 1 {
		t.Errorf("%v after %d requests", err, requests.Load())
	}
}

// Every address of AWS is reached through the same client, so its limits hold for all.
func TestEveryServiceHasALimit(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts by the kernel, and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	limits := awsconfig.InFunctions
	limits.Others = 50 * time.Millisecond
	ctx := patient(t)
	if _, err := sqs.NewFromConfig(limited("http://"+l.Addr().String(), limits)).ListQueues(ctx, nil); err == nil || ctx.Err() != nil {
		t.Error(err)
	}
}

// An invocation that takes too long may still be running: another one would do its work
// twice.
func TestAnInvocationIsNotRepeated(t *testing.T) {
	t.Parallel()
	url, requests := hangs(t, 100)
	ctx := patient(t)
	limits := awsconfig.Limits{Services: map[string]time.Duration{"Lambda": time.Second}, Others: time.Minute}
	_, err := lambda.NewFromConfig(limited(url, limits)).Invoke(ctx, &lambda.InvokeInput{FunctionName: aws.String("f")})
	if err == nil || ctx.Err() != nil || requests.Load() > 1 || !strings.Contains(err.Error(), "no response within 1s") {
		t.Errorf("%v after %d requests", err, requests.Load())
	}
}

// Requests for credentials go through clients that the SDK makes itself.
func TestCredentialsHaveALimit(t *testing.T) {
	url, requests := hangs(t, 100)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("token"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL_STS": url, "AWS_REGION": "us-east-1", "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/r", "AWS_WEB_IDENTITY_TOKEN_FILE": token,
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_MAX_ATTEMPTS": "1",
	} {
		t.Setenv(name, value)
	}
	ctx := patient(t)
	access, err := awsconfig.Load(ctx, awsconfig.Limits{Others: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := access.Credentials.Retrieve(ctx); err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), "no response within") {
		t.Errorf("%v after %d requests", err, requests.Load())
	}
}

// A proxy that inspects TLS has a root of its own.
func TestTheRootsOfAWS_CA_BUNDLEAreUsed(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		_, _ = w.Write([]byte("{}"))
	}))
	defer server.Close()
	bundle := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"AWS_CA_BUNDLE": bundle, "AWS_ENDPOINT_URL_DYNAMODB": server.URL, "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s",
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_MAX_ATTEMPTS": "1",
	} {
		t.Setenv(name, value)
	}
	ctx := patient(t)
	access, err := awsconfig.Load(ctx, awsconfig.InCommands)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dynamodb.NewFromConfig(access).ListTables(ctx, nil); err != nil {
		t.Error(err)
	}
}

// The SDK closes the request body when the response arrives, which may be before net/http
// has seen its end. That must not close the connection: the rest of the response is lost.
func TestAnAnswerBeforeTheEndOfTheRequestIsRead(t *testing.T) {
	t.Parallel()
	closed, wrote := make(chan struct{}), make(chan error, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		_, _ = io.WriteString(w, `{"TableNames":["`+strings.Repeat("x", 64*1024))
		_ = http.NewResponseController(w).Flush()
		if err := <-wrote; err != nil {
			t.Errorf("the request is not whole for net/http: %v", err)
		}
		_, _ = io.WriteString(w, `"]}`)
	}))
	t.Cleanup(server.Close)
	transport := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		return slowWriter{conn, closed}, err
	}}
	access := aws.Config{
		Region: "us-east-1", BaseEndpoint: &server.URL, Credentials: credentials.NewStaticCredentialsProvider("k", "s", ""),
		Retryer: func() aws.Retryer { return aws.NopRetryer{} }, HTTPClient: awsconfig.HTTPClient(transport),
		APIOptions: []func(*middleware.Stack) error{func(stack *middleware.Stack) error {
			return stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("BodyIsClosed", func(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
				out, metadata, err := next.HandleDeserialize(ctx, in)
				close(closed)
				return out, metadata, err
			}), middleware.After)
		}},
	}
	ctx := httptrace.WithClientTrace(patient(t), &httptrace.ClientTrace{WroteRequest: func(i httptrace.WroteRequestInfo) { wrote <- i.Err }})
	if _, err := dynamodb.NewFromConfig(access).ListTables(ctx, nil); err != nil {
		t.Error(err)
	}
}

// slowWriter returns from writing a JSON document only when the channel is closed.
type slowWriter struct {
	net.Conn
	until <-chan struct{}
}

func (w slowWriter) Write(p []byte) (int, error) {
	n, err := w.Conn.Write(p)
	if strings.HasSuffix(string(p), "}") {
		<-w.until
	}
	return n, err
}
