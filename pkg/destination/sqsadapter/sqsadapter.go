// Package sqsadapter delivers events to SQS queues, standard and FIFO. It
// promises that one Deliver is at most one SendMessage, that the body is the
// message and the signed values are its attributes, and that on a FIFO queue the
// event's id is the deduplication id and its subject the group.
package sqsadapter

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
)

const (
	form = "sqs://account/queue?region=us-east-1, or sqs://queue?region=us-east-1 for a queue of the deployment's own account"
	// maxMessage is SQS's limit on a message with its attributes, in bytes.
	maxMessage = 1 << 20
	// maxConnections bounds the connections to one region's SQS.
	maxConnections = 50
	// maxGroup is the longest group id that SQS takes, in bytes.
	maxGroup = 128
)

// Options are what the adapters of one router share.
type Options struct {
	// Config returns the configuration with which the function itself calls AWS.
	// Its HTTP client is not used.
	Config func() aws.Config
	// AssumeRole returns the credentials of a role, assumed under the external
	// id. Nothing is called before they are retrieved.
	AssumeRole func(roleARN, externalID, region string) aws.CredentialsProvider
	// Endpoint is the URL of another SQS than AWS's, as on a developer's
	// machine; "" is AWS.
	Endpoint string
}

// Kind is SQS for a router. Its adapters share connections, and a client for
// each region and role.
func Kind(o Options) destination.Kind {
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		MaxIdleConnsPerHost: maxConnections, MaxConnsPerHost: maxConnections,
		IdleConnTimeout: 90 * time.Second, ForceAttemptHTTP2: true,
		DialContext: (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
	}
	client := &http.Client{
		Transport: buffered{transport},
		// The answer decides nothing about where requests go.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	shared := &clients{options: o, http: client, open: map[identity]*sqs.Client{}}
	return destination.Kind{
		Schemes: []string{"sqs"},
		Form:    form,
		Check: func(t destination.Target, u *url.URL) error {
			_, err := parse(t, u)
			return err
		},
		Open: func(t destination.Target, u *url.URL) (destination.Adapter, error) {
			d, err := parse(t, u)
			if err != nil {
				return nil, err
			}
			return &sender{destination: d, client: shared.client(t, d), endpoint: o.Endpoint}, nil
		},
		Close: func() error {
			transport.CloseIdleConnections()
			return nil
		},
	}
}

// buffered sends bodies from memory. The SDK closes a request's body when the
// answer is there; net/http may just then look whether the body goes on, finds it
// closed, and gives the connection up: one in ten on a fast network.
type buffered struct{ next http.RoundTripper }

func (b buffered) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		body, err := io.ReadAll(r.Body)
		if err := errors.Join(err, r.Body.Close()); err != nil {
			return nil, err
		}
		r = r.Clone(r.Context())
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	return b.next.RoundTrip(r)
}

// identity is who calls where.
type identity struct{ region, roleARN, externalID string }

// clients keeps one client for each identity, so that a role is assumed once and
// not for every endpoint.
type clients struct {
	options Options
	http    *http.Client

	mu   sync.Mutex
	open map[identity]*sqs.Client
}

