// Package sqsadapter delivers events to standard and FIFO SQS queues. It promises that
// one Deliver is at most one SendMessage, that the message body is the event and its
// headers are message attributes, and that on a FIFO queue the deduplication id is the
// event's id and the message group is its subject.
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
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
	"github.com/tidings-dev/tidings/pkg/endpoint"
)

const (
	form           = "sqs://account/queue?region=us-east-1, or sqs://queue?region=us-east-1 for a queue of the deployment's own account"
	maxMessage     = 1 << 20 // bytes, with attributes; a limit of SQS
	maxConnections = 50      // per region
	maxGroup       = 128     // bytes of a message group id; a limit of SQS
	idleTime       = 15 * time.Second
)

// Options are shared by all adapters of a router.
type Options struct {
	// Config returns the function's AWS configuration. Its HTTP client is not used.
	Config func() aws.Config
	// AssumeRole returns the credentials of a role. It must not call STS before they
	// are retrieved.
	AssumeRole func(roleARN, externalID, region string) aws.CredentialsProvider
	// Endpoint overrides the URL of SQS, for local use. Empty means AWS.
	Endpoint string
	// Now is the clock for pauses between requests; nil means time.Now.
	Now func() time.Time
}

// Kind returns the SQS protocol for a router. Adapters share the connections, and one
// client per region and role.
func Kind(o Options) destination.Kind {
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		MaxIdleConnsPerHost: maxConnections, MaxConnsPerHost: maxConnections,
		IdleConnTimeout: idleTime,
		DialContext:     (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
	}
	connections := &careful{next: transport, pause: destination.Pause{Now: o.Now}}
	client := &http.Client{
		Transport: connections,
		// A response must not redirect signed requests elsewhere.
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
			connections.renew()
			return nil
		},
	}
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

// maxResponse is the number of bytes of a response that are read. SQS answers a
// SendMessage with less than 1 KB.
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

// identity is the key of a client. The external id is the tenant, chosen by Tidings and
// not by the endpoint's owner: otherwise a tenant could use a role that trusts Tidings
// for another tenant (the confused deputy problem, IAM User Guide).
type identity struct{ region, roleARN, externalID string }

// clients holds one client per identity, so that endpoints share assumed roles.
type clients struct {
	options Options
	http    *http.Client

	mu   sync.Mutex
	open map[identity]*sqs.Client
}

func (c *clients) client(t destination.Target, d queueURL) *sqs.Client {
	who := identity{region: d.region}
	if t.RoleARN != "" {
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
	account string // empty means the deployment's account
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
	if t.Format == endpoint.FormatCloudEventsBinary {
		return d, errors.New("SQS has no binary mode of CloudEvents: use the format cloudevents")
	}
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
			return d, fmt.Errorf("parameter %q is unknown or a duplicate: an SQS URL has region, once", key)
		}
	}
	switch {
	case u.User != nil:
		return d, errors.New("a URL must not hold a user name or password: grant access with the queue's policy, or set role_arn")
	case u.Fragment != "":
		return d, errors.New("an SQS URL has no fragment (#…): remove it")
	case u.Opaque != "" || d.queue == "":
		return d, errors.New("the queue name is missing")
	case path != "" && !accountForm.MatchString(d.account):
		return d, errors.New("the account id is not twelve digits")
	case !queueForm.MatchString(name) || len(d.queue) > 80:
		return d, errors.New("the queue name is malformed: it has 1 to 80 letters, digits, - and _, and ends with .fifo for a FIFO queue")
	case !regionForm.MatchString(d.region):
		return d, errors.New("the region is missing or malformed: add ?region=, such as us-east-1")
	case t.Credentials != "":
		return d, errors.New("credentials apply to Kafka, not to SQS: grant access with the queue's policy, or set role_arn")
	case t.Ordered:
		return d, errors.New("ordered applies to Pub/Sub; for ordering on SQS use a FIFO queue")
	}
	return d, nil
}

// sender sends to one queue.
type sender struct {
	destination queueURL
	client      *sqs.Client
	endpoint    string

	mu  sync.Mutex
	url string // the queue's URL; empty until it is known
}

// Close does nothing: all senders share the connections.
func (s *sender) Close() error { return nil }

// Deliver sends the message once.
func (s *sender) Deliver(ctx context.Context, m destination.Message) delivery.Outcome {
	began := time.Now()
	attributes := m.Attributes("")
	for name, value := range attributes {
		if !carries(value) {
			return delivery.Outcome{Class: delivery.Invalid, Permanent: true,
				Error: "nothing was sent: the message attribute " + name + " would be empty or have a character that SQS does not allow"}
		}
	}
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

// carries reports whether a text can be the value of a message attribute: it is not empty
// and has only characters that SQS allows (SendMessage, API reference).
func carries(text string) bool {
	return text != "" && utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool {
		return r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xFFFE || r == 0xFFFF
	})
}

