// Package awsclient is what the adapters for services of AWS share: connections, one client
// per region and role, and what the errors of a call mean. It promises that a client sends a
// request once, ends with its context, reads a bounded response, follows no redirect and
// uses no connection that may be dead.
package awsclient

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
)

const (
	maxConnections = 50 // per region
	idleTime       = 15 * time.Second
)

// Options are shared by all adapters of a router for one service.
type Options struct {
	// Config returns the function's AWS configuration. Its HTTP client is not used.
	Config func() aws.Config
	// AssumeRole returns the credentials of a role. It must not call STS before they
	// are retrieved.
	AssumeRole func(roleARN, externalID, region string) aws.CredentialsProvider
	// Endpoint overrides the URL of the service, for local use. Empty means AWS.
	Endpoint string
	// Now is the clock for pauses between requests; nil means time.Now.
	Now func() time.Time
}

// identity is the key of a client. The external id is the tenant, chosen by Tidings and
// not by the endpoint's owner: otherwise a tenant could use a role that trusts Tidings
// for another tenant (the confused deputy problem, IAM User Guide).
type identity struct{ region, roleARN, externalID string }

// Clients holds one client per identity, so that endpoints share connections and assumed
// roles.
type Clients[C any] struct {
	options     Options
	client      func(aws.Config) C
	connections *careful
	http        *http.Client

	mu   sync.Mutex
	open map[identity]C
}

// New returns the clients of a service; client makes one, such as sqs.NewFromConfig.
func New[C any](o Options, client func(aws.Config) C) *Clients[C] {
	connections := &careful{
		next: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			MaxIdleConnsPerHost: maxConnections, MaxConnsPerHost: maxConnections,
			IdleConnTimeout: idleTime,
			DialContext:     (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		},
		pause: destination.Pause{Now: o.Now},
	}
	return &Clients[C]{
		options: o, client: client, connections: connections, open: map[identity]C{},
		http: &http.Client{
			Transport: connections,
			// A response must not redirect signed requests elsewhere.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// For returns the client for a target in a region: with the target's role, which is assumed
// with the tenant as external id, or else with the function's.
func (c *Clients[C]) For(t destination.Target, region string) C {
	who := identity{region: region}
	if t.RoleARN != "" {
		who.roleARN, who.externalID = t.RoleARN, t.Tenant
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if client, there := c.open[who]; there {
		return client
	}
	config := c.options.Config()
	config.Region = region
	config.HTTPClient = c.http
	config.Retryer = func() aws.Retryer { return aws.NopRetryer{} } // dispatch retries
	config.RetryMaxAttempts = 0
	if c.options.Endpoint != "" {
		config.BaseEndpoint = &c.options.Endpoint
	}
	if who.roleARN != "" {
		config.Credentials = aws.NewCredentialsCache(c.options.AssumeRole(who.roleARN, who.externalID, region))
	}
	client := c.client(config)
	c.open[who] = client
	return client
}

// Close closes the connections, after all adapters are closed.
func (c *Clients[C]) Close() error {
	c.connections.renew()
	return nil
}

// careful makes requests so that each is sent once, ends with its context, and uses no
// connection that may be dead.
type careful struct {
	pause destination.Pause

	mu   sync.Mutex
	next *http.Transport
}

// transport returns the transport for a request: a new one after a pause.
func (c *careful) transport() *http.Transport {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pause.Exceeds(idleTime) {
		c.replace()
	}
	return c.next
}

// renew makes sure that no request uses a connection that is open now.
func (c *careful) renew() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.replace()
}

// replace closes the idle connections, and those in use as soon as they are idle: it would
// be too early to close idle ones only, because net/http may not yet know that a connection
// whose response was read is idle. c.mu is locked.
func (c *careful) replace() {
	old := c.next
	c.next = old.Clone()
	old.CloseIdleConnections()
}

// errSwitched means that the response is 101. Its body is the connection, which does not
// end with the context.
var errSwitched = errors.New("the server switched to another protocol")

// ErrNoReceipt means that a response has no receipt for what was sent.
var ErrNoReceipt = errors.New("the response has no receipt")

// maxResponse is the number of bytes of a response that are read. The services answer with
// less than 1 KB.
const maxResponse = 64 * 1024

// RoundTrip gives net/http a copy of the request body. The SDK closes the original when
// the response arrives. If net/http checks for more body at that moment, it sees an
// error and closes the connection: every tenth request on a fast network.
func (c *careful) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		body, err := io.ReadAll(r.Body)
		if err := errors.Join(err, r.Body.Close()); err != nil {
			return nil, err
		}
		r = r.Clone(r.Context())
		// net/http uses GetBody when an idle connection turns out to be closed before
		// anything was written.
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		r.Body, _ = r.GetBody()
	}
	response, err := c.transport().RoundTrip(r)
	if err != nil {
		if r.Context().Err() != nil {
			c.renew() // what dropped this connection may have dropped all
		}
		return nil, err
	}
	if response.StatusCode == http.StatusSwitchingProtocols {
		_ = response.Body.Close()
		return nil, errSwitched
	}
	// The SDK reads the whole body of an error, however long.
	response.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(response.Body, maxResponse), response.Body}
	return response, nil
}

// Classify returns the outcome for an error of a call to a service, such as SQS. refused
// returns the outcome for an error code.
func Classify(ctx context.Context, err error, service string, refused func(code string) delivery.Outcome) delivery.Outcome {
	failed := func(c delivery.Class, sentence string) delivery.Outcome {
		return delivery.Outcome{Class: c, Error: sentence}
	}
	var (
		api      smithy.APIError
		answered *awshttp.ResponseError
		name     *net.DNSError
		dial     *net.OpError
		sending  *smithyhttp.RequestSendError
		decoding *smithy.DeserializationError
	)
	switch {
	case ctx.Err() != nil, errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return failed(delivery.Timeout, "timeout while waiting for a response from "+service)
	case errors.As(err, &api):
		o := refused(api.ErrorCode())
		if errors.As(err, &answered) && o.Class != delivery.Missing {
			o.Status = answered.HTTPStatusCode()
		}
		return o
	case errors.As(err, &name):
		return failed(delivery.DNS, "the host name of "+service+" does not exist: check the region")
	case errors.Is(err, errSwitched):
		o := failed(delivery.Answered, service+" answered 101 Switching Protocols: something else listens at its address")
		o.Status = http.StatusSwitchingProtocols
		return o
	case errors.As(err, &dial) && dial.Op == "dial":
		return failed(delivery.Connect, "could not connect to "+service)
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return failed(delivery.Connect, "connection reset by "+service)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return failed(delivery.Protocol, service+" closed the connection without a response")
	case errors.Is(err, ErrNoReceipt), errors.As(err, &sending), errors.As(err, &decoding):
		return failed(delivery.Protocol, "the response is not one of "+service+": something else may listen at its address")
	}
	return failed(delivery.Connect, "could not connect to "+service)
}

// Code returns the error code in an error of a call; empty if there is none.
func Code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// Denied reports whether an error code of a service or of STS means that the caller may not
// do what it asked, or is not known (API references).
func Denied(code string) bool {
	switch code {
	case "AccessDenied", "AccessDeniedException", "InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch",
		"InvalidSecurity", "NotAuthorized", "OptInRequired", "InvalidIdentityToken", "MissingAuthenticationToken":
		return true
	}
	return false
}

// Throttled reports whether an error code means that there were too many requests.
func Throttled(code string) bool {
	switch code {
	case "RequestThrottled", "Throttling", "ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded", "OverLimit":
		return true
	}
	return false
}
