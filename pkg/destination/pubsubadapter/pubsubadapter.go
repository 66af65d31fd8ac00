// Package pubsubadapter delivers events to Google Pub/Sub topics. It promises that
// one Deliver is one Publish request with one message, acknowledged before Deliver
// returns, and that no work continues in the background, where a frozen Lambda
// function would interrupt it. It uses the deployment's identity (workload identity
// federation). It never loads tenants' credential files, because such a file can
// contain any URL for the client to call.
package pubsubadapter

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	apiv1 "cloud.google.com/go/pubsub/v2/apiv1"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
)

const (
	form = "pubsub://project/topic"
	// maxMessage is the maximum size of a message's data in bytes
	// (cloud.google.com/pubsub/quotas).
	maxMessage = 10_000_000
	// maxReceipt is the maximum size of a response in bytes. A receipt has one message ID.
	maxReceipt = 64 * 1024
	// maxPause is the longest pause between attempts after which the connection is used
	// again. gRPC does not notice in a frozen function that it was closed or dropped: NAT
	// gateways drop idle connections after 350 s.
	maxPause = time.Minute
)

// Options are shared by all adapters of a router.
type Options struct {
	// Emulator is the host:port of an emulator, as in PUBSUB_EMULATOR_HOST. It is
	// used without TLS and credentials. Empty means Google Cloud.
	Emulator string
	// Credentials is the operator's configuration for workload identity federation:
	// the JSON that `gcloud iam workload-identity-pools create-cred-config` writes.
	// Empty means Application Default Credentials.
	Credentials string
	// Now is the clock for pauses between attempts; nil means time.Now.
	Now func() time.Time
}

// Kind returns the Pub/Sub protocol for a router. All adapters share one connection,
// which the first delivery opens.
func Kind(o Options) destination.Kind {
	shared := &connection{options: o, pause: destination.Pause{Now: o.Now}}
	return destination.Kind{
		Schemes: []string{"pubsub"},
		Form:    form,
		Check: func(t destination.Target, u *url.URL) error {
			_, err := parse(t, u)
			return err
		},
		Open: func(t destination.Target, u *url.URL) (destination.Adapter, error) {
			topic, err := parse(t, u)
			if err != nil {
				return nil, err
			}
			return &publisher{shared: shared, topic: topic, ordered: t.Ordered}, nil
		},
		Close: shared.close,
	}
}