func (c *clients) client(t destination.Target, d queueURL) *sqs.Client {
	who := identity{region: d.region}
	if t.RoleARN != "" {
		// The external id is ours to choose, not the endpoint owner's: or one
		// tenant could have us assume the role that trusts us for another (the
		// confused deputy, IAM User Guide).
		who.roleARN, who.externalID = t.RoleARN, t.Tenant
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	client := c.open[who]
	if client == nil {
		client = sqs.NewFromConfig(c.options.Config(), func(o *sqs.Options) {
			o.Region = d.region
			o.HTTPClient = c.http
			o.Retryer = aws.NopRetryer{} // dispatch retries
			if c.options.Endpoint != "" {
				o.BaseEndpoint = &c.options.Endpoint
			}
			if who.roleARN != "" {
				o.Credentials = aws.NewCredentialsCache(c.options.AssumeRole(who.roleARN, who.externalID, d.region))
			}
		})
		c.open[who] = client
	}
	return client
}

// queueURL is a parsed destination URL.
type queueURL struct {
	account string // "" is the deployment's own
	queue   string
	region  string
	fifo    bool
}

var (
	accountForm = regexp.MustCompile(`^[0-9]{12}$`)
	queueForm   = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
	regionForm  = regexp.MustCompile(`^[a-z]{2,3}(-[a-z]+)+-[0-9]{1,2}$`)
)

func parse(t destination.Target, u *url.URL) (queueURL, error) {
	d := queueURL{region: u.Query().Get("region")}
	path := strings.TrimPrefix(u.Path, "/")
	if path == "" {
		d.queue = u.Host
	} else {
		d.account, d.queue = u.Host, path
	}
	name, fifo := strings.CutSuffix(d.queue, ".fifo")
	d.fifo = fifo
	for key, values := range u.Query() {
		if key != "region" || len(values) != 1 {
			return d, fmt.Errorf("the parameter %q is not one of an SQS URL, or there twice: region is the only one", key)
		}
	}
	switch {
	case u.User != nil:
		return d, errors.New("a URL must not hold a user name or password: access is given by the queue's policy, or by role_arn")
	case u.Fragment != "":
		return d, errors.New("a fragment (#…) means nothing here: leave it out")
	case u.Opaque != "" || d.queue == "":
		return d, errors.New("the queue's name is missing")
	case path != "" && !accountForm.MatchString(d.account):
		return d, errors.New("the account is not twelve digits")
	case !queueForm.MatchString(name) || len(d.queue) > 80:
		return d, errors.New("the queue's name is not 1 to 80 letters, digits, - and _ (.fifo at the end of a FIFO queue's)")
	case !regionForm.MatchString(d.region):
		return d, errors.New("the region is missing or malformed: add ?region=, such as us-east-1")
	case t.Credentials != "":
		return d, errors.New("credentials are for Kafka, not for SQS: access is given by the queue's policy, or by role_arn")
	case t.Ordered:
		return d, errors.New("ordered is for Pub/Sub; for order on SQS use a FIFO queue")
	}
	return d, nil
}

// sender sends to one queue.
type sender struct {
	destination queueURL
	client      *sqs.Client
	endpoint    string

	mu  sync.Mutex
	url string // of the queue; "" until it is known
}

// Close has nothing to end: the connections belong to all senders together.
func (s *sender) Close() error { return nil }

// Deliver sends the message once.
func (s *sender) Deliver(ctx context.Context, m destination.Message) delivery.Outcome {
	began := time.Now()
	attributes := m.Attributes()
	size := len(m.Body)
	in := &sqs.SendMessageInput{MessageBody: aws.String(string(m.Body)), MessageAttributes: make(map[string]types.MessageAttributeValue, len(attributes))}
	for name, value := range attributes {
		in.MessageAttributes[name] = types.MessageAttributeValue{DataType: aws.String("String"), StringValue: aws.String(value)}
		size += len(name) + len("String") + len(value)
	}
	if s.destination.fifo {
		in.MessageDeduplicationId, in.MessageGroupId = &m.EventID, aws.String(group(m))
	}
	receipt, err := s.send(ctx, in)
	o := delivery.Outcome{Class: delivery.Success}
	if err != nil {
		o = classify(ctx, err, size)
	}
	if x := destination.Observed(ctx); x != nil {
		observe(x, s.destination, attributes, in, receipt, err)
		x.EndedAfter = time.Since(began)
	}
	o.Timings.Total = time.Since(began)
	return o
}

func (s *sender) send(ctx context.Context, in *sqs.SendMessageInput) (*sqs.SendMessageOutput, error) {
	queue, err := s.queueURL(ctx)
	if err != nil {
		return nil, err
	}
	in.QueueUrl = &queue
	return s.client.SendMessage(ctx, in)
}

// observe shows an attempt to whoever looks.
func observe(x *destination.Exchange, d queueURL, attributes map[string]string, in *sqs.SendMessageInput, receipt *sqs.SendMessageOutput, err error) {
	x.Method, x.To, x.Ended = "SendMessage", d.queue, destination.PhaseExchange
	if in.QueueUrl != nil {
		x.To = *in.QueueUrl
	}
	x.RequestHeaders = destination.Fields(attributes)
	if d.fifo {
		x.RequestHeaders = append(x.RequestHeaders, destination.Field{Name: "MessageGroupId", Value: aws.ToString(in.MessageGroupId)},
			destination.Field{Name: "MessageDeduplicationId", Value: aws.ToString(in.MessageDeduplicationId)})
	}
	x.Cause = err
	if err == nil {
		x.ResponseHeaders = append(x.ResponseHeaders, destination.Field{Name: "MessageId", Value: aws.ToString(receipt.MessageId)})
		if receipt.SequenceNumber != nil {
			x.ResponseHeaders = append(x.ResponseHeaders, destination.Field{Name: "SequenceNumber", Value: *receipt.SequenceNumber})
		}
		return
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		x.Code = api.ErrorCode()
	}
}

// queueURL builds the queue's URL, or asks for it where the account is not known.
func (s *sender) queueURL(ctx context.Context) (string, error) {
	s.mu.Lock()
	known := s.url
	s.mu.Unlock()
	if known != "" {
		return known, nil
	}
	d := s.destination
	if d.account != "" {
		base := s.endpoint
		if base == "" {
			base = "https://sqs." + d.region + ".amazonaws.com"
		}
		known = base + "/" + d.account + "/" + d.queue
	} else {
		out, err := s.client.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &d.queue})
		if err != nil {
			return "", err
		}
		known = aws.ToString(out.QueueUrl)
	}
	s.mu.Lock()
	s.url = known
	s.mu.Unlock()
	return known, nil
}

