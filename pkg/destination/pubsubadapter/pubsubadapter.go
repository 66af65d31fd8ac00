// Package pubsubadapter delivers events to Google Pub/Sub topics. It promises
// that one Deliver is one Publish request of one message, acknowledged by the
// service before Deliver returns, and that nothing goes on in the background
// that a frozen Lambda function would interrupt. Access is the deployment's own
// (workload identity federation); credentials of a tenant are never loaded,
// because a credential file can make its reader call any URL.
package pubsubadapter

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	apiv1 "cloud.google.com/go/pubsub/v2/apiv1"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
)

const (
	form = "pubsub://project/topic"
	// maxMessage is Pub/Sub's limit on a message's data, in bytes
	// (cloud.google.com/pubsub/quotas).
	maxMessage = 10_000_000
)

// Options are what the adapters of one router share.
type Options struct {
	// Emulator is the host:port of an emulator, as PUBSUB_EMULATOR_HOST has it:
	// no TLS, no credentials. "" is Google.
	Emulator string
	// Credentials is the credential configuration of a workload identity
	// federation (the JSON that `gcloud iam workload-identity-pools
	// create-cred-config` writes), given by whoever deploys, never by a tenant.
	// "" takes the environment's (Application Default Credentials).
	Credentials string
}

// Kind is Pub/Sub for a router. All its adapters share one connection, which
// is made at the first delivery.
func Kind(o Options) destination.Kind {
	shared := &connection{options: o}
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

// Google's rules for project ids (old domain-scoped ones too) and topic names.
var (
	projectForm = regexp.MustCompile(`^([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]$`)
	topicForm   = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._~+%-]+$`)
)

// parse returns the topic's resource name.
func parse(t destination.Target, u *url.URL) (string, error) {
	topic := strings.TrimPrefix(u.Path, "/")
	switch {
	case u.User != nil:
		return "", errors.New("a URL must not hold a user name or password: access is the deployment's, by workload identity federation")
	case u.Fragment != "":
		return "", errors.New("a fragment (#…) means nothing here: leave it out")
	case u.RawQuery != "":
		return "", errors.New("a Pub/Sub URL has no parameters")
	case !projectForm.MatchString(u.Host):
		return "", errors.New("the project's id is missing or malformed: 6 to 30 lower-case letters, digits and -")
	case !topicForm.MatchString(topic) || len(topic) < 3 || len(topic) > 255 || strings.HasPrefix(topic, "goog"):
		return "", errors.New("the topic's name is missing or malformed: 3 to 255 letters, digits and -._~+%, beginning with a letter and not with goog")
	case t.RoleARN != "":
		return "", errors.New("role_arn is for SQS and Kafka, not for Pub/Sub: grant roles/pubsub.publisher on the topic to the deployment's identity")
	case t.Credentials != "":
		return "", errors.New("credentials are for Kafka, not for Pub/Sub: grant roles/pubsub.publisher on the topic to the deployment's identity")
	}
	return "projects/" + u.Host + "/topics/" + topic, nil
}

// connection is the one gRPC connection to Pub/Sub.
type connection struct {
	options Options

	mu     sync.Mutex
	client *apiv1.TopicAdminClient
}

// open returns the client. A failure to make it is not kept.
func (c *connection) open() (*apiv1.TopicAdminClient, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client != nil {
		return c.client, nil
	}
	options := []option.ClientOption{
		option.WithGRPCConnectionPool(1),
		option.WithGRPCDialOption(grpc.WithConnectParams(grpc.ConnectParams{
			// gRPC's own backoff grows to two minutes, in which a service that is
			// back would go unnoticed.
			Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		})),
	}
	switch {
	case c.options.Emulator != "":
		options = append(options, option.WithEndpoint(c.options.Emulator), option.WithoutAuthentication(),
			option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	case c.options.Credentials != "":
		options = append(options, option.WithAuthCredentialsJSON(option.ExternalAccount, []byte(c.options.Credentials)))
	}
	// Its context is for the life of the credentials, not for this call.
	client, err := apiv1.NewTopicAdminClient(context.Background(), options...)
	if err != nil {
		return nil, err
	}
	client.CallOptions.Publish = nil // dispatch retries
	c.client = client
	return client, nil
}

func (c *connection) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client == nil {
		return nil
	}
	err := c.client.Close()
	c.client = nil
	return err
}

// publisher publishes to one topic.
type publisher struct {
	shared  *connection
	topic   string
	ordered bool
}

// Close has nothing to end: the connection belongs to all publishers together.
func (p *publisher) Close() error { return nil }

// Deliver publishes the message once.
func (p *publisher) Deliver(ctx context.Context, m destination.Message) delivery.Outcome {
	began := time.Now()
	x := destination.Observed(ctx)
	if x == nil {
		x = &destination.Exchange{} // nobody looks
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
			Error: fmt.Sprintf("the event has %d bytes; Pub/Sub takes messages of %d", len(m.Body), maxMessage)}
	}
	client, err := p.shared.open()
	if err != nil {
		x.Cause, x.Code = err, destination.CodeNoCredentials
		return delivery.Outcome{Class: delivery.Denied, Permanent: true,
			Error: "this deployment has no Google credentials, or cannot read them: see docs/destinations.md on workload identity federation"}
	}
	message := &pubsubpb.PubsubMessage{Data: m.Body, Attributes: m.Attributes()}
	x.RequestHeaders = destination.Fields(message.Attributes)
	if p.ordered {
		message.OrderingKey = m.Subject
		x.RequestHeaders = append(x.RequestHeaders, destination.Field{Name: "ordering_key", Value: m.Subject})
	}
	receipt, err := client.Publish(ctx, &pubsubpb.PublishRequest{Topic: p.topic, Messages: []*pubsubpb.PubsubMessage{message}})
	if err != nil {
		x.Cause, x.Code = err, statusOf(err).Code().String()
		return classify(ctx, err)
	}
	for _, id := range receipt.MessageIds {
		x.ResponseHeaders = append(x.ResponseHeaders, destination.Field{Name: "message_id", Value: id})
	}
	return delivery.Outcome{Class: delivery.Success}
}

func statusOf(err error) *status.Status {
	s, ok := status.FromError(err)
	if !ok {
		// The client library wraps a status in an error of its own.
		var wrapped interface{ GRPCStatus() *status.Status }
		if errors.As(err, &wrapped) {
			s = wrapped.GRPCStatus()
		}
	}
	return s
}

// classify reports a publish that was not acknowledged, by its gRPC code
// (cloud.google.com/pubsub/docs/reference/error-codes).
func classify(ctx context.Context, err error) delivery.Outcome {
	if ctx.Err() != nil {
		return delivery.Outcome{Class: delivery.Timeout, Error: "Pub/Sub did not answer in time"}
	}
	s := statusOf(err)
	code := s.Code()
	o := delivery.Outcome{Class: delivery.Answered, RetryAfter: retryAfter(s), Error: "Pub/Sub answered " + code.String()}
	switch code {
	case codes.NotFound:
		o.Class, o.Permanent = delivery.Missing, true
		o.Error += ": the topic does not exist; check the project and the topic's name, and that it was not deleted"
	case codes.PermissionDenied:
		o.Class, o.Permanent = delivery.Denied, true
		o.Error += ": grant roles/pubsub.publisher on the topic to this deployment's identity"
	case codes.Unauthenticated:
		// A token that can't be had today may be had tomorrow: the code does not
		// tell a revoked identity from an outage of the token service.
		o.Class = delivery.Denied
		o.Error += ": this deployment's identity was not accepted; see docs/destinations.md on workload identity federation"
	case codes.ResourceExhausted:
		o.Class = delivery.Throttled
		o.Error += ": the project's publish quota is used up"
	case codes.InvalidArgument:
		o.Class, o.Permanent = delivery.Invalid, true
		o.Error += ": the topic does not take such messages; does it have a schema?"
	case codes.FailedPrecondition:
		o.Class, o.Permanent = delivery.Invalid, true
		o.Error += ": the topic cannot be published to as it is; are its key or its region's policy in the way?"
	case codes.DeadlineExceeded, codes.Canceled:
		o.Class = delivery.Timeout
		o.Error = "Pub/Sub did not answer in time"
	case codes.Unavailable:
		o.Class = delivery.Connect
		o.Error = "Pub/Sub could not be reached"
	default:
		o.Error += ", which is its own trouble"
	}
	return o
}

// retryAfter is the service's own wish (google.rpc.RetryInfo), 0 where it has none.
func retryAfter(s *status.Status) time.Duration {
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			return max(info.GetRetryDelay().AsDuration(), 0)
		}
	}
	return 0
}