// Google's rules for project ids (including legacy domain-scoped ones) and topic names.
var (
	projectForm = regexp.MustCompile(`^([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]$`)
	topicForm   = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._~+%-]+$`)
)

// parse returns the topic's resource name.
func parse(t destination.Target, u *url.URL) (string, error) {
	topic := strings.TrimPrefix(u.Path, "/")
	switch {
	case u.User != nil:
		return "", errors.New("a URL must not hold a user name or password: the deployment's identity is used (workload identity federation)")
	case u.Fragment != "":
		return "", errors.New("a Pub/Sub URL has no fragment (#…): remove it")
	case u.RawQuery != "":
		return "", errors.New("a Pub/Sub URL has no parameters")
	case !projectForm.MatchString(u.Host):
		return "", errors.New("the project id is missing or malformed: it has 6 to 30 lower-case letters, digits and hyphens")
	case !topicForm.MatchString(topic) || len(topic) < 3 || len(topic) > 255 || strings.HasPrefix(topic, "goog"):
		return "", errors.New("the topic name is missing or malformed: it has 3 to 255 letters, digits and -._~+%, begins with a letter, and does not begin with goog")
	case t.RoleARN != "":
		return "", errors.New("role_arn applies to SQS and Kafka, not to Pub/Sub: grant roles/pubsub.publisher on the topic to the deployment's identity")
	case t.Credentials != "":
		return "", errors.New("credentials apply to Kafka, not to Pub/Sub: grant roles/pubsub.publisher on the topic to the deployment's identity")
	}
	return "projects/" + u.Host + "/topics/" + topic, nil
}

// connection is the shared gRPC connection to Pub/Sub.
type connection struct {
	options Options
	pause   destination.Pause

	mu      sync.Mutex
	current *client
}

// client is a connection with the number of attempts that use it, which the connection's
// mu guards.
type client struct {
	*apiv1.TopicAdminClient
	users int
}

// acquire returns the client. The caller releases it. It does not cache an error.
func (c *connection) acquire() (*client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if paused := c.pause.Exceeds(maxPause); paused && c.current != nil {
		if c.current.users == 0 {
			_ = c.current.Close() // nothing uses it: there is nobody to report an error to
		}
		c.current = nil
	}
	if c.current != nil {
		c.current.users++
		return c.current, nil
	}
	options := []option.ClientOption{
		option.WithGRPCConnectionPool(1),
		option.WithGRPCDialOption(grpc.WithConnectParams(grpc.ConnectParams{
			// The default backoff grows to two minutes. A recovered service would
			// not be noticed for as long.
			Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		})),
		option.WithGRPCDialOption(grpc.WithStatsHandler(once{})),
		option.WithGRPCDialOption(grpc.WithPerRPCCredentials(once{})),
		option.WithGRPCDialOption(grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReceipt))),
	}
	switch {
	case c.options.Emulator != "":
		options = append(options, option.WithEndpoint(c.options.Emulator), option.WithoutAuthentication(),
			option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	case c.options.Credentials != "":
		options = append(options, option.WithAuthCredentialsJSON(option.ExternalAccount, []byte(c.options.Credentials)))
	}
	// The client keeps this context for refreshing its credentials.
	opened, err := apiv1.NewTopicAdminClient(context.Background(), options...)
	if err != nil {
		return nil, err
	}
	opened.CallOptions.Publish = nil // dispatch retries
	c.current = &client{TopicAdminClient: opened, users: 1}
	return c.current, nil
}

// release ends an attempt. If the client is suspect, later attempts use a new connection:
// after a timeout it may be dead without a FIN, and gRPC would use it until the kernel
// gives up. Attempts under way keep the old one, and the last of them closes it.
func (c *connection) release(used *client, suspect bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	used.users--
	if suspect && c.current == used {
		c.current = nil
	}
	if c.current != used && used.users == 0 {
		_ = used.Close() // nothing uses it: there is nobody to report an error to
	}
}

func (c *connection) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current == nil {
		return nil
	}
	err := c.current.Close()
	c.current = nil
	return err
}

// once keeps gRPC from repeating a request that has been on the wire, as it does by itself
// when a server refuses it (REFUSED_STREAM, GOAWAY): that attempt would not be recorded. As
// a stats handler it sees that the request is sent; as credentials it is asked before each
// try, and refuses all further ones.
type once struct{}

type wireKey struct{}

// wire is what once knows about a request.
type wire struct{ sent, repeated atomic.Bool }

func (once) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if _, ok := s.(*stats.OutHeader); ok {
		if w, ok := ctx.Value(wireKey{}).(*wire); ok {
			w.sent.Store(true)
		}
	}
}

func (once) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	if w, ok := ctx.Value(wireKey{}).(*wire); ok && w.sent.Load() {
		w.repeated.Store(true)
		return nil, status.Error(codes.Aborted, "the request has been sent before")
	}
	return nil, nil
}

func (once) RequireTransportSecurity() bool { return false } // it sends no credentials

func (once) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (once) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (once) HandleConn(context.Context, stats.ConnStats)                       {}

// publisher publishes to one topic.
type publisher struct {
	shared  *connection
	topic   string
	ordered bool
}

// Close does nothing: all publishers share the connection.
func (p *publisher) Close() error { return nil }

// Deliver publishes the message once.
func (p *publisher) Deliver(ctx context.Context, m destination.Message) delivery.Outcome {
	began := time.Now()
	x := destination.Observed(ctx)
	if x == nil {
		x = &destination.Exchange{}
	}
	x.Method, x.To, x.Ended = "Publish", p.topic, destination.PhaseExchange
	o := p.publish(ctx, m, x)
	o.Timings.Total = time.Since(began)
	x.EndedAfter = o.Timings.Total
	return o
}

func (p *publisher) publish(ctx context.Context, m destination.Message, x *destination.Exchange) delivery.Outcome {
	if len(m.Body) > maxMessage {
		return delivery.Outcome{Class: delivery.TooLarge, Permanent: true,
			Error: fmt.Sprintf("the event has %d bytes; Pub/Sub allows at most %d", len(m.Body), maxMessage)}
	}
	attributes := m.Attributes("ce-") // Pub/Sub Protocol Binding for CloudEvents
	for name, value := range attributes {
		if !utf8.ValidString(value) {
			return delivery.Outcome{Class: delivery.Invalid, Permanent: true,
				Error: "nothing was sent: the message attribute " + name + " would not be valid UTF-8"}
		}
	}
	used, err := p.shared.acquire()
	if err != nil {
		x.Cause, x.Code = err, destination.CodeNoCredentials
		return delivery.Outcome{Class: delivery.Denied, Permanent: true,
			Error: "this deployment's Google credentials are missing or unreadable: see workload identity federation in docs/destinations.md"}
	}
	message := &pubsubpb.PubsubMessage{Data: m.Body, Attributes: attributes}
	x.RequestHeaders = destination.Fields(message.Attributes)
	if p.ordered {
		message.OrderingKey = m.Subject
		x.RequestHeaders = append(x.RequestHeaders, destination.Field{Name: "ordering_key", Value: m.Subject})
	}
	suspect := true // if Publish panics
	defer func() { p.shared.release(used, suspect) }()
	var on wire
	receipt, err := used.Publish(context.WithValue(ctx, wireKey{}, &on), &pubsubpb.PublishRequest{Topic: p.topic, Messages: []*pubsubpb.PubsubMessage{message}})
	if err != nil {
		x.Cause, x.Code = err, statusOf(err).Code().String()
		o := classify(ctx, err)
		if on.repeated.Load() && ctx.Err() == nil {
			o = delivery.Outcome{Class: delivery.Connect, Error: "Pub/Sub refused the request before it processed it (REFUSED_STREAM or GOAWAY)"}
		}
		suspect = o.Class == delivery.Timeout
		return o
	}
	suspect = false
	for _, id := range receipt.MessageIds {
		x.ResponseHeaders = append(x.ResponseHeaders, destination.Field{Name: "message_id", Value: id})
	}
	return delivery.Outcome{Class: delivery.Success}
}

func statusOf(err error) *status.Status {
	s, ok := status.FromError(err)
	if !ok {
		// The client library wraps the status.
		var wrapped interface{ GRPCStatus() *status.Status }
		if errors.As(err, &wrapped) {
			s = wrapped.GRPCStatus()
		}
	}
	return s
}

// classify returns the outcome for a gRPC error
// (cloud.google.com/pubsub/docs/reference/error-codes).
func classify(ctx context.Context, err error) delivery.Outcome {
	const timeout = "timeout while waiting for a response from Pub/Sub"
	if ctx.Err() != nil {
		return delivery.Outcome{Class: delivery.Timeout, Error: timeout}
	}
	s := statusOf(err)
	code := s.Code()
	o := delivery.Outcome{Class: delivery.Answered, RetryAfter: retryAfter(s), Error: "Pub/Sub answered " + code.String()}
	switch code {
	case codes.NotFound:
		o.Class, o.Permanent = delivery.Missing, true
		o.Error += ": the topic does not exist; check the project id and the topic name"
	case codes.PermissionDenied:
		o.Class, o.Permanent = delivery.Denied, true
		o.Error += ": grant roles/pubsub.publisher on the topic to this deployment's identity"
	case codes.Unauthenticated:
		// Not permanent: the code is the same for a revoked identity and for an
		// outage of the token service.
		o.Class = delivery.Denied
		o.Error += ": this deployment's identity was rejected; see workload identity federation in docs/destinations.md"
	case codes.ResourceExhausted:
		o.Class = delivery.Throttled
		o.Error += ": the project's publish quota is used up"
	case codes.InvalidArgument:
		o.Class, o.Permanent = delivery.Invalid, true
		o.Error += ": the topic rejects the message; if it has a schema, the schema must allow the body"
	case codes.FailedPrecondition:
		o.Class, o.Permanent = delivery.Invalid, true
		o.Error += ": the topic does not accept messages; check its encryption key and its message storage policy"
	case codes.DeadlineExceeded:
		o.Class = delivery.Timeout
		o.Error = timeout
	case codes.Canceled:
		o.Class = delivery.Protocol
		o.Error = "Pub/Sub aborted the request"
	case codes.Unavailable:
		o.Class = delivery.Connect
		o.Error = "could not connect to Pub/Sub"
	}
	return o
}

// retryAfter returns the delay in the status's google.rpc.RetryInfo, or 0.
func retryAfter(s *status.Status) time.Duration {
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			return max(info.GetRetryDelay().AsDuration(), 0)
		}
	}
	return 0
}