func (s *sender) send(ctx context.Context, in *sqs.SendMessageInput) (*sqs.SendMessageOutput, error) {
	queue, err := s.queueURL(ctx)
	if err != nil {
		return nil, err
	}
	in.QueueUrl = &queue
	receipt, err := s.client.SendMessage(ctx, in)
	if err == nil && receipt.MessageId == nil {
		err = errNoReceipt
	}
	return receipt, err
}

var errNoReceipt = errors.New("the response has no MessageId")

// observe fills the exchange.
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

// queueURL returns the queue's URL. Without an account, it asks SQS once.
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

// group returns the message group id: the subject, or its SHA-256 if it is too long or
// contains characters that SQS does not allow.
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

// classify returns the outcome for an error. size is the message's size in bytes.
func classify(ctx context.Context, err error, size int) delivery.Outcome {
	failed := func(c delivery.Class, sentence string) delivery.Outcome {
		return delivery.Outcome{Class: c, Error: sentence}
	}
	var (
		missing  *types.QueueDoesNotExist
		api      smithy.APIError
		answered *awshttp.ResponseError
		name     *net.DNSError
		dial     *net.OpError
		sending  *smithyhttp.RequestSendError
		decoding *smithy.DeserializationError
	)
	status := 0
	if errors.As(err, &answered) {
		status = answered.HTTPStatusCode()
	}
	switch {
	case ctx.Err() != nil, errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return failed(delivery.Timeout, "timeout while waiting for a response from SQS")
	case errors.As(err, &missing):
		return refused("QueueDoesNotExist", size)
	case errors.As(err, &api):
		o := refused(api.ErrorCode(), size)
		o.Status = status
		return o
	case errors.As(err, &name):
		return failed(delivery.DNS, "the host name of SQS does not exist: check the region")
	case errors.Is(err, errSwitched):
		o := failed(delivery.Answered, "SQS answered 101 Switching Protocols: something else listens at its address")
		o.Status = http.StatusSwitchingProtocols
		return o
	case errors.As(err, &dial) && dial.Op == "dial":
		return failed(delivery.Connect, "could not connect to SQS")
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return failed(delivery.Connect, "connection reset by SQS")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return failed(delivery.Protocol, "SQS closed the connection without a response")
	case errors.Is(err, errNoReceipt), errors.As(err, &sending), errors.As(err, &decoding):
		return failed(delivery.Protocol, "the response is not one of SQS: something else may listen at its address")
	}
	return failed(delivery.Connect, "could not connect to SQS")
}

// refused returns the outcome for an error code of SQS, STS or KMS (API references).
func refused(code string, size int) delivery.Outcome {
	o := delivery.Outcome{Class: delivery.Answered, Error: "SQS answered " + code}
	switch code {
	case "QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue", "QueueDeletedRecently", "AWS.SimpleQueueService.QueueDeletedRecently":
		return delivery.Outcome{Class: delivery.Missing, Permanent: true,
			Error: "the queue does not exist: check account, name and region"}
	case "AccessDenied", "AccessDeniedException", "InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch",
		"InvalidSecurity", "NotAuthorized", "OptInRequired", "InvalidIdentityToken", "MissingAuthenticationToken":
		o.Class, o.Permanent = delivery.Denied, true
		o.Error += ": allow the dispatch function's role to send, in the queue's policy or with role_arn (a role that trusts it, with the tenant as external id)"
	case "KmsAccessDenied", "KMS.AccessDeniedException", "KmsDisabled", "KMS.DisabledException", "KmsInvalidState", "KMS.KMSInvalidStateException",
		"KmsNotFound", "KMS.NotFoundException", "KmsOptInRequired", "KMS.OptInRequired", "KmsInvalidKeyUsage", "KMS.InvalidKeyUsageException":
		o.Class, o.Permanent = delivery.Denied, true
		o.Error += ": the queue's KMS key must be enabled, and must allow the dispatch function's role to generate data keys"
	case "RequestThrottled", "Throttling", "ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded", "OverLimit", "KmsThrottled", "KMS.ThrottlingException":
		o.Class = delivery.Throttled
	case "InvalidMessageContents":
		o.Class, o.Permanent = delivery.Invalid, true
		o.Error += ": the event contains characters that SQS does not allow (U+FFFE, U+FFFF)"
	case "InvalidParameterValue", "InvalidParameterValueException", "MessageTooLong",
		"InvalidAttributeValue": // ElasticMQ
		// Only the size can be invalid: everything else was validated.
		o.Class, o.Permanent = delivery.TooLarge, true
		o.Error += fmt.Sprintf(": the message has %d bytes with its attributes; raise the queue's MaximumMessageSize (at most %d)", size, maxMessage)
	case "UnsupportedOperation", "InvalidAddress", "MissingParameter", "InvalidQueryParameter":
		o.Class, o.Permanent = delivery.Invalid, true
		o.Error += ": the queue rejects the message"
	}
	return o
}