// group is the message's FIFO group: its subject, or a digest of one that SQS
// would not take as it is.
func group(m destination.Message) string {
	g := m.Subject
	if g == "" {
		g = m.EventID
	}
	if len(g) <= maxGroup && !strings.ContainsFunc(g, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return g
	}
	sum := sha256.Sum256([]byte(g))
	return hex.EncodeToString(sum[:])
}

// classify reports a message that was not taken. size is the message's, in bytes.
func classify(ctx context.Context, err error, size int) delivery.Outcome {
	failed := func(c delivery.Class, sentence string) delivery.Outcome {
		return delivery.Outcome{Class: c, Error: sentence}
	}
	dead := func(c delivery.Class, sentence string) delivery.Outcome {
		return delivery.Outcome{Class: c, Error: sentence, Permanent: true}
	}
	var (
		missing  *types.QueueDoesNotExist
		api      smithy.APIError
		answered *awshttp.ResponseError
		name     *net.DNSError
	)
	status := 0
	if errors.As(err, &answered) {
		status = answered.HTTPStatusCode()
	}
	switch {
	case ctx.Err() != nil, errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return failed(delivery.Timeout, "SQS did not answer in time")
	case errors.As(err, &missing):
		return dead(delivery.Missing, "the queue does not exist: check account, name and region, and that it was not deleted")
	case errors.As(err, &api):
		o := refused(api.ErrorCode(), status, size)
		o.Status = status
		return o
	case errors.As(err, &name):
		return failed(delivery.DNS, "SQS's host has no address: is the region right?")
	}
	return failed(delivery.Connect, "SQS could not be reached")
}

// refused reports an error code of SQS, STS or KMS (their API references).
func refused(code string, status, size int) delivery.Outcome {
	o := delivery.Outcome{Class: delivery.Answered, Error: "SQS answered " + code}
	switch code {
	case "QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue", "QueueDeletedRecently", "AWS.SimpleQueueService.QueueDeletedRecently":
		return delivery.Outcome{Class: delivery.Missing, Permanent: true,
			Error: "the queue does not exist: check account, name and region, and that it was not deleted"}
	case "AccessDenied", "AccessDeniedException", "InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch",
		"InvalidSecurity", "NotAuthorized", "OptInRequired", "InvalidIdentityToken", "MissingAuthenticationToken":
		o.Class, o.Permanent = delivery.Denied, true
		o.Error += ": the queue's policy, or the policy of the role in role_arn and its trust (with the tenant as external id), must let dispatch's role send"
	case "KmsAccessDenied", "KMS.AccessDeniedException", "KmsDisabled", "KMS.DisabledException", "KmsInvalidState", "KMS.KMSInvalidStateException",
		"KmsNotFound", "KMS.NotFoundException", "KmsOptInRequired", "KMS.OptInRequired", "KmsInvalidKeyUsage", "KMS.InvalidKeyUsageException":
		o.Class, o.Permanent = delivery.Denied, true
		o.Error += ": the key that encrypts the queue must be enabled and let dispatch's role generate data keys"
	case "RequestThrottled", "Throttling", "ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded", "OverLimit", "KmsThrottled", "KMS.ThrottlingException":
		o.Class = delivery.Throttled
	case "InvalidMessageContents":
		o.Class, o.Permanent = delivery.Invalid, true
		o.Error += ": the event holds characters that SQS does not take (U+FFFE, U+FFFF)"
	case "InvalidParameterValue", "InvalidParameterValueException", "MessageTooLong",
		"InvalidAttributeValue": // ElasticMQ's word for it
		// All else in the request was checked before; what remains is the size.
		o.Class, o.Permanent = delivery.TooLarge, true
		o.Error += fmt.Sprintf(": the message has %d bytes with its attributes; raise the queue's MaximumMessageSize (at most %d)", size, maxMessage)
	case "UnsupportedOperation", "InvalidAddress", "MissingParameter", "InvalidQueryParameter":
		o.Class, o.Permanent = delivery.Invalid, true
		o.Error += ": the queue does not take such messages"
	default:
		if status >= 500 {
			o.Error += ", which is its own trouble"
		}
	}
	return o
}
